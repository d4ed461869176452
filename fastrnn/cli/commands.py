"""convert and verify."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fastrnn.cli.console import Console
from fastrnn.cli.options import arrays_of, as_options, compiled, constants_of, loaded, model_of, naming_sizes, precision_of, said, sizes_of
from fastrnn.cli.precision import verify_small
from fastrnn.converters.engines import engine_for
from fastrnn.converters.verify import TOLERANCE
from fastrnn.converters.verify import verify as verify_session
from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model
from fastrnn.plan.graph.narrow import narrowed, small_matrices
from fastrnn.runtime.session import compile


def convert(arguments, console: Console) -> int:
    """Writes fastrnn's file and says what is in it."""
    if Path(arguments.output).suffix != ".safetensors":
        raise UnsupportedModelError(f"{arguments.output}: fastrnn writes .safetensors")
    with console.progress("convert", 3) as progress:
        progress("reading", 0)
        read = loaded(arguments, console)
        progress("compiling", 1)
        precision = precision_of(arguments.precision)
        model = narrowed(model_of(arguments, read), precision)
        session = compile(model)  # what cannot run is refused now
        progress("writing", 2)
        replace(model, name=Path(arguments.output).stem).save(arguments.output)
    guessed = {"guessed_states": as_options(session.guess.states)} if session.guess.states else {}
    console.facts(
        model=arguments.model,
        written=arguments.output,
        precision=said(precision),
        nodes=len(model.nodes),
        parameters=sum(a.size for a in parameters(model).values()),
        bytes=Path(arguments.output).stat().st_size,
        states=[f"{s.input} <- {s.source}" for s in model.states],
        **guessed,
    )
    return 0


def parameters(model: Model) -> dict[str, np.ndarray]:
    """Weights that are floats, or stand for them; other constants of the graph, scales of small weights among them, are left out."""
    small = small_matrices(model)
    return {name: a for name, a in model.weights.items() if name in small or a.dtype.kind == "f" and name not in small.values()}


def verify(arguments, console: Console) -> int:
    """Errors of every output; 1 past tolerance."""
    model, precision = loaded(arguments, console), precision_of(arguments.precision)
    if precision != "float32":
        return verify_small(arguments, console, model, precision)
    sizes, constants, given = sizes_of(arguments, model), constants_of(arguments, model), arrays_of(arguments, model)
    session, tolerance = compiled(arguments, model), arguments.tolerance or TOLERANCE
    engine = engine_for(arguments.model, model, arguments.against)
    with naming_sizes(model, {*sizes, *constants, *given}), console.progress("verify") as progress:
        verdict = verify_session(
            session, engine, arguments.batch, arguments.steps, sizes, tolerance, arguments.seed, constants, progress, arguments.length, given
        )
    console.table(
        "outputs",
        f"{arguments.model} against {engine.name}",
        ("case", "output", "error", "scale", "relative", "ok"),
        ((d.case, d.output, float(f"{d.error:.3g}"), float(f"{d.scale:.3g}"), float(f"{d.relative:.3g}"), d.within) for d in verdict.differences),
    )
    console.data["skipped"] = list(verdict.skipped)
    for case in verdict.skipped:
        console.warn(f"left out: {case}")
    console.facts(engine=engine.name, tolerance=tolerance, stream=verdict.stream, verified=verdict.good)
    return 0 if verdict.good else 1
