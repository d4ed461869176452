"""Elementwise operators."""

from __future__ import annotations

from fastrnn.converters.torch_export.ops.functions import truncated
from fastrnn.converters.torch_export.registry import Size, Tensor, converts
from fastrnn.converters.torch_export.site import Site

UNARY = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "erf": "Erf",
         "sin": "Sin",
         "cos": "Cos", "floor": "Floor", "ceil": "Ceil", "round": "Round", "neg": "Neg", "abs": "Abs", "sign": "Sign", "silu": "Silu"}  # fmt: skip
BINARY = {"mul": "Mul", "maximum": "Max", "minimum": "Min"}
COMPARISONS = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
LOGICAL = {"and": "And", "or": "Or", "xor": "Xor"}


@converts(*(f"aten.{name}.default" for name in UNARY))
def unary(g: Site, x):
    """One function, in the result's dtype; of whole numbers, rounding changes nothing."""
    name = g.target.split(".")[1]
    if name in ("floor", "ceil", "round") and not g.dtype.startswith("float"):
        return g.emit("Identity", x)
    if name == "sign" and g.dtype.startswith("float"):  # torch has 0 for NaN
        return g.emit("Where", g.emit("Equal", x, x), g.emit("Sign", x), g.constant(0, g.dtype))
    return g.emit(UNARY[name], g.cast(x, g.dtype))


@converts("aten._neg_view.default")
def negated(g: Site, x):
    """As torch.imag of a conjugate has it."""
    return g.emit("Neg", x)


@converts(*(f"aten.{name}.default" for name in ("real", "conj", "_conj", "conj_physical", "_conj_physical", "resolve_conj", "resolve_neg")))
def of_real(g: Site, x):
    """Real numbers are their own conjugates."""
    return g.emit("Identity", x)


@converts(
    "aten.rsqrt.default",
    "aten.log1p.default",
    "aten.expm1.default",
    "aten.log2.default",
    "aten.log10.default",
    "aten.exp2.default",
    "aten.square.default",
    "aten.mish.default",
    "aten.log_sigmoid.default",
    "aten.hardsigmoid.default",
    "aten.hardswish.default",
    "aten.relu6.default",
    "aten.isnan.default",
)
def composed(g: Site, x):
    """Of two or three functions."""
    kind = g.target.split(".")[1]
    if kind == "isnan":
        return g.emit("Not", g.emit("Equal", x, x))
    x = g.cast(x, g.dtype)
    if kind == "rsqrt":
        return g.emit("Reciprocal", g.emit("Sqrt", x))
    if kind == "log1p":
        return _log1p(g, x)
    if kind == "expm1":  # = tanh(x / 2) (exp x + 1), which keeps the digits of a small x
        return g.emit("Mul", g.emit("Tanh", g.emit("Mul", x, g.constant(0.5, g.dtype))), g.emit("Add", g.emit("Exp", x), g.constant(1, g.dtype)))
    if kind in ("log2", "log10"):
        return g.emit("Mul", g.emit("Log", x), g.constant({"log2": 1.4426950408889634, "log10": 0.4342944819032518}[kind], g.dtype))
    if kind == "exp2":
        return g.emit("Pow", g.constant(2, g.dtype), x)
    if kind == "square":
        return g.emit("Mul", x, x)
    if kind == "mish":
        return g.emit("Mul", x, g.emit("Tanh", g.emit("Softplus", x)))
    if kind == "log_sigmoid":
        return g.emit("Neg", g.emit("Softplus", g.emit("Neg", x)))
    if kind == "relu6":
        return g.emit("Clip", x, g.constant(0, g.dtype), g.constant(6, g.dtype))
    gate = g.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    return gate if kind == "hardsigmoid" else g.emit("Mul", x, gate)


def _log1p(g: Site, x: str) -> str:
    """log(u) x / (u - 1) with u = 1 + x as it is rounded (Kahan), which keeps the digits of a small x."""
    one = g.constant(1, g.dtype)
    u = g.emit("Add", x, one)
    log, step = g.emit("Log", u), g.emit("Sub", u, one)
    log = g.emit("Where", g.emit("Equal", step, x), log, g.emit("Mul", log, g.emit("Div", x, step)))  # so inf is not divided by itself
    return g.emit("Where", g.emit("Equal", step, g.constant(0, g.dtype)), x, log)


@converts("aten.leaky_relu.default")
def leaky_relu(g: Site, x, negative_slope):
    """LeakyRelu."""
    return g.emit("LeakyRelu", x, alpha=float(negative_slope))


@converts("aten.elu.default")
def elu(g: Site, x, alpha, scale, input_scale):
    """scale (x, or alpha (exp(input_scale x) - 1) below zero)."""
    if input_scale != 1:
        raise g.refuse(f"input_scale={input_scale} is not supported, only 1")
    y = g.emit("Elu", x, alpha=float(alpha))
    return y if scale == 1 else g.emit("Mul", y, g.constant(scale, g.dtype))


@converts("aten.selu.default")
def selu(g: Site, x):
    """An Elu with the constants of Klambauer et al. 2017."""
    return elu(g, x, 1.6732632423543772, 1.0507009873554805, 1)


@converts("aten.gelu.default")
def gelu(g: Site, x, approximate):
    """Gelu."""
    return g.emit("Gelu", x, approximate=approximate)


@converts("aten.softplus.default")
def softplus(g: Site, x, beta, threshold):
    """log(1 + exp(beta x)) / beta; x itself where beta x is past a threshold, which from 20 on is the same number."""
    scaled = x.name if beta == 1 else g.emit("Mul", x, g.constant(beta, g.dtype))
    y = g.emit("Softplus", scaled)
    y = y if beta == 1 else g.emit("Div", y, g.constant(beta, g.dtype))
    return y if threshold >= 20 else g.emit("Where", g.emit("Greater", scaled, g.constant(threshold, g.dtype)), x, y)


@converts("aten.threshold.default")
def threshold(g: Site, x, threshold, value):
    """x above the threshold, else a value."""
    return g.emit("Where", g.emit("LessOrEqual", x, g.constant(threshold, g.dtype)), g.constant(value, g.dtype), x)


@converts("aten.prelu.default", "aten._prelu_kernel.default")
def prelu(g: Site, x, weight):
    """A slope for all, or for each channel on axis 1."""
    slope = weight if x.rank else g.emit("Reshape", weight, g.ints())
    if weight.rank == 1 and weight.shape[0] != 1 and x.rank > 2:
        slope = g.emit("Reshape", weight, g.ints(-1, *(1,) * (x.rank - 2)))
    return g.emit("PRelu", x, slope)


@converts("aten.clamp.default", "aten.hardtanh.default", "aten.clamp_min.default", "aten.clamp_max.default")
def clamp(g: Site, x, min=None, max=None, min_val=None, max_val=None):  # the schema's names
    """Between two numbers."""
    bounds = [None if v is None else g.constant(v, g.dtype) for v in (min if min_val is None else min_val, max if max_val is None else max_val)]
    return g.emit("Clip", g.cast(x, g.dtype), *bounds)


@converts("aten.clamp.Tensor", "aten.clamp_min.Tensor", "aten.clamp_max.Tensor")
def clamp_tensor(g: Site, x, min=None, max=None):
    """Between two tensors."""
    y = g.cast(x, g.dtype)
    for op, bound in (("Max", min), ("Min", max)):
        y = y if bound is None else g.emit(op, y, g.cast(bound, g.dtype))
    return y


@converts(*(f"aten.{name}.{form}" for name in BINARY for form in ("Tensor", "Scalar", "default")))
def binary(g: Site, x, other):
    """In the result's dtype; of truth values, a product is And."""
    if g.dtype == "bool":
        return g.emit("Or" if "max" in g.target else "And", x, other)
    return g.emit(BINARY[g.target.split(".")[1]], g.cast(x, g.dtype), g.cast(other, g.dtype))


@converts("aten.add.Tensor", "aten.sub.Tensor", "aten.rsub.Tensor", "aten.add.Scalar", "aten.sub.Scalar", "aten.rsub.Scalar")
def add(g: Site, x, other, alpha):
    """x + alpha other, and its like; of truth values, a sum is Or."""
    kind = g.target.split(".")[1]
    if g.dtype == "bool":
        return g.emit("Or", x, other)
    a, b = (other, x) if kind == "rsub" else (x, other)
    a, b = g.cast(a, g.dtype), g.cast(b, g.dtype)
    if alpha != 1:
        b = g.emit("Mul", b, g.cast(alpha, g.dtype))
    return g.emit("Add" if kind == "add" else "Sub", a, b)


@converts("aten.div.Tensor", "aten.div.Scalar", "aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.floor_divide.default")
def div(g: Site, x, other, rounding_mode=None):
    """True division, or rounded down or towards zero."""
    a, b = g.cast(x, g.dtype), g.cast(other, g.dtype)
    mode = "floor" if "floor" in g.target else rounding_mode
    if mode is None:
        return g.emit("Div", a, b)
    if not g.dtype.startswith("float"):
        return g.emit("Div", a, b) if mode == "trunc" else g.emit("Div", g.emit("Sub", a, g.emit("Mod", a, b)), b)
    return _floor_divide(g, a, b) if mode == "floor" else truncated(g, g.emit("Div", a, b))


@converts("aten.remainder.Tensor", "aten.remainder.Scalar", "aten.fmod.Tensor", "aten.fmod.Scalar")
def remainder(g: Site, x, other):
    """With the divisor's sign, or the dividend's."""
    a, b = g.cast(x, g.dtype), g.cast(other, g.dtype)
    if "fmod" in g.target:
        return g.emit("Mod", a, b, fmod=1)
    if not g.dtype.startswith("float"):
        return g.emit("Mod", a, b)
    return _remainder(g, a, b)


def _rest(g: Site, a: str, b: str) -> tuple[str, str]:
    """The exact rest of the division towards zero, and whether rounding down goes one further: it has not the divisor's sign."""
    rest, zero = g.emit("Mod", a, b, fmod=1), g.constant(0, g.dtype)
    crossed = g.emit("Xor", g.emit("Less", rest, zero), g.emit("Less", b, zero))
    return rest, g.emit("And", crossed, g.emit("Not", g.emit("Equal", rest, zero)))


def _remainder(g: Site, a: str, b: str) -> str:
    """Not from the quotient: one that is rounded up to a whole number would be off by one divisor."""
    rest, crossed = _rest(g, a, b)
    return g.emit("Where", crossed, g.emit("Add", rest, b), rest)


def _floor_divide(g: Site, a: str, b: str) -> str:
    """What is left without the rest, whole but for rounding; by 0, as the division has it."""
    rest, crossed = _rest(g, a, b)
    whole = g.emit("Round", g.emit("Div", g.emit("Sub", a, rest), b))
    whole = g.emit("Where", crossed, g.emit("Sub", whole, g.constant(1, g.dtype)), whole)
    return g.emit("Where", g.emit("Equal", b, g.constant(0, g.dtype)), g.emit("Div", a, b), whole)


@converts("aten.pow.Tensor_Tensor", "aten.pow.Tensor_Scalar", "aten.pow.Scalar")
def power(g: Site, x, exponent):
    """Squares, roots and reciprocals as such."""
    if exponent in (1, 2, 0.5, -1) and not isinstance(exponent, Tensor):
        x = g.cast(x, g.dtype)
        return x if exponent == 1 else g.emit("Mul", x, x) if exponent == 2 else g.emit("Sqrt" if exponent == 0.5 else "Reciprocal", x)
    return g.emit("Pow", g.cast(x, g.dtype), g.cast(exponent, g.dtype))


@converts(*(f"aten.{name}.{form}" for name in (*COMPARISONS, "ne") for form in ("Tensor", "Scalar")))
def comparison(g: Site, x, other):
    """Of operands promoted to one dtype."""
    kind = g.target.split(".")[1]
    a, b = g.common(x, other)
    return g.emit("Not", g.emit("Equal", a, b)) if kind == "ne" else g.emit(COMPARISONS[kind], a, b)


@converts(
    *(f"aten.{family}_{name}.{form}" for name in LOGICAL for family, form in (("logical", "default"), ("bitwise", "Tensor"), ("bitwise", "Scalar")))
)
def logical(g: Site, x, other):
    """Of truth values."""
    if g.dtype != "bool":
        raise g.refuse(f"of {g.dtype} is not supported, only of bool")
    return g.emit(LOGICAL[g.target.split(".")[1].split("_")[1]], g.cast(x, "bool"), g.cast(other, "bool"))


@converts("aten.logical_not.default", "aten.bitwise_not.default")
def negation(g: Site, x):
    """Of truth values."""
    if g.dtype != "bool":
        raise g.refuse(f"of {g.dtype} is not supported, only of bool")
    return g.emit("Not", g.cast(x, "bool"))


@converts("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(g: Site, condition, x, other):
    """A choice."""
    return g.emit("Where", condition, g.cast(x, g.dtype), g.cast(other, g.dtype))


@converts("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(g: Site, x, mask, value):
    """A value where the mask holds."""
    return g.emit("Where", mask, g.cast(value, g.dtype), x)


@converts("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(g: Site, x, end, weight):
    """x + weight (end - x)."""
    return g.emit("Add", x, g.emit("Mul", g.cast(weight, g.dtype), g.emit("Sub", end, x)))


@converts("aten.addcmul.default", "aten.addcdiv.default")
def addcmul(g: Site, x, tensor1, tensor2, value):
    """x + value a b, or a / b."""
    y = g.emit("Mul" if "mul" in g.target else "Div", tensor1, tensor2)
    return g.emit("Add", x, y if value == 1 else g.emit("Mul", y, g.cast(value, g.dtype)))


@converts("aten._to_copy.default", "aten.to.dtype", "aten.to.dtype_layout", "aten.to.other", "aten.type_as.default")
def to(g: Site, x, other=None):
    """Another dtype."""
    return g.cast(x, g.dtype)


@converts(
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.alias.default",
    "aten.alias_copy.default",
    "aten.detach_copy.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.lift_fresh_copy.default",
    "aten.lift_fresh.default",
    "aten.positive.default",
    "aten.resolve_conj.default",
    "aten.resolve_neg.default",
    "aten.lift.default",
)
def same(g: Site, x):
    """Nothing."""
    return x.name


@converts(
    "aten.dropout.default",
    "aten.native_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_dropout.default",
    "aten.feature_alpha_dropout.default",
)
def dropout(g: Site, x, p, train):
    """Nothing, in inference."""
    if train and p:
        raise g.refuse("train=True; export the module in eval mode")
    return [x.name, None] if "native" in g.target else x.name


@converts("aten.scalar_tensor.default")
def scalar_tensor(g: Site, s):
    """A number as a tensor ()."""
    return g.cast(s, g.dtype) if isinstance(s, Size) else g.constant(s, g.dtype)
