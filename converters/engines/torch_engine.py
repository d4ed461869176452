"""PyTorch, eagerly: fastrnn's graph through torch's functions, since PyTorch reads no ONNX files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastrnn.converters.engines.engine import Bound, Engine
from fastrnn.errors import MissingDependencyError, UnsupportedModelError
from fastrnn.model import Model
from fastrnn.model.ops.registry import ANY_DIM, count
from fastrnn.plan.graph.fold import fold


class TorchEngine(Engine):
    """Each node is one or a few torch calls. As for fastrnn itself, whatever follows from constants and shapes is computed beforehand."""

    name = "torch"
    failures = (RuntimeError, ValueError, IndexError, TypeError)

    def __init__(self, path, model: Model, threads: int = 1):
        super().__init__(model)
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingDependencyError("torch", "torch", "this comparison") from error
        from fastrnn.converters.engines import torch_ops

        self._torch, self._ops, self._model, self._programs = torch, torch_ops, model, {}
        torch.set_num_threads(threads)

    def _program(self, shapes: dict[str, tuple[int, ...]]) -> Callable[[dict], list]:
        """The nodes left for these shapes as calls over a list of values; raises UnsupportedModelError naming one that has no form in torch."""
        torch, model = self._torch, fold(self._model, shapes)
        slots = {
            name: k
            for k, name in enumerate(dict.fromkeys((*model.input_names, *model.weights, *(o for n in model.nodes for o in n.outputs if o), "")))
        }
        start: list = [None] * len(slots)
        for name, array in model.weights.items():
            start[slots[name]] = torch.from_numpy(np.array(array))
        calls = []
        for node in model.nodes:
            if any(spec is None or spec.shape is None or count(spec.shape) == ANY_DIM for spec in (model.specs.get(o) for o in node.outputs if o)):
                raise UnsupportedModelError(f"torch: node {node.name!r} ({node.op}): its shape depends on data")
            calls.append((self._ops.function_of(node, model), [slots[i] for i in node.inputs], [slots[o] if o else None for o in node.outputs]))
        given, wanted = [(name, slots[name]) for name in model.input_names], [slots[name] for name in model.output_names]

        def run(feeds) -> list:
            values = start.copy()
            for name, slot in given:
                values[slot] = feeds.get(name)
            for function, inputs, outputs in calls:
                results = function(*[values[k] for k in inputs])
                for slot, result in zip(outputs, results if isinstance(results, (tuple, list)) else (results,)):
                    if slot is not None:
                        values[slot] = result
            return [values[k] for k in wanted]

        return run

    def bind(self, inputs) -> Bound:
        torch, known = self._torch, set(self._model.input_names)
        shapes = {name: np.shape(a) for name, a in inputs.items() if name in known}
        key = tuple(shapes.items())
        if key not in self._programs:
            self._programs[key] = self._program(shapes)
        program, feeds = self._programs[key], {name: torch.from_numpy(np.array(inputs[name])) for name in shapes}

        def run() -> list:
            with torch.inference_mode():
                return program(feeds)

        return Bound(run, feeds.__setitem__)

    def array(self, output) -> np.ndarray:
        return output.numpy().copy()
