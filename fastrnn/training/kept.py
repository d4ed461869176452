"""What a forward pass leaves for the way back beside states: results of functions, in the places of gates that nobody reads any more.

Gradients compute a cell's values once more from its inputs (cells/adjoint.py). A sigmoid costs as much as a dozen products, and where gradients need no more of a gate than
sigmoid(gate), that takes its place in memory: nothing more is kept, and less is computed. New states are there anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastrnn.cells.trace import Program

COSTS = {"exp": 12, "tanh": 16, "sigmoid": 16, "log1p_unit": 16, "divide": 8, "sqrt": 8}  # in products
Place = tuple[str, int]


@dataclass(frozen=True)
class Kept:
    """Where values of pointwise, and of operand, lie on the way back, by their numbers."""

    pointwise: Mapping[int, Place]
    operand: Mapping[int, Place]

    def stored(self) -> list[tuple[int, Place]]:
        """Values of pointwise that are written beside its results."""
        return [(number, place) for number, place in self.pointwise.items() if place[0] == "gate"]


def kept_values(
    pointwise: Program, operand: Program | None, columns: tuple[str, ...], back: Callable[[Kept], tuple[Program, Program | None]]
) -> Kept:
    """What is worth keeping. columns: gates in the order in which they lie; back: the gradients of pointwise and operand, given what is kept."""
    meanings: dict[tuple[object, ...], int] = {}
    meant, meant_by_operand = _meanings(pointwise, meanings), _meanings(operand, meanings) if operand else []

    def made(values: Mapping[int, Place]) -> Kept:
        known = {meant[number]: place for number, place in values.items()}
        return Kept(values, {number: known[meaning] for number, meaning in enumerate(meant_by_operand) if meaning in known})

    chosen = made({})
    least = _cost(back(chosen))
    for number, place in _candidates(pointwise, columns):
        if number in chosen.pointwise or place in chosen.pointwise.values():
            continue
        trial = made({**chosen.pointwise, number: place})
        programs = back(trial)
        if place[0] == "gate" and any(columns[place[1]] in read(p) for p in programs if p):
            continue
        if (cost := _cost(programs) + len(trial.stored())) < least:
            chosen, least = trial, cost
    return chosen


def read(program: Program) -> set[str]:
    """The inputs that a program reads."""
    numbers = {o for operation, *operands in program.instructions if operation != "constant" for o in operands} | set(program.outputs)
    return {name for k, name in enumerate(program.inputs) if k in numbers}


def _candidates(program: Program, columns: tuple[str, ...]) -> list[tuple[int, Place]]:
    """Values that could be kept, and where: new states in their own places, what costs most in that of each gate it follows from."""
    n = len(program.inputs)
    follows = [{name} & set(columns) for name in program.inputs]
    for operation, *operands in program.instructions:
        follows.append(set().union(*(follows[o] for o in operands)) if operation != "constant" else set())
    costly = [n + k for k, (operation, *_) in enumerate(program.instructions) if operation in COSTS]
    in_gates = [(number, ("gate", columns.index(gate))) for number in costly for gate in sorted(follows[number], key=columns.index)]
    computed = [(number, ("new", k)) for k, number in enumerate(program.outputs) if number >= n and program.instructions[number - n][0] != "constant"]
    return in_gates + computed


def _meanings(program: Program, known: dict[tuple[object, ...], int]) -> list[int]:
    """A number for each value that stands for how it is computed, the same one in every program."""
    found = [known.setdefault(("input", name), len(known)) for name in program.inputs]
    for operation, *operands in program.instructions:
        found.append(known.setdefault((operation, *(operands if operation == "constant" else (found[o] for o in operands))), len(known)))
    return found


def _cost(programs: tuple[Program | None, ...]) -> int:
    """Instructions and loads, in products."""
    return sum(len(read(p)) + sum(COSTS.get(operation, 1) for operation, *_ in p.instructions if operation != "constant") for p in programs if p)
