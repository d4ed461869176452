"""Matrix products, what scales and adds to them, and products of numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastrnn.model import Node
from fastrnn.model.ops import Spec
from fastrnn.model.ops.normal import batch_factors
from fastrnn.plan.graph.rewrites.patterns import Patterns, rewrites


@rewrites("MatMul")
def matmul(graph: Patterns, node: Node):
    """Rows times a constant matrix."""
    a, b = node.inputs
    if b not in graph.weights or graph.weights[b].ndim != 2 or not graph.specs[a].shape:
        return None
    return [replace(node, op="Gemm")]


@rewrites("Gemm")
def gemm(graph: Patterns, node: Node):
    """alpha A B + beta C where B, or a C that is not one constant row, is computed: the product, then scaled and added."""
    (a, b), c = node.inputs[:2], node.input(2)
    bias, n = graph.weights.get(c), graph.specs[node.outputs[0]].shape[-1]
    row = not c or bias is not None and bias.size in (1, n) and bias.size == (bias.shape[-1] if bias.ndim else 1)
    if graph.specs[a].dtype != "float32" or b in graph.weights and row:
        return None
    nodes: list[Node] = []

    def then(op: str, what: str, *inputs: str, shape=graph.specs[node.outputs[0]].shape, **attributes) -> str:
        return graph.node(nodes, op, f"{node.name}.{what}", inputs, spec=Spec("float32", shape), **attributes)[0]

    def scaled(value: str, factor: float, what: str) -> str:
        if factor == 1:
            return value
        return then("Mul", what, value, graph.weight(f"{node.name}.{what}.factor", np.array(factor, np.float32)), shape=graph.specs[value].shape)

    if b in graph.weights:
        whole = then("Gemm", "product", a, b, **{k: v for k, v in node.attributes.items() if k != "beta"})
    else:
        a = then("Transpose", "A", a, shape=graph.specs[a].shape[::-1], perm=(1, 0)) if node.get("transA") else a
        b = then("Transpose", "B", b, shape=graph.specs[b].shape[::-1], perm=(1, 0)) if node.get("transB") else b
        whole = scaled(then("MatMul", "product", a, b), node.get("alpha"), "scaled")
    if c:
        whole = then("Add", "sum", whole, scaled(c, node.get("beta"), "C"))
    return [*nodes[:-1], replace(nodes[-1], outputs=node.outputs)]


@rewrites("Add")
def add(graph: Patterns, node: Node):
    """A bias behind a Gemm that has none."""
    for product, bias in (node.inputs, node.inputs[::-1]):
        gemm, b = graph.only(product, "Gemm"), graph.weights.get(bias)
        if (
            gemm is None
            or gemm.input(2)
            or (gemm.get("alpha"), gemm.get("beta")) != (1, 1)
            or b is None
            or b.ndim > len(graph.specs[product].shape or ())
        ):
            continue
        n = graph.specs[product].shape[-1]
        if b.shape == (*(1,) * (b.ndim - 1), n):
            return [replace(gemm, inputs=(*gemm.inputs[:2], graph.weight(f"{node.name}.bias", b.reshape(n)), *gemm.inputs[3:]), outputs=node.outputs)]
    return None


def _scaled(graph: Patterns, node: Node, product: str, factor: str):
    """A @ B, scaled, as (A scaled) @ B where A's rows are known to be shorter than the result's, or may be (attention: features against steps)."""
    matmul, number = graph.only(product, "MatMul"), graph.scalar(factor)
    if (
        matmul is None
        or number is None
        or matmul.inputs[0] in graph.weights
        or graph.weights[factor].ndim > 1
        or not (abs(number) >= 1 if node.op == "Div" else abs(number) <= 1)
    ):
        return None  # a factor that makes larger could overflow where the result would not
    spec, whole = graph.specs[matmul.inputs[0]], graph.specs[product].shape
    if (
        spec.dtype != "float32"
        or len(spec.shape) < 2
        or len(graph.specs[matmul.inputs[1]].shape) < 2
        or not isinstance(spec.shape[-1], int)
        or isinstance(whole[-1], int)
        and whole[-1] <= spec.shape[-1]
    ):
        return None
    nodes: list[Node] = []
    (a,) = graph.node(nodes, node.op, f"{node.name}.rows", (matmul.inputs[0], factor), spec=spec)
    return [*nodes, replace(matmul, inputs=(a, matmul.inputs[1]), outputs=node.outputs)]


@rewrites("Div")
def quotient(graph: Patterns, node: Node):
    """Of a product by a number; x clip(x + 3, 0, 6) / 6, a hard swish, as a product with 1 / 6."""
    if graph.scalar(node.inputs[1]) == 6.0 and _hard_swish(graph, graph.only(node.inputs[0], "Mul")):
        return [replace(node, op="Mul", inputs=(node.inputs[0], graph.weight(f"{node.name}.factor", np.float32(1 / 6))))]
    return _scaled(graph, node, *node.inputs)


def _hard_swish(graph: Patterns, product: Node | None) -> bool:
    """Whether a node is x clip(x + 3, 0, 6)."""
    if product is None or graph.specs[product.outputs[0]].dtype != "float32":
        return False
    for x, bounded in (product.inputs, product.inputs[::-1]):
        clip = graph.only(bounded, "Clip")
        moved = graph.only(clip.inputs[0], "Add") if clip is not None and [graph.scalar(clip.input(k)) for k in (1, 2)] == [0.0, 6.0] else None
        if moved is not None and x in moved.inputs and 3.0 in map(graph.scalar, moved.inputs):
            return True
    return False


@rewrites("Mul")
def scale(graph: Patterns, node: Node):
    """Of a product and a number."""
    return _scaled(graph, node, *node.inputs) or _scaled(graph, node, *node.inputs[::-1])


@rewrites("BatchNormalization")
def batch_normalization(graph: Patterns, node: Node):
    """Into the convolution in front, or a product and a sum."""
    parameters = [graph.weights.get(name) for name in node.inputs[1:]]
    if any(p is None for p in parameters):
        return None
    a, b = batch_factors(node, *(p.astype(np.float64) for p in parameters))
    dtype, conv = np.dtype(graph.specs[node.inputs[0]].dtype), graph.only(node.inputs[0], "Conv", "ConvTranspose")
    if conv is not None and all(not name or name in graph.weights for name in conv.inputs[1:]) and graph.weights[conv.inputs[1]].dtype.kind == "f":
        w, bias = graph.weights[conv.inputs[1]].astype(np.float64), graph.weights.get(conv.input(2))
        if conv.op == "Conv":
            w = w * a.reshape(-1, *(1,) * (w.ndim - 1))
        else:
            groups = conv.get("group")
            w = (w.reshape(groups, -1, *w.shape[1:]) * a.reshape(groups, 1, -1, *(1,) * (w.ndim - 2))).reshape(w.shape)
        bias = b if bias is None else bias * a + b
        inputs = conv.inputs[0], graph.weight(f"{conv.name}.W", w.astype(dtype)), graph.weight(f"{conv.name}.B", bias.astype(dtype))
        return [replace(conv, inputs=inputs, outputs=node.outputs)]
    rank = len(graph.specs[node.inputs[0]].shape or ())
    if rank < 1:
        return None
    a, b = (graph.weight(f"{node.name}.{n}", v.reshape(-1, *(1,) * max(0, rank - 2)).astype(dtype)) for n, v in (("scale", a), ("shift", b)))
    nodes: list[Node] = []
    (middle,) = graph.node(nodes, "Mul", f"{node.name}.product", (node.inputs[0], a), spec=Spec(str(dtype), graph.specs[node.inputs[0]].shape))
    return [*nodes, Node("Add", node.name, (middle, b), node.outputs)]


@rewrites("Pow")
def power(graph: Patterns, node: Node):
    """x ** 2. A root is no power of 0.5: they differ at -inf and at -0."""
    x, exponent = node.inputs[0], graph.scalar(node.inputs[1])
    if exponent != 2.0 or graph.specs[x].dtype != "float32" or graph.specs[x].shape != graph.specs[node.outputs[0]].shape:
        return None
    return [replace(node, op="Mul", inputs=(x, x))]
