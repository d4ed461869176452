"""A stream as bytes: what Pool.export gives and Pool.restore takes.

magic (8)  format (u4)  JSON's length (u4)  JSON: fingerprint, steps, [name, dtype, shape] of each state  the states' numbers, little-endian  blake2b of all before (16)
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping

import numpy as np

from fastrnn.errors import StateError
from fastrnn.runtime.streams.states import StateLayout

MAGIC, FORMAT, DIGEST = b"fastrnn\0", 1, 16
HEAD = struct.Struct("<8sII")
MOST_STEPS = 1 << 62


def pack(fingerprint: str, steps: int, layout: StateLayout, states: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a stream of the model with this fingerprint."""
    text = json.dumps({"model": fingerprint, "steps": int(steps), "states": _described(layout)}).encode()
    body = b"".join([HEAD.pack(MAGIC, FORMAT, len(text)), text, *(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in states.values())])
    return body + _digest(body)


def unpack(data: object, fingerprint: str, layout: StateLayout) -> tuple[int, dict[str, np.ndarray]]:
    """Steps done and states. Raises StateError for bytes that pack did not make, or made of another model."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise StateError(f"an exported stream is bytes, got {type(data).__name__}")
    data = bytes(data)
    if len(data) < HEAD.size + DIGEST or data[: len(MAGIC)] != MAGIC:
        raise StateError("these bytes are not an exported stream")
    _, form, length = HEAD.unpack_from(data)
    if form != FORMAT:
        raise StateError(f"an exported stream of format {form}; this version reads format {FORMAT}")
    if _digest(data[:-DIGEST]) != data[-DIGEST:]:
        raise StateError("an exported stream that is damaged: its checksum does not match")
    try:  # what the checksum covers is as pack made it, unless somebody made both
        head = json.loads(data[HEAD.size : HEAD.size + length])
        model, steps, described = head["model"], head["steps"], head["states"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"an exported stream that is malformed: {error}") from error
    if model != fingerprint:
        raise StateError("an exported stream of another model: its graph or weights differ")
    if described != _described(layout) or type(steps) is not int or not 0 <= steps < MOST_STEPS:
        raise StateError(f"an exported stream whose states are {described}, not {_described(layout)}")
    states, at = {}, HEAD.size + length
    for name, dtype, shape in zip(layout.names, layout.dtypes, layout.shapes):
        count = math.prod(shape)
        if len(data) - DIGEST < at + count * dtype.itemsize:
            raise StateError("an exported stream that is cut short")
        states[name] = np.frombuffer(data, dtype.newbyteorder("<"), count, at).astype(dtype).reshape(shape)
        at += count * dtype.itemsize
    if at != len(data) - DIGEST:
        raise StateError("an exported stream with something behind its states")
    return steps, states


def _described(layout: StateLayout) -> list[list[object]]:
    return [[name, dtype.name, list(shape)] for name, dtype, shape in zip(layout.names, layout.dtypes, layout.shapes)]


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST).digest()
