"""What is compiled: a cell's instructions, and sizes; which names where a kernel is kept."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

from fastrnn.cells.spec import Cell
from fastrnn.cells.trace import Program


@dataclass(frozen=True)
class Gate:
    """A gate by what the kernel needs: its name and what its two chains read."""

    name: str
    over_x: bool
    over_h: bool
    second: bool


@dataclass(frozen=True)
class Recipe:
    """A kernel to be compiled, and nothing that does not change its code.

    lanes, registers: of the instruction set. H_tail, P_tail: units of the last block, 0 if it is whole. projected: with a matrix from H to P.
    All other sizes are read at run time: compiled in, they gained nothing (LSTM 1 -> 16, 40 -> 64, 1 to 32 rows: 0.97 to 1.03 of the time).
    """

    gates: tuple[Gate, ...]
    states: tuple[str, ...]
    parameters: tuple[str, ...]
    scalars: tuple[str, ...]
    pointwise: Program
    operand: Program | None
    lanes: int
    registers: int
    H_tail: int
    P_tail: int
    projected: bool

    def __str__(self) -> str:
        return "\n".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))

    @property
    def x_slots(self) -> list[int]:
        """The accumulators, by gate, that the panel over x adds to."""
        return [k for k, g in enumerate(self.gates) if g.over_x]

    @property
    def h_slots(self) -> list[int]:
        """Those that the panel over h adds to."""
        return [k for k, g in enumerate(self.gates) if g.over_h and not g.second]

    @property
    def second_slots(self) -> list[int]:
        """Those of the second phase."""
        return [k for k, g in enumerate(self.gates) if g.second]

    @property
    def tails(self) -> bool:
        """Whether two gates share a vector in the last block."""
        return 0 < self.H_tail <= self.lanes // 2 and max(map(len, (self.x_slots, self.h_slots, self.second_slots))) > 1

    @cached_property
    def needed(self) -> frozenset[str]:
        """The inputs that pointwise reads."""
        return _read(self.pointwise)

    @cached_property
    def needed_by_operand(self) -> frozenset[str]:
        """Those that operand reads."""
        return _read(self.operand)

    @property
    def saved(self) -> list[int]:
        """What a first phase leaves for the second: chains to go on with, gates that pointwise reads."""
        return [k for k, g in enumerate(self.gates) if g.second or g.name in self.needed] if self.operand else []


def _read(program: Program) -> frozenset[str]:
    numbers = {o for operation, *operands in program.instructions if operation != "constant" for o in operands} | set(program.outputs)
    return frozenset(name for k, name in enumerate(program.inputs) if k in numbers)


def recipe_of(cell: Cell, lanes: int, registers: int, units: int, projected: int | None) -> Recipe:
    """The recipe of a cell, traced now, for layers whose last block is as full as with these H units; projected: P, or None without a projection."""
    pointwise, operand = cell.programs()
    gates = tuple(Gate(g.name, "x" in g.sees, "h" in g.sees, g.second) for g in cell.gates)
    return Recipe(
        gates,
        cell.states,
        cell.parameters,
        cell.scalars,
        pointwise,
        operand,
        lanes,
        registers,
        units % lanes,
        (projected or 0) % lanes,
        projected is not None,
    )
