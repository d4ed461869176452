"""Whole networks through ONNX Runtime's quantizer: dynamic, QDQ and QOperator, per channel and not, signed and not. They run in integers, none of it through NumPy."""

import numpy as np
import onnx
import onnxruntime
import pytest
from oracles import VNNI
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import fastrnn as fr

torch = pytest.importorskip("torch")


class Reader(torch.nn.Module):
    """Convolutions, an LSTM in both directions, a dense layer: as text is read off a picture."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.lstm, self.head = torch.nn.LSTM(16 * 8, 24, bidirectional=True, batch_first=True), torch.nn.Linear(48, 20)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x)))).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.lstm(x)[0])


class Calibration(CalibrationDataReader):
    def __init__(self, inputs):
        self.inputs = iter(inputs)

    def get_next(self):
        return next(({"x": x} for x in self.inputs), None)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The file in float32, and pictures."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("quantized") / "reader.onnx"
    torch.onnx.export(Reader().eval(), (torch.randn(1, 1, 16, 24),), path, input_names=["x"], output_names=["y"], dynamo=False, opset_version=17)
    random = np.random.default_rng(0)
    return path, [random.standard_normal((1, 1, 16, 24)).astype(np.float32) for _ in range(6)]


def outputs(path, x):
    """fastrnn's session and its result, and ONNX Runtime's on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    theirs = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    session = fr.compile(fr.load(path))
    return session, session.run({"x": x})["y"], theirs


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8], ids=["unsigned", "signed"])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=["QDQ", "QOperator"])
def test_static(source, tmp_path, form, activations, per_channel):
    path, pictures = source
    quantize_static(str(path), str(tmp_path / "q.onnx"), Calibration(pictures), quant_format=form, per_channel=per_channel, activation_type=activations, weight_type=QuantType.QInt8)
    session, ours, theirs = outputs(tmp_path / "q.onnx", pictures[0])
    rows = session.plan.rows({"x": pictures[0].shape})
    assert not [row for row in rows if row[3] == "reference"]
    assert sum("integer_product_int8" in row[2] for row in rows) == 3  # both convolutions and the head
    step = np.abs(ours).max() / 127  # of the last rounding to bytes
    if VNNI:
        assert np.abs(ours - theirs).max() <= 1.01 * step
    assert np.abs(ours - fr.compile(fr.load(path)).run({"x": pictures[0]})["y"]).max() < 12 * step


@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8], ids=["signed", "unsigned"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
def test_dynamic(source, tmp_path, weights, per_channel):
    path, pictures = source
    quantize_dynamic(str(path), str(tmp_path / "q.onnx"), weight_type=weights, per_channel=per_channel)
    assert {"DynamicQuantizeLSTM", "ConvInteger", "MatMulInteger"} <= {n.op_type for n in onnx.load(tmp_path / "q.onnx").graph.node}
    session, ours, theirs = outputs(tmp_path / "q.onnx", pictures[1])
    assert not [row for row in session.plan.rows({"x": pictures[1].shape}) if row[3] == "reference"]
    if VNNI:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def test_the_same_bits_on_every_instruction_set(source, tmp_path, monkeypatch):
    from fastrnn.kernels import isa

    path, pictures = source
    quantize_dynamic(str(path), str(tmp_path / "q.onnx"), weight_type=QuantType.QUInt8, per_channel=True)
    model, found = fr.load(tmp_path / "q.onnx"), []
    for name in isa.supported():
        monkeypatch.setenv("FASTRNN_ISA", name)
        found.append(fr.compile(model).run({"x": np.concatenate(pictures[:1])})["y"])
    assert all(np.array_equal(found[0].view(np.uint32), other.view(np.uint32)) for other in found[1:])
