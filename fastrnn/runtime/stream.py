"""One step at a time, the states kept in between."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np

from fastrnn.errors import NotStreamableError, ShapeError, StateError
from fastrnn.model import Model
from fastrnn.plan import Plan, build_program
from fastrnn.plan.packing import aligned_zeros
from fastrnn.plan.policy import RELEASE_GIL_NS
from fastrnn.plan.streaming import check_calls, steppable
from fastrnn.plan.timeline import Prefix
from fastrnn.runtime import checks
from fastrnn.runtime._executor import Runner
from fastrnn.runtime._stream import StreamCore

# Chunk lengths whose programs a stream keeps; the least recently used goes.
CHUNK_CACHE_SIZE = 8
MAX_BATCH = 1 << 24


class Stream(StreamCore):
    """A running stream of `batch` rows. Belongs to one thread at a time; a second concurrent call raises BusyError.

    step(x, *, out=None)   one step; allocates nothing when `out` is given (C-contiguous, not overlapping x)
    push(x, *, out=None)   a chunk of steps, time first: the same bits as that many steps
    state, reset           copies of the states by name, and back to their initial values

    With a time axis a step takes (B, ...) and gives (B, ...) and a chunk has T in front; a model that exposes its states
    instead takes its remaining inputs as the graph has them; dimensions other than the batch are fixed by the first step. A call
    that fails leaves every state as it was.
    """

    def __init__(self, plan: Plan, batch: int):
        if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or not 1 <= batch <= MAX_BATCH:
            raise ShapeError(f"batch must be an integer in 1..{MAX_BATCH}, got {batch!r}")
        self._plan, self._form = plan, steppable(plan, int(batch))
        if not isinstance(self._form.batch, str) and batch != (self._form.batch or 1):
            raise ShapeError(f"the model's batch is fixed at {self._form.batch or 1}, got batch={batch}")
        self._model, self._timed, self.batch = self._form.model, bool(self._form.time_axes), int(batch)
        self._sizes = {self._form.batch: self.batch}
        self._make_states()
        self._chunks: OrderedDict[int, Runner] = OrderedDict()
        if self._timed or not self._free():
            self._bind(self._runner(1, squeeze=True))

    @property
    def time(self) -> str | None:
        """The symbol of the time axis, None where a step is a call of the whole graph."""
        return self._form.time

    def time_axis(self, name: str) -> int:
        """Where time stands in an input or output of the graph."""
        return self._form.time_axes[name]

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that step and push return, in order."""
        return self._form.outputs

    def step_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Shape of each input of a step; dimensions that the first step will fix are symbols."""
        axes = self._form.time_axes
        return {v.name: tuple(self._sizes.get(d, d) for k, d in enumerate(v.shape) if k != axes.get(v.name)) for v in self._form.inputs}

    def _free(self) -> list[str]:
        """Dimensions of a step's inputs that the first step fixes."""
        return [d for v in self._form.inputs for d in v.shape if isinstance(d, str) and d not in self._sizes]

    def _prepare(self, x) -> None:
        """Fixes the free dimensions by what the first step brings."""
        if not hasattr(self, "_form"):
            raise TypeError("streams come from Session.stream")
        arrays = self._named(x)
        known = [replace(v, shape=tuple(self._sizes.get(d, d) for d in v.shape)) for v in self._form.inputs]
        shapes = checks.bind_shapes(known, arrays)
        sizes = {d: n for v in self._form.inputs for d, n in zip(v.shape, shapes[v.name]) if isinstance(d, str)}
        before, self._sizes = self._sizes, self._sizes | sizes
        try:
            self._bind(self._runner(1))
        except BaseException:
            self._sizes = before
            raise

    def _shape(self, shape, T: int) -> tuple[int, ...]:
        sizes = self._sizes | ({self._form.time: T} if self._timed else {})
        for dim in shape:
            if isinstance(dim, str) and dim not in sizes:
                raise NotStreamableError(f"dimension {dim!r} is neither batch nor time; a stream cannot fix it")
        return tuple(sizes[d] if isinstance(d, str) else d for d in shape)

    def _make_states(self) -> None:
        values, declared = {v.name: v for v in self._model.inputs}, {v.name: v.shape for v in self._plan.model.inputs}
        self._current, self._initial, self._batch_axis, self._bound = {}, {}, {}, {}
        self._commits: list[tuple[np.ndarray, np.ndarray]] = []
        for state in self._model.states:
            value = values[state.input]
            shape = self._shape(value.shape, 1)
            current = aligned_zeros(shape, value.dtype)
            self._initial[state.input] = self._start(state.input, current)
            current[...] = self._initial[state.input]
            self._current[state.input] = self._bound["input", state.input] = current
            if state.input in self._form.batch_axes:
                self._batch_axis[state.input] = self._form.batch_axes[state.input]
                continue
            # axis 1 first, as in (D, B, n): a fixed batch may equal another dimension
            symbols = declared.get(state.input, value.shape)
            wanted = self._form.batch if state.input in declared else self.batch
            axes = [axis for axis in ((1, 0) if len(shape) == 3 else range(len(shape))) if symbols[axis] == wanted]
            self._batch_axis[state.input] = axes[0] if axes else None

    def _start(self, name: str, current: np.ndarray) -> np.ndarray:
        """What a state holds before the first step: a constant, what the graph makes of hardly any steps, or zeros."""
        first = self._form.initial.get(name)
        if isinstance(first, np.ndarray):
            return first
        start = np.zeros(current.shape, current.dtype)
        if isinstance(first, Prefix):
            start[...] = first.fill
            states = {s.input for s in self._model.states}
            shapes = {v.name: self._shape(v.shape, first.steps) for v in first.model.inputs if v.name not in states}
            runner = Runner(build_program(self._plan, self._plan.specialised(shapes, first.model)), {}, (), RELEASE_GIL_NS)
            dtypes = {v.name: v.dtype for v in first.model.inputs}
            entries = runner.call({slot.name: np.zeros(slot.shape, dtypes[slot.name]) for slot in runner.program.inputs}, None)
            along = (slice(None),) * first.axis
            start[(*along, slice(start.shape[first.axis] - first.count, None))] = entries[(*along, slice(first.lead - first.count, first.lead))]
        return start

    def _bind_next(self, model: Model) -> tuple[dict, list]:
        """Memory for the states' next values, in the shapes that the specialised model gives them, and where each goes."""
        bound, commits = dict(self._bound), []
        for state in self._model.states:
            spec = model.specs[state.output]
            if ("output", state.output) not in bound:
                if spec.shape is None or any(isinstance(d, str) for d in spec.shape):
                    raise NotStreamableError(f"state {state.input!r}: the shape of its output {state.output!r} is not known before it runs")
                bound["output", state.output] = aligned_zeros(spec.shape, spec.dtype)
            following, current = bound["output", state.output], self._current[state.input]
            following = state.part(following, current.ndim)
            if (following.shape, following.dtype) != (current.shape, current.dtype):
                raise NotStreamableError(f"state {state.input!r} is {current.dtype} {current.shape}, "
                                         f"its output {state.output!r} {following.dtype} {following.shape}")
            commits.append((current, following))
        return bound, commits

    def _runner(self, T: int, squeeze: bool = False) -> Runner:
        """The program for T steps; squeeze: its time axis of 1 is left out of the caller's arrays."""
        states = {s.input for s in self._model.states}
        shapes = {v.name: self._shape(v.shape, T) for v in self._model.inputs if not v.optional or v.name in states}
        model = self._plan.specialised(shapes, self._model)
        if not self._timed:
            check_calls(model)
        bound, commits = (self._bound, self._commits) if self._commits else self._bind_next(model)
        program = build_program(self._plan, model, self._form.time_axes)
        if squeeze and self._timed:
            program = program.without_time({v.name for v in self._form.inputs} | set(self._form.outputs))
        runner = Runner(program, bound, commits, RELEASE_GIL_NS)
        self._bound, self._commits = bound, commits  # only once all of it holds
        return runner

    def _push(self, x, out):
        return self._push_timed(x, out) if self._timed else self._push_calls(x, out)

    def _named(self, x) -> dict[str, np.ndarray]:
        """The inputs of a chunk by name."""
        names = [v.name for v in self._form.inputs]
        given = x if isinstance(x, dict) or len(names) != 1 else {names[0]: x}
        checks.same_names(checks.as_mapping(given, "a chunk of several inputs"), names)
        return {name: checks.as_array(value, name) for name, value in given.items()}

    def _chunk_length(self, x) -> int:
        if isinstance(x, np.ndarray) and x.ndim and len(self._form.inputs) == 1:
            return len(x)
        lengths = {len(a) if a.ndim else -1 for a in self._named(x).values()}
        if len(lengths) != 1 or -1 in lengths:
            raise ShapeError(f"a chunk needs the same number of steps in front of every input, got {sorted(lengths)}")
        return lengths.pop()

    def _push_timed(self, x, out):
        T = self._chunk_length(x)
        if T in self._chunks:
            self._chunks.move_to_end(T)
            self._bind_chunk(self._chunks[T], T)
            return self._chunks[T].call(x, out)
        arrays = self._named(x)
        for value in self._form.inputs:  # before anything is planned for so many steps
            shape, axis = self._shape(value.shape, T), self._form.time_axes[value.name]
            checks.as_input(arrays[value.name][:0], value.name, np.dtype(value.dtype), (0, *shape[:axis], *shape[axis + 1:]))
        runner = self._runner(T)
        result = runner.call(x, out)
        self._chunks[T] = runner
        self._bind_chunk(runner, T)
        if len(self._chunks) > CHUNK_CACHE_SIZE:
            self._chunks.popitem(last=False)
        return result

    def _push_calls(self, x, out):
        T = self._chunk_length(x)
        if self._step_runner() is None:
            self._prepare({name: a[0] if T else np.empty(a.shape[1:], a.dtype) for name, a in self._named(x).items()})
        runner = self._step_runner()
        slots = {slot.name: slot for slot in runner.program.inputs}
        arrays = {n: checks.as_input(a, n, slots[n].dtype, (T, *slots[n].shape)) for n, a in self._named(x).items()}
        results = self._chunk_outputs(T, runner, arrays, out)
        before = self._copies()
        try:
            for t in range(T):
                step = tuple(r[t, ...] for r in results)
                runner.call({n: a[t, ...] for n, a in arrays.items()}, step[0] if len(step) == 1 else step)
        except BaseException:
            for name, value in before.items():
                self._current[name][...] = value
            raise
        return results[0] if len(results) == 1 else tuple(results)

    def _chunk_outputs(self, T: int, runner: Runner, arrays: dict[str, np.ndarray], out) -> list[np.ndarray]:
        """Arrays for T calls' outputs: new, or the caller's, apart from the inputs and from each other."""
        wanted = [slot for slot in runner.program.outputs if slot.name in self._form.outputs]
        if out is None:
            return [np.empty((T, *slot.shape), slot.dtype) for slot in wanted]
        results, taken = [out] if len(wanted) == 1 else out, dict(arrays)
        if not isinstance(results, (tuple, list)) or len(results) != len(wanted):
            raise checks.count_mismatch("out", len(wanted), out)
        for result, slot in zip(results, wanted):
            if not isinstance(result, np.ndarray) or result.shape != (T, *slot.shape) or result.dtype != slot.dtype or not result.flags.carray:
                checks.refuse_out(result, slot.name, slot.dtype, (T, *slot.shape))
            for name, other in taken.items():
                if np.may_share_memory(result, other):
                    raise checks.overlap(slot.name, name)
            taken[slot.name] = result
        return list(results)

    def _copies(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._current.items()}

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Copies of the states by name; assign such a dict to set them all. Raises StateError and changes nothing where one does not fit."""
        return self._exclusive(self._copies)

    @state.setter
    def state(self, values: dict[str, np.ndarray]) -> None:
        self._exclusive(lambda: self._set(values))

    def _set(self, values) -> None:
        values = checks.as_mapping(values, "stream.state", StateError)
        if set(values) != set(self._current):
            raise StateError(f"states are {sorted(self._current)}, got {sorted(values)}")
        checked = {}
        for name, current in self._current.items():
            array = checks.as_array(values[name], name)
            if array.dtype != current.dtype or array.shape != current.shape:
                raise StateError(f"state {name!r} must be {current.dtype} of shape {current.shape}, got {array.dtype} of shape {array.shape}")
            checked[name] = array
        for name, array in checked.items():
            self._current[name][...] = array

    def reset(self, rows=None) -> None:
        """States back to their initial values: all rows, or those of the given batch indices. Raises StateError for a row that is not there."""
        self._exclusive(lambda: self._reset(rows))

    def _reset(self, rows) -> None:
        if rows is None:
            for name, current in self._current.items():
                current[...] = self._initial[name]
            return
        rows = np.atleast_1d(checks.as_array(rows, "rows"))
        if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= self.batch):
            raise StateError(f"rows must be integers in 0..{self.batch - 1}, got {rows}")
        for name, axis in self._batch_axis.items():
            if axis is None:
                raise StateError(f"state {name!r} has no batch axis; reset all rows at once")
        index = rows.astype(np.intp)
        for name, current in self._current.items():
            at = (slice(None),) * self._batch_axis[name] + (index,)
            current[at] = self._initial[name][at]

    def __reduce__(self):
        raise TypeError(f"a stream belongs to its session and this process; what travels is its state: values = stream.state, and where they arrive: "
                        f"stream = session.stream(batch={self.batch}); stream.state = values")

    def __repr__(self) -> str:
        return f"Stream of {self._model.name!r}: batch {self.batch}, states " + ", ".join(f"{n} {a.shape}" for n, a in self._current.items())
