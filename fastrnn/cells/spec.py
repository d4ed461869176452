"""The description of a cell that every backend runs from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastrnn.cells.activations import Activation
from fastrnn.cells.trace import Program, trace
from fastrnn.errors import UnsupportedModelError

if TYPE_CHECKING:
    from fastrnn.typing import DTypeLike, Operand, Outputs

RAW_INPUT = "x"  # the argument that is the layer's own input, unit for unit
MOST_STATES = 5
MOST_GATES = 8


@dataclass(frozen=True)
class Gate:
    """One pre-activation of a cell: ``bias + W x + R h`` over what it sees.

    sees: "xh", "x" or "h". second: its recurrent part multiplies the cell's operand instead of h, after
    all first-phase gates are known (the reset-before GRU). bias: whether it has one, on each side that it sees.
    """

    name: str
    sees: str = "xh"
    second: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        if self.sees not in ("xh", "x", "h"):
            raise UnsupportedModelError(f"gate {self.name!r}: sees must be 'xh', 'x' or 'h', got {self.sees!r}")
        if not isinstance(self.second, bool) or not isinstance(self.bias, bool):
            raise UnsupportedModelError(f"gate {self.name!r}: second and bias must be True or False, got {self.second!r} and {self.bias!r}")
        if self.second and "h" not in self.sees:
            raise UnsupportedModelError(f"gate {self.name!r}: a second phase replaces h, which this gate does not see")


@dataclass(frozen=True)
class Cell:
    """A recurrent cell, independent of sizes.

    name      : the compiled kernel family that runs it, or the name that a custom cell is registered under
    gates     : in declared order; state dicts stack those that see x in weight_ih and those that see h in weight_hh
    states    : names; the first is the output
    pointwise : a function of any of the gates, states, parameters, scalars and "x", by argument name, that returns the new states; elementwise
                on arrays (B, H). Products and sums stand as written, so that compiled forms round alike
    operand   : the same, of first-phase gates: the operand (B, H) of second-phase gates
    parameters: per-unit vectors (H,), e.g. peepholes: weight_NAME_l0 in a state dict
    scalars   : numbers that come with every step of a row, e.g. the time since the last one
    activations, clip, input_forget, default: what a native kernel needs to know of what pointwise closed over
    custom    : not one of the built-in cells, which have native kernels
    """

    name: str
    gates: tuple[Gate, ...]
    states: tuple[str, ...]
    pointwise: Callable[..., Any]
    operand: Callable[..., Any] | None = None
    parameters: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    activations: tuple[Activation, ...] = ()
    clip: float | None = None
    input_forget: bool = False
    default: bool = True
    custom: bool = False

    @cached_property
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

    def biased(self, side: str) -> tuple[str, ...]:
        """Gates stacked in bias_ih (side "x") or bias_hh ("h")."""
        return tuple(g.name for g in self.gates if side in g.sees and g.bias)

    @cached_property
    def _arguments(self) -> dict[Callable[..., Any], list[str]]:
        from inspect import signature

        return {f: [n for n in signature(f).parameters if n in self.values] for f in (self.pointwise, self.operand) if f}

    @property
    def values(self) -> tuple[str, ...]:
        """Every name that its functions may take as an argument."""
        return (*(g.name for g in self.gates), *self.states, *self.parameters, *self.scalars, RAW_INPUT)

    @cached_property
    def uses_input(self) -> bool:
        """Whether x itself enters the pointwise part, so that I = H."""
        return any(RAW_INPUT in names for names in self._arguments.values())

    @property
    def projectable(self) -> bool:
        """Whether h can have another size than the units: it does not enter the pointwise part, nor does an operand of H units stand in for it."""
        return not self.operand and not any(self.states[0] in names for names in self._arguments.values())

    def new_states(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The new states from every value by name."""
        result = self.pointwise(**{name: values[name] for name in self._arguments[self.pointwise]})
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)

    def second_operand(self, values: Mapping[str, Any]) -> Any:
        """The operand of second-phase gates from every value of the first phase by name."""
        assert self.operand is not None, "only second-phase gates ask for it"
        return self.operand(**{name: values[name] for name in self._arguments[self.operand]})

    def programs(self, dtype: DTypeLike = "float32") -> tuple[Program, Program | None]:
        """What pointwise and operand compute now, as instructions with constants of a dtype. UnsupportedModelError names a line that cannot be compiled."""
        where = f"cell {self.name!r}"
        pointwise = trace(self.pointwise, self.values, self._arguments[self.pointwise], len(self.states), where, dtype)
        return pointwise, trace(self.operand, self.values, self._arguments[self.operand], 1, f"{where}, operand", dtype) if self.operand else None

    @property
    def fingerprint(self) -> str:
        """Names what the cell computes: gates, states and instructions, whatever its code looks like."""
        from hashlib import sha256

        said = (self.gates, self.states, self.parameters, self.scalars, *map(str, self.programs()))
        return sha256(repr(said).encode()).hexdigest()[:32]

    def __reduce__(self) -> str | tuple[Any, ...]:
        """A custom cell travels by name: its function is found where it is defined."""
        if not self.custom:
            return super().__reduce__()
        from fastrnn.cells.custom import imported_cell

        return imported_cell, (self.pointwise.__module__, self.name, self.fingerprint)

    def __call__(self, *arguments: Operand, **named: Operand) -> Outputs:
        """The pointwise function itself, on arrays."""
        result: Outputs = self.pointwise(*arguments, **named)
        return result
