"""OpenVINO on an .onnx file, in float32, so that it does the same work."""

from __future__ import annotations

from fastrnn.converters.engines.engine import Bound, Engine

from fastrnn.errors import MissingDependencyError, UnsupportedModelError
from fastrnn.model import Model


class OpenVinoEngine(Engine):
    """Its CPU plugin, hint LATENCY, compiled anew for each set of input shapes: dynamic shapes would cost it time."""

    name = "openvino"
    failures = (RuntimeError, ValueError, TypeError)

    def __init__(self, path, model: Model, threads: int = 1):
        super().__init__(model)
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise MissingDependencyError("openvino", "bench", "this comparison") from error
        self._core, self._requests = openvino.Core(), {}
        self._settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        try:
            self._graph = self._core.read_model(str(path))
        except self.failures as error:
            raise UnsupportedModelError(f"openvino does not load {path}: {error}") from error
        self._wanted = {name: port for port in self._graph.inputs for name in port.get_names()}

    def _request(self, feeds):
        """An infer request for these shapes, kept."""
        key = tuple((name, a.shape) for name, a in feeds.items())
        if key not in self._requests:
            graph = self._graph.clone()
            graph.reshape({name: list(a.shape) for name, a in feeds.items()})
            self._requests[key] = self._core.compile_model(graph, "CPU", self._settings).create_infer_request()
        return self._requests[key]

    def bind(self, inputs, carried: bool = False) -> Bound:
        feeds = {name: a for name, a in inputs.items() if name in self._wanted}
        request = self._request(feeds)
        return Bound(feeds, lambda: request.infer(feeds, share_inputs=True, share_outputs=not carried))
