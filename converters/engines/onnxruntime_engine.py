"""ONNX Runtime on an .onnx file."""

from __future__ import annotations

from fastrnn.converters.engines.engine import Bound, Engine
from fastrnn.errors import MissingDependencyError, UnsupportedModelError
from fastrnn.model import Model


class OnnxRuntimeEngine(Engine):
    """Its CPU provider, with its default graph optimisations."""

    name = "onnxruntime"

    def __init__(self, path, model: Model, threads: int = 1):
        super().__init__(model)
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingDependencyError("onnxruntime", "cli", "this comparison") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # what fails is raised
        known = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
        self.failures = (*(error for error in known if isinstance(error, type) and issubclass(error, Exception)), ValueError, RuntimeError)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except self.failures as error:
            raise UnsupportedModelError(f"onnxruntime does not load {path}: {error}") from error
        self._wanted = {value.name for value in self._session.get_inputs()}
        if len(self._session.get_outputs()) != len(self.output_names):
            raise UnsupportedModelError(f"onnxruntime gives {len(self._session.get_outputs())} outputs of {path}, fastrnn {len(self.output_names)}")

    def bind(self, inputs) -> Bound:
        feeds, run = {k: v for k, v in inputs.items() if k in self._wanted}, self._session.run
        return Bound(lambda: run(None, feeds), feeds.__setitem__)
