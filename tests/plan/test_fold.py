"""Folding: constants, shapes, Ifs decided beforehand and at run time, dead nodes, bounds; and what stays of memory over many shapes."""

import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastrnn as fr
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Graph, Model, Node, State, Value
from fastrnn.plan.graph.fold import BUDGET_PER_BYTE, LEAST_BUDGET, fold

MODEL = Path(__file__).parents[2] / "examples/characters/char_gru.safetensors"
RANDOM = np.random.default_rng(0)
BACKENDS = ["native", "reference"]


def weights(*shape):
    return RANDOM.uniform(-0.5, 0.5, shape).astype(np.float32)


def folded(model, **shapes):
    return fold(model, {v.name: shapes.get(v.name, v.shape) for v in model.inputs})


def test_what_depends_on_constants_alone_is_computed_and_dead_nodes_go():
    model = Model((Value("x", "float32", ("B", 3)),), ("y",),
                  (Node("Mul", "twice", ("w", "two"), ("w2",)), Node("Transpose", "turn", ("w2",), ("w3",)), Node("Tanh", "dead", ("x",), ("unused",)),
                   Node("MatMul", "product", ("x", "w3"), ("p",)), Node("Add", "sum", ("p", "b"), ("y",))),
                  {"w": weights(4, 3), "two": np.float32([2]), "b": weights(4), "never": weights(9)})  # fmt: skip
    left = folded(model)
    assert [n.op for n in left.nodes] == ["MatMul", "Add"] and set(left.weights) == {"w3", "b"}
    explained = fr.compile(model).explain()
    assert "Gemm" in explained and "NumPy" not in explained  # the sum is the product's bias
    x = RANDOM.standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_allclose(fr.compile(model)(x), evaluate(model, {"x": x})["y"], rtol=1e-5, atol=1e-6)


def test_folding_stops_at_its_budget():
    """A small file that asks for much: what fits is folded, what does not is left to run, and gives the same."""
    side = 600
    model = Model(
        (Value("x", "float32", (1, side)),),
        ("y",),
        (Node("Expand", "grow", ("one", "shape"), ("big",)), Node("Exp", "exp", ("big",), ("other",)), Node("Add", "sum", ("x", "other"), ("y",))),
        {"one": np.float32([[1]]), "shape": np.array([side, side])},
    )
    assert max(LEAST_BUDGET, BUDGET_PER_BYTE * 16) < 4 * side * side * 2
    assert "Exp" in [n.op for n in folded(model).nodes]
    x = RANDOM.standard_normal((1, side)).astype(np.float32)
    np.testing.assert_allclose(fr.compile(model)(x), x + np.exp(np.float32(1)) + np.zeros((side, 1), np.float32), rtol=1e-6, atol=1e-6)


def test_shapes_in_use_decide_what_the_graph_computes_from_them():
    """Reshape by a target that Shape, Gather and Concat put together: symbols follow it, numbers decide it."""
    model = Model((Value("x", "float32", ("T", "B", 2, 3)),), ("y",),
                  (Node("Shape", "s", ("x",), ("sizes",)), Node("Slice", "first", ("sizes", "zero", "two"), ("leading",)),
                   Node("Concat", "target", ("leading", "rest"), ("shape",), {"axis": 0}), Node("Reshape", "r", ("x", "shape"), ("y",))),
                  {"zero": np.array([0]), "two": np.array([2]), "rest": np.array([-1])})  # fmt: skip
    assert model.outputs[0].shape == ("T", "B", 6)
    assert [n.op for n in folded(model, x=(4, 5, 2, 3)).nodes] == ["Reshape"]
    x = weights(4, 5, 2, 3)
    assert np.array_equal(fr.compile(model)(x), x.reshape(4, 5, 6))


def branches(then_op, else_op):
    """If over x (B, 3): each branch one op, and a constant of its own."""
    return {
        "then_branch": Graph((Node(then_op, "then", ("x", "w1"), ("t",)),), ("t",)),
        "else_branch": Graph((Node(else_op, "else", ("x", "w2"), ("e",)),), ("e",)),
    }


def if_model(condition: tuple, extra=(), **values):
    return Model(
        (Value("x", "float32", ("B", 3)), *extra),
        ("y",),
        (*condition, Node("If", "choice", ("c",), ("y",), branches("MatMul", "MatMul"))),
        {"w1": weights(3, 2), "w2": weights(3, 2), **values},
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flag", [True, False])
def test_an_if_is_decided_by_a_constant(flag, backend):
    model = if_model((), c=np.array(flag))
    assert [n.op for n in folded(model).nodes] == ["MatMul", "Identity"]
    x = weights(4, 3)
    np.testing.assert_allclose(fr.compile(model, backend=backend)(x), x @ model.weights["w1" if flag else "w2"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_if_is_decided_by_shapes(backend):
    """The same session takes one branch for a batch of 2, the other for any other."""
    model = if_model(
        (Node("Shape", "s", ("x",), ("sizes",)), Node("Gather", "g", ("sizes", "zero"), ("B",)), Node("Equal", "e", ("B", "two"), ("c",))),
        zero=np.array(0),
        two=np.array(2),
    )
    session = fr.compile(model, backend=backend)
    for B in (2, 3, 1, 2):
        x = weights(B, 3)
        np.testing.assert_allclose(session(x), x @ model.weights["w1" if B == 2 else "w2"], rtol=1e-5, atol=1e-6)
    assert session.plan.specialised({"x": (2, 3)}).nodes[0].op != "If" and "decided" in session.explain()


def data_model(**more):
    """If over whether the sum of x is above 0."""
    return if_model(
        (Node("ReduceSum", "sum", ("x",), ("s",), {"keepdims": 0}), Node("Greater", "above", ("s", "zero"), ("c",))), zero=np.float32(0), **more
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_if_that_data_decides_runs_one_branch(backend, monkeypatch):
    model = data_model()
    session = fr.compile(model, backend=backend)
    for sign in (1, -1, 1):
        x = sign * np.abs(weights(4, 3))
        np.testing.assert_allclose(session(x), x @ model.weights["w1" if sign > 0 else "w2"], rtol=1e-5, atol=1e-6)
        if backend == "native":  # NumPy's products promise no bits over batches
            assert np.array_equal(session(x[:1]), session(x)[:1])


def test_ifs_inside_ifs_and_values_from_around_them():
    """Nested, with states of a layer inside a branch; compared with the evaluation for every way through."""
    inner = {"then_branch": Graph((Node("Relu", "r", ("h",), ("a",)),), ("a",)), "else_branch": Graph((Node("Neg", "n", ("h",), ("b",)),), ("b",))}
    outer = {
        "then_branch": Graph((Node("GRU", "gru", ("x", "w", "r_", "", "", "h0"), ("", "h")), Node("If", "inner", ("d",), ("k",), inner)), ("k",)),
        "else_branch": Graph((Node("Add", "plus", ("h0", "h0"), ("p",)),), ("p",)),
    }
    model = Model(
        (Value("x", "float32", ("T", "B", 3)), Value("h0", "float32", (1, "B", 4)), Value("c", "bool", ()), Value("d", "bool", (1,))),
        ("y",),
        (Node("If", "outer", ("c",), ("y",), outer),),
        {"w": weights(1, 12, 3), "r_": weights(1, 12, 4)},
    )
    assert model.outputs[0].shape == (1, "B", 4)
    for backend in BACKENDS:
        session = fr.compile(model, backend=backend)
        for c in (True, False):
            for d in (True, False):
                inputs = {"x": weights(5, 2, 3), "h0": weights(1, 2, 4), "c": np.array(c), "d": np.array([d])}
                np.testing.assert_allclose(session.run(inputs)["y"], evaluate(model, inputs)["y"], rtol=1e-5, atol=1e-6)


def test_an_index_inside_a_branch_is_only_checked_where_it_is_taken():
    taken = {
        "then_branch": Graph((Node("Gather", "g", ("table", "i"), ("a",)),), ("a",)),
        "else_branch": Graph((Node("Identity", "k", ("default",), ("b",)),), ("b",)),
    }
    model = Model(
        (Value("i", "int64", (2,)), Value("c", "bool", ())),
        ("y",),
        (Node("If", "choice", ("c",), ("y",), taken),),
        {"table": weights(4, 3), "default": weights(2, 3)},
    )
    session, bad = fr.compile(model), np.array([0, 7])
    assert np.array_equal(session(bad, np.array(False)), model.weights["default"])
    with pytest.raises(fr.ShapeError, match="'g'.*7 is outside -4..3"):
        session(bad, np.array(True))
    assert np.array_equal(session(np.array([1, -1]), np.array(True)), model.weights["table"][[1, 3]])


def test_branches_of_different_shapes_are_refused_only_where_data_decides():
    uneven = {
        "then_branch": Graph((Node("Identity", "a", ("x",), ("t",)),), ("t",)),
        "else_branch": Graph((Node("Transpose", "b", ("x",), ("e",)),), ("e",)),
    }
    nodes = Node("Greater", "above", ("level", "zero"), ("c",)), Node("If", "choice", ("c",), ("y",), uneven)
    model = Model((Value("x", "float32", (2, 3)), Value("level", "float32", ())), ("y",), nodes, {"zero": np.float32(0)})
    with pytest.raises(fr.UnsupportedModelError, match="'choice'.*constants="):
        fr.compile(model)(weights(2, 3), np.float32(1))
    for level, shape in ((1, (2, 3)), (-1, (3, 2))):
        assert fr.compile(model, constants={"level": np.array(level, np.float32)})(weights(2, 3)).shape == shape


def test_names_in_subgraphs_are_checked():
    x = Value("x", "float32", ("B", 3))
    sibling = {"then_branch": Graph((Node("Relu", "a", ("x",), ("t",)),), ("t",)), "else_branch": Graph((Node("Relu", "b", ("t",), ("e",)),), ("e",))}
    leaking = (Node("If", "i", ("c",), ("y",), branches("Add", "Sub")), Node("Relu", "after", ("t",), ("z",)))
    values = {"c": np.array(True), "w1": weights(3), "w2": weights(3)}
    for nodes, message in (
        ((Node("If", "i", ("c",), ("y",), sibling),), "'t' is not defined"),
        (leaking, "'t' is not defined"),
        ((Node("If", "i", ("c",), ("t",), branches("Add", "Sub")),), "'t' is defined twice"),
        ((Node("If", "then", ("c",), ("y",), branches("Add", "Sub")),), "second node"),
        ((Node("If", "i", ("c",), ("y",), {"then_branch": sibling["then_branch"]}),), "else_branch"),
    ):
        with pytest.raises(fr.InvalidModelError, match=message):
            Model((x,), (nodes[-1].outputs[0],), nodes, values)


def test_subgraphs_survive_the_file(tmp_path):
    model, x = data_model(), weights(4, 3)
    model.save(tmp_path / "m.safetensors")
    again = fr.load(tmp_path / "m.safetensors")
    assert str(again.graph) == str(model.graph) and "then" in str(model.graph)
    for sign in (1, -1):
        assert np.array_equal(fr.compile(again)(sign * np.abs(x)), fr.compile(model)(sign * np.abs(x)))


def test_weights_in_a_branch_are_packed_once():
    """Whatever the number of shapes: the layer in the branch that they choose."""
    layer = {
        "then_branch": Graph((Node("GRU", "gru", ("x", "w", "r"), ("y1", "")),), ("y1",)),
        "else_branch": Graph((Node("GRU", "other", ("x", "w", "r2"), ("y2", "")),), ("y2",)),
    }
    model = Model((Value("x", "float32", ("T", "B", 3)),), ("y",),
                  (Node("Size", "n", ("x",), ("size",)), Node("Greater", "g", ("size", "zero"), ("c",)), Node("Squeeze", "s", ("c",), ("d",)), Node("If", "i", ("d",), ("y",), layer)),
                  {"w": weights(1, 12, 3), "r": weights(1, 12, 4), "r2": weights(1, 12, 4), "zero": np.array(0)})  # fmt: skip
    session = fr.compile(model)
    for T in (2, 3, 4):
        session(weights(T, 1, 3))
    first = session.plan.packed.get("gru") or session.plan.later["gru"]
    for T in (5, 2):
        specialised = session.plan.specialised({"x": (T, 1, 3)})
        assert session.plan.packed_for(specialised.nodes[0], specialised.weights) is first


def test_a_stream_with_an_if_that_data_decides():
    """The state doubles while it is small, else it starts again: h' = 2 h if sum(h) < 10, else x."""
    choose = {
        "then_branch": Graph((Node("Add", "double", ("h", "h"), ("a",)),), ("a",)),
        "else_branch": Graph((Node("Identity", "again", ("x",), ("b",)),), ("b",)),
    }
    model = Model((Value("x", "float32", ("B", 1)), Value("h", "float32", ("B", 1))), ("y", "n"),
                  (Node("ReduceSum", "s", ("h",), ("sum",), {"keepdims": 0}), Node("Less", "small", ("sum", "ten"), ("c",)), Node("If", "choice", ("c",), ("n",), choose),
                   Node("Neg", "out", ("n",), ("y",))), {"ten": np.float32(10)}, (State("h", "n"),))  # fmt: skip
    stream = fr.compile(model).stream()
    stream.state = {"h": np.float32([[3]])}
    assert [float(stream.step(np.float32([[1]]))[0, 0]) for _ in range(5)] == [-6, -12, -1, -2, -4]


def onnx_if():
    """An ONNX If whose branches use the same names, capture an outer value, and build a weight from constants inside."""

    def branch(scale):
        nodes = [
            helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.float32([scale]))),
            helper.make_node("Mul", ["x", "k"], ["out"]),
        ]
        return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])

    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch(2.0), else_branch=branch(-1.0))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B"]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B"])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_an_onnx_if_with_the_same_names_in_both_branches():
    model = fr.from_onnx(onnx_if())
    session, x = fr.compile(model), np.float32([1, -2])
    assert session(x, np.array(True)).tolist() == [2, -4] and session(x, np.array(False)).tolist() == [-1, 2]
    assert fr.compile(model, constants={"c": np.array(True)})(x).tolist() == [2, -4]
    proto = onnx_if()
    proto.graph.node[0].attribute[0].g.node[1].input[0] = "nowhere"
    with pytest.raises(fr.InvalidModelError, match="nowhere"):
        fr.from_onnx(proto)
    assert isinstance(proto, onnx.ModelProto)


MEMORY = """
import sys, numpy as np, fastrnn as fr
session, random = fr.compile(fr.load(sys.argv[1])), np.random.default_rng(0)
shapes = [(int(t), 1 + k % 20) for k, t in enumerate(random.permutation(100) + 1)]
assert len(set(shapes)) == 100
def resident():
    return int(open("/proc/self/statm").read().split()[1])
def run(shape):
    session(np.zeros(shape, np.int64))
for shape in shapes + [(100 - k, 20) for k in range(9)]:
    run(shape)
before = resident()
for k in range(1000):
    run(shapes[k % 100])
print((resident() - before) / before)
"""


def test_memory_does_not_grow_with_the_number_of_shapes():
    """1,000 runs over 100 shapes, after each was seen once, in a process with little else in it."""
    done = subprocess.run([sys.executable, "-c", MEMORY, MODEL], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.05


@pytest.mark.parametrize("what", ["padding", "an Einsum", "an empty array"])
def test_a_small_result_that_takes_much_memory_or_time_is_not_computed_beforehand(what):
    """4 GiB around four numbers, 10^10 products, a triangle of 2^40 places that hold nothing: loaded and compiled in no time."""
    node, weights = {
        "padding": (
            Node("Conv", "a", ("c", "w"), ("a",), {"pads": (1 << 29, 1 << 29), "strides": (1 << 28,)}),
            {"c": np.ones((1, 1, 4), np.float32), "w": np.ones((1, 1, 2), np.float32)},
        ),
        "an Einsum": (Node("Einsum", "a", ("c",) * 5, ("a",), {"equation": "i,j,k,l,m->"}), {"c": np.ones(100, np.float32)}),
        "an empty array": (Node("Trilu", "a", ("c",), ("a",)), {"c": np.ones((0, 1 << 20, 1 << 20), np.float32)}),
    }[what]
    tracemalloc.start()
    started = time.process_time()
    fr.compile(Model((Value("x", "float32", ("N",)),), ("y", "a"), (Node("Relu", "y", ("x",), ("y",)), node), weights))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - started < 1 and peak < 64 << 20


def test_too_little_memory_for_a_run_is_a_typed_error(monkeypatch):
    model = Model((Value("x", "float32", ("N",)),), ("y",), (Node("Tanh", "t", ("x",), ("t",)), Node("Softmax", "y", ("t",), ("y",))), {})
    session, x = fr.compile(model), np.arange(4, dtype=np.float32)

    def nothing_left(shape, dtype):
        raise MemoryError(f"Unable to allocate {shape}")

    with monkeypatch.context() as patch:
        session(x[:2])  # the first call makes room for few
        patch.setattr("fastrnn.runtime.executor._executor.aligned_zeros", nothing_left)
        with pytest.raises(fr.OutOfMemoryError, match=r"'x' \(400,\): Unable to allocate") as raised:
            session(np.zeros(400, np.float32))
    assert isinstance(raised.value, MemoryError)
    np.testing.assert_allclose(session(x), np.exp(np.tanh(x)) / np.exp(np.tanh(x)).sum(), rtol=1e-6)
