"""Which programs step a pool's streams: so many rows at once, where rows are apart, else one.

A batch of a model is one stream beside others only if no op mixes its rows. That holds for what users stream, but a graph may take a mean over its
batch, or ask of the whole batch which branch to run. So a pool looks for branches that data decide, and steps a few drawn streams together and alone: unless all
bits agree, its tiles are of one row, which is what a Stream of batch 1 does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastrnn.errors import FastRNNError, NotStreamableError
from fastrnn.model import Value
from fastrnn.model.graph import every_node
from fastrnn.model.ops.control import Repetition
from fastrnn.model.ops.registry import ANY_DIM
from fastrnn.plan.program import CheckStep, JumpStep, Program, PythonStep, Slot
from fastrnn.runtime.pools._pool import SHARED_SLOT, Tile, Tiles
from fastrnn.runtime.forms import Form, Forms
from fastrnn.runtime.states import StateRows
from fastrnn.runtime.stream import Stream

# Rows of a tile, at most. Silero and LSTM(40, 64) of 16, 32, 64 and 128 rows: see benchmarks/pool.py.
MOST_ROWS = 32
# Up to so many rows have tiles of their own, so that a call of other rows than the one before costs no change of sizes (GRU(1, 16), 1 to 7 rows: 0.6 us of 1.9).
OWN_ROWS = 8
DRAWN_STEPS = 3


@dataclass(frozen=True)
class Axes:
    """Where rows stand in each input and output of a step, and whether that axis is the pool's own: the model has none for them."""

    of: Mapping[str, int]
    added: frozenset[str]


class RowInput(NamedTuple):
    """An input of a step, for one stream: shape without the axis of rows, which stands at `axis`; None where all rows share the array. low, high: of
    integers that are indices or lengths, None for any."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    axis: int | None
    low: int | None
    high: int | None


class Tiling(Tiles):
    """The programs of a step, or of chunks, by number of rows; made when they are first wanted. values: of inputs that steer."""

    def __init__(self, most: int, threads: int, forms: Forms, sizes: Mapping[str, int], values: Mapping[str, np.ndarray], axes: Axes, rows: StateRows, block: np.ndarray,
                 chunk: bool = False):
        self._forms, self._sizes, self._values, self._axes, self._rows, self._block, self._chunk = forms, sizes, values, axes, rows, block, chunk
        self._tiles: dict[tuple[int, int], list[Tile]] = {}
        self._programs: list[object] = []
        form = forms.of(most)
        inputs, outputs = [v.name for v in form.steppable.inputs], list(form.steppable.outputs)
        self._places = {name: k for k, name in enumerate(inputs)} | {name: k for k, name in enumerate(outputs)}
        program = form.program(self._of(form, most, 1), values, squeeze=not chunk).program
        slots = {slot.name: slot for slot in (*program.inputs, *program.outputs)}
        slots |= {v.name: _unread(form, v) for v in form.steppable.inputs if v.name not in slots}
        self._describe([self._field(form, slots[name], most) for name in inputs], [self._field(form, slots[name], most) for name in outputs], bool(values))

    def _of(self, form: Form, rows: int, steps: int) -> dict[str, int]:
        sizes = dict(self._sizes)
        if isinstance(form.steppable.batch, str):
            sizes[form.steppable.batch] = rows
        return sizes | {form.steppable.time: steps} if form.timed else sizes

    def _field(self, form: Form, slot: Slot, rows: int) -> tuple:
        """How the caller's array of a slot is checked."""
        shape = list(form.dims(slot.shape, self._of(form, rows, 1)))
        axis = self._axes.of.get(slot.name, SHARED_SLOT)
        if axis >= 0 and self._chunk:
            axis += 1
        if slot.name in self._axes.added:
            shape.insert(axis, 1)
        return slot.name, slot.dtype, tuple(shape), axis, 0 if self._chunk else SHARED_SLOT, slot.low is not None

    def _find(self, rows: int, steps: int) -> list[Tile]:
        form = self._forms.of(rows)
        sizes = self._of(form, rows, steps or 1)
        runners = form.program(sizes, self._values, squeeze=not self._chunk)
        key = id(runners), rows if rows <= OWN_ROWS and not self._chunk else 0
        if key not in self._tiles:
            self._programs.append(runners)
            self._tiles[key] = [self._tile(form, runners.program, sizes) for _ in range(self.threads + (not key[1]))]
        return self._tiles[key]

    def _tile(self, form: Form, program: Program, sizes: Mapping[str, int]) -> Tile:
        slots = (*program.inputs, *program.outputs)
        axes = [self._axes.of.get(slot.name, SHARED_SLOT) for slot in slots]
        axes = [axis + 1 if self._chunk and axis >= 0 else axis for axis in axes]
        states = [self._rows.place(kept.input) for kept in program.states]
        return Tile(program, sizes, form.steppable.batch, form.steppable.time, axes, [self._places.get(slot.name, 0) for slot in slots], states, self._block,
                    not any(isinstance(step, PythonStep | CheckStep) for step in program.steps))

    @cached_property
    def row_inputs(self) -> tuple[RowInput, ...]:
        """What a step takes of one stream."""
        form = self._forms.of(1)
        sizes = self._of(form, 1, 1)
        slots = {slot.name: slot for slot in form.program(sizes, self._values, squeeze=True).program.inputs}
        found = []
        for v in form.steppable.inputs:
            slot = slots.get(v.name) or _unread(form, v)
            _, dtype, shape, axis, _, _ = self._field(form, slot, 1)
            low, high = (None, None) if slot.low is None else form.dims((slot.low, slot.high), sizes)
            found.append(RowInput(v.name, dtype, shape if axis < 0 else shape[:axis] + shape[axis + 1:], None if axis < 0 else axis, low, high))
        return tuple(found)

    @property
    def output_axes(self) -> tuple[int, ...]:
        """Where rows stand in each output of a step."""
        return tuple(self._axes.of[name] for name in self.output_names)

    def without_padding(self, name: str, a: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """A chunk's integers with zeros past each row's length: what stands there is no index."""
        axis = self._axes.of.get(name, SHARED_SLOT) + 1
        if a.dtype.kind not in "iu" or axis < 1 or a.ndim <= axis or a.shape[axis] != len(lengths):
            return a
        a = a.copy()
        np.moveaxis(a, axis, 1)[np.arange(len(a))[:, None] >= lengths] = 0
        return a

    def steered_by(self, x) -> bool:
        """Whether a call's inputs hold what the programs are for."""
        return isinstance(x, Mapping) and all(np.array_equal(x.get(name), value) for name, value in self._values.items())


def _unread(form: Form, value: Value) -> Slot:
    """A step's input that no op reads: given and checked all the same."""
    return Slot(value.name, np.dtype(value.dtype), tuple(d for k, d in enumerate(value.shape) if k != form.steppable.time_axes.get(value.name)))


def axes_of(forms: Forms, sizes: Mapping[str, int], values: Mapping[str, np.ndarray]) -> tuple[Axes, bool]:
    """Where rows stand in a step's inputs and outputs, and whether streams may share a call."""
    one = forms.of(1)
    if isinstance(one.steppable.batch, str):
        try:
            return _axes_by_size(forms, sizes, values), not _branches(forms, sizes, values) and _rows_are_apart(forms, sizes, values)
        except _Mixed:
            pass
    elif (one.steppable.batch or 1) != 1:
        raise NotStreamableError(f"the model's batch is fixed at {one.steppable.batch}; the streams of a pool are single rows")
    return _axes_alone(one, sizes, values), False


class _Mixed(Exception):
    """Something else than one axis follows the batch."""


def _program(form: Form, rows: int, sizes, values) -> tuple[Program, dict[str, int]]:
    sizes = {**sizes, form.steppable.batch: rows} if isinstance(form.steppable.batch, str) else dict(sizes)
    sizes |= {form.steppable.time: 1} if form.timed else {}
    return form.program(sizes, values, squeeze=True).program, sizes


def _axes_by_size(forms: Forms, sizes, values) -> Axes:
    """The axes that are as long as the batch, for every batch."""
    form = forms.of(MOST_ROWS)
    try:
        program, bound = _program(form, MOST_ROWS, sizes, values)
    except FastRNNError as error:
        raise _Mixed from error
    axes = {}
    states = {kept.input for kept in program.states}
    for slot in (*program.inputs, *program.outputs):
        if slot.name in states:
            continue
        shapes = [form.dims(slot.shape, bound | {form.steppable.batch: rows}) for rows in (MOST_ROWS, MOST_ROWS - 1)]
        moving = [k for k, pair in enumerate(zip(*shapes)) if pair[0] != pair[1]]
        if moving:
            if len(moving) > 1 or shapes[0][moving[0]] != MOST_ROWS:
                raise _Mixed
            axes[slot.name] = moving[0]
        elif slot in program.outputs:
            raise _Mixed
    return Axes(axes, frozenset())


def _axes_alone(form: Form, sizes, values) -> Axes:
    """Streams one by one: rows stand in the batch's place where a step has one, else in front."""
    program, bound = _program(form, 1, sizes, values)
    axes, added, states = {}, set(), {kept.input for kept in program.states}
    declared = {v.name: [d for k, d in enumerate(v.shape) if k != form.steppable.time_axes.get(v.name)] for v in form.plan.model.inputs}
    for slot in (*program.inputs, *program.outputs):
        if slot.name in states or slot.value is not None:
            continue
        shape, symbol = form.dims(slot.shape, bound), form.steppable.batch
        if isinstance(symbol, str) and symbol in declared.get(slot.name, ()):
            axes[slot.name] = declared[slot.name].index(symbol)
        elif isinstance(symbol, str) and slot in program.inputs:
            continue
        else:
            axes[slot.name] = 0
            if not shape or shape[0] != 1:
                added.add(slot.name)
    return Axes(axes, frozenset(added))


def _branches(forms: Forms, sizes, values) -> bool:
    """Whether data decide what runs, for all rows at once."""
    form = forms.of(MOST_ROWS)
    program, _ = _program(form, MOST_ROWS, sizes, values)
    nodes = {node.name: node for node, _ in every_node(form.model.nodes)}
    for step in program.steps:
        if isinstance(step, JumpStep) and step.condition is not None:
            node = nodes.get(step.node)
            loop = Repetition(node) if node is not None and node.op in ("Loop", "Scan") else None
            if loop is None or not loop.unconditional(form.model.specs) or loop.count(form.model.specs) == ANY_DIM:
                return True
    return False


def _rows_are_apart(forms: Forms, sizes, values) -> bool:
    """Whether a few drawn streams give the same bits together and alone."""
    rng, rows = np.random.default_rng(0), 3
    together, alone = Stream(forms, rows), [Stream(forms, 1) for _ in range(rows)]
    form = forms.of(rows)
    program, bound = _program(form, rows, sizes, values)
    axes = _axes_by_size(forms, sizes, values).of
    for _ in range(DRAWN_STEPS):
        x = {v.name: values.get(v.name) for v in form.steppable.inputs}
        for slot in program.inputs:
            if x.get(slot.name, 0) is None:
                x[slot.name] = _drawn(rng, slot, form.dims(slot.shape, bound))
        for v in form.steppable.inputs:
            if x[v.name] is None:  # nothing reads it
                x[v.name] = np.zeros(form.dims([d for k, d in enumerate(v.shape) if k != form.steppable.time_axes.get(v.name)], bound), v.dtype)
        try:
            y = together.step(x)
            each = [stream.step({name: a if name not in axes else a.take([r], axes[name]) for name, a in x.items()}) for r, stream in enumerate(alone)]
        except FastRNNError:  # drawn integers that are no indices of something inside
            return False
        outputs = y if isinstance(y, tuple) else (y,)
        for k, name in enumerate(form.steppable.outputs):
            for r in range(rows):
                theirs = each[r][k] if isinstance(y, tuple) else each[r]
                if outputs[k].take([r], axes[name]).tobytes() != theirs.tobytes():
                    return False
    states, layout = together.state, form.start(together._sizes_at_start())[0]
    for name, state in states.items():
        axis = layout.batch_axes[name]
        if axis is None or any(state.take([r], axis).tobytes() != stream.state[name].tobytes() for r, stream in enumerate(alone)):
            return False
    return True


def _drawn(rng: np.random.Generator, slot: Slot, shape: tuple[int, ...]) -> np.ndarray:
    """Values that an input may have."""
    if slot.dtype.kind == "f":
        return rng.standard_normal(shape).astype(slot.dtype)
    if slot.dtype.kind == "b":
        return rng.random(shape) < 0.5
    low, high = (slot.low, slot.high) if slot.low is not None else (0, 1)
    return rng.integers(int(low), int(high), shape, slot.dtype, endpoint=True)


def single_threaded(forms: Forms) -> Forms:
    """The forms for tiles: threads take tiles, a tile none."""
    return forms if forms.plan.threads == 1 else Forms(replace(forms.plan, threads=1))
