"""The op vocabulary: ONNX's names and meanings (its newest forms: axes, sizes and bounds are inputs).

    registry.py      Op, Spec, attributes and what shape functions share
    recurrent.py     RNN, GRU, LSTM
    elementwise.py   activations, arithmetic, comparisons, Cast
    shaping.py       Shape, Reshape, Transpose, Slice, Concat, ...
    indexing.py      Gather, ScatterND, Pad, Tile, Range, ConstantOfShape
    algebra.py       Det, Inverse, Cholesky, Solve, QR, SVD and other factors of matrices
    linear.py        Gemm, MatMul, Conv, ConvTranspose
    normal.py        reductions, Softmax, BatchNormalization, LayerNormalization
    functions.py     functions that have no kernel, tests for NaN and infinity, bits
    special.py       Bessel, zeta, incomplete gamma, orthogonal polynomials
    selecting.py     ArgMax, TopK, GatherElements, GatherND, ScatterElements, OneHot, Trilu, CumSum, ReverseSequence
    pooling.py       pooling windows, blocks of pixels
    transforms.py    Fourier transforms
    quantized.py     integers with a scale: QuantizeLinear, QLinearConv, MatMulInteger, ...
    integer_lstm.py  an LSTM in integers, as TensorFlow Lite computes it
    control.py       If, Loop, Scan
    foreign.py       ONNX's ops that are none of these, by the meaning that the onnx package has

Each op is a shape function (`op`) and a meaning in NumPy (`meaning`), side by side. Where an op carries more than ONNX's (marked +),
the default is ONNX's meaning. To add an op: both functions here, a row in tests/rows, and for .onnx files an importer.
"""

from fastrnn.model.ops import (
    algebra,
    control,
    elementwise,
    foreign,
    functions,
    indexing,
    integer_lstm,
    linear,
    normal,
    pooling,
    quantized,
    recurrent,
    selecting,
    shaping,
    special,
    transforms,
)
from fastrnn.model.ops.registry import (
    ANY_DIM,
    COMPLEX,
    DTYPES,
    EVAL,
    MAX_ELEMENTS,
    MAX_RANK,
    OPS,
    UNKNOWN,
    Dim,
    Op,
    Shape,
    Spec,
    check_node,
    meaning,
    op,
)

__all__ = ["ANY_DIM", "COMPLEX", "DTYPES", "EVAL", "MAX_ELEMENTS", "MAX_RANK", "OPS", "UNKNOWN", "Dim", "Op", "Shape", "Spec", "algebra", "check_node", "control",
           "elementwise", "foreign", "functions", "indexing", "integer_lstm", "linear", "meaning", "normal", "op", "pooling", "quantized", "recurrent", "selecting", "shaping",
           "special", "transforms"]  # fmt: skip
