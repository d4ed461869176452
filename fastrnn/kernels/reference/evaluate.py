"""A whole model in NumPy, in float64 or float32: the oracle for every other way of running it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.kernels.reference import recurrence  # noqa: F401  (gives the recurrent ops their meaning)
from fastrnn.model import Model
from fastrnn.model.absent import refuse_absent
from fastrnn.model.infer import evaluate as evaluate_node
from fastrnn.model.infer import missing


def evaluate(model: Model, inputs: Mapping[str, np.ndarray], dtype=np.float64) -> dict[str, np.ndarray]:
    """Outputs by name, everything of float32 computed in `dtype`; inputs left out are omitted."""
    refuse_absent(model, "evaluate")

    def widened(a: np.ndarray) -> np.ndarray:
        return a.astype(dtype) if a.dtype == np.float32 else a

    values = {name: widened(np.asarray(a)) for name, a in {**model.weights, **inputs}.items() if a is not None}

    def walk(nodes) -> None:
        for node in nodes:
            given = [values.get(name) if name else None for name in node.inputs]
            if missing(node, given):
                continue
            if node.op == "If":
                branch = node.branches[0 if given[0].reshape(())[()] else 1]
                walk(branch.nodes)
                results = [values[name] for name in branch.outputs]
            else:
                results = [widened(a) for a in evaluate_node(node, given)]
            values.update({name: value for name, value in zip(node.outputs, results) if name})

    walk(model.nodes)
    return {name: values[name] for name in model.output_names}
