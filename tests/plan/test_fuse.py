"""What is fused and what is not; the same bits either way; values made where they will be joined or replaced."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Graph, Model, Node, Value
from fastrnn.plan import Plan, build_program
from fastrnn.plan.lowering.fuse import Fused, fuse


def rand(*shape, seed=0):
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def model_of(nodes, inputs, weights, outputs=("y",)):
    """nodes: (op, inputs, output, attributes)."""
    made = tuple(Node(op, name, tuple(given), (name,), attributes) for op, given, name, attributes in nodes)
    return Model(tuple(Value(n, str(np.asarray(a).dtype), np.shape(a)) for n, a in inputs.items()), tuple(outputs), made, weights)


def groups(model):
    """The nodes of each fused call, its head first."""
    return [tuple(n.name for n in ([node.head] if node.head else []) + list(node.nodes)) for node in fuse(model).nodes if isinstance(node, Fused)]


def same_unfused(model, inputs, monkeypatch):
    """The outputs, whose bits do not change without fusion and hold against NumPy."""
    fused = fr.compile(model).run(inputs)
    reference = fr.compile(model, backend="reference").run(inputs)
    monkeypatch.setattr(Plan, "fused", lambda self, model: model)
    alone = fr.compile(model).run(inputs)
    for name, y in fused.items():
        assert y.tobytes() == alone[name].tobytes()
        np.testing.assert_allclose(y, reference[name], rtol=1e-5, atol=1e-5)
    return fused


W2, CONV1, CONV2 = rand(7, 5), rand(6, 4, 3), rand(6, 4, 2, 3)
BEHIND = {
    "relu": ([("Relu", ["p"], "y", {})], {}),
    "tanh": ([("Tanh", ["p"], "y", {})], {}),
    "sigmoid": ([("Sigmoid", ["p"], "y", {})], {}),
    "clip": ([("Clip", ["p", "low", "high"], "y", {})], {"low": np.float32(-0.5), "high": np.float32(0.5)}),
    "elu": ([("Elu", ["p"], "y", {"alpha": 0.7})], {}),
    "hardsigmoid": ([("HardSigmoid", ["p"], "y", {})], {}),
    "silu": ([("Sigmoid", ["p"], "s", {}), ("Mul", ["p", "s"], "y", {})], {}),
    "gelu": ([("Gelu", ["p"], "y", {})], {}),
    "residual": ([("Add", ["p", "r"], "a", {}), ("Relu", ["a"], "y", {})], {}),
    "gate": ([("Sigmoid", ["r"], "s", {}), ("Mul", ["s", "p"], "y", {})], {}),
}


@pytest.mark.parametrize("what", [*BEHIND, "prelu"])
@pytest.mark.parametrize("head", ["Gemm", "Conv1", "Conv2", "grouped", "depthwise", "transposed"])
def test_what_follows_a_product_is_fused_into_it(head, what, monkeypatch):
    op, x, w, attributes, shape = {
        "Gemm": ("Gemm", rand(9, 7), W2, {}, (9, 5)),
        "Conv1": ("Conv", rand(2, 4, 20), CONV1, {"strides": [2], "pads": [1, 1]}, (2, 6, 10)),
        "Conv2": ("Conv", rand(2, 4, 5, 9), CONV2, {}, (2, 6, 4, 7)),
        "grouped": ("Conv", rand(2, 8, 5, 9), CONV2, {"group": 2}, (2, 6, 4, 7)),
        "depthwise": ("Conv", rand(2, 19, 5, 9), rand(19, 1, 3, 3), {"group": 19, "pads": [1, 1, 1, 1], "dilations": [1, 1]}, (2, 19, 5, 9)),
        "transposed": ("ConvTranspose", rand(2, 4, 6), rand(4, 6, 3), {"strides": [2]}, (2, 6, 13)),
    }[head]
    channels = shape[-1] if op == "Gemm" else shape[1]
    slope = rand(channels) if op == "Gemm" else rand(channels, *(1,) * (len(shape) - 2))
    behind, constants = BEHIND.get(what, ([("PRelu", ["p", "slope"], "y", {})], {"slope": slope}))
    inputs = {"x": x} | ({"r": rand(*shape, seed=5)} if what in ("residual", "gate") else {})
    model = model_of([(op, ["x", "w"], "p", attributes), *behind], inputs, {"w": w, **constants})
    assert groups(model) == [("p", *(name for _, _, name, _ in behind))]
    text = fr.compile(model).explain()
    assert all(any(name in line.split()[1] and "fused into p" in line for line in text.splitlines()) for _, _, name, _ in behind)
    same_unfused(model, inputs, monkeypatch)


POOLED = {  # x, w, the convolution's attributes, those of the pooling behind it
    "columns": (rand(3, 4, 21), CONV1, {"pads": [1, 1]}, {"kernel_shape": [2], "strides": [2]}),
    "image": (rand(1, 4, 13, 17), CONV2, {"pads": [1, 1, 0, 1]}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "images": (rand(2, 4, 13, 17), CONV2, {"pads": [1, 1, 0, 1]}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "frequencies": (rand(1, 1, 40, 31), rand(19, 1, 3, 3), {"pads": [1, 1, 1, 1]}, {"kernel_shape": [1, 3], "strides": [1, 3]}),
    "lines": (rand(1, 3, 40, 31), rand(35, 3, 3, 3), {"strides": [1, 2]}, {"kernel_shape": [4, 1], "strides": [4, 1]}),
    "grouped": (rand(1, 8, 12, 9), CONV2, {"group": 2}, {"kernel_shape": [3, 2], "strides": [3, 2]}),
    "depthwise": (rand(1, 37, 12, 30), rand(37, 1, 3, 3), {"group": 37, "pads": [1, 1, 1, 1]}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "pointwise": (rand(1, 24, 10, 90), rand(66, 24, 1, 1), {}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
}


@pytest.mark.parametrize("between", [(), ("Relu",), ("Add", "Silu")])
@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("case", POOLED)
def test_a_pooling_behind_a_convolution_is_fused_into_it(case, pool, between, monkeypatch):
    x, w, attributes, window = POOLED[case]
    conv = fr.compile(model_of([("Conv", ["x", "w"], "y", attributes)], {"x": x}, {"w": w}), backend="reference")
    rest = rand(*conv.run({"x": x})["y"].shape, seed=3)
    nodes, value = [("Conv", ["x", "w"], "p", attributes)], "p"
    for k, op in enumerate(between):
        nodes.append((op, [value, "rest"] if op == "Add" else [value], f"v{k}", {}))
        value = f"v{k}"
    inputs = {"x": x} | ({"rest": rest} if "Add" in between else {})
    model = model_of([*nodes, (pool, [value], "y", window)], inputs, {"w": w})
    (only,) = fuse(model).nodes
    assert only.pool.op == pool and only.head.op == "Conv" and len(only.nodes) == len(between)
    session = fr.compile(model)
    assert "pool_" not in session.explain({name: a.shape for name, a in inputs.items()})
    same_unfused(model, inputs, monkeypatch)
    threaded = fr.compile(model, threads=3).run(inputs)["y"]
    assert threaded.tobytes() == session.run(inputs)["y"].tobytes()


@pytest.mark.parametrize("window", [{"kernel_shape": [3, 3], "strides": [2, 2]}, {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]},
                                    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [2, 1]}])  # fmt: skip
def test_windows_that_meet_are_pooled_apart(window, monkeypatch):
    model = model_of([("Conv", ["x", "w"], "p", {}), ("MaxPool", ["p"], "y", window)], {"x": rand(1, 4, 12, 14)}, {"w": CONV2})
    assert len(fuse(model).nodes) == 2
    same_unfused(model, {"x": rand(1, 4, 12, 14)}, monkeypatch)


@pytest.mark.parametrize("op", ["Conv", "MaxPool", "Relu"])
@pytest.mark.parametrize("shape", [(1, 4, 12, 14), (2, 4, 12, 14), (3, 4, 19)])
def test_an_input_is_made_inside_its_padding(op, shape, monkeypatch):
    """By whatever makes it; a pooling's batch of images by a copy."""
    n, x = len(shape) - 2, rand(*shape)
    weights = {"w": rand(6, 4, *(3,) * n), "v": rand(5, 6 if op == "Conv" else 4, *(3,) * n) / 8}
    first = {"Conv": (["x", "w"], {}), "MaxPool": (["x"], {"kernel_shape": [2] * n, "strides": [1] * n}), "Relu": (["x"], {})}[op]
    nodes = [(op, first[0], "p", first[1]), ("Conv", ["p", "v"], "y", {"pads": [1, 2, *[1] * (2 * n - 2)][: 2 * n]})]
    model = model_of(nodes, {"x": x}, weights)
    session = fr.compile(model)
    program = build_program(session.plan, session.plan.specialised({"x": shape}))
    copies = [
        step
        for step in program.steps
        if step.node == "y" and "copy" in step.kernel.key.role and "weight" != step.pointers["x"].space and step.pointers["y"].space != "slot"
    ]
    assert len(copies) == (n == 2 and shape[0] > 1 and op == "MaxPool")
    same_unfused(model, {"x": x}, monkeypatch)


@pytest.mark.parametrize("order", [1, -1])
def test_a_hard_swish_needs_no_division(order):
    x = 5 * rand(40, 7)
    numbers = {"three": np.float32(3), "low": np.float32(0), "high": np.float32(6), "six": np.float32(6)}
    nodes = [
        ("Add", ["x", "three"][::order], "a", {}),
        ("Clip", ["a", "low", "high"], "c", {}),
        ("Mul", ["x", "c"][::order], "m", {}),
        ("Div", ["m", "six"], "y", {}),
    ]
    model = model_of(nodes, {"x": x}, numbers)
    session = fr.compile(model)
    assert not any(node.op == "Div" for node in session.plan.specialised({"x": x.shape}).nodes)
    want = x.astype(np.float64) * np.clip(x.astype(np.float64) + 3, 0, 6) / 6
    np.testing.assert_allclose(session.run({"x": x})["y"], want, rtol=4e-7, atol=1e-7)


NUMBERS = [("Add", 1), ("Add", 0), ("Sub", 1), ("Sub", 0), ("Mul", 1), ("Mul", 0), ("Div", 1), ("Div", 0)]


@pytest.mark.parametrize("op, where", NUMBERS)
@pytest.mark.parametrize("number", [0.3, -0.0, 0.0, np.inf, np.nan])
def test_a_number_is_part_of_its_operation(op, where, number):
    """As NumPy has it, zeros' signs too."""
    x = np.float32([0.0, -0.0, 1, -1, 0.3, -0.3, 1e30, np.inf, -np.inf, np.nan] * 5)
    given = ["x", "n"] if where else ["n", "x"]
    got = fr.compile(model_of([(op, given, "a", {}), ("Neg", ["a"], "y", {})], {"x": x}, {"n": np.float32(number)})).run({"x": x})["y"]
    a, b = (x, np.float32(number)) if where else (np.float32(number), x)
    with np.errstate(all="ignore"):
        want = -{"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[op](a, b)
    np.testing.assert_array_equal(got, want)
    assert np.array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(want[~np.isnan(want)]))


def test_what_others_read_is_not_fused(monkeypatch):
    """A value that is an output, that two read, or that a branch reads stays; so does a smaller one that is then broadcast."""
    x = rand(4, 7)
    wanted = model_of([("Gemm", ["x", "w"], "p", {}), ("Relu", ["p"], "y", {})], {"x": x}, {"w": W2}, ("p", "y"))
    assert groups(wanted) == []
    twice = model_of([("Tanh", ["x"], "t", {}), ("Relu", ["t"], "a", {}), ("Neg", ["t"], "y", {})], {"x": x}, {}, ("a", "y"))
    assert groups(twice) == []
    smaller = model_of([("Tanh", ["s"], "t", {}), ("Add", ["x", "t"], "y", {})], {"x": x, "s": rand(7)}, {})
    assert groups(smaller) == []
    for model in (wanted, twice, smaller):
        same_unfused(model, {n: rand(*v.shape) for n, v in ((v.name, v) for v in model.inputs)}, monkeypatch)


def test_a_run_is_one_call_without_buffers(monkeypatch):
    """Comparisons and choices among it; nothing in work space but what others read."""
    nodes = [("Mul", ["x", "x"], "a", {}), ("Sqrt", ["a"], "b", {}), ("Greater", ["b", "half"], "c", {}), ("Not", ["c"], "d", {}), ("Where", ["d", "x", "b"], "e", {}),
             ("Max", ["e", "row"], "f", {}), ("Log", ["f"], "y", {})]  # fmt: skip
    weights = {"half": np.float32(0.5), "row": np.abs(rand(7)) + np.float32(0.1)}
    model = model_of(nodes, {"x": rand(300, 7)}, weights)
    assert groups(model) == [tuple("abcdef") + ("y",)]
    session = fr.compile(model)
    assert "7 nodes in one pass" in session.explain()
    program = build_program(session.plan, session.plan.specialised({"x": (300, 7)}))
    assert len(program.steps) == 1 and not program.blocks.nbytes
    same_unfused(model, {"x": rand(300, 7)}, monkeypatch)


def test_a_program_holds_eight_operands(monkeypatch):
    inputs = {f"x{k}": rand(3, 5, seed=k) for k in range(12)}
    nodes = [("Add", [f"s{k - 1}" if k > 1 else "x0", f"x{k}"], "y" if k == 11 else f"s{k}", {}) for k in range(1, 12)]
    model = model_of(nodes, inputs, {})
    assert sorted(map(len, groups(model))) == [4, 7]
    same_unfused(model, inputs, monkeypatch)


def test_in_the_branches_of_an_if(monkeypatch):
    def branch(key, op):
        made = (
            Node("Gemm", f"{key}.p", ("x", "w"), (f"{key}.p",)),
            Node(op, f"{key}.a", (f"{key}.p",), (f"{key}.a",)),
            Node("Neg", f"{key}.y", (f"{key}.a",), (f"{key}.y",)),
        )
        return Graph(made, (f"{key}.y",))

    choice = Node("If", "choice", ("flag",), ("y",), {"then_branch": branch("a", "Relu"), "else_branch": branch("b", "Sigmoid")})
    model = Model((Value("x", "float32", ("B", 7)), Value("flag", "bool", ())), ("y",), (choice,), {"w": W2})
    assert fr.compile(model).explain().count("fused into") == 4
    for flag in (True, False):
        with monkeypatch.context() as patch:
            same_unfused(model, {"x": rand(4, 7), "flag": np.array(flag)}, patch)


def test_in_streams():
    """Steps give the bits of the whole, what follows the layer's projection fused."""
    nodes = (
        Node("GRU", "gru", ("x", "W", "R"), ("h",), {"hidden_size": 8}),
        Node("Squeeze", "flat", ("h", "axis"), ("f",)),
        Node("MatMul", "m", ("f", "w"), ("p",)),
        Node("Sigmoid", "s", ("p",), ("g",)),
        Node("Mul", "y", ("p", "g"), ("y",)),
    )
    weights = {"W": rand(1, 24, 7) / 3, "R": rand(1, 24, 8) / 3, "w": rand(8, 5), "axis": np.array([1])}
    session = fr.compile(Model((Value("x", "float32", ("T", "B", 7)),), ("y",), nodes, weights))
    assert session.explain().count("fused into m") == 2
    x, stream = rand(6, 2, 7), session.stream(batch=2)
    assert np.array_equal(session(x), np.stack([stream.step(x[t]) for t in range(6)]))


@pytest.mark.parametrize("turned", [False, True])
def test_parts_of_a_concat_are_made_in_place(turned):
    """Through views as well; no copy is left but for what comes from outside."""
    joined = [
        ("Relu", ["x"], "a", {}),
        ("Gemm", ["x", "w"], "b", {}),
        ("Transpose", ["b"], "bt", {"perm": [1, 0]}),
        ("Transpose", ["bt"], "c", {"perm": [1, 0]}),
        ("Concat", ["a", "c"], "j", {"axis": 1}),
        ("ReduceMax", ["j", "axes"], "y", {}),
    ]
    model = model_of(joined, {"x": rand(4, 7)}, {"w": W2, "axes": np.array([1 - turned])})
    session = fr.compile(model)
    program = build_program(session.plan, session.plan.specialised({"x": (4, 7)}))
    assert not [s for s in program.steps if s.kernel.name.startswith("copy")] or turned
    whole = np.concatenate([np.maximum(rand(4, 7), 0), rand(4, 7) @ W2], axis=1)
    np.testing.assert_allclose(session(rand(4, 7)), whole.max(axis=1 - turned, keepdims=True), rtol=1e-5)


def test_a_chain_of_replacements_copies_the_data_once():
    index = [np.array([[k]]) for k in range(3)]
    nodes = [("ScatterND", ["x" if k == 0 else f"s{k - 1}", f"i{k}", f"u{k}"], "y" if k == 2 else f"s{k}", {}) for k in range(3)]
    inputs = {"x": rand(4, 5), **{f"u{k}": rand(1, 5, seed=k) for k in range(3)}}
    session = fr.compile(model_of(nodes, inputs, {f"i{k}": i for k, i in enumerate(index)}))
    program = build_program(session.plan, session.plan.specialised({n: a.shape for n, a in inputs.items()}))
    assert len(program.steps) == 4 and not program.blocks.nbytes
    assert np.array_equal(session.run(inputs)["y"], np.concatenate([*(inputs[f"u{k}"] for k in range(3)), inputs["x"][3:]]))


def test_a_replaced_value_that_is_read_again_keeps_its_place():
    nodes = [("Tanh", ["x"], "t", {}), ("ScatterND", ["t", "i", "u"], "s", {}), ("Sub", ["s", "t"], "y", {})]
    model = model_of(nodes, {"x": rand(4, 5), "u": rand(1, 5)}, {"i": np.array([[2]])})
    got = fr.compile(model)(rand(4, 5), rand(1, 5))
    assert not got[[0, 1, 3]].any() and got[2].any()


@pytest.mark.parametrize(
    "op,number,turned,moved",
    [
        ("Div", 5.65, False, True),
        ("Mul", 0.177, False, True),
        ("Mul", -0.177, True, True),
        ("Div", 0.5, False, False),
        ("Mul", 2.0, True, False),
        ("Mul", np.nan, False, False),
    ],
)
def test_a_number_behind_a_product_scales_its_rows_where_those_are_shorter(op, number, turned, moved):
    nodes = (
        Node("Transpose", "kt", ("k",), ("kt",), {"perm": [0, 2, 1]}),
        Node("MatMul", "product", ("q", "kt"), ("p",)),
        Node(op, "scaled", ("s", "p") if turned else ("p", "s"), ("y",)),
    )
    model = Model(
        (Value("q", "float32", ("B", "T", 8)), Value("k", "float32", ("B", "S", 8))), ("y",), nodes, {"s": np.full((1,), number, np.float32)}
    )
    session, reference = fr.compile(model), fr.compile(model, backend="reference")
    names = [row[1] for row in session.plan.rows()]
    assert ("scaled.rows" in names) == moved and ("scaled" in names) != moved
    for b, t, s in ((1, 5, 7), (3, 9, 4), (2, 1, 1)):
        inputs = {"q": rand(b, t, 8), "k": rand(b, s, 8)}
        np.testing.assert_allclose(session.run(inputs)["y"], reference.run(inputs)["y"], rtol=1e-5, atol=1e-5)


def test_a_number_behind_a_product_stays_where_rows_are_longer_or_others_read_it():
    model = model_of([("MatMul", ["a", "b"], "p", {}), ("Mul", ["p", "s"], "y", {})], {"a": rand(4, 9), "b": rand(9, 5)}, {"s": np.float32(0.3)})
    assert "y.rows" not in [row[1] for row in fr.compile(model).plan.rows()]
    model = model_of(
        [("MatMul", ["a", "b"], "p", {}), ("Mul", ["p", "s"], "y", {})], {"a": rand(4, 5), "b": rand(5, 9)}, {"s": np.float32(0.3)}, ("y", "p")
    )
    assert "y.rows" not in [row[1] for row in fr.compile(model).plan.rows()]
