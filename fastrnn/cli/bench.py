"""bench: a user's own model, timed beside other engines, at several batch sizes and lengths."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fastrnn.cli.commands import compiled, constants_of, sizes_of
from fastrnn.cli.console import Console, UsageError, plain
from fastrnn.cli.timing import Race
from fastrnn.converters import load
from fastrnn.converters.engines import ENGINES, Engine, engine_for
from fastrnn.converters.verify import compare, compare_streams, first_states, random_inputs
from fastrnn.errors import FastRNNError, MissingDependencyError, ShapeError, UnsupportedModelError
from fastrnn.kernels import roofline
from fastrnn.kernels.roofline import Work
from fastrnn.model.file import write_whole
from fastrnn.plan.fold import RECURRENT
from fastrnn.plan.streaming import batch_symbol, time_symbol
from fastrnn.plan.work import work_of
from fastrnn.runtime.session import Session

SECONDS, ROUNDS = 1.0, (5, 41)  # of timing for a batch and a length; rounds, at least and at most
COLUMNS = ("batch", "steps", "engine", "us", "p99", "ratio", "bound_us", "of_bound", "error", "note")
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
    """The model in fastrnn, and how it is called: a call of the whole graph, over a time axis where it has one, or steps of a stream."""

    def __init__(self, session: Session, sizes, constants, tolerance: float, seed: int):
        self.session, self.sizes, self.constants, self.tolerance, self.seed = session, sizes, constants, tolerance, seed
        model = session.plan.specialised({v.name: tuple(sizes.get(d, d) for d in v.shape) for v in session.model.inputs if not v.optional})
        self.time, self.batch = time_symbol(model), batch_symbol(session.model)
        self.streamed = bool(session.model.states) and self.time is None
        self.fixed = None if self.batch is not None else _declared_batch(session, model)

    def inputs(self, batch: int, steps: int) -> dict[str, np.ndarray]:
        """Inputs of a call, or of a step."""
        return random_inputs(self.session.model, batch, self.sizes | ({self.time: steps} if self.time else {}), self.constants, np.random.default_rng(self.seed))

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
        case.runs["fastrnn"] = self._steps(inputs, batch, steps) if self.streamed else partial(self.session.run, inputs)
        case.runs["fastrnn"]()
        if self.session.plan.threads == 1:
            work = work_of(self.session.plan.specialised(shapes))
            repeated = ((work.weight_bytes, steps - 1),) if self.streamed and steps > 1 else ()
            case.work = Work(work.flops * (steps if self.streamed else 1), work.weight_bytes, work.loops + repeated)
        for name, engine in engines.items():
            try:
                self._compare(case, name, engine, inputs)
                if name not in case.differs:
                    case.runs[name] = self._theirs(engine, inputs, batch, steps)
            except FastRNNError as error:
                case.notes[name] = _short(error)
        return case

    def _compare(self, case: Case, name: str, engine: Engine, inputs) -> None:
        if self.streamed:
            found = compare_streams(self.session, engine, min(case.steps, MOST_COMPARED), self.sizes, self.tolerance, self.constants,
                                    np.random.default_rng(self.seed), case.batch)
        else:
            found = compare("call", engine({**inputs, **self.constants}), self.session.run(inputs), self.tolerance)
        worst = max(found, key=lambda d: np.inf if np.isnan(d.relative) else d.relative)
        case.errors[name] = worst.relative
        if not worst.within:
            case.differs.append(name)
            case.notes[name] = f"RESULTS DIFFER in {worst.output!r} ({worst.case}): not timed"

    def _steps(self, inputs, batch: int, steps: int) -> Callable[[], object]:
        stream, tied = self.session.stream(batch), {s.input for s in self.session.model.states}
        given = {name: a for name, a in inputs.items() if name not in tied}
        return _repeat(partial(stream.step, next(iter(given.values())) if len(given) == 1 else given), steps)

    def _theirs(self, engine: Engine, inputs, batch: int, steps: int) -> Callable[[], object]:
        given = {**inputs, **self.constants}
        if not self.streamed:
            return engine.bind(given).run
        first = first_states(self.session, self.session.stream(batch), inputs)
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


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= NOTE else f"{text[:NOTE]}..."


def open_engines(arguments, model, names: list[str]) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that take the model, and why the others do not. One that is not installed raises."""
    engines, refused = {}, {}
    for name in names:
        try:
            engines[name] = engine_for(arguments.model, model, name, arguments.threads)
        except MissingDependencyError:
            raise
        except UnsupportedModelError as error:
            refused[name] = _short(error)
    return engines, refused


def engine_names(text: str) -> list[str]:
    """Names of engines between commas."""
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in ENGINES]:
        raise UsageError(f"--against {unknown[0]!r} is unknown; known are {', '.join(ENGINES)}")
    return names


def bench(arguments, console: Console) -> int:
    """Times every combination; 1 where results differ past tolerance."""
    names = engine_names(arguments.against) if arguments.against else ["onnxruntime"] if arguments.model.lower().endswith(".onnx") else []
    if arguments.plot:
        if Path(arguments.plot).suffix != ".svg":
            raise UsageError(f"--plot {arguments.plot}: plots are .svg files")
        from fastrnn.cli import plot

        plot.pyplot()  # says now, not after the timing, where it is missing
    model = load(arguments.model)
    constants = constants_of(arguments, model)
    subject = Subject(compiled(arguments, model, threads=arguments.threads), sizes_of(arguments, model), constants, arguments.tolerance, arguments.seed)
    engines, refused = open_engines(arguments, model, names)
    lengths = arguments.steps or ([1, 100] if subject.time else [1])
    combinations, rows, cases = [(b, s) for b in arguments.batch for s in lengths], [], []
    with console.progress("bench", len(combinations)) as progress:
        for done, (batch, steps) in enumerate(combinations):
            progress(f"batch {batch}, {steps} steps", done)
            if why := subject.refused(batch, steps):
                rows.append((batch, steps, "fastrnn", *(None,) * 6, why))
                continue
            try:
                case = subject.case(batch, steps, engines)
            except ShapeError as error:
                rows.append((batch, steps, "fastrnn", *(None,) * 6, _short(error)))
                continue
            race = Race(case.runs)
            for _ in range(race.rounds_within(SECONDS, *ROUNDS)):
                race.round()
            cases.append((case, race.summary()))
            rows += _rows(*cases[-1], names, refused)
    if not cases:
        raise UnsupportedModelError(f"{arguments.model}: nothing can be run: {'; '.join(dict.fromkeys(row[-1] for row in rows))}")
    what = "calls of a stream" if subject.streamed else f"length of {subject.time!r}" if subject.time else "one call"
    console.table("results", f"{arguments.model}, {arguments.threads} thread{'s' * (arguments.threads > 1)}; steps: {what}", COLUMNS, rows)
    differs = sorted({name for case, _ in cases for name in case.differs})
    console.facts(model=arguments.model, threads=arguments.threads, tolerance=arguments.tolerance, same_results=not differs, roofline=roofline.measure().facts())
    if differs:
        console.warn(f"RESULTS DIFFER past {arguments.tolerance:g} of the largest entry from {', '.join(differs)}: see the column error")
    if arguments.plot:
        _plot(arguments, cases, names)
    if isinstance(arguments.json, str):
        write_whole(arguments.json, (json.dumps(plain(console.data), indent=2, allow_nan=False) + "\n").encode())
    return 1 if differs else 0


def _rows(case: Case, summary, names: list[str], refused: dict[str, str]) -> list[tuple]:
    """A row for each engine, refused ones included."""
    rows, mine = [], summary["fastrnn"]["us"]
    for name in ("fastrnn", *names):
        numbers: tuple = (None,) * 5
        if name in summary:
            us = summary[name]["us"]
            bound = (round(case.bound, 3), f"{case.bound / us:.0%}") if case.bound else (None, None)
            numbers = (float(f"{us:.4g}"), float(f"{summary[name]['p99']:.4g}"), round(us / mine, 2), *bound)
        error = case.errors.get(name)
        rows.append((case.batch, case.steps, name, *numbers, None if error is None else float(f"{error:.2g}"), refused.get(name) or case.notes.get(name)))
    return rows


def _plot(arguments, cases, names: list[str]) -> None:
    from fastrnn.cli import plot

    us = {name: [summary.get(name, {}).get("us") for _, summary in cases] for name in ("fastrnn", *names)}
    plot.bars(arguments.plot, Path(arguments.model).name, [f"batch {case.batch}, {case.steps} steps" for case, _ in cases],
              {name: values for name, values in us.items() if any(values)}, [case.bound for case, _ in cases])
