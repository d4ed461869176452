"""Whole networks through ONNX Runtime's quantizer: dynamic, QDQ and QOperator, per channel and not, signed and not. They run in integers, none of it through NumPy."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from oracles import VNNI

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
    quantize_static(
        str(path),
        str(tmp_path / "q.onnx"),
        Calibration(pictures),
        quant_format=form,
        per_channel=per_channel,
        activation_type=activations,
        weight_type=QuantType.QInt8,
    )
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


def qdq(x, w, bias, units=20, y_scale=None):
    """A MatMul between DequantizeLinear, with scales of 0.01; y_scale: rounded to bytes behind a Relu."""
    weights = {"w": w, "s": np.float32(0.01), "zx": np.uint8(0), "zw": np.int8(0), "bias": bias, "one": np.float32(0.0001), "z32": np.int32(0), "ys": np.float32(y_scale or 1)}  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "zx"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["wf"]),
        helper.make_node("DequantizeLinear", ["bias", "one", "z32"], ["bf"]),
        helper.make_node("Gemm", ["xf", "wf", "bf"], ["p"]),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "ys", "zx"], ["y"]),
    ]
    out = (
        helper.make_tensor_value_info("y", TensorProto.UINT8, ["B", units])
        if y_scale
        else helper.make_tensor_value_info("p", TensorProto.FLOAT, ["B", units])
    )
    graph = helper.make_graph(
        nodes if y_scale else nodes[:4],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["B", x.shape[1]])],
        [out],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    return fr.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("most", [1000, 2**31 - 1, -(2**31)])
def test_sums_that_pass_int32_stay_sums_of_floats(most):
    """The graph is of floats, which do not wrap: a bias at the end of int32, as quantizers cut them off there."""
    random = np.random.default_rng(0)
    x, w = random.integers(0, 255, (3, 12)).astype(np.uint8), random.integers(-127, 127, (12, 20)).astype(np.int8)
    bias = np.full(20, most, np.int32)
    sums = x.astype(np.float64) @ w.astype(np.float64) + bias
    np.testing.assert_allclose(fr.compile(qdq(x, w, bias))(x), sums * 1e-4, rtol=1e-5, atol=1e-3)


def test_a_scale_below_zero_behind_a_relu():
    x, w = np.arange(36, dtype=np.uint8).reshape(3, 12), np.ones((12, 20), np.int8)
    model = qdq(x, w, np.zeros(20, np.int32), y_scale=-0.01)
    assert not fr.compile(model)(x).any()  # what is not negative, over a negative number, ends at 0


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        ("MatMulInteger", {"a": np.uint8([[1, 2]]), "b": np.int8([[1], [2]]), "za": np.int8(-3)}, "must be uint8"),
        (
            "MatMulInteger",
            {"a": np.uint8([[1, 2]]), "b": np.int8([[1, 2, 3], [2, 3, 4]]), "za": np.uint8(3), "zb": np.int8([1, 2, 3, 4, 5])},
            r"shape \(3,\)",
        ),
        (
            "ConvInteger",
            {"x": np.zeros((1, 2, 4), np.uint8), "w": np.zeros((3, 2, 2), np.int8), "zx": np.uint8(1), "zw": np.int8([0] * 5)},
            r"shape \(3,\)",
        ),
    ],
)
def test_zero_points_of_another_kind_are_refused(op, inputs, message):
    names = list(inputs)
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"])],
        "g",
        [helper.make_tensor_value_info(names[0], TensorProto.UINT8, inputs[names[0]].shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(np.asarray(inputs[n]), n) for n in names[1:]],
    )
    with pytest.raises(fr.FastRNNError, match=message):
        fr.compile(fr.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])))
