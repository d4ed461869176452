"""Sequences of tensors inside ONNX graphs, whose members are known when a file is read: against onnx's reference evaluator, and as torch writes them."""

import io
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import fastrnn as fr

X = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)


def model(nodes, outputs=("y",), **weights):
    """Nodes over x (T, 3, 5) with constants by name."""
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    ends = [onnx.ValueInfoProto(name=name) for name in outputs]
    for end in ends:
        end.type.tensor_type.elem_type = TensorProto.FLOAT if end.name == "y" else TensorProto.INT64
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 3, 5])], ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(op, inputs, outputs="s", **attributes):
    return helper.make_node(op, inputs.split(",") if inputs else [], [outputs], f"{op}.{outputs}", **attributes)


RIGHT = {
    "entries": [node("SplitToSequence", "x", axis=0), node("SequenceAt", "s,m", "y")],
    "entries_dropped": [node("SplitToSequence", "x", axis=1, keepdims=0), node("SequenceAt", "s,one", "y")],
    "ones": [node("SplitToSequence", "x,one", axis=2, keepdims=0), node("SequenceAt", "s,m", "y")],
    "parts": [node("SplitToSequence", "x,sizes", axis=2), node("SequenceAt", "s,one", "y")],
    "parts_joined": [node("SplitToSequence", "x,sizes", axis=2), node("SequenceErase", "s,m", "t"), node("SequenceInsert", "t,x,one", "u"), node("ConcatFromSequence", "u", "y", axis=2)],
    "joined_again": [node("SplitToSequence", "x", axis=1), node("ConcatFromSequence", "s", "y", axis=1)],
    "stacked_again": [node("SplitToSequence", "x", axis=1, keepdims=0), node("ConcatFromSequence", "s", "y", axis=1, new_axis=1)],
    "stacked": [node("Neg", "x", "n"), node("SequenceConstruct", "x,n,x"), node("ConcatFromSequence", "s", "y", axis=-1, new_axis=1)],
    "built": [node("SequenceEmpty", "", "e"), node("SequenceInsert", "e,x", "s"), node("Neg", "x", "n"), node("SequenceInsert", "s,n,m", "t"), node("SequenceAt", "t,zero", "y")],
    "last_out": [node("Neg", "x", "n"), node("SequenceConstruct", "x,n"), node("SequenceErase", "s", "t"), node("ConcatFromSequence", "t", "y", axis=0)],
    "counted": [node("SplitToSequence", "x", axis=1), node("SequenceLength", "s", "k"), node("Cast", "k", "f", to=TensorProto.FLOAT), node("Mul", "x,f", "y")],
    "counted_members": [node("SequenceConstruct", "x,x"), node("SequenceLength", "s", "k"), node("Cast", "k", "f", to=TensorProto.FLOAT), node("Mul", "x,f", "y")],
}  # fmt: skip
CONSTANTS = {"m": np.array(-1), "zero": np.array(0), "one": np.array(1), "sizes": np.array([1, 3, 1])}


@pytest.mark.parametrize("name", RIGHT)
def test_members_are_what_the_reference_says(name):
    proto = model(RIGHT[name], **CONSTANTS)
    session = fr.compile(fr.from_onnx(proto))
    for x in (X, X[:2], np.concatenate([X, X])):
        assert np.array_equal(session(x), ReferenceEvaluator(proto).run(None, {"x": x})[0])


@pytest.mark.parametrize(
    "nodes,error,message",
    [
        ([node("SplitToSequence", "x,two"), node("SequenceAt", "s,one", "y")], fr.UnsupportedModelError, "parts of 2"),
        ([node("SplitToSequence", "x,k"), node("SequenceAt", "s,one", "y")], fr.UnsupportedModelError, "split must be a constant"),
        (
            [node("SplitToSequence", "x"), node("SequenceErase", "s,one", "t"), node("SequenceAt", "t,one", "y")],
            fr.UnsupportedModelError,
            "as many members",
        ),
        ([node("SplitToSequence", "x"), node("ConcatFromSequence", "s", "y", axis=1)], fr.UnsupportedModelError, "one axis along another"),
        ([node("SequenceConstruct", "x,x"), node("SequenceAt", "s,two", "y")], fr.InvalidModelError, "position 2 is outside a sequence of 2"),
        ([node("SequenceEmpty", ""), node("SequenceErase", "s", "t"), node("SequenceAt", "t,zero", "y")], fr.InvalidModelError, "IndexError"),
        ([node("SequenceEmpty", ""), node("ConcatFromSequence", "s", "y", axis=0)], fr.UnsupportedModelError, "of none"),
        ([node("SequenceConstruct", "x,x"), node("Neg", "s", "y")], fr.UnsupportedModelError, "'Neg.y'.*'s' is a sequence"),
        ([node("SequenceConstruct", "x,x", "y")], fr.UnsupportedModelError, "output 'y'.*a sequence"),
        ([node("SequenceAt", "x,one", "y")], fr.UnsupportedModelError, "'x' is no sequence"),
    ],
)
def test_what_is_refused(nodes, error, message):
    whole = [node("Shape", "x", "shape"), node("Gather", "shape,zero", "k"), *nodes]
    with pytest.raises(error, match=message):
        fr.from_onnx(model(whole, **CONSTANTS, two=np.array(2)))


def test_a_place_outside_of_an_axis_is_found_by_the_call():
    session = fr.compile(fr.from_onnx(model([node("SplitToSequence", "x"), node("SequenceAt", "s,three", "y")], three=np.array(3))))
    assert np.array_equal(session(X), X[3:4])
    with pytest.raises((fr.InvalidModelError, fr.ShapeError), match="SequenceAt"):
        session(X[:3])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_rnns_as_torchs_older_exporter_writes_them(layers, bidirectional):
    torch = pytest.importorskip("torch")
    torch.manual_seed(layers)
    net, x, h = torch.nn.RNN(4, 5, layers, bidirectional=bidirectional).eval(), torch.randn(6, 2, 4), torch.randn(layers * (1 + bidirectional), 2, 5)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x, h), file, dynamo=False, input_names=["x", "h"], output_names=["y", "hn"], dynamic_axes={"x": {0: "T"}})
    session = fr.compile(fr.from_onnx(file.getvalue()))
    for steps in (6, 3):
        with torch.no_grad():
            wanted = net(x[:steps], h)
        for got, want in zip(session(x[:steps].numpy(), h.numpy()), wanted, strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=2e-6)
