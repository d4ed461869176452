"""Other engines behind one small interface, for `verify` and `bench`: the same model, the same inputs, on one thread if not said.

    engine.py              what an engine is: bind inputs, run, carry states
    onnxruntime_engine.py  ONNX Runtime, from the .onnx file
    openvino_engine.py     OpenVINO, from the .onnx file, in float32
    torch_engine.py        PyTorch, eagerly: fastrnn's graph, op by op, by the table in torch_ops.py
    reference_engine.py    NumPy in float64

To add one: a module with a subclass of Engine, and a row in ENGINES.
"""

from __future__ import annotations

from importlib import import_module

from fastrnn.converters.engines.engine import Bound, Engine

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model

# name: module, class, whether it reads the .onnx file rather than fastrnn's graph
ENGINES = {
    "onnxruntime": ("onnxruntime_engine", "OnnxRuntimeEngine", True),
    "openvino": ("openvino_engine", "OpenVinoEngine", True),
    "torch": ("torch_engine", "TorchEngine", False),
    "reference": ("reference_engine", "ReferenceEngine", False),
}

__all__ = ["ENGINES", "Bound", "Engine", "engine_for"]


def engine_for(path, model: Model, name: str = "auto", threads: int = 1) -> Engine:
    """The engine by name, with the model loaded; "auto" is ONNX Runtime for an .onnx file, else the float64 reference.

    Raises UnsupportedModelError where the engine cannot have the model, MissingDependencyError where it is not installed.
    """
    is_onnx = str(path).lower().endswith(".onnx")
    name = ("onnxruntime" if is_onnx else "reference") if name == "auto" else name
    if name not in ENGINES:
        raise UnsupportedModelError(f"engine {name!r} is unknown; known are auto, {', '.join(ENGINES)}")
    module, kind, reads_onnx = ENGINES[name]
    if reads_onnx and not is_onnx:
        raise UnsupportedModelError(f"{path}: {name} reads .onnx files only; use torch or the reference")
    return getattr(import_module(f"{__name__}.{module}"), kind)(path, model, threads)
