"""The functions that a cell is written with. On NumPy arrays they compute; on values of a trace they are noted, to be compiled.

Arithmetic, comparisons, & | ~ of comparisons and unary minus are Python's own operators. Where compiled, each rounds once to float32, as written:
nothing is fused or reordered. tanh is within 5 ulp, exp within 2, sigmoid within 5 ulp or 2^-22, see benchmarks/results/activations.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from fastrnn.cells.trace import Value

if TYPE_CHECKING:
    from fastrnn.typing import Array, Operand

P = ParamSpec("P")
R = TypeVar("R")


def operation(compute: Callable[P, R]) -> Callable[P, R]:
    """A function of NumPy arrays that, given a value of a trace, becomes an instruction of its own name."""

    @functools.wraps(compute)
    def function(*operands: Any) -> Any:
        for operand in operands:
            if isinstance(operand, Value):
                return operand.trace.add(compute.__name__, *operands)
        return compute(*operands)  # type: ignore[call-arg]  # by place alone, as all of them are declared

    return function  # type: ignore[return-value]


@operation
def exp(x: Operand, /) -> Array:
    """e to the power x; inf above 88.7, 0 below -104, and of a compiled cell, which has no subnormal numbers, below -87.3."""
    return np.exp(x)


@operation
def tanh(x: Operand, /) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x)


@operation
def sigmoid(x: Operand, /) -> Array:
    """1 / (1 + exp(-x)), without overflow for large |x|."""
    x = np.asarray(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(e.dtype)[()]


@operation
def relu(x: Operand, /) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


@operation
def sqrt(x: Operand, /) -> Array:
    """The square root; NaN below 0."""
    return np.sqrt(x)


@operation
def abs(x: Operand, /) -> Array:
    """|x|."""
    return np.abs(x)


@operation
def minimum(a: Operand, b: Operand, /) -> Array:
    """The smaller of two values; NaN where either is."""
    return np.minimum(a, b)


@operation
def maximum(a: Operand, b: Operand, /) -> Array:
    """The larger of two values; NaN where either is."""
    return np.maximum(a, b)


@operation
def where(condition: Array, a: Operand, b: Operand, /) -> Array:
    """a where a comparison holds, else b. Both are computed."""
    return np.where(condition, a, b).astype(np.result_type(a, b), copy=False)[()]


@operation
def log1p_unit(x: Operand, /) -> Array:
    """log(1 + x) for x in [0, 1]: what softplus is made of."""
    return np.log1p(x)
