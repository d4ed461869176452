"""Which values are made in the place of another, decided before any step is emitted: what makes a part of an output, of a Concat, of what a ScatterND
writes to or of a padded input makes it there. And how long each place is needed."""

from __future__ import annotations

import math
from collections import Counter

from fastrnn.model import Node
from fastrnn.plan.lowering.chain import PLAIN, SPELLED
from fastrnn.plan.lowering.fuse import Fused, main_of
from fastrnn.plan.lowering.memory import IMAGES
from fastrnn.plan.lowering.views import source_of
from fastrnn.plan.lowering.windows import share_padding


def sink_outputs(build) -> None:
    """What a view or a Concat that lies in an output is made of is written there directly."""
    produced = {name for node in build.model.nodes if node.name not in build.hoisted for name in node.outputs}
    for node in reversed(build.model.nodes):
        view = build.views.get(node.outputs[0])
        if view is None or view.space != "slot" or len(node.outputs) > 1:
            continue
        if node.op == "Concat":
            axis, start = node.get("axis") % len(view.shape), 0
            for name in node.inputs:
                n = build.shape_of(name)[axis]
                if name in produced:
                    build.views.setdefault(name, view.part(start, start + n, axis))
                start += n
        elif build.is_view(node) and node.inputs[0] in produced - set(build.views):
            source = source_of(node, view, build.shape_of(node.inputs[0]))
            build.views |= {} if source is None else {node.inputs[0]: source}


def share_places(build) -> None:
    """What a Concat joins, what a view of it shows, what a ScatterND replaces parts of and what a convolution pads is made where the result will lie."""
    made = {name: node for node in build.model.nodes for name in node.outputs if name}
    readers = Counter(name for node in build.model.nodes for name in [*node.reads(), *node.inputs])  # 2 each, more if read twice
    kept = {*build.model.output_names, *build.views}

    def share(name: str, whole: str, part, ordered: bool = True) -> None:
        node = made.get(name)
        if node is None or node.subgraphs or node.name in build.hoisted or name in kept or name in build.inside or readers[name] > 2:
            return
        build.inside[name] = whole, part, ordered
        build.root[name] = build.root.get(whole, whole)
        if build.is_view(node) and len(node.outputs) == 1:
            share(node.inputs[0], name, lambda view, node=node: source_of(node, view, build.shape_of(node.inputs[0])))

    for node in reversed(build.model.nodes):
        if node.op == "Concat":
            axis, start = node.get("axis") % len(build.shape_of(node.outputs[0])), 0
            sizes = {name: math.prod(build.shape_of(name)) for name in node.inputs}
            # the order of axes that a small part would like is no reason to turn a large one, a cache from an input, around
            ordered = 2 * sum(n for name, n in sizes.items() if name in made and not build.is_view(made[name])) > sum(sizes.values())
            for name in node.inputs:
                n = build.shape_of(name)[axis]
                share(name, node.outputs[0], lambda view, start=start, n=n, axis=axis: view.part(start, start + n, axis), ordered)
                start += n
        elif node.op == "ScatterND":
            share(node.inputs[0], node.outputs[0], lambda view: view)
        elif main_of(node).op == "Conv" and build.compiled:
            maker = made.get(main_of(node).inputs[0])
            share_padding(build, main_of(node), share, IMAGES if maker is not None and _writes_images(maker) else 2)


def _writes_images(node: Node) -> bool:
    """Whether what makes a value writes rows in three loops: images with something between their lines."""
    return isinstance(node, Fused) or node.op in ("Conv", "ConvTranspose") or node.op in PLAIN or node.op in SPELLED


def last_uses(build) -> dict[str, int]:
    """Index of the last node that reads or writes a value's memory, through views as well; outputs stay to the end."""
    last: dict[str, int] = {}
    for k, node in enumerate(build.model.nodes):
        if build.is_view(node):
            build.root.update({name: build.root.get(node.inputs[0], node.inputs[0]) for name in node.outputs})
        inner = {name for graph in node.subgraphs for name in graph.made()}
        for name in (*node.reads(), *node.outputs, *inner):
            last[build.root.get(name, name)] = k
    return last | {build.root.get(name, name): len(build.model.nodes) for name in build.model.output_names}
