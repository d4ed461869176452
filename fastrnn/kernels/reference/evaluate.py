"""A whole model in NumPy, in float64 or float32: the oracle for every other way of running it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.kernels.reference.ops import EVAL
from fastrnn.model import Model


def evaluate(model: Model, inputs: Mapping[str, np.ndarray], dtype=np.float64) -> dict[str, np.ndarray]:
    """Outputs by name, everything of float32 computed in `dtype`; inputs left out are omitted."""

    def widened(a):
        return a.astype(dtype) if a.dtype == np.float32 else a

    values = {name: widened(np.asarray(a)) for name, a in {**model.weights, **inputs}.items() if a is not None}
    for node in model.nodes:
        results = EVAL[node.op](node, [values.get(name) if name else None for name in node.inputs])
        values |= {name: value for name, value in zip(node.outputs, results) if name and value is not None}
    return {name: values[name] for name in model.output_names}
