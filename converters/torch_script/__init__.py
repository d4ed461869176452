"""TorchScript archives and live ScriptModules -> Model. Their code is read and followed, never handed to torch.jit: loading one there runs its operators.

archive.py      the zip's pickles -> objects with attributes, tensors of checked sizes
code.py         the zip's code -> classes and functions, parsed
interpreter.py  follows that code with torch's operators, those alone that take and give tensors
module.py       both as an nn.Module, which torch.export captures like any other
example.py      inputs that its weights and annotations call for
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrnn.errors import MissingDependencyError, UnsupportedModelError
from fastrnn.model import Model

if TYPE_CHECKING:
    from torch import nn

__all__ = ["is_script", "load_script", "script_module"]


def is_script(names: Iterable[str]) -> bool:
    """Whether a zip's entries are those of TorchScript."""
    names = list(names)
    return any(n.count("/") == 1 and n.endswith("/constants.pkl") for n in names) and any("/code/" in n for n in names)


def script_module(path: Path) -> nn.Module:
    """An archive as an nn.Module. Nothing is run but what a call of the module runs."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "torch", f"reading {path.name}, a TorchScript archive,") from error
    from fastrnn.converters.torch_script.archive import read_archive
    from fastrnn.converters.torch_script.module import ScriptedModule

    return ScriptedModule(read_archive(path), path.stem)


def load_script(path: Path, example_inputs: Any = None) -> Model:
    """The Model of an archive; example_inputs as from_torch has them, found by trying where none are given."""
    from fastrnn.converters.pytorch import from_torch
    from fastrnn.converters.torch_script.example import find_example

    module = script_module(path)
    example = find_example(module) if example_inputs is None else example_inputs
    if example is None:
        raise UnsupportedModelError(
            f"{path}: what inputs it takes does not follow from its weights; fastrnn.from_torch(torch.jit.load({path.name!r}), example_inputs) says it"
        )
    return from_torch(module, example)
