"""Many independent streams of one model, and a batched step of those that are ready."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, overload

import numpy as np

from fastrnn.errors import ShapeError
from fastrnn.plan.specialise import steering_values
from fastrnn.plan.streams.keep import KEEP
from fastrnn.runtime import checks
from fastrnn.runtime.pools import blob
from fastrnn.runtime.pools._pool import MOST_STREAMS, PoolCore
from fastrnn.runtime.pools.apart import Axes, axes_of
from fastrnn.runtime.pools.parts import checked_lengths, parts, steps_done
from fastrnn.runtime.pools.tiling import RowInput, Tiling, rows_of_tiles, single_threaded
from fastrnn.runtime.streams.forms import Forms, KeepingForms
from fastrnn.runtime.streams.states import StateRows

if TYPE_CHECKING:
    from fastrnn.typing import Array, ArrayLike, Handles, Inputs, Outputs, StateDict

# Sets of values of inputs that steer, and with them programs, that a pool keeps.
MOST_STEERED = 8
_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool(PoolCore):
    """Streams by handle: each has the states of a Stream of batch 1, and gives the bits that such a Stream gives, whatever else is stepped beside it.

    open() -> handle        a stream that starts afresh; an int, which no other stream of the process ever has. Raises PoolFullError
    step(handles, x)        one step of each stream named, in any order, by its row of x (n, ...); returns outputs (n, ...)
    push(handles, chunk)    a chunk of steps (T', n, ...), rows of different lengths if need be: the same bits as that many steps
    reset, close, state     of one stream
    export, restore         a stream as bytes, to another pool of the model: another process, machine or instruction set
    len(pool), iter(pool), handle in pool

    handles: a sequence of ints, or an int64 array. A stream named twice is a ShapeError; one that was closed, never opened, or is another pool's an
    UnknownStreamError; whatever is raised, every stream is as it was. A step allocates nothing when `out` is given. Rows are shared out among the session's
    threads. Belongs to one thread at a time: a second concurrent call raises BusyError, or waits its turn where the pool was made with lock=True. A forked child has a copy
    of the streams; what another thread was stepping then is there as far as it had got.
    """

    def __init__(self, forms: Forms, capacity: int, sizes: Mapping[str, int] | None, lock: bool, identity: Callable[[], str]) -> None:
        if isinstance(capacity, bool) or not isinstance(capacity, (int, np.integer)) or not 1 <= capacity <= MOST_STREAMS:
            raise ShapeError(f"capacity must be an integer in 1..{MOST_STREAMS}, got {capacity!r}")
        self._forms, self._identity = single_threaded(forms), identity
        self._threads, self._locked = forms.plan.threads, lock
        form = self._form = self._forms.of(1)
        self._names = [v.name for v in form.steppable.inputs]
        self._free = [
            d for v in form.steppable.inputs for d in v.shape if isinstance(d, str) and d not in (form.steppable.batch, form.steppable.time)
        ]
        self._batch = {form.steppable.batch: 1} if isinstance(form.steppable.batch, str) else {}
        layout, first = form.start(self._batch)
        self._rows = StateRows(layout)
        self._furnish(int(capacity), self._rows.packed(layout.views(first)), threading.Lock() if lock else None, self._threads)
        self._kept: Tiling | None = None  # of a chunk in which rows start afresh
        self._plans: dict[tuple[object, ...], tuple[Tiling, Tiling]] = {}  # of a step and of a chunk
        self._given = {} if sizes is None else _sizes(sizes, self._free)
        self._bound = dict(self._given)
        _POOLS.add(self)
        if not form.steered and not set(self._free) - set(self._bound):
            self._plan({})

    # What the model is stepped by.

    def _plan(self, values: Mapping[str, np.ndarray]) -> None:
        """The programs for the sizes at hand, and for what inputs hold that steer; used from now on."""
        key = tuple((name, a.tobytes()) for name, a in sorted(values.items()))
        if key not in self._plans:
            axes, apart = axes_of(self._forms, self._bound, values)
            self._axes, self._kept = axes, None
            most = rows_of_tiles(self._forms.plan) if apart else 1
            tilings = [
                Tiling(most, self._threads, self._forms, self._bound, values, axes, self._rows, chunk)
                for chunk in ([False, True] if self._form.timed else [False])
            ]
            tilings[0].warm()
            self._plans[key] = tilings[0], tilings[-1]
            while len(self._plans) > MOST_STEERED:
                del self._plans[next(iter(self._plans))]
        tiles, self._chunks = self._plans[key]
        self._use(tiles)

    @property
    def inputs(self) -> tuple[RowInput, ...] | None:
        """What a step takes of one stream; None where the first step, or prepare, decides it."""
        return None if self._tiles is None else self._tiles.row_inputs

    @property
    def output_axes(self) -> tuple[int, ...] | None:
        """Where rows stand in each output of a step; None as for inputs."""
        return None if self._tiles is None else self._tiles.output_axes

    @property
    def row_ranks(self) -> dict[str, int | None]:
        """How many axes each input of a step has, that of rows included; None for an input that all rows share."""
        form = self._form.steppable
        found: dict[str, int | None] = {}
        declared = {v.name: v.shape for v in self._forms.plan.model.inputs}
        for v in form.inputs:
            shape = tuple(d for k, d in enumerate(declared[v.name]) if k != form.time_axes.get(v.name))
            if isinstance(form.batch, str):
                found[v.name] = len(shape) if form.batch in shape else None
            else:
                found[v.name] = len(shape) if shape[:1] == (1,) else len(shape) + 1
        return found

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that step and push return, in order."""
        return self._form.steppable.outputs

    def prepare(self, x: Inputs) -> None:
        """Plans a step by what one stream brings, with the axis of rows or without, as the first step does: for models that leave sizes open, or that an
        integer steers. Nothing is stepped. Raises ShapeError or DTypeError."""
        self._exclusive(lambda: self._prepare(self._one_row(x)))

    def _one_row(self, x: Inputs) -> dict[str, np.ndarray]:
        """The inputs of one stream with the axis of rows."""
        form, arrays = self._form.steppable, {}
        given = checks.by_name(x, self._names, "a step of several inputs")
        for v in form.inputs:
            a = arrays[v.name] = given[v.name]
            checks.check_dtype(a, f"input {v.name!r}", np.dtype(v.dtype))
            shape = form.step_shape(v)
            axis = shape.index(form.batch) if form.batch in shape else 0 if shape[:1] == (1,) else None
            if axis is not None and a.ndim == len(shape) - 1:
                arrays[v.name] = np.expand_dims(a, axis)
        return arrays

    def _prepare(self, x: Inputs) -> None:
        """Plans by what a step brings: dimensions that the model leaves open, and what inputs hold that steer."""
        arrays = checks.by_name(x, self._names, "a step of several inputs")
        if unbound := set(self._free) - set(self._bound):
            found: dict[str, int] = {}
            for v in self._form.steppable.inputs:
                shape = self._form.steppable.step_shape(v)
                if arrays[v.name].ndim != len(shape):
                    raise ShapeError(f"input {v.name!r} must have shape ({', '.join(map(str, shape))}), got {arrays[v.name].shape}")
                found |= {d: n for d, n in zip(shape, arrays[v.name].shape) if isinstance(d, str) and d in unbound}
            before, self._bound = self._bound, self._bound | found
            try:
                self._plan(self._steering(arrays))
            except BaseException:
                self._bound = before
                raise
        else:
            self._plan(self._steering(arrays))

    def _steering(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return steering_values(self._forms.plan.model, arrays) if self._form.steered else {}

    def _forget(self) -> None:
        super()._forget()
        self._bound = dict(self._given)
        self._plans.clear()

    # A chunk.

    @overload
    def push(self, handles: Handles, chunk: Inputs, lengths: ArrayLike | None = None, *, resets: ArrayLike | None = None, out: Array) -> Array: ...
    @overload
    def push(
        self, handles: Handles, chunk: Inputs, lengths: ArrayLike | None = None, *, resets: ArrayLike | None = None, out: tuple[Array, ...]
    ) -> tuple[Array, ...]: ...
    @overload
    def push(
        self, handles: Handles, chunk: Inputs, lengths: ArrayLike | None = None, *, resets: ArrayLike | None = None, out: None = None
    ) -> Outputs: ...

    def push(
        self, handles: Handles, chunk: Inputs, lengths: ArrayLike | None = None, *, resets: ArrayLike | None = None, out: Outputs | None = None
    ) -> Outputs:
        """A chunk of steps of each stream named. chunk: (T', n, ...), time first, or a dict of several inputs; inputs that all rows share have T' in front too.
        lengths: (n,) integers, how many of the T' steps each row takes; None: all. resets: (T', n) bool, where a row starts afresh before that step. Returns
        outputs (T', n, ...), zeros past a row's length.

        The same bits as that many steps. Raises as step does, and then no stream has moved.
        """
        return self._exclusive(lambda: self._push(handles, chunk, lengths, resets, out))

    def _push(self, handles: Handles, chunk: Inputs, given_lengths: ArrayLike | None, given_resets: ArrayLike | None, out: Outputs | None) -> Outputs:
        n = self._name(handles)
        arrays, steps = self._chunk_of(chunk)
        lengths, resets = checked_lengths(given_lengths, n, steps), checks.as_resets(given_resets, steps, n)
        planned, done = self._tiles is not None, steps_done(n, steps, lengths, resets)
        if not planned or self._tiles.steered and not self._tiles.steered_by({name: a[0] for name, a in arrays.items() if steps}):
            self._prepare({name: a[0] if steps else np.zeros(a.shape[1:], a.dtype) for name, a in arrays.items()})
        if lengths is not None:
            arrays = {name: self._tiles.without_padding(name, a, lengths) for name, a in arrays.items()}
        before = self._snapshot()
        try:
            result = (self._push_timed if self._form.timed else self._push_calls)(n, steps, arrays, lengths, resets, out)
            self._advance(done)
            return result
        except BaseException:
            self._put_back(before)
            if not planned:
                self._forget()
            raise

    def _chunk_of(self, chunk: Inputs) -> tuple[dict[str, np.ndarray], int]:
        arrays = checks.by_name(chunk, self._names, "a chunk of several inputs")
        return arrays, checks.common_steps(arrays)

    def _push_timed(
        self, n: int, steps: int, arrays: Mapping[str, Array], lengths: Array | None, resets: Array | None, out: Outputs | None
    ) -> Outputs:
        chunks = self._chunks
        if resets is not None and self._form.keeping is not None:
            chunks, arrays, resets = self._keeping(), {**arrays, KEEP: (~resets).astype(np.float32)}, None
        result = self._bind_chunk(chunks, steps, arrays, out)
        if lengths is not None:
            for y in result if isinstance(result, tuple) else (result,):
                y[...] = 0
        for part in parts(n, steps, lengths, resets, chunks.most if self._threads == 1 else n):
            self._reset_rows(part.reset)
            self._run_part(chunks, part.order, part.first, part.end, part.start, part.steps)
        return result

    def _keeping(self) -> Tiling:
        """The programs of chunks in which rows start afresh: planned when the first one comes."""
        if self._kept is None:
            axes = Axes({**self._axes.of, KEEP: 0}, self._axes.added)
            self._kept = Tiling(self._chunks.most, self._threads, KeepingForms(self._forms), self._bound, {}, axes, self._rows, True)
        return self._kept

    def _push_calls(
        self, n: int, steps: int, arrays: Mapping[str, Array], lengths: Array | None, resets: Array | None, out: Outputs | None
    ) -> Outputs:
        results = checks.chunk_outputs(steps, self._tiles.output_slots(n), arrays, out)
        if lengths is not None:
            for y in results:
                y[...] = 0
        for part in parts(n, steps, lengths, resets, n):
            self._reset_rows(part.reset)
            for t in range(part.start, part.start + part.steps):
                step = tuple(y[t, ...] for y in results)
                self._bind_chunk(self._tiles, 0, {name: a[t, ...] for name, a in arrays.items()}, step[0] if len(step) == 1 else step)
                self._run_part(self._tiles, part.order, part.first, part.end, 0, 0)
        return results[0] if len(results) == 1 else tuple(results)

    # Streams.

    def __iter__(self) -> Iterator[int]:
        return iter(self._exclusive(lambda: self._open_handles().tolist()))

    def state(self, handle: int) -> dict[str, Array]:
        """Copies of a stream's states by name, as a Stream of batch 1 has them: `stream.state = pool.state(handle)` goes on with it there."""
        return self._exclusive(lambda: {name: a.copy() for name, a in self._rows.views(self._row_of(handle)).items()})

    def set_state(self, handle: int, values: StateDict) -> None:
        """Sets all of a stream's states by name. Raises StateError and changes nothing where one does not fit."""
        self._exclusive(lambda: self._set(handle, values))

    def _set(self, handle: int, values: StateDict) -> None:
        row = self._row_of(handle)
        row[...] = self._rows.packed(self._rows.layout.checked(values, "pool.set_state"))

    def export(self, handle: int) -> bytes:
        """A stream as bytes: its states and how many steps it has done, under the model's fingerprint and a checksum. The stream goes on."""
        return self._exclusive(lambda: blob.pack(self._identity(), self._steps_of(handle), self._rows.layout, self._rows.views(self._row_of(handle))))

    def restore(self, data: bytes) -> int:
        """A new stream from what export gave; its handle. Raises StateError for bytes that are damaged or of another model, PoolFullError."""
        steps, states = blob.unpack(data, self._identity(), self._rows.layout)
        row = self._rows.packed(states)
        return self._exclusive(lambda: self._opened(row, steps))

    def steps(self, handle: int) -> int:
        """How many steps a stream has done since it was opened or reset."""
        return self._exclusive(lambda: self._steps_of(handle))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a pool belongs to its session and this process; what travels is a stream: data = pool.export(handle), and where it arrives: pool.restore(data)"
        )

    def __repr__(self) -> str:
        return f"Pool of {self._form.model.name!r}: {len(self)} of {self.capacity} streams open, {self._rows.nbytes} bytes of states each"


def _after_fork() -> None:
    for pool in _POOLS:
        pool._start_anew(threading.Lock() if pool._locked else None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _sizes(sizes: Mapping[str, int], free: Sequence[str]) -> Mapping[str, int]:
    for name, n in checks.as_mapping(sizes, "sizes").items():
        if name not in free:
            raise ShapeError(f"sizes: {name!r} is no dimension that the model leaves open; those are {', '.join(map(repr, free)) or 'none'}")
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise ShapeError(f"sizes: {name!r} must be a whole number, got {n!r}")
    return {name: int(n) for name, n in sizes.items()}
