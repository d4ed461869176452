"""Which states of a pool its kernels read and write where they lie, in the streams' rows; the others are copied to the tile's room and back.

A state can stay where it is if one call of a built-in cell alone starts from it, and leaves what it becomes: h from h and c from c, or, of a state that several layers
share, one call for each part. The call's pointers then go to the first stream's row, and `state_rows` says how far behind it each row of the batch lies
(kernels/contract.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastrnn.model.sizes import Whole, same
from fastrnn.plan.lowering.memory import View
from fastrnn.plan.program import Kept, KernelStep, Program

PAIRS = {"h0": "hn", "c0": "cn"}  # where a call starts, and what it leaves
Place = tuple[int, int, int]  # of a state in a stream's row: offset, outer, inner; in a batch it is `outer` arrays of `inner` bytes a row


@dataclass(frozen=True)
class _Start:
    """Where a call starts from a state: its step, h0 or c0, and how many bytes into the state's row."""

    step: int
    field: str
    offset: int


def in_place(program: Program, places: Mapping[str, Place]) -> tuple[Program, tuple[int, ...], set[str]]:
    """The program with such states in rows of the pool, the steps that take them there, and the states' names."""
    steps = [step for step in program.steps if isinstance(step, KernelStep)]
    if len(steps) < len(program.steps):  # a call may not be done, or fail
        return program, (), set()
    slots = {slot.name: k for k, slot in enumerate(program.inputs)}
    starts = {kept.input: _starts(program, steps, kept, slots[kept.input], places[kept.input]) for kept in program.states}
    starts = _whole_calls(steps, {name: found for name, found in starts.items() if found})
    for name, found in starts.items():
        for start in found:
            call = steps[start.step]
            row = View("slot", (), (), call.pointers[start.field].dtype, slots[name], start.offset)
            steps[start.step] = replace(call, pointers={**call.pointers, start.field: row, PAIRS[start.field]: row})
    return replace(program, steps=tuple(steps)), tuple(sorted({start.step for found in starts.values() for start in found})), set(starts)


def _starts(program: Program, steps: Sequence[KernelStep], kept: Kept, slot: int, place: Place) -> list[_Start]:
    """One for each of its arrays; empty where it has to be copied."""
    _, outer, inner = place
    uses = [(k, field, view) for k, step in enumerate(steps) for field, view in step.pointers.items()]
    read = [use for use in uses if use[2].space == "slot" and use[2].index == slot]
    made = [use for use in uses if use[2].space == "work" and _same_memory(use[2], kept.following)]
    elsewhere = any(_same_memory(other.following, kept.following) for other in program.states if other is not kept)
    if len(read) != outer or len(made) != outer or elsewhere or kept.following.dtype != "float32":
        return []
    found = []
    for part in range(outer):
        start = [(k, field) for k, field, view in read if field in PAIRS and _is_part(view.offset, kept.following, part, outer)]
        end = [(k, field) for k, field, view in made if _is_part(view.offset - kept.following.offset, kept.following, part, outer)]
        if len(start) != 1 or end != [(start[0][0], PAIRS[start[0][1]])] or not _takes_rows(steps[start[0][0]], start[0][1], inner):
            return []
        found.append(_Start(*start[0], part * inner))
    return found


def _same_memory(a: View, b: View) -> bool:
    return (a.space, a.index) == (b.space, b.index) and a.space != "weight"


def _is_part(offset: Whole, whole: View, part: int, parts: int) -> bool:
    return same(offset * parts, whole.nbytes * part)


def _takes_rows(step: KernelStep, field: str, inner: int) -> bool:
    """Whether a call of a built-in cell has rows of so many bytes there."""
    units = step.args["H" if field == "c0" else "P"]
    return step.kernel.backend == "native" and step.kernel.key.role in ("recurrent", "general") and isinstance(units, int) and inner == 4 * units


def _whole_calls(steps: Sequence[KernelStep], starts: dict[str, list[_Start]]) -> dict[str, list[_Start]]:
    """Without states of calls that have another one elsewhere: a call has both in the rows, or none."""
    there = {(start.step, field) for found in starts.values() for start in found for field in (start.field, PAIRS[start.field])}
    half = {
        start.step
        for found in starts.values()
        for start in found
        if any((start.step, field) not in there for pair in PAIRS.items() for field in pair if field in steps[start.step].pointers)
    }
    left = {name: found for name, found in starts.items() if not any(start.step in half for start in found)}
    return left if len(left) == len(starts) else _whole_calls(steps, left)
