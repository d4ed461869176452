"""A TorchScript archive: objects with attributes, tensors, and code, out of a zip whose pickles are walked by an unpickler that knows no function but our own."""

from __future__ import annotations

import io
import math
import pickle
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastrnn.converters.archive import entries_of, read_entry
from fastrnn.converters.pickled import ITEM_BYTES
from fastrnn.converters.torch_script.code import Code
from fastrnn.errors import InvalidModelError, UnsupportedModelError

MAX_PICKLE_BYTES, MAX_CODE_BYTES = 4 << 20, 4 << 20
DTYPES = {"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
          "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool}  # fmt: skip
_BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError, struct.error)


@dataclass
class Instance:
    """An object of one of the archive's classes."""

    kind: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Archive:
    """root: the module's object; constants: tensors that the code names CONSTANTS.c0, ..."""

    root: Instance
    constants: list[torch.Tensor]
    code: Code


def read_archive(path: Path) -> Archive:
    """Raises InvalidModelError for a damaged archive, UnsupportedModelError for what is not read."""
    entries = entries_of(path)
    tops = {name.split("/")[0] for name in entries if name.endswith("/data.pkl")}
    if len(tops) != 1:
        raise InvalidModelError(f"{path}: a TorchScript archive has one data.pkl")
    top = tops.pop()
    for name, entry in entries.items():
        if entry.file_size != entry.compress_size and not name.endswith((".py", ".debug_pkl")):
            raise InvalidModelError(f"{path}: entry {name!r} is compressed; torch stores it as it is")

    def read(name: str) -> bytes:
        if f"{top}/{name}" not in entries:
            raise InvalidModelError(f"{path}: there is no {name} in it")
        return read_entry(path, entries[f"{top}/{name}"])

    def objects(name: str, folder: str):
        entry = entries.get(f"{top}/{name}.pkl")
        if entry is None or entry.file_size > MAX_PICKLE_BYTES:
            raise InvalidModelError(f"{path}: {name}.pkl is missing, or larger than {MAX_PICKLE_BYTES} bytes")
        return _Reader(read(f"{name}.pkl"), lambda key, size: _storage(path, entries, f"{top}/{folder}/{key}", size), f"{path}: {name}.pkl").object()

    sources = {name[len(f"{top}/code/") : -3]: entry for name, entry in entries.items() if name.startswith(f"{top}/code/") and name.endswith(".py")}
    if sum(entry.file_size for entry in sources.values()) > MAX_CODE_BYTES:
        raise UnsupportedModelError(f"{path}: more than {MAX_CODE_BYTES} bytes of code")
    code = Code({name.replace("/", "."): read_entry(path, entry).decode(errors="replace") for name, entry in sources.items()}, str(path))
    root, constants = objects("data", "data"), objects("constants", "constants")
    if not isinstance(root, Instance) or not isinstance(constants, (tuple, list)) or not all(isinstance(c, torch.Tensor) for c in constants):
        raise InvalidModelError(f"{path}: data.pkl holds no module, or constants.pkl no tensors")
    return Archive(root, list(constants), code)


def _storage(path: Path, entries, name: str, size: int) -> bytes:
    entry = entries.get(name)
    if entry is None or entry.file_size < size:
        raise InvalidModelError(f"{path}: {name!r} claims {size} bytes, its entry has {entry.file_size if entry else 'none'}")
    return read_entry(path, entry)


class _Reader(pickle._Unpickler):  # noqa: SLF001  (Python's own, since C's takes a memo index for a size)
    """Knows tensors, containers and the archive's classes; any other name is refused."""

    def __init__(self, data: bytes, storage, where: str):
        super().__init__(io.BytesIO(data))
        self._storage, self._where, self._storages, self._rebuilt = storage, where, {}, 0

    def object(self):
        """What the pickle holds."""
        try:
            return self.load()
        except _BROKEN as error:
            raise InvalidModelError(f"{self._where} is damaged: {error!r}"[:400]) from error

    def find_class(self, module: str, name: str):
        if module.startswith("__torch__"):
            kind = f"{module}.{name}"
            return type(name, (_Made,), {"kind": kind})
        found = {("torch._utils", "_rebuild_tensor_v2"): self._tensor, ("collections", "OrderedDict"): dict, ("torch.jit._pickle", "build_intlist"): list,
                 ("torch.jit._pickle", "build_tensorlist"): list, ("torch.jit._pickle", "build_doublelist"): list, ("torch.jit._pickle", "build_boollist"): list,
                 ("torch.jit._pickle", "restore_type_tag"): _untagged, ("torch", "device"): _device, ("torch._utils", "_rebuild_parameter"): lambda t, *_: t}.get((module, name))  # fmt: skip
        if found is not None:
            return found
        if module == "torch" and name.endswith("Storage") and name.removesuffix("Storage") in DTYPES:
            return _Kind(name.removesuffix("Storage"))
        raise UnsupportedModelError(
            f"{self._where} names {module}.{name}, which is neither a tensor, a container nor one of its own classes; it was not made"
        )

    def persistent_load(self, pid):
        kind, made, key, _, numel = pid
        if kind != "storage" or not isinstance(made, _Kind) or not isinstance(key, str) or not isinstance(numel, int) or not 0 <= numel < 1 << 40:
            raise ValueError(f"a storage {str(pid)[:100]}")
        if key not in self._storages:
            size = numel * ITEM_BYTES.get(made.name, 1)
            self._storages[key] = (
                made.name,
                numel,
                torch.frombuffer(bytearray(self._storage(key, size)[:size]), dtype=DTYPES[made.name])
                if numel
                else torch.empty(0, dtype=DTYPES[made.name]),
            )
        if self._storages[key][:2] != (made.name, numel):
            raise ValueError(f"storage {key!r} has two sizes")
        return self._storages[key][2]

    def _tensor(self, storage, offset, size, stride, *_) -> torch.Tensor:
        whole = (offset, *size, *stride)
        if (
            not isinstance(storage, torch.Tensor)
            or len(size) != len(stride)
            or len(size) > 8
            or any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 1 << 40 for n in whole)
        ):
            raise ValueError("a tensor without a storage, sizes or strides")
        elements = math.prod(size)
        reach = offset + sum((n - 1) * s for n, s in zip(size, stride)) + 1 if elements else 0
        if reach > storage.numel() or elements > max(storage.numel(), 1 << 16):
            raise ValueError(f"a tensor of shape {tuple(size)} does not fit its storage of {storage.numel()} elements")
        return storage.as_strided(size, stride, offset)


@dataclass(frozen=True)
class _Kind:
    name: str


class _Made(Instance):
    """What an object of the archive's classes is unpickled as; `kind` is the class's."""

    def __new__(cls, *_):
        made = object.__new__(cls)
        made.attributes = {}
        return made

    def __setstate__(self, state):
        if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
            raise ValueError(f"the attributes of a {self.kind} are no dict")
        self.attributes = state


def _untagged(value, *_):
    return value


def _device(*_):
    return torch.device("cpu")
