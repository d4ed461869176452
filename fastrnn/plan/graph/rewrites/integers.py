"""Products of bytes with scales: exact sums, and bytes made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastrnn.model import Node
from fastrnn.plan.graph.rewrites.patterns import Patterns, rewrites


@rewrites("QLinearConv")
def qlinear_conv(graph: Patterns, node: Node):
    """Exact sums, as bytes again."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = [*node.inputs, ""][:9]
    return _exact_sums(graph, node, "ConvInteger", (x, w, x_zero, w_zero, bias), (x_scale, w_scale, y_scale), y_zero)


@rewrites("QLinearMatMul")
def qlinear_matmul(graph: Patterns, node: Node):
    """Exact sums, as bytes again."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
    return _exact_sums(graph, node, "MatMulInteger", (a, b, a_zero, b_zero, ""), (a_scale, b_scale, y_scale), y_zero)


def _exact_sums(graph: Patterns, node: Node, op: str, inputs, scales, zero: str):
    """An integer product whose sums become bytes, where the scales are constant: one of x, one or one for each unit of the weights, one of y."""
    given = [graph.weights.get(name) for name in scales]
    if any(s is None for s in given) or given[0].size != 1 or given[2].size != 1 or given[1].ndim > 1 or graph.specs[zero].shape not in ((), (1,)):
        return None
    x_scale, w_scale, y_scale = (s.reshape(-1) for s in given)
    scale = graph.weight(f"{node.name}.scale", (x_scale * w_scale / y_scale).astype(np.float32))
    return [replace(node, op=op, inputs=(*inputs, scale, zero))]
