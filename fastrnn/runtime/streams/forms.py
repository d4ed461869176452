"""What the streams of a session share: the steppable forms of its model, their programs, and where states start.

A Form holds for a region of batch sizes; its programs take a step, or a chunk, of sizes in a region. A stream is a block of states and the
programs that it was given, so opening one costs little more than the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from copy import copy
from functools import cached_property

import numpy as np

from fastrnn.errors import NotStreamableError, UnsupportedModelError
from fastrnn.model import Model
from fastrnn.model.edit import changed
from fastrnn.model.ops.registry import has_symbol
from fastrnn.model.sizes import LEAST, MOST, Scope, Whole, evaluate, has_sizes
from fastrnn.plan import Plan, Program, build_program
from fastrnn.plan.specialise import steering, steering_values
from fastrnn.plan.streams.keep import KEEP, keeping
from fastrnn.plan.streams.streaming import Steppable, check_calls, steppable
from fastrnn.plan.streams.timeline import Prefix
from fastrnn.runtime.executor._executor import Runners
from fastrnn.runtime.streams.states import StateLayout

# Sets of sizes whose states' layout and start a form keeps; the least recently used goes.
MOST_STARTS = 16


class Forms:
    """The forms of a plan's model, found by batch. Safe from many threads."""

    def __init__(self, plan: Plan):
        self.plan, self._forms, self._lock = plan, [], threading.RLock()

    def of(self, batch: int) -> Form:
        """The form for streams of so many rows. Raises NotStreamableError naming the node that stands in the way."""
        for form in self._forms:
            if form.allows(batch):
                return form
        with self._lock:
            self._forms.append(Form(self.plan, batch))
            return self._forms[-1]


class KeepingForms(Forms):
    """Forms with an input that says where rows start afresh, of a plan whose forms have such."""

    def __init__(self, forms: Forms):
        super().__init__(forms.plan)
        self._plain = forms

    def of(self, batch: int) -> Form:
        """See Forms."""
        form = self._plain.of(batch).keeping
        assert form is not None, "whether states are layers' alone does not depend on the batch"
        return form


class Form:
    """A steppable form and its programs. batch: the rows that it was made for; it serves all that its guards allow."""

    def __init__(self, plan: Plan, batch: int):
        self.plan, self.scope, self.batch = plan, Scope(), batch
        self._take(steppable(plan, batch, self.scope))

    def _take(self, form: Steppable) -> None:
        self.steppable, self._kept = form, KEEP in form.time_axes
        self.model, self.timed = self.steppable.model, bool(self.steppable.time_axes)
        self.steered = not self.timed and bool(steering(self.plan.model))
        self._guards, self._sized = tuple(self.scope.guards), bool(self.scope.dimensions)
        self._programs: dict[tuple, list[Runners]] = {}
        self._starts: dict[tuple, tuple[StateLayout, np.ndarray]] = {}
        self._lock = threading.RLock()

    @cached_property
    def keeping(self) -> Form | None:
        """The form with an input that says what states are multiplied by on their way into a step (plan/streams/keep.py); None where there is none."""
        form = keeping(self.steppable)
        if form is None:
            return None
        kept = copy(self)
        kept._take(form)
        return kept

    def allows(self, batch: int) -> bool:
        """Whether the form is right for so many rows."""
        symbol = self.steppable.batch
        if not self._sized:
            return batch == self.batch or not isinstance(symbol, str)
        return LEAST <= batch <= MOST and all(guard.allows({symbol: batch}) for guard in self._guards)

    def dims(self, shape: Iterable[Whole | str], sizes: Mapping[str, int]) -> tuple[int, ...]:
        """A shape of the form's model for these sizes. Raises NotStreamableError for a symbol that is none of them."""
        for dim in shape:
            if isinstance(dim, str) and dim not in sizes:
                raise NotStreamableError(f"dimension {dim!r} is neither batch nor time; a stream cannot fix it")
        return tuple(sizes[d] if isinstance(d, str) else evaluate(d, sizes) for d in shape)

    # Programs.

    def program(self, sizes: Mapping[str, int], values: Mapping[str, np.ndarray], squeeze: bool = False) -> Runners:
        """The program of a call of these sizes, by symbol; squeeze: its time axis of 1 is left out of the caller's arrays. values: arrays of the
        inputs that are no states, looked at where one of them steers."""
        key = squeeze, *sorted((name, n if not LEAST <= n <= MOST else -1) for name, n in sizes.items())
        with self._lock:
            known = self._programs.setdefault(key, [])
            for runners in known:
                if runners.fits(sizes, values):
                    return runners
            fresh: Form | None = self
            if any(size.value != sizes.get(name) for name, size in self.scope.dimensions.items()):
                fresh = Form(self.plan, self.rows(sizes))
                fresh = fresh.keeping if self._kept else fresh
            assert fresh is not None, "whether states are layers' alone does not depend on sizes"
            runners = Runners(fresh.build(sizes, values, squeeze))
            known.append(runners)
            return runners

    def rows(self, sizes: Mapping[str, int]) -> int:
        """The batch among these sizes."""
        symbol = self.steppable.batch
        return sizes[symbol] if isinstance(symbol, str) else symbol or 1

    def build(self, sizes: Mapping[str, int], values: Mapping[str, np.ndarray], squeeze: bool) -> Program:
        """The program for these sizes, which are those of the form's scope as far as it has them."""
        form, shapes = self.steppable, self._shapes(sizes)
        try:
            program = self._built(shapes, {})
        except UnsupportedModelError:
            if not (steering := steering_values(self.plan.model, values)):
                raise
            program = self._built(shapes, steering)
        return program.without_time({v.name for v in form.inputs} | set(form.outputs)) if squeeze and self.timed else program

    def _shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple]:
        states = {s.input for s in self.model.states}
        return {
            v.name: tuple(self.scope.dimension(d, sizes[d]) if isinstance(d, str) and d in sizes else d for d in v.shape)
            for v in self.model.inputs
            if not v.optional or v.name in states
        }

    def nodes(self, sizes: Mapping[str, int], values: Mapping[str, np.ndarray]) -> Model:
        """What is left to run for these sizes, free dimensions as Sizes; values: of inputs that steer."""
        return self.plan.specialised({**self._shapes(sizes), **{name: a.shape for name, a in values.items()}}, self.model, values)

    def _built(self, shapes, values: Mapping[str, np.ndarray]) -> Program:
        model = self.plan.specialised({**shapes, **{name: a.shape for name, a in values.items()}}, self.model, values)
        if not self.timed:
            check_calls(model)
        for state in self.model.states:
            if has_symbol(model.specs[state.output].shape):
                raise NotStreamableError(f"state {state.input!r}: the shape of its output {state.output!r} is not known before it runs")
        return build_program(self.plan, model, self.scope, self.steppable.time_axes, self.model.states, values)

    # Where states start.

    def start(self, sizes: Mapping[str, int]) -> tuple[StateLayout, np.ndarray]:
        """The layout of the states for these sizes, and a block that holds what they are before the first step."""
        key = tuple(sorted(sizes.items()))
        found = self._starts.get(key)
        if found is None:
            with self._lock:
                found = self._starts[key] = self._start(sizes)
                while len(self._starts) > MOST_STARTS:
                    del self._starts[next(iter(self._starts))]
        return found

    def _start(self, sizes: Mapping[str, int]) -> tuple[StateLayout, np.ndarray]:
        values = {v.name: v for v in self.model.inputs}
        inputs = [values[s.input] for s in self.model.states]
        shapes = [self.dims(v.shape, sizes) for v in inputs]
        layout = StateLayout(
            [v.name for v in inputs],
            [v.dtype for v in inputs],
            shapes,
            {v.name: self._batch_axis(v.name, shape, self.rows(sizes)) for v, shape in zip(inputs, shapes)},
        )
        block = np.zeros(layout.nbytes, np.uint8)
        for name, state in layout.views(block).items():
            first = self.steppable.initial.get(name)
            if isinstance(first, Prefix):
                self._prefix(first, state, sizes)
            elif isinstance(first, Model):
                state[...] = self._run(first, {}, sizes)
            elif first is not None:
                state[...] = first
        return layout, block

    def _batch_axis(self, name: str, shape: tuple[int, ...], rows: int) -> int | None:
        if name in self.steppable.batch_axes:
            return self.steppable.batch_axes[name]
        # axis 1 first, as in (D, B, n): a fixed batch may equal another dimension
        declared = {v.name: v.shape for v in self.plan.model.inputs}
        symbols = declared.get(name, shape)
        wanted = self.steppable.batch if name in declared else rows
        axes = [axis for axis in ((1, 0) if len(shape) == 3 else range(len(shape))) if symbols[axis] == wanted]
        return axes[0] if axes else None

    def _prefix(self, first: Prefix, state: np.ndarray, sizes: Mapping[str, int]) -> None:
        """What the graph itself makes of hardly any steps."""
        state[...] = first.fill
        steps = {**sizes, self.steppable.time: first.steps}
        states = {s.input for s in self.model.states}
        shapes = {v.name: self.dims(v.shape, steps) for v in first.model.inputs if v.name not in states}
        entries = self._run(first.model, shapes, steps)
        along = (slice(None),) * first.axis
        state[(*along, slice(state.shape[first.axis] - first.count, None))] = entries[(*along, slice(first.lead - first.count, first.lead))]

    def _run(self, model: Model, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]) -> np.ndarray:
        """The only output of a model, from zeros of these shapes."""
        program = build_program(self.plan, self.plan.specialised(shapes, _numbers(model, sizes)))
        return Runners(program).call({}, None, {slot.name: np.zeros(slot.shape, slot.dtype) for slot in program.inputs}, None)


def _numbers(model: Model, sizes: Mapping[str, int]) -> Model:
    """The model with numbers for the Sizes among its constants."""
    weights = {}
    for name, a in model.weights.items():
        weights[name] = np.array([evaluate(v, sizes) for v in a.ravel()], model.specs[name].dtype).reshape(a.shape) if has_sizes(a) else a
    return changed(model, weights=weights)
