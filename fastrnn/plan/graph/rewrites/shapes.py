"""What is a view of something else, or a pooling in a form that reads its channels side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastrnn.model import Node
from fastrnn.model.ops.registry import has_symbol
from fastrnn.model.sizes import same
from fastrnn.plan.graph.rewrites.patterns import Patterns, rewrites


@rewrites("Concat")
def concat(graph: Patterns, node: Node):
    """All that a Split gives, in order, put together again."""
    split = graph.made.get(node.inputs[0])
    if split is None or split.op != "Split" or split.outputs != node.inputs:
        return None
    rank = graph.specs[node.outputs[0]].rank
    return [replace(node, op="Identity", inputs=split.inputs[:1], attributes={})] if split.get("axis") % rank == node.get("axis") % rank else None


@rewrites("ConstantOfShape")
def constant_of_shape(graph: Patterns, node: Node):
    """One number in every place: a view of it."""
    return [
        Node("Expand", node.name, (graph.weight(f"{node.name}.value", np.array(node.get("value"), node.get("dtype"))), node.inputs[0]), node.outputs)
    ]


@rewrites("Tile")
def tile(graph: Patterns, node: Node):
    """Repeats along axes of size 1 alone: a view."""
    shape, repeats = graph.specs[node.inputs[0]].shape, graph.weights.get(node.inputs[1])
    if repeats is None or not all(same(r, 1) or n == 1 for n, r in zip(shape, repeats) if not isinstance(n, str)) or has_symbol(shape):
        return None
    return [Node("Expand", node.name, (node.inputs[0], graph.whole(f"{node.name}.shape", *graph.specs[node.outputs[0]].shape)), node.outputs)]


@rewrites("GlobalAveragePool")
def global_average_pool(graph: Patterns, node: Node):
    """The mean over all spatial axes."""
    rank = len(graph.specs[node.inputs[0]].shape)
    return [replace(node, op="ReduceMean", inputs=(*node.inputs, graph.whole(f"{node.name}.axes", *range(2, rank))))] if rank > 2 else None


@rewrites("MaxPool")
@rewrites("AveragePool")
def pool_of_one_channel(graph: Patterns, node: Node):
    """(N, 1, C, sizes...) by windows (1, ...) is (N, C, sizes...) by windows (...)."""
    shape, size = graph.specs[node.inputs[0]].shape, node.get("kernel_shape")
    steps, pads = node.get("strides") or [1] * len(size), node.get("pads") or [0] * 2 * len(size)
    if len(size) < 2 or shape[1] != 1 or size[0] != 1 or steps[0] != 1 or pads[0] or pads[len(size)] or len(node.outputs) > 1 or has_symbol(shape):
        return None
    nodes: list[Node] = []
    (x,) = graph.node(nodes, "Reshape", f"{node.name}.channels", (node.inputs[0], graph.whole(f"{node.name}.shape", shape[0], *shape[2:])))
    attributes = {
        name: [*values[1 : len(size)], *(values[len(size) + 1 :] if name == "pads" else ())]
        if name in ("kernel_shape", "strides", "pads", "dilations") and values
        else values
        for name, values in node.attributes.items()
    }
    (y,) = graph.node(nodes, node.op, f"{node.name}.of channels", (x,), **attributes)
    return [*nodes, Node("Reshape", node.name, (y, graph.whole(f"{node.name}.result", *graph.specs[node.outputs[0]].shape)), node.outputs)]
