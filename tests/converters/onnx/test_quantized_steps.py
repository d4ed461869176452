"""Quantized files step by step: each row, and each step, has the bytes that it has as a batch of one; a Scan that spells an LSTM out in integers."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.kernels.reference import evaluate

torch = pytest.importorskip("torch")
LOUDNESS = np.float32([1, 10, 0.1])  # of three rows: one scale for all would cost the last its bits


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.lstm, self.last = torch.nn.Linear(12, 32), torch.nn.LSTM(32, 24), torch.nn.Linear(24, 10)

    def forward(self, x):
        return self.last(self.lstm(torch.tanh(self.first(x)))[0])


class Mixer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(12, 32), torch.nn.Linear(32, 10)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Causal(torch.nn.Module):
    """Convolutions over time that look back, with zeros before the first step."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = torch.nn.Conv1d(12, 16, 3), torch.nn.Conv1d(16, 16, 2, dilation=2), torch.nn.Conv1d(16, 10, 1)

    def forward(self, x):
        x = torch.relu(self.first(torch.nn.functional.pad(x, (2, 0))))
        return self.last(torch.relu(self.second(torch.nn.functional.pad(x, (2, 0)))))


def exported(net, shape, axes, path):
    torch.manual_seed(0)
    torch.onnx.export(net().eval(), (torch.randn(shape),), path, input_names=["x"], output_names=["y"], dynamo=False, opset_version=17,
                      dynamic_axes={"x": axes, "y": axes})  # fmt: skip


def drawn(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8], ids=["signed", "unsigned"])
@pytest.mark.parametrize("net", [Tagger, Mixer])
def test_rows_and_steps_of_dynamic_files(net, weights, per_channel, tmp_path):
    axes = {0: "T", 1: "B"} if net is Tagger else {0: "B"}
    exported(net, (5, 3, 12)[-1 - len(axes) :], axes, tmp_path / "f.onnx")
    quantize_dynamic(str(tmp_path / "f.onnx"), str(tmp_path / "q.onnx"), weight_type=weights, per_channel=per_channel)
    model = fr.load(tmp_path / "q.onnx")
    session, x = fr.compile(model), drawn(7, 3, 12) * LOUDNESS[None, :, None]
    stream, alone = session.stream(3), [session.stream() for _ in range(3)]
    y = np.stack([stream.step(part) for part in x])
    assert np.array_equal(y, np.concatenate([np.stack([one.step(part[r : r + 1]) for part in x]) for r, one in enumerate(alone)], axis=1))
    pool = session.pool(4)
    callers = [pool.open() for _ in range(3)]
    assert np.array_equal(y, np.stack([pool.step(callers, part) for part in x]))
    assert all(tiling.most > 1 for tiling in pool._plans[()])  # which are computed together
    if net is Tagger:
        stream.reset()
        assert np.array_equal(stream.push(x), y)
        assert sum("whose rows so depend on each other" in row[-1] for row in session.plan.rows()) == 3
    else:  # a step is a call: of one row, ONNX's own meaning
        assert np.array_equal(y, [[session(row[None])[0] for row in part] for part in x])
        assert not np.array_equal(session(x[0]), y[0])
    reference = fr.compile(model, backend="reference").stream(3)
    worst = np.abs(np.stack([reference.step(part) for part in x]) - y).max()
    assert worst <= 0.01 * np.abs(y).max()  # a byte of a layer's input that rounds the other way after a tanh: 1 / 255 of it


class Calibration(CalibrationDataReader):
    def __init__(self, inputs):
        self.inputs = iter(inputs)

    def get_next(self):
        return next(({"x": x} for x in self.inputs), None)


@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8], ids=["unsigned", "signed"])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=["QDQ", "QOperator"])
@pytest.mark.parametrize("net", [Tagger, Causal])
def test_static_files_in_pieces(net, form, activations, tmp_path):
    """To the bit what the whole gives: before the first step of a convolution stands the zero point."""
    axes, shape = ({0: "T", 1: "B"}, (6, 2, 12)) if net is Tagger else ({0: "B", 2: "T"}, (2, 12, 6))
    exported(net, shape, axes, tmp_path / "f.onnx")
    quantize_static(str(tmp_path / "f.onnx"), str(tmp_path / "q.onnx"), Calibration([drawn(*shape)]), quant_format=form, activation_type=activations,
                    weight_type=QuantType.QInt8)  # fmt: skip
    session, x, time = fr.compile(fr.load(tmp_path / "q.onnx")), drawn(*shape) + 0.5, 0 if net is Tagger else 2
    whole, stream, steps = np.moveaxis(session(x), time, 0), session.stream(2), np.moveaxis(x, time, 0)
    assert "integer_product_int8" in str(session.plan.rows())
    assert np.array_equal(np.concatenate([stream.push(steps[a:b]) for a, b in ((0, 1), (1, 4), (4, 6))]), whole)


def spelled_out(I, H, B):
    """An LSTM in a Scan whose gates are two QLinearConv over rounded x and h, as converters of integer networks write it; gives the gates' bytes, too."""
    random, weights, body = np.random.default_rng(0), {}, []

    def scales(n):
        return random.uniform(0.005, 0.02, n).astype(np.float32)

    weights |= {"sx": np.float32(0.02), "zx": np.uint8(128), "sw": scales(4 * H), "zw": np.zeros(4 * H, np.int8), "sr": scales(4 * H), "sh": np.float32(1 / 127)}  # fmt: skip
    weights |= {"sg": np.float32(0.05), "zg": np.uint8(120), "last": np.array([2]), "parts": np.array([H] * 4), "b": random.integers(-2000, 2000, 4 * H).astype(np.int32)}  # fmt: skip
    weights |= {name: random.integers(-127, 128, (4 * H, n, 1)).astype(np.int8) for name, n in (("W", I), ("R", H))}

    def add(op, inputs, outputs, **attributes):
        body.append(helper.make_node(op, inputs.split(), outputs.split(), name=f"{outputs.split()[0]}.node", **attributes))

    for name, scale, w, w_scale, gates, bias in (("x", "sx", "W", "sw", "gx", " b"), ("h", "sh", "R", "sr", "gh", "")):
        add("QuantizeLinear", f"{name} {scale} zx", f"{name}q")
        add("Unsqueeze", f"{name}q last", f"{name}u")
        add("QLinearConv", f"{name}u {scale} zx {w} {w_scale} zw sg zg{bias}", gates)
        add("DequantizeLinear", f"{gates} sg zg", f"{gates}f")
    add("Add", "gxf ghf", "sum")
    add("Squeeze", "sum last", "g")
    add("Split", "g parts", "gi gf gc go", axis=1)
    for gate, function in (("i", "Sigmoid"), ("f", "Sigmoid"), ("c", "Tanh"), ("o", "Sigmoid")):
        add(function, f"g{gate}", gate)
    for op, inputs, y in (("Mul", "f cell", "fc"), ("Mul", "i c", "ic"), ("Add", "fc ic", "cell1"), ("Tanh", "cell1", "t"), ("Mul", "o t", "h1")):
        add(op, inputs, y)
    add("Identity", "h1", "y")
    add("Identity", "gh", "bytes")
    value, F, U = helper.make_tensor_value_info, TensorProto.FLOAT, TensorProto.UINT8
    states = [value("h", F, [B, H]), value("cell", F, [B, H]), value("x", F, [B, I])]
    ends = [value("h1", F, [B, H]), value("cell1", F, [B, H]), value("y", F, [B, H]), value("bytes", U, [B, 4 * H, 1])]
    scan = helper.make_node("Scan", ["h0", "c0", "X"], ["hT", "cT", "Y", "G"], body=helper.make_graph(body, "step", states, ends), num_scan_inputs=1)
    given = [value("X", F, ["T", B, I]), value("h0", F, [B, H]), value("c0", F, [B, H])]
    made = [value("Y", F, ["T", B, H]), value("hT", F, [B, H]), value("cT", F, [B, H]), value("G", U, ["T", B, 4 * H, 1])]
    graph = helper.make_graph([scan], "lstm", given, made, [numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("T", "B", "I", "H"), [(3, 1, 3, 2), (5, 4, 20, 37)])
def test_an_lstm_of_integers_in_a_scan(T, B, I, H, monkeypatch):
    """Compiled throughout; its bytes are ONNX's, whose numbers between are rounded as they are here but for sigmoid and tanh."""
    file = spelled_out(I, H, B)
    model, inputs = fr.from_onnx(file), {"X": drawn(T, B, I), "h0": drawn(B, H) / 4, "c0": drawn(B, H)}
    expected, found = evaluate(model, inputs, np.float32), []
    for name in isa.supported():
        monkeypatch.setenv("FASTRNN_ISA", name)
        session = fr.compile(model)
        assert not [row for row in session.plan.rows({n: a.shape for n, a in inputs.items()}) if row[3] == "reference"]
        found.append(session.run(inputs))
        assert np.array_equal(found[-1]["G"], expected["G"])
        assert all(np.abs(found[-1][n] - expected[n]).max() < 1e-6 for n in ("Y", "hT", "cT"))
        assert all(np.array_equal(found[0][n], found[-1][n]) for n in expected)
    theirs = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"]).run(["hT"], inputs)[0]
    assert np.abs(theirs - expected["hT"]).max() < 0.1  # bytes that onnxruntime rounds another way move a gate by a step of 0.05
