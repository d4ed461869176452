"""PyTorch on the program of a .pt2 file (torch.export), as its author would run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastrnn.converters.engines.engine import Bound, Engine
from fastrnn.errors import MissingDependencyError, UnsupportedModelError
from fastrnn.model import Model


class ExportedEngine(Engine):
    """The exported program's module, eagerly: the model's inputs are its arguments, flattened in order, and so are the outputs."""

    name = "torch"
    failures = (RuntimeError, ValueError, TypeError, AssertionError)

    def __init__(self, path, model: Model, threads: int = 1):
        super().__init__(model)
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingDependencyError("torch", "torch", "this comparison") from error
        from fastrnn.converters.torch_export.pt2 import read_program

        torch.set_num_threads(threads)
        program = read_program(Path(path))
        self._torch, self._module, self._spec, self._names = torch, program.module(), program.call_spec.in_spec, model.input_names
        if self._spec.num_leaves != len(self._names):
            raise UnsupportedModelError(f"torch takes {self._spec.num_leaves} inputs of {path}, fastrnn {len(self._names)}")

    def bind(self, inputs) -> Bound:
        torch, tree = self._torch, self._torch.utils._pytree
        feeds = {name: torch.from_numpy(np.array(inputs[name])) for name in self._names}

        def run() -> list:
            with torch.no_grad():
                args, kwargs = tree.tree_unflatten([feeds[name] for name in self._names], self._spec)
                return tree.tree_leaves(self._module(*args, **kwargs))

        return Bound(run, feeds.__setitem__)

    def array(self, output) -> np.ndarray:
        return output.numpy().copy()
