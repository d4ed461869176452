"""OpenVINO on an .onnx file, in float32, so that it does the same work."""

from __future__ import annotations

import numpy as np

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
        self._core, self._tensor, self._requests = openvino.Core(), openvino.Tensor, {}
        self._settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        try:
            self._graph = self._core.read_model(str(path))
        except self.failures as error:
            raise UnsupportedModelError(f"openvino does not load {path}: {error}") from error
        self._wanted = {name: port for port in self._graph.inputs for name in port.get_names()}

    def _request(self, arrays):
        """An infer request for these shapes, kept."""
        key = tuple((name, a.shape) for name, a in arrays.items())
        if key not in self._requests:
            graph = self._graph.clone()
            graph.reshape({name: list(a.shape) for name, a in arrays.items()})
            self._requests[key] = self._core.compile_model(graph, "CPU", self._settings).create_infer_request()
        return self._requests[key]

    def bind(self, inputs) -> Bound:
        """Inputs and outputs share memory with the request: handing a dict over at each call takes three times as long for a small model."""
        arrays = {name: np.array(a, order="C") for name, a in inputs.items() if name in self._wanted}
        request = self._request(arrays)
        for name, array in arrays.items():
            request.set_tensor(name, self._tensor(array, shared_memory=True))

        def run(held=arrays) -> list:  # which the request does not keep alive
            request.infer(share_outputs=True)
            return outputs

        def feed(name, output) -> None:
            arrays[name][...] = output

        request.infer(share_outputs=True)
        outputs = [request.get_output_tensor(k).data for k in range(len(self.output_names))]
        return Bound(run, feed)
