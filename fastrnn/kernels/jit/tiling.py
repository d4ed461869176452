"""Which tiles a kernel has: how many blocks and rows fit the registers; the figures behind it stand in native/tiles.h and cell_*.h."""

from __future__ import annotations

from fastrnn.kernels.jit.recipe import Recipe
from fastrnn.kernels.jit.tiles import Shape

MOST_ROWS = 6
SINGLE, TAIL, BESIDE, ONE, PAIR, WIDE = (8 * k for k in range(6))  # sorts of tiles; ONE, PAIR: where one row, two rows are all there are
ROW_WIDTHS = (1, 2, 4, 8)  # blocks of the tiles of one row: what many leave over, few take, so that chains run side by side
KEYS = 48


def _power(n: int) -> int:
    """The largest power of two up to n, at least 1."""
    return 1 << max(n.bit_length() - 1, 0)


class Tiling:
    """Tiles of one kind. one, two, many: most blocks a tile for one row, blocks for two rows, more; rows: the most rows; tails: a narrow last block
    of its own.

    A tile is known by a key: its sort, plus its rows; for ONE, plus the place of its width.
    """

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

    def shapes(self) -> dict[int, Shape]:
        """Every tile that covering may ask for, by key."""
        found = {ONE + k: Shape(width, False, 1) for k, width in enumerate(ROW_WIDTHS) if width <= self.one}
        for rows in range(1, self.rows + 1):
            found[SINGLE + rows], found[WIDE + rows] = Shape(1, False, rows), Shape(self.many, False, rows)
            if rows <= 2:  # two rows may come as two tiles of one
                found[PAIR + rows] = Shape(self.two, False, rows)
            if self.tails:
                found[TAIL + rows] = Shape(0, True, rows)
        if self.tails:
            found[BESIDE + 1] = Shape(1, True, 1)
        return found
