"""Which programs step a pool's streams: so many rows at once, where rows are apart, else one.

Tiles are of several rows where apart.py finds that the model keeps them apart, else of one, which is what a Stream of batch 1 does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastrnn.kernels import roofline
from fastrnn.model import Value
from fastrnn.plan import Plan
from fastrnn.plan.program import CheckStep, Program, PythonStep, Slot
from fastrnn.runtime.executor._executor import Workspace
from fastrnn.runtime.pools._pool import SHARED_SLOT, Tile, Tiles
from fastrnn.runtime.pools.apart import Axes
from fastrnn.runtime.pools.in_place import in_place
from fastrnn.runtime.streams.forms import Form, Forms
from fastrnn.runtime.streams.states import StateRows

# Rows of a tile, at most. From 8 to 128 the rate hardly differs where weights stay in L2 (silero, LSTM(40, 64), GRU(1, 16): benchmarks/suites/bench_pool.py), and this bounds
# the work space. Where they do not stay there from tile to tile, more rows read them once: of 128, LSTM(256, 512), 100 rows, takes 0.90 of the time, (256, 768) twice 0.82,
# (256, 1024) three times 0.64 (L2 of 2 MB).
NEAR_ROWS, FAR_ROWS = 32, 128


class RowInput(NamedTuple):
    """An input of a step, for one stream: shape without the axis of rows, which stands at `axis`; None where all rows share the array. low, high: of
    integers that are indices or lengths, None for any."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    axis: int | None
    low: int | None
    high: int | None


def rows_of_tiles(plan: Plan) -> int:
    """Rows of a tile, at most."""
    weights = sum(part.weight_bytes for packed in plan.packed.values() for part in packed)
    return FAR_ROWS if weights > roofline.cache_bytes().get("L2", weights) else NEAR_ROWS


class Tiling(Tiles):
    """The programs of a step, or of chunks, by number of rows; made when they are first wanted. values: of inputs that steer."""

    def __init__(
        self,
        most: int,
        threads: int,
        forms: Forms,
        sizes: Mapping[str, int],
        values: Mapping[str, np.ndarray],
        axes: Axes,
        rows: StateRows,
        chunk: bool = False,
    ) -> None:
        self._forms, self._sizes, self._values, self._axes, self._rows, self._chunk = forms, sizes, values, axes, rows, chunk
        self._tiles: dict[tuple[int, int], list[Tile]] = {}
        self._programs: list[object] = []
        self._memory = [(Workspace(), Workspace()) for _ in range(threads + 1)]
        form = forms.of(most)
        inputs, outputs = [v.name for v in form.steppable.inputs], list(form.steppable.outputs)
        self._places = {name: k for k, name in enumerate(inputs)} | {name: k for k, name in enumerate(outputs)}
        program = form.program(self._of(form, most, 1), values, squeeze=not chunk).program
        slots = {slot.name: slot for slot in (*program.inputs, *program.outputs)}
        slots |= {v.name: _unread(form, v) for v in form.steppable.inputs if v.name not in slots}
        self._describe(
            [self._field(form, slots[name], most) for name in inputs], [self._field(form, slots[name], most) for name in outputs], bool(values)
        )

    def _of(self, form: Form, rows: int, steps: int) -> dict[str, int]:
        sizes = dict(self._sizes)
        if isinstance(form.steppable.batch, str):
            sizes[form.steppable.batch] = rows
        return sizes if form.steppable.time is None else sizes | {form.steppable.time: steps}

    def _field(self, form: Form, slot: Slot, rows: int) -> tuple[str, np.dtype[Any], tuple[int, ...], int, int, bool]:
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
        # up to so many rows have tiles of their own, so that a call of other rows than the one before costs no change of sizes
        own = rows if rows <= NEAR_ROWS and not self._chunk else 0
        key = id(runners), own
        if key not in self._tiles:
            self._programs.append(runners)
            n = self.threads + (self.threads > 1 or not own)
            self._tiles[key] = [self._tile(form, runners.program, sizes, *self._memory[k]) for k in range(n)]
        return self._tiles[key]

    def _tile(self, form: Form, program: Program, sizes: Mapping[str, int], work: Workspace, room: Workspace) -> Tile:
        slots = (*program.inputs, *program.outputs)
        axes = [self._axes.of.get(slot.name, SHARED_SLOT) for slot in slots]
        axes = [axis + 1 if self._chunk and axis >= 0 else axis for axis in axes]
        plain = not any(isinstance(step, PythonStep | CheckStep) for step in program.steps)
        places = {kept.input: self._rows.place(kept.input) for kept in program.states}
        program, steps, there = in_place(program, places) if plain else (program, (), set())
        return Tile(
            program,
            sizes,
            form.steppable.batch,
            form.steppable.time,
            axes,
            [self._places.get(slot.name, 0) for slot in slots],
            [(*place, name in there) for name, place in places.items()],
            steps,
            self._rows.nbytes,
            plain,
            work,
            room,
        )

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
            low, high = (None, None) if slot.low is None or slot.high is None else form.dims((slot.low, slot.high), sizes)
            found.append(RowInput(v.name, dtype, shape if axis < 0 else shape[:axis] + shape[axis + 1 :], None if axis < 0 else axis, low, high))
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

    def steered_by(self, x: object) -> bool:
        """Whether a call's inputs hold what the programs are for."""
        return isinstance(x, Mapping) and all(np.array_equal(x.get(name), value) for name, value in self._values.items())


def _unread(form: Form, value: Value) -> Slot:
    """A step's input that no op reads: given and checked all the same."""
    return Slot(value.name, np.dtype(value.dtype), form.steppable.step_shape(value))


def single_threaded(forms: Forms) -> Forms:
    """The forms for tiles: threads take tiles, a tile none."""
    return forms if forms.plan.threads == 1 else Forms(replace(forms.plan, threads=1))
