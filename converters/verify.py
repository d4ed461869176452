"""The same inputs through the source's own engine and through fastrnn: how far each output is off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.converters.engines import Engine
from fastrnn.converters.samples import length_symbol, random_inputs, sizes_given, stream_batch
from fastrnn.errors import NotStreamableError, ShapeError, UnsupportedModelError
from fastrnn.plan.graph.narrow import chosen
from fastrnn.plan.streams.streaming import batch_symbol
from fastrnn.runtime.session import Session
from fastrnn.runtime.streams.stream import Stream

if TYPE_CHECKING:
    from fastrnn.model import Model
    from fastrnn.typing import Precision

TOLERANCE = 2e-5  # of an output's largest entry: a network of a few layers in float32, computed in two orders
# With small weights, of float32's own results. Trained networks pass 0.055 and 0.15 nowhere (docs/design/precision.md); what is wrong, a lost scale or a row amiss, is off by half and more.
SMALL_TOLERANCES = {"bfloat16": 0.1, "int8": 0.2}
LENGTHS = (16, 37)


def tolerance_of(precision: Precision) -> float:
    """The tolerance for the coarsest of the precisions named."""
    choice = chosen(precision)
    return max(SMALL_TOLERANCES.get(name, TOLERANCE) for name in (choice.default, *choice.named.values()))


@dataclass(frozen=True)
class Difference:
    """One output of one case: largest error and largest entry over all its elements; within: whether the error is small enough."""

    case: str
    output: str
    error: float
    scale: float
    tolerance: float

    @property
    def relative(self) -> float:
        """The error as a fraction of the scale."""
        return self.error / self.scale if self.scale else 0.0 if self.error == 0 else np.inf

    @property
    def within(self) -> bool:
        """Whether it is within tolerance; NaN is not."""
        return self.relative <= self.tolerance


@dataclass(frozen=True)
class Verdict:
    """differences: of every output of every case. stream: what the stream carried, or why there was none. skipped: cases that the other engine
    cannot run, with its reason."""

    differences: list[Difference]
    stream: str
    skipped: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether everything is within tolerance."""
        return all(d.within for d in self.differences)


def compare(case: str, wanted: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], tolerance: float) -> list[Difference]:
    """A Difference for each output; raises ShapeError where shapes differ."""
    found = []
    for name, want in wanted.items():
        want, have = np.asarray(want), np.asarray(got[name])
        if want.shape != have.shape or want.dtype.kind != have.dtype.kind:
            raise ShapeError(f"{case}: output {name!r} is {have.dtype} {have.shape}, the other engine's {want.dtype} {want.shape}")
        with np.errstate(invalid="ignore"):  # infinities that agree are told apart below
            error = np.abs(have.astype(np.complex128 if have.dtype.kind == "c" else np.float64) - want) if want.size else np.zeros(1)
        error = np.where(np.isnan(have) & np.isnan(want) | (have == want), 0.0, error) if want.size else error
        finite = want[np.isfinite(want)] if want.dtype.kind in "fc" else want
        found.append(Difference(case, name, float(error.max()), float(np.abs(finite).max(initial=0)), tolerance))
    return found


def verify(
    session: Session,
    engine: Engine,
    batches: Iterable[int] = (1, 3),
    steps: int = 50,
    sizes: Mapping[str, int] = {},
    tolerance: float = TOLERANCE,
    seed: int = 0,
    constants: Mapping[str, np.ndarray] = {},
    progress: Callable[..., None] = lambda note, done, total: None,
    lengths: Iterable[int] = LENGTHS,
    given: Mapping[str, np.ndarray] = {},
) -> Verdict:
    """Whole calls at several batch sizes and lengths, then, where the model streams, a stream of `steps` steps.

    Inputs are drawn as random_inputs says. constants: values of inputs that both engines get. sizes: of symbolic dimensions, 16 where not
    said. lengths: of the time axis, where a symbol names it. A batch that the model fixes is used once. given: arrays to take instead of random
    ones in one whole call, of the batch and length that they have; a stream takes those that fit a step. progress: (note, done, total) before
    each case. A case that the engine cannot run is left out and said, unless none is left: then its UnsupportedModelError is raised.
    """
    model, random, found = session.model, np.random.default_rng(seed), []
    calls = whole_calls(model, list(batches), list(lengths), sizes, given)
    ran, refused = [], {}
    for done, (case, batch, known) in enumerate(calls):
        progress(case, done, len(calls) + 1)
        inputs = random_inputs(model, batch, known, {**constants, **given}, random)
        try:
            theirs = engine({**inputs, **constants})
        except UnsupportedModelError as error:
            refused[case] = error
            continue
        found += compare(case, theirs, session.run(inputs), tolerance)
        ran.append(batch)
    if not ran:
        raise next(iter(refused.values()))
    skipped = tuple(f"{case}: {error}" for case, error in refused.items())
    progress(f"stream of {steps} steps", len(calls), len(calls) + 1)
    try:
        stream = session.stream(batch := stream_batch(session, ran[-1]))
    except NotStreamableError as error:
        return Verdict(found, f"none: {error}", skipped)
    if not session.states and stream.time is None:
        return Verdict(found, "none: the model has neither states nor a time axis", skipped)
    kept = {name: a for name, a in given.items() if name in stream.step_shapes() and _fits(stream.step_shapes()[name], a.shape)}
    how = compare_streams if set(stream.state) == {s.input for s in session.states} else compare_with_whole
    found += how(session, engine, steps, sizes, tolerance, {**constants, **kept}, random, batch)
    states = ", ".join(f"{s.input} <- {s.source}" for s in session.states)
    inside = ", ".join(name for name in stream.state if name not in {s.input for s in session.states})
    carried = (f", states {states}{' (guessed)' if session.guess.states else ''}" if states else "") + (f", inside {inside}" if inside else "")
    return Verdict(found, f"{steps} steps{carried}", skipped)


def _fits(declared: tuple[object, ...], shape: tuple[int, ...]) -> bool:
    return len(declared) == len(shape) and all(isinstance(d, str) or d == n for d, n in zip(declared, shape))


def whole_calls(
    model: Model, batches: list[int], given_lengths: list[int], sizes: Mapping[str, int], given: Mapping[str, np.ndarray]
) -> list[tuple[str, int, dict[str, int]]]:
    """(name, batch, sizes of dimensions) of each whole call that verify makes."""
    symbol, length = batch_symbol(model), length_symbol(model)
    if given:
        known = sizes_given(model, given)
        if clash := {d for d in known if sizes.get(d, known[d]) != known[d]}:
            raise ShapeError(f"dimension {min(clash)!r} is {known[min(clash)]} in the given inputs, and {sizes[min(clash)]} by its size")
        return [("given inputs", 1 if symbol is None else known.get(symbol, batches[0]), {**sizes, **known})]
    lengths = [{length: n} for n in given_lengths] if length is not None and length not in sizes else [{}]
    batches = [1] if symbol is None else [sizes[symbol]] if symbol in sizes else batches
    return [
        (", ".join([f"batch {batch}" if symbol is not None else "whole", *(f"{d} = {n}" for d, n in known.items())]), batch, {**sizes, **known})
        for batch in batches
        for known in lengths
    ]


def compare_streams(
    session: Session,
    engine: Engine,
    steps: int,
    sizes: Mapping[str, int],
    tolerance: float,
    constants: Mapping[str, np.ndarray],
    random: np.random.Generator,
    batch: int = 1,
) -> list[Difference]:
    """Every step through both, each with its own states; errors and scales over the whole stream."""
    model, stream = session.model, session.stream(batch)
    alone = {stream.time: 1} if stream.time is not None else {}
    inputs = random_inputs(model, batch, alone | dict(sizes), constants, random, (steps,))
    states = first_states(session, stream, {name: a[0] for name, a in inputs.items()})
    tied = {s.output for s in session.states}
    wanted: dict[str, list[np.ndarray]] = {}
    got: dict[str, list[np.ndarray]] = {}
    for t in range(steps):
        step = {name: np.asarray(a[t]) for name, a in inputs.items() if name not in states}
        theirs = engine({**step, **constants, **states})
        states = {s.input: np.asarray(s.part(theirs[s.output], states[s.input].ndim), states[s.input].dtype) for s in session.states}
        mine = stream.step({name: np.squeeze(a, stream.time_axis(name)) if stream.time else a for name, a in step.items()})
        named = dict(zip([n for n in model.output_names if n not in tied], mine if isinstance(mine, tuple) else (mine,)))
        for name, value in named.items():
            got.setdefault(name, []).append(value)
            wanted.setdefault(name, []).append(np.squeeze(theirs[name], stream.time_axis(name)) if stream.time else theirs[name])
    case = f"stream of {steps} steps"
    found = compare(case, {k: np.stack(v) for k, v in wanted.items()}, {k: np.stack(v) for k, v in got.items()}, tolerance)
    return found + compare(f"{case}, state", states, stream.state, tolerance)


def compare_with_whole(
    session: Session,
    engine: Engine,
    steps: int,
    sizes: Mapping[str, int],
    tolerance: float,
    constants: Mapping[str, np.ndarray],
    random: np.random.Generator,
    batch: int = 1,
) -> list[Difference]:
    """A stream whose model keeps states inside: steps of fastrnn beside one call of the engine over all of them."""
    model, stream = session.model, session.stream(batch)
    assert stream.time is not None, "states inside a model belong to a time axis"
    inputs = random_inputs(model, batch, dict(sizes) | {stream.time: steps}, constants, random)
    inputs |= {s.input: np.zeros_like(inputs[s.input]) for s in session.states if s.input in inputs}
    tied = {s.output for s in session.states}
    theirs = engine({**inputs, **constants})
    chunk = {name: np.moveaxis(a, stream.time_axis(name), 0) for name, a in inputs.items() if name not in {s.input for s in session.states}}
    rows = [stream.step({name: a[t] for name, a in chunk.items()}) for t in range(steps)]
    columns = zip(*(row if isinstance(row, tuple) else (row,) for row in rows))
    got = {name: np.stack(column, stream.time_axis(name)) for name, column in zip([n for n in model.output_names if n not in tied], columns)}
    return compare(f"stream of {steps} steps", {name: theirs[name] for name in got}, got, tolerance)


def first_states(session: Session, stream: Stream, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Zeros for each tied input, of the shape that it has among the inputs of a step, else (an optional one) in the stream."""
    return {s.input: np.zeros(inputs[s.input].shape if s.input in inputs else stream.state[s.input].shape, s.dtype) for s in session.states}
