"""A cell's programs, forward and back, as the native loop runs them (native/cell.h): instructions over slots, and where values lie in memory.

A value is loaded from its place when it is first needed, results, and what is kept for the way back (kept.py), are written at the end, and a slot is used again once nobody reads what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastrnn.cells.adjoint import adjoint
from fastrnn.cells.spec import RAW_INPUT, Cell
from fastrnn.cells.trace import Program
from fastrnn.training.kept import Kept, Place, kept_values, read

# As native/train.h numbers them.
PLACES = ("gate", "state", "new", "parameter", "scalar", "input", "operand", "d gate", "d state", "d new", "d parameter", "d scalar", "d input", "d operand")  # fmt: skip
OPERATIONS = ("load", "load_scalar", "store", "add_to", "add_sum", "add", "subtract", "multiply", "divide", "negative", "less", "less_equal", "equal", "not_equal",
              "logical_and", "logical_or", "logical_not", "where", "abs", "sqrt", "relu", "minimum", "maximum", "exp", "tanh", "sigmoid", "log1p_unit")  # fmt: skip
SCALARS = ("scalar", "d scalar")  # one number for all units of a row


@dataclass(frozen=True)
class Code:
    """instructions int32 (n, 5): operation, out, a, b, c, see native/train.h; places int64 (n, 2); constants of the layer's dtype, in the first slots."""

    instructions: np.ndarray
    places: np.ndarray
    constants: np.ndarray
    n_slots: int


@dataclass(frozen=True)
class CellCode:
    """All four of a cell in one dtype; the operand's are None where it has none. columns: gates in the order in which they lie.

    fingerprint: of the cell when it was traced.
    """

    columns: tuple[str, ...]
    pointwise: Code
    operand: Code | None
    pointwise_back: Code
    operand_back: Code | None
    fingerprint: str


def columns_of(cell: Cell) -> tuple[str, ...]:
    """The gates so ordered that those that see x, those that multiply h, and those of the second phase each lie side by side."""

    def rank(gate: Any) -> int:
        return (0 if gate.sees == "h" else 1) if gate.second else ("x", "xh", "h").index(gate.sees) + 2

    return tuple(g.name for g in sorted(cell.gates, key=rank))


def cell_code(cell: Cell, dtype: np.dtype[Any]) -> CellCode:
    """Traces a cell and translates what it computes, and its gradients."""
    pointwise, operand = cell.programs(dtype)
    columns = columns_of(cell)
    place = {gate: ("gate", k) for k, gate in enumerate(columns)} | {RAW_INPUT: ("input", 0)}
    for kind, names in (("state", cell.states), ("parameter", cell.parameters), ("scalar", cell.scalars)):
        place |= {name: (kind, k) for k, name in enumerate(names)}

    given, given_operand = [("d new", k) for k in range(len(cell.states))], [("d operand", 0)]
    wanted, wanted_of_operand = _wanted(pointwise, cell, True), _wanted(operand, cell, False) if operand else []

    def gradients(kept: Kept) -> tuple[Program, Program | None]:
        def of(program: Program, places: list[Place], names: list[str], values: Mapping[int, Place]) -> Program:
            return adjoint(program, [_name(at) for at in places], names, dtype, {number: _name(at) for number, at in values.items()})

        return of(pointwise, given, wanted, kept.pointwise), of(operand, given_operand, wanted_of_operand, kept.operand) if operand else None

    kept = kept_values(pointwise, operand, columns, gradients)
    place |= {_name(at): at for at in (*given, *given_operand, *kept.pointwise.values())}

    def code(program: Program, results: list[tuple[str, Place]]) -> Code:
        return _code(program, [place[name] for name in program.inputs], results, dtype)

    def back(program: Program, names: list[str], first: bool) -> Code:
        """first: gates and states have no gradient yet but h, to whose the matrices of later steps have added."""
        steps = []
        for name in names:
            kind, k = place[name]
            overwrites = first and (kind == "gate" or kind == "state" and k)
            steps.append(("store" if overwrites else "add_sum" if kind == "scalar" else "add_to", (f"d {kind}", k)))
        return code(program, steps)

    leaves = replace(pointwise, outputs=(*pointwise.outputs, *(number for number, _ in kept.stored())))
    after, after_operand = gradients(kept)
    return CellCode(
        columns,
        code(leaves, [("store", ("new", k)) for k in range(len(cell.states))] + [("store", at) for _, at in kept.stored()]),
        code(operand, [("store", ("operand", 0))]) if operand else None,
        back(after, wanted, True),
        back(after_operand, wanted_of_operand, False) if after_operand else None,
        cell.fingerprint,
    )


def _name(at: Place) -> str:
    """Of an input that is read at a place."""
    return f"{at[0]} {at[1]}"


def _wanted(program: Program, cell: Cell, all_gates_and_states: bool) -> list[str]:
    """The inputs whose gradients are wanted: what the program reads, and where the result is to be overwritten, the rest of the gates and states."""
    always = {g.name for g in cell.gates} | set(cell.states[1:]) if all_gates_and_states else set()
    return [name for name in program.inputs if name in read(program) | always]


def _code(program: Program, inputs: list[Place], results: list[tuple[str, Place]], dtype: str) -> Code:
    """A program whose inputs lie at these places, and whose outputs are stored at, or added to, those."""
    n, places, instructions = len(program.inputs), [], []
    bits = [operands[0] for operation, *operands in program.instructions if operation == "constant"]
    constants = np.array(bits, f"u{np.dtype(dtype).itemsize}").view(dtype)
    last_use = {o: at for at, (operation, *operands) in enumerate(program.instructions) if operation != "constant" for o in operands}
    last_use |= dict.fromkeys(program.outputs, len(program.instructions))
    slots: dict[int, int] = {}
    free: list[int] = []
    n_slots = len(constants)

    def place(where: Place) -> int:
        if where not in places:
            places.append(where)
        return places.index(where)

    def new_slot() -> int:
        nonlocal n_slots
        if free:
            return free.pop()
        n_slots += 1
        return n_slots - 1

    def slot(number: int) -> int:
        """Where a value is, loaded if it is an input not met before."""
        if number not in slots:
            slots[number] = new_slot()
            instructions.append(
                (OPERATIONS.index("load_scalar" if inputs[number][0] in SCALARS else "load"), slots[number], 0, place(inputs[number]), 0)
            )
        return slots[number]

    n_constants = 0
    for at, (operation, *operands) in enumerate(program.instructions):
        if operation == "constant":
            slots[n + at], n_constants = n_constants, n_constants + 1
            continue
        read = [slot(o) for o in operands]
        for o in set(operands):
            if last_use[o] == at and slots[o] >= len(constants):
                free.append(slots[o])
        slots[n + at] = new_slot()
        instructions.append((OPERATIONS.index(operation), slots[n + at], *(read + [0, 0, 0])[:3]))
    found = [slot(o) for o in program.outputs]
    for a, (how, to) in zip(found, results, strict=True):
        instructions.append((OPERATIONS.index(how), 0, a, place(to), 0))
    return Code(
        np.array(instructions, np.int32).reshape(-1, 5),
        np.array([(PLACES.index(kind), k) for kind, k in places], np.int64).reshape(-1, 2),
        constants,
        n_slots,
    )
