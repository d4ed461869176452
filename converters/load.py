"""fr.load: a file to a Model."""

from __future__ import annotations

from pathlib import Path

from fastrnn.converters.checkpoint import refuse_programs
from fastrnn.converters.onnx_import import from_onnx

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model, file

ADVICE = {
    ".pt2": "exported programs are not read yet; fastrnn.from_torch converts modules made of known layers",
    ".pt": "a checkpoint holds weights, not a network; fastrnn.from_state_dict reads its recurrent layers",
    ".pth": "a checkpoint holds weights, not a network; fastrnn.from_state_dict reads its recurrent layers",
}


def load(path) -> Model:
    """Reads a model from fastrnn's own .safetensors or from an .onnx file (see from_onnx).

    Raises UnsupportedModelError for another kind of file, saying what to do; InvalidModelError for a malformed one.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".onnx":
        return from_onnx(path)
    if suffix in (".pt", ".pth"):
        refuse_programs(Path(path))
    if suffix != ".safetensors":
        raise UnsupportedModelError(f"{path}: {ADVICE.get(suffix, f'unknown kind of file {suffix!r}')}; load reads .onnx and fastrnn's .safetensors")
    return file.load(path)
