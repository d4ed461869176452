"""Elementwise functions without a kernel of their own, and tests for what is no number."""

from __future__ import annotations

import numpy as np

from fastrnn.cells import Activation
from fastrnn.errors import InvalidModelError
from fastrnn.model.ops.elementwise import FLOATS
from fastrnn.model.ops.registry import Spec, aligned, always, broadcast, meaning, op, require, where

WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FUNCTIONS = {"Tan": np.tan, "Asin": np.arcsin, "Acos": np.arccos, "Atan": np.arctan, "Sinh": np.sinh, "Cosh": np.cosh, "Asinh": np.arcsinh,
             "Acosh": np.arccosh, "Atanh": np.arctanh}  # fmt: skip
BITWISE = {"BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor}


@op(*FUNCTIONS, apart=always)
def same(node, inputs):
    """Of floats; the shape stays."""
    spec = require(node, inputs[0], "the input", FLOATS)
    return [Spec(spec.dtype, spec.shape)]


@meaning(*FUNCTIONS)
def function(node, inputs):
    """NumPy's."""
    return [np.asarray(FUNCTIONS[node.op](inputs[0]), inputs[0].dtype)]


@op("Selu", alpha=1.67326319217681884765625, gamma=1.05070102214813232421875, apart=always)
@op("Celu", alpha=1.0, apart=always)
@op("Swish", alpha=1.0, apart=always)
@op("Mish", apart=always)
def activation(node, inputs):
    """Of floats; the shape stays."""
    spec = require(node, inputs[0], "the input", FLOATS)
    if node.op == "Celu" and node.get("alpha") == 0:
        raise InvalidModelError(f"{where(node)}: alpha must not be 0")
    return [Spec(spec.dtype, spec.shape)]


@meaning("Selu")
def selu(node, inputs):
    """gamma Elu(x)."""
    x = inputs[0]
    return [np.asarray(x.dtype.type(node.get("gamma")) * Activation("elu", node.get("alpha"), 0.0)(x), x.dtype)]


@meaning("Celu")
def celu(node, inputs):
    """alpha Elu(x / alpha)."""
    x = inputs[0]
    alpha = x.dtype.type(node.get("alpha"))
    return [np.asarray(np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x / alpha, 0) if alpha > 0 else x / alpha)), x.dtype)]


@meaning("Swish")
def swish(node, inputs):
    """x sigmoid(alpha x)."""
    x = inputs[0]
    return [np.asarray(x * Activation("sigmoid")(x.dtype.type(node.get("alpha")) * x), x.dtype)]


@meaning("Mish")
def mish(node, inputs):
    """x tanh(softplus(x))."""
    x = inputs[0]
    return [np.asarray(x * np.tanh(Activation("softplus")(x)), x.dtype)]


@op("IsNaN", apart=always)
@op("IsInf", detect_negative=1, detect_positive=1, apart=always)
def test(node, inputs):
    """Of floats, a bool."""
    return [Spec("bool", require(node, inputs[0], "the input", FLOATS).shape)]


@meaning("IsNaN")
def is_nan(node, inputs):
    """NumPy's isnan."""
    return [np.asarray(np.isnan(inputs[0]))]


@meaning("IsInf")
def is_inf(node, inputs):
    """Of one sign or of both."""
    wanted = np.isposinf(inputs[0]) & bool(node.get("detect_positive")) | np.isneginf(inputs[0]) & bool(node.get("detect_negative"))
    return [np.asarray(wanted)]


@op(*BITWISE, inputs=(2, 2), apart=aligned)
@op("BitShift", inputs=(2, 2), direction=None, apart=aligned)
def bitwise(node, inputs):
    """Of whole numbers of one dtype, broadcast; BitShift by `direction` LEFT or RIGHT."""
    a, b = (require(node, s, what, WHOLE) for s, what in zip(inputs, "AB"))
    if a.dtype != b.dtype:
        raise InvalidModelError(f"{where(node)}: dtypes {a.dtype} and {b.dtype} differ")
    if node.op == "BitShift" and node.get("direction") not in ("LEFT", "RIGHT"):
        raise InvalidModelError(f"{where(node)}: direction must be LEFT or RIGHT, got {node.get('direction')!r}")
    return [Spec(a.dtype, broadcast(node, a.shape, b.shape))]


@meaning(*BITWISE, "BitShift")
def bitwise_meaning(node, inputs):
    """NumPy's; a shift by all bits or more leaves nothing, or to the right the sign."""
    a, b = inputs
    if node.op != "BitShift":
        return [np.asarray(BITWISE[node.op](a, b))]
    if a.dtype.kind == "i" and node.get("direction") == "RIGHT":
        return [np.asarray(np.right_shift(a, np.minimum(b, a.dtype.itemsize * 8 - 1).astype(a.dtype)))]
    shifted = np.left_shift(a, b) if node.get("direction") == "LEFT" else np.right_shift(a, b)
    return [np.asarray(np.where(b < a.dtype.itemsize * 8, shifted, 0), a.dtype)]


@op("BitwiseNot", apart=always)
def bitwise_not(node, inputs):
    """Every bit turned."""
    spec = require(node, inputs[0], "the input", WHOLE)
    return [Spec(spec.dtype, spec.shape)]


@meaning("BitwiseNot")
def bitwise_not_meaning(node, inputs):
    """NumPy's invert."""
    return [np.invert(inputs[0])]


@op("NextAfter", inputs=(2, 2), apart=aligned)
def next_after(node, inputs):
    """The number of a float's dtype that lies next to it on the way to another one."""
    a, b = (require(node, s, what, FLOATS) for s, what in zip(inputs, "AB"))
    if a.dtype != b.dtype:
        raise InvalidModelError(f"{where(node)}: dtypes {a.dtype} and {b.dtype} differ")
    return [Spec(a.dtype, broadcast(node, a.shape, b.shape))]


@meaning("NextAfter")
def next_after_meaning(node, inputs):
    """NumPy's."""
    return [np.asarray(np.nextafter(*inputs))]


@op("Frexp", outputs=2, apart=always)
def frexp(node, inputs):
    """Floats as m 2^e with m from a half to 1, and e int32."""
    spec = require(node, inputs[0], "the input", FLOATS)
    return [Spec(spec.dtype, spec.shape), Spec("int32", spec.shape)]


@meaning("Frexp")
def frexp_meaning(node, inputs):
    """NumPy's."""
    return [np.asarray(a) for a in np.frexp(inputs[0])]
