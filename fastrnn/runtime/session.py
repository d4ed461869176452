"""A compiled model: whole sequences of any batch and length, from any number of threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import log
from fastrnn.errors import InvalidModelError, NotStreamableError, OutOfMemoryError, ShapeError
from fastrnn.model import Model, State
from fastrnn.model.absent import Absent
from fastrnn.model.file import fingerprint
from fastrnn.model.show import notebook, summary
from fastrnn.plan import Plan, compile_plan
from fastrnn.plan.explain import arrays_among, in_use
from fastrnn.plan.graph.narrow import narrowed
from fastrnn.plan.lowering import parallel
from fastrnn.plan.specialise import specialise, steered_program
from fastrnn.plan.streams.context import with_context
from fastrnn.plan.streams.guess import Guess, guess_states, with_states
from fastrnn.plan.weights.unpack import absent_weights
from fastrnn.runtime import checks
from fastrnn.runtime.executor._executor import Runners
from fastrnn.runtime.executor.threads import announce
from fastrnn.runtime.streams.forms import Forms
from fastrnn.runtime.streams.stream import Stream

if TYPE_CHECKING:
    from fastrnn.runtime.pools.pool import Pool
    from fastrnn.typing import Array, ArrayLike, Constants, Layer, Outputs, Precision, States

# Programs kept by a session, one a region of sizes; the oldest goes. Memory does not grow with the number of shapes.
MOST_PROGRAMS = 32
# For adding a program, in all sessions; a fork waits for it, or the child would never get it.
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


def compile(
    model: Model | Layer,
    backend: str = "auto",
    precision: Precision = "float32",
    threads: int = 1,
    states: States | None = None,
    constants: Constants | None = None,
) -> Session:
    """Packs a model's weights and returns a Session.

    model    : a Model, or what has to_model(): a layer, a network of fastrnn.training
    backend  : "auto" (FASTRNN_BACKEND, else native), "native", "jit" or "reference"
    precision: "float32", "bfloat16" or "int8", of the weights of recurrent and dense layers and convolutions; or a dict of them by node,
               {"default": "int8", "head": "float32"}. docs/design/precision.md says what each computes; explain() which nodes have it
    threads  : most threads that a call may use, the caller's included; what pays is chosen for the shapes in use, see Session.explain.
               All calls of a process together use no more than its processors, or what threadpoolctl allows. Changes no bit.
    states   : {input: output} or {input: (output, index)}, fed back by streams; in place of the model's own. None: the model's own, and where it
               declares none, streams take those that guess_states is certain of. {}: none
    constants: {input: value} fixed at compile time; a fixed initial state is where streams of a model with a time axis start

    Raises UnsupportedModelError naming what cannot be honoured. The model is not changed.
    """
    begun = time.perf_counter()
    model = narrowed(bound(model, states, constants), precision)
    plan = compile_plan(model, backend, precision, threads)
    session = Session(plan, model, guess=states is None)
    log.info(
        "model %r compiled in %.1f ms: backend %s, ISA %s, %s",
        model.name,
        1e3 * (time.perf_counter() - begun),
        plan.backend,
        plan.isa,
        plan.precision,
    )
    return session


def _recompiled(model: Model, backend: str, precision: Precision, threads: int, guess: bool) -> Session:
    return Session(compile_plan(model, backend, precision, threads), model, guess)


def bound(model: Model | Layer, states: States | None = None, constants: Constants | None = None) -> Model:
    """The model with its states tied and inputs fixed as compile does it; weights are shared."""
    if not isinstance(model, Model | type) and hasattr(model, "to_model"):
        model = model.to_model()
    if not isinstance(model, Model):
        raise InvalidModelError(f"compile takes a fastrnn Model or layer, got {type(model).__name__}; see from_torch and load")
    if constants is not None:
        model = _fix(model, checks.as_mapping(constants, "constants", InvalidModelError))
    if states is not None:
        tied = [_tied(i, o) for i, o in checks.as_mapping(states, "states", InvalidModelError).items()]
        model = replace(model, states=tuple(tied))
    return model


def _shapes(arrays: Iterable[tuple[str, Any]]) -> str:
    """Names and shapes, for a message."""
    return ", ".join(f"{name!r} {np.shape(value)}" for name, value in arrays)


def _tied(name: str, output: object) -> State:
    name_and_index = output if isinstance(output, tuple) else (output, None)
    if len(name_and_index) != 2 or not isinstance(name_and_index[0], str):
        raise InvalidModelError(f"states: {name!r} must name an output, or (output, index), got {output!r}")
    return State(name, *name_and_index)


def _fix(model: Model, constants: Constants) -> Model:
    inputs, weights = {v.name: v for v in model.inputs}, dict(model.weights)
    for name, value in constants.items():
        if name not in inputs:
            raise InvalidModelError(f"constants: {name!r} is not an input; inputs are {', '.join(map(repr, model.input_names))}")
        array = checks.as_array(value, name)
        checks.bind_shapes([inputs.pop(name)], {name: array})
        weights[name] = array.copy()
    free = tuple(s for s in model.states if s.input in inputs)
    return replace(model, inputs=tuple(inputs.values()), weights=weights, states=free)


class Session:
    """A compiled model. Immutable, safe to use from many threads at once: each call has its own work space.

    Can be pickled and copied: it is compiled again where it arrives, with its backend, for the instruction set there, to the same bits.
    """

    def __init__(self, plan: Plan, model: Model, guess: bool = False) -> None:
        if plan.threads > 1:
            announce()
        # what the caller gave may go: the plan has it packed
        packed = {name: a for name, a in plan.model.weights.items() if isinstance(a, Absent) and name in model.weights}
        self._plan, self._model = plan, replace(model, weights={**model.weights, **packed}) if packed else model
        self._runners: tuple[Runners, ...] = ()  # of every region met
        self._names = model.input_names
        self._guesses = guess and not model.states
        self._forms: dict[tuple[object, ...], Forms] = {}  # by the context of streams

    @property
    def model(self) -> Model:
        """The model that was compiled, states and constants as given, without the numbers of weights that are packed: it cannot be saved."""
        return self._model

    @property
    def plan(self) -> Plan:
        """What was chosen for every op; see explain()."""
        return self._plan

    def run(self, inputs: Mapping[str, ArrayLike | None]) -> dict[str, Array]:
        """Outputs by name, as new arrays, from inputs by name (float32 and int64 arrays; strided ones are copied).

        Raises ShapeError or DTypeError naming the input, OutOfMemoryError where work space or outputs do not fit.
        """
        try:
            for runners in self._runners:
                if (result := runners.run_named(inputs)) is not None:
                    return result
            return self._run(checks.as_mapping(inputs, "inputs"))
        except MemoryError as error:
            raise OutOfMemoryError(f"running {_shapes(inputs.items())}: {error or 'no memory left'}") from error

    def _run(self, inputs: Mapping[str, ArrayLike | None]) -> dict[str, Array]:
        """run, for inputs that no program so far takes as they are."""
        checks.known_names(inputs, self._names)
        arrays = {name: checks.as_array(value, name) for name, value in inputs.items() if value is not None}
        checks.bind_shapes(self.model.inputs, arrays)
        arrays = {name: np.require(a, requirements=["C", "A"]) for name, a in arrays.items()}
        for runners in self._runners:
            if (result := runners.run_named(arrays)) is not None:
                return result
        result = self._specialise(arrays).run_named(arrays)
        assert result is not None, "a program that was made for a call does not hold for it"
        return result

    def _specialise(self, arrays: Mapping[str, np.ndarray]) -> Runners:
        """The runners of a new program, for inputs such as these; kept, the oldest goes."""
        runners = Runners(specialise(self._plan, arrays), self._names)
        with _LOCK:
            self._runners = (runners, *self._runners)[:MOST_PROGRAMS]
        return runners

    def __call__(self, *arrays: ArrayLike | None) -> Outputs:
        """Positional inputs (None leaves an optional one out); one array, or a tuple for several outputs."""
        if len(arrays) > len(self._names):
            raise ShapeError(f"there are {len(self._names)} inputs, {', '.join(map(repr, self._names))}; got {len(arrays)} arrays")
        outputs = self.listed(arrays)
        if outputs is None:
            outputs = tuple(self.run(dict(zip(self._names, arrays))).values())
        return outputs[0] if len(outputs) == 1 else outputs

    def listed(self, arrays: tuple[ArrayLike | None, ...]) -> tuple[Array, ...] | None:
        """The outputs in order, from the model's first inputs; None, and nothing done, unless a program so far takes these arrays as they are."""
        try:
            for runners in self._runners:
                if (result := runners.run_listed(arrays)) is not None:
                    return result
        except MemoryError as error:
            raise OutOfMemoryError(f"running {_shapes(zip(self._names, arrays))}: {error or 'no memory left'}") from error
        return None

    @cached_property
    def guess(self) -> Guess:
        """What is guessed of the states, see guess_states; empty where states are declared or were given to compile."""
        return guess_states(self._plan.model) if self._guesses else Guess()

    @property
    def states(self) -> tuple[State, ...]:
        """The states that streams carry from inputs to outputs: declared, given to compile, or guessed."""
        return self.model.states or self.guess.tied(self.model)

    @cached_property
    def stream_plan(self) -> Plan:
        """The plan that streams run, its states tied; raises NotStreamableError where what looks like a state has no certain output."""
        if self.guess.open:
            reasons = "; ".join(f"input {name!r}: {why}" for name, why in self.guess.open.items())
            raise NotStreamableError(
                f"which outputs feed the states is not certain: {reasons}. Say it with states={{input: output}}, or states={{}} for none"
            )
        return with_states(self._plan, self.states) if self.guess.states else self._plan

    def _forms_of(self, context: Mapping[str, int] | None) -> Forms:
        """What streams with this context share."""
        context = {} if context is None else checks.as_mapping(context, "context", ShapeError)
        key = tuple((name, n if isinstance(n, (int, np.integer)) else str(n)) for name, n in context.items())
        if key not in self._forms:
            plan = self.stream_plan
            forms = Forms(with_context(plan, context) if key else plan)
            with _LOCK:
                self._forms.setdefault(key, forms)
        return self._forms[key]

    def stream(self, batch: int = 1, context: Mapping[str, int] | None = None) -> Stream:
        """A Stream of `batch` rows with zero or initial states; see `states` for what it carries beside what the graph keeps inside. Where all sizes of the model are numbers and a
        step is a call of it, the stream has the model's own batch, which stream() takes as it is.

        context: {input: n} for a model whose frames overlap: its call takes, in the last dimension of that input, the last n entries of the frame before
        and then a new frame. A step is given the new entries alone, and the stream keeps the others, zeros at first, as state "<input>.context". For models
        that are called once a step.

        Raises NotStreamableError naming the node in the way, or the input whose state is not certain; ShapeError for a context that does not fit.
        """
        return Stream(self._forms_of(context), batch)

    def pool(
        self, capacity: int = 4096, context: Mapping[str, int] | None = None, *, sizes: Mapping[str, int] | None = None, lock: bool = False
    ) -> Pool:
        """A Pool: up to `capacity` independent streams, and one batched step for whichever are ready.

        context: as of stream. sizes: of dimensions that the model leaves open beside batch and time, by symbol; unless they are given, the first step fixes them and pays for the
        planning. lock: calls from several threads wait for each other instead of raising BusyError.

        Raises NotStreamableError as stream does, and where the model's batch is fixed at more than one.
        """
        from fastrnn.runtime.pools.pool import Pool  # which most sessions never need

        try:
            return Pool(self._forms_of(context), capacity, sizes, lock, lambda: self._fingerprint)
        except MemoryError as error:
            raise OutOfMemoryError(f"a pool of {capacity} streams: {error or 'no memory left'}") from error

    def explain(self, shapes: Mapping[str, tuple[int | str, ...] | np.ndarray] | None = None) -> str:
        """A table, op by op: kernel, backend, ISA, packed bytes and why; ops left to NumPy are marked.

        shapes: of inputs by name, to see what is left once they are known; without, what holds for all of them. An array in the place of a shape
        has that shape, and says what an input holds that decides branches or sizes. With several threads and shapes that are all numbers, lines
        follow for the calls that run at once; the rest stays on the caller's thread.
        """
        if shapes is not None:
            checks.known_names(checks.as_mapping(shapes, "shapes"), self._plan.model.input_names)
        text = self._plan.explain(shapes)
        whole = in_use(self.model, shapes or {})
        if self._plan.threads == 1 or not all(isinstance(n, int) for shape in whole.values() for n in shape):
            return text
        return "\n".join([text, *parallel.describe(steered_program(self._plan, whole, arrays_among(shapes or {}))[1].steps)])

    def _whole_model(self) -> Model:
        """The model with the numbers of its packed weights."""
        there = {**self._model.weights, **{name: a for name, a in absent_weights(self._plan).items() if name in self._model.weights}}
        return replace(self._model, weights=there)

    @cached_property
    def _fingerprint(self) -> str:
        """Of the model and the states that its streams carry."""
        return fingerprint(replace(self._whole_model(), states=self.states))

    def __reduce__(self) -> tuple[Callable[..., Session], tuple[object, ...]]:
        """Travels as its model, whose packed weights are unpacked on the way, and is compiled again where it arrives: for that machine, to the same bits."""
        plan = self._plan
        return _recompiled, (self._whole_model(), plan.backend, plan.precision, plan.threads, self._guesses)

    def __repr__(self) -> str:
        plan = self._plan
        threads = f"{plan.threads} thread{'s' if plan.threads > 1 else ''}"
        return (
            f"Session: backend {plan.backend}, ISA {plan.isa}, {plan.precision}, {threads}; explain() says what runs each op\n{summary(self.model)}"
        )

    def _repr_html_(self) -> str:
        return notebook(repr(self), self.explain(), "what runs each op")
