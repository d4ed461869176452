"""Ops without a kernel of their own, taken apart into others that have one. Float32 but for OneHot.

ReduceL1, ReduceLogSum, ReduceLogSumExp, LpNormalization, RMSNormalization, IsNaN
OneHot with a constant depth
Resize: nearest and linear, along axes of known sizes
Attention over computed queries, keys and values, without a cache
"""

from __future__ import annotations

import json

import numpy as np

from fastrnn.model import Node
from fastrnn.model.ops.foreign import PREFIX
from fastrnn.model.ops.normal import reduced_axes
from fastrnn.model.sizes import Whole, same
from fastrnn.plan.graph.rewrites.patterns import Patterns, rewrites


class Apart:
    """What a node becomes: op() appends one and gives its output's name; done() lets the last have the node's outputs."""

    def __init__(self, graph: Patterns, node: Node):
        self.graph, self.node, self.nodes = graph, node, []

    def op(self, op: str, *inputs: str, **attributes) -> str:
        """A node; the name of its output."""
        return self.graph.node(self.nodes, op, f"{self.node.name}.{op.lower()}", inputs, **attributes)[0]

    def number(self, value, dtype="float32") -> str:
        """A constant of one element, rank 0."""
        return self.graph.weight(f"{self.node.name}.number", np.array(value, dtype))

    def whole(self, *values: Whole) -> str:
        """A constant int64 (n,)."""
        return self.graph.whole(f"{self.node.name}.wholes", *values)

    def done(self) -> list[Node]:
        """The nodes, the last of which makes what the node made."""
        last = self.nodes[-1]
        return [*self.nodes[:-1], Node(last.op, self.node.name, last.inputs, self.node.outputs, last.attributes)]


def apart(*ops: str):
    """Registers (Apart, node, x) -> whether it could be, for float32 inputs x."""

    def register(function):
        def pattern(graph: Patterns, node: Node):
            spec = graph.specs[node.inputs[0]]
            made = Apart(graph, node)
            return made.done() if spec.dtype == "float32" and function(made, node, node.inputs[0]) else None

        for op in ops:
            rewrites(op)(pattern)
        return function

    return register


@apart("ReduceL1")
def reduce_l1(to: Apart, node: Node, x: str) -> bool:
    """Magnitudes added."""
    to.op("ReduceSum", to.op("Abs", x), *node.inputs[1:], **node.attributes)
    return True


@apart("ReduceLogSum")
def reduce_log_sum(to: Apart, node: Node, x: str) -> bool:
    """The logarithm of a sum."""
    to.op("Log", to.op("ReduceSum", *node.inputs, **node.attributes))
    return True


@apart("ReduceLogSumExp")
def reduce_log_sum_exp(to: Apart, node: Node, x: str) -> bool:
    """Shifted by the largest entry, where that is a number."""
    if node.input(1) and node.input(1) not in to.graph.weights:
        return False
    axes = reduced_axes(node, len(to.graph.specs[x].shape), to.graph.weights.get(node.input(1)))
    kept = {**node.attributes, "keepdims": 1}
    most = to.op("ReduceMax", *node.inputs, **kept)
    top = to.op("Where", to.op("Less", to.op("Abs", most), to.number(np.inf)), most, to.number(0))
    total = to.op("ReduceSum", to.op("Exp", to.op("Sub", x, top)), *node.inputs[1:], **kept)
    whole = to.op("Add", to.op("Log", total), top)
    if axes and not node.get("keepdims"):
        to.op("Squeeze", whole, to.whole(*axes))
    return True


@apart("RMSNormalization")
def rms_normalization(to: Apart, node: Node, x: str) -> bool:
    """x / sqrt(mean(x^2) + epsilon) scale."""
    rank = len(to.graph.specs[x].shape)
    mean = to.op("ReduceMean", to.op("Mul", x, x), to.whole(*range(node.get("axis") % rank, rank)), keepdims=1)
    to.op("Mul", to.op("Div", x, to.op("Sqrt", to.op("Add", mean, to.number(node.get("epsilon"))))), node.inputs[1])
    return True


@apart("LpNormalization")
def lp_normalization(to: Apart, node: Node, x: str) -> bool:
    """By the norm along an axis; 0 where that is 0."""
    axis = to.whole(node.get("axis") % len(to.graph.specs[x].shape))
    norm = to.op("ReduceSum", to.op("Abs", x), axis, keepdims=1) if node.get("p") == 1 else to.op("ReduceL2", x, axis, keepdims=1)
    nothing = to.op("Equal", norm, to.number(0))
    to.op("Where", nothing, to.number(0), to.op("Div", x, to.op("Where", nothing, to.number(1), norm)))
    return True


@apart("IsNaN")
def is_nan(to: Apart, node: Node, x: str) -> bool:
    """What does not equal itself."""
    to.op("Not", to.op("Equal", x, x))
    return True


@rewrites("OneHot")
def one_hot(graph: Patterns, node: Node):
    """A comparison with the numbers of the new axis; one below zero counts from its end."""
    index, values = graph.specs[node.inputs[0]], graph.weights.get(node.inputs[2])
    depth = graph.weights.get(node.inputs[1])
    if (
        index.dtype not in ("int32", "int64")
        or depth is None
        or depth.dtype == object
        or values is None
        or values.dtype not in ("float32", "int32", "int64")
    ):
        return None
    to, n, rank = Apart(graph, node), int(depth.reshape(())), len(index.shape)
    axis = node.get("axis") % (rank + 1)
    at = to.op(
        "Where", to.op("Less", node.inputs[0], to.number(0, index.dtype)), to.op("Add", node.inputs[0], to.number(n, index.dtype)), node.inputs[0]
    )
    places = graph.weight(f"{node.name}.places", np.arange(n, dtype=index.dtype).reshape(n, *(1,) * (rank - axis)))
    to.op(
        "Where",
        to.op("Equal", to.op("Unsqueeze", at, to.whole(axis)), places),
        to.number(values[1], values.dtype),
        to.number(values[0], values.dtype),
    )
    return to.done()


def _coordinates(mode: str, n: int, wanted: int, scale: float) -> np.ndarray | None:
    """Where the entries of a resized axis lie in the old one (ONNX, Resize, coordinate_transformation_mode). Corners are those of scale n entries, not of whole ones."""
    at, width = np.arange(wanted, dtype=np.float64), scale * n
    if mode == "half_pixel" or mode == "pytorch_half_pixel" and width != 1:
        return (at + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros(wanted)
    if mode == "align_corners":
        return at * (n - 1) / (width - 1) if width != 1 else np.zeros(wanted)
    return at / scale if mode == "asymmetric" else None


NEAREST = {"round_prefer_floor": lambda at: np.ceil(at - 0.5), "round_prefer_ceil": lambda at: np.floor(at + 0.5), "floor": np.floor, "ceil": np.ceil}


@rewrites(f"{PREFIX}Resize")
def resize(graph: Patterns, node: Node):
    """Axis by axis: entries taken, or two of them mixed."""
    spec, made, options = graph.specs[node.inputs[0]], graph.specs[node.outputs[0]].shape, json.loads(node.get("options"))
    mode, scales = options.get("mode", "nearest"), graph.weights.get(node.input(2))
    if (
        spec.dtype != "float32"
        or mode not in ("nearest", "linear")
        or options.get("antialias")
        or options.get("keep_aspect_ratio_policy", "stretch") != "stretch"
        or options.get("axes")
    ):
        return None
    to, x = Apart(graph, node), node.inputs[0]
    for axis, (n, wanted) in enumerate(zip(spec.shape, made, strict=True)):
        unknown = isinstance(n, str) or isinstance(wanted, str)
        if (n == wanted if unknown else same(n, wanted)) and (scales is None or scales.size == 0 or scales[axis] == 1):
            continue
        if unknown or n == 0 or wanted == 0:
            return None
        n, wanted = int(n), int(wanted)
        scale = float(scales[axis]) if scales is not None and scales.size else wanted / n
        at = _coordinates(options.get("coordinate_transformation_mode", "half_pixel"), n, wanted, scale)
        nearest = NEAREST.get(options.get("nearest_mode", "round_prefer_floor"))
        if at is None or nearest is None:
            return None
        if mode == "nearest":
            x = to.op("Gather", x, to.whole(*np.clip(nearest(at), 0, n - 1).astype(int)), axis=axis)
            continue
        at = np.clip(at, 0, n - 1)
        low = np.minimum(np.floor(at).astype(int), max(0, n - 2))
        share = (at - low).astype(np.float32).reshape(-1, *(1,) * (len(made) - axis - 1))
        lower, upper = (
            to.op("Mul", to.op("Gather", x, to.whole(*index), axis=axis), graph.weight(f"{node.name}.share", factor))
            for index, factor in ((low, 1 - share), (np.minimum(low + 1, n - 1), share))
        )
        x = to.op("Add", lower, upper)
    return to.done() if to.nodes else None


@rewrites(f"{PREFIX}Attention")
def attention(graph: Patterns, node: Node):
    """softmax(Q K' scale + mask) V, the scale's root on both sides as ONNX has it. Grouped heads of keys serve several of queries."""
    options, specs = json.loads(node.get("options")), [graph.specs[name] if name else None for name in node.inputs]
    unread = {name for name, value in options.items() if value and name not in ("q_num_heads", "kv_num_heads", "scale")}
    if (
        unread
        or any(node.input(k) for k in (4, 5, 6))
        or any(node.output(k) for k in (1, 2, 3))
        or any(s is not None and s.dtype != "float32" for s in specs)
        or any(s.shape is None or isinstance(s.shape[-1], str) for s in specs[:3])
    ):
        return None
    to, rank = Apart(graph, node), len(specs[0].shape)
    heads = [options.get("q_num_heads"), *[options.get("kv_num_heads")] * 2] if rank == 3 else [s.shape[1] for s in specs[:3]]
    if any(not n or isinstance(n, str) for n in heads) or int(heads[0]) % int(heads[1]):
        return None
    heads, sizes = [int(n) for n in heads], [int(s.shape[-1]) for s in specs[:3]]
    groups = heads[0] // heads[1]
    q, k, v = node.inputs[:3]
    if rank == 3:  # (B, S, heads d) -> (B, heads, S, d)
        q, k, v = (
            to.op("Transpose", to.op("Reshape", name, to.whole(0, 0, n, size // n)), perm=(0, 2, 1, 3))
            for name, n, size in zip((q, k, v), heads, sizes)
        )
    size = sizes[0] // (heads[0] if rank == 3 else 1)
    if groups > 1:
        if any(isinstance(n, str) for s in specs[1:3] for n in s.shape):
            return None
        k, v = (_repeated(to, name, groups) for name in (k, v))
    root = to.number(np.sqrt(options.get("scale") or 1 / np.sqrt(size)))
    scores = to.op("MatMul", to.op("Mul", q, root), to.op("Transpose", to.op("Mul", k, root), perm=(0, 1, 3, 2)))
    if node.input(3):
        scores = to.op("Add", scores, node.inputs[3])
    mixed = to.op("MatMul", to.op("Softmax", scores, axis=-1), v)
    if rank == 3:
        to.op("Reshape", to.op("Transpose", mixed, perm=(0, 2, 1, 3)), to.whole(0, 0, -1))
    return to.done()


def _repeated(to: Apart, name: str, groups: int) -> str:
    """(B, heads, S, d) with each head so many times in a row."""
    B, heads, S, d = to.graph.specs[name].shape
    wide = to.op("Expand", to.op("Unsqueeze", name, to.whole(2)), to.whole(B, heads, groups, S, d))
    return to.op("Reshape", wide, to.whole(B, heads * groups, S, d))
