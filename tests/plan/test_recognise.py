"""Cells spelled out in ONNX files: in a Scan, in a Loop, one after another, alone. Recognised where they are RNN, LSTM or GRU, left alone where
they only look like it; right in any case."""

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from written_cells import CELLS, NEAR, WAYS, B, H, I, T, Writer, drawn, finish, gru, loop, lstm, residual, scan, single, unrolled

import fastrnn as fr
from fastrnn.kernels.reference import evaluate
from fastrnn.model.graph import every_node


def check(proto, ops, tolerance=5e-6):
    """Against ONNX Runtime, compiled and in NumPy, and which recurrent nodes there are."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    sizes, random = {"T": T, "B": B}, np.random.default_rng(1)
    model = fr.from_onnx(proto)
    feed = {v.name: random.standard_normal([sizes.get(d, d) for d in v.shape]).astype(np.float32) for v in model.inputs}
    wanted = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)
    for backend in ("native", "reference"):
        session = fr.compile(model, backend=backend)
        left = session.plan.specialised({n: a.shape for n, a in feed.items()})
        assert [node.op for node, _ in every_node(left.nodes) if node.op in ("RNN", "GRU", "LSTM")] == ops
        for got, want in zip(session.run(feed).values(), wanted, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, np.abs(want).max()))
    return session


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_spelled_out_is_a_layer(name, way):
    op, cell = CELLS[name]
    check(WAYS[way](cell), [op])


@pytest.mark.parametrize("name", [n for n in CELLS if not n.startswith("rnn")])
def test_a_single_cell(name):
    op, cell = CELLS[name]
    session = fr.compile(fr.from_onnx(single(cell)))
    check(single(cell), [op])
    assert op in session.explain()


@pytest.mark.parametrize("way", ["scan", "loop", "unrolled"])
@pytest.mark.parametrize("name", NEAR)
def test_what_only_looks_like_a_cell_is_left_alone(name, way):
    check(WAYS[way](NEAR[name]), [])


@pytest.mark.parametrize("way", ["scan", "loop", "unrolled"])
def test_a_cell_whose_loop_does_more_steps_alone(way):
    """The state is more than the cell's: no layer, but a cell in each run."""
    check(WAYS[way](residual), ["LSTM"] * (T if way == "unrolled" else 1))


def test_projections_that_were_taken_out_of_the_loop():
    check(loop(lstm, hoisted=True), ["LSTM"])


def test_weights_that_differ_from_step_to_step_are_no_layer():
    other = []

    def weights(write, w, t):
        if t == 3:
            other.extend(other or drawn(write))
            return other
        return w

    proto = unrolled(lstm, weights=weights)
    check(proto, ["LSTM", "LSTM", "LSTM"])  # three steps, one, one


@pytest.mark.parametrize("twice", ["bias", "matrix"])
def test_a_step_that_adds_a_copy_of_a_weight_is_another_step(twice):
    """Two weights of one content count twice: steps 0 and 1 are a layer, and so are 3 and 4; 2 is neither's."""

    def weights(write, w, t):
        copy = {19: write.const(write.weights[w[19]].copy()), 20: write.const(write.weights[w[20]].copy())}
        return [*w, copy[20 if twice == "matrix" else 19] if t == 2 else ""]

    def cell(write, x, h, c, w):
        total = write("Add", write("Gemm", x, w[18], w[19], transB=1), write("MatMul", h, w[20]))
        if w[-1]:
            total = write("Add", total, write("MatMul", h, w[-1]) if twice == "matrix" else w[-1])
        return write("Tanh", total), None

    check(unrolled(cell, weights=weights), ["RNN", "RNN"])


def test_the_same_weights_stored_once_for_each_step():
    def copied(write, w, t):
        return [write.const(write.weights[name].copy()) for name in w]

    check(unrolled(lstm, weights=copied), ["LSTM"])


def test_a_cell_that_is_read_between_two_steps():
    check(unrolled(lstm, keep=True), ["LSTM"])


def test_layers_on_top_of_one_another_step_by_step():
    write = Writer()
    first, second = drawn(write), drawn(write, H)
    h, c, g, d, ys = "h0", "c0", "h0", "c0", []
    for t in range(T):
        h, c = lstm(write, write("Gather", "x", np.array(t)), h, c, first)
        g, _ = gru(write, h, g, d, second)
        ys.append(write("Unsqueeze", g, np.array([1])))
    proto = finish(write, [write("Concat", *ys, axis=1), g, c], (T, "B", I), 2)
    check(proto, ["LSTM", "GRU"])


def test_a_decoder_that_reads_its_own_output_steps_cell_by_cell():
    write = Writer()
    w, back = drawn(write), write.weight(H, I)
    x, h, c, ys = "x", "h0", "c0", []
    for _ in range(3):
        h, c = lstm(write, x, h, c, w)
        x = write("Tanh", write("MatMul", h, back))
        ys.append(write("Unsqueeze", x, np.array([0])))
    check(finish(write, [write("Concat", *ys, axis=0)], ("B", I), 2), ["LSTM"] * 3)


@pytest.mark.parametrize("way", ["scan", "loop"])
def test_a_recognised_layer_streams(way):
    proto = WAYS[way](lstm)
    ends = [v.name for v in proto.graph.output]
    session = fr.compile(fr.from_onnx(proto), states={"h0": ends[0], "c0": ends[1]})
    x, zeros = np.random.default_rng(2).standard_normal((7, 2, I)).astype(np.float32), np.zeros((2, H), np.float32)
    whole = session.run({"x": x, "h0": zeros, "c0": zeros})[ends[2]]
    stream = session.stream(batch=2)
    assert np.array_equal(np.concatenate([stream.push(x[:3]), stream.step(x[3])[None], stream.push(x[4:])]), whole)


def test_a_cell_alone_streams_call_by_call():
    session = fr.compile(fr.from_onnx(single(gru)))
    name = session.model.output_names[0]
    session = fr.compile(session.model, states={"h0": name})
    x, h = np.random.default_rng(3).standard_normal((4, 2, I)).astype(np.float32), np.zeros((2, H), np.float32)
    stream = session.stream(batch=2)
    for x_t in x:
        h = session.run({"x": x_t, "h0": h})[name]
        stream.step(x_t)
        assert np.array_equal(stream.state["h0"], h)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_a_loop_over_a_cell_of_torch(kind, zeros):
    """As torch's exporter writes it out; a first step that starts from zeros it computes from constants, so that the layer starts at the second."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = getattr(torch.nn, kind)(I, H), torch.nn.Linear(H, 2)

        def forward(self, x, h):
            h = torch.zeros(x.shape[0], H) if zeros else h
            c, ys = h, []
            for t in range(T):
                h, c = self.cell(x[:, t], (h, c)) if kind == "LSTMCell" else (self.cell(x[:, t], h), None)
                ys.append(self.out(h))
            return torch.stack(ys, 1)

    torch.manual_seed(0)
    net, x, h, file = Net().eval(), torch.randn(B, T, I), torch.randn(B, H), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x, h), file, dynamo=False, opset_version=13, input_names=["x", "h"])
    session = fr.compile(fr.from_onnx(file.getvalue()))
    feed = {name: a.numpy() for name, a in (("x", x), ("h", h)) if name in session.model.input_names}
    with torch.no_grad():
        np.testing.assert_allclose(session.run(feed)[session.model.output_names[0]], net(x, h).numpy(), rtol=0, atol=2e-6)
    layers = [n for n in session.plan.model.nodes if n.op in ("LSTM", "GRU", "RNN")]
    assert [session.plan.model.specs[n.inputs[0]].shape for n in layers] == [(T - zeros, B, I)]


@pytest.mark.parametrize("way", ["scan", "loop", "unrolled", "unrolled_batch_first"])
@pytest.mark.parametrize("name", ["lstm", "gru", "gru_before"])
def test_sizes_of_one(name, way):
    """A batch of one, written as such, over which axes of size 1 are told apart by their places only."""
    proto = WAYS[way](CELLS[name][1])
    for given in proto.graph.input:
        for dim in given.type.tensor_type.shape.dim:
            dim.CopyFrom(helper.make_tensor_value_info("", 1, [{"B": 1, "T": T}.get(dim.dim_param, dim.dim_value)]).type.tensor_type.shape.dim[0])
    for part in proto.graph.node:
        for attribute in part.attribute:
            for given in attribute.g.input:
                for dim in given.type.tensor_type.shape.dim:
                    if dim.dim_param == "B":
                        dim.dim_value = 1
    check(proto, [CELLS[name][0]])


FUNCTIONS, PAIRS = ("Sigmoid", "Tanh", "Relu", "HardSigmoid", "Neg"), ("Add", "Sub", "Mul")


def changed(proto, random):
    """The file with one to three nodes of its cell doing something else, or to something else."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    nodes = [a.g for n in proto.graph.node for a in n.attribute if a.HasField("g")]
    nodes = nodes[-1].node if nodes else proto.graph.node
    made = [name for node in nodes for name in node.output] + ["h", "c", "h0", "c0"]
    for _ in range(random.integers(1, 4)):
        node = nodes[random.integers(len(nodes))]
        if node.op_type == "Split":
            node.output[:] = list(random.permutation(list(node.output)))
        elif node.op_type in (*FUNCTIONS, *PAIRS):
            kinds = FUNCTIONS if node.op_type in FUNCTIONS else PAIRS
            what = random.integers(3)
            if what == 0:
                node.op_type = kinds[random.integers(len(kinds))]
            elif what == 1:
                node.input[:] = list(node.input)[::-1]
            else:
                node.input[random.integers(len(node.input))] = made[random.integers(len(made))]
    return proto


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_cells_changed_at_random_compute_what_they_say(count):
    """Whatever is taken for a layer after the change, and whatever is not: as the evaluation in float64, which recognises nothing."""
    random, recognised, compared = np.random.default_rng(count), 0, 0
    protos = [way(cell) for _, cell in CELLS.values() for way in (scan, loop, unrolled)] + [single(cell) for _, cell in CELLS.values()]
    while compared < count:
        try:
            model = fr.from_onnx(changed(protos[random.integers(len(protos))], random))
            session = fr.compile(model)
            feed = {v.name: random.standard_normal([{"T": T, "B": B}.get(d, d) for d in v.shape]).astype(np.float32) for v in model.inputs}
            wanted, got = evaluate(model, feed), session.run(feed)
        except fr.FastRNNError:
            continue  # a cycle, or shapes that do not fit
        compared += 1
        recognised += any(n.op in ("LSTM", "GRU", "RNN") for n, _ in every_node(session.plan.model.nodes))
        for name, want in wanted.items():
            if np.isfinite(want).all():
                np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-4 * max(1.0, np.abs(want).max()))
    assert count // 4 < recognised < count
