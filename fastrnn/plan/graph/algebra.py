"""What elementwise nodes and matrix products compute, in one form whichever way a file spells it: the language that cells are recognised in.

A Form stands for a row of numbers: matrices applied to vectors (parts), constants (biases), and products of functions of such
(products), all summed. Polynomials are multiplied out, so (1 - z) n + z h and n + z (h - n) are one Form. Two equal Forms are equal for all
real numbers, but for a rounding of constants to float32; floats may round differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastrnn.cells import Activation

MOST_PRODUCTS = 8
Range = tuple[int, int]


@dataclass(frozen=True)
class Vector:
    """A value of so many entries that is taken as it is, or one entry of an axis of it: `index` a number, or "run" for that which a run takes."""

    name: str
    width: int
    axis: int | None = None
    index: int | str | None = None


@dataclass(frozen=True)
class Part:
    """vector[rows] @ weight[:, cols], or vector[cols] without a weight. turned: the weight is stored the other way round."""

    vector: Vector
    weight: str
    turned: bool
    rows: Range
    cols: Range


@dataclass(frozen=True)
class Factor:
    """A function of a Form, or (None) the Form itself."""

    activation: Activation | None
    inner: Form


@dataclass(frozen=True)
class Form:
    """parts: (Part, scale). biases: ((constant, range of its entries), scale). products: (((Factor, power), ...), scale), () being 1."""

    parts: frozenset = frozenset()
    biases: frozenset = frozenset()
    products: frozenset = frozenset()

    @cached_property
    def affine(self) -> Form:
        """Without the products."""
        return Form(self.parts, self.biases)

    @property
    def vector(self) -> Vector | None:
        """The vector that this is, all of it, once, and nothing else."""
        if self.biases or self.products or len(self.parts) != 1:
            return None
        ((part, scale),) = self.parts
        return part.vector if scale == 1 and not part.weight and part.cols == (0, part.vector.width) else None

    @property
    def vectors(self) -> set[Vector]:
        """Those that matrices are applied to, outside of products."""
        return {part.vector for part, _ in self.parts}

    @property
    def function(self) -> Factor | None:
        """The function of a Form that this is, and nothing else."""
        if self.parts or self.biases or len(self.products) != 1:
            return None
        ((factors, scale),) = self.products
        if scale != 1 or len(factors) != 1:
            return None
        ((factor, power),) = factors
        return factor if power == 1 and factor.activation is not None else None


def of_vector(vector: Vector) -> Form:
    """All of a vector."""
    return Form(frozenset({(Part(vector, "", False, (0, vector.width), (0, vector.width)), 1.0)}))


def number(value: float) -> Form:
    """A constant."""
    return Form(products=frozenset({(frozenset(), float(value))} if value else ()))


def bias(name: str, width: int) -> Form:
    """A constant row."""
    return Form(biases=frozenset({((name, (0, width)), 1.0)}))


def applied(activation: Activation, form: Form) -> Form:
    """A function of a Form."""
    return form if activation.kind == "identity" else _product({frozenset({(Factor(activation, form), 1)}): 1.0})


def times_matrix(vector: Vector, weight: str, turned: bool, rows: Range, width: int) -> Form:
    """vector @ weight[rows]."""
    return Form(frozenset({(Part(vector, weight, turned, rows, (0, width)), 1.0)}))


def added(a: Form, b: Form, scale: float = 1.0) -> Form | None:
    """a + scale b; None where it becomes too long."""
    fields = (_merged(x, y, scale) for x, y in ((a.parts, b.parts), (a.biases, b.biases), (a.products, b.products)))
    result = Form(*fields)
    return result if len(result.products) <= MOST_PRODUCTS else None


def _merged(a: frozenset, b: frozenset, scale: float) -> frozenset:
    total = dict(a)
    for key, value in b:
        total[key] = total.get(key, 0.0) + scale * value
    return frozenset((key, value) for key, value in total.items() if value)


def multiplied(a: Form, b: Form) -> Form | None:
    """a b, entry by entry; None where it becomes too long."""
    total: dict[frozenset, float] = {}
    left, right = _summands(a), _summands(b)
    if len(left) * len(right) > 2 * MOST_PRODUCTS:
        return None
    for factors, scale in left:
        for others, other in right:
            powers = dict(factors)
            for factor, power in others:
                powers[factor] = powers.get(factor, 0) + power
            key = frozenset(powers.items())
            total[key] = total.get(key, 0.0) + float(np.float32(scale * other))  # as the file's constants: 6 times the float next to 1/6 is 1
    return _product(total) if len(total) <= MOST_PRODUCTS else None


def _summands(form: Form) -> list[tuple[frozenset, float]]:
    """As products: vectors one by one, what matrices and constants give in one piece."""
    plain = [(Form(frozenset({(part, 1.0)})), scale) for part, scale in form.parts if not part.weight] if not form.biases else []
    rest = frozenset((part, scale) for part, scale in form.parts if part.weight or form.biases)
    whole = [(Form(rest, form.biases), 1.0)] if rest or form.biases else []
    return [*form.products, *((frozenset({(Factor(None, inner), 1)}), scale) for inner, scale in (*plain, *whole))]


def _product(products: dict[frozenset, float]) -> Form:
    """The sum of products; a Form that stands alone is itself."""
    result = Form(products=frozenset((factors, scale) for factors, scale in products.items() if scale and not _alone(factors)))
    for factors, scale in products.items():
        if _alone(factors):
            ((factor, _),) = factors
            result = added(result, factor.inner, scale)
    return result


def _alone(factors: frozenset) -> bool:
    return len(factors) == 1 and all(factor.activation is None and power == 1 for factor, power in factors)


def cut(form: Form, start: int, stop: int) -> Form:
    """Entries start:stop of all of it."""

    def moved(cols: Range) -> Range:
        return cols[0] + start, cols[0] + stop

    parts = frozenset((Part(p.vector, p.weight, p.turned, p.rows if p.weight else moved(p.cols), moved(p.cols)), scale) for p, scale in form.parts)
    biases = frozenset(((name, moved(cols)), scale) for (name, cols), scale in form.biases)
    products = frozenset(
        (frozenset((Factor(f.activation, cut(f.inner, start, stop)), power) for f, power in factors), scale) for factors, scale in form.products
    )
    return Form(parts, biases, products)


def mapped(form: Form, change: Callable[[Vector], Vector]) -> Form:
    """With other vectors."""
    parts = frozenset((Part(change(p.vector), p.weight, p.turned, p.rows, p.cols), scale) for p, scale in form.parts)
    products = frozenset(
        (frozenset((Factor(f.activation, mapped(f.inner, change)), power) for f, power in factors), scale) for factors, scale in form.products
    )
    return Form(parts, form.biases, products)


def matrix(form: Form, vector: Vector, size: int, weights) -> np.ndarray:
    """(size, n): what a Form of that size applies to a vector of n entries, as W is stored in ONNX's recurrent ops."""
    total = np.zeros((size, vector.width), np.float32)
    for part, scale in form.parts:
        if part.vector != vector:
            continue
        if part.weight:
            stored = weights[part.weight]
            stored = stored.T if part.turned else stored
            block = stored[part.rows[0] : part.rows[1], part.cols[0] : part.cols[1]].T
            total += block if scale == 1 else np.float32(scale) * block
        else:
            total[np.arange(size), np.arange(*part.cols)] += np.float32(scale)
    return total


def row(form: Form, size: int, weights) -> np.ndarray:
    """(size,): the sum of a Form's constants."""
    total = np.zeros(size, np.float32)
    for (name, (start, stop)), scale in form.biases:
        entries = weights[name].reshape(-1)
        entries = entries[start:stop] if entries.size > 1 else np.full(size, entries[0])
        total += np.float32(scale) * entries
    for factors, scale in form.products:
        if not factors:
            total += np.float32(scale)
    return total
