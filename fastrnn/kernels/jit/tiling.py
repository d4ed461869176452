"""Which tiles a kernel has: how many blocks and rows fit the registers; the figures behind it stand in native/products/tiles.h and cell_*.h."""

from __future__ import annotations

from collections.abc import Iterator

from fastrnn.kernels.jit._driver import LEVELS, MOST_ROWS
from fastrnn.kernels.jit.recipe import Recipe
from fastrnn.kernels.jit.tiles import Shape

COUNTS = (1, 2, MOST_ROWS)  # few rows leave registers, and the latency of the multiply-add, to fill


def _power(n: int) -> int:
    """The largest power of two up to n, at least 1."""
    return 1 << max(n.bit_length() - 1, 0)


class Tiling:
    """Tiles of one kind. one, two, many: most blocks a tile for one row, blocks for two rows, more; rows: the most rows; tails: a narrow last block
    of its own."""

    def __init__(self, recipe: Recipe, kind: str):
        gates = {"project": len(recipe.x_slots), "step": len(recipe.gates), "second": len(recipe.second_slots), "shrink": 1}[kind]
        many_registers = recipe.registers >= 32
        if kind in ("second", "shrink"):
            self.one, self.two, self.many = (_power(max(4 // gates, 1)), _power(max(4 // gates, 1)), _power(max(2 // gates, 1)))
        else:  # eight chains hide the latency of a multiply-add
            self.one, self.many = _power(max(8 // gates, 1)), _power(max(4 // gates, 1))
            self.two = min(4, self.one) if many_registers else _power(max(4 // gates, 1))
        room = 24 if many_registers else 12  # registers for accumulators, beside weights and inputs
        self.rows = max(1, min(MOST_ROWS if many_registers else 3, room // (gates * self.many)))
        self.tails = recipe.tails and kind != "shrink"

    def words(self) -> Iterator[int | Shape]:
        """What the driver reads of this kind, fr_kind by fr_kind (driver.h); for a tile its shape, for one that is never asked for 0.

        One row's blocks left over are taken by halves, so that chains run side by side; others' one by one.
        """
        of_one = [1 << k for k in reversed(range(LEVELS)) if 1 << k <= self.one]
        for count, widths in zip(COUNTS, (of_one, sorted({self.two, 1})[::-1], sorted({self.many, 1})[::-1])):
            beside = self.tails and count == 1
            levels = [
                *((width, False) for width in widths),
                *[None] * (LEVELS - len(widths)),
                (0, True) if self.tails else None,
                (1, True) if beside else None,
            ]
            yield from (self.tails + beside, self.rows, *widths, *[0] * (LEVELS - len(widths)))
            for level in levels:
                yield from (Shape(*level, rows) if level and 0 < rows <= min(count, self.rows) else 0 for rows in range(MOST_ROWS + 1))
