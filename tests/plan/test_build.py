"""Planning: where values lie, what is checked, and random graphs against the NumPy evaluation."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Model, Node, State, Value
from fastrnn.plan.lowering.memory import Arena
from fastrnn.runtime.executor._executor import lay_out

RANDOM = np.random.default_rng(0)


def weights(*shape):
    return RANDOM.uniform(-0.5, 0.5, shape).astype(np.float32)


def random_graph(random):
    """Views, layers and elementwise ops over (n, B, 3) values, with several of them as outputs."""
    nodes, values, tensors = [], {"x": 2, "y": 3}, {}
    for k in range(int(random.integers(3, 12))):
        name, source = f"v{k}", str(random.choice(list(values)))
        op = str(random.choice(["Slice", "Concat", "Identity", "Tanh", "Relu", "Gemm", "RNN", "squeeze"]))
        if op == "Slice":
            start = int(random.integers(0, values[source]))
            stop = int(random.integers(start + 1, values[source] + 1))
            tensors |= {f"{name}.start": np.array([start]), f"{name}.stop": np.array([stop])}
            nodes.append(Node(op, name, (source, f"{name}.start", f"{name}.stop"), (name,)))
            values[name] = stop - start
        elif op == "Concat":
            sources = [str(s) for s in random.choice(list(values), int(random.integers(1, 4)))]
            nodes.append(Node(op, name, tuple(sources), (name,), {"axis": 0}))
            values[name] = sum(values[s] for s in sources)
        elif op == "Gemm":
            tensors |= {
                f"{name}.w": random.uniform(-0.5, 0.5, (3, 3)).astype(np.float32),
                f"{name}.b": random.uniform(-0.5, 0.5, 3).astype(np.float32),
            }
            nodes.append(Node(op, name, (source, f"{name}.w", f"{name}.b"), (name,)))
            values[name] = values[source]
        elif op == "RNN":
            tensors |= {
                f"{name}.w": random.uniform(-0.5, 0.5, (1, 3, 3)).astype(np.float32),
                f"{name}.r": random.uniform(-0.5, 0.5, (1, 3, 3)).astype(np.float32),
            }
            nodes.append(Node(op, name, (source, f"{name}.w", f"{name}.r"), (name, f"{name}.h"), {"torch_form": 1}))
            values |= {name: values[source], f"{name}.h": 1}
        elif op == "squeeze":
            if values[source] == 1:
                tensors["first"] = np.array([0])
                nodes += [Node("Squeeze", f"{name}.s", (source, "first"), (f"{name}.s",)), Node("Unsqueeze", name, (f"{name}.s", "first"), (name,))]
                values[name] = 1
        else:
            nodes.append(Node(op, name, (source,), (name,)))
            values[name] = values[source]
    outputs = [str(v) for v in random.permutation(list(values))[: int(random.integers(1, 5))]]
    return Model((Value("x", "float32", (2, "B", 3)), Value("y", "float32", (3, "B", 3))), tuple(outputs), tuple(nodes), tensors)


@pytest.mark.parametrize("seed", range(10))
def test_random_graphs_of_views_and_layers(seed):
    random = np.random.default_rng(seed)
    for _ in range(100):
        model, B = random_graph(random), int(random.integers(1, 4))
        inputs = {"x": random.standard_normal((2, B, 3)).astype(np.float32), "y": random.standard_normal((3, B, 3)).astype(np.float32)}
        expected = evaluate(model, inputs)
        for backend in ("native", "reference"):
            got = fr.compile(model, backend=backend).run(inputs)
            for name, value in expected.items():
                np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5, err_msg=str(model.graph))


def test_one_input_indexing_two_tables_is_held_to_both():
    model = Model(
        (Value("i", "int64", ("B",)),),
        ("a", "b"),
        (Node("Gather", "small", ("s", "i"), ("a",), {"wrap": 0}), Node("Gather", "large", ("l", "i"), ("b",), {"wrap": 0})),
        {"s": weights(2, 3), "l": weights(50, 3)},
    )
    for backend in ("native", "reference"):
        session = fr.compile(model, backend=backend)
        session(np.array([1]))
        with pytest.raises(fr.ShapeError, match="5 is outside 0..1"):
            session(np.array([5]))


def test_lengths_shared_by_layers_of_different_T():
    def node(name, x):
        return Node("RNN", name, (x, "w", "r", "", "n"), (f"{name}.y",), {"torch_form": 1, "direction": "reverse"})

    model = Model(
        (Value("x", "float32", ("T", "B", 2)), Value("z", "float32", ("S", "B", 2)), Value("n", "int64", ("B",))),
        ("a.y", "b.y"),
        (node("a", "x"), node("b", "z")),
        {"w": weights(1, 3, 2), "r": weights(1, 3, 3)},
    )
    session = fr.compile(model)
    inputs = {"x": weights(9, 1, 2), "z": weights(2, 1, 2), "n": np.array([2])}
    for name, value in evaluate(model, inputs).items():
        np.testing.assert_allclose(session.run(inputs)[name], value, atol=1e-6)
    with pytest.raises(fr.ShapeError, match="9 is outside 0..2"):
        session.run({**inputs, "n": np.array([9])})


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_computed_indices_are_checked_before_they_are_used(backend):
    """Sums of an input, of every integer dtype: out of range they raise, by the node's name; negative ones count from the end."""
    table = {"t": weights(4, 3), "one": np.array(1)}
    nodes = (Node("Add", "next", ("i", "one"), ("k",)), Node("Gather", "g", ("t", "k"), ("y",)))
    session = fr.compile(Model((Value("i", "int64", ("B",)),), ("k", "y"), nodes, table), backend=backend)
    assert np.array_equal(session(np.array([0, 2, -3]))[1], table["t"][[1, 3, -2]])
    for bad in (3, -6, 2**40):
        with pytest.raises(fr.ShapeError, match=f"'g'.*{bad + 1} is outside -4..3"):
            session(np.array([0, bad]))


def test_an_index_that_is_a_state_is_refused():
    table = {"t": weights(4, 3)}
    state = Model(
        (Value("j", "int64", ("B",)), Value("i", "int64", ("B",))),
        ("y", "k"),
        (Node("Gather", "g", ("t", "i"), ("y",)), Node("Identity", "id", ("j",), ("k",))),
        table,
        (State("i", "k"),),
    )
    with pytest.raises(fr.UnsupportedModelError, match="'i'.*index"):
        fr.compile(state).stream()


def test_an_index_changed_during_a_call_cannot_reach_the_kernel():
    """The checked integers are the runner's own copy."""
    import threading

    table = weights(4, 3)
    session = fr.compile(Model((Value("i", "int64", ("B",)),), ("y",), (Node("Gather", "g", ("t", "i"), ("y",)),), {"t": table}))
    index, stop = np.zeros(200_000, np.int64), threading.Event()

    def spoil():
        while not stop.is_set():
            index[-1] = 2**40
            index[-1] = 0

    thread = threading.Thread(target=spoil)
    thread.start()
    try:
        for _ in range(30):
            try:
                y = session(index)
            except fr.ShapeError:
                continue
            assert (y == table[0]).all()
    finally:
        stop.set()
        thread.join()


def test_values_of_rank_0_and_of_many_axes():
    tanh = Model((Value("x", "float32", ()),), ("y",), (Node("Tanh", "t", ("x",), ("y",)),), {})
    np.testing.assert_allclose(fr.compile(tanh)(np.float32(0.5)), np.tanh(0.5), rtol=1e-6)
    steps = [Node("Unsqueeze", f"u{k}", (f"v{k}", "first"), (f"v{k + 1}",)) for k in range(9)]
    with pytest.raises(fr.UnsupportedModelError, match="9 dimensions"):
        Model((Value("v0", "float32", ()),), ("v9",), tuple(steps), {"first": np.array([0])})
    scalar = Model((Value("x", "float32", ()),), ("y",), (Node("Gelu", "g", ("x",), ("y",)),), {})
    assert fr.compile(scalar, constants={"x": np.float32(1)}, backend="reference")().shape == ()


def test_an_output_behind_an_omitted_input_is_refused_by_name():
    model = Model(
        (Value("x", "float32", ("B",)), Value("h", "float32", (2, "B"), optional=True)),
        ("y", "part"),
        (Node("Tanh", "t", ("x",), ("y",)), Node("Slice", "s", ("h", "zero", "one"), ("part",))),
        {"zero": np.array([0]), "one": np.array([1])},
    )
    with pytest.raises(fr.ShapeError, match="'part'"):
        fr.compile(model)(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "node,message",
    [
        (Node("Gemm", "n", ("i", "w"), ("y",)), "float32"),
        (Node("Relu", "n", ("i",), ("y",)), "float32"),
        (Node("Concat", "n", ("i", "x"), ("y",), {"axis": 0}), "dtypes"),
        (Node("Concat", "n", ("x", "x"), ("y",)), "axis"),
        (Node("Gemm", "n", ("x", "w"), ("y",), {"transB": 2}), "transB"),
        (Node("Gemm", "n", ("x", "v"), ("y",)), "transposed"),
        (Node("Relu", "n", ("x", "x"), ("y",)), "1 to 1 inputs"),
        (Node("Relu", "n", ("x",), ("y", "z")), "outputs"),
        (Node("Relu", "n", ("",), ("y",)), "missing"),
        (Node("LeakyRelu", "n", ("x",), ("y",), {"alpha": 10**400}), "alpha"),
    ],
)
def test_malformed_nodes(node, message):
    with pytest.raises((fr.InvalidModelError, fr.UnsupportedModelError, fr.ShapeError), match=f"'n'.*{message}"):
        Model((Value("x", "float32", ("B", 3)), Value("i", "int64", ("B", 3))), ("y",), (node,), {"w": weights(3, 3), "v": weights(4, 3)})


def test_blocks_do_not_overlap_while_they_are_held():
    """What is given back serves again, whatever the sizes are when the executor lays it out."""
    random, arena, held, lives, clock = np.random.default_rng(0), Arena(), [], {}, 0
    for clock in range(2_000):
        if held and random.random() < 0.5:
            block = held.pop(int(random.integers(len(held))))
            arena.give(block)
            lives[block] = lives[block][0], clock
        else:
            block = arena.take(None)
            held.append(block)
            lives[block] = clock, 2_000
    blocks = arena.blocks()
    for _ in range(3):
        nbytes = random.integers(0, 1_000, len(blocks.nbytes))
        offsets, end = lay_out(blocks.events, nbytes)
        assert not (offsets % 64).any() and (offsets + nbytes <= end).all() and end < sum(-(-max(int(n), 1) // 64) * 64 for n in nbytes) / 4
        for block, (born, died) in lives.items():
            others = [o for o, (b, d) in lives.items() if o != block and b < died and born < d]
            assert all(offsets[block] + nbytes[block] <= offsets[o] or offsets[o] + nbytes[o] <= offsets[block] for o in others)
