"""Functions of complex numbers, made of those of their parts."""

from __future__ import annotations

import math

from fastrnn.converters.torch_export.ops.complex import Pair, of_complex, pair, product, quotient, real
from fastrnn.converters.torch_export.ops.functions import atan2, hypot
from fastrnn.converters.torch_export.registry import CONVERTERS, Complex, Tensor
from fastrnn.converters.torch_export.site import Site

INTEGER_POWERS = (2, 3, 4)


def _log(g: Site, z: Pair, dtype: str) -> Pair:
    size, angle = (f(real(g), *(Tensor(n, (), dtype) for n in parts)) for f, parts in ((hypot, z), (atan2, z[::-1])))
    return g.emit("Log", size), angle


def _exp(g: Site, z: Pair) -> Pair:
    size = g.emit("Exp", z[0])
    return g.emit("Mul", size, g.emit("Cos", z[1])), g.emit("Mul", size, g.emit("Sin", z[1]))


def _sqrt(g: Site, z: Pair, dtype: str) -> Pair:
    """t = sqrt((|z| + |a|) / 2) and b / 2t, one of which is the real part by the sign of a; so that nothing cancels."""
    a, b = z
    zero, half = g.constant(0, dtype), g.constant(0.5, dtype)
    size = hypot(real(g), *(Tensor(n, (), dtype) for n in z))
    t = g.emit("Sqrt", g.emit("Mul", g.emit("Add", size, g.emit("Abs", a)), half))
    other = g.emit("Where", g.emit("Equal", t, zero), zero, g.emit("Div", g.emit("Mul", b, half), t))
    right = g.emit("Not", g.emit("Less", a, zero))
    return g.emit("Where", right, t, g.emit("Abs", other)), g.emit(
        "Where", right, other, g.emit("Where", g.emit("Less", b, zero), g.emit("Neg", t), t)
    )


def _tanh(g: Site, z: Pair, dtype: str) -> Pair:
    """With t = tanh a and s = tan b: (t (1 + s^2) + i s / cosh^2 a) / (1 + t^2 s^2)."""
    t, s, one = g.emit("Tanh", z[0]), g.emit("Tan", z[1]), g.constant(1, dtype)
    squared, cosh = g.emit("Mul", s, s), g.emit("Cosh", z[0])
    under = g.emit("Add", one, g.emit("Mul", g.emit("Mul", t, t), squared))
    return g.emit("Div", g.emit("Mul", t, g.emit("Add", one, squared)), under), g.emit("Div", s, g.emit("Mul", g.emit("Mul", cosh, cosh), under))


@of_complex("exp.default", "log.default", "sqrt.default", "rsqrt.default", "tanh.default", "sigmoid.default", "square.default")
def function(g: Site, x):
    """By what they are made of."""
    kind, z, dtype = g.target.split(".")[1], (x.re.name, x.im.name), x.re.dtype
    if kind == "exp":
        return _exp(g, z)
    if kind == "log":
        return _log(g, z, dtype)
    if kind == "square":
        return product(g, z, z)
    if kind == "tanh":
        return _tanh(g, z, dtype)
    if kind == "sigmoid":  # = (1 + tanh(z / 2)) / 2, which does not overflow
        half = g.constant(0.5, dtype)
        re, im = _tanh(g, tuple(g.emit("Mul", part, half) for part in z), dtype)
        return g.emit("Mul", g.emit("Add", re, g.constant(1, dtype)), half), g.emit("Mul", im, half)
    root = _sqrt(g, z, dtype)
    return root if kind == "sqrt" else quotient(g, (g.constant(1, dtype), g.constant(0, dtype)), root)


@of_complex("sin.default", "cos.default", "sinh.default", "cosh.default")
def circular(g: Site, x):
    """sin(a + bi) = sin a cosh b + i cos a sinh b, and its like."""
    a, b, kind = x.re, x.im, g.target.split(".")[1]
    if kind in ("sin", "cos"):
        sin, cos, sinh, cosh = (g.emit(op, part) for op, part in (("Sin", a), ("Cos", a), ("Sinh", b), ("Cosh", b)))
        return (
            (g.emit("Mul", sin, cosh), g.emit("Mul", cos, sinh))
            if kind == "sin"
            else (g.emit("Mul", cos, cosh), g.emit("Neg", g.emit("Mul", sin, sinh)))
        )
    sin, cos, sinh, cosh = (g.emit(op, part) for op, part in (("Sin", b), ("Cos", b), ("Sinh", a), ("Cosh", a)))
    return (g.emit("Mul", sinh, cos), g.emit("Mul", cosh, sin)) if kind == "sinh" else (g.emit("Mul", cosh, cos), g.emit("Mul", sinh, sin))


@of_complex("log2.default", "log10.default")
def scaled_log(g: Site, x):
    """Over the logarithm of the base."""
    scale = g.constant(1 / math.log(float(g.target.split(".")[1].removeprefix("log"))), x.re.dtype)
    return tuple(g.emit("Mul", part, scale) for part in _log(g, (x.re.name, x.im.name), x.re.dtype))


@of_complex("pow.Tensor_Scalar")
def power(g: Site, x, exponent):
    """Products, roots and reciprocals as such; else by way of the logarithm, with 0 for 0."""
    z, dtype = (x.re.name, x.im.name), x.re.dtype
    if exponent == 1:
        return z
    if exponent == 0.5:
        return _sqrt(g, z, dtype)
    if exponent == -1:
        return quotient(g, (g.constant(1, dtype), g.constant(0, dtype)), z)
    if exponent in INTEGER_POWERS:
        whole = z
        for _ in range(int(exponent) - 1):
            whole = product(g, whole, z)
        return whole
    if not complex(exponent).real > 0:
        raise g.refuse(f"to the power of {exponent} is not supported of complex numbers")
    made = _exp(g, product(g, _log(g, z, dtype), pair(g, exponent)))
    zero = g.constant(0, dtype)
    nothing = g.emit("And", g.emit("Equal", z[0], zero), g.emit("Equal", z[1], zero))
    return tuple(g.emit("Where", nothing, zero, part) for part in made)


@of_complex("eq.Tensor", "ne.Tensor", "eq.Scalar", "ne.Scalar")
def same(g: Site, x, other):
    """Both parts are."""
    g = real(g)
    g.dtype = (x if isinstance(x, Complex) else other).re.dtype
    y = g.emit("And", *(g.emit("Equal", *both) for both in zip(pair(g, x), pair(g, other))))
    return g.emit("Not", y) if ".ne." in g.target else y


@of_complex("isnan.default", "isinf.default")
def either(g: Site, x):
    """One part is."""
    return g.emit("Or", *(CONVERTERS[g.target](g, part) for part in (x.re, x.im)))


@of_complex("linalg_vector_norm.default", "norm.ScalarOpt_dim", "norm.Scalar")
def norm(g: Site, x, ord=None, p=2, dim=None, keepdim=False):  # the schema's names
    """Of the sizes."""
    size = Tensor(hypot(real(g), x.re, x.im), x.re.shape, x.re.dtype, x.re.fake)
    return CONVERTERS["aten.linalg_vector_norm.default"](g, size, ord=p if ord is None else ord, dim=dim, keepdim=keepdim)


@of_complex("ones.default", "ones_like.default", "new_ones.default")
def ones(g: Site, x=None, size=None):
    """Real ones."""
    g, given = real(g), {"x": x.re if isinstance(x, Complex) else x, "size": size}
    re = CONVERTERS[g.target](g, **{name: value for name, value in given.items() if value is not None})
    return re, g.emit("Mul", re, g.constant(0, g.dtype))


@of_complex("dot.default", "vdot.default")
def dot(g: Site, x, tensor=None, other=None):
    """The sum of products, for vdot of the conjugate."""
    a, b = pair(g, x), pair(g, other if tensor is None else tensor)
    if "vdot" in g.target:
        a = a[0], g.emit("Neg", a[1])
    return product(g, a, b, "MatMul")
