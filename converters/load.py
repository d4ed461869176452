"""fr.load: a file to a Model."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from fastrnn.converters.archive import entries_of, is_archive
from fastrnn.converters.checkpoint import check_checkpoint
from fastrnn.converters.keras_import import from_keras
from fastrnn.converters.onnx_import import from_onnx
from fastrnn.converters.tflite_import import load_tflite
from fastrnn.converters.torch_script import is_script, load_script
from fastrnn.errors import MissingDependencyError, UnsupportedModelError
from fastrnn.model import Model, file

TORCH = (".pt", ".pth", ".jit", ".ts")
CHECKPOINT = "a checkpoint holds weights, not a network; fastrnn.from_state_dict reads its recurrent layers"


def load(path: str | PathLike[str], *, outputs: Sequence[str] | None = None) -> Model:
    """Reads a model from fastrnn's own .safetensors, from an .onnx file (see from_onnx), from a .pt2 file of torch.export.save (see from_torch), from
    Keras's .keras, .h5 and .hdf5 (see from_keras), from a .tflite file (see converters/tflite_import), or from a TorchScript archive (.pt, .pth, .jit or .ts; its code is followed, see
    from_torch).

    outputs: of an .onnx file, as from_onnx has it; UnsupportedModelError for others.
    Nothing in a file is run or unpickled beyond tensors in containers. Raises UnsupportedModelError for another kind of file, saying what to do; InvalidModelError for a malformed one; FileNotFoundError.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".onnx":
        return from_onnx(path, outputs=outputs)
    if outputs is not None:
        raise UnsupportedModelError(f"{path}: outputs are chosen of .onnx files alone")
    if suffix in (".keras", ".h5", ".hdf5"):
        return from_keras(path)
    if suffix == ".tflite":
        return load_tflite(path)
    if suffix == ".pt2":
        return _load_program(Path(path))
    if suffix in TORCH:
        if is_archive(Path(path)) and is_script(entries_of(Path(path))):
            return load_script(Path(path))
        check_checkpoint(Path(path))
    if suffix != ".safetensors":
        raise UnsupportedModelError(
            f"{path}: {CHECKPOINT if suffix in TORCH else f'unknown kind of file {suffix!r}'}; load reads .onnx, .pt2, .keras, .h5, .tflite, TorchScript's .pt and fastrnn's .safetensors"
        )
    return file.load(path)


def _load_program(path: Path) -> Model:
    """An exported program, compared with torch on the example inputs that are saved with it."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "torch", f"reading {path.name}") from error
    from fastrnn.converters.torch_export import convert_program
    from fastrnn.converters.torch_export.pt2 import read_program

    return convert_program(read_program(path), None, path.stem, from_file=True)
