"""convert, inspect and verify."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastrnn.cli.console import Console, UsageError
from fastrnn.converters import load
from fastrnn.converters.engines import engine_for
from fastrnn.converters.verify import TOLERANCE
from fastrnn.converters.verify import verify as verify_session
from fastrnn.errors import InvalidModelError, UnsupportedModelError
from fastrnn.model import Model
from fastrnn.runtime.session import Session, compile

__all__ = ["TOLERANCE", "compiled", "constants_of", "convert", "inspect", "load_npy", "pairs", "sizes_of", "verify"]


def pairs(given: list[str], option: str) -> dict[str, str]:
    """NAME=VALUE options as a dict."""
    result: dict[str, str] = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not mark or not name or not value:
            raise UsageError(f"{option} must be NAME=VALUE, got {text!r}")
        if name in result:
            raise UsageError(f"{option} {name} is given twice")
        result[name] = value
    return result


def constants_of(arguments, model: Model) -> dict[str, np.ndarray]:
    """--constant options as arrays of the inputs' dtypes."""
    dtypes, arrays = {v.name: v.dtype for v in model.inputs}, {}
    for name, text in pairs(arguments.constant, "--constant").items():
        if name not in dtypes:
            raise UsageError(f"--constant {name!r} is not an input; inputs are {', '.join(dtypes)}")
        try:
            arrays[name] = load_npy(text) if text.endswith(".npy") else np.array(json.loads(text), dtypes[name])
        except (ValueError, TypeError, OverflowError) as error:
            if isinstance(error, InvalidModelError):
                raise
            raise UsageError(f"--constant {name}: {text!r} is no number, list or .npy file of {dtypes[name]}: {error}") from error
    return arrays


def load_npy(path) -> np.ndarray:
    """An array of numbers; its header is held against the file's size before anything is allocated."""
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if dtype.hasobject or file.tell() + math.prod(shape) * dtype.itemsize > Path(path).stat().st_size:
                raise ValueError("its header does not fit its content")
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, TypeError) as error:
        raise InvalidModelError(f"{path}: no .npy file of numbers: {error}") from error


def sizes_of(arguments, model: Model) -> dict[str, int]:
    """--size options, of dimensions that the inputs have."""
    sizes = {name: int(n) if n.isdecimal() else 0 for name, n in pairs(arguments.size, "--size").items()}
    known = {d for v in model.inputs for d in v.shape if isinstance(d, str)}
    for name, n in sizes.items():
        if not 1 <= n < 1 << 31:
            raise UsageError(f"--size {name} must be a whole number from 1")
        if name not in known:
            raise UsageError(f"--size {name}: no input has that dimension; there are {', '.join(sorted(known)) or 'none'}")
    return sizes


def states_of(arguments) -> dict | None:
    """--state options as compile takes them; None without any."""
    states = {}
    for name, text in pairs(arguments.state, "--state").items():
        output, mark, index = text.rpartition(":")
        states[name] = (output, int(index)) if mark and index.isdigit() else text
    return states or None


def compiled(arguments, model: Model | None = None, **options) -> Session:
    """The model of the command line, its states tied and constants fixed."""
    model = load(arguments.model) if model is None else model
    return compile(model, states=states_of(arguments), constants=constants_of(arguments, model) or None, **options)


def convert(arguments, console: Console) -> int:
    """Writes fastrnn's file and says what is in it."""
    if Path(arguments.output).suffix != ".safetensors":
        raise UnsupportedModelError(f"{arguments.output}: fastrnn writes .safetensors")
    with console.progress("convert", 3) as progress:
        progress("reading", 0)
        loaded = load(arguments.model)
        progress("compiling", 1)
        model = compiled(arguments, loaded, precision=arguments.precision).model
        progress("writing", 2)
        replace(model, name=Path(arguments.output).stem).save(arguments.output)
    console.facts(model=arguments.model, written=arguments.output, nodes=len(model.nodes), parameters=parameters(model),
                  bytes=Path(arguments.output).stat().st_size, states=[f"{s.input} <- {s.source}" for s in model.states])
    return 0


def parameters(model: Model) -> int:
    """Numbers in the float weights."""
    return sum(a.size for a in model.weights.values() if a.dtype.kind == "f")


def inspect(arguments, console: Console) -> int:
    """Inputs, outputs, states, sizes, and the kernel of every op."""
    session = compiled(arguments, backend=arguments.backend)
    model, tied = session.model, {s.input: s.source for s in session.model.states}
    sizes = sizes_of(arguments, model)
    rows = session.plan.rows({v.name: tuple(sizes.get(d, d) for d in v.shape) for v in model.inputs} if sizes else None)
    left = [row[1].strip() for row in rows if row[2] == "NumPy"]
    console.facts(model=arguments.model, backend=session.plan.backend, isa=session.plan.isa, graph_nodes=len(model.nodes), parameters=parameters(model),
                  weight_bytes=sum(a.nbytes for a in model.weights.values()), nodes_after_folding=len(rows), nodes_left_to_numpy=len(left))
    values = [("input", v) for v in model.inputs] + [("output", v) for v in model.outputs]
    console.table("values", "Inputs and outputs", ("kind", "name", "dtype", "shape", "state"),
                  ((kind, v.name, v.dtype, ", ".join(map(str, v.shape)) or "scalar", tied.get(v.name) if kind == "input" else None) for kind, v in values))
    console.table("nodes", "What runs", ("op", "node", "kernel", "backend", "isa", "packed", "why"), rows)
    return 0


def verify(arguments, console: Console) -> int:
    """Errors of every output; 1 past tolerance."""
    model = load(arguments.model)
    sizes = sizes_of(arguments, model)
    constants = constants_of(arguments, model)
    session = compiled(arguments, model)
    engine = engine_for(arguments.model, model, arguments.against)
    with console.progress("verify") as progress:
        found = verify_session(session, engine, arguments.batch, arguments.steps, sizes, arguments.tolerance, arguments.seed, constants, progress)
    good = all(d.within for d in found)
    console.table("outputs", f"{arguments.model} against {engine.name}", ("case", "output", "error", "scale", "relative", "ok"),
                  ((d.case, d.output, float(f"{d.error:.3g}"), float(f"{d.scale:.3g}"), float(f"{d.relative:.3g}"), d.within) for d in found))
    console.facts(engine=engine.name, tolerance=arguments.tolerance, verified=good)
    return 0 if good else 1
