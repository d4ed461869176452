"""Other engines behind one small interface, for `verify` and `bench`: the same model, the same inputs, on one thread if not said.

    engine.py              what an engine is: bind inputs, run, carry states
    onnxruntime_engine.py  ONNX Runtime, from the .onnx file
    openvino_engine.py     OpenVINO, from the .onnx file, in float32
    torch_engine.py        PyTorch, eagerly: fastrnn's graph, op by op, by the table in torch_ops.py
    keras_engine.py        Keras, from the .keras or .h5 file
    exported_engine.py     PyTorch on the program of a .pt2 file
    reference_engine.py    NumPy in float64
    session_engine.py      fastrnn itself: what small weights are measured by

To add one: a module with a subclass of Engine, and a row in ENGINES.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from fastrnn.converters.engines.engine import Bound, Engine
from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model

# name: module, class, the suffixes of the files it reads itself; none for one that takes fastrnn's graph
ENGINES = {
    "onnxruntime": ("onnxruntime_engine", "OnnxRuntimeEngine", (".onnx",)),
    "openvino": ("openvino_engine", "OpenVinoEngine", (".onnx",)),
    "keras": ("keras_engine", "KerasEngine", (".keras", ".h5")),
    "torch": ("torch_engine", "TorchEngine", ()),
    "reference": ("reference_engine", "ReferenceEngine", ()),
}
# What a file was made for, where not the reference; torch runs its own exported programs, not fastrnn's graph of them.
SOURCES = {".onnx": "onnxruntime", ".pt2": "torch", **dict.fromkeys((".keras", ".h5"), "keras" if find_spec("keras") else "reference")}
EXPORTED = ("exported_engine", "ExportedEngine", (".pt2",))

__all__ = ["ENGINES", "Bound", "Engine", "engine_for"]


def engine_for(path, model: Model, name: str = "auto", threads: int = 1) -> Engine:
    """The engine by name, with the model loaded; "auto" is the source's own: ONNX Runtime for an .onnx file, torch for a .pt2 file, Keras for
    .keras and .h5 files where it is installed, else the float64 reference. torch runs the program of a .pt2 file itself.

    Raises UnsupportedModelError where the engine cannot have the model, MissingDependencyError where it is not installed.
    """
    suffix = Path(path).suffix.lower()
    name = SOURCES.get(suffix, "reference") if name == "auto" else name
    if name not in ENGINES:
        raise UnsupportedModelError(f"engine {name!r} is unknown; known are auto, {', '.join(ENGINES)}")
    module, kind, reads = EXPORTED if name == "torch" and suffix == ".pt2" else ENGINES[name]
    if reads and suffix not in reads:
        raise UnsupportedModelError(f"{path}: {name} reads {', '.join(reads)} files only; use torch or the reference")
    return getattr(import_module(f"{__name__}.{module}"), kind)(path, model, threads)
