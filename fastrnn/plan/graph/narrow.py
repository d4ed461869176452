"""A model with small weights: what of it becomes bfloat16 or int8, and what stays as it is, said node by node.

LSTM, GRU, RNN, Gemm, a MatMul with a constant matrix, Conv, and for bfloat16 ConvTranspose and custom cells. The nodes keep their names; dtypes of their weights say what they are
(model/small.py), so that such a model saves, loads and compiles like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Graph, Model, Node
from fastrnn.model.edit import Edit
from fastrnn.model.graph import every_node
from fastrnn.model.recurrent import INPUTS, RECURRENT, cell_of, input_of, keeps_within_one
from fastrnn.model.small import BOUNDED, PRECISION_OF, PRECISIONS, UNBOUNDED, quantized, restored, to_bfloat16
from fastrnn.plan.graph.fold import fold
from fastrnn.plan.graph.quantized import integers
from fastrnn.plan.graph.recognise import recognise
from fastrnn.plan.graph.rewrites import rewrite

if TYPE_CHECKING:
    from fastrnn.typing import Layer, Precision

MATRICES = ("W", "R", "projection")
PRODUCTS = ("Gemm", "MatMul", "Conv", "ConvTranspose")
# Weights of a node from which on int8 pays: below, rounding what is multiplied takes longer than the product saves.
LEAST_WEIGHTS = 12288
FLOAT_CELLS = "custom cells are compiled for float32"
# Ops whose results are entries of their first inputs (of Concat, of all), so that what was within 1 stays there.
MOVING = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Concat", "Gather", "Expand", "ReverseSequence", "Dropout")  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """What a precision says of each node: its own, or the default."""

    default: str
    named: Mapping[str, str]

    def of(self, node: Node) -> str:
        """Of one node."""
        return self.named.get(node.name, self.default)


def chosen(precision: Precision) -> Chosen:
    """A name, or names by node with "default" among them (float32 without)."""
    named = {"default": precision} if isinstance(precision, str) else dict(precision) if isinstance(precision, Mapping) else None
    if named is None:
        raise UnsupportedModelError(f"precision must be one of {', '.join(PRECISIONS)}, or a dict of them by node, got {precision!r}")
    for node, name in named.items():
        if name not in PRECISIONS:
            raise UnsupportedModelError(
                f"precision {name!r}{'' if node == 'default' else f' of node {node!r}'} is unknown; known are {', '.join(PRECISIONS)}"
            )
    return Chosen(named.pop("default", "float32"), named)


def prepared(model: Model) -> Model:
    """The model as precisions see it: folded, its layers recognised, products with constant matrices as Gemm."""
    return rewrite(recognise(fold(integers(model), {v.name: v.shape for v in model.inputs})))


def narrowed(model: Model, precision: Precision) -> Model:
    """The model over weights of a precision; nodes that are small already, and what the precision does not reach, stay. Raises UnsupportedModelError, naming the node, for
    a name that no node has, and for one that cannot have what is asked of it by name."""
    choice = chosen(precision)
    if choice.default == "float32" and not choice.named:
        return model
    model = prepared(model)
    names = {node.name for node, _ in every_node(model.nodes)}
    if unknown := sorted(set(choice.named) - names):
        raise UnsupportedModelError(f"precision: there is no node {unknown[0]!r}; nodes with weights are {', '.join(_with_weights(model))}")
    for node, _ in every_node(model.nodes):
        if choice.named.get(node.name, "float32") != "float32" and not _matrices(node):
            raise UnsupportedModelError(
                f"node {node.name!r} ({node.op}) cannot have precision {choice.named[node.name]!r}: it has no weights that are multiplied"
            )
        if choice.named.get(node.name) == "float32" and (small := small_weights(node, model.weights)):
            raise UnsupportedModelError(
                f"node {node.name!r} ({node.op}) cannot have precision 'float32': its weights are {model.weights[next(iter(small))].dtype} already"
            )
    return _Narrowing(model, choice).run()


def widened(model: Model) -> Model:
    """The model in float32 over the numbers that its small weights stand for."""
    return _Widening(model).run()


def round_weights(model: Model | Layer, precision: Precision) -> Model:
    """The float32 model whose weights are what `precision` stores: rounded to bfloat16, or quantized and scaled back.

    precision: as compile takes it. A session of it gives, to the bit, what one of `model` gives with precision="bfloat16"; with "int8" it is what the weights alone cost,
    the floor of the error. Shares the weights that stay. Raises UnsupportedModelError naming a node or a precision that is not known.
    """
    return widened(narrowed(model.to_model() if not isinstance(model, Model) else model, precision))


def said(node: Node, weights: Mapping[str, np.ndarray], precision: Precision) -> str:
    """Of a node of a model that was narrowed: how its weights are kept, or why in float32; "" where that is nothing to speak of."""
    names, asked = _matrices(node), chosen(precision).of(node)
    if node.op == "DynamicQuantizeLinear" and not node.get("axes"):
        return "bytes over the range of the whole batch, whose rows so depend on each other"
    if not names:
        return ""
    stored = PRECISION_OF.get(str(weights[names[0]].dtype)) if names[0] in weights else None
    if stored == "int8":
        bits = node.get("x_bits")
        return (
            f"int8, x in {bits} bits"
            if bits >= BOUNDED
            else "int8, bytes over " + ("each row" if bits else "the whole batch, whose rows so depend on each other")
        )
    if stored == "bfloat16":
        return f"bfloat16, but {FLOAT_CELLS}, to which its weights are widened" if node.op == "Recurrent" else stored
    if asked == "float32":
        return ""
    return f"float32: {kept(node, weights, asked)}"


def kept(node: Node, weights: Mapping[str, np.ndarray], precision: str) -> str | None:
    """Why a node with weights cannot have this precision; None where it can. For int8 these are rules of sizes and kinds alone, the same on every machine."""
    names = _matrices(node)
    if any(name not in weights for name in names):
        return "its weights are not constant"
    if any(weights[name].dtype != np.float32 for name in names):
        return f"its weights are {weights[names[0]].dtype}"
    if node.op == "MatMul":
        return "the rank of what it multiplies is not known"  # or it were a Gemm
    if precision != "int8":
        return None
    if node.op == "Recurrent":
        return FLOAT_CELLS
    if node.op == "ConvTranspose":
        return "a transposed convolution has no kernel over int8"
    w = weights[names[0]]
    if node.op == "Conv" and 1 < node.get("group") == len(w):
        return "depthwise: its time is not its weights'"
    if (n := sum(weights[name].size for name in names)) < LEAST_WEIGHTS:
        return f"{n} weights are too few to gain by it"
    return None


def small_weights(node: Node, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The matrices of a node that are kept in bfloat16 or int8, with the names of their scales, "" without."""
    return {
        node.input(k): node.input(s) for k, s in _places(node) if (w := weights.get(node.input(k))) is not None and w.dtype in (np.uint16, np.int8)
    }


def small_matrices(model: Model) -> dict[str, str]:
    """The same of all nodes of a model."""
    return {name: scale for node, _ in every_node(model.nodes) for name, scale in small_weights(node, model.weights).items()}


def _places(node: Node) -> list[tuple[int, int]]:
    """Which inputs of a node may be matrices, and which are their scales."""
    if node.op in RECURRENT:
        return [(INPUTS.index(which), INPUTS.index(f"{which}_scale")) for which in MATRICES]
    return [(1, 3)] if node.op in PRODUCTS else []


def _matrices(node: Node) -> list[str]:
    """Names of a node's matrices."""
    return [name for k, _ in _places(node) if (name := node.input(k))]


def _with_weights(model: Model) -> list[str]:
    return [repr(node.name) for node, _ in every_node(model.nodes) if _matrices(node) and all(name in model.weights for name in _matrices(node))]


class _Rebuilding(Edit):
    """Nodes one by one, those of subgraphs too."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._made: dict[tuple[str, str], str] = {}

    def run(self) -> Model:
        return self.result(self.walk(self.model.nodes))

    def walk(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes with their weights changed."""
        result = []
        for node in nodes:
            if node.subgraphs:
                node = replace(
                    node,
                    attributes={k: replace(v, nodes=tuple(self.walk(v.nodes))) if isinstance(v, Graph) else v for k, v in node.attributes.items()},
                )
            result.append(self.changed(node) if _matrices(node) else node)
        return result

    def changed(self, node: Node) -> Node:
        raise NotImplementedError

    def once(self, name: str, what: str, make: Callable[[], Any]) -> str:
        """The constant made of another, one for all that read it."""
        key = name, what
        if key not in self._made:
            self._made[key] = self.weight(f"{name}.{what}", make())
        return self._made[key]


class _Narrowing(_Rebuilding):
    """float32 to small weights."""

    def __init__(self, model: Model, choice: Chosen) -> None:
        super().__init__(model)
        self.choice = choice
        self.within_one: set[str] = set()

    def walk(self, nodes: Iterable[Node]) -> list[Node]:
        result = []
        for node in nodes:
            result += super().walk([node])
            self._note(node)
        return result

    def _note(self, node: Node) -> None:
        """Which results are within 1."""
        if node.op in RECURRENT:
            if not input_of(node, "projection") and all(
                keeps_within_one(cell_of(node, d)) for d in range(2 if node.get("direction") == "bidirectional" else 1)
            ):
                self.within_one |= set(node.outputs[:2])
        elif node.op in MOVING and all(name in self.within_one for name in (node.inputs if node.op == "Concat" else node.inputs[:1])):
            self.within_one |= set(node.outputs)

    def changed(self, node: Node) -> Node:
        precision = self.choice.of(node)
        if precision == "float32":
            return node
        if why := kept(node, self.weights, precision):
            if node.name in self.choice.named:
                raise UnsupportedModelError(f"node {node.name!r} ({node.op}) cannot have precision {precision!r}: {why}")
            return node
        x_bits = {"x_bits": BOUNDED if node.inputs[0] in self.within_one else UNBOUNDED} if precision == "int8" else {}
        node = replace(node, attributes={**node.attributes, **x_bits})
        return self._recurrent(node, precision) if node.op in RECURRENT else self._product(node, precision)

    def _small(self, name: str, precision: str, rows: int) -> tuple[str, str]:
        """Names of a matrix in a precision and of its scales, "" without."""
        w = self.weights[name]
        if precision == "bfloat16":
            return self.once(name, "bfloat16", lambda: to_bfloat16(w)), ""
        alike = "" if rows == 1 else f".{rows}"  # a matrix may be read with other rows by another node
        both = cache(lambda: quantized(w, rows))
        return self.once(name, f"int8{alike}", lambda: both()[0]), self.once(name, f"scale{alike}", lambda: both()[1])

    def _recurrent(self, node: Node, precision: str) -> Node:
        inputs = [node.input(k) for k in range(len(INPUTS))]
        for which in MATRICES:
            k = INPUTS.index(which)
            if inputs[k]:
                inputs[k], inputs[INPUTS.index(f"{which}_scale")] = self._small(inputs[k], precision, 2)
        return replace(node, inputs=tuple(inputs[: 1 + max(k for k, name in enumerate(inputs) if name)]))

    def _product(self, node: Node, precision: str) -> Node:
        w, attributes, op = node.inputs[1], dict(node.attributes), node.op
        if op in ("Gemm", "MatMul"):  # rows of units, factors multiplied in
            factor, turned = np.float32(node.get("alpha") if op == "Gemm" else 1), op == "Gemm" and node.get("transB")
            if not turned or factor != 1:
                w = self.once(
                    w,
                    f"rows.{float(factor)!r}.{turned}",
                    lambda: np.ascontiguousarray(self.weights[node.inputs[1]] if turned else self.weights[node.inputs[1]].T) * factor,
                )
            attributes |= {"transB": 1, "alpha": 1.0}
            op = "Gemm"
        w, scale = self._small(w, precision, 1)
        inputs = (node.inputs[0], w, node.input(2), *([scale] if scale else []))
        return replace(node, op=op, attributes=attributes, inputs=inputs if scale or node.input(2) else inputs[:2])


class _Widening(_Rebuilding):
    """Small weights to float32."""

    def changed(self, node: Node) -> Node:
        if not small_weights(node, self.weights):
            return node
        inputs, attributes = list(node.inputs), {k: v for k, v in node.attributes.items() if k != "x_bits"}
        for k, s in _places(node):
            if name := node.input(k):
                scale = node.input(s)
                inputs[k] = self.once(name, "float32", partial(restored, self.weights[name], self.weights[scale] if scale else None))
            if s < len(inputs):
                inputs[s] = ""
        while inputs and not inputs[-1]:
            inputs.pop()
        return replace(node, inputs=tuple(inputs), attributes=attributes)
