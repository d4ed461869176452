"""Sizes that are symbols and numbers at once: what lets one program serve every batch and length.

A Size is a polynomial with whole coefficients over the free dimensions of a call, and knows its value for the call at hand. What is
computed from it by arithmetic is a Size again. What is decided by it, a comparison, is decided by its value, and the decision is noted as a
Guard: whatever was made meanwhile holds for all sizes for which its guards hold. Dimensions of 0 and 1 are plain numbers, since so much
depends on them; so a free dimension is 2 or more, and most comparisons are decided for all sizes, without a guard.

A Size that is used as a number after all (an index, `int`, `range`, an array of int64) is tied to its value by a guard: never wrong, though what
is made then serves that size alone. `whole`, `smallest`, `largest`, `less` and `n_steps` keep Sizes where Python's own functions would not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

import numpy as np

from fastrnn.model.polynomials import Bounds, bounds_of_terms, exactly, known, range_of

NAMELESS = "?"  # a dimension without a name (model/ops: ANY_DIM)
LEAST, MOST = 2, (1 << 31) - 2  # of a free dimension: below the bounds that mean "to the end"
# What is no polynomial, as Python has it: quotients are rounded down.
OPERATIONS = {"quotient": lambda a, b: a // b, "remainder": lambda a, b: a % b, "minimum": min, "maximum": max, "less": lambda a, b: int(a < b)}


class Guard(NamedTuple):
    """A decision: whether `size` is positive, or zero, as `relation` says, holds or not."""

    size: Size
    relation: str
    holds: bool

    def allows(self, values: Mapping[str, int]) -> bool:
        """Whether it is as noted for other values of the free dimensions."""
        return positive_or_zero(evaluate(self.size, values), self.relation) == self.holds


@dataclass(eq=False, slots=True, repr=False)
class Atom:
    """What polynomials are made of: a free dimension of this name, or an operation (a key of OPERATIONS) on two Sizes or numbers."""

    name: str
    value: int
    low: int | None
    high: int | None
    operation: str = ""
    operands: tuple = ()

    def __str__(self) -> str:
        return self.name or f"{self.operation}({', '.join(map(formula, self.operands))})"


class Scope:
    """The free dimensions of one walk over a model, what they are for the call at hand, and what was decided by that."""

    def __init__(self):
        self.atoms: list[Atom] = []
        self.guards: list[Guard] = []
        self.tied: list[Size] = []  # those that were used as numbers
        self._named: dict[str, Size] = {}
        self._made: dict[tuple, int | Size] = {}
        self._noted: set[tuple] = set()

    @property
    def dimensions(self) -> dict[str, Size]:
        """The free dimensions by name, in the order in which they were met."""
        return self._named

    def dimension(self, name: str, value: int) -> int | Size:
        """A free dimension of this value; the number where that is below 2, or too large."""
        if not LEAST <= value <= MOST:
            return int(value)
        if name not in self._named:
            self._named[name] = self._atom(Atom(name, int(value), LEAST, MOST))
        return self._named[name]

    def _atom(self, atom: Atom) -> Size:
        self.atoms.append(atom)
        return Size(self, {(len(self.atoms) - 1,): 1})

    def made(self, operation: str, a, b) -> Size:
        """The Size of an operation that is no polynomial."""
        key = (operation, _key(a), _key(b))
        if key not in self._made:
            value = OPERATIONS[operation](value_of(a), value_of(b))
            self._made[key] = self._atom(Atom("", value, *range_of(operation, bounds_of(a), bounds_of(b)), operation, (a, b)))
        return self._made[key]

    def decide(self, size: Size, relation: str) -> bool:
        """Whether a size is positive, or zero: by its bounds for all sizes, else by its value, which is noted."""
        low, high = bounds_of(size)
        if low is not None and low > 0:
            return relation == "positive"
        if high is not None and high < (relation == "positive"):
            return False
        holds = size.value > 0 if relation == "positive" else size.value == 0
        if (relation, size.key()) not in self._noted:
            self._noted.add((relation, size.key()))
            self.guards.append(Guard(size, relation, holds))
            self._tighten(size, relation, holds)
        return holds

    def _tighten(self, size: Size, relation: str, holds: bool) -> None:
        """What a guard says of the bounds of a single atom, so that what follows from it is not noted again."""
        (monomial, factor), *more = ((m, c) for m, c in size.terms.items() if m)
        if more or len(monomial) > 1:
            return
        atom, rest = self.atoms[monomial[0]], -size.terms.get((), 0)  # factor * atom against rest
        if relation == "zero":
            if holds:
                atom.low = atom.high = rest // factor
            elif rest % factor == 0 and atom.low == rest // factor:
                atom.low += 1
            return
        rest += holds  # at least that if it holds, else at most
        if (factor > 0) == holds:
            atom.low = known(max, atom.low, -(-rest // factor))
        else:
            atom.high = known(min, atom.high, rest // factor)


def sizes_in(scope: Scope, name: str, declared: tuple[int | str, ...], shape: tuple[int, ...]) -> tuple[Whole, ...]:
    """The shape of an input where its symbols are dimensions of the scope, a nameless one by its place."""
    return tuple(
        scope.dimension(f"{name}[{axis}]" if d == NAMELESS else d, n) if isinstance(d, str) else n for axis, (d, n) in enumerate(zip(declared, shape))
    )


class Size:
    """A whole number that follows from free dimensions; never a constant. Calculates and compares as an int does; see above. No key of a
    dict and no member of a set: whether two are one may depend on the sizes at hand.

    terms: coefficients, none 0, by monomial, a sorted tuple of atoms by number.
    """

    __slots__ = ("_key", "scope", "terms", "value")
    __hash__ = None

    def __init__(self, scope: Scope, terms: dict[tuple[int, ...], int]):
        self.scope, self.terms, self._key, self.value = scope, terms, None, 0
        for monomial, c in terms.items():
            for a in monomial:
                c *= scope.atoms[a].value
            self.value += c

    def key(self) -> tuple:
        """What it is, whatever the sizes at hand: equal for equal polynomials of one scope."""
        if self._key is None:
            self._key = tuple(sorted(self.terms.items()))
        return self._key

    def __repr__(self) -> str:
        return str(self.value)

    def formula(self) -> str:
        """As a sum of products, for those who look into a program."""
        return " + ".join("*".join([*([str(c)] if c != 1 or not m else []), *(str(self.scope.atoms[a]) for a in m)]) for m, c in reversed(self.key()))

    def _plus(self, other, factor: int):
        if (other := _operand(other)) is None:
            return NotImplemented
        more = other.terms.items() if isinstance(other, Size) else [((), other)]
        terms = self.terms.copy()
        for monomial, c in more:
            terms[monomial] = terms.get(monomial, 0) + c * factor
        return _sum(self.scope, terms)

    def __add__(self, other):
        return self._plus(other, 1)

    __radd__ = __add__

    def __sub__(self, other):
        return self._plus(other, -1)

    def __rsub__(self, other):
        return (-self)._plus(other, 1)

    def __neg__(self):
        return self * -1

    def __mul__(self, other):
        if (other := _operand(other)) is None:
            return NotImplemented
        terms: dict[tuple, int] = {}
        for n, b in other.terms.items() if isinstance(other, Size) else [((), other)]:
            for m, a in self.terms.items():
                monomial = tuple(sorted(m + n))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return _sum(self.scope, terms)

    __rmul__ = __mul__

    def __abs__(self):
        return -self if self < 0 else self

    def __floordiv__(self, other):
        return NotImplemented if (other := _operand(other)) is None else _quotient(self, other)

    def __rfloordiv__(self, other):
        return NotImplemented if (other := _operand(other)) is None else _quotient(other, self)

    def __mod__(self, other):
        return NotImplemented if (other := _operand(other)) is None else _remainder(self, other)

    def __rmod__(self, other):
        return NotImplemented if (other := _operand(other)) is None else _remainder(other, self)

    def __divmod__(self, other):
        return self // other, self % other

    def _is(self, difference, relation: str):
        return difference if difference is NotImplemented else positive_or_zero(difference, relation)

    def __eq__(self, other):
        return self._is(self - other, "zero") if isinstance(other, (Size, int, np.integer)) else NotImplemented

    def __ne__(self, other):
        return NotImplemented if (equal := self.__eq__(other)) is NotImplemented else not equal

    def __gt__(self, other):
        return self._is(self - (floor(other) if isinstance(other, float) else other), "positive")

    def __lt__(self, other):
        return self._is((ceil(other) if isinstance(other, float) else other) - self, "positive")

    def __le__(self, other):
        return not self > other

    def __ge__(self, other):
        return not self < other

    def __bool__(self) -> bool:
        return not self.scope.decide(self, "zero")

    def __index__(self) -> int:
        self.scope.tied.append(self)
        positive_or_zero(self - self.value, "zero")
        return self.value

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.__index__())


Whole = int | Size


def positive_or_zero(size: Whole, relation: str) -> bool:
    """Whether a number or a Size is positive, or zero."""
    if isinstance(size, Size):
        return size.scope.decide(size, relation)
    return bool(size > 0 if relation == "positive" else size == 0)


def whole(value) -> Whole:
    """As int(value), but a Size stays."""
    return value if isinstance(value, Size) else int(value)


def value_of(size) -> int:
    """The number for the call at hand, without a guard: for estimates and messages, never for what a program is made of."""
    return size.value if isinstance(size, Size) else size


def evaluate(size: Whole, values: Mapping[str, int]) -> int:
    """The number for other values of the free dimensions, by name."""
    if not isinstance(size, Size):
        return size
    total = 0
    for monomial, c in size.terms.items():
        for a in monomial:
            atom = size.scope.atoms[a]
            c *= OPERATIONS[atom.operation](*(evaluate(operand, values) for operand in atom.operands)) if atom.operation else values[atom.name]
        total += c
    return total


def formula(size: Whole) -> str:
    """What a size is, whatever the sizes at hand."""
    return size.formula() if isinstance(size, Size) else str(size)


def same(a: Whole, b: Whole) -> bool:
    """Whether two are one for all sizes; decides nothing."""
    return _key(a) == _key(b)


def smallest(*sizes: Whole) -> Whole:
    """min(sizes), without a decision that bounds do not give."""
    return _extreme("minimum", sizes)


def largest(*sizes: Whole) -> Whole:
    """max(sizes), without a decision that bounds do not give."""
    return _extreme("maximum", sizes)


def less(a: Whole, b: Whole) -> Whole:
    """1 where a < b, else 0, without a decision that bounds do not give."""
    low, high = bounds_of(b - a)
    if low is not None and low > 0 or high is not None and high <= 0:
        return int(low is not None and low > 0)
    return (a if isinstance(a, Size) else b).scope.made("less", a, b)


def n_steps(start: Whole, stop: Whole, step: int) -> Whole:
    """len(range(start, stop, step))."""
    if not isinstance(start, Size) and not isinstance(stop, Size):
        return len(range(start, stop, step))
    return largest(0, (stop - start + step - 1) // step if step > 0 else (start - stop - step - 1) // -step)


def wholes(values: Iterable) -> np.ndarray:
    """An array of int64, or of objects where Sizes or symbols are among the values."""
    values = list(values)
    return np.array(values, object if any(isinstance(v, (Size, str)) for v in values) else np.int64)


def has_sizes(array: np.ndarray) -> bool:
    """Whether an array holds Sizes."""
    return array.dtype == object and any(isinstance(v, Size) for v in array.ravel())


def bounds_of(size: Whole) -> Bounds:
    """The least and the greatest that a size may be."""
    return bounds_of_terms(size.terms, size.scope.atoms) if isinstance(size, Size) else (size, size)


def _operand(value):
    """A Size, or a number as an int; None for what is neither."""
    if isinstance(value, (Size, int)):
        return value
    if isinstance(value, np.integer) or isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def _sum(scope: Scope, terms: dict[tuple, int]) -> Whole:
    terms = {m: c for m, c in terms.items() if c}
    return Size(scope, terms) if terms.keys() - {()} else terms.get((), 0)


def _key(size: Whole):
    return size.key() if isinstance(size, Size) else int(size)


def _extreme(operation: str, sizes: Sequence[Whole]) -> Whole:
    result = sizes[0]
    for size in sizes[1:]:
        low, high = bounds_of(size - result)
        if high is not None and high <= 0 or low is not None and low >= 0:
            result = size if (high is not None and high <= 0) == (operation == "minimum") else result
        else:
            result = (size if isinstance(size, Size) else result).scope.made(operation, result, size)
    return result


def _quotient(a: Whole, b: Whole) -> Whole:
    """a // b, rounded down."""
    whole, rest, settled = _divided(a, b)
    return whole if settled else whole + _scope(a, b).made("quotient", rest, b)


def _remainder(a: Whole, b: Whole) -> Whole:
    """a % b, of b's sign."""
    _, rest, settled = _divided(a, b)
    return rest if settled else _scope(a, b).made("remainder", rest, b)


def _divided(a: Whole, b: Whole) -> tuple[Whole, Whole, bool]:
    """(q, r, whether r is the remainder for all sizes), a = q b + r."""
    if b == 0:
        raise ZeroDivisionError("a size divided by zero")
    if isinstance(b, Size):
        exact = exactly(a.terms if isinstance(a, Size) else {(): a}, b.terms)
        return (0, a, False) if exact is None else (_sum(b.scope, exact), 0, True)
    parts = {m: divmod(c, b) for m, c in a.terms.items()}
    rest = _sum(a.scope, {m: r for m, (_, r) in parts.items()})
    return _sum(a.scope, {m: q for m, (q, _) in parts.items()}), rest, not isinstance(rest, Size)


def _scope(a: Whole, b: Whole) -> Scope:
    return a.scope if isinstance(a, Size) else b.scope
