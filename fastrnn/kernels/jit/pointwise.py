"""The pointwise part of a cell for one row and block, emitted as LLVM functions ``void name(args, table, chains, row, block)``.

`chains` are the block's finished pre-activations, a vector a gate. Tiles of few rows inline the call, and the chains never leave registers; tiles of many
rows call it in a loop.
"""

from __future__ import annotations

from llvmlite import ir

from fastrnn.cells.spec import RAW_INPUT
from fastrnn.kernels.jit.functions import performer
from fastrnn.kernels.jit.recipe import Recipe
from fastrnn.kernels.jit.simd import I64, POINTER, Code, Vector, function
from fastrnn.kernels.jit.table import Table

# Whether the block's units fill it: for sure, for sure not, or unless it is the last.
WHOLE, PART, UNLESS_LAST = "whole", "part", "unless_last"


def store_units(code: Code, v: Vector, pointer: ir.Value, block: ir.Value, fills: str, tail: int, blocks) -> None:
    """The units of a block of a row, `tail` of them where it is the last of `blocks` and not whole; nothing is written behind them."""
    first = code.times(block, code.lanes)
    if fills == WHOLE:
        code.store(v, pointer, first)
    elif fills == PART:
        code.store_part(v, pointer, first, tail)
    else:
        last = code.builder.icmp_signed("==", code.plus(block, 1), code.whole(blocks))
        with code.builder.if_else(last) as (part, whole):
            with part:
                code.store_part(v, pointer, first, tail)
            with whole:
                code.store(v, pointer, first)


class Pointwise:
    """One such function, as it is emitted."""

    def __init__(self, recipe: Recipe, fills: str, code: Code, args: ir.Value, table: ir.Value, chains: ir.Value, row: ir.Value, block: ir.Value):
        self.recipe, self.fills, self.code, self.args, self.row, self.block = recipe, fills, code, args, row, block
        self.table, self.chains, self.first = Table(recipe, code, table), chains, code.times(block, recipe.lanes)

    def chain(self, k: int) -> Vector:
        """The k-th of the chains that were given."""
        return self.code.load(self.chains, k * self.code.lanes, True)

    def _units(self, pointer: ir.Value) -> Vector:
        """A row's values for the block's units."""
        code, recipe = self.code, self.recipe
        if self.fills == WHOLE:
            return code.load(pointer, self.first)
        left = recipe.H_tail if self.fills == PART else code.builder.sub(code.field(self.args, "H"), self.first)
        return code.load_part(pointer, self.first, left)

    def _values(self, gates: dict[str, Vector], needed) -> dict[str, Vector]:
        """Everything that a program reads, by name."""
        recipe, code, table, row = self.recipe, self.code, self.table, self.row
        values = dict(gates)
        for k, state in enumerate(recipe.states):
            if state in needed:
                values[state] = self._units(table.row("h" if k == 0 else f"c{k}", row))
        for k, name in enumerate(recipe.parameters):
            if name in needed:
                padded = code.times(table.blocks, code.lanes)
                values[name] = code.load(code.pointer(code.field(self.args, "peephole")), code.plus(code.times(k, padded), self.first), True)
        for k, name in enumerate(recipe.scalars):
            if name in needed:
                values[name] = code.splat(table.row("scalars", row), k)
        if RAW_INPUT in needed:
            values[RAW_INPUT] = self._units(table.row("x", row))
        unread = code.number(0.0)
        return {name: values.get(name, unread) for name in recipe.pointwise.inputs}

    def finish(self, gates: dict[str, Vector]) -> None:
        """The new states."""
        recipe, table = self.recipe, self.table
        for k, new in enumerate(recipe.pointwise.replay(self._values(gates, recipe.needed), performer(self.code))):
            store_units(self.code, new, table.row("out" if k == 0 else f"c{k}", self.row), self.block, self.fills, recipe.H_tail, table.blocks)

    def emit_finish(self) -> None:
        """All gates are there."""
        self.finish({g.name: self.chain(k) for k, g in enumerate(self.recipe.gates)})

    def emit_leave(self) -> None:
        """What a second phase goes on with: its operand, and the gates that it needs."""
        recipe, code = self.recipe, self.code
        gates = {g.name: self.chain(k) for k, g in enumerate(recipe.gates)}
        (operand,) = recipe.operand.replay(self._values(gates, recipe.needed_by_operand), performer(code))
        code.store(operand, self.table.padded_row("u", self.row), self.first, True)
        for k, slot in enumerate(recipe.saved):
            code.store(self.chain(slot), self.table.saved_row(self.row, k), self.first, True)

    def emit_finish_second(self) -> None:
        """The second phase's gates are given, the others were left by the first."""
        recipe, slots = self.recipe, self.recipe.second_slots
        gates = {recipe.gates[slot].name: self.code.load(self.table.saved_row(self.row, k), self.first, True) for k, slot in enumerate(recipe.saved)}
        self.finish(gates | {recipe.gates[slot].name: self.chain(k) for k, slot in enumerate(slots)})


def emit(module: ir.Module, recipe: Recipe, what: str, fills: str) -> ir.Function:
    """The function `finish`, `leave` or `finish_second` in a module; made when first asked for."""
    name = f"{what}.{fills}"
    if name not in module.globals:
        made, builder = function(module, name, ir.VoidType(), [POINTER, POINTER, POINTER, I64, I64])
        getattr(Pointwise(recipe, fills, Code(builder, recipe.lanes), *made.args), f"emit_{what}")()
        builder.ret_void()
    return module.globals[name]
