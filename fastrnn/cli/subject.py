"""A model as `bench` and the benchmarks call it: whole calls, or steps of a stream, in fastrnn, with small weights too, and in other engines, results compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fastrnn.converters.engines import Engine
from fastrnn.converters.engines.session_engine import SessionEngine
from fastrnn.converters.samples import random_inputs
from fastrnn.converters.verify import TOLERANCE, Difference, compare, compare_streams, first_states, tolerance_of
from fastrnn.errors import FastRNNError
from fastrnn.kernels import roofline
from fastrnn.kernels.roofline import Work
from fastrnn.model.recurrent import RECURRENT
from fastrnn.plan.streams.streaming import batch_symbol, time_symbol
from fastrnn.plan.work import work_of
from fastrnn.runtime.session import Session

MOST_COMPARED = 200  # steps of a stream whose results are compared
NOTE = 160  # characters


@dataclass
class Case:
    """One batch and length: the calls to time, the work they do (None where the roofline does not bound it), and what is known of each engine."""

    batch: int
    steps: int
    runs: dict[str, Callable[[], object]] = field(default_factory=dict)
    work: Work | None = None
    errors: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)

    @property
    def bound(self) -> float | None:
        """Microseconds that one core takes at least."""
        return None if self.work is None else roofline.measure().microseconds(self.work)


class Subject:
    """The model in fastrnn, and how it is called: a call of the whole graph, over a time axis where it has one, or steps of a stream.

    small: the same with small weights, by name; compared with `session` and timed whatever the error. tolerance: None: each comparison's own.
    """

    def __init__(self, session: Session, sizes, constants, tolerance: float | None, seed: int, small: Mapping[str, Session] = {}):
        self.session, self.sizes, self.constants, self.tolerance, self.seed, self.small = session, sizes, constants, tolerance, seed, small
        model = session.plan.specialised({v.name: tuple(sizes.get(d, d) for d in v.shape) for v in session.model.inputs if not v.optional})
        self.time, self.batch = time_symbol(model), batch_symbol(session.model)
        self.streamed = bool(session.model.states) and self.time is None
        self.fixed = None if self.batch is not None else _declared_batch(session, model)

    def inputs(self, batch: int, steps: int) -> dict[str, np.ndarray]:
        """Inputs of a call, or of a step."""
        return random_inputs(
            self.session.model, batch, self.sizes | ({self.time: steps} if self.time else {}), self.constants, np.random.default_rng(self.seed)
        )

    def refused(self, batch: int, steps: int) -> str | None:
        """Why the model's declared shapes do not admit a batch or a length."""
        if self.batch in self.sizes and batch != self.sizes[self.batch]:
            return f"batch {batch}: --size {self.batch}={self.sizes[self.batch]} fixes the batch"
        if self.fixed is not None and batch != self.fixed:
            return f"batch {batch}: the model's declared shapes fix the batch at {self.fixed}"
        if steps != 1 and not self.streamed and self.time is None:
            return f"{steps} steps: the model has neither a symbolic time axis nor states tied by --state"
        return None

    def case(self, batch: int, steps: int, engines: dict[str, Engine]) -> Case:
        """Everything ready, results compared. An engine that cannot run it is left out, its reason noted."""
        case, inputs = Case(batch, steps), self.inputs(batch, steps)
        shapes = {name: a.shape for name, a in inputs.items()}
        case.runs["fastrnn"] = self._calls(self.session, inputs, batch, steps)
        case.runs["fastrnn"]()
        for name, session in self.small.items():
            self._compare(case, name, session, SessionEngine(self.session), inputs, tolerance_of(session.plan.precision))
            case.runs[name] = self._calls(session, inputs, batch, steps)
        if self.session.plan.threads == 1:
            work = work_of(self.session.plan.specialised(shapes))
            repeated = ((work.weight_bytes, steps - 1),) if self.streamed and steps > 1 else ()
            case.work = Work(work.flops * (steps if self.streamed else 1), work.weight_bytes, work.loops + repeated)
        for name, engine in engines.items():
            try:
                self._compare(case, name, self.session, engine, inputs, TOLERANCE)
                if name in case.differs:
                    case.notes[name] += ": not timed"
                else:
                    case.runs[name] = self._theirs(engine, inputs, batch, steps)
            except FastRNNError as error:
                case.notes[name] = brief(error)
        return case

    def _compare(self, case: Case, name: str, session: Session, engine: Engine, inputs, tolerance: float) -> None:
        tolerance = self.tolerance or tolerance
        if self.streamed:
            found = compare_streams(
                session,
                engine,
                min(case.steps, MOST_COMPARED),
                self.sizes,
                tolerance,
                self.constants,
                np.random.default_rng(self.seed),
                self._stream_batch(case.batch),
            )
        else:
            found = compare("call", engine({**inputs, **self.constants}), session.run(inputs), tolerance)
        worst: Difference = max(found, key=lambda d: np.inf if np.isnan(d.relative) else d.relative)
        case.errors[name] = worst.relative
        if not worst.within:
            case.differs.append(name)
            case.notes[name] = f"RESULTS DIFFER past {tolerance:g} in {worst.output!r} ({worst.case})"

    def _stream_batch(self, batch: int) -> int:
        """What Session.stream is asked for: it calls the batch of a model without a symbol for it 1."""
        return batch if self.fixed is None else 1

    def _calls(self, session: Session, inputs, batch: int, steps: int) -> Callable[[], object]:
        if not self.streamed:
            return partial(session.run, inputs)
        stream, tied = session.stream(self._stream_batch(batch)), {s.input for s in session.model.states}
        given = {name: a for name, a in inputs.items() if name not in tied}
        return _repeat(partial(stream.step, next(iter(given.values())) if len(given) == 1 else given), steps)

    def _theirs(self, engine: Engine, inputs, batch: int, steps: int) -> Callable[[], object]:
        given = {**inputs, **self.constants}
        if not self.streamed:
            return engine.bind(given).run
        first = first_states(self.session, self.session.stream(self._stream_batch(batch)), inputs)
        return _repeat(engine.stepper({**given, **first}, self.session.model.states), steps)


def _repeat(step: Callable[[], object], steps: int) -> Callable[[], object]:
    if steps == 1:
        return step

    def run() -> None:
        for _ in range(steps):
            step()

    return run


def _declared_batch(session: Session, model) -> int:
    """The batch that shapes without a symbol for it have: the recurrent layers', else the first dimension of the first input."""
    for node in model.nodes:
        shape = model.specs[node.input(0)].shape if node.op in RECURRENT else None
        if shape and isinstance(shape[1 - node.get("layout")], int):
            return shape[1 - node.get("layout")]
    first = next((v.shape for v in session.model.inputs if v.shape), (1,))
    return first[0] if isinstance(first[0], int) else 1


def brief(error: Exception) -> str:
    """What went wrong, on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= NOTE else f"{text[:NOTE]}..."
