"""Which results of other engines are exact on which processors, and what is exact everywhere.

ONNX Runtime multiplies unsigned by signed bytes with pairs of products summed in 16 bits, which saturate, on every x86 processor without the
VNNI instructions (AVX2 and AVX-512 alike: vpmaddubsw); vpdpbusd, which VNNI brings, sums in 32 bits. On x86, then, its products of bytes are
ONNX's own where the processor has VNNI; elsewhere only where they cannot saturate: with unsigned weights, which it widens first, or with weights of
7 bits, since 2 * 255 * 64 < 2^15. What is exact by ONNX's definition is compared with integer arithmetic (`exact`), on every processor, and
with ONNX Runtime only where `ort_is_exact`.
"""

import numpy as np
from onnx.reference import ReferenceEvaluator

from fastrnn.kernels import isa
from fastrnn.kernels.native import _cpu

SEVEN_BITS = 64
# Ops whose sums ONNX defines in integers, and where their weights are among their inputs.
WEIGHTS = {"MatMulInteger": 1, "ConvInteger": 1, "QLinearMatMul": 3, "QLinearConv": 3, "com.microsoft.DynamicQuantizeMatMul": 1, "com.microsoft.MatMulIntegerToFloat": 1}  # fmt: skip


VNNI = any(_cpu.has_dot(name) for name in isa.supported())  # with AVX-512, or the form of processors that lack it
SATURATES = "ONNX Runtime's products of bytes may saturate in 16 bits on a processor without VNNI"


def ort_is_exact(weights: np.ndarray) -> bool:
    """Whether ONNX Runtime's products of unsigned bytes with these are exact here."""
    return VNNI or weights.dtype == np.uint8 or bool(np.abs(weights.astype(int)).max(initial=0) <= SEVEN_BITS)


def exact(row) -> list | None:
    """What ONNX defines for a Row whose sums are integers: those sums in 64 bits, floats around them in float32. None for other ops."""
    if row.op not in WEIGHTS:
        return None
    if row.op == "com.microsoft.DynamicQuantizeMatMul":
        x, b, b_scale, b_zero, bias = row.inputs
        low, high = min(x.min(), 0), max(x.max(), 0)
        a_scale = np.float32(high - low) / np.float32(255)
        a_zero = np.rint(-low / a_scale)
        return [_sums(np.clip(np.rint(x / a_scale) + a_zero, 0, 255), a_zero, b, b_zero).astype(np.float32) * (a_scale * b_scale) + bias]
    if row.op == "com.microsoft.MatMulIntegerToFloat":
        a, b, a_scale, b_scale, a_zero, b_zero, bias = row.inputs
        return [_sums(a, a_zero, b, b_zero).astype(np.float32) * (a_scale * b_scale) + bias]
    if row.op == "MatMulInteger":
        a, b, a_zero, b_zero = [*row.inputs, 0, 0][:4]
        return [_sums(a, a_zero, b, b_zero).astype(np.int32)]
    if row.op == "ConvInteger":
        return [_windows(row, *row.inputs)]
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero, bias = [*row.inputs, np.int32(0)][:9]
    if row.op == "QLinearConv":
        sums, spread = _windows(row, a, b, a_zero, b_zero), lambda v: np.reshape(v, (-1, *(1,) * (b.ndim - 2))) if np.ndim(v) else v
        sums, b_scale = sums + spread(bias), spread(b_scale)
    else:
        sums = _sums(a, a_zero, b, b_zero)
    ends = np.iinfo(zero.dtype)
    return [np.clip(np.rint(sums.astype(np.float32) * (a_scale * b_scale / scale)) + zero, ends.min, ends.max).astype(zero.dtype)]


def _sums(a, a_zero, b, b_zero) -> np.ndarray:
    return np.matmul(np.asarray(a, np.int64) - np.asarray(a_zero, np.int64), np.asarray(b, np.int64) - np.asarray(b_zero, np.int64))


def _windows(row, x, w, x_zero, w_zero) -> np.ndarray:
    """Sums of a convolution by the onnx package's reference."""
    sums = type(row)("ConvInteger", [x, w, x_zero, w_zero], row.attributes, row.opset)
    return ReferenceEvaluator(sums.model()).run(None, sums.feed())[0]
