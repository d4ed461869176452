"""Ops over integers with a scale, and LSTMs whose weights are such."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.onnx_import.ops.recurrent import recurrent_attributes
from fastrnn.converters.onnx_import.registry import MICROSOFT, Given, imports
from fastrnn.model.recurrent import INPUTS
from fastrnn.model.small import BYTES_OF_ALL


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
        node.emit("DequantizeLinear", node.inputs[3 * k : 3 * k + 3], [name])
    result = node.emit(node.op.removeprefix("QLinear"), floats, [node.value("result")], **node.given("alpha"))
    node.emit("QuantizeLinear", [result, *node.inputs[3 * n : 3 * n + 2]])


@imports(MICROSOFT + "DynamicQuantizeLSTM")
def dynamic_quantize_lstm(node: Given) -> None:
    """An LSTM over int8 weights that rounds X, over all of a call, and H, over all rows of a step, to bytes: as DynamicQuantizeLinear does.

    W (D, I, 4H) and R (D, H, 4H), int8 or uint8, lie the other way round than an LSTM's; scales and zero points are (D,) or (D, 4H).
    """
    inputs = [node.inputs[0], "", "", *(node.input(k) for k in range(3, 8))]
    inputs += [""] * (len(INPUTS) - len(inputs))
    for k, scale, what in ((1, 8, "W"), (2, 10, "R")):
        w, s, z = (node.graph.names.weights.get(node.input(at)) for at in (k, scale, scale + 1))
        if any(p is None and node.input(at) for p, at in zip((w, s, z), (k, scale, scale + 1))) or w is None or s is None:
            raise node.refuse(f"{what}, its scale and its zero point must be constants")
        if w.ndim != 3 or w.dtype not in (np.int8, np.uint8):
            raise node.invalid(f"{what} must be bytes with three axes, got {w.dtype} {w.shape}")
        if any(p is not None and p.shape not in ((len(w),), (len(w), 1), (len(w), w.shape[2])) for p in (s, z)):
            raise node.invalid(f"{what} {w.shape} does not fit its scale {s.shape}")
        units = len(w), w.shape[2]
        z = np.zeros(units, w.dtype) if z is None else np.broadcast_to(z.reshape(len(w), -1), units)
        if w.dtype == np.uint8:  # the same numbers, 128 less
            w, z = (w ^ 128).view(np.int8), (np.ascontiguousarray(z) ^ 128).view(np.int8)
        made = {
            what: np.ascontiguousarray(w.transpose(0, 2, 1)),
            f"{what}_scale": np.broadcast_to(s.reshape(len(w), -1), units).astype(np.float32),
            f"{what}_zero": z.astype(np.int8),
        }
        for name, array in made.items():
            inputs[INPUTS.index(name)] = node.graph.add_weight(f"{node.name}.{name}", np.ascontiguousarray(array))
    node.emit("LSTM", inputs, **recurrent_attributes(node, "lstm"), x_bits=BYTES_OF_ALL)
