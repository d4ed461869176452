"""The protocol's names of datatypes, and NumPy's.

Source: Open Inference Protocol v2, "Tensor Data Types". BYTES, which holds strings, and BF16 have no place here: models take numbers.
"""

from __future__ import annotations

import numpy as np

from fastrnn.serving.server.refusals import Refused

NAMES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16", "int32": "INT32",
    "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
DTYPES = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in NAMES.items()}
MOST_DIMENSIONS, MOST_ENTRIES = 32, 1 << 40


def dtype_of(name, tensor: str) -> np.dtype:
    """The dtype, little-endian, that a datatype stands for."""
    dtype = DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise Refused("invalid", f"tensor {tensor!r}: datatype {str(name)[:40]!r} is none of {', '.join(DTYPES)}")
    return dtype


def shape_of(given, tensor: str) -> tuple[int, ...]:
    """A tensor's shape and so many entries that Python can count them."""
    shape = tuple(given) if isinstance(given, (list, tuple)) else None
    if shape is None or len(shape) > MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise Refused("invalid", f"tensor {tensor!r}: shape must be a list of at most {MOST_DIMENSIONS} whole numbers, got {str(given)[:80]}")
    entries = 1
    for n in shape:
        entries *= n
    if entries > MOST_ENTRIES:
        raise Refused("invalid", f"tensor {tensor!r}: shape {list(shape)} has too many entries")
    return shape


def from_bytes(data, dtype: np.dtype, shape: tuple[int, ...], tensor: str) -> np.ndarray:
    """A tensor from its entries in row-major order, a view of them. Raises Refused where there are more or fewer than the shape has."""
    entries = int(np.prod(shape, dtype=np.int64))
    if len(data) != entries * dtype.itemsize:
        raise Refused("invalid", f"tensor {tensor!r}: shape {list(shape)} takes {entries * dtype.itemsize} bytes, got {len(data)}")
    if dtype.kind == "b" and entries and np.frombuffer(data, np.uint8).max() > 1:
        raise Refused("invalid", f"tensor {tensor!r}: bytes of BOOL are 0 or 1")
    return np.frombuffer(data, dtype).reshape(shape)


def to_bytes(a: np.ndarray) -> bytes:
    """Entries in row-major order, little-endian."""
    return a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes()
