"""torch's checkpoint files, read only where nothing in them can run.

A pickle is first walked op by op (pickletools; nothing is executed) and refused when it names anything but tensors and
containers. What is left goes through torch.load with weights_only=True, and never any other way.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path

from fastrnn.errors import FastRNNError, InvalidModelError, MissingDependencyError, UnsupportedModelError

ADVICE = ("in the environment that made it, load it there and save only its weights: "
          "torch.save(model.state_dict(), 'weights.pt'), then pass that file")
_HARMLESS_MODULES = ("torch", "torch._utils", "torch.storage", "torch._tensor", "torch.serialization", "collections")
_HARMLESS_NAMES = ("OrderedDict", "defaultdict", "Tensor", "Size", "device", "UntypedStorage", "TypedStorage", "_rebuild_tensor", "_rebuild_tensor_v2",
                   "_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_from_type_v2", "_get_layout")


def _harmless(module: str, name: str) -> bool:
    dtype_or_storage = module == "torch" and (name.endswith("Storage") or name.islower())
    return module in _HARMLESS_MODULES and (name in _HARMLESS_NAMES or dtype_or_storage)


# A legacy checkpoint is this many pickles (magic number, protocol, system, object, storage keys), then raw tensor data.
_LEGACY_PICKLES = 5


def named_globals(data: bytes, path: Path) -> set[tuple[str, str]]:
    """(module, name) of everything that the pickles of a checkpoint would import, found without executing any of them."""
    found, position = set(), 0
    for _ in range(_LEGACY_PICKLES):
        end = None
        try:
            for opcode, argument, at in pickletools.genops(data[position:]):
                if opcode.name in ("GLOBAL", "INST"):
                    found.add(tuple(argument.split(" ", 1)))
                elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                    found.add(("pickle", opcode.name))  # names that only running the pickle would show; torch writes none
                end = at + 1
        except Exception as error:  # genops raises many types on bad bytes
            raise InvalidModelError(f"{path}: neither a torch zip archive nor a whole pickle: {error}") from error
        position += end
        if position >= len(data):
            break
    return found


def _pickle_of(path: Path) -> bytes:
    """The pickled part of a checkpoint, zip or legacy."""
    data = path.read_bytes()
    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            return data
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
                raise UnsupportedModelError(f"{path}: a TorchScript archive; with torch: torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')")
            pickles = [name for name in names if name.endswith("data.pkl")]
            if len(pickles) != 1:
                raise InvalidModelError(f"{path}: a zip archive without data.pkl is no torch checkpoint")
            if archive.getinfo(pickles[0]).file_size > len(data):  # torch stores it uncompressed
                raise InvalidModelError(f"{path}: data.pkl claims to be larger than the file")
            return archive.read(pickles[0])
    except FastRNNError:
        raise
    except Exception as error:  # zipfile raises many types on damaged bytes
        raise InvalidModelError(f"{path}: a damaged zip archive: {error!r}") from error


def read_checkpoint(path: Path) -> dict:
    """A torch state dict as nested dicts of tensors. Raises UnsupportedModelError, before anything is unpickled, for a file
    that holds a whole module or anything else that would run code; InvalidModelError for a damaged one."""
    dangerous = sorted(f"{m}.{n}" for m, n in named_globals(_pickle_of(path), path) if not _harmless(m, n))
    if dangerous:
        shown = ", ".join(dangerous[:3]) + (" and more" if len(dangerous) > 3 else "")
        raise UnsupportedModelError(f"{path}: a pickle of whole objects ({shown}), not a state dict; reading it would run code, so it was not "
                                    f"unpickled. To use it, {ADVICE}")
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "torch", f"reading {path.name}") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types; all mean the file cannot be read safely
        raise InvalidModelError(f"{path}: torch cannot read it with weights_only=True: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, dict):
        raise InvalidModelError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    return loaded
