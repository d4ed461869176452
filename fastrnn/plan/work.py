"""What a model has to do for given shapes, as the roofline counts it: the matrices of its layers."""

from __future__ import annotations

import math

from fastrnn.kernels.roofline import Work, matrices_work
from fastrnn.model import Model, Node
from fastrnn.model.ops import ANY_DIM
from fastrnn.model.ops.registry import count
from fastrnn.model.recurrent import RECURRENT, RecurrentNode


def work_of(model: Model) -> Work:
    """Of a specialised model (Plan.specialised). What only data decides, lengths and branches included, counts as nothing."""
    total = Work(0.0, 0)
    for node in model.nodes:
        shapes = [model.specs[name].shape if name in model.specs else None for name in (*node.inputs, node.outputs[0])]
        if all(shape is not None and count(shape) != ANY_DIM for shape in shapes[:2]) and shapes[-1] is not None:
            total += _node_work(model, node, shapes)
    return total


def _node_work(model: Model, node: Node, shapes) -> Work:
    x, w, y = shapes[0], shapes[1] if len(shapes) > 2 else (), shapes[-1]
    if node.op in RECURRENT:
        layer = RecurrentNode(node, model.weights.get)
        if layer.name("sequence_lens") or any(layer.name(n) and layer.array(n) is None for n in ("W", "R")):
            return Work(0.0, 0)
        batch, steps = x[1 - node.get("layout")], x[node.get("layout")]
        over_x, over_h, shrink = (0 if a is None else a[0].size for a in map(layer.array, ("W", "R", "projection")))
        one = matrices_work(over_x, over_h + shrink, steps * batch, steps, layer.array("W").itemsize)
        return sum([one] * layer.directions, Work(0.0, 0))
    if node.op in ("Gemm", "MatMul"):
        multiplies = math.prod(y) * (x[0] if node.op == "Gemm" and node.get("transA") else x[-1])
    elif node.op == "Conv":
        multiplies = math.prod(y) * math.prod(w[1:])
    elif node.op == "ConvTranspose":
        multiplies = math.prod(x) * math.prod(w[1:])
    else:
        return Work(0.0, 0)
    weight = model.weights.get(node.inputs[1])
    return Work(2.0 * multiplies, 0 if weight is None else weight.nbytes)
