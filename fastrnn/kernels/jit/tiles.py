"""Register tiles of a recurrent cell, emitted as LLVM functions ``void tile(args, table, block, row)``.

The affine driver of native/products/affine.h and recurrence.h, for any cell: panels [unit block][k][gate][lane], all gates of the same units in
registers, one chain of fused multiply-adds an accumulator - bias, then x, then h, k ascending - and the pointwise part behind it. In a narrow last
block two gates share a vector. Four kinds of tiles: projections of a chunk of steps, a step, a second phase, a projection to P.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from fastrnn.kernels.jit import pointwise
from fastrnn.kernels.jit.pointwise import PART, UNLESS_LAST, WHOLE, store_units
from fastrnn.kernels.jit.recipe import Recipe
from fastrnn.kernels.jit.simd import I64, POINTER, Code, function
from fastrnn.kernels.jit.table import Table

KINDS = ("project", "step", "second", "shrink")
# Tiles of at most so many rows have the pointwise part in them.
INLINED_ROWS = 2


@dataclass(frozen=True)
class Shape:
    """Whole blocks, a narrow block behind them or not, and rows of a tile."""

    blocks: int
    tail: bool
    rows: int


class Tile:
    """One tile's function, as it is emitted."""

    def __init__(self, recipe: Recipe, shape: Shape, code: Code, args: ir.Value, table: ir.Value, block: ir.Value, row: ir.Value):
        self.recipe, self.shape, self.code, self.args = recipe, shape, code, args
        self.table, self.block, self.row = Table(recipe, code, table), block, row
        self.L = recipe.lanes
        self.accumulators: dict[tuple, object] = {}

    def each(self):
        """Blocks of the tile; the narrow one last."""
        return range(self.shape.blocks + self.shape.tail)

    def is_tail(self, b: int) -> bool:
        """Whether that is the narrow one."""
        return b == self.shape.blocks

    def accumulator(self, b: int, slot, r: int):
        """The register of a block's slot, a gate or a pair of gates, for a row."""
        key = b, slot, r
        if key not in self.accumulators:
            self.accumulators[key] = self.code.variable()
        return self.accumulators[key]

    def field_pointer(self, name: str) -> ir.Value:
        """A pointer of the argument struct."""
        return self.code.pointer(self.code.field(self.args, name))

    def rows_of(self, name: str) -> list[ir.Value]:
        """The tile's rows of a table of row pointers."""
        return [self.table.row(name, self.code.plus(self.row, r)) for r in range(self.shape.rows)]

    def _vectors(self, slots: list[int], b: int) -> list:
        """The accumulators that a panel's vectors add to: its gates', or, narrow, pairs of them."""
        if not self.is_tail(b):
            return slots
        return [tuple(slots[k : k + 2]) if k + 1 < len(slots) else slots[k] for k in range(0, len(slots), 2)]

    def _join(self, slots: list[int]) -> None:
        """Two gates to a vector, in a narrow block."""
        for b, r in ((b, r) for b in self.each() if self.is_tail(b) for r in range(self.shape.rows)):
            for pair in (v for v in self._vectors(slots, b) if isinstance(v, tuple)):
                low, high = (self.accumulator(b, slot, r).value for slot in pair)
                self.accumulator(b, pair, r).value = low.halves(high)

    def _part(self, slots: list[int]) -> None:
        """And apart again."""
        for b, r in ((b, r) for b in self.each() if self.is_tail(b) for r in range(self.shape.rows)):
            for pair in (v for v in self._vectors(slots, b) if isinstance(v, tuple)):
                both = self.accumulator(b, pair, r).value
                self.accumulator(b, pair[0], r).value, self.accumulator(b, pair[1], r).value = both, both.high()

    def start(self, slots: list[int]) -> None:
        """Accumulators at the bias, which lies [unit block][gate][lane]."""
        bias, n = self.field_pointer("bias"), len(self.recipe.gates)
        for b in self.each():
            for slot in slots:
                value = self.code.load(bias, self.code.times(self.code.plus(self.code.times(self.code.plus(self.block, b), n), slot), self.L), True)
                for r in range(self.shape.rows):
                    self.accumulator(b, slot, r).value = value

    def chain(self, panel: ir.Value, K, slots: list[int], rows: list[ir.Value]) -> None:
        """accumulators += W x, one k after the other."""
        code, G, L = self.code, len(slots), self.L
        stride = code.times(K, G * L)
        base = code.at(panel, code.times(self.block, stride))
        starts = [code.at(base, code.times(b, stride)) for b in self.each()]
        self._join(slots)
        with code.builder.if_then(code.builder.icmp_signed(">", K, I64(0)), likely=True), code.loop(K) as k:  # a layer of no features is legal
            x = [code.splat(row, k) for row in rows]
            for b in self.each():
                vectors = self._vectors(slots, b)
                for g, slot in enumerate(vectors):
                    weight = code.load(starts[b], code.plus(code.times(k, len(vectors) * L), g * L), True)
                    for r in range(self.shape.rows):
                        a = self.accumulator(b, slot, r)
                        a.value = weight.fma(x[r], a.value)
        self._part(slots)

    def finish(self, what: str, slots: list[int]) -> None:
        """The pointwise function `what` for every row and block, on these accumulators."""
        code, R, n = self.code, self.shape.rows, len(slots)
        memory, size = code.scratch(R * n * len(self.each())), n * self.L
        for b in self.each():
            for r in range(R):
                for k, slot in enumerate(slots):
                    code.store(self.accumulator(b, slot, r).value, memory, (b * R + r) * size + k * self.L, True)

        def call(b: int, r, attributes=()) -> None:
            fills = (PART if self.is_tail(b) else WHOLE) if self.recipe.tails else UNLESS_LAST if self.recipe.H_tail else WHOLE
            chains = code.at(memory, code.times(code.plus(r, b * R), size))
            code.builder.call(
                pointwise.emit(code.builder.module, self.recipe, what, fills),
                [self.args, self.table.pointer, chains, code.plus(self.row, r), code.plus(self.block, code.whole(b))],
                attrs=attributes,
            )

        if R <= INLINED_ROWS:
            for b in self.each():
                for r in range(R):
                    call(b, r, ("alwaysinline",))
        else:
            with code.loop(R) as r:
                for b in self.each():
                    call(b, r, ("noinline",))

    def emit_project(self) -> None:
        """Projections of steps that serve as rows, kept as [row][unit block][vector][lane]."""
        recipe, code = self.recipe, self.code
        slots, G = recipe.x_slots, len(recipe.x_slots)
        self.start(slots)
        self.chain(self.field_pointer("w_x"), self.code.field(self.args, "I"), slots, self.rows_of("project_x"))
        projected = self.table.base("projected")
        for b in self.each():
            for r in range(self.shape.rows):
                at = code.times(code.plus(code.times(code.plus(self.row, r), self.table.blocks), code.plus(self.block, b)), G * self.L)
                for g, slot in enumerate(self._vectors(slots, b)):
                    code.store(self.accumulator(b, slot, r).value, projected, code.plus(at, g * self.L), True)

    def _over_x(self) -> None:
        """The chains over x, or where they were done ahead."""
        code, slots = self.code, self.recipe.x_slots
        hoisted = code.builder.icmp_signed("!=", code.field(self.args, "chunk"), I64(0))
        with code.builder.if_else(hoisted) as (then, other):
            with then:
                for r, pre in enumerate(self.rows_of("pre")):
                    for b in self.each():
                        at = code.times(code.plus(self.block, b), len(slots) * self.L)
                        for g, slot in enumerate(self._vectors(slots, b)):
                            self.accumulator(b, slot, r).value = code.load(pre, code.plus(at, g * self.L), True)
                self._part(slots)
            with other:
                self.chain(self.field_pointer("w_x"), self.code.field(self.args, "I"), slots, self.rows_of("x"))

    def emit_step(self) -> None:
        """A step: pre-activations and, behind them, the new states, or what a second phase goes on with."""
        recipe = self.recipe
        everything = list(range(len(recipe.gates)))
        self.start(everything)
        if recipe.x_slots:
            self._over_x()
        if recipe.h_slots:
            self.chain(self.field_pointer("w_h"), self.code.field(self.args, "P"), recipe.h_slots, self.rows_of("h"))
        self.finish("leave" if recipe.operand else "finish", everything)

    def emit_second(self) -> None:
        """The second phase: its chains over the operand, and the new states."""
        recipe, code, slots = self.recipe, self.code, self.recipe.second_slots
        for r in range(self.shape.rows):
            for b in self.each():
                for slot in slots:
                    start = self.table.saved_row(code.plus(self.row, r), recipe.saved.index(slot))
                    self.accumulator(b, slot, r).value = code.load(start, code.times(code.plus(self.block, b), self.L), True)
        rows = [self.table.padded_row("u", code.plus(self.row, r)) for r in range(self.shape.rows)]
        self.chain(self.field_pointer("w_u"), self.code.field(self.args, "H"), slots, rows)
        self.finish("finish_second", slots)

    def emit_shrink(self) -> None:
        """h = W hidden, to P units."""
        code, recipe = self.code, self.recipe
        for b in self.each():
            for r in range(self.shape.rows):
                self.accumulator(b, 0, r).value = code.number(0.0)
        self.chain(self.field_pointer("w_p"), self.code.field(self.args, "H"), [0], self.rows_of("out"))
        for r, y in enumerate(self.rows_of("y")):
            for b in self.each():
                store_units(
                    code,
                    self.accumulator(b, 0, r).value,
                    y,
                    code.plus(self.block, b),
                    UNLESS_LAST if recipe.P_tail else WHOLE,
                    recipe.P_tail,
                    self.table.word("projected_blocks"),
                )


def emit(module: ir.Module, recipe: Recipe, kind: str, shape: Shape) -> ir.Function:
    """The tile's function in a module; made when first asked for. Not inlined, so that each has the registers to itself."""
    name = f"{kind}.{shape.blocks}.{int(shape.tail)}.{shape.rows}"
    if name not in module.globals:
        made, builder = function(module, name, ir.VoidType(), [POINTER, POINTER, I64, I64], "noinline")
        getattr(Tile(recipe, shape, Code(builder, recipe.lanes), *made.args), f"emit_{kind}")()
        builder.ret_void()
    return module.globals[name]
