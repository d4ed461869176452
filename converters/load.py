"""fr.load: a file to a Model."""

from __future__ import annotations

from pathlib import Path

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model, file

ADVICE = {
    ".onnx": "ONNX files are not read yet",
    ".pt2": "exported programs are not read yet; fastrnn.from_torch converts modules made of known layers",
    ".pt": "a checkpoint holds weights, not a network; fastrnn.from_state_dict reads its recurrent layers",
    ".pth": "a checkpoint holds weights, not a network; fastrnn.from_state_dict reads its recurrent layers",
}


def load(path) -> Model:
    """Reads a model from fastrnn's own .safetensors.

    Raises UnsupportedModelError for another kind of file, saying what to do; InvalidModelError for a malformed one.
    """
    suffix = Path(path).suffix.lower()
    if suffix != ".safetensors":
        raise UnsupportedModelError(f"{path}: {ADVICE.get(suffix, f'unknown kind of file {suffix!r}')}; load reads fastrnn's .safetensors")
    return file.load(path)
