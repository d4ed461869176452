"""Keras on a .keras or .h5 file, on whichever backend it is set to."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.engines.engine import Bound, Engine
from fastrnn.errors import MissingDependencyError, UnsupportedModelError
from fastrnn.model import Model


class KerasEngine(Engine):
    """The model as Keras loads it, in its safe mode. One that keeps its states inside cannot be compared step by step."""

    name = "keras"
    failures = (RuntimeError, ValueError, TypeError, NotImplementedError)

    def __init__(self, path, model: Model, threads: int = 1):
        super().__init__(model)
        try:
            import keras
        except ModuleNotFoundError as error:
            if error.name == "keras":
                raise MissingDependencyError("keras", "keras", "this comparison") from error
            raise UnsupportedModelError(
                f"keras has no {error.name} to compute with: install that, or set KERAS_BACKEND to what is there (torch, jax), or compare with the reference"
            ) from error
        if model.states:
            raise UnsupportedModelError(f"{path}: Keras keeps the states of its stateful layers inside; compare with the reference")
        try:
            self._model, self._keras = keras.models.load_model(path, compile=False), keras
        except Exception as error:  # noqa: BLE001  (Keras raises what its parts raise)
            raise UnsupportedModelError(f"keras does not load {path}: {error}") from error
        self._names = model.input_names
        if len(self._model.inputs) != len(self._names):
            raise UnsupportedModelError(f"keras takes {len(self._model.inputs)} inputs of {path}, fastrnn {len(self._names)}")

    def bind(self, inputs) -> Bound:
        feeds = {name: np.array(inputs[name]) for name in self._names}
        order = [tensor.name for tensor in self._model.inputs]

        def run() -> list:
            given = [feeds[name] for name in (order if set(order) == set(feeds) else self._names)]
            return self._keras.tree.flatten(self._model(given[0] if len(given) == 1 else given, training=False))

        return Bound(run, feeds.__setitem__)

    def array(self, output) -> np.ndarray:
        return np.array(self._keras.ops.convert_to_numpy(output))
