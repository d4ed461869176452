"""Elementwise ops."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.onnx_import.registry import REQUIRED, Given, imports


@imports(
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "PRelu",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "And",
    "Or",
    "Xor",
    "Not",
    "Where",
    "Min",
    "Max",
    "Sum",
    "Mean",
    "Relu",
    "Sigmoid",
    "Tanh",
    "Softsign",
    "Softplus",
    "Exp",
    "Log",
    "Sqrt",
    "Reciprocal",
    "Erf",
    "Sin",
    "Cos",
    "Floor",
    "Ceil",
    "Round",
    "Neg",
    "Abs",
    "Sign",
    "Identity",
    "Tan",
    "Asin",
    "Acos",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "Acosh",
    "Atanh",
    "IsNaN",
    "Mish",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "BitwiseNot",
    "CastLike",
)
def as_it_is(node: Given) -> None:
    """No attributes that count, one meaning since opset 7."""
    if node.op == "CastLike":
        node.ignore("saturate", "round_mode")
    node.emit()


@imports("LeakyRelu", "Elu", "ThresholdedRelu", "HardSigmoid", "Gelu", "Mod", "Selu", "Celu", "Swish", "IsInf", "BitShift")
def with_attributes(node: Given) -> None:
    """Attributes by the same names."""
    node.emit(**node.given("alpha", "beta", "gamma", "approximate", "fmod", "detect_negative", "detect_positive", "direction"))


@imports("HardSwish")
def hard_swish(node: Given) -> None:
    """x HardSigmoid(x / 6 + 1 / 2)."""
    gate = node.value("gate")
    node.emit("HardSigmoid", outputs=[gate], alpha=1 / 6, beta=0.5)
    node.emit("Mul", [node.inputs[0], gate])


@imports("Clip")
def clip(node: Given) -> None:
    """Bounds were attributes before opset 11."""
    if node.opset >= 11:
        node.emit()
        return
    bounds = [node.constant(name, node.attribute(name), np.float32) if node.has(name) else "" for name in ("min", "max")]
    node.emit(inputs=[node.inputs[0], *bounds])


@imports("Cast")
def cast(node: Given) -> None:
    """To a dtype; `saturate` is for dtypes of 8 bits only."""
    node.ignore("saturate", "round_mode")
    node.emit(to=node.graph.dtype(node.attribute("to", REQUIRED), node.where))


@imports("Dropout")
def dropout(node: Given) -> None:
    """Nothing, in inference: its mask lets everything through."""
    node.ignore("ratio", "seed")
    if node.input(2):
        training = node.graph.names.weights.get(node.input(2))
        if training is None or training.reshape(-1)[:1].any():
            raise node.refuse("training_mode must be a constant false")
    node.emit("Identity", node.inputs[:1], node.outputs[:1])
    if len(node.outputs) > 1 and node.outputs[1]:
        shape = node.emit("Shape", node.inputs[:1], [node.value("shape")])
        node.emit("ConstantOfShape", [shape], node.outputs[1:2], dtype="bool", value=1)
