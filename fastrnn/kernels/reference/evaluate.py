"""A whole model in NumPy, in float64 or float32: the oracle for every other way of running it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.kernels.reference import recurrence  # noqa: F401  (gives the recurrent ops their meaning)
from fastrnn.model import Model
from fastrnn.model.absent import refuse_absent
from fastrnn.model.infer import evaluate as evaluate_node
from fastrnn.model.infer import missing
from fastrnn.model.ops.control import Repetition, Stacked


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
            elif node.op in ("Loop", "Scan"):
                results = repeat(Repetition(node))
            else:
                results = [widened(a) for a in evaluate_node(node, given)]
            values.update({name: value for name, value in zip(node.outputs, results) if name})

    def repeat(loop: Repetition) -> list[np.ndarray]:
        runs, run = None, 0
        if loop.scan:
            runs = values[loop.taken[0].source].shape[loop.taken[0].axis]
        elif loop.trips:
            runs = int(values[loop.trips].reshape(-1)[0])
        going = not loop.condition or bool(values[loop.condition].reshape(-1)[0])
        values.update({c.before: values[c.first] for c in loop.carried})
        parts: list[list[np.ndarray]] = [[] for _ in loop.stacked]
        while going and (runs is None or run < runs):
            values.update({loop.counter: np.array(run), loop.go_on: np.array(True)})
            for t in loop.taken:
                values[t.entry] = np.take(values[t.source], runs - 1 - run if t.backwards else run, axis=t.axis)
            walk(loop.body.nodes)
            going = not loop.goes_on or bool(values[loop.goes_on].reshape(-1)[0])
            values.update(dict(zip([c.before for c in loop.carried], [values[c.after] for c in loop.carried])))
            for s, entries in zip(loop.stacked, parts):
                entries.append(values[s.part])
            run += 1
        stacked = [np.stack(entries[::-1] if s.backwards else entries, s.axis) if entries else nothing(s) for s, entries in zip(loop.stacked, parts)]
        return [*(values[c.before] for c in loop.carried), *stacked]

    def nothing(stacked: Stacked) -> np.ndarray:
        """Of no runs; a dimension that only a run would tell is 0."""
        spec = model.specs[stacked.part]
        part = np.zeros([d if isinstance(d, int) else 0 for d in spec.shape], spec.dtype)
        return np.expand_dims(part, stacked.axis).take([], axis=stacked.axis)

    walk(model.nodes)
    return {name: values[name] for name in model.output_names}
