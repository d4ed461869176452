"""Sizes as the executor evaluates them: each a value among others, made of constants, of the free dimensions and of values before it.

formulas   (operation, a, b) of every value; runtime/executor/resize.h runs them in order
constants  what values are that no dimension changes
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastrnn.model.sizes import Guard, Size, Whole

# In the order of runtime/executor/resize.h.
CODES = {name: code for code, name in enumerate(("constant", "dimension", "add", "multiply", "quotient", "remainder", "minimum", "maximum", "less"))}


class Formulas:
    """Values by number, each Size one; dimensions come first, in the order given."""

    def __init__(self, dimensions: Iterable[Size]):
        self._rows: list[tuple[int, int, int]] = []
        self._constants: list[int] = []
        self._numbers: dict[tuple, int] = {}
        self._atoms: dict[int, int] = {}
        for size in dimensions:
            (monomial,) = size.terms
            self._atoms[monomial[0]] = self._add(("dimension", monomial[0], 0), size.value)

    def __len__(self) -> int:
        return len(self._rows)

    def number(self, size: Whole) -> int:
        """The number of the value that a size is."""
        if not isinstance(size, Size):
            return self._add(("constant", int(size), 0), int(size))
        total = None
        for monomial, factor in size.key():
            part = None if factor == 1 and monomial else self.number(factor)
            for atom in monomial:
                part = self._combined("multiply", part, self._atom(size, atom))
            total = self._combined("add", total, part)
        return total

    def guard(self, guard: Guard) -> tuple[int, int, int]:
        """(value, whether it is about zero, what holds), as fr_guard has it."""
        return self.number(guard.size), int(guard.relation == "zero"), int(guard.holds)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """formulas (n, 3) int32 and first values (n,) int64."""
        return np.array(self._rows, np.int32).reshape(-1, 3), np.array(self._constants, np.int64)

    def _atom(self, size: Size, index: int) -> int:
        if index not in self._atoms:
            atom = size.scope.atoms[index]
            self._atoms[index] = self._combined(atom.operation, *map(self.number, atom.operands))
        return self._atoms[index]

    def _combined(self, operation: str, a: int | None, b: int | None) -> int:
        if a is None or b is None:
            return b if a is None else a
        return self._add((operation, a, b), 0)

    def _add(self, key: tuple, value: int) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._rows)
            self._rows.append((CODES[key[0]], *(key[1:] if key[0] not in ("constant", "dimension") else (0, 0))))
            self._constants.append(value)
        return self._numbers[key]
