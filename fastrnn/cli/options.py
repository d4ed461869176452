"""Options that several commands share: the model with its states, constants, sizes and inputs."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.cli.console import Console, UsageError
from fastrnn.converters import load
from fastrnn.converters.samples import DEFAULT_SIZE
from fastrnn.errors import InvalidModelError, ShapeError, SuspectModelWarning, UnsupportedModelError
from fastrnn.model import Model
from fastrnn.plan.streams.streaming import batch_symbol, time_symbol
from fastrnn.runtime.session import Session, bound, compile

if TYPE_CHECKING:
    from fastrnn.typing import Precision


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


def sizes_taken(model: Model, known: Collection[str | None]) -> str:
    """What is said of the inputs' dimensions whose size nobody gave, so that random inputs take DEFAULT_SIZE; empty where there are none. known: sizes, and constants' names."""
    given = {*known, batch_symbol(model), time_symbol(model)}
    inputs = (v for v in model.inputs if not v.optional and v.name not in given)
    free = list(dict.fromkeys(d for v in inputs for d in v.shape if isinstance(d, str) and d not in given))
    return f"{', '.join(f'{d}={DEFAULT_SIZE}' for d in free)} taken: {' '.join(f'--size {d}=N' for d in free)} for others" if free else ""


@contextmanager
def naming_sizes(model: Model, known: Collection[str | None]) -> Iterator[None]:
    """Where shapes do not fit, here or in another engine, the error names the sizes that nobody gave."""
    try:
        yield
    except (ShapeError, UnsupportedModelError, InvalidModelError) as error:
        if taken := sizes_taken(model, known):
            raise type(error)(f"{error} ({taken})") from error
        raise


def states_of(arguments) -> dict | None:
    """--state options as compile takes them; None without any."""
    states = {}
    for name, text in pairs(arguments.state, "--state").items():
        output, mark, index = text.rpartition(":")
        states[name] = (output, int(index)) if mark and index.isdigit() else text
    return states or None


def precision_of(given: list[str]) -> Precision:
    """--precision options, a name for all nodes and NODE=NAME for single ones, as compile takes them; float32 without any."""
    named: dict[str, str] = {}
    for text in given:
        node, mark, name = text.rpartition("=")  # names of nodes may have = in them
        node = node if mark else "default"
        if not node or not name:
            raise UsageError(f"--precision must be a name or NODE=NAME, got {text!r}")
        if node in named:
            raise UsageError(f"--precision {'for all nodes' if node == 'default' else f'of node {node!r}'} is given twice")
        named[node] = name
    return named["default"] if set(named) == {"default"} else named or "float32"


def said(precision: Precision) -> str:
    """A precision on one line."""
    return precision if isinstance(precision, str) else " ".join(name if node == "default" else f"{node}={name}" for node, name in precision.items())


def precisions_of(given: list[str]) -> dict[str, Precision]:
    """--precision options of several at once, names between commas, by the names that tables have for them; NODE=NAME holds for each but float32,
    which stays what others are measured by."""
    names = [name for text in given if "=" not in text for name in text.split(",")]
    nodes = [text for text in given if "=" in text]
    if len(set(names)) < len(names):
        raise UsageError(f"--precision {max(names, key=names.count)} is given twice")
    ready = {name: precision_of([name, *nodes] if name != "float32" else [name]) for name in names}
    return ready if not nodes or set(ready) - {"float32"} else ready | {said(precision_of(nodes)): precision_of(nodes)}


def compiled(arguments, model: Model | None = None, **options) -> Session:
    """The model of the command line, its states tied and constants fixed."""
    model = load(arguments.model) if model is None else model
    return compile(model, states=states_of(arguments), constants=constants_of(arguments, model) or None, **options)


def model_of(arguments, model: Model | None = None) -> Model:
    """The same, not compiled."""
    model = load(arguments.model) if model is None else model
    return bound(model, states_of(arguments), constants_of(arguments, model) or None)


def loaded(arguments, console: Console) -> Model:
    """The model of the command line as its file has it. What is suspect in the file is said, and stands under "suspect"."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = getattr(arguments, "output_names", None)
        model = load(arguments.model, outputs=names.split(",")) if names else load(arguments.model)
    console.data["suspect"] = [str(w.message) for w in caught if issubclass(w.category, SuspectModelWarning)]
    for warning in caught:
        console.warn(f"{'SUSPECT: ' if issubclass(warning.category, SuspectModelWarning) else ''}{warning.message}")
    return model


def arrays_of(arguments, model: Model) -> dict[str, np.ndarray]:
    """--input options of arrays, by the names of inputs."""
    arrays = {}
    for name, path in pairs(arguments.input, "--input").items():
        if name not in model.input_names:
            raise UsageError(f"--input {name!r} is not an input; inputs are {', '.join(model.input_names)}")
        if not path.endswith(".npy"):
            raise UsageError(f"--input {name}: {path} is no .npy file")
        arrays[name] = load_npy(path)
    return arrays


def as_options(states) -> str:
    """States, {input: output} or {input: (output, index)}, as --state takes them."""
    return " ".join(f"--state {name}={source if isinstance(source, str) else f'{source[0]}:{source[1]}'}" for name, source in states.items())
