"""The NumPy meaning of every op, in float64."""

from __future__ import annotations

from fastrnn.converters.engines.engine import Bound, Engine
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Model


class ReferenceEngine(Engine):
    """fastrnn's own oracle."""

    name = "reference"

    def __init__(self, path, model: Model, threads: int = 1):
        super().__init__(model)
        self._model = model

    def bind(self, inputs) -> Bound:
        feeds = dict(inputs)
        return Bound(lambda: list(evaluate(self._model, feeds).values()), feeds.__setitem__)
