"""Streams of models that look back along time: convolutions with a history, delays, replicated starts; the bits of the whole sequence."""

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, Value
from fastrnn.model.ops import OPS
from fastrnn.testing import CAUSAL as STYLES
from fastrnn.testing import Net

T, B = 19, 3


def sequence(channels, batch=B, seed=1, steps=T):
    return np.random.default_rng(seed).standard_normal((batch, channels, steps)).astype(np.float32)


def check(model, x=None, cuts=(5, 5, 6), axis=2):
    """Steps, chunks and the whole sequence agree bit by bit; returns the stream and the whole."""
    x = sequence(model.inputs[0].shape[1]) if x is None else x
    session = fr.compile(model)
    whole, rows = session(x), np.ascontiguousarray(np.moveaxis(x, axis, 0))
    want, stream = np.moveaxis(whole, axis, 0), session.stream(len(x))
    assert np.isfinite(want).all() and np.ptp(want) > 0
    assert np.array_equal(np.stack([stream.step(row) for row in rows]), want)
    stream.reset()
    parts = np.split(rows, sorted(cuts))
    assert np.array_equal(np.concatenate([stream.push(np.ascontiguousarray(part)) for part in parts]), want)
    return stream, whole


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kernel,dilation,group", [(3, 1, 1), (2, 3, 1), (4, 2, 2), (3, 2, 6)])
def test_a_causal_convolution(style, kernel, dilation, group):
    net = Net(6)
    stream, _ = check(net.model(net.causal("x", style, kernel, dilation, group=group)))
    name = next(n for n in stream.state if n.startswith("conv") and n.endswith(".past"))
    assert stream.state[name].shape == (B, 6, (kernel - 1) * dilation)
    assert [n for n in stream.state if n.endswith(".started")] == ([name.replace("past", "started")] if style == "edge" else [])


def test_on_every_instruction_set(each_isa):
    net = Net(5)
    check(net.model(net.recurrent(net.causal(net.causal("x", "chomp", 3, 2, units=7), "edge", 2))))


def residual(net, x, dilation):
    """A block of a temporal convolutional network: two convolutions with their ends cut off, and what came in added."""
    y = net.add("Relu", net.causal(x, "chomp", 3, dilation))
    return net.add("Relu", net.add("Add", net.add("Relu", net.causal(y, "chomp", 3, dilation)), x))


def test_residual_blocks_delays_and_layers_after_one_another():
    net = Net(4)
    x = residual(net, residual(net, residual(net, "x", 1), 2), 4)
    x = net.add("Sub", x, net.delay(x, 3))  # a difference over three steps
    x = net.causal(net.recurrent(x, "LSTM"), "pads", 5)
    stream, _ = check(net.model(x))
    assert sum(n.endswith(".past") for n in stream.state) == 8 and sum(n.endswith((".h", ".c")) for n in stream.state) == 2


def test_padded_once_for_all_layers():
    """What the layers make of the padding is computed, not assumed to be zero."""
    net = Net(3)
    x = net.conv(net.pad("x", 9), kernel=3, dilation=2, units=5)
    x = net.conv(net.add("Tanh", x), kernel=2, dilation=3)
    stream, _ = check(net.model(net.conv(net.add("Sigmoid", x), kernel=3)))
    assert all(np.any(a) for n, a in stream.state.items() if n != "conv2.past")


def test_rows_are_apart():
    """A row is what it is alone; its NaN stays with it; one row may start afresh. The channels are as many as the rows."""
    net = Net(B)
    model = net.model(net.causal(residual(net, net.causal("x", "edge", 4), 2), "pads", 3))
    x, session = sequence(B), fr.compile(model)
    rows = np.ascontiguousarray(np.moveaxis(x, 2, 0))
    want = np.moveaxis(session(x), 2, 0)
    alone = session.stream(1)
    assert np.array_equal(alone.push(np.ascontiguousarray(rows[:, 1:2])), want[:, 1:2])
    stream, bad = session.stream(B), rows.copy()
    bad[4, 0] = np.nan
    got = stream.push(bad)
    assert np.array_equal(got[:, 1:], want[:, 1:]) and np.isnan(got[4, 0]).all()
    stream.push(rows)
    stream.reset([1])
    got = stream.push(rows[:9])
    assert np.array_equal(got[:, 1], want[:9, 1]) and not np.array_equal(got[:, 2], want[:9, 2])


def test_states_go_out_and_come_back():
    net = Net(4)
    session, x = fr.compile(net.model(net.recurrent(net.causal("x", "edge", 3, 2)))), np.ascontiguousarray(np.moveaxis(sequence(4), 2, 0))
    stream, other = session.stream(B), session.stream(B)
    assert list(stream.state) == ["conv1.started", "conv1.past", "gru3.h"] and stream.state["conv1.started"].dtype == bool
    stream.push(x[:7])
    other.state = stream.state
    assert np.array_equal(other.push(x[7:]), stream.push(x[7:]))
    with pytest.raises(fr.StateError, match="states are"):
        other.state = {"gru3.h": stream.state["gru3.h"]}
    with pytest.raises(fr.StateError, match="'conv1.past' must be float32"):
        other.state = {**stream.state, "conv1.past": stream.state["conv1.past"][..., :-1]}


def test_a_failed_step_changes_no_history():
    net = Net(4)
    stream, x = fr.compile(net.model(net.causal("x", "pads"))).stream(B), np.ascontiguousarray(np.moveaxis(sequence(4), 2, 0))
    stream.push(x[:3])
    before = stream.state
    with pytest.raises(fr.ShapeError):
        stream.step(x[3][:, :2])
    assert all(np.array_equal(a, before[n]) for n, a in stream.state.items())


def test_convolutions_over_time_and_frequency():
    """As denoisers have them: x (B, 2, T, F), a causal kernel of (2, 3), strided along F; then a GRU over all channels and bands."""
    random, shapes = np.random.default_rng(0), {"w1": (4, 2, 2, 3), "w2": (6, 4, 2, 3), "w": (1, 15, 6 * 4), "r": (1, 15, 5)}
    weights = {n: random.uniform(-0.3, 0.3, s).astype(np.float32) for n, s in shapes.items()}
    weights |= {
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 0]),
        "start": np.array([0]),
        "end": np.array([-1]),
        "axis": np.array([2]),
        "flat": np.array([0, 0, 24]),
    }
    nodes = (
        Node("Pad", "pad", ("x", "pads"), ("p",)),
        Node("Conv", "first", ("p", "w1"), ("a",), {"strides": [1, 2], "pads": [0, 1, 0, 1]}),
        Node("Elu", "elu", ("a",), ("e",)),
        Node("Conv", "second", ("e", "w2"), ("b",), {"strides": [1, 2], "pads": [1, 1, 1, 1]}),
        Node("Slice", "chomp", ("b", "start", "end", "axis"), ("c",)),
        Node("Transpose", "turn", ("c",), ("t",), {"perm": (2, 0, 1, 3)}),
        Node("Reshape", "flatten", ("t", "flat"), ("f",)),
        Node("GRU", "gru", ("f", "w", "r"), ("g",), {"torch_form": 1, "hidden_size": 5}),
        Node("Transpose", "back", ("g",), ("y",), {"perm": (1, 0, 2)}),
    )
    model = Model((Value("x", "float32", ("B", 2, "T", 15)),), ("y",), nodes, weights)
    x = random.standard_normal((B, 2, T, 15)).astype(np.float32)
    session, rows = fr.compile(model), np.ascontiguousarray(np.moveaxis(x, 2, 0))
    stream = session.stream(B)
    assert np.array_equal(np.stack([stream.step(row) for row in rows]), session(x).swapaxes(0, 1))
    assert {n: a.shape for n, a in stream.state.items()} == {"first.past": (B, 2, 1, 15), "second.past": (B, 4, 1, 8), "gru.h": (1, B, 5)}


@pytest.mark.parametrize("kernel,dilation,group,stride", [((2, 3), 1, 1, 2), ((3, 2), 2, 1, 1), ((2, 1), 3, 4, 1), ((1, 3), 1, 1, 2)])
def test_transposed_convolutions_as_decoders_have_them(kernel, dilation, group, stride):
    """What a step adds past its own output is cut off behind; behind a causal convolution with a skip connection."""
    random, reach = np.random.default_rng(0), (kernel[0] - 1) * dilation
    weights = {
        "w1": random.uniform(-0.4, 0.4, (4, 4, 2, 1)).astype(np.float32),
        "w2": random.uniform(-0.4, 0.4, (4, 8 // group, *kernel)).astype(np.float32),
        "b": random.uniform(-1, 1, 8).astype(np.float32),
        "zero": np.array([0]),
        "end": np.array([-reach if reach else 2**31]),
        "two": np.array([2]),
    }
    nodes = (Node("Conv", "enc", ("x", "w1"), ("a",), {"pads": [1, 0, 0, 0]}), Node("Add", "skip", ("a", "x"), ("s",)),
             Node("ConvTranspose", "dec", ("s", "w2", "b"), ("d",), {"strides": [1, stride], "dilations": [dilation, 1], "group": group, "pads": [0, 0, 0, 0]}),
             Node("Slice", "cut", ("d", "zero", "end", "two"), ("y",)))  # fmt: skip
    model = Model((Value("x", "float32", ("B", 4, "T", 5)),), ("y",), nodes, weights)
    stream, _ = check(model, random.standard_normal((B, 4, T, 5)).astype(np.float32))
    assert list(stream.state) == ["enc.past", *["dec.past"] * (reach > 0)]


@pytest.mark.parametrize(
    "op,options,match",
    [
        ("MaxPool", {"pads": [2, 0]}, None),
        ("MaxPool", {"pads": [4, 4], "dilations": [2]}, None),
        ("AveragePool", {"pads": [2, 0], "count_include_pad": 1}, None),
        ("AveragePool", {"pads": [2, 0]}, "count_include_pad=0"),
        ("MaxPool", {"pads": [1, 1]}, "looks 1 step ahead"),
        ("MaxPool", {"pads": [2, 0], "strides": [2]}, "stride along time is 2"),
    ],
)
@pytest.mark.skipif("MaxPool" not in OPS, reason="pooling is not in the vocabulary")
def test_pooling_over_the_last_steps(op, options, match):
    net = Net(4)
    y = net.add(op, net.conv("x", pads=(2, 0)), kernel_shape=[3], **options)
    model = net.model(net.cut(y, 0, -4) if options["pads"] == [4, 4] else y)
    if match:
        with pytest.raises(fr.NotStreamableError, match=match):
            fr.compile(model).stream(B)
    else:
        check(model, -2 - np.abs(sequence(4)), cuts=(5, 6))  # below what zeros would give


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.skipif("CumSum" not in OPS, reason="CumSum is not in the vocabulary")
def test_running_sums(exclusive):
    net = Net(4)
    stream, _ = check(net.model(net.add("CumSum", net.delay(net.conv("x", pads=(2, 0)), 1), net.weight(np.array(2)), exclusive=exclusive)))
    assert any(name.endswith(".sum") for name in stream.state)
    net = Net(4)
    backwards = net.model(net.add("CumSum", net.conv("x", pads=(2, 0)), net.weight(np.array(2)), reverse=1))
    with pytest.raises(fr.NotStreamableError, match="reverse=1 needs the whole sequence"):
        fr.compile(backwards).stream(B)


@fr.cell(gates=("z", "n"), states=("h", "m", "k"))
def three_states(z, n, h, m, k):
    z = fr.sigmoid(z)
    h = h + z * (fr.tanh(n) - h)
    return h, m * z + h, k + m


@pytest.mark.usefixtures("cells_compile")
def test_every_state_of_a_custom_cell_behind_a_convolution():
    net = Net(4)
    y = net.conv("x", pads=(2, 0))
    net.nodes += [
        Node("Transpose", "turn", (y,), ("t",), {"perm": (2, 0, 1)}),
        Node("Recurrent", "rec", ("t", net.draw(1, 12, 4), net.draw(1, 12, 6)), ("r",), {"cell": three_states.name, "hidden_size": 6}),
        Node("Transpose", "back", ("r",), ("b",), {"perm": (1, 2, 0)}),
    ]
    stream, _ = check(net.model("b"))
    assert list(stream.state) == ["conv0.past", "rec.h", "rec.m", "rec.k"]


def test_the_length_taken_from_a_shape():
    """x[:, :, :x.shape[2]], and a reshape to (B, T, ...) by Shape, as PyTorch's exporter writes them."""
    net = Net(4)
    size = net.add("Gather", net.add("Shape", "x"), net.weight(np.array([2])))
    y = net.add("Slice", net.conv("x", pads=(2, 2)), net.weight(np.array([0])), size, net.weight(np.array([2])))
    less = net.add(
        "Sub", net.add("Gather", net.add("Shape", (z := net.conv(y, kernel=2, pads=(1, 1)))), net.weight(np.array([2]))), net.weight(np.array([1]))
    )
    z = net.add("Slice", z, net.weight(np.array([0])), less, net.weight(np.array([2])))
    target = net.add(
        "Concat", net.weight(np.array([0])), net.weight(np.array([2, 2])), net.add("Gather", net.add("Shape", z), net.weight(np.array([2]))), axis=0
    )
    split = net.add("Reshape", z, target)
    back = net.add("Reshape", net.add("Tanh", split), net.add("Concat", net.weight(np.array([0, 4])), size, axis=0))
    check(net.model(back), cuts=(5, 6))  # of no steps, its targets would say 0: keep what is there


def test_layers_within_a_step():
    """Bidirectional over another axis: each step by itself, without a state."""
    random = np.random.default_rng(0)
    weights = {
        n: random.uniform(-0.4, 0.4, s).astype(np.float32) for n, s in {"w": (2, 9, 4), "r": (2, 9, 3), "w2": (1, 9, 3), "r2": (1, 9, 3)}.items()
    }
    weights["axes"] = np.array([0])
    nodes = (
        Node("GRU", "inner", ("x", "w", "r"), ("a",), {"torch_form": 1, "layout": 1, "hidden_size": 3, "direction": "bidirectional"}),
        Node("ReduceMax", "most", ("a", "one"), ("m",), {"keepdims": 0}),
        Node("Unsqueeze", "batch", ("m", "axes"), ("u",)),
        Node("Slice", "half", ("u", "axes", "three", "two"), ("s",)),
        Node("GRU", "outer", ("s", "w2", "r2"), ("y",), {"torch_form": 1, "layout": 1, "hidden_size": 3}),
    )
    weights |= {"one": np.array([1]), "two": np.array([2]), "three": np.array([3])}
    model = Model((Value("x", "float32", ("T", 7, 4)),), ("y",), nodes, weights)
    session, x = fr.compile(model), random.standard_normal((T, 7, 4)).astype(np.float32)
    stream = session.stream(1)
    assert list(stream.state) == ["outer.h"] and stream.time == "T"
    assert np.array_equal(np.stack([stream.step(row) for row in x]), session(x).swapaxes(0, 1))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("by_shape", [False, True])
def test_two_paths_over_folded_axes(batch, by_shape):
    """(B, T, F, C): a bidirectional layer over F with B and T folded, then one over T with B and F folded, as separation networks have them."""
    F, C, H, random = 5, 4, 3, np.random.default_rng(0)
    weights = {
        n: random.uniform(-0.4, 0.4, s).astype(np.float32)
        for n, s in {"w": (2, 9, C), "r": (2, 9, H), "w2": (1, 12, 2 * H), "r2": (1, 12, H)}.items()
    }
    weights |= {"rows": np.array([-1, F, C]), "apart": np.array([batch, -1, F, 2 * H]), "deep": np.array([batch * F, -1, 2 * H]), "back": np.array([batch, F, -1, H]),
                "i0": np.array([0]), "i1": np.array([1]), "tail": np.array([F, C]), "i2": np.array([2]), "i3": np.array([H])}  # fmt: skip
    nodes = [
        Node("GRU", "within", ("a", "w", "r"), ("b",), {"torch_form": 1, "layout": 1, "hidden_size": H, "direction": "bidirectional"}),
        Node("Reshape", "take out", ("b", "apart"), ("c",)),
        Node("Transpose", "turn", ("c",), ("d",), {"perm": (0, 2, 1, 3)}),
        Node("Reshape", "fold again", ("d", "deep"), ("e",)),
        Node("LSTM", "along", ("e", "w2", "r2"), ("f",), {"torch_form": 1, "layout": 1, "hidden_size": H}),
        Node("Reshape", "unfold", ("f", "back"), ("g",)),
        Node("Transpose", "end", ("g",), ("y",), {"perm": (0, 2, 1, 3)}),
    ]
    if by_shape:  # B * T by a product of entries of the shape
        nodes[:0] = [Node("Shape", "shape", ("x",), ("s",)), Node("Gather", "n", ("s", "i0"), ("n",)), Node("Gather", "t", ("s", "i1"), ("t",)), Node("Mul", "product", ("n", "t"), ("nt",)),
                     Node("Concat", "whole", ("nt", "tail"), ("target",), {"axis": 0}), Node("Reshape", "fold", ("x", "target"), ("a",)),
                     Node("Concat", "starts", ("i2", "nt", "i3"), ("z",), {"axis": 0}), Node("ConstantOfShape", "zeros", ("z",), ("h0",), {"value": 0.5})]  # fmt: skip
        nodes[8] = replace(nodes[8], inputs=("a", "w", "r", "", "", "h0"))
    else:
        nodes[:0] = [Node("Reshape", "fold", ("x", "rows"), ("a",))]
    model = Model((Value("x", "float32", (batch, "T", F, C)),), ("y",), tuple(nodes), weights)
    x, session = random.standard_normal((batch, T, F, C)).astype(np.float32), fr.compile(model)
    want, rows, stream = np.moveaxis(session(x), 1, 0), np.ascontiguousarray(np.moveaxis(x, 1, 0)), session.stream(batch)
    assert np.array_equal(np.stack([stream.step(row) for row in rows]), want) and stream.state["along.h"].shape == (1, batch * F, H)
    stream.reset()
    assert np.array_equal(np.concatenate([stream.push(rows[:6]), stream.push(rows[6:])]), want)


def _refusals():
    def build(name, make, match):
        net = Net(4)
        return pytest.param(net.model(make(net)), match, id=name)

    yield build("same padding", lambda n: n.conv("x", pads=(1, 1)), "'conv0'.*looks 1 step ahead")
    yield build("five ahead", lambda n: n.conv("x", kernel=6), "'conv0'.*looks 5 steps ahead")
    yield build(
        "folded",
        lambda n: n.add("Tanh", n.add("Reshape", n.conv("x", pads=(2, 0)), n.weight(np.array([4, -1])))),
        "'reshape1'.*mixes time steps, or moves|output",
    )
    yield build(
        "across rows",
        lambda n: n.add("Conv", n.add("Reshape", n.conv("x", pads=(2, 0)), n.weight(np.array([1, 1, -1]))), n.draw(2, 1, 3), pads=[2, 0]),
        "'conv[0-9]'.*12 sequences",
    )
    yield build(
        "transposed ahead",
        lambda n: n.conv(n.add("ConvTranspose", "x", n.draw(4, 4, 3), pads=[1, 1]), pads=(2, 0)),
        "'convtranspose0'.*looks 1 step ahead",
    )
    yield build(
        "transposed stride",
        lambda n: n.conv(n.add("ConvTranspose", "x", n.draw(4, 4, 3), strides=[2]), pads=(2, 0)),
        "'convtranspose0'.*stride along time is 2",
    )
    yield build("stride", lambda n: n.add("Conv", "x", n.draw(4, 4, 3), pads=[2, 0], strides=[2]), "'conv0'.*stride along time is 2")
    yield build("reflect", lambda n: n.conv(n.pad("x", 2, mode="reflect")), "'pad0'.*'reflect'")
    yield build(
        "reversed",
        lambda n: n.conv(n.add("Slice", "x", *(n.weight(np.array([v])) for v in (-1, -(2**62), 2, -1))), pads=(2, 0)),
        "'slice0'.*backwards",
    )
    yield build("ahead", lambda n: n.conv(n.cut("x", 1, 2**31), pads=(2, 0)), "'slice0'.*first 1 step")
    yield build("left over", lambda n: n.conv("x", pads=(2, 2)), "output 'y' has 2 more entries than steps")
    yield build(
        "attention",
        lambda n: n.conv(n.add("MatMul", "x", n.add("Softmax", n.add("MatMul", n.add("Transpose", "x", perm=(0, 2, 1)), "x"))), pads=(2, 0)),
        "'matmul1'.*mix",
    )
    yield build(
        "mean", lambda n: n.recurrent(n.add("Sub", "x", n.add("ReduceMean", "x", n.weight(np.array([2]))))), "'reducemean0'.*reduces over time"
    )
    yield build("softmax", lambda n: n.recurrent(n.add("Softmax", "x", axis=2)), "'softmax0'.*normalises over time")
    yield build(
        "count",
        lambda n: n.recurrent(n.add("Mul", "x", n.add("Cast", n.add("Gather", n.add("Shape", "x"), n.weight(np.array([2]))), to="float32"))),
        "number of steps",
    )
    yield build(
        "last", lambda n: n.add("Add", n.recurrent("x"), n.add("Gather", "x", n.weight(np.array([-1])), axis=2)), "'gather.*single time steps"
    )
    yield build("two parts", lambda n: n.recurrent(n.add("Concat", "x", "x", axis=2)), "'concat0'.*one behind the other")


@pytest.mark.parametrize("model,match", list(_refusals()))
def test_what_cannot_be_stepped_names_the_node(model, match):
    with pytest.raises(fr.NotStreamableError, match=match):
        fr.compile(model).stream(B)


def test_against_torch_on_whole_sequences():
    """Modules as people write them, through PyTorch's exporter."""
    torch = pytest.importorskip("torch")
    nn, F = torch.nn, torch.nn.functional

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.norm = nn.Conv1d(3, 8, 3, padding=4, dilation=2), nn.Conv1d(8, 8, 2, groups=8), nn.BatchNorm1d(8)
            self.skip, self.gru, self.out = nn.Conv1d(3, 8, 1), nn.GRU(8, 6, batch_first=True), nn.Linear(6, 2)
            self.norm.running_mean.uniform_(-1, 1)

        def forward(self, x):
            y = torch.relu(self.norm(self.first(x)[:, :, :-4]))
            y = self.second(F.pad(y, (1, 0))) + self.skip(x)
            y = y + torch.cat([torch.zeros(x.shape[0], 8, 2), y[:, :, :-2]], 2)
            return self.out(self.gru(y.transpose(1, 2))[0])

    torch.manual_seed(0)
    module, file = Network().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, torch.randn(2, 3, 11), file, input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "B", 2: "T"}}, dynamo=False
        )
    model, x = fr.from_onnx(file.getvalue()), sequence(3)
    with torch.no_grad():
        want = module(torch.from_numpy(x)).numpy()
    got = np.moveaxis(fr.compile(model).stream(B).push(np.ascontiguousarray(np.moveaxis(x, 2, 0))), 0, 1)
    assert np.abs(got - want).max() <= 5e-6 * np.abs(want).max()
