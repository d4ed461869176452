"""Elementwise ops: activations, arithmetic, comparisons, Cast, Clip, Where."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.cells import Activation
from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.registry import DTYPES, OPS, Spec, aligned, always, broadcast, meaning, op, require, where

FLOATS = ("float32", "float64")
NUMBERS = tuple(d for d in DTYPES if d != "bool")
_erf = np.frompyfunc(math.erf, 1, 1)

# Ops that are one of the recurrent ops' activations, by that activation's name.
UNARY_KINDS = {"Identity": "identity", "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softsign": "softsign", "LeakyRelu": "leakyrelu",
               "Elu": "elu", "ThresholdedRelu": "thresholdedrelu", "HardSigmoid": "hardsigmoid", "Softplus": "softplus", "Exp": "exp"}  # fmt: skip


def unary_activation(node) -> Activation:
    """The activation that an elementwise node applies."""
    parameters = {k: node.get(k) for k in ("alpha", "beta") if k in OPS[node.op].attributes}
    return Activation(UNARY_KINDS[node.op], **parameters)


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, through float64."""
    return np.asarray(_erf(x.astype(np.float64)), np.float64).astype(x.dtype)


# Other functions of one input: the dtypes they take, and their NumPy form.
FUNCTIONS = {
    "Sqrt": (FLOATS, np.sqrt), "Log": (FLOATS, np.log), "Reciprocal": (FLOATS, lambda x: 1 / x), "Erf": (FLOATS, erf), "Sin": (FLOATS, np.sin),
    "Cos": (FLOATS, np.cos), "Floor": (FLOATS, np.floor), "Ceil": (FLOATS, np.ceil), "Round": (FLOATS, np.rint), "Neg": (NUMBERS, np.negative),
    "Abs": (NUMBERS, np.abs), "Sign": (NUMBERS, np.sign), "Not": (("bool",), np.logical_not), "Silu": (FLOATS, lambda x: x * Activation("sigmoid")(x)),
}  # fmt: skip


@op("Identity", apart=always)
def identity(node, inputs):
    """Any dtype; a missing optional input stays missing."""
    return [inputs[0]]


@op("Relu", "Sigmoid", "Tanh", "Softsign", "Softplus", "Exp", apart=always)
@op("LeakyRelu", alpha=0.01, apart=always)
@op("Elu", alpha=1.0, apart=always)
@op("ThresholdedRelu", alpha=1.0, apart=always)
@op("HardSigmoid", alpha=0.2, beta=0.5, apart=always)
@op("Gelu", approximate="none", apart=always)
@op(*FUNCTIONS, apart=always)
def same(node, inputs):
    """The shape stays."""
    spec = require(node, inputs[0], "the input", FUNCTIONS.get(node.op, (FLOATS,))[0])
    if node.op == "Gelu" and node.get("approximate") not in ("none", "tanh"):
        raise InvalidModelError(f"{where(node)}: approximate must be 'none' or 'tanh', got {node.get('approximate')!r}")
    return [Spec(spec.dtype, spec.shape)]


@meaning(*UNARY_KINDS)
def unary(node, inputs):
    """One of the recurrent ops' activations."""
    return [inputs[0] if node.op == "Identity" else unary_activation(node)(inputs[0])]


@meaning(*FUNCTIONS)
def function(node, inputs):
    """A function of one input."""
    return [np.asarray(FUNCTIONS[node.op][1](inputs[0]), inputs[0].dtype)]


@meaning("Gelu")
def gelu(node, inputs):
    """x Phi(x), exact or (Hendrycks and Gimpel 2016) through tanh."""
    x = inputs[0]
    if node.get("approximate") == "tanh":
        return [(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))).astype(x.dtype)]
    return [(0.5 * x * (1 + erf(x / math.sqrt(2.0)))).astype(x.dtype)]


def _divide(a, b):
    """True division of floats; of integers truncated, as C does."""
    if a.dtype.kind == "f":
        return a / b
    quotient = a // np.where(b == 0, 1, b)
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype)


def _power(a, b):
    """With the exponents laid out: NumPy makes a root of a repeated 0.5, which differs at -inf and -0."""
    return np.power(a, np.array(np.broadcast_to(b, np.broadcast_shapes(a.shape, b.shape))))


BINARY = {
    "Add": (NUMBERS, np.add),
    "Sub": (NUMBERS, np.subtract),
    "Mul": (NUMBERS, np.multiply),
    "Div": (NUMBERS, _divide),
    "PRelu": (FLOATS, lambda x, slope: np.where(x < 0, slope * x, x)),
    "Pow": (NUMBERS, _power),
    "Mod": (NUMBERS, np.mod),
}
COMPARISONS = {
    "Equal": (DTYPES, np.equal),
    "Less": (NUMBERS, np.less),
    "LessOrEqual": (NUMBERS, np.less_equal),
    "Greater": (NUMBERS, np.greater),
    "GreaterOrEqual": (NUMBERS, np.greater_equal),
    "And": (("bool",), np.logical_and),
    "Or": (("bool",), np.logical_or),
    "Xor": (("bool",), np.logical_xor),
}


_FUNCTIONS_OF_TWO = BINARY | COMPARISONS


@op("Add", "Sub", "Mul", "Div", "Pow", "PRelu", *COMPARISONS, inputs=(2, 2), apart=aligned)
@op("Mod", inputs=(2, 2), apart=aligned, fmod=0)
def binary(node, inputs):
    """Of one dtype (but for Pow's exponent), broadcast; PRelu's slope broadcasts to x."""
    dtypes = _FUNCTIONS_OF_TWO[node.op][0]
    a, b = (require(node, s, what, dtypes) for s, what in zip(inputs, "AB"))
    if a.dtype != b.dtype and node.op != "Pow":
        raise InvalidModelError(f"{where(node)}: dtypes {a.dtype} and {b.dtype} differ")
    shape = broadcast(node, a.shape, b.shape)
    if node.op == "PRelu" and (len(shape) != a.rank or any(not isinstance(x, str) and x != y for x, y in zip(a.shape, shape))):
        raise ShapeError(f"{where(node)}: slope {b.shape} does not broadcast to {a.shape}")
    return [Spec("bool" if node.op in COMPARISONS else a.dtype, shape)]


@meaning(*BINARY, *COMPARISONS)
def binary_meaning(node, inputs):
    """NumPy's function of two arrays."""
    a, b = inputs
    if node.op == "Mod" and node.get("fmod"):
        return [np.fmod(a, b)]
    result = _FUNCTIONS_OF_TWO[node.op][1](a, b)
    return [np.asarray(result) if node.op != "Pow" else np.asarray(result, a.dtype)]


@op("Min", "Max", "Sum", "Mean", inputs=(1, 64), apart=aligned)
def variadic(node, inputs):
    """Any number of inputs of one dtype, broadcast."""
    specs = [require(node, s, f"input {k}", NUMBERS if node.op in ("Min", "Max") else FLOATS) for k, s in enumerate(inputs)]
    if len({s.dtype for s in specs}) > 1:
        raise InvalidModelError(f"{where(node)}: dtypes {', '.join(s.dtype for s in specs)} differ")
    return [Spec(specs[0].dtype, broadcast(node, *(s.shape for s in specs)))]


@meaning("Min", "Max", "Sum", "Mean")
def variadic_meaning(node, inputs):
    """From left to right."""
    function, result = {"Min": np.minimum, "Max": np.maximum}.get(node.op, np.add), inputs[0]
    for a in inputs[1:]:
        result = function(result, a)
    return [np.asarray(result / len(inputs) if node.op == "Mean" else result, inputs[0].dtype)]


@op("Where", inputs=(3, 3), apart=aligned)
def where_(node, inputs):
    """x where the condition holds, else y."""
    condition, x, y = (require(node, s, what) for s, what in zip(inputs, ("condition", "X", "Y")))
    if condition.dtype != "bool" or x.dtype != y.dtype:
        raise InvalidModelError(f"{where(node)}: takes a bool and two values of one dtype, got {condition.dtype}, {x.dtype}, {y.dtype}")
    return [Spec(x.dtype, broadcast(node, condition.shape, x.shape, y.shape))]


@meaning("Where")
def where_meaning(node, inputs):
    """Elementwise choice."""
    return [np.where(*inputs).astype(inputs[1].dtype)]


@op("Clip", inputs=(1, 3), apart=always)
def clip(node, inputs):
    """Between min and max, scalars that may be omitted."""
    x = require(node, inputs[0], "the input", NUMBERS)
    for spec, what in zip(inputs[1:], ("min", "max")):
        if spec is not None and (spec.dtype != x.dtype or spec.rank and spec.shape != (1,)):
            raise InvalidModelError(f"{where(node)}: {what} must be a scalar of {x.dtype}, got {spec.dtype} {spec.shape}")
    return [Spec(x.dtype, x.shape)]


@meaning("Clip")
def clip_meaning(node, inputs):
    """min first, then max, as ONNX orders them; a bound that is NaN bounds nothing."""
    x = inputs[0]
    for bound, function in zip(inputs[1:], (np.maximum, np.minimum)):
        if bound is not None and bound.reshape(()) == bound.reshape(()):
            x = function(x, bound.reshape(()))
    return [np.asarray(x, inputs[0].dtype)]


@op("Cast", to=None, apart=always)
def cast(node, inputs):
    """To another dtype: floats to integers truncate."""
    spec = require(node, inputs[0], "the input")
    if node.get("to") not in DTYPES:
        raise InvalidModelError(f"{where(node)}: to must be one of {', '.join(DTYPES)}, got {node.get('to')!r}")
    return [Spec(node.get("to"), spec.shape)]


@op("CastLike", inputs=(2, 2), apart=lambda node, specs, axes: axes[0] is not None)
def cast_like(node, inputs):
    """To the dtype of the second input; folding makes it a Cast."""
    spec, like = (require(node, s, what) for s, what in zip(inputs, ("the input", "target_type")))
    return [Spec(like.dtype, spec.shape)]


@meaning("CastLike")
def cast_like_meaning(node, inputs):
    """NumPy's astype."""
    return [inputs[0].astype(inputs[1].dtype)]


@meaning("Cast")
def cast_meaning(node, inputs):
    """NumPy's astype; a value of symbols stays as it is."""
    return [inputs[0] if inputs[0].dtype == object else inputs[0].astype(node.get("to"))]
