"""Every ONNX importer: a row for each op and form, against ONNX Runtime, against float64, over layouts, and bit for bit over instruction sets."""

import numpy as np
import pytest
from common_rows import COMMON, X
from more_rows import MORE
from onnx import TensorProto
from oracles import SATURATES, WEIGHTS, exact, ort_is_exact
from row import Row, agree, ints, ort, outputs_of, rand

import fastrnn as fr
from fastrnn.converters.onnx_import.importer import IMPORTERS
from fastrnn.kernels import isa
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Model, Node, Value
from fastrnn.model.ops import OPS
from fastrnn.model.ops.foreign import NAMES as FOREIGN
from fastrnn.model.ops.foreign import PREFIX

ROWS = COMMON + MORE
# Ops of the vocabulary that ONNX does not have by that name; tests/converters/pytorch/test_layers.py, test_cells.py and ../test_tflite.py run them.
NOT_ONNX = {"Silu", "Require", "Recurrent", "IntegerLSTM"}
# Held against NumPy and torch: tests/model, tests/converters/pytorch/test_suite.py.
OF_TORCH = {op for op in OPS if OPS[op].infer.__module__.rpartition(".")[2] in ("algebra", "special", "transforms")} | {"Frexp", "NextAfter"}
# Held against ONNX Runtime by tests of their own: tests/plan/test_fold.py, test_loops.py, test_files.py, test_suite.py.
ELSEWHERE = {"If", "Loop", "Scan", "com.microsoft.DynamicQuantizeLSTM", "GridSample"}
# Of which no node is left; tests/converters/onnx/test_sequences.py has them.
SEQUENCES = {"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "SplitToSequence", "ConcatFromSequence"}  # fmt: skip


def test_every_importer_has_a_row_and_every_op_an_importer():
    assert ({row.op for row in ROWS} | ELSEWHERE | SEQUENCES) - set(FOREIGN) == set(IMPORTERS) - set(FOREIGN)
    made = {node.op for row in ROWS for node in fr.from_onnx(row.model()).nodes}
    assert {op for op in OPS if not op.startswith(PREFIX)} - made - ELSEWHERE - OF_TORCH == NOT_ONNX


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_against_onnxruntime_and_float64(row):
    """As it is, with every input free, and with inputs whose axes lie the other way round; kernels and NumPy alike. Sums of bytes against integers."""
    wanted = exact(row) or ort(row.model(), row.feed())
    for turned, weights in ((False, True), (True, True), (False, False)):
        if not weights and (any(a is not None and a.dtype.kind == "i" and k for k, a in enumerate(row.inputs))):
            continue  # sizes that an input says are tried by tests of their own
        if not weights and row.op in ("ConstantOfShape", "Range", "Dropout", "Resize"):
            continue
        model, feed = fr.from_onnx(row.model(turned, weights)), row.feed(turned, weights)
        agree(outputs_of(model, feed), wanted)
        agree(outputs_of(model, feed, backend="reference"), wanted)
        widened = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in feed.items()}
        agree(outputs_of(model, feed), evaluate(model, widened).values())


@pytest.mark.parametrize("row", [row for row in ROWS if row.op in WEIGHTS], ids=str)
def test_onnxruntime_has_the_exact_sums_too(row):
    if not ort_is_exact(row.inputs[WEIGHTS[row.op]]):
        pytest.skip(SATURATES)
    agree(ort(row.model(), row.feed()), exact(row))


def test_the_same_bits_on_every_instruction_set(monkeypatch):
    """Whatever runs compiled; NumPy's own steps are the same code."""
    for row in ROWS:
        results = []
        for name in isa.supported():
            monkeypatch.setenv("FASTRNN_ISA", name)
            results.append(
                [np.asarray(a).tobytes() for turned in (False, True) for a in outputs_of(fr.from_onnx(row.model(turned)), row.feed(turned))]
            )
        assert all(r == results[0] for r in results), row


def test_what_runs_through_numpy():
    """Of ops that have kernels, nothing with constant weights but powers by computed integers, wraps around more than once, and batch statistics
    that are computed."""
    left = set()
    for row in COMMON:
        if row.constant or len(row.inputs) == 1 or row.op not in ("RNN", "GRU", "LSTM", "Conv", "ConvTranspose", "Reshape", "Slice"):
            session = fr.compile(fr.from_onnx(row.model()))
            left |= {
                row.op
                for line in session.explain({n: a.shape for n, a in row.feed().items()}).splitlines()
                if "NumPy" in line and "float64" not in line
            }
    assert left == {"Pow", "Pad", "BatchNormalization"}


def keeps_rows_apart(row):
    """Whether axis 0 is a batch, and the row runs compiled: a C of a Gemm with rows of its own does not."""
    batched = row.op in ("Conv", "ConvTranspose", "ReduceMean", "LayerNormalization", "MatMul", "Gemm", "Add", "Sigmoid", "Softmax", "Relu")
    over_rows = (
        row.attributes.get("transA")
        or row.op == "ReduceMean"
        and (0 in row.attributes.get("axes", ()) or row.opset == 18 and 0 in row.inputs[1] or "axes" not in row.attributes)
    )
    own_rows = row.op == "Gemm" and len(row.inputs) > 2 and row.inputs[2].ndim > 1
    constant = len(row.constant) == len(row.inputs) - 1 and row.outputs == 1
    return (
        batched
        and constant
        and not over_rows
        and not own_rows
        and row.inputs[0].ndim > 1
        and row.inputs[0].shape[0] > 1
        and row.attributes.get("axis") != 0
    )


BATCHED = [row for row in ROWS if keeps_rows_apart(row)]


@pytest.mark.parametrize("row", BATCHED, ids=str)
def test_a_row_has_the_same_bits_alone(row):
    session = fr.compile(fr.from_onnx(row.model()))
    assert "NumPy" not in session.explain()
    whole, alone = session(row.inputs[0]), session(row.inputs[0][1:2])
    assert whole.shape[0] == row.inputs[0].shape[0] and np.array_equal(whole[1:2], alone)


def test_sizes_from_an_integer_input_steer_and_those_from_data_are_refused_by_name():
    session = fr.compile(fr.from_onnx(Row("Reshape", [X, ints(7, 15)]).model()))
    for target in ((7, 15), (15, 7), (5, 21), (7, 15)):
        assert np.array_equal(session.run({"i0": X, "i1": ints(*target)})["o0"], X.reshape(target))
    counted = Model(
        (Value("x", "float32", (2, 3)), Value("n", "float32", (2,))),
        ("y",),
        (Node("Cast", "whole", ("n",), ("size",), {"to": "int64"}), Node("Reshape", "turned", ("x", "size"), ("y",))),
        {},
    )
    with pytest.raises(fr.UnsupportedModelError, match="'y'.*depends on data"):
        fr.compile(counted)(np.ones((2, 3), np.float32), np.float32([3, 2]))


@pytest.mark.parametrize(
    "row,message",
    [
        (Row("Frobnicate", [X]), "'node'.*Frobnicate.*not supported"),
        (Row("Relu", [X], {"extra": 1}), "'node'.*'extra'"),
        (Row("BatchNormalization", [X, rand(5), rand(5), rand(5), rand(5)], {"training_mode": 1}), "training_mode"),
        (Row("RandomNormal", [], {"shape": [2, 3]}), "'node'.*RandomNormal.*random"),
        (Row("NonZero", [X]), "'node'.*NonZero.*size of its output"),
        (Row("SequenceConstruct", [X], gives=1), "'o0'.*a sequence"),
        (Row("com.microsoft.Attention", [X, rand(7, 21), rand(21)], {"num_heads": 1}), "'node'.*'Attention' of domain 'com.microsoft'"),
        (Row("com.acme.Relu", [X]), "'node'.*domain 'com.acme'"),
        (Row("com.microsoft.FusedConv", [X, rand(4, 5, 3)], {"activation": "Swoosh"}), "Swoosh"),
        (Row("Cast", [X], {"to": TensorProto.STRING}), "STRING"),
        (Row("RNN", [X, rand(1, 5, 7), rand(1, 5, 5)], {"hidden_size": 5, "activations": ["Swish"]}, outputs=2, constant=(1, 2)), "'node'.*Swish"),
        (Row("Constant", [], {"value_string": "a"}, 13), "value_string"),
    ],
)
def test_refused_by_name(row, message):
    with pytest.raises(fr.UnsupportedModelError, match=message):
        fr.from_onnx(row.model())


def test_what_onnx_says_where_onnxruntime_does_otherwise():
    """SAME_UPPER past the reach of the kernels; a mean over nothing; an axis of zero kept while another is worked out."""
    row = Row("ConvTranspose", [rand(1, 2, 3), rand(2, 3, 1)], {"auto_pad": "SAME_UPPER", "strides": [3]}, constant=(1,))
    for backend in ("native", "reference"):
        assert outputs_of(fr.from_onnx(row.model()), row.feed(), backend=backend)[0].shape == (1, 3, 9)
        mean = Row("ReduceMean", [rand(0, 3), ints(0)], {"keepdims": 0}, 18, constant=(1,))
        assert np.isnan(outputs_of(fr.from_onnx(mean.model()), mean.feed(), backend=backend)[0]).all()
        kept = Row("Reshape", [rand(4, 0, 2, 3), ints(0, 0, -1)], constant=(1,))
        assert outputs_of(fr.from_onnx(kept.model()), kept.feed(), backend=backend)[0].shape == (4, 0, 6)


@pytest.mark.parametrize(
    "row", [Row("Relu", [ints(1, 2)], opset=14), Row("ReduceMean", [ints(1, 2)]), Row("MatMul", [ints(1, 2), ints(1, 2)])], ids=str
)
def test_dtypes_that_onnx_allows_and_fastrnn_lacks(row):
    with pytest.raises(fr.UnsupportedModelError, match="'node'.*int64"):
        fr.from_onnx(row.model())


@pytest.mark.parametrize(
    "row",
    [
        Row("Reshape", [X, ints(4, -1)], constant=(1,)),
        Row("Reshape", [X, ints(-1, -1)], constant=(1,)),
        Row("Transpose", [X], {"perm": [0, 0, 1]}),
        Row("Concat", [X, rand(3, 5)], {"axis": 0}),
        Row("Unsqueeze", [X, ints(0, 0)], constant=(1,)),
        Row("Squeeze", [rand(2, 3), ints(0)], constant=(1,)),
        Row("Slice", [X, ints(0), ints(1), ints(0), ints(0)], constant=(1, 2, 3, 4)),
        Row("Split", [X, ints(1, 1)], {"axis": 1}, 17, 2, (1,)),
        Row("Expand", [X, ints(2)], constant=(1,)),
        Row("Gather", [X, ints(9)], constant=(1,)),
        Row("Conv", [X, rand(2, 4, 3)], constant=(1,)),
        Row("Conv", [X, rand(2, 5, 30)], constant=(1,)),
        Row("Gemm", [rand(3, 4), rand(5, 4)], constant=(1,)),
        Row("MatMul", [X, rand(6, 2)], constant=(1,)),
        Row("Pad", [X, ints(1, 2)], constant=(1,)),
        Row("Pad", [X, ints(0, 5, 0, 0, 0, 0)], {"mode": "reflect"}, constant=(1,)),
        Row("Softmax", [X], {"axis": 3}),
        Row("ScatterND", [X, ints(1).reshape(1, 1), rand(2, 2)], constant=(1,)),
        Row("Split", [rand(7)], {}, 13, 2),
        Row("Squeeze", [rand(1, 3)], {"axes": [0.9]}, 11),
        Row("Reshape", [rand(0, 3), ints(0, 0, -1)], {"allowzero": 1}, constant=(1,)),
        Row("Pad", [rand(0, 3), ints(1, 0, 0, 0)], {"mode": "edge"}, constant=(1,)),
        Row("LSTM", [rand(6, 3, 4), rand(1, 20, 3), rand(1, 20, 5)], {"hidden_size": 5}, 14, 3, (1, 2)),
        Row("Clip", [X, rand(2), None], constant=(1,)),
        Row("Add", [X, ints(1)], constant=(1,)),
    ],
    ids=str,
)
def test_wrong_shapes_and_dtypes_are_refused_by_name(row):
    with pytest.raises((fr.ShapeError, fr.InvalidModelError), match="'node'"):
        fr.compile(fr.from_onnx(row.model())).run(row.feed())
