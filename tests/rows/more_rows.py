"""Rows for ops that are met now and then: selections, pooling, integers with a scale, what ONNX Runtime's optimiser writes."""

import numpy as np
from common_rows import X
from onnx import TensorProto
from row import MICROSOFT, Row, ints, rand

BYTES = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.uint8)
SIGNED = (BYTES.astype(np.int16) - 128).astype(np.int8)
SMALL = np.clip(X, -0.9, 0.9)
IMAGE, KERNEL = BYTES[:2, :4, :6].reshape(2, 2, 2, 6), SIGNED[:3, :2, :6].reshape(3, 2, 2, 3)
TABLE = SIGNED[0, :, :4].repeat(2, 0)[:7]
UP = np.abs(X) + np.float32(1.5)


def scale(*values):
    return np.array(values if len(values) > 1 else values[0], np.float32)


def quantised(shape, seed=0):
    """Bytes of a shape, their scale and zero point."""
    return [np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8), scale(0.03), np.array(120, np.uint8)]


MORE = [
    *(Row(op, [X]) for op in ("Tan", "Atan", "Sinh", "Cosh", "Asinh")), *(Row(op, [SMALL]) for op in ("Asin", "Acos", "Atanh")), Row("Acosh", [UP]),
    Row("IsNaN", [np.float32([1, np.nan, np.inf])]), Row("IsInf", [np.float32([1, np.nan, np.inf, -np.inf])]),
    Row("IsInf", [np.float32([1, np.inf, -np.inf])], {"detect_negative": 0}), Row("Mish", [X], opset=18), Row("Selu", [X]), Row("Selu", [X], {"alpha": 1.1, "gamma": 2.0}),
    Row("Celu", [X]), Row("Celu", [X], {"alpha": 0.4}), Row("Swish", [X], opset=24), Row("Swish", [X], {"alpha": 0.7}, 24),
    *(Row(op, [ints(12, 7, -3, dtype=np.int32), ints(10, 3, 5, dtype=np.int32)], opset=18) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    Row("BitwiseNot", [ints(12, -7, dtype=np.int32)], opset=18),
    *(Row("BitShift", [ints(16, 4, 1, dtype=np.uint8), ints(1, 2, 9, dtype=np.uint8)], {"direction": d}, 11) for d in ("LEFT", "RIGHT")),
    *(Row(op, [X.round()], a, opset) for op in ("ArgMax", "ArgMin") for a, opset in (({}, 11), ({"axis": -1, "keepdims": 0}, 13), ({"axis": 1, "select_last_index": 1}, 13))),
    Row("TopK", [X], {"k": 3}, 9, 2), Row("TopK", [X.round(), ints(3)], {"axis": 1}, 10, 2, (1,)), Row("TopK", [X.round(), ints(2)], {"axis": 0, "largest": 0}, 11, 2, (1,)),
    Row("GatherElements", [X, ints(2, 0, -1).reshape(3, 1, 1)]), Row("GatherElements", [X, BYTES[:, :2].astype(np.int64) % 7], {"axis": 2}, 13),
    Row("GatherND", [X, np.array([[0, 1], [2, -1]])]), Row("GatherND", [X, ints(2, 0, 4).reshape(3, 1)], {"batch_dims": 1}, 13),
    *(Row(op, [X, (BYTES[:, :2] % 3).astype(np.int64), rand(3, 2, 7)], opset=opset) for op, opset in (("Scatter", 9), ("ScatterElements", 11))),
    Row("ScatterElements", [X, (BYTES[:, :2] % 5).astype(np.int64), rand(3, 2, 7)], {"axis": 1, "reduction": "add"}, 16),
    *(Row("ScatterElements", [X, (BYTES[:, :2] % 5).astype(np.int64), rand(3, 2, 7)], {"axis": 1, "reduction": r}, 18) for r in ("mul", "min", "max")),
    Row("OneHot", [ints(0, 2, -1, 9), np.array(4), rand(2)], constant=(1,)), Row("OneHot", [ints(0, 2).reshape(2, 1), np.array(3), ints(5, 6)], {"axis": 0}, constant=(1,)),
    *(Row("Trilu", [X, *k], {"upper": u}, 14, constant=(1,)) for u in (0, 1) for k in ((), (np.array(2),), (np.array(-9),))),
    Row("CumSum", [X, np.array(1)], constant=(1,)), Row("CumSum", [X, np.array(-1)], {"exclusive": 1, "reverse": 1}, constant=(1,)),
    Row("ReverseSequence", [X, ints(3, 1, 0, 2, 3)]), Row("ReverseSequence", [X, ints(5, 1, 2)], {"batch_axis": 0, "time_axis": 1}),
    *(Row("DepthToSpace", [rand(2, 12, 3, 2)], {"blocksize": 2, **m}, 11) for m in ({}, {"mode": "CRD"})), Row("SpaceToDepth", [rand(2, 3, 4, 6)], {"blocksize": 2}, 13),
    *(Row(op, [X], {"kernel_shape": [3], **a}, 12) for op in ("MaxPool", "AveragePool") for a in ({}, {"strides": [2], "pads": [1, 1]}, {"auto_pad": "SAME_UPPER", "strides": [2]})),
    *(Row(op, [rand(2, 3, 6, 7)], {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1], "ceil_mode": 1}, 12) for op in ("MaxPool", "AveragePool")),
    Row("AveragePool", [rand(2, 3, 6, 7)], {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1], "count_include_pad": 1}, 12),
    *(Row(op, [rand(2, 70, 5, 6)], {"kernel_shape": [2, 2], "strides": [2, 2]}, 12) for op in ("MaxPool", "AveragePool")),
    Row("MaxPool", [rand(1, 2, 9)], {"kernel_shape": [3], "dilations": [2]}, 10), Row("MaxPool", [rand(1, 2, 9)], {"kernel_shape": [3]}, 8, 2),
    *(Row("MaxPool", [rand(2, 3, 6, 7)], {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1], "storage_order": order}, 12, 2) for order in (0, 1)),
    Row("MaxPool", [BYTES], {"kernel_shape": [2]}, 12), *(Row(op, [rand(2, 3, 4, 5)]) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    Row("Det", [rand(2, 3, 3)]), Row("Einsum", [X, rand(7, 4)], {"equation": "bij,jk->bik"}), Row("Einsum", [X, X], {"equation": "...i, ...i -> ..."}), Row("Einsum", [rand(4, 4)], {"equation": "ii"}),
    *(Row(op, [np.abs(X)], {"axes": [1], "keepdims": 0}, 11) for op in ("ReduceL1", "ReduceLogSum", "ReduceLogSumExp")),
    Row("ReduceL1", [X, ints(0, 2)], opset=18, constant=(1,)), Row("ReduceLogSumExp", [X * 100]),
    Row("InstanceNormalization", [X, rand(5), rand(5)], {"epsilon": 1e-3}, constant=(1, 2)), Row("InstanceNormalization", [rand(2, 3, 4, 5), rand(3), rand(3)], constant=(1, 2)),
    Row("GroupNormalization", [rand(2, 6, 4), rand(3), rand(3)], {"num_groups": 3}, 18, constant=(1, 2)),
    Row("GroupNormalization", [rand(2, 6, 4), rand(6), rand(6)], {"num_groups": 3, "epsilon": 1e-3}, 21, constant=(1, 2)),
    Row("LpNormalization", [X]), Row("LpNormalization", [X], {"axis": 1, "p": 1}), Row("RMSNormalization", [X, rand(7)], opset=23, constant=(1,)),
    Row("RMSNormalization", [X, rand(5, 7)], {"axis": 1, "epsilon": 0.01}, 23, constant=(1,)),
    Row("CastLike", [rand(3, 4), ints(1, dtype=np.int32)], {}, 15), Row("CastLike", [BYTES, rand(1)], {}, 19),
    Row("LayerNormalization", [X, rand(7)], outputs=3, constant=(1,)), Row("ScatterND", [X, ints(1, 1).reshape(2, 1), rand(2, 5, 7)], {"reduction": "add"}, 16),
    Row("Resize", [rand(1, 2, 3, 4), None, scale(1, 1, 2, 2)], {"mode": "nearest"}, 13, constant=(2,)),
    Row("Resize", [rand(1, 2, 4, 4), None, None, ints(1, 2, 6, 5)], {"mode": "linear"}, 13, constant=(3,)),
    Row("Hardmax", [X], opset=13), Row("Shrink", [X], {"lambd": 0.5}), Row("EyeLike", [rand(3, 4)]), Row("LRN", [rand(1, 5, 3, 3)], {"size": 3}),
    *(Row("QuantizeLinear", [X * 10, *more], a, opset, constant=(1, 2)) for more, a, opset in (
        ((scale(0.1),), {}, 10), ((scale(0.1), np.array(100, np.uint8)), {}, 10), ((scale(0.2), np.array(-5, np.int8)), {}, 13),
        ((scale(*range(1, 6)), np.arange(5, dtype=np.uint8)), {"axis": 1}, 13), ((scale(*range(1, 8)), np.arange(7, dtype=np.int8)), {"axis": -1}, 13),
        ((scale(0.01), np.array(3, np.uint16)), {}, 21), ((np.abs(rand(3, 5, 2)) + np.float32(0.1),), {"axis": 2, "block_size": 4, "output_dtype": TensorProto.INT16}, 21))),
    *(Row("DequantizeLinear", [BYTES, *more], a, opset, constant=(1, 2)) for more, a, opset in (
        ((scale(0.1),), {}, 10), ((scale(0.1), np.array(100, np.uint8)), {}, 10), ((scale(*range(1, 6)), np.arange(5, dtype=np.uint8)), {"axis": 1}, 13),
        ((np.abs(rand(3, 5, 2)), BYTES[:, :, :2]), {"axis": 2, "block_size": 4}, 21))),
    Row("DequantizeLinear", [SIGNED, scale(0.3), np.array(-2, np.int8)], constant=(1, 2)), Row("DequantizeLinear", [ints(7, -9, dtype=np.int32), scale(0.3)], constant=(1,)),
    Row("DynamicQuantizeLinear", [X], opset=11, outputs=3), Row("DynamicQuantizeLinear", [X * 0], opset=11, outputs=3), Row("QuantizeLinear", [X[0, 0], scale(0.1).reshape(1)], opset=11), Row("DynamicQuantizeLinear", [np.abs(X)], opset=11, outputs=3),
    # Signed weights of 8 bits, and of 7: tests/oracles/oracles.py says what ONNX Runtime makes of which.
    *(Row("MatMulInteger", [BYTES, w[:, :2]], opset=10) for w in (TABLE, TABLE // 2)), Row("MatMulInteger", [BYTES, BYTES[0].T, np.array(100, np.uint8), np.array(9, np.uint8)], opset=10),
    Row("QLinearMatMul", [*quantised((3, 4)), *quantised((4, 5), 1), scale(0.2), np.array(7, np.uint8)], opset=10, constant=(1, 2, 3, 4, 5, 6, 7)),
    Row("ConvInteger", [IMAGE, KERNEL.view(np.uint8), np.array(100, np.uint8), np.array(9, np.uint8)], {"pads": [1, 0, 0, 1]}, 10, constant=(1, 2, 3)),
    *(Row("QLinearConv", [IMAGE, scale(0.05), np.array(110, np.uint8), w, scale(0.02), np.array(0, np.int8), scale(0.3), np.array(128, np.uint8)], {"strides": [1, 2]}, 10,
          constant=(1, 2, 3, 4, 5, 6, 7)) for w in (KERNEL, KERNEL // 2)),
    *(Row("QLinearConv", [IMAGE, scale(0.05), np.array(110, np.uint8), w, scale(0.02, 0.01, 0.05), np.zeros(3, np.int8), scale(0.3), np.array(128, np.uint8), ints(30, -9, 200, dtype=np.int32)],
          {"pads": [0, 1, 1, 1]}, 10, constant=(1, 2, 3, 4, 5, 6, 7, 8)) for w in (KERNEL, KERNEL // 2)),
    Row(MICROSOFT + "QuantizeLinear", [X, scale(0.1), np.array(100, np.uint8)], constant=(1, 2), gives=TensorProto.UINT8),
    Row(MICROSOFT + "DequantizeLinear", [BYTES, scale(0.1), np.array(100, np.uint8)], constant=(1, 2)),
    *(Row(MICROSOFT + op, [*quantised((3, 4)), *quantised((3, 4), 1), scale(0.2), np.array(7, np.uint8)], constant=(1, 2, 4, 5, 6, 7), gives=TensorProto.UINT8)
      for op in ("QLinearAdd", "QLinearMul")),
    *(Row(MICROSOFT + op, [*quantised((3, 4)), scale(0.05), np.array(7, np.uint8)], a, constant=(1, 2, 3, 4), gives=TensorProto.UINT8)
      for op, a in (("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.2}))),
    *(Row(MICROSOFT + "DynamicQuantizeMatMul", [X, w, scale(0.02), np.array(3, np.int8), rand(4)], constant=(1, 2, 3, 4)) for w in (TABLE, TABLE // 2)),
    *(Row(MICROSOFT + "MatMulIntegerToFloat", [BYTES, w, scale(0.1), scale(0.02), np.array(9, np.uint8), np.array(3, np.int8), rand(4)], constant=(1, 2, 3, 4, 5, 6)) for w in (TABLE, TABLE // 2)),
    *(Row(MICROSOFT + "FusedMatMul", [rand(2, *a), rand(2, *b)], {"transA": ta, "transB": tb, "alpha": 0.5}) for ta, tb, a, b in ((0, 0, (3, 4), (4, 5)), (1, 0, (4, 3), (4, 5)), (0, 1, (3, 4), (5, 4)))),
    Row(MICROSOFT + "FusedMatMul", [rand(2, 3, 4), rand(4, 5)], constant=(1,)), Row(MICROSOFT + "TransposeMatMul", [rand(2, 4, 3), rand(2, 4, 5)], {"transA": 1}),
    *(Row(MICROSOFT + "FusedConv", [X, rand(4, 5, 3), rand(4)], {"activation": kind, **more}, constant=(1, 2))
      for kind, more in (("Relu", {}), ("Tanh", {}), ("LeakyRelu", {"activation_params": [0.2]}), ("Clip", {"activation_params": [-0.5, 0.6]}), ("HardSigmoid", {"activation_params": [0.3, 0.4]}))),
    Row(MICROSOFT + "FusedConv", [rand(1, 5, 3, 7), rand(4, 5, 1, 3), rand(4), rand(1, 4, 3, 5)], {"activation": "Relu"}, constant=(1, 2)),
    Row(MICROSOFT + "FusedGemm", [rand(3, 4), rand(4, 5), rand(5)], {"activation": "LeakyRelu", "activation_alpha": 0.3, "alpha": 0.5}, constant=(1, 2)),
    Row(MICROSOFT + "BiasGelu", [X, rand(7)], constant=(1,)), Row(MICROSOFT + "Gelu", [X]), Row(MICROSOFT + "FastGelu", [X, rand(7)], constant=(1,)), Row(MICROSOFT + "FastGelu", [X]),
    Row(MICROSOFT + "QuickGelu", [X]), Row(MICROSOFT + "QuickGelu", [X], {"alpha": 1.2}),
    Row(MICROSOFT + "SkipLayerNormalization", [X, rand(3, 5, 7, seed=1), rand(7), rand(7, seed=1), rand(7, seed=2)], {"epsilon": 1e-5}, constant=(2, 3, 4)),
    Row(MICROSOFT + "SkipLayerNormalization", [X, rand(3, 5, 7, seed=1), rand(7)], {"epsilon": 1e-5}, constant=(2,)),
    Row(MICROSOFT + "SkipSimplifiedLayerNormalization", [X, rand(3, 5, 7, seed=1), rand(7), rand(7, seed=2)], {"epsilon": 1e-5}, constant=(2, 3)),
]  # fmt: skip
