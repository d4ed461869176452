"""Nodes that depend on nothing but sizes, such as a mask: they run when sizes change, and what they make stays from call to call."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.model import Model
from fastrnn.model.ops.registry import has_symbol
from fastrnn.model.sizes import has_sizes
from fastrnn.plan.graph.fold import budget_of


def hoisted(model: Model) -> set[str]:
    """Names of those nodes, as far as what they make is no more than folding may add in memory. What is an output is made at each call."""
    given, sized = set(model.weights), {name for name, a in model.weights.items() if has_sizes(a)}
    found, room, wanted = set(), budget_of(model.weights), set(model.output_names)
    for node in model.nodes:
        if node.subgraphs or not all(name in given for name in node.inputs if name) or not any(name in sized for name in node.inputs):
            continue
        specs = [model.specs.get(name) for name in node.outputs if name]
        if not wanted.isdisjoint(node.outputs) or any(s is None or has_symbol(s.shape) for s in specs):
            continue
        nbytes = sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in specs)
        if nbytes > room:
            continue
        room -= nbytes
        found.add(node.name)
        given |= set(node.outputs)
        sized |= set(node.outputs)
    return found
