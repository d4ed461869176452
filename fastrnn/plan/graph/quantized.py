"""Products of dequantized bytes, as quantizers write them (QDQ), become products of bytes: exact sums, one scaling.

    DequantizeLinear(x), DequantizeLinear(w) -> Conv, MatMul, Gemm [-> Relu] -> QuantizeLinear     ConvInteger or MatMulInteger, its sums as bytes again
    the same without a QuantizeLinear behind                                                      the integer product, Cast, Mul
    DequantizeLinear -> MaxPool, Transpose, Reshape and their like -> QuantizeLinear, as before   what stands between, over bytes

Before anything is folded, which would make floats of the weights. A bias must be int32 in the products' scale, or absent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from fastrnn.model import Model, Node
from fastrnn.model.edit import Edit
from fastrnn.model.ops import Spec
from fastrnn.model.ops.quantized import BYTES

# What gives entries of its first input, so that it may as well choose among their bytes.
CHOOSING = ("MaxPool", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Expand")
PRODUCTS = {"Conv": "ConvInteger", "MatMul": "MatMulInteger", "Gemm": "MatMulInteger"}


def integers(model: Model) -> Model:
    """The model with every such product replaced; the same model where there is none. Subgraphs stay as they are."""
    ops = {node.op for node in model.nodes}
    if "DequantizeLinear" not in ops or ops.isdisjoint((*PRODUCTS, *CHOOSING)):
        return model
    return _Integers(model).run()


def _plain(scale: np.ndarray) -> bool:
    """Whether scales are numbers that products with them stay numbers by: positive, neither tiny nor huge."""
    return bool(((scale > 1e-30) & (scale < 1e30)).all())


class _Integers(Edit):
    def __init__(self, model: Model):
        super().__init__(model)
        self.made = {name: node for node in model.nodes for name in node.outputs if name}
        self.reads = (
            Counter(name for node in model.nodes for name in node.reads()) + Counter(model.output_names) + Counter(s.output for s in model.states)
        )
        self.readers = {name: node for node in model.nodes for name in node.inputs if name}

    def run(self) -> Model:
        result, gone = [], set()
        for node in self.model.nodes:
            if node.name in gone:
                continue
            found = self.product(node) if node.op in PRODUCTS else self.choice(node) if node.op in CHOOSING else None
            if found is None:
                result.append(node)
            else:
                nodes, ends = found
                gone |= ends
                result += nodes
        return self.result(result)

    def choice(self, node: Node) -> tuple[list[Node], set[str]] | None:
        """A node that chooses among entries, over their bytes, where those behind it have the same scale and zero point."""
        x = self.made.get(node.inputs[0])
        if x is None or x.op != "DequantizeLinear" or len([name for name in node.outputs if name]) > 1 or self.reads[node.outputs[0]] != 1:
            return None
        behind = self.readers.get(node.outputs[0])
        if behind is None or behind.op != "QuantizeLinear" or self.specs[behind.outputs[0]].dtype != self.specs[x.inputs[0]].dtype:
            return None
        for k in (1, 2):  # both constants of one number, or no zero point
            ours, theirs = (self.weights.get(n.input(k)) if n.input(k) else np.zeros(1, np.uint8) for n in (x, behind))
            if ours is None or theirs is None or ours.size != 1 or ours.reshape(()) != theirs.reshape(()) or k == 1 and not _plain(ours):
                return None
        return [replace(node, inputs=(x.inputs[0], *node.inputs[1:]), outputs=behind.outputs)], {behind.name}

    def product(self, node: Node) -> tuple[list[Node], set[str]] | None:
        """Nodes in the place of a product, and names of those behind it that are done with."""
        x, w = (self.made.get(name) for name in node.inputs[:2])
        if any(n is None or n.op != "DequantizeLinear" or n.get("block_size") for n in (x, w)):
            return None
        if node.op == "Gemm" and (node.get("transA"), node.get("alpha"), node.get("beta")) != (0, 1, 1):
            return None
        x_scale, w_scale, weights = self.weights.get(x.inputs[1]), self.weights.get(w.inputs[1]), self.weights.get(w.inputs[0])
        zero = self.weights.get(w.input(2)) if w.input(2) else None
        spec = self.specs.get(x.inputs[0])
        if (
            x_scale is None
            or x_scale.size != 1
            or w_scale is None
            or weights is None
            or str(weights.dtype) not in BYTES
            or spec is None
            or spec.dtype not in BYTES
        ):
            return None
        if w.input(2) and zero is None or x.input(2) and self.specs[x.input(2)].shape not in ((), (1,)):
            return None
        turned = node.op == "Gemm" and node.get("transB")
        units = 0 if node.op == "Conv" or turned else weights.ndim - 1
        if w_scale.size != 1 and (w_scale.ndim != 1 or w.get("axis") % weights.ndim != units) or node.op != "Conv" and weights.ndim != 2:
            return None
        with np.errstate(all="ignore"):
            scale = (x_scale.reshape(-1) * w_scale.reshape(-1)).astype(np.float32)
        bias = self.bias(node, scale, weights.shape[units])
        if bias is None or not spec.shape or not _plain(scale) or not self.fits(weights, zero, bias, units):
            return None
        return self.rebuilt(node, x, w, turned, scale, bias)

    def fits(self, weights: np.ndarray, zero: np.ndarray | None, bias: str, units: int) -> bool:
        """Whether no sum passes int32, as one of floats would not."""
        zeros = np.zeros(1, np.int64) if zero is None else zero.astype(np.int64)
        most = max(int(weights.max(initial=0)) - zeros.min(), zeros.max() - int(weights.min(initial=0)))
        terms = weights.size // max(1, weights.shape[units])
        return int(most) * 255 * terms + (int(np.abs(self.weights[bias].astype(np.int64)).max(initial=0)) if bias else 0) < 1 << 31

    def bias(self, node: Node, scale: np.ndarray, units: int) -> str | None:
        """The name of an int32 bias in the products' scale, "" for none; None where it is something else."""
        name = node.input(2)
        if not name:
            return ""
        made = self.made.get(name)
        if made is None or made.op != "DequantizeLinear" or made.input(2) and (zero := self.weights.get(made.input(2))) is not None and zero.any():
            return None
        bias, own = self.weights.get(made.inputs[0]), self.weights.get(made.inputs[1])
        fits = (
            bias is not None
            and own is not None
            and bias.dtype == np.int32
            and bias.shape == (units,)
            and np.allclose(own.reshape(-1), scale, rtol=1e-6, atol=0)
        )
        return made.inputs[0] if fits else None

    def rebuilt(self, node: Node, x: Node, w: Node, turned: bool, scale: np.ndarray, bias: str) -> tuple[list[Node], set[str]]:
        nodes: list[Node] = []
        weights = w.inputs[0]
        if turned:
            weights = self.weight(f"{weights}.turned", np.ascontiguousarray(self.weights[weights].T))
        inputs = [x.inputs[0], weights, x.input(2), w.input(2), bias]
        attributes = {k: v for k, v in node.attributes.items() if k != "x_bits"} if node.op == "Conv" else {}
        ends, last = self.ends(node)
        if last is not None:
            y_scale, y_zero = self.weights[last.inputs[1]], last.input(2)
            inputs += [self.weight(f"{node.name}.scale", (scale / y_scale.reshape(-1)).astype(np.float32)), y_zero]
            return [Node(PRODUCTS[node.op], node.name, tuple(inputs), last.outputs, attributes)], ends
        while not inputs[-1]:
            inputs.pop()
        shape = self.specs[node.outputs[0]].shape
        (total,) = self.node(nodes, PRODUCTS[node.op], f"{node.name}.sums", inputs, spec=Spec("int32", shape), **attributes)
        spread = scale.reshape(-1, *(1,) * (len(shape) - 2)) if node.op == "Conv" else scale
        (number,) = self.node(nodes, "Cast", f"{node.name}.number", (total,), spec=Spec("float32", shape), to="float32")
        return [*nodes, Node("Mul", node.name, (number, self.weight(f"{node.name}.scale", spread)), node.outputs)], set()

    def ends(self, node: Node) -> tuple[set[str], Node | None]:
        """What follows that rounding to bytes again does as well: a QuantizeLinear, a Relu in front of one whose zero point is the least byte."""
        names, behind, relu = set(), node, False
        while self.reads[behind.outputs[0]] == 1 and (reader := self.readers.get(behind.outputs[0])) is not None:
            names.add(reader.name)
            if reader.op == "Relu" and not relu:
                behind, relu = reader, True
                continue
            if reader.op != "QuantizeLinear" or reader.get("block_size") or not reader.input(2):
                break
            y_scale, y_zero = (self.weights.get(name) for name in reader.inputs[1:3])
            if y_scale is None or y_zero is None or not _plain(y_scale) or y_scale.size != 1 or y_zero.size != 1 or str(y_zero.dtype) not in BYTES:
                break
            if relu and int(y_zero.reshape(())) != np.iinfo(y_zero.dtype).min:
                break
            return names, reader
        return set(), None
