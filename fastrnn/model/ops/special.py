"""Special functions, computed in float64: Bessel's and Airy's, zeta, incomplete gamma, the normal distribution's quantiles, orthogonal polynomials.

AS: Abramowitz and Stegun 1964, Handbook of Mathematical Functions. DLMF: NIST's Digital Library of Mathematical Functions. Integrals without end are sums over evenly spaced
points, whose error falls exponentially with their number (Trefethen and Weideman 2014, "The exponentially convergent trapezoidal rule").
"""

from __future__ import annotations

import math

import numpy as np

from fastrnn.model.ops.elementwise import FLOATS
from fastrnn.model.ops.registry import Spec, aligned, broadcast, meaning, op, require

POINTS = np.linspace(-1, 1, 241)  # of an integral; 120 leave 1e-12 of it
NONE = 45.0  # exp(-NONE) adds nothing to a sum in float64
SERIES_UP_TO = 20.0  # of I: all terms are positive
J_SERIES_UP_TO = 5.0  # of J: terms of both signs, the largest of them below 10
LARGE = 1e5  # an order of a gamma function from which its limit is within 1e-9
BLOCK = 4096  # entries at a time: with their points 16 MB
MOST = 10_000  # the highest order of a polynomial by recurrence: past it there is NaN, as torch has it past 128 for Hermite's
_erfc, _lgamma = np.vectorize(math.erfc, otypes=[float]), np.vectorize(lambda x: math.lgamma(x) if x > 0 else math.nan, otypes=[float])


def _series(order: int, x, sign: int):
    """AS 9.1.10 and 9.6.10: J where sign is -1, I where it is 1, of a whole order."""
    quarter = sign * x * x / 4
    term = total = (x / 2) ** order / math.factorial(order)
    for k in range(1, 80):
        term = term * quarter / (k * (k + order))
        total = total + term
    return total


def _i_scaled(order: int, x):
    """exp(-|x|) I(x): AS 9.6.10, and from 20 on 9.7.1."""
    size = np.abs(x)
    small, large = np.minimum(size, SERIES_UP_TO), np.maximum(size, SERIES_UP_TO)
    term = total = np.ones_like(large)
    for k in range(1, 26):
        term = -term * (4 * order * order - (2 * k - 1) ** 2) / (8 * k * large)
        total = total + term
    y = np.where(size < SERIES_UP_TO, _series(order, small, 1) * np.exp(-small), total / np.sqrt(2 * np.pi * large))
    return np.where((x < 0) & bool(order % 2), -y, y)


def _hankel(order: float, x):
    """H(1) = J + i Y for x > 0: DLMF 10.9.10, on a path that bends by up to i pi / 2 so that the integrand falls."""
    rest = NONE / x
    reach = np.arcsinh(rest + np.sqrt(rest))[..., None]
    t = reach * POINTS
    path, slope = t + 0.5j * np.pi * np.tanh(t), 1 + 0.5j * np.pi / np.cosh(t) ** 2
    total = (np.exp(1j * x[..., None] * np.cosh(path) - order * path) * slope).sum(-1) * reach[..., 0] * (POINTS[1] - POINTS[0])
    return np.exp(-0.5j * np.pi * order) / (1j * np.pi) * total


def _k_scaled(order: float, x):
    """exp(x) K(x) for x > 0: DLMF 10.32.9."""
    reach = np.arccosh(1 + NONE / x)[..., None]
    t = reach * POINTS
    return 0.5 * (np.exp(-x[..., None] * 2 * np.sinh(t / 2) ** 2) * np.cosh(order * t)).sum(-1) * reach[..., 0] * (POINTS[1] - POINTS[0])


def _positive(function, at_zero: float):
    """Of positive numbers; at 0 a limit, NaN below."""

    def extended(x):
        y = function(np.where((x > 0) & np.isfinite(x), x, 1.0))
        return np.where(x > 0, np.where(np.isinf(x), 0.0, y), np.where(x == 0, at_zero, np.nan))

    return extended


def _j(order: int):
    def j(x):
        size = np.abs(x)
        inner = _series(order, np.minimum(size, J_SERIES_UP_TO), -1)
        outer = _hankel(order, np.where(np.isfinite(size), np.maximum(size, J_SERIES_UP_TO), 1.0)).real
        y = np.where(size < J_SERIES_UP_TO, inner, np.where(np.isinf(size), 0.0, np.where(np.isnan(size), np.nan, outer)))
        return np.where((x < 0) & bool(order % 2), -y, y)

    return j


def _airy(x):
    """Ai: AS 10.4.14 and 10.4.15, by Bessel functions of order 1/3."""
    size = np.where((x == 0) | ~np.isfinite(x), 1.0, np.abs(x))
    zeta = 2 / 3 * size**1.5
    above = np.sqrt(size / 3) / np.pi * _k_scaled(1 / 3, zeta) * np.exp(-zeta)
    hankel = _hankel(1 / 3, zeta)
    below = np.sqrt(size) / 3 * (hankel.real + (np.exp(1j * np.pi / 3) * hankel).real)
    y = np.where(x > 0, above, np.where(x < 0, below, 3 ** (-2 / 3) / math.gamma(2 / 3)))
    return np.where(np.isinf(x), 0.0, np.where(np.isnan(x), np.nan, y))


def _ndtri(p):
    """Where the normal distribution has reached p: AS 26.2.23, whose error is below 4.5e-4, and two of Halley's steps."""
    inside = (p > 0) & (p < 1)
    tail = np.where(inside, np.minimum(p, 1 - p), 0.25)
    t = np.sqrt(-2 * np.log(tail))
    z = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    for _ in range(2):
        step = (tail - 0.5 * _erfc(z / math.sqrt(2))) * math.sqrt(2 * math.pi) * np.exp(z * z / 2)
        z = z - step / (1 - z * step / 2)
    return np.where(inside, np.where(p < 0.5, -z, z), np.where(p == 0, -np.inf, np.where(p == 1, np.inf, np.nan)))


BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)


def _zeta(s, q):
    """Hurwitz's: the first terms, and of the others Euler and Maclaurin's sum (AS 23.1.30). Where q < 0, of whole s alone; infinite at s = 1 and at q = 0, -1, ...,
    NaN below -MOST."""
    s, q = np.broadcast_arrays(s, q)
    pole = (s == 1) | (q <= 0) & (q == np.floor(q))
    good = (s > 1) & ~pole & ((q > 0) | (s == np.floor(s)) & (q > -MOST)) & np.isfinite(s) & np.isfinite(q)
    a, b = np.where(good, s, 2.0), np.where(good, q, 1.0)
    total, k = b**-a, 0
    while k < 9 or np.any(b <= 9):
        more = (b <= 9) | (k < 9)
        b = np.where(more, b + 1, b)
        total, k = total + np.where(more, np.abs(b) ** -a * np.where((b < 0) & (a % 2 == 1), -1.0, 1.0), 0.0), k + 1
    total = total + b * b**-a / (a - 1) - 0.5 * b**-a
    factor, power = a, b ** (-a - 1)
    for j, number in enumerate(BERNOULLI, 1):
        total = total + factor * power * number / math.factorial(2 * j)
        factor, power = factor * (a + 2 * j - 1) * (a + 2 * j), power / (b * b)
    return np.where(good, total, np.where(pole & (s >= 1), np.inf, np.nan))


def _upper_gamma(a, x):
    """The share of gamma(a) from x on for a large a, with a part in a^1.5 left out: DLMF 8.12.4 and 8.12.8, near x = a by the series of what cancels there."""
    m = x / a - 1
    near = np.abs(m) < 1e-3
    eta = np.sign(m) * np.sqrt(2 * np.where(near, m * m * (1 / 2 - m / 3 + m * m / 4), m - np.log1p(m)))
    c = np.where(near, -1 / 3 + eta / 12, 1 / np.where(near, 1, m) - 1 / np.where(near, 1, eta))
    return 0.5 * _erfc(eta * np.sqrt(a / 2)) + c * np.exp(-a * eta * eta / 2) / np.sqrt(2 * np.pi * a)


def _gammas(a, x):
    """The share of gamma(a) from 0 to x, and from x on: a series, and from a + 1 on a continued fraction (AS 6.5.29 and 6.5.31, by Lentz's rule)."""
    a, x = np.broadcast_arrays(a, x)
    good, large = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x), a > LARGE
    s, t = np.where(good & ~large, a, 1.0), np.where(good & ~large, x, 1.0)
    low, scale = t < s + 1, np.exp(s * np.log(t) - t - _lgamma(s))
    u = np.where(low, t, 1.0)
    term = total = 1 / s
    k = 0
    while np.any(term > 1e-17 * total) and k < MOST:
        k += 1
        term = term * u / (s + k)
        total = total + term
    v = np.where(low, s + 1, t)
    b, c = v + 1 - s, np.full_like(v, 1e300)
    fraction = d = 1 / b
    open_, k = np.ones(v.shape, bool), 0
    while np.any(open_) and k < MOST:
        k += 1
        step, b = -k * (k - s), b + 2
        d, c = 1 / (b + step * d), b + step / c
        fraction = np.where(open_, fraction * d * c, fraction)  # each as far as it needs, whatever is beside it
        open_ &= np.abs(d * c - 1) > 1e-16
    lower = np.where(low, scale * total, 1 - scale * fraction)
    upper = np.where(low, 1 - scale * total, scale * fraction)
    tail = _upper_gamma(np.where(good & large, a, LARGE), np.where(good & large, x, LARGE))
    lower, upper = np.where(large, 1 - tail, lower), np.where(large, tail, upper)
    none, all_ = (x == 0) & (a > 0) | np.isinf(a) & (x >= 0) & np.isfinite(x), (a == 0) & (x > 0) | np.isinf(x) & (x > 0) & (a >= 0) & np.isfinite(a)
    return tuple(np.where(good, y, np.where(none, at_none, np.where(all_, 1 - at_none, np.nan))) for y, at_none in ((lower, 0.0), (upper, 1.0)))


def _chebyshev(kind: str):
    """The four kinds by angles, complex past 1 (AS 22.3.15 and 22.3.16; Mason and Handscomb 2002, Chebyshev Polynomials); 0 for a negative order."""

    def chebyshev(x, n):
        n = np.trunc(n)
        angle = np.arccos(x + 0j)
        even = np.where(n % 2 == 0, 1.0, -1.0)
        with np.errstate(all="ignore"):
            y, right, left = {
                "T": lambda: (np.cos(n * angle), 1.0, even),
                "U": lambda: (np.sin((n + 1) * angle) / np.sin(angle), n + 1, even * (n + 1)),
                "V": lambda: (np.cos((n + 0.5) * angle) / np.cos(angle / 2), 1.0, even * (2 * n + 1)),
                "W": lambda: (np.sin((n + 0.5) * angle) / np.sin(angle / 2), 2 * n + 1, even),
            }[kind]()
        return np.where(n < 0, 0.0, np.where(x == 1, right, np.where(x == -1, left, y.real)))

    return chebyshev


def _recurrence(first, following, limit: int = MOST):
    """A polynomial of degree n from those of the two degrees below: AS 22.7. first: of degree 1; following: (x, k, p of k, p of k - 1)."""

    def polynomial(x, n):
        x, n = np.broadcast_arrays(x, np.trunc(n))
        before, now = np.ones_like(x), first(x)
        result = np.where(n < 0, 0.0, np.where(n == 0, before, np.where(n == 1, now, np.nan)))
        wanted = n[n <= limit]
        for k in range(1, int(wanted.max(initial=0))):
            before, now = now, following(x, k, now, before)
            result = np.where(n == k + 1, now, result)
        return result

    return polynomial


def _sinc(x):
    return np.where(x == 0, 1.0, np.where(np.isinf(x), 0.0, np.sin(np.where(np.isinf(x), 0.0, x)) / np.where(x == 0, 1.0, x)))


ONE = {
    "BesselI0": lambda x: _i_scaled(0, x) * np.exp(np.abs(x)), "BesselI1": lambda x: _i_scaled(1, x) * np.exp(np.abs(x)),
    "ScaledBesselI0": lambda x: _i_scaled(0, x), "ScaledBesselI1": lambda x: _i_scaled(1, x),
    "BesselJ0": _j(0), "BesselJ1": _j(1), "SphericalBesselJ0": _sinc, "AiryAi": _airy, "NormalQuantile": _ndtri,
    "BesselY0": _positive(lambda x: _hankel(0, x).imag, -np.inf), "BesselY1": _positive(lambda x: _hankel(1, x).imag, -np.inf),
    "BesselK0": _positive(lambda x: _k_scaled(0, x) * np.exp(-x), np.inf), "BesselK1": _positive(lambda x: _k_scaled(1, x) * np.exp(-x), np.inf),
    "ScaledBesselK0": _positive(lambda x: _k_scaled(0, x), np.inf), "ScaledBesselK1": _positive(lambda x: _k_scaled(1, x), np.inf),
}  # fmt: skip
TWO = {
    "Zeta": _zeta,
    "GammaP": lambda a, x: _gammas(a, x)[0],
    "GammaQ": lambda a, x: _gammas(a, x)[1],
    **{f"Chebyshev{kind}": _chebyshev(kind) for kind in "TUVW"},
    "HermiteH": _recurrence(lambda x: 2 * x, lambda x, k, p, q: 2 * x * p - 2 * k * q, 128),
    "HermiteHe": _recurrence(lambda x: x, lambda x, k, p, q: x * p - k * q, 128),
    "Laguerre": _recurrence(lambda x: 1 - x, lambda x, k, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1)),
    "Legendre": _recurrence(lambda x: x, lambda x, k, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1)),
}


@op(*ONE, apart=aligned)
@op(*TWO, inputs=(2, 2), apart=aligned)
def special(node, inputs):
    """Of floats of one dtype, broadcast; of a polynomial the second is the degree."""
    specs = [require(node, s, "the input", FLOATS) for s in inputs]
    if len({s.dtype for s in specs}) > 1:
        require(node, specs[1], "the second input", (specs[0].dtype,))
    return [Spec(specs[0].dtype, broadcast(node, *(s.shape for s in specs)))]


@meaning(*ONE, *TWO)
def special_meaning(node, inputs):
    """In float64, some at a time."""
    given = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in inputs))
    flat, y, function = [a.ravel() for a in given], np.empty(given[0].size, inputs[0].dtype), (ONE | TWO)[node.op]
    with np.errstate(all="ignore"):
        for k in range(0, y.size, BLOCK):
            y[k : k + BLOCK] = function(*(a[k : k + BLOCK] for a in flat))
    return [y.reshape(given[0].shape)]
