"""Files of named arrays, each array read when it is asked for: .safetensors, .npz, and torch's checkpoints (checkpoint.py)."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import ZipInfo

import numpy as np
from numpy.lib import format as npy

from fastrnn.converters.archive import entries_of, is_archive, read_entry
from fastrnn.converters.checkpoint import read_checkpoint
from fastrnn.errors import DTypeError, InvalidModelError, UnsupportedModelError
from fastrnn.model.file import check_header

_SAFETENSORS = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2"}
_OTHERS = {
    ".onnx": "fastrnn.load reads it as a model",
    ".pt2": "fastrnn.load reads it as a model",
    ".h5": "save its weights with numpy.savez under torch's names",
    ".keras": "save its weights with numpy.savez under torch's names",
}
MAX_NPY_HEADER, MAX_AXES = 10_000, 8


@dataclass(frozen=True)
class Stored:
    """An array of a file: the bytes that it takes there, and what reads it, as float32 where it is narrower."""

    nbytes: int
    read: Callable[[], np.ndarray]


def read_weights(path: Path) -> tuple[object, int]:
    """What a file holds, nested dicts and lists of tensors or Stored arrays; and the bytes that its recurrent weights may take in memory.

    Raises UnsupportedModelError for other kinds of files, saying what to do, and InvalidModelError for a damaged one."""
    if path.is_dir():
        raise UnsupportedModelError(f"{path}: a folder; give the file in it that holds the weights (.pt, .safetensors, .npz)")
    suffix = path.suffix.lower()
    if suffix in _OTHERS:
        raise UnsupportedModelError(f"{path}: not a state dict; {_OTHERS[suffix]}")
    content = _safetensors(path) if suffix == ".safetensors" else _npz(path) if suffix == ".npz" else read_checkpoint(path)
    return content, (64 << 20) + 4 * os.stat(path).st_size


def _safetensors(path: Path) -> Mapping[str, Stored]:
    from safetensors import SafetensorError, safe_open

    header, start = check_header(path)
    try:
        with safe_open(path, "numpy"):  # checks shapes and places of all tensors
            pass
    except SafetensorError as error:
        raise InvalidModelError(f"{path}: {error}") from error
    stored = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            stored[name] = Stored(
                end - begin, partial(_read_safetensor, path, name, entry["dtype"], tuple(entry["shape"]), start + begin, end - begin)
            )
    return stored


def _read_safetensor(path: Path, name: str, dtype: str, shape: tuple[int, ...], at: int, nbytes: int) -> np.ndarray:
    if dtype not in _SAFETENSORS:
        raise DTypeError(f"{name} must be float32, or float16 or bfloat16 to be widened, got {dtype}")
    with open(path, "rb") as file:
        file.seek(at)
        array = np.frombuffer(file.read(nbytes), _SAFETENSORS[dtype]).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array


def _npz(path: Path) -> Mapping[str, Stored]:
    if not is_archive(path):
        raise InvalidModelError(f"{path}: not an .npz file, or a damaged one: no zip archive")
    entries = entries_of(path)
    return {
        name.removesuffix(".npy"): Stored(entry.file_size, partial(_read_npy, path, entry))
        for name, entry in entries.items()
        if name.endswith(".npy")
    }


def _read_npy(path: Path, entry: ZipInfo) -> np.ndarray:
    """An array of an .npz file; its header is checked against the entry's size, and objects are never unpickled."""
    file = io.BytesIO(read_entry(path, entry))
    try:
        version = npy.read_magic(file)
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version](file, max_header_size=MAX_NPY_HEADER)
    except Exception as error:  # the header is parsed as a Python literal, which fails in many ways
        raise InvalidModelError(f"{path}: entry {entry.filename!r} is no .npy array: {str(error) or repr(error)}"[:500]) from error
    shape, fortran, dtype = header
    if dtype.kind != "f":
        raise DTypeError(f"{path}: {entry.filename!r} must be float32, got {dtype}"[:500])
    data = file.read()
    if len(shape) > MAX_AXES or any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise InvalidModelError(f"{path}: entry {entry.filename!r}: shape {str(shape)[:200]} of {dtype} does not fit its {len(data)} bytes")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
