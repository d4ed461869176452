"""Polynomials with whole coefficients as {monomial: coefficient}, a monomial being a sorted tuple of atoms: what Sizes (sizes.py) are made of.

Bounds follow from those of the atoms, objects with `low` and `high`; None is a bound that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Terms = dict[tuple[int, ...], int]
Bounds = tuple[int | None, int | None]  # the least and the greatest
MOST_DIVISIONS = 64  # terms of a quotient that is looked for


def bounds_of_terms(terms: Terms, atoms: Sequence) -> Bounds:
    """The least and the greatest that a polynomial may be, by the bounds of its atoms."""
    low = high = 0
    for monomial, c in terms.items():  # each monomial for itself
        ranges = [(atoms[a].low, atoms[a].high) for a in monomial]
        least = _product(r[0] for r in ranges) if len(monomial) == 1 or all(r[0] is not None and r[0] >= 0 for r in ranges) else None
        most = _product(r[1] for r in ranges) if len(monomial) == 1 or least is not None else None
        least, most = (least, most) if c > 0 else (most, least)
        low = None if low is None or least is None else low + c * least
        high = None if high is None or most is None else high + c * most
    if len(terms) > 2 or len(terms) > 1 and () not in terms:  # monomials that go together: over what each atom has more than its least
        shifted = _shifted(terms, atoms)
        constant, others = shifted.pop((), 0), shifted.values()
        if all(c >= 0 for c in others):
            low = constant if low is None else max(low, constant)
        if all(c <= 0 for c in others):
            high = constant if high is None else min(high, constant)
    return low, high


def _shifted(terms: Terms, atoms: Sequence) -> Terms:
    """The terms over atoms counted from their least, or from their greatest downwards; terms of both signs where neither is known."""
    result: Terms = {}
    for monomial, c in terms.items():
        parts = {(): c}
        for a in monomial:
            if atoms[a].low is None and atoms[a].high is None:
                return {(-1,): 1, (-2,): -1}
            base, sign = (atoms[a].low, 1) if atoms[a].low is not None else (atoms[a].high, -1)
            grown: Terms = {}
            for m, factor in parts.items():
                for n, k in ((m, base), (tuple(sorted((*m, a))), sign)):
                    grown[n] = grown.get(n, 0) + factor * k
            parts = grown
        for m, factor in parts.items():
            result[m] = result.get(m, 0) + factor
    return {m: c for m, c in result.items() if c}


def range_of(operation: str, a: Bounds, b: Bounds) -> Bounds:
    """Bounds of an operation's result."""
    if operation == "less":
        return 0, 1
    if operation in ("minimum", "maximum"):
        pick, (certain, other) = (min, (0, 1)) if operation == "minimum" else (max, (1, 0))
        both = None if None in (a[certain], b[certain]) else pick(a[certain], b[certain])
        either = known(pick, a[other], b[other])
        return (both, either) if operation == "minimum" else (either, both)
    if b[0] is None or b[0] < 1:
        return None, None
    if operation == "remainder":
        return 0, None if b[1] is None else b[1] - 1
    fixed, (low, high) = b[0] == b[1], a
    return (
        None if low is None or not fixed and low < 0 else low // b[0] if fixed else 0,
        None if high is None or not fixed and high < 0 else high // b[0],
    )


def known(pick: Callable, *bounds: int | None) -> int | None:
    """The least or greatest, as `pick` says, of the bounds that are known."""
    return pick((bound for bound in bounds if bound is not None), default=None)


def _product(bounds) -> int | None:
    result = 1
    for bound in bounds:
        if bound is None:
            return None
        result *= bound
    return result


def exactly(dividend: Terms, divisor: Terms) -> Terms | None:
    """The terms of a quotient of polynomials that leaves nothing over, None where there is none."""
    left, result, lead = dict(dividend), {}, max(divisor, key=_order)
    for _ in range(MOST_DIVISIONS):
        if not left:
            return result
        monomial = max(left, key=_order)
        more = _without(monomial, lead)
        if more is None or left[monomial] % divisor[lead]:
            return None
        factor = result[more] = left[monomial] // divisor[lead]
        for m, c in divisor.items():
            n = tuple(sorted(m + more))
            left[n] = left.get(n, 0) - factor * c
        left = {m: c for m, c in left.items() if c}
    return None


def _order(monomial: tuple[int, ...]) -> tuple:
    """Monomials by degree, then by their atoms: an order that products keep."""
    return len(monomial), monomial


def _without(monomial: tuple[int, ...], part: tuple[int, ...]) -> tuple[int, ...] | None:
    """The monomial divided by another, None where it has not all of its atoms."""
    left = list(monomial)
    for atom in part:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)
