"""Patterns that run better as another op: each is a function (graph, node) -> nodes in its place, or None.

BatchNormalization behind Conv or ConvTranspose   into its weights; elsewhere one product and one sum
MatMul with a constant matrix, and an Add after   Gemm, whose FMA chains start at the bias
Gemm with a computed B or C                       MatMul, or Gemm, and what scales and adds behind it
a number that scales a MatMul of two computed     in front of it, on its rows: as many numbers as a row has, not as many as there are columns
Pow by 2                                          Mul
x Clip(x + 3, 0, 6) / 6                           a hard swish by its product with 1 / 6: no division
Concat of all that a Split gives                  what was split
GlobalAveragePool                                 ReduceMean
MaxPool, AveragePool of one channel, by windows   of as many channels as the first axis has: they are read side by side, not one by one
of one along the first axis
ConstantOfShape, Tile along axes of size 1        Expand, a view
QLinearConv, QLinearMatMul                        ConvInteger, MatMulInteger, their sums as bytes again
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastrnn.model import Graph, Model, Node
from fastrnn.model.edit import Edit, live
from fastrnn.model.infer import known
from fastrnn.model.ops import Spec
from fastrnn.model.ops.normal import batch_factors
from fastrnn.model.ops.registry import has_symbol
from fastrnn.model.sizes import same

REWRITES: dict[str, Callable] = {}


def rewrites(op: str):
    """Registers a pattern under the op of its last node."""

    def register(function):
        REWRITES[op] = function
        return function

    return register


class Patterns(Edit):
    """A graph being rewritten: who makes a value, how often it is read."""

    def __init__(self, model: Model):
        super().__init__(model)
        self.made: dict[str, Node] = {}
        self.reads: Counter = Counter(model.output_names)

    def walk(self, nodes) -> list[Node]:
        """The nodes with patterns replaced, subgraphs too."""
        for node in nodes:
            self.reads.update(node.inputs)
            self.reads.update({name: 2 for graph in node.subgraphs for name in graph.captures()})
        result = []
        for node in nodes:
            if node.subgraphs:
                node = replace(
                    node,
                    attributes={k: replace(v, nodes=tuple(self.walk_branch(v))) if isinstance(v, Graph) else v for k, v in node.attributes.items()},
                )
            # of unknown shape: in a branch that may not fit, which is left as it is
            found = REWRITES[node.op](self, node) if node.op in REWRITES and known(self.specs, (*node.inputs, *node.outputs)) else None
            for made in found or [node]:
                result.append(made)
                self.made |= {name: made for name in made.outputs if name}
        return result

    def walk_branch(self, graph: Graph) -> tuple[Node, ...]:
        """A subgraph's nodes with patterns replaced, what they made useless gone."""
        self.reads.update(graph.outputs)
        return live(self.walk(graph.nodes), set(graph.outputs))[0]

    def only(self, name: str, *ops: str) -> Node | None:
        """The node of one of these ops that makes `name`, if nothing else reads it."""
        node = self.made.get(name)
        return node if node is not None and node.op in ops and self.reads[name] == 1 else None

    def scalar(self, name: str) -> float | None:
        """The number behind a constant of one element."""
        array = self.weights.get(name)
        return None if array is None or array.size != 1 else float(array.reshape(()))


def rewrite(model: Model) -> Model:
    """The model with every pattern replaced. Specs of the values stay."""
    graph = Patterns(model)
    return graph.result(graph.walk(model.nodes))


@rewrites("Pow")
def power(graph: Patterns, node: Node):
    """x ** 2. A root is no power of 0.5: they differ at -inf and at -0."""
    x, exponent = node.inputs[0], graph.scalar(node.inputs[1])
    if exponent != 2.0 or graph.specs[x].dtype != "float32" or graph.specs[x].shape != graph.specs[node.outputs[0]].shape:
        return None
    return [replace(node, op="Mul", inputs=(x, x))]


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
