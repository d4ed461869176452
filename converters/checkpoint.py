"""torch's checkpoint files, read only where nothing in them can run.

A pickle is first walked op by op (pickled.py; nothing is executed) and refused when it names anything but tensors and containers, or
tensors that do not fit what is stored. What is left goes through torch.load with weights_only=True, and never any other way.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fastrnn.converters.archive import entries_of, is_archive, read_entry
from fastrnn.converters.pickled import EMPTY, NUMBERS, NUMPY, Symbol, Walk, walk
from fastrnn.errors import InvalidModelError, MissingDependencyError, UnsupportedModelError

ADVICE = "in the environment that made it, load it there and save only its weights: torch.save(model.state_dict(), 'weights.pt'), then pass that file"
_CALLED = (
    {
        Symbol(module, name)
        for module, names in {
            "collections": "OrderedDict Counter",
            "torch": "Size device",
            "_codecs": "encode",
            "torch.serialization": "_get_layout",
            "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state",
            "torch._tensor": "_rebuild_from_type_v2",
            "builtins": "set",
            "__builtin__": "set",
        }.items()
        for name in names.split()
    }
    | NUMPY
    | EMPTY
)
_DTYPES = "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64 bfloat16 complex64 complex128"
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat", "ComplexDouble")
_TYPES = {Symbol("torch", name) for name in ("Tensor", *_DTYPES.split(), *(f"{kind}Storage" for kind in _STORAGES))} | {
    Symbol("numpy", "ndarray"),
    Symbol("torch.nn.parameter", "Parameter"),
    Symbol("torch.storage", "UntypedStorage"),
    Symbol("torch.storage", "TypedStorage"),
}

_EVERYWHERE = {*sys.stdlib_module_names, "__builtin__", "numpy", "torch"}
MOST_SHOWN = 5

# A legacy checkpoint is this many pickles (magic number, protocol, system, object, storage keys), then raw tensor data.
_LEGACY_PICKLES, _MAGIC = 5, 0x1950A86A20F9469CFC6C


def refuse_foreign(path: Path, names: Iterable[str]) -> None:
    """Raises UnsupportedModelError, saying what to do, for torch's other kinds of archives."""
    names = list(names)
    if any(name.endswith(("constants.pkl", "model.json")) and name.count("/") == 1 or "/code/" in name for name in names):
        raise UnsupportedModelError(
            f"{path}: a TorchScript archive, which would run its own code; with torch: "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt') keeps its weights for fastrnn.from_state_dict"
        )
    if any(name.endswith("archive_format") or "/models/" in name for name in names):
        raise UnsupportedModelError(
            f"{path}: a program of torch.export; torch.save(torch.export.load({path.name!r}).state_dict, 'weights.pt') keeps its weights"
        )


def _refuse_what_runs(path: Path, found: Walk) -> None:
    """Raises for a pickle that names or calls anything but tensors and containers, or is damaged."""
    strange = [s for s in found.symbols if s not in _CALLED and s not in _TYPES or s in found.called and s not in _CALLED]
    if strange:
        strange.sort(key=lambda s: s.module.partition(".")[0] in _EVERYWHERE)  # those of the model's own code first
        shown = ", ".join(map(str, strange[:MOST_SHOWN])) + (f" and {len(strange) - MOST_SHOWN} more" if len(strange) > MOST_SHOWN else "")
        raise UnsupportedModelError(
            f"{path}: a pickle of whole objects ({shown}), not a state dict; reading it would run code, so it was not unpickled. To use it, {ADVICE}"
        )
    if found.damage:
        raise InvalidModelError(f"{path}: neither a torch zip archive nor a whole pickle: {found.damage}")
    if found.complaints:
        raise InvalidModelError(f"{path}: a damaged checkpoint: {found.complaints[0]}")


def _check_archive(path: Path) -> None:
    """Raises unless a zip archive holds one harmless pickle and, uncompressed, every storage that it names."""
    entries = entries_of(path)
    refuse_foreign(path, entries)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].count("/") != 1:
        raise InvalidModelError(f"{path}: a zip archive without data.pkl is no torch checkpoint")
    for name, entry in entries.items():
        if entry.file_size != entry.compress_size:
            raise InvalidModelError(f"{path}: entry {name!r} is compressed; torch stores it as it is")
    found, _ = walk(io.BytesIO(read_entry(path, entries[pickles[0]])), 1)
    _refuse_what_runs(path, found)
    for key, storage in found.storages.items():
        entry = entries.get(pickles[0].replace("data.pkl", f"data/{key}"))
        if entry is None or entry.file_size < storage.nbytes:
            raise InvalidModelError(f"{path}: storage {key!r} claims {storage.nbytes} bytes, its entry has {entry.file_size if entry else 'none'}")


def _check_legacy(path: Path) -> None:
    """The same of the format that torch wrote up to 1.5: pickles, then the storages' bytes."""
    with open(path, "rb") as file:
        head = file.read(512)
        if head[257:262] == b"ustar":
            raise UnsupportedModelError(
                f"{path}: a tar archive, as torch wrote them before 0.1.10, which torch reads only by unpickling. To use it, {ADVICE}"
            )
        file.seek(0)
        found, results = walk(file, _LEGACY_PICKLES)
        left = os.fstat(file.fileno()).st_size - file.tell()
    _refuse_what_runs(path, found)
    if results[0] != _MAGIC or len(results) < _LEGACY_PICKLES:
        raise InvalidModelError(f"{path}: neither a torch zip archive nor what torch.save wrote before it: its first pickle is not torch's")
    claimed = sum(storage.nbytes for storage in found.storages.values())
    if claimed > left:
        raise InvalidModelError(f"{path}: truncated: its storages claim {claimed} bytes, {left} are left")


def _numpy_globals() -> list:
    """What torch may call for arrays of numbers, whose form the walk has seen; under both names of NumPy's inner module."""
    inner = np._core.multiarray
    named = [(getattr(inner, symbol.name), str(symbol)) for symbol in NUMPY if symbol.name != "dtype"]
    return [*named, *((bytes, str(symbol)) for symbol in EMPTY), np.ndarray, np.dtype, *{type(np.dtype(number)) for number in NUMBERS}]


def check_checkpoint(path: Path) -> None:
    """Raises UnsupportedModelError, without unpickling anything, for a file that holds a whole module, a program, or anything else that would run code; InvalidModelError for a
    damaged one."""
    if is_archive(path):
        _check_archive(path)
    else:
        _check_legacy(path)


def read_checkpoint(path: Path):
    """What a torch checkpoint holds: nested dicts and lists of tensors. Raises as check_checkpoint does, before anything is unpickled."""
    check_checkpoint(path)
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "torch", f"reading {path.name}") from error
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types; all mean the file cannot be read safely
        raise InvalidModelError(f"{path}: torch cannot read it with weights_only=True: {(str(error) or repr(error)).splitlines()[0]}") from error
