"""Which nodes become one kernel call: runs of elementwise nodes, what stands elementwise behind a matrix product, and a pooling behind a convolution.

A node joins the one that reads its value when nothing else does and both have one shape. Fusing changes no bit: alone or in a
chain, an operation is the same code. The Graph knows nothing of it; a Fused node exists only between a Model and its Program.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fastrnn.model import Graph, Model, Node
from fastrnn.model.edit import changed
from fastrnn.model.ops import ANY_DIM, Spec
from fastrnn.model.sizes import same
from fastrnn.plan.emit.emitter import EMIT
from fastrnn.plan.lowering import chain
from fastrnn.plan.lowering.hoist import hoisted
from fastrnn.plan.lowering.windows import pooled_behind

HEADS = ("Gemm", "Conv", "ConvTranspose")
MOST_NODES = 24


@dataclass(frozen=True)
class Fused(Node):
    """One kernel call: elementwise `nodes` in order, behind `head`, a matrix product, if there is one; then `pool`, if head is a convolution that one follows."""

    nodes: tuple[Node, ...] = ()
    head: Node | None = None
    pool: Node | None = None


def main_of(node: Node) -> Node:
    """The node that a call goes by: of a fused one the product, else the last."""
    return (node.head or node.nodes[-1]) if isinstance(node, Fused) else node


def fuse(model: Model) -> Model:
    """The model with Fused nodes in the place of the last of those that each holds. What runs when sizes change is not joined to what always does."""
    nodes = _fuse_nodes(model.nodes, set(model.output_names), model.specs, model.weights, hoisted(model))
    return changed(model, nodes=tuple(nodes))


def _fuse_nodes(
    nodes: Iterable[Node], wanted: set[str], specs: Mapping[str, Spec], weights: Mapping[str, np.ndarray], apart: Collection[str] = ()
) -> list[Node]:
    nodes = [_fuse_branches(node, specs, weights) for node in nodes]
    made = {name: k for k, node in enumerate(nodes) for name in node.outputs if name}
    readers: dict[str, set[int]] = {name: {-1} for name in wanted}
    for k, node in enumerate(nodes):
        for name in node.reads():
            readers.setdefault(name, set()).add(k)
    taken: set[int] = set()
    result: dict[int, Node] = {}
    for last in reversed(range(len(nodes))):
        if last in taken:
            continue
        group = _pooled(last, nodes, made, readers, specs, weights, apart)
        if group is None and _elementwise(nodes[last], specs, weights):
            group = _group(last, nodes, made, readers, specs, weights, apart)
        result[last] = group[0] if group else nodes[last]
        taken |= group[1] if group else set()
    return [result[k] for k in sorted(result)]


def _pooled(last: int, nodes, made, readers, specs, weights, apart) -> tuple[Fused, set[int]] | None:
    """The call that ends in a pooling behind a convolution and what stands elementwise between them, and which nodes it takes."""
    pool = nodes[last]
    if pool.op not in ("MaxPool", "AveragePool") or pooled_behind(pool, specs) is None or pool.inputs[0] not in made:
        return None
    k = made[pool.inputs[0]]
    if readers[pool.inputs[0]] != {last} or (nodes[k].name in apart) != (pool.name in apart):
        return None
    if nodes[k].op == "Conv" and _head(nodes[k], specs, weights):
        return Fused("Chain", pool.name, nodes[k].inputs, pool.outputs, {}, (), nodes[k], pool), {k, last}
    group = _group(k, nodes, made, readers, specs, weights, apart) if _elementwise(nodes[k], specs, weights) else None
    if group is None or group[0].head is None or group[0].head.op != "Conv":
        return None
    return replace(group[0], name=pool.name, outputs=pool.outputs, pool=pool), group[1] | {last}


def _fuse_branches(node: Node, specs, weights) -> Node:
    if not node.subgraphs:
        return node
    return replace(
        node,
        attributes={
            key: replace(v, nodes=tuple(_fuse_nodes(v.nodes, set(v.outputs), specs, weights))) if isinstance(v, Graph) else v
            for key, v in node.attributes.items()
        },
    )


def _elementwise(node: Node, specs, weights) -> bool:
    known = all(name in specs and specs[name].shape is not None for name in (*node.inputs, *node.outputs) if name)
    return known and not node.subgraphs and chain.refused(node, specs, weights) is None


def _head(node: Node, specs, weights) -> bool:
    known = all(name in specs and specs[name].shape is not None for name in (*node.inputs, *node.outputs) if name)
    return known and node.op in HEADS and EMIT[node.op].refused(node, specs, weights) is None


def _group(last: int, nodes, made, readers, specs, weights, apart) -> tuple[Fused, set[int]] | None:
    """The call that ends in an elementwise node, and which nodes it takes; None where that is the node alone."""
    members, output = {last}, nodes[last].outputs[0]
    shape = specs[output].shape
    head = None

    def free(k: int) -> bool:
        """Whether nothing but the group reads what a node makes, all of it."""
        name = nodes[k].outputs[0]
        return (
            len(nodes[k].outputs) == 1
            and readers[name] <= members
            and ANY_DIM not in shape
            and specs[name].rank == len(shape)
            and all(a == b if isinstance(a, str) or isinstance(b, str) else same(a, b) for a, b in zip(specs[name].shape, shape))
            and (nodes[k].name in apart) == (nodes[last].name in apart)
        )

    def inputs(group: set[int]) -> list[int]:
        return sorted({made[name] for k in group for name in nodes[k].inputs if name in made} - group, reverse=True)

    grown = True
    while grown and len(members) < MOST_NODES:
        grown = False
        for k in inputs(members):
            if _elementwise(nodes[k], specs, weights) and free(k) and _chain(members | {k}, nodes, weights).fits:
                members, grown = members | {k}, True
                break
    for k in inputs(members):
        if _head(nodes[k], specs, weights) and free(k) and specs[output].dtype == "float32":
            behind = _chain(members, nodes, weights, nodes[k].outputs[0])
            if behind.fits and all(isinstance(name, str) is False or specs[name].dtype == "float32" for name in behind.operands):
                head = k
                break
    if head is None and len(members) == 1:
        return None
    parts = tuple(nodes[k] for k in sorted(members))
    outside = dict.fromkeys(name for node in ((nodes[head],) if head is not None else ()) + parts for name in node.inputs)
    inner = {nodes[k].outputs[0] for k in members} | ({nodes[head].outputs[0]} if head is not None else set())
    call = Fused(
        "Chain", nodes[last].name, tuple(n for n in outside if n and n not in inner), (output,), {}, parts, nodes[head] if head is not None else None
    )
    return call, members | ({head} if head is not None else set())


def _chain(members: set[int], nodes, weights, fed: str = "") -> chain.Chain:
    return chain.chain_of([nodes[k] for k in sorted(members)], weights, fed)
