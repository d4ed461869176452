"""bench: a user's own model, timed beside other engines and with small weights, at several batch sizes and lengths."""

from __future__ import annotations

import json
from pathlib import Path

from fastrnn.cli.console import Console, UsageError, plain
from fastrnn.cli.options import compiled, constants_of, precisions_of, sizes_of, sizes_taken
from fastrnn.cli.subject import Case, Subject, brief
from fastrnn.cli.timing import DISTURBED, Race
from fastrnn.converters import load
from fastrnn.converters.engines import ENGINES, Engine, engine_for
from fastrnn.converters.verify import TOLERANCE, tolerance_of
from fastrnn.errors import MissingDependencyError, ShapeError, UnsupportedModelError
from fastrnn.kernels import roofline
from fastrnn.model.file import write_whole

SECONDS, ROUNDS = 1.0, (5, 41)  # of timing for a batch and a length; rounds, at least and at most
COLUMNS = ("batch", "steps", "engine", "us", "p99", "ratio", "bound_us", "of_bound", "error", "note")


def open_engines(arguments, model, names: list[str]) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that take the model, and why the others do not. One that is not installed raises."""
    engines, refused = {}, {}
    for name in names:
        try:
            engines[name] = engine_for(arguments.model, model, name, arguments.threads)
        except MissingDependencyError:
            raise
        except UnsupportedModelError as error:
            refused[name] = brief(error)
    return engines, refused


def engine_names(text: str) -> list[str]:
    """Names of engines between commas."""
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in ENGINES]:
        raise UsageError(f"--against {unknown[0]!r} is unknown; known are {', '.join(ENGINES)}")
    return names


def bench(arguments, console: Console) -> int:
    """Times every combination; 1 where results differ past tolerance."""
    names = engine_names(arguments.against) if arguments.against is not None else ["onnxruntime"] if arguments.model.lower().endswith(".onnx") else []
    for option, path in (("--plot", arguments.plot), ("--json", arguments.json)):
        if isinstance(path, str) and not Path(path).parent.is_dir():  # said now, not after the timing
            raise UsageError(f"{option} {path}: there is no folder {str(Path(path).parent)!r}")
    if arguments.plot:
        from fastrnn.cli import plot

        if Path(arguments.plot).suffix not in plot.SUFFIXES:
            raise UsageError(f"--plot {arguments.plot}: plots are {' and '.join(plot.SUFFIXES)} files")
        plot.pyplot("bench --plot")  # says now, not after the timing, where it is missing
    model = load(arguments.model)
    constants = constants_of(arguments, model)
    small = {
        f"fastrnn {name}": compiled(arguments, model, threads=arguments.threads, precision=one)
        for name, one in precisions_of(arguments.precision).items()
        if name != "float32"
    }
    subject = Subject(
        compiled(arguments, model, threads=arguments.threads), sizes_of(arguments, model), constants, arguments.tolerance, arguments.seed, small
    )
    taken = sizes_taken(model, {*subject.sizes, *constants})
    engines, refused = open_engines(arguments, model, names)
    everybody = ["fastrnn", *small, *names]
    lengths = arguments.steps or ([1, 100] if subject.time else [1])
    combinations, rows, cases, shares = [(b, s) for b in arguments.batch for s in lengths], [], [], []
    with console.progress("bench", len(combinations)) as progress:
        for done, (batch, steps) in enumerate(combinations):
            progress(f"batch {batch}, {steps} steps", done)
            if why := subject.refused(batch, steps):
                rows.append((batch, steps, "fastrnn", *(None,) * 6, why))
                continue
            try:
                case = subject.case(batch, steps, engines)
            except ShapeError as error:
                rows.append((batch, steps, "fastrnn", *(None,) * 6, brief(error)))
                continue
            race = Race(case.runs)
            for _ in range(race.rounds_within(SECONDS, *ROUNDS)):
                race.round()
            cases.append((case, race.summary()))
            shares.append(race.share)
            rows += _rows(*cases[-1], everybody, refused)
    if not cases:
        why = "; ".join(dict.fromkeys(row[-1] for row in rows))
        raise UnsupportedModelError(f"{arguments.model}: nothing can be run: {why}{f' ({taken})' if taken else ''}")
    what = "calls of a stream" if subject.streamed else f"length of {subject.time!r}" if subject.time else "one call"
    console.table("results", f"{arguments.model}, {arguments.threads} thread{'s' * (arguments.threads > 1)}; steps: {what}", COLUMNS, rows)
    tolerances = (
        {"tolerance_of_small": {name: arguments.tolerance or tolerance_of(session.plan.precision) for name, session in small.items()}}
        if small
        else {}
    )
    differs = sorted({name for case, _ in cases for name in case.differs})
    console.facts(
        model=arguments.model,
        threads=arguments.threads,
        tolerance=arguments.tolerance or TOLERANCE,
        **tolerances,
        same_results=not differs,
        share_of_core=round(min(shares), 2),
        **({"sizes": taken} if taken else {}),
        roofline=roofline.measure().facts(),
    )
    if differs:
        console.warn(f"RESULTS DIFFER past tolerance from {', '.join(differs)}: see the columns error and note")
    if min(shares) < DISTURBED:
        console.warn(f"other processes had up to {1 - min(shares):.0%} of the core: the figures are doubtful")
    if arguments.plot:
        _plot(arguments, cases, everybody)
    if isinstance(arguments.json, str):
        write_whole(arguments.json, (json.dumps(plain(console.data), indent=2, allow_nan=False) + "\n").encode())
    return 1 if differs else 0


def _rows(case: Case, summary, everybody: list[str], refused: dict[str, str]) -> list[tuple]:
    """A row for each engine, refused ones included. The roofline is that of float32: small weights have no share of it."""
    rows, mine = [], summary["fastrnn"]["us"]
    for name in everybody:
        numbers: tuple = (None,) * 5
        if name in summary:
            us = summary[name]["us"]
            bound = (round(case.bound, 3), f"{case.bound / us:.0%}") if case.bound and not name.startswith("fastrnn ") else (None, None)
            numbers = (float(f"{us:.4g}"), float(f"{summary[name]['p99']:.4g}"), round(us / mine, 2), *bound)
        error = case.errors.get(name)
        rows.append(
            (case.batch, case.steps, name, *numbers, None if error is None else float(f"{error:.2g}"), refused.get(name) or case.notes.get(name))
        )
    return rows


def _plot(arguments, cases, everybody: list[str]) -> None:
    from fastrnn.cli import plot

    us = {name: [summary.get(name, {}).get("us") for _, summary in cases] for name in everybody}
    plot.bars(
        arguments.plot,
        Path(arguments.model).name,
        [f"batch {case.batch}, {case.steps} steps" for case, _ in cases],
        {name: values for name, values in us.items() if any(values)},
        [case.bound for case, _ in cases],
    )
