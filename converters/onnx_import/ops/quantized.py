"""Ops over integers with a scale, and LSTMs whose weights are such."""

from __future__ import annotations

import numpy as np
from fastrnn.converters.onnx_import.ops.recurrent import recurrent_attributes
from fastrnn.converters.onnx_import.registry import MICROSOFT, Given, imports


@imports("QuantizeLinear", "DequantizeLinear", MICROSOFT + "QuantizeLinear", MICROSOFT + "DequantizeLinear")
def scaled(node: Given) -> None:
    """The axis since opset 13, blocks along it since 21. saturate is for floats of 8 bits only."""
    node.ignore("saturate")
    attributes = node.given("axis", "block_size")
    for name in ("output_dtype", "precision"):
        kind = node.attribute(name, 0)
        if kind and name == "output_dtype" and node.op == "QuantizeLinear":
            attributes[name] = node.graph.dtype(kind, node.where)
        elif kind and node.graph.dtype(kind, node.where) != "float32":
            raise node.refuse(f"{name} = {kind} is not supported, only float32")
    node.emit(node.op, **attributes)


@imports("DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul")
def as_it_is(node: Given) -> None:
    """No attributes."""
    node.emit()


@imports(MICROSOFT + "DynamicQuantizeMatMul", MICROSOFT + "MatMulIntegerToFloat")
def matmul_of_floats(node: Given) -> None:
    """An integer product, A quantized here or before, times both scales, plus a bias."""
    if node.op == "DynamicQuantizeMatMul":
        a, a_scale, a_zero = (node.value(what) for what in ("a", "a_scale", "a_zero"))
        node.emit("DynamicQuantizeLinear", node.inputs[:1], [a, a_scale, a_zero])
        b, b_scale, b_zero, bias = node.inputs[1], node.inputs[2], node.input(3), node.input(4)
    else:
        a, b, a_scale, b_scale = node.inputs[:4]
        a_zero, b_zero, bias = node.input(4), node.input(5), node.input(6)
    total, number, scale, product = (node.value(what) for what in ("total", "number", "scale", "product"))
    node.emit("MatMulInteger", [a, b, a_zero, b_zero], [total])
    node.emit("Cast", [total], [number], to="float32")
    node.emit("Mul", [a_scale, b_scale], [scale])
    node.emit("Mul", [number, scale], [product] if bias else node.outputs)
    if bias:
        node.emit("Add", [product, bias], node.outputs)


@imports(*(MICROSOFT + name for name in ("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu")))
def through_floats(node: Given) -> None:
    """Dequantized, computed, quantized again."""
    n = 2 if node.op in ("QLinearAdd", "QLinearMul") else 1
    floats = [node.value(f"float.{k}") for k in range(n)]
    for k, name in enumerate(floats):
        node.emit("DequantizeLinear", node.inputs[3 * k:3 * k + 3], [name])
    result = node.emit(node.op.removeprefix("QLinear"), floats, [node.value("result")], **node.given("alpha"))
    node.emit("QuantizeLinear", [result, *node.inputs[3 * n:3 * n + 2]])


@imports(MICROSOFT + "DynamicQuantizeLSTM")
def dynamic_quantize_lstm(node: Given) -> None:
    """An LSTM with the weights that the bytes stand for. ONNX Runtime also rounds X and H to bytes at each step; here they stay as they are.

    W (D, I, 4H) and R (D, H, 4H) lie the other way round than an LSTM's; scales and zero points are (D,) or (D, 4H).
    """
    whole = {}
    for k, scale, what in ((1, 8, "W"), (2, 10, "R")):
        parts = [node.graph.names.weights.get(node.input(at)) for at in (k, scale, scale + 1)]
        if any(p is None and node.input(at) for p, at in zip(parts, (k, scale, scale + 1))) or parts[0] is None or parts[1] is None:
            raise node.refuse(f"{what}, its scale and its zero point must be constants")
        if parts[0].ndim != 3:
            raise node.invalid(f"{what} must have three axes, got shape {parts[0].shape}")
        spread = [p if p is None else p.reshape(-1, 1, p.shape[1] if p.ndim > 1 else 1) for p in parts[1:]]
        if any(p is not None and not all(a in (1, b) for a, b in zip(p.shape, parts[0].shape)) for p in spread):
            raise node.invalid(f"{what} {parts[0].shape} does not fit its scale {parts[1].shape}")
        bytes_ = parts[0].astype(np.int32) - (0 if spread[1] is None else spread[1].astype(np.int32))
        whole[k] = node.graph.add_weight(f"{node.name}.{what}", np.ascontiguousarray((bytes_ * spread[0]).astype(np.float32).transpose(0, 2, 1)))
    node.emit("LSTM", [node.inputs[0], whole[1], whole[2], *node.inputs[3:8]], **recurrent_attributes(node, "lstm"))
