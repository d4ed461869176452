"""Cells of recurrent layers spelled out in ONNX's elementwise ops, what only looks like them, and the ways in which files run them."""

import itertools

import numpy as np
from onnx import TensorProto, helper, numpy_helper

T, B, I, H = 5, 3, 4, 6


class Writer:
    """Nodes and weights of a graph in the making; names count up."""

    def __init__(self, seed=0):
        self.random, self.nodes, self.weights, self.count = np.random.default_rng(seed), [], {}, itertools.count()

    def __call__(self, op, *inputs, n=1, **attributes):
        """Appends a node; its output's name, or names."""
        names = [f"v{next(self.count)}" for _ in range(n)]
        self.nodes.append(helper.make_node(op, [i if isinstance(i, str) else self.const(i) for i in inputs], names, **attributes))
        return names[0] if n == 1 else names

    def const(self, array):
        name = f"w{next(self.count)}"
        self.weights[name] = np.asarray(array)
        return name

    def weight(self, *shape):
        return self.const((self.random.uniform(-1, 1, shape) / np.sqrt(H)).astype(np.float32))

    def graph(self, name, inputs, outputs):
        graph = helper.make_graph(self.nodes, name, inputs, outputs, [numpy_helper.from_array(a, n) for n, a in self.weights.items()])
        self.nodes, self.weights = [], {}
        return graph


def value(name, *shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape or (None if dtype == TensorProto.FLOAT else []))


# Cells: (write, x, h, c, weights) -> new states. weights: drawn once and shared by all steps.


def four(write, x, h, w):
    """torch: two Gemms, and their sum split."""
    return write("Split", write("Add", write("Gemm", x, w[0], w[1], transB=1), write("Gemm", h, w[2], w[3], transB=1)), n=4, axis=1)


def lstm(write, x, h, c, w, gates=four, last="Tanh", candidate="Tanh", gate="Sigmoid"):
    i, f, g, o = gates(write, x, h, w)
    c = write("Add", write("Mul", write(gate, f), c), write("Mul", write(gate, i), write(candidate, g)))
    return write("Mul", write(gate, o), write(last, c)), c


def joined(write, x, h, w):
    """TensorFlow: one product over what Concat joins, a bias behind it, the forget gate's own constant."""
    i, g, f, o = write("Split", write("Add", write("MatMul", write("Concat", x, h, axis=1), w[4]), w[1]), n=4, axis=-1)
    return i, write("Add", f, np.float32(1)), g, o


def separate(write, x, h, w):
    """A product for each gate and operand."""
    parts = [(slice(None), slice(k * H, (k + 1) * H)) for k in range(4)]
    cut = lambda name, part: write("Slice", name, np.array([part[1].start]), np.array([part[1].stop]), np.array([1]))
    return [write("Add", write("MatMul", x, cut(w[5], p)), write("Add", write("MatMul", h, cut(w[6], p)), cut(w[7], p))) for p in parts]


def gates_first(write, x, h, c, w):
    """The sigmoid over three gates at once, and the gates cut out of it."""
    a = write("Add", write("Gemm", x, w[0], w[1], transB=1), write("Gemm", h, w[2], w[3], transB=1))
    s = write("Sigmoid", write("Slice", a, np.array([0]), np.array([3 * H]), np.array([1])))
    i, f, o = write("Split", s, n=3, axis=1)
    g = write("Tanh", write("Slice", a, np.array([3 * H]), np.array([4 * H]), np.array([-1])))
    c = write("Sum", write("Mul", g, i), write("Mul", c, f))
    return write("Mul", write("Tanh", c), o), c


def gru(write, x, h, c, w, form="sum", gate="Sigmoid"):
    """torch: reset after the matrix."""
    xr, xz, xn = write("Split", write("Gemm", x, w[8], w[9], transB=1), n=3, axis=1)
    hr, hz, hn = write("Split", write("Gemm", h, w[10], w[11], transB=1), n=3, axis=1)
    r, z = write(gate, write("Add", xr, hr)), write(gate, write("Add", xz, hz))
    n = write("Tanh", write("Add", xn, write("Mul", r, hn)))
    return mixed(write, z, n, h, form), None


def mixed(write, z, n, h, form):
    if form == "sum":
        return write("Add", write("Mul", write("Sub", np.float32(1), z), n), write("Mul", z, h))
    if form == "difference":
        return write("Add", n, write("Mul", z, write("Sub", h, n)))
    return write("Add", write("Mul", write("Sub", np.float32(1), z), h), write("Mul", z, n))  # turned


def gru_before(write, x, h, c, w, form="sum"):
    """Keras: reset before the matrix."""
    xz, xr, xn = write("Split", write("Add", write("MatMul", x, w[12]), w[9]), n=3, axis=1)
    hz, hr = write("Split", write("MatMul", h, w[13]), n=2, axis=1)
    z, r = write("Sigmoid", write("Add", xz, hz)), write("Sigmoid", write("Add", hr, xr))
    return mixed(write, z, write("Tanh", write("Add", xn, write("MatMul", write("Mul", r, h), w[14]))), h, form), None


def gru_joined(write, x, h, c, w):
    """Reset before the matrix, x and r h joined in front of it."""
    zr = write("Sigmoid", write("Add", write("MatMul", write("Concat", x, h, axis=1), w[15]), w[16]))
    z, r = write("Split", zr, n=2, axis=1)
    return mixed(write, z, write("Tanh", write("MatMul", write("Concat", x, write("Mul", r, h), axis=1), w[17])), h, "turned"), None


def rnn(write, x, h, c, w, activation="Tanh"):
    return write(activation, write("Add", write("Gemm", x, w[18], w[19], transB=1), write("MatMul", h, w[20]))), None


CELLS = {
    "lstm": ("LSTM", lstm), "lstm_joined": ("LSTM", lambda *a: lstm(*a, gates=joined)), "lstm_separate": ("LSTM", lambda *a: lstm(*a, gates=separate)),
    "lstm_gates_first": ("LSTM", gates_first), "lstm_hard": ("LSTM", lambda *a: lstm(*a, gate="HardSigmoid")),
    "lstm_relu": ("LSTM", lambda *a: lstm(*a, last="Relu", candidate="Softsign")),
    "gru": ("GRU", gru), "gru_difference": ("GRU", lambda *a: gru(*a, form="difference")), "gru_turned": ("GRU", lambda *a: gru(*a, form="turned")),
    "gru_before": ("GRU", gru_before), "gru_joined": ("GRU", gru_joined), "rnn": ("RNN", rnn), "rnn_relu": ("RNN", lambda *a: rnn(*a, activation="Relu")),
}  # fmt: skip


def peephole(write, x, h, c, w):
    i, f, g, o = four(write, x, h, w)
    i = write("Add", i, write("Mul", c, w[21]))
    c = write("Add", write("Mul", write("Sigmoid", f), c), write("Mul", write("Sigmoid", i), write("Tanh", g)))
    return write("Mul", write("Sigmoid", o), write("Tanh", c)), c


def old_cell(write, x, h, c, w):
    """The output shows the cell before the step."""
    i, f, g, o = four(write, x, h, w)
    new = write("Add", write("Mul", write("Sigmoid", f), c), write("Mul", write("Sigmoid", i), write("Tanh", g)))
    return write("Mul", write("Sigmoid", o), write("Tanh", c)), new


def coupled(write, x, h, c, w):
    """i = 1 - f."""
    _, f, g, o = four(write, x, h, w)
    f = write("Sigmoid", f)
    c = write("Add", write("Mul", f, c), write("Mul", write("Sub", np.float32(1), f), write("Tanh", g)))
    return write("Mul", write("Sigmoid", o), write("Tanh", c)), c


def residual(write, x, h, c, w):
    new, c = lstm(write, x, h, c, w)
    return write("Add", new, h), c


def scaled(write, x, h, c, w):
    i, f, g, o = four(write, x, h, w)
    c = write("Add", write("Mul", write("Sigmoid", f), c), write("Mul", np.float32(0.5), write("Mul", write("Sigmoid", i), write("Tanh", g))))
    return write("Mul", write("Sigmoid", o), write("Tanh", c)), c


def another_gate(write, x, h, c, w):
    """The output's gate has a function of its own."""
    i, f, g, o = four(write, x, h, w)
    c = write("Add", write("Mul", write("Sigmoid", f), c), write("Mul", write("Sigmoid", i), write("Tanh", g)))
    return write("Mul", write("HardSigmoid", o), write("Tanh", c)), c


def reset_of_x(write, x, h, c, w):
    """r times what comes from x, not from h."""
    xr, xz, xn = write("Split", write("Gemm", x, w[8], w[9], transB=1), n=3, axis=1)
    hr, hz, hn = write("Split", write("Gemm", h, w[10], w[11], transB=1), n=3, axis=1)
    r, z = write("Sigmoid", write("Add", xr, hr)), write("Sigmoid", write("Add", xz, hz))
    return mixed(write, z, write("Tanh", write("Add", hn, write("Mul", r, xn))), h, "sum"), None


def turned_hard(write, x, h, c, w):
    """1 - HardSigmoid(a) is HardSigmoid(-a) too, but not with another beta."""
    xz, xr, xn = write("Split", write("Gemm", x, w[8], w[9], transB=1), n=3, axis=1)
    hz, hr, hn = write("Split", write("Gemm", h, w[10], w[11], transB=1), n=3, axis=1)
    z, r = (write("HardSigmoid", write("Add", a, b), beta=0.3) for a, b in ((xz, hz), (xr, hr)))
    return mixed(write, z, write("Tanh", write("Add", xn, write("Mul", r, hn))), h, "turned"), None


def update_of_reset(write, x, h, c, w):
    """A GRU whose update gate sees r h too."""
    _, xr, xn = write("Split", write("Add", write("MatMul", x, w[12]), w[9]), n=3, axis=1)
    _, hr = write("Split", write("MatMul", h, w[13]), n=2, axis=1)
    seen = write("MatMul", write("Mul", write("Sigmoid", write("Add", hr, xr)), h), w[14])
    return mixed(write, write("Sigmoid", seen), write("Tanh", write("Add", xn, seen)), h, "sum"), None


NEAR = {"update_of_reset": update_of_reset, "peephole": peephole, "old_cell": old_cell, "coupled": coupled, "scaled": scaled, "another_gate": another_gate,
        "reset_of_x": reset_of_x, "turned_hard": turned_hard, "normalised": lambda write, x, h, c, w: lstm(write, x, h, c, w, gates=lambda write, x, h, w: write(
            "Split", write("LayerNormalization", write("Add", write("Gemm", x, w[0], w[1], transB=1), write("Gemm", h, w[2], w[3], transB=1)), np.ones(4 * H, np.float32)), n=4, axis=1))}  # fmt: skip


def drawn(write, I=I):
    """The weights of every cell, under names that subgraphs see."""
    shapes = [(4 * H, I), (4 * H,), (4 * H, H), (4 * H,), (I + H, 4 * H), (I, 4 * H), (H, 4 * H), (1, 4 * H), (3 * H, I), (3 * H,), (3 * H, H), (3 * H,),
              (I, 3 * H), (H, 2 * H), (H, H), (I + H, 2 * H), (2 * H,), (I + H, H), (H, I), (H,), (H, H), (H,)]  # fmt: skip
    return [write.weight(*s) for s in shapes]


def states(write, cell):
    """Whether the cell has one state or two."""
    probe = Writer()
    return 2 if cell(probe, "x", "h", "c", drawn(probe))[1] else 1


def finish(write, outputs, x_shape, n):
    inputs = [value("x", *x_shape), value("h0", "B", H), *([value("c0", "B", H)] if n == 2 else [])]
    graph = write.graph("g", inputs, [value(o) for o in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def scan(cell, backwards=False, batch_first=False):
    """y, and the last states."""
    write = Writer()
    w, n = drawn(write), states(None, cell)
    outer, write.nodes = (write.nodes, write.weights), []
    write.weights = {}
    h, c = cell(write, "xt", "h", "c", w)
    y = write("Identity", h)
    names = ["h", "c"][:n]
    body = write.graph("body", [value(s, "B", H) for s in names] + [value("xt", "B", I)], [value(v) for v in (h, c)[:n]] + [value(y)])
    write.nodes, write.weights = outer
    ends = write(
        "Scan",
        *[f"{s}0" for s in names],
        "x",
        n=n + 1,
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[int(batch_first)],
        scan_output_axes=[int(batch_first)],
        scan_input_directions=[int(backwards)],
        scan_output_directions=[int(backwards)],
    )
    return finish(write, ends, ("B", "T", I) if batch_first else ("T", "B", I), n)


def loop(cell, hoisted=False):
    """The steps counted by the length of x, each gathered; hoisted: what depends on x alone is computed before."""
    write = Writer()
    w, n = drawn(write), states(None, cell)
    trips = write("Gather", write("Shape", "x"), np.array(0))
    source = "x"
    if hoisted:
        source = write("Add", write("MatMul", "x", w[5]), w[7])
    outer = write.nodes, write.weights
    write.nodes, write.weights = [], {}
    xt = write("Gather", source, "i", axis=0)
    if hoisted:
        h, c = lstm(write, xt, "h", "c", w, gates=lambda write, x, h, w: write("Split", write("Add", x, write("MatMul", h, w[6])), n=4, axis=1))
    else:
        h, c = cell(write, xt, "h", "c", w)
    go, y = write("Identity", "go"), write("Identity", h)
    names = ["h", "c"][:n]
    body = write.graph(
        "body",
        [value("i", dtype=TensorProto.INT64), value("go", dtype=TensorProto.BOOL)] + [value(s, "B", H) for s in names],
        [value(go, dtype=TensorProto.BOOL)] + [value(v) for v in (h, c)[:n]] + [value(y)],
    )
    write.nodes, write.weights = outer
    ends = write("Loop", trips, np.array(True), *[f"{s}0" for s in names], n=n + 1, body=body)
    return finish(write, ends, ("T", "B", I), n)


def unrolled(cell, entries="gather", backwards=False, weights=None, keep=False):
    """T steps written out: y, and the last states. weights: for each step, instead of the same ones. keep: an early cell is an output as well."""
    write = Writer()
    w, n = drawn(write), states(None, cell)
    axis = int(entries.endswith("1"))
    rows = write("Split", "x", n=T, axis=axis) if entries.startswith("split") else [None] * T
    h, c, ys, cells = "h0", "c0", [], []
    for t in range(T)[::-1] if backwards else range(T):
        if entries.startswith("gather"):
            x = write("Gather", "x", np.array(t - T if t == T - 1 else t), axis=axis)
        else:
            x = rows[t] if rows[t] else write("Slice", "x", np.array([t]), np.array([t + 1]), np.array([axis]))
            x = write("Squeeze", x, np.array([axis]))
        h, c = cell(write, x, h, c, w if weights is None else weights(write, w, t))
        ys.append(write("Unsqueeze", h, np.array([0])))
        cells.append(c)
    y = write("Concat", *(ys[::-1] if backwards else ys), axis=0)
    return finish(write, [y, h, *([c] if n == 2 else []), *([cells[1]] if keep else [])], ("B", T, I) if axis else (T, "B", I), n)


def single(cell):
    write = Writer()
    n = states(None, cell)
    h, c = cell(write, "x", "h0", "c0", drawn(write))
    return finish(write, [h, c][:n], ("B", I), n)


WAYS = {
    "scan": scan,
    "scan_backwards": lambda cell: scan(cell, True),
    "scan_batch_first": lambda cell: scan(cell, batch_first=True),
    "loop": loop,
    "unrolled": unrolled,
    "unrolled_backwards": lambda cell: unrolled(cell, backwards=True),
    "unrolled_batch_first": lambda cell: unrolled(cell, "slice1"),
    "unrolled_split": lambda cell: unrolled(cell, "split0"),
}
