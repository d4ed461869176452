"""The description of a cell that every backend runs from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastrnn.cells.activations import Activation


@dataclass(frozen=True)
class Gate:
    """One pre-activation of a cell: ``bias + W x + R h`` over what it sees.

    sees: "xh", "x" or "h". second: its recurrent part multiplies the cell's operand instead of h, after
    all first-phase gates are known (the reset-before GRU).
    """

    name: str
    sees: str = "xh"
    second: bool = False


@dataclass(frozen=True)
class Cell:
    """A recurrent cell, independent of sizes.

    name      : the compiled kernel family that runs it
    gates     : in declared order; state dicts stack those that see x in weight_ih and those that see h in weight_hh
    states    : names; the first is the output
    pointwise : (gates..., states..., parameters) -> new states, elementwise on arrays (B, H); products and sums stand as
                written, so that compiled forms round alike
    operand   : (first-phase gates..., states...) -> the operand (B, H) of second-phase gates
    parameters: per-unit vectors (H,) that pointwise receives as a tuple, e.g. peepholes
    activations, clip, options: what a compiled kernel needs to know of what pointwise closed over
    """

    name: str
    gates: tuple[Gate, ...]
    states: tuple[str, ...]
    pointwise: Callable
    operand: Callable | None = None
    parameters: tuple[str, ...] = ()
    activations: tuple[Activation, ...] = ()
    clip: float | None = None
    input_forget: bool = False
    default: bool = True

    @property
    def x_gates(self) -> tuple[str, ...]:
        """Gates stacked in weight_ih."""
        return tuple(g.name for g in self.gates if "x" in g.sees)

    @property
    def h_gates(self) -> tuple[str, ...]:
        """Gates stacked in weight_hh."""
        return tuple(g.name for g in self.gates if "h" in g.sees)

    @property
    def first_gates(self) -> tuple[str, ...]:
        """Gates whose recurrent part multiplies h."""
        return tuple(g.name for g in self.gates if "h" in g.sees and not g.second)

    @property
    def second_gates(self) -> tuple[str, ...]:
        """Gates whose recurrent part multiplies the operand."""
        return tuple(g.name for g in self.gates if g.second)
