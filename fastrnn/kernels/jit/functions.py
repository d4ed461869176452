"""The functions of fastrnn.cells.maths on vectors, step by step as native/vectors/activations.h does them: same coefficients, same order, same bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastrnn.kernels.jit.simd import Code, Vector

# Numerators and denominators, highest power first: where they come from stands in native/vectors/activations.h.
_TANH_CLAMP = 8.01923275
_TANH_P = (1.61319402e-08, 2.29815923e-05, 0.00373005914, 0.140102506, 1.04143155)
_TANH_Q = (8.9812329e-07, 0.000357004843, 0.027288029, 0.487246305, 1.04143155)
_EXP = (0.001381454, 0.00836874512, 0.0416683908, 0.166665204, 0.499999934)
_LOG1P = (0.121523134, 0.107133778, 0.1430848, 0.199994377, 0.333333378)


def _polynomial(code: Code, x: Vector, coefficients) -> Vector:
    """Horner's scheme, a fused multiply-add a step."""
    result = code.number(coefficients[0])
    for coefficient in coefficients[1:]:
        result = result.fma(x, code.number(coefficient))
    return result


def tanh(code: Code, x: Vector) -> Vector:
    """x P(x^2) / Q(x^2)."""
    x = code.number(-_TANH_CLAMP).max(code.number(_TANH_CLAMP).min(x))
    y = x * x
    return x * _polynomial(code, y, _TANH_P) / _polynomial(code, y, _TANH_Q)


def sigmoid(code: Code, x: Vector) -> Vector:
    """tanh(x / 2) / 2 + 1 / 2."""
    half = code.number(0.5)
    return half.fma(tanh(code, half * x), half)


def exp(code: Code, x: Vector) -> Vector:
    """2^n (1 + r + r^2 q(r)) with n = rint(x log2 e), 2^n in two factors."""
    x = code.number(-104.0).max(code.number(89.0).min(x))
    n = (x * code.number(1.44269504)).round()
    r = n.fma(code.number(2.12194440e-4), n.fma(code.number(-0.693359375), x))
    e = (r * r).fma(_polynomial(code, r, _EXP), r) + code.number(1.0)
    n1 = (n * code.number(0.5)).round()
    return e * n1.power_of_two() * (n - n1).power_of_two()


def log1p_unit(code: Code, t: Vector) -> Vector:
    """2 atanh(s), s = t / (2 + t)."""
    s = t / (t + code.number(2.0))
    z = s * s
    q = _polynomial(code, z, _LOG1P)
    s = s + s
    return (q * z).fma(s, s)


def _extreme(which: str, a: Vector, b: Vector) -> Vector:
    """NaN where either is; one instruction where one is a constant, which comes first so that the other's NaN passes."""
    a, b = (b, a) if b.constant else (a, b)
    least = getattr(a, which)(b)
    return least if a.constant else a.compare("!=", a).select(a, least)


OPERATIONS: dict[str, Callable[..., Vector]] = {
    "add": lambda c, a, b: a + b,
    "subtract": lambda c, a, b: a - b,
    "multiply": lambda c, a, b: a * b,
    "divide": lambda c, a, b: a / b,
    "negative": lambda c, a: -a,
    "less": lambda c, a, b: a.compare("<", b),
    "less_equal": lambda c, a, b: a.compare("<=", b),
    "equal": lambda c, a, b: a.compare("==", b),
    "not_equal": lambda c, a, b: a.compare("!=", b),
    "logical_and": lambda c, a, b: a & b,
    "logical_or": lambda c, a, b: a | b,
    "logical_not": lambda c, a: ~a,
    "where": lambda c, condition, a, b: condition.select(a, b),
    "abs": lambda c, a: c.intrinsic("fabs", a),
    "sqrt": lambda c, a: c.intrinsic("sqrt", a),
    "relu": lambda c, a: c.number(0.0).max(a),
    "minimum": lambda c, a, b: _extreme("min", a, b),
    "maximum": lambda c, a, b: _extreme("max", a, b),
    "exp": exp,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "log1p_unit": log1p_unit,
}


def performer(code: Code) -> Callable[..., Vector]:
    """Does a traced instruction on vectors."""

    def perform(operation: str, *operands) -> Vector:
        if operation == "constant":
            return code.number(np.uint32(operands[0]).view(np.float32))
        return OPERATIONS[operation](code, *operands)

    return perform
