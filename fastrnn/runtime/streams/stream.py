"""One step at a time, the states kept in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fastrnn.errors import ShapeError, StateError
from fastrnn.plan.streams.keep import KEEP
from fastrnn.runtime import checks
from fastrnn.runtime.executor._executor import Runners, States
from fastrnn.runtime.streams._stream import StreamCore
from fastrnn.runtime.streams.episodes import cuts
from fastrnn.runtime.streams.forms import Form, Forms

if TYPE_CHECKING:
    from fastrnn.typing import ArrayLike, Inputs, Outputs, StateDict

    Described = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]

MAX_BATCH = 1 << 24


class Stream(StreamCore):
    """A running stream of `batch` rows. Belongs to one thread at a time; a second concurrent call raises BusyError. Streams of one session may
    run at the same time, each in a thread of its own: they share programs and nothing else.

    step(x, *, out=None)   one step; allocates nothing when `out` is given (C-contiguous, not overlapping x)
    push(x, *, resets=None, out=None)   a chunk of steps, time first: the same bits as that many steps; resets: where rows start afresh
    state, reset           copies of the states by name, and back to their initial values
    close                  gives up the states' memory; so does leaving a `with` block

    With a time axis a step takes (B, ...) and gives (B, ...) and a chunk has T in front; a model that exposes its states
    instead takes its remaining inputs as the graph has them; dimensions other than the batch are fixed by the first step. A call
    that fails leaves every state as it was.
    """

    def __init__(self, forms: Forms, batch: int) -> None:
        if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or not 1 <= batch <= MAX_BATCH:
            raise ShapeError(f"batch must be an integer in 1..{MAX_BATCH}, got {batch!r}")
        self._form, self.batch = forms.of(int(batch)), int(batch)
        fixed = self._form.steppable.batch
        if not isinstance(fixed, str):
            self.batch = fixed or 1
            if batch != self.batch and (batch != 1 or self._form.timed):
                raise ShapeError(f"the model's batch is fixed at {self.batch}, got batch={batch}")
        self._sizes = {fixed: self.batch} if isinstance(fixed, str) else {}
        self._names = [v.name for v in self._form.steppable.inputs]
        self._hold(States(*self._form.start(self._sizes)))
        if not self._form.steered and (self._form.timed or not self._free()):
            self._bind_step({})

    @property
    def time(self) -> str | None:
        """The symbol of the time axis, None where a step is a call of the whole graph."""
        return self._form.steppable.time

    def time_axis(self, name: str) -> int:
        """Where time stands in an input or output of the graph."""
        return self._form.steppable.time_axes[name]

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that step and push return, in order."""
        return self._form.steppable.outputs

    def step_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Shape of each input of a step; dimensions that the first step will fix are symbols."""
        axes = self._form.steppable.time_axes
        return {
            v.name: tuple(
                d if isinstance(d, str) and d not in self._sizes else self._form.dims((d,), self._sizes)[0]
                for k, d in enumerate(v.shape)
                if k != axes.get(v.name)
            )
            for v in self._form.steppable.inputs
        }

    def _free(self) -> list[str]:
        """Dimensions of a step's inputs that the first step fixes."""
        return [d for v in self._form.steppable.inputs for d in v.shape if isinstance(d, str) and d not in self._sizes]

    # A step.

    def _prepare(self, x: Inputs) -> None:
        """Binds the step's program by what a step brings: free dimensions, by the first, and what steers."""
        if not hasattr(self, "_form"):
            raise TypeError("streams come from Session.stream")
        arrays, free = self._named(x), set(self._free())
        shapes = checks.bind_shapes(self._form.steppable.inputs, arrays, self._sizes)
        found = (
            {d: n for v in self._form.steppable.inputs for d, n in zip(v.shape, shapes[v.name]) if isinstance(d, str) and d in free} if free else {}
        )
        before, self._sizes = self._sizes, self._sizes | found
        try:
            self._bind_step(arrays)
        except BaseException:
            self._sizes = before
            raise

    def _bind_step(self, values: Mapping[str, np.ndarray]) -> None:
        sizes = self._sizes_of(1)
        runners = self._form.program(sizes, values, squeeze=True)
        self._bind(runners, _ordered(runners, sizes))

    def _sizes_of(self, steps: int) -> dict[str, int]:
        """The sizes of a call of so many steps, by symbol."""
        return self._sizes if self.time is None else self._sizes | {self.time: steps}

    # A chunk.

    def _push(self, x: Inputs, out: Outputs | None) -> Outputs:
        return self._push_timed(x, out) if self._form.timed else self._push_calls(x, out)

    def _named(self, x: Inputs) -> dict[str, np.ndarray]:
        """The inputs of a step or a chunk by name."""
        return checks.by_name(x, self._names, "a chunk of several inputs")

    def _chunk_length(self, x: Inputs) -> int:
        if isinstance(x, np.ndarray) and x.ndim and len(self._names) == 1:
            return len(x)
        return checks.common_steps(self._named(x))

    def _push_timed(self, x: Inputs, out: Outputs | None) -> Outputs:
        steps = self._chunk_length(x)
        runners, sizes = self._chunk_program(self._form, self._named(x), steps)
        names = list(runners.program.region.dimensions)
        self._bind_chunk(runners, _ordered(runners, sizes), names.index(self.time) if self.time in names and len(self._names) == 1 else -1, steps)
        return self._run_chunk(x, out)

    def _chunk_program(self, form: Form, arrays: Mapping[str, np.ndarray], steps: int) -> tuple[Runners, dict[str, int]]:
        """The program of a chunk, and its sizes by symbol."""
        sizes, axes = self._sizes_of(steps), form.steppable.time_axes
        for value in form.steppable.inputs:  # before anything is planned for so many steps
            shape, axis = form.dims(value.shape, sizes), axes[value.name]
            wanted = (steps, *shape[:axis], *shape[axis + 1 :])
            if arrays[value.name].shape != wanted:
                raise ShapeError(f"input {value.name!r} of a chunk must have shape {wanted}, time first, got {arrays[value.name].shape}")
            checks.check_dtype(arrays[value.name], f"input {value.name!r}", np.dtype(value.dtype))
        return form.program(sizes, arrays), sizes

    def _push_calls(self, x: Inputs, out: Outputs | None) -> Outputs:
        steps = self._chunk_length(x)
        if self._step_program() is None or self._form.steered:
            self._prepare({name: a[0] if steps else np.empty(a.shape[1:], a.dtype) for name, a in self._named(x).items()})
        inputs, outputs = self._slots()
        arrays = {n: checks.as_input(a, n, inputs[n][0], (steps, *inputs[n][1])) for n, a in self._named(x).items()}
        results = checks.chunk_outputs(steps, outputs, arrays, out)
        before = self._memory.block.copy()
        try:
            for t in range(steps):
                step = tuple(r[t, ...] for r in results)
                self._run_step({n: a[t, ...] for n, a in arrays.items()}, step[0] if len(step) == 1 else step)
        except BaseException:
            self._memory.block[...] = before
            raise
        return results[0] if len(results) == 1 else tuple(results)

    def _push_resets(self, x: Inputs, resets: ArrayLike, out: Outputs | None) -> Outputs:
        """A chunk in which rows start afresh: by the kernels, or in pieces, cut where rows do; all is checked before any of them runs."""
        arrays, steps = self._named(x), self._chunk_length(x)
        mask = checks.as_resets(resets, steps, self.batch)
        if self._form.keeping is not None:
            arrays = {**arrays, KEEP: (~mask).astype(np.float32)}
            runners, sizes = self._chunk_program(self._form.keeping, arrays, steps)
            return runners.call(sizes, self._memory, arrays, out)
        if self._step_program() is None or self._form.steered:
            self._prepare({name: a[0] if steps else np.empty(a.shape[1:], a.dtype) for name, a in arrays.items()})
        inputs, outputs = self._slots()
        arrays = {n: checks.as_input(a, n, inputs[n][0], (steps, *inputs[n][1])) for n, a in arrays.items()}
        results = checks.chunk_outputs(steps, outputs, arrays, out)
        before, afresh, single = self._memory.block.copy(), self._starter(), len(arrays) == len(results) == 1
        (only,), (y,) = (arrays.values(), results) if single else ((mask,), (mask,))
        stepwise = single and self._form.timed and not self._form.steered
        try:
            for start, end, rows in cuts(mask):
                if len(rows):
                    afresh(rows)
                if stepwise and end - start == 1:
                    self._run_step(only[start], y[start])
                elif single:
                    self._push_now(only[start:end], y[start:end])
                else:
                    into = tuple(r[start:end] for r in results)
                    self._push({name: a[start:end] for name, a in arrays.items()}, into if len(into) > 1 else into[0])
        except BaseException:
            self._memory.block[...] = before
            raise
        return results[0] if len(results) == 1 else tuple(results)

    def _slots(self) -> tuple[Described, Described]:
        """dtype and shape of a step's inputs and outputs, by name."""
        program = self._step_program()
        assert program is not None, "a step is bound before it is looked at"
        inputs, outputs = ({s.name: (s.dtype, self._form.dims(s.shape, self._sizes)) for s in slots} for slots in (program.inputs, program.outputs))
        return inputs, outputs

    # States.

    def _copies(self) -> dict[str, np.ndarray]:
        return self._memory.layout.views(self._memory.block.copy())

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Copies of the states by name; assign such a dict to set them all. Raises StateError and changes nothing where one does not fit."""
        return self._exclusive(self._copies)

    @state.setter
    def state(self, values: StateDict) -> None:
        self._exclusive(lambda: self._set(values))

    def _set(self, values: StateDict) -> None:
        layout = self._memory.layout
        checked = layout.checked(values, "stream.state")
        for name, current in layout.views(self._memory.block).items():
            current[...] = checked[name]

    def reset(self, rows: ArrayLike | None = None) -> None:
        """States back to their initial values: all rows, or those of the given batch indices. Raises StateError for a row that is not there."""
        self._exclusive(lambda: self._reset(rows))

    def _reset(self, given: ArrayLike | None) -> None:
        if given is None:
            self._memory.block[...] = self._form.start(self._sizes_at_start())[1]
            return
        rows = np.atleast_1d(checks.as_array(given, "rows"))
        if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= self.batch):
            raise StateError(f"rows must be integers in 0..{self.batch - 1}, got {rows}")
        self._starter()(rows.astype(np.intp))

    def _starter(self) -> Callable[[np.ndarray], None]:
        """A function that starts rows afresh, which are checked."""
        layout, first = self._form.start(self._sizes_at_start())
        axes = {name: axis for name, axis in layout.batch_axes.items() if axis is not None}
        for name in (name for name in layout.batch_axes if name not in axes):
            raise StateError(f"state {name!r} has no batch axis; reset all rows at once")
        initial, zeros = layout.views(first), not first.any()
        states = [((slice(None),) * axes[name], current, initial[name]) for name, current in layout.views(self._memory.block).items()]

        def afresh(rows: np.ndarray) -> None:
            for before, current, value in states:
                at: tuple[slice | np.ndarray, ...] = (*before, rows)
                current[at] = 0 if zeros else value[at]

        return afresh

    def _sizes_at_start(self) -> dict[str, int]:
        fixed = self._form.steppable.batch
        return {fixed: self.batch} if isinstance(fixed, str) else {}

    def close(self) -> None:
        """Gives up the states; another call raises StateError. Closing twice is as closing once."""
        if self._memory is not None:
            self._exclusive(lambda: self._hold(None))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a stream belongs to its session and this process; what travels is its state: values = stream.state, and where they arrive: "
            f"stream = session.stream(batch={self.batch}); stream.state = values"
        )

    def __repr__(self) -> str:
        if self._memory is None:
            return f"Stream of {self._form.model.name!r}, closed"
        layout = self._memory.layout
        return f"Stream of {self._form.model.name!r}: batch {self.batch}, states " + ", ".join(
            f"{n} {s}" for n, s in zip(layout.names, layout.shapes)
        )


def _ordered(runners: Runners, sizes: Mapping[str, int]) -> np.ndarray:
    """The free dimensions of a program, in its order."""
    return np.array([sizes[name] for name in runners.program.region.dimensions], np.int64)
