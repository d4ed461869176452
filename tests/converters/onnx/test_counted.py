"""Loops that constants end, as Keras' layers come out of tf2onnx: a count handed on, compared with the file's length; weights handed on; any length."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastrnn as fr
from fastrnn.testing import TOLERANCES, kernels_called

FLOAT, INT, INT32, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL
I, H = 3, 5
BIG = np.iinfo(np.int32).max
RANDOM = np.random.default_rng(0)


def value(name, dtype=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


class Body:
    """Nodes of a loop's body, written one after the other; constants by value."""

    def __init__(self):
        self.nodes, self.weights = [], {}

    def constant(self, array):
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def __call__(self, op, *inputs, **attributes):
        names = [name if isinstance(name, str) else self.constant(name) for name in inputs]
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [out], **attributes))
        return out

    def gates(self, x, n):
        """n parts of the last axis, by a Slice over both, as TensorFlow writes them."""
        return [self("Slice", x, np.array([0, k * H]), np.array([BIG, (k + 1) * H if k + 1 < n else BIG]), np.array([0, 1])) for k in range(n)]

    def hard(self, x, kind):
        if kind == "sigmoid":
            return self("Sigmoid", x)
        if kind == "hard_sigmoid":
            return self("HardSigmoid", x)
        if kind == "keras2":
            return self("Clip", self("Add", self("Mul", x, np.float32(0.2)), np.float32(0.5)), np.float32(0), np.float32(1))
        return self("Mul", self("Clip", self("Add", x, np.float32(3)), np.float32(0), np.float32(6)), np.float32(1 / 6))

    def affine(self, x, w, b):
        return self("Add", self("MatMul", x, w), b)


def lstm(b, x, h, c, kind, act):
    i, f, g, o = b.gates(b("Add", b.affine(x, "w", "b"), b("MatMul", h, "r")), 4)
    new = b("Add", b("Mul", b.hard(f, kind), c), b("Mul", b.hard(i, kind), b(act, g)))
    return [b("Mul", b.hard(o, kind), b(act, new)), new]


def gru_after(b, x, h, c, kind, act):
    (xz, xr, xn), (hz, hr, hn) = b.gates(b.affine(x, "w", "b"), 3), b.gates(b.affine(h, "r", "rb"), 3)
    z, r = b.hard(b("Add", xz, hz), kind), b.hard(b("Add", xr, hr), kind)
    n = b(act, b("Add", xn, b("Mul", r, hn)))
    return [b("Add", b("Mul", z, h), b("Mul", b("Sub", np.float32(1), z), n))]


def gru_before(b, x, h, c, kind, act):
    xz, xr, xn = b.gates(b.affine(x, "w", "b"), 3)
    cut = [b("Slice", "r", np.array([0, k * H]), np.array([BIG, (k + 1) * H]), np.array([0, 1])) for k in range(3)]
    z, r = (b.hard(b("Add", part, b("MatMul", h, w)), kind) for part, w in zip((xz, xr), cut))
    n = b(act, b("Add", xn, b("MatMul", b("Mul", r, h), cut[2])))
    return [b("Add", b("Mul", z, h), b("Mul", b("Sub", np.float32(1), z), n))]


def rnn(b, x, h, c, kind, act):
    return [b(act, b("Add", b.affine(x, "w", "b"), b("MatMul", h, "r")))]


CELLS = {"lstm": (lstm, 4, "LSTM"), "gru_after": (gru_after, 3, "GRU"), "gru_before": (gru_before, 3, "GRU"), "rnn": (rnn, 1, "RNN")}
ENDS = {  # of the count after a run n, the number of the run i, and the length
    "both": lambda b, n, i, T: b("And", b("Less", b("Cast", i, to=FLOAT), np.float32(T)), b("Less", b("Cast", n, to=FLOAT), np.float32(T))),
    "whole": lambda b, n, i, T: b("And", b("Less", b("Add", i, np.array(1)), np.array(T)), b("Less", n, np.array(T, np.int32))),
    "greater": lambda b, n, i, T: b("Greater", np.array(T, np.int32), n),
    "or_equal": lambda b, n, i, T: b("LessOrEqual", n, np.array(T - 1, np.int32)),
    "sub": lambda b, n, i, T: b("Less", b("Sub", n, np.array(T, np.int32)), np.array(0, np.int32)),
}


def written(cell, T, kind="sigmoid", act="Tanh", end="both", trips=None, first=0):
    """x (B, T, I) to the sequence (T, B, H) and the last state (B, H)."""
    make, gates, _ = CELLS[cell]
    states, b = ["h", "c"][: 1 + (cell == "lstm")], Body()
    row = b("Gather", "xs", b("Sub", "n", np.array(first, np.int32)) if first else "n", axis=0)
    new = make(b, row, "h", "c", kind, act)
    after, ends = b("Add", "n", np.array(1, np.int32)), None
    ends = ENDS[end](b, after, "i", T) if not first else b("Less", after, np.array(T + first, np.int32))
    y = b("Identity", new[0])
    body = helper.make_graph(b.nodes, "body", [value("i", INT, []), value("go", BOOL, []), value("n", INT32, []), *(value(s, FLOAT, ["B", H]) for s in states), value("w", FLOAT, [I, gates * H]),
                                               value("b", FLOAT, [gates * H])],
                             [value(ends, BOOL, []), value(after, INT32, []), *(value(s) for s in new), value("w"), value("b"), value(y)],
                             [numpy_helper.from_array(a, n) for n, a in b.weights.items()])  # fmt: skip
    scale = 1 if act == "Tanh" else 0.3  # relu grows
    weights = {
        "kernel": RANDOM.uniform(-scale, scale, (I, gates * H)),
        "bias": RANDOM.uniform(-1, 1, gates * H),
        "r": RANDOM.uniform(-scale, scale, (H, gates * H)) / 2,
        "rb": RANDOM.uniform(-1, 1, gates * H),
    }
    stored = {n: a.astype("f4") for n, a in weights.items()} | {
        "n0": np.array(first, np.int32),
        "go0": np.array(True),
        "trips": np.array(T if trips is None else trips),
        "zeros": np.zeros((1, H), "f4"),
    }
    outer = [
        helper.make_node("Transpose", ["x"], ["xs"], perm=[1, 0, 2]),
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "at"], ["batch"]),
        helper.make_node("Concat", ["batch", "units"], ["shape"], axis=0),
        helper.make_node("Expand", ["zeros", "shape"], ["h0"]),
    ]
    stored |= {"at": np.array([0]), "units": np.array([H])}
    results = ["n_end", "last", *(["c_end"] * (len(states) - 1)), "w_end", "b_end", "y"]  # all of them: ONNX Runtime crashes where one is left out
    loop = helper.make_node("Loop", ["trips" if trips != "none" else "", "go0", "n0", *["h0"] * len(states), "kernel", "bias"], results, body=body)
    if trips == "none":
        stored.pop("trips")
    graph = helper.make_graph(
        [*outer, loop],
        "g",
        [value("x", FLOAT, ["B", T, I])],
        [value("y", FLOAT, [None, None, H]), value("last", FLOAT, [None, H])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def agree(proto, T, op=None, batch=3):
    x = RANDOM.standard_normal((batch, T, I)).astype("f4")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    theirs = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})
    session = fr.compile(fr.from_onnx(proto))
    got = list(session.run({"x": x}).values())
    for mine, want in zip(got, theirs, strict=True):
        assert mine.shape == want.shape and np.abs(mine - want).max() <= TOLERANCES["network"] * max(1, np.abs(want).max())
    alone = session.run({"x": x[1:2]})
    assert np.array_equal(alone["last"][0], got[1][1])
    called = {kernel for kernels in kernels_called(session, {"x": x.shape}).values() for kernel in kernels}
    assert op is None or any(kernel.startswith(op.lower()) for kernel in called) and not any("dense" in kernel for kernel in called), called


@pytest.mark.parametrize("T", [1, 7, 300, 2500])
@pytest.mark.parametrize("cell", CELLS)
def test_any_length(cell, T):
    """2,500 times a dozen nodes could not be laid out."""
    agree(written(cell, T), T, CELLS[cell][2])


@pytest.mark.parametrize("act", ["Tanh", "Relu"])
@pytest.mark.parametrize("kind", ["sigmoid", "hard_sigmoid", "keras2", "keras3"])
@pytest.mark.parametrize("cell", ["lstm", "gru_after", "gru_before"])
def test_activations(cell, kind, act):
    agree(written(cell, 40, kind, act), 40, CELLS[cell][2])


@pytest.mark.parametrize("trips", [None, 1000, "none"])
@pytest.mark.parametrize("end", ENDS)
def test_ways_to_count(end, trips):
    agree(written("gru_before", 250, end=end, trips=trips), 250, "GRU")


def test_a_count_that_starts_elsewhere():
    """Not recognised by its index, but run, however long it is."""
    agree(written("lstm", 700, first=5), 700)


@pytest.mark.parametrize("trips", [1, 9])
def test_a_trip_count_that_ends_it_before(trips):
    agree(written("rnn", 12, trips=trips), 12)


def test_no_run_at_all():
    """ONNX Runtime gives (0, 0, 5) here, for want of a run."""
    got = fr.compile(fr.from_onnx(written("rnn", 12, trips=0))).run({"x": np.ones((3, 12, I), "f4")})
    assert got["y"].shape == (0, 3, H) and got["last"].shape == (3, H) and not got["last"].any()


def test_what_data_end_is_still_refused():
    proto = written("rnn", 12)
    body = next(a.g for n in proto.graph.node for a in n.attribute if a.name == "body")
    body.node.append(helper.make_node("ReduceMax", [body.output[2].name], ["top"], keepdims=0))
    body.node.append(helper.make_node("Less", ["top", "limit"], ["more"]))
    body.output[0].name = "more"
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(9), "limit"))
    with pytest.raises(fr.UnsupportedModelError, match="depends on data"):
        fr.compile(fr.from_onnx(proto)).run({"x": np.zeros((2, 12, I), "f4")})
