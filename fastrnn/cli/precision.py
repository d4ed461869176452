"""verify --precision: what small weights cost in accuracy and what they save in time, beside float32."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.cli.console import Console
from fastrnn.cli.options import arrays_of, compiled, constants_of, model_of, naming_sizes, said, sizes_of
from fastrnn.cli.timing import DISTURBED, Race
from fastrnn.converters.engines import engine_for
from fastrnn.converters.engines.session_engine import SessionEngine
from fastrnn.converters.samples import random_inputs, stream_batch
from fastrnn.converters.verify import tolerance_of, verify, whole_calls
from fastrnn.errors import NotStreamableError
from fastrnn.model import Model
from fastrnn.plan.graph.narrow import round_weights, small_matrices
from fastrnn.runtime.session import Session, compile

if TYPE_CHECKING:
    from fastrnn.typing import Precision

SECONDS, ROUNDS = 0.3, (3, 41)  # of timing a case; rounds, at least and at most


def verify_small(arguments, console: Console, model: Model, precision: Precision) -> int:
    """Errors of every output against fastrnn's own float32, or the engine asked for, beside those of the rounded weights in float32; then the speed. 1 past tolerance."""
    sizes, constants, given = sizes_of(arguments, model), constants_of(arguments, model), arrays_of(arguments, model)
    exact, small = compiled(arguments, model), compiled(arguments, model, precision=precision)
    rounded = compile(round_weights(model_of(arguments, model), precision))
    engine = SessionEngine(exact) if arguments.against == "auto" else engine_for(arguments.model, model, arguments.against)
    tolerance, name = arguments.tolerance or tolerance_of(precision), said(precision)
    with naming_sizes(exact.model, {*sizes, *constants, *given}), console.progress("verify") as progress:
        verdict, floor = (
            verify(session, engine, arguments.batch, arguments.steps, sizes, tolerance, arguments.seed, constants, progress, arguments.length, given)
            for session in (small, rounded)
        )
        calls = whole_calls(exact.model, arguments.batch, arguments.length, sizes, given)
        times, share = _times(exact, small, calls, {**constants, **given}, arguments.seed, progress)
    title = f"{arguments.model} in {name} against {'float32' if arguments.against == 'auto' else engine.name}; floor: what rounding the weights alone costs"
    console.table(
        "outputs",
        title,
        ("case", "output", "error", "scale", "relative", "floor", "of_floor", "ok"),
        (
            (
                d.case,
                d.output,
                float(f"{d.error:.3g}"),
                float(f"{d.scale:.3g}"),
                float(f"{d.relative:.3g}"),
                float(f"{f.relative:.3g}"),
                round(d.relative / f.relative, 2) if f.relative else None,
                d.within,
            )
            for d, f in zip(verdict.differences, floor.differences, strict=True)
        ),
    )
    console.table(
        "speed",
        "microseconds, medians, in turns",
        ("case", "float32_us", "us", "ratio"),
        ((case, float(f"{before:.4g}"), float(f"{after:.4g}"), round(before / after, 2)) for case, before, after in times),
    )
    console.data["skipped"] = list(verdict.skipped)
    for case in verdict.skipped:
        console.warn(f"left out: {case}")
    reached = small_matrices(small.model)
    console.facts(
        precision=name,
        engine=engine.name,
        tolerance=tolerance,
        stream=verdict.stream,
        small_matrices=len(reached),
        weight_bytes={"float32": _bytes(exact.model), name: _bytes(small.model)},
        verified=verdict.good,
    )
    if not reached:
        console.warn(f"{name} reaches no node; fastrnn inspect --precision says why")
    if share < DISTURBED:
        console.warn(f"other processes had up to {1 - share:.0%} of the core: the times are doubtful")
    return 0 if verdict.good else 1


def _times(exact: Session, small: Session, calls, values, seed: int, progress) -> tuple[list[tuple[str, float, float]], float]:
    """Of each whole call, and of a stream's step where there is one: microseconds in float32 and with small weights; and the least share of a core that they had."""
    rows, share = [], 1.0
    for done, (case, *runs) in enumerate(cases := list(_runs(exact, small, calls, values, np.random.default_rng(seed)))):
        progress(f"time of {case}", done, len(cases))
        race = Race(dict(zip(("float32", "small"), runs, strict=True)))
        for _ in range(race.rounds_within(SECONDS, *ROUNDS)):
            race.round()
        rows.append((case, *(race.summary()[name]["us"] for name in ("float32", "small"))))
        share = min(share, race.share)
    return rows, share


def _runs(exact: Session, small: Session, calls, values, random) -> Iterator[tuple]:
    """(name, float32's call, the other's)."""
    for case, batch, known in calls:
        inputs = random_inputs(exact.model, batch, known, values, random)
        yield case, partial(exact.run, inputs), partial(small.run, inputs)
    try:
        streams = [session.stream(stream_batch(session, calls[0][1])) for session in (exact, small)]
    except NotStreamableError:
        return
    one, tied = streams[0], {s.input for s in exact.states}
    if not tied and one.time is None:
        return
    known = {**calls[0][2], **({one.time: 1} if one.time else {})}
    inputs = random_inputs(exact.model, calls[0][1], known, values, random)
    step = {name: np.squeeze(a, one.time_axis(name)) if one.time else a for name, a in inputs.items() if name not in tied}
    yield f"a step of the stream, batch {one.batch}", *(partial(stream.step, step) for stream in streams)


def _bytes(model: Model) -> int:
    return sum(a.nbytes for a in model.weights.values())
