"""Functions of one or two numbers that are made of others: signs and roundings, angles, gamma and error functions."""

from __future__ import annotations

import math

from fastrnn.converters.torch_export.registry import converts
from fastrnn.converters.torch_export.site import Site

DIRECT = {"acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh", "cosh": "Cosh", "sinh": "Sinh", "tan": "Tan"}  # fmt: skip
SPECIAL = {"i0": "BesselI0", "special_i0e": "ScaledBesselI0", "special_i1": "BesselI1", "special_i1e": "ScaledBesselI1", "special_modified_bessel_i0": "BesselI0",
           "special_modified_bessel_i1": "BesselI1", "special_modified_bessel_k0": "BesselK0", "special_modified_bessel_k1": "BesselK1",
           "special_scaled_modified_bessel_k0": "ScaledBesselK0", "special_scaled_modified_bessel_k1": "ScaledBesselK1", "special_bessel_j0": "BesselJ0",
           "special_bessel_j1": "BesselJ1", "special_bessel_y0": "BesselY0", "special_bessel_y1": "BesselY1", "special_spherical_bessel_j0": "SphericalBesselJ0",
           "special_airy_ai": "AiryAi", "special_ndtri": "NormalQuantile"}  # fmt: skip
PAIRS = {"special_zeta": "Zeta", "igamma": "GammaP", "igammac": "GammaQ", "special_hermite_polynomial_h": "HermiteH", "special_hermite_polynomial_he": "HermiteHe",
         "special_laguerre_polynomial_l": "Laguerre", "special_legendre_polynomial_p": "Legendre",
         **{f"special_chebyshev_polynomial_{kind}": f"Chebyshev{kind.upper()}" for kind in "tuvw"}}  # fmt: skip


@converts(*(f"aten.{name}.default" for name in DIRECT | SPECIAL))
def direct(g: Site, x):
    """One op."""
    return g.emit((DIRECT | SPECIAL)[g.target.split(".")[1]], g.cast(x, g.dtype))


@converts(*(f"aten.{name}.{form}" for name in PAIRS for form in ("default", "x_scalar", "n_scalar", "self_scalar", "other_scalar")))
def pair(g: Site, x, other=None, n=None):
    """One op of two numbers; a polynomial's degree is the second."""
    return g.emit(PAIRS[g.target.split(".")[1]], *(g.cast(v, g.dtype) for v in (x, other if n is None else n)))


@converts(*(f"aten.special_shifted_chebyshev_polynomial_{kind}.{form}" for kind in "tuvw" for form in ("default", "x_scalar", "n_scalar")))
def shifted(g: Site, x, n):
    """The polynomial at 2 x - 1."""
    at = g.emit("Sub", g.emit("Mul", g.cast(x, g.dtype), g.constant(2, g.dtype)), g.constant(1, g.dtype))
    return g.emit(f"Chebyshev{g.target.split('.')[1][-1].upper()}", at, g.cast(n, g.dtype))


@converts("aten.polygamma.default")
def polygamma(g: Site, n, x):
    """The n-th slope of digamma: AS 6.4.10, (-1)^(n + 1) n! zeta(n + 1, x)."""
    if n == 0:
        return digamma(g, x)
    zeta = g.emit("Zeta", g.constant(n + 1, g.dtype), g.cast(x, g.dtype))
    return g.emit("Mul", zeta, g.constant((-1.0) ** (n + 1) * math.factorial(n), g.dtype))


def truncated(g: Site, x: str) -> str:
    """Towards zero; -0 where x is -0 or above -1, as C has it."""
    return g.emit("Where", g.emit("Less", x, g.constant(0, g.dtype)), g.emit("Ceil", x), g.emit("Floor", x))


@converts("aten.trunc.default", "aten.frac.default")
def trunc(g: Site, x):
    """The whole part, or what is left."""
    if not g.dtype.startswith("float"):
        return g.emit("Identity", x)
    whole = truncated(g, x.name)
    return g.emit("Sub", x, whole) if "frac" in g.target else whole


@converts("aten.round.decimals")
def round_decimals(g: Site, x, decimals):
    """To a number of digits, by way of the number times or over a power of ten."""
    power, (there, back) = g.constant(10.0 ** abs(decimals), g.dtype), ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    return g.emit("Round", x) if decimals == 0 else g.emit(back, g.emit("Round", g.emit(there, x, power)), power)


@converts("aten.isinf.default", "aten.isposinf.default", "aten.isneginf.default")
def isinf(g: Site, x):
    """Of either sign, or one; whole numbers never."""
    if not x.dtype.startswith("float"):
        return g.emit("Not", g.emit("Equal", x, x))
    kind = g.target.split(".")[1]
    return g.emit("IsInf", x, detect_positive=int(kind != "isneginf"), detect_negative=int(kind != "isposinf"))


def negative(g: Site, x: str, dtype: str) -> str:
    """Whether the sign bit is set, of -0 too; NaN counts as positive."""
    zero = g.constant(0, dtype)
    below = g.emit("Less", x, zero)
    return g.emit("Where", g.emit("Equal", x, zero), g.emit("Less", g.emit("Reciprocal", x), zero), below) if dtype.startswith("float") else below


@converts("aten.signbit.default")
def signbit(g: Site, x):
    """Whether there is a minus."""
    return g.emit("And", x, g.emit("Not", x)) if x.dtype == "bool" else negative(g, x.name, x.dtype)


@converts("aten.copysign.Tensor", "aten.copysign.Scalar")
def copysign(g: Site, x, other):
    """The magnitude of one, the sign of the other."""
    size = g.emit("Abs", g.cast(x, g.dtype))
    return g.emit("Where", negative(g, g.cast(other, g.dtype), g.dtype), g.emit("Neg", size), size)


@converts("aten.fmax.default", "aten.fmin.default")
def fmax(g: Site, x, other):
    """The larger or smaller; a number where the other is NaN."""
    a, b = g.cast(x, g.dtype), g.cast(other, g.dtype)
    both = g.emit("Max" if "fmax" in g.target else "Min", a, b)
    if not g.dtype.startswith("float"):
        return both
    return g.emit("Where", g.emit("IsNaN", a), b, g.emit("Where", g.emit("IsNaN", b), a, both))


@converts("aten.atan2.default")
def atan2(g: Site, x, other):
    """The angle of the point (other, x): that of the magnitudes, mirrored into its quadrant."""
    up, right = g.cast(x, g.dtype), g.cast(other, g.dtype)
    height, width, zero = g.emit("Abs", up), g.emit("Abs", right), g.constant(0, g.dtype)
    slope = g.emit(
        "Where",
        g.emit("Equal", height, width),
        g.emit("Where", g.emit("Equal", height, zero), zero, g.constant(1, g.dtype)),
        g.emit("Div", height, width),
    )
    angle = g.emit("Atan", slope)
    angle = g.emit("Where", negative(g, right, g.dtype), g.emit("Sub", g.constant(math.pi, g.dtype), angle), angle)
    return g.emit("Where", negative(g, up, g.dtype), g.emit("Neg", angle), angle)


@converts("aten.hypot.default")
def hypot(g: Site, x, other):
    """The longer side times the root of 1 + the square of the ratio, which overflows only where the result does."""
    a, b = g.emit("Abs", g.cast(x, g.dtype)), g.emit("Abs", g.cast(other, g.dtype))
    longer, shorter, one = g.emit("Max", a, b), g.emit("Min", a, b), g.constant(1, g.dtype)
    same = g.emit("Equal", longer, shorter)  # both 0 or infinite among these
    ratio = g.emit("Where", same, one, g.emit("Div", shorter, longer))
    return g.emit("Mul", longer, g.emit("Sqrt", g.emit("Add", g.emit("Mul", ratio, ratio), one)))


@converts("aten.nextafter.default")
def nextafter(g: Site, x, other):
    """The next number on the way to another."""
    return g.emit("NextAfter", g.cast(x, g.dtype), g.cast(other, g.dtype))


@converts("aten.frexp.Tensor")
def frexp(g: Site, x):
    """Mantissa and exponent."""
    return g.emit("Frexp", x, outputs=2)


@converts("aten.ldexp.Tensor")
def ldexp(g: Site, x, other):
    """Times a power of two."""
    return g.emit("Mul", g.cast(x, g.dtype), g.emit("Pow", g.constant(2, g.dtype), g.cast(other, g.dtype)))


@converts("aten.angle.default")
def angle(g: Site, x):
    """Of real numbers 0 or pi."""
    y = g.cast(x, g.dtype)
    return g.emit(
        "Where",
        g.emit("IsNaN", y),
        y,
        g.emit("Where", g.emit("Less", y, g.constant(0, g.dtype)), g.constant(math.pi, g.dtype), g.constant(0, g.dtype)),
    )


def polynomial(g: Site, x: str, coefficients) -> str:
    """By Horner's rule, the highest power first."""
    y = g.constant(coefficients[0], g.dtype)
    for c in coefficients[1:]:
        y = g.emit("Add", g.emit("Mul", y, x), g.constant(c, g.dtype))
    return y


# erfc(x) = t exp(-x^2 + P(t)), t = 1 / (1 + x / 2), for x >= 0, within 1.2e-7 of itself: Press et al., Numerical Recipes, 2nd edition, section 6.2.
ERFC = (0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223)


@converts("aten.erfc.default", "aten.special_erfcx.default")
def erfc(g: Site, x):
    """1 - erf x, and exp(x^2) times that, with the digits that the difference would lose."""
    x, one = g.cast(x, g.dtype), g.constant(1, g.dtype)
    size, square, two = g.emit("Abs", x), g.emit("Mul", x, x), g.constant(2, g.dtype)
    t = g.emit("Reciprocal", g.emit("Add", g.emit("Mul", size, g.constant(0.5, g.dtype)), one))
    exponent = polynomial(g, t, ERFC)
    negative = g.emit("Less", x, g.constant(0, g.dtype))
    if "erfcx" in g.target:
        above = g.emit("Mul", t, g.emit("Exp", exponent))
        return g.emit("Where", negative, g.emit("Sub", g.emit("Mul", two, g.emit("Exp", square)), above), above)
    above = g.emit("Mul", t, g.emit("Exp", g.emit("Sub", exponent, square)))
    return g.emit("Where", negative, g.emit("Sub", two, above), above)


# Lanczos 1964, g = 7 and 9 terms; the coefficients are those of Godfrey.
LANCZOS = (0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905, -0.13857109526572012,
           9.9843695780195716e-6, 1.5056327351493116e-7)  # fmt: skip


@converts("aten.lgamma.default")
def lgamma(g: Site, x):
    """log |gamma|, of numbers below a half from those above by reflection."""
    x, one, half = g.cast(x, g.dtype), g.constant(1, g.dtype), g.constant(0.5, g.dtype)
    low = g.emit("Less", x, half)
    z = g.emit("Sub", g.emit("Where", low, g.emit("Sub", one, x), x), one)
    total = g.constant(LANCZOS[0], g.dtype)
    for k, c in enumerate(LANCZOS[1:], 1):
        total = g.emit("Add", total, g.emit("Div", g.constant(c, g.dtype), g.emit("Add", z, g.constant(k, g.dtype))))
    t = g.emit("Add", z, g.constant(7.5, g.dtype))
    power = g.emit(
        "Sub", g.emit("Mul", g.emit("Add", z, half), g.emit("Sub", g.emit("Log", t), one)), g.constant(7 - 0.5 * math.log(2 * math.pi), g.dtype)
    )
    above = g.emit("Add", power, g.emit("Log", total))
    # sin(pi x) from the distance to the next whole number, which is exact.
    sine = g.emit("Abs", g.emit("Sin", g.emit("Mul", g.emit("Sub", x, g.emit("Round", x)), g.constant(math.pi, g.dtype))))
    below = g.emit("Sub", g.emit("Sub", g.constant(math.log(math.pi), g.dtype), g.emit("Log", sine)), above)
    infinite = g.emit("Equal", g.emit("Abs", x), g.constant(math.inf, g.dtype))
    return g.emit("Where", infinite, g.constant(math.inf, g.dtype), g.emit("Where", low, below, above))


@converts("aten.digamma.default")
def digamma(g: Site, x):
    """The slope of log gamma: a series from 6 further up, where it is short; below a half by reflection. Abramowitz and Stegun 1964, 6.3."""
    x, one, zero = g.cast(x, g.dtype), g.constant(1, g.dtype), g.constant(0, g.dtype)
    low = g.emit("Less", x, g.constant(0.5, g.dtype))
    z = g.emit("Where", low, g.emit("Sub", one, x), x)
    steps = zero
    for k in range(6):
        steps = g.emit("Add", steps, g.emit("Reciprocal", g.emit("Add", z, g.constant(k, g.dtype))))
    w = g.emit("Add", z, g.constant(6, g.dtype))
    square = g.emit("Reciprocal", g.emit("Mul", w, w))
    series = g.emit("Mul", polynomial(g, square, (-1 / 240, 1 / 252, -1 / 120, 1 / 12)), square)
    tail = g.emit("Add", g.emit("Add", g.emit("Div", g.constant(0.5, g.dtype), w), series), steps)
    above = g.emit("Sub", g.emit("Log", w), tail)
    part = g.emit("Sub", x, g.emit("Round", x))  # exact, and the tangent has it for a period
    mirrored = g.emit("Sub", above, g.emit("Div", g.constant(math.pi, g.dtype), g.emit("Tan", g.emit("Mul", part, g.constant(math.pi, g.dtype)))))
    pole = g.emit("And", g.emit("Equal", part, zero), g.emit("Less", x, zero))
    return g.emit("Where", low, g.emit("Where", pole, g.constant(math.nan, g.dtype), mirrored), above)


# Giles 2010, "Approximating the erfinv function", in single precision: of -log(1 - x^2) - 2.5 below 5, else of its root - 3.
ERFINV = (
    (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
    (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)


@converts("aten.erfinv.default")
def erfinv(g: Site, x):
    """What has this error function."""
    x, one = g.cast(x, g.dtype), g.constant(1, g.dtype)
    w = g.emit("Neg", g.emit("Log", g.emit("Mul", g.emit("Sub", one, x), g.emit("Add", one, x))))
    middle = polynomial(g, g.emit("Sub", w, g.constant(2.5, g.dtype)), ERFINV[0])
    tail = polynomial(g, g.emit("Sub", g.emit("Sqrt", w), g.constant(3, g.dtype)), ERFINV[1])
    y = g.emit("Mul", g.emit("Where", g.emit("Less", w, g.constant(5, g.dtype)), middle, tail), x)
    return g.emit("Where", g.emit("Equal", g.emit("Abs", x), one), g.emit("Mul", x, g.constant(math.inf, g.dtype)), y)
