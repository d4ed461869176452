"""Requests and answers of HTTP: JSON, with tensors in it or, as the binary tensor data extension has it, behind it.

Source: Open Inference Protocol v2, "Inference Request JSON Object"; Triton's "Binary Tensor Data Extension".
"""

from __future__ import annotations

import json
import math
from typing import NamedTuple

import numpy as np

from fastrnn.serving.server.asked import MOST_NAME, Answered, Asked
from fastrnn.serving.server.datatypes import NAMES, dtype_of, from_bytes, shape_of, to_bytes
from fastrnn.serving.server.refusals import Refused

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # as protocol buffers write in JSON what it has no numbers for
REQUEST = ("id", "parameters", "inputs", "outputs")
INPUT, OUTPUT = ("name", "shape", "datatype", "parameters", "data"), ("name", "parameters")


class Wanted(NamedTuple):
    """Which outputs come as bytes; everything: those that are not named."""

    names: frozenset[str]
    everything: bool


def _object(value, what: str, keys) -> dict:
    if not isinstance(value, dict):
        raise Refused("invalid", f"{what} must be an object")
    if unknown := next((key for key in value if key not in keys), None):
        raise Refused("invalid", f"{what} has {unknown[:80]!r}; known are {', '.join(keys)}")
    return value


def _list(value, what: str) -> list:
    if not isinstance(value, list):
        raise Refused("invalid", f"{what} must be a list")
    return value


def _name(value, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_NAME:
        raise Refused("invalid", f"{what} must have a name of 1 to {MOST_NAME} characters")
    return value


def read_request(body: bytes, json_length: int | None, model: str, version: str) -> tuple[Asked, Wanted]:
    """A request's content. json_length: of the JSON in front of the tensors' bytes, None where there are none. Raises Refused."""
    if json_length is not None and not 0 <= json_length <= len(body):
        raise Refused("invalid", f"Inference-Header-Content-Length is {json_length}, of a body of {len(body)} bytes")
    try:
        given = json.loads(body if json_length is None else body[:json_length])
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError among them
        raise Refused("invalid", f"the request is no JSON: {error}") from error
    given = _object(given, "a request", REQUEST)
    of = given.get("id", "")
    if not isinstance(of, str) or len(of) > MOST_NAME:
        raise Refused("invalid", f"id must be a string of at most {MOST_NAME} characters")
    parameters = given.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refused("invalid", "parameters must be an object")
    binary = _flag(parameters.pop("binary_data_output", False), "binary_data_output")
    rest, inputs = memoryview(b"" if json_length is None else body)[json_length or 0 :], {}
    for tensor in _list(given.get("inputs", []), "inputs"):
        tensor = _object(tensor, "an input", INPUT)
        name = _name(tensor.get("name"), "an input")
        if name in inputs:
            raise Refused("invalid", f"input {name!r} is given twice")
        inputs[name], used = _tensor(tensor, name, rest)
        rest = rest[used:]
    if len(rest):
        raise Refused("invalid", f"{len(rest)} bytes are left behind the inputs' tensors")
    wanted, outputs = set(), None
    if given.get("outputs"):
        outputs = []
        for tensor in _list(given["outputs"], "outputs"):
            tensor = _object(tensor, "an output", OUTPUT)
            outputs.append(_name(tensor.get("name"), "an output"))
            options = _object(tensor.get("parameters", {}), f"output {outputs[-1]!r}: parameters", ("binary_data",))
            if _flag(options.get("binary_data", binary), "binary_data"):
                wanted.add(outputs[-1])
    return Asked(model, version, of, parameters, inputs, outputs), Wanted(frozenset(wanted), binary and outputs is None)


def _flag(value, what: str) -> bool:
    if type(value) is not bool:
        raise Refused("invalid", f"parameter {what!r} must be true or false")
    return value


def _tensor(tensor: dict, name: str, rest: memoryview) -> tuple[np.ndarray, int]:
    """An input, and how many of the bytes that are left it took."""
    dtype, shape = dtype_of(tensor.get("datatype"), name), shape_of(tensor.get("shape"), name)
    options = _object(tensor.get("parameters", {}), f"input {name!r}: parameters", ("binary_data_size",))
    size = options.get("binary_data_size")
    if size is None:
        return _from_json(tensor.get("data"), dtype, shape, name), 0
    if "data" in tensor:
        raise Refused("invalid", f"input {name!r} has data and binary_data_size")
    if type(size) is not int or not 0 <= size <= len(rest):
        raise Refused("invalid", f"input {name!r}: binary_data_size is {str(size)[:40]}, and {len(rest)} bytes are left")
    return from_bytes(rest[:size], dtype, shape, name), size


def _from_json(data, dtype: np.dtype, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A tensor from a list, flat or nested; numbers of a kind that the datatype holds exactly, or as floats round to."""
    flat = _flat(_list(data, f"input {name!r}: data"))
    if dtype.kind == "f":
        flat = [WORDS.get(v, v) if isinstance(v, str) else v for v in flat]
    allowed = (bool,) if dtype.kind == "b" else (int,) if dtype.kind in "iu" else (int, float)
    if not all(type(v) in allowed for v in flat):
        raise Refused("invalid", f"input {name!r}: data of {NAMES[dtype.name]} holds something else")
    if len(flat) != math.prod(shape):
        raise Refused("invalid", f"input {name!r}: shape {list(shape)} has {math.prod(shape)} entries, got {len(flat)}")
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise Refused("invalid", f"input {name!r}: {error}") from error


def _flat(data: list) -> list:
    while data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise Refused("invalid", "data must be a flat list, or lists of lists")
        data = [v for part in data for v in part]
    return data


def write_answer(answer: Answered, wanted: Wanted) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where tensors' bytes follow it."""
    outputs, parts = [], []
    for name, a in answer.outputs.items():
        tensor = {"name": name, "datatype": NAMES[a.dtype.name], "shape": list(a.shape)}
        if name in wanted.names or wanted.everything:
            parts.append(to_bytes(a))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            tensor["data"] = _to_json(a)
        outputs.append(tensor)
    head = {"model_name": answer.model, "model_version": answer.version, "outputs": outputs}
    if answer.id:
        head["id"] = answer.id
    if answer.parameters:
        head["parameters"] = answer.parameters
    text = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([text, *parts]), len(text) if parts else None


def _to_json(a: np.ndarray) -> list:
    values = a.ravel().tolist()
    if a.dtype.kind == "f" and not np.isfinite(a).all():
        return [v if math.isfinite(v) else "NaN" if v != v else "Infinity" if v > 0 else "-Infinity" for v in values]
    return values
