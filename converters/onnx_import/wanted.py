"""The part of an ONNX graph that some of its outputs need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx

from fastrnn.errors import UnsupportedModelError

Reads = Callable[[onnx.NodeProto], Iterable[str]]


def needed(graph: onnx.GraphProto, outputs: Iterable[str], reads: Reads) -> list[onnx.NodeProto]:
    """The nodes that these outputs follow from, in the file's order."""
    makers = {name: node for node in graph.node for name in node.output if name}
    found, open_ = {}, list(outputs)
    while open_:
        node = makers.get(open_.pop())
        if node is not None and id(node) not in found:
            found[id(node)] = node
            open_ += reads(node)
    return [node for node in graph.node if id(node) in found]


def only(proto: onnx.ModelProto, outputs: Sequence[str], reads: Reads) -> onnx.ModelProto:
    """A copy whose graph has these outputs and what they need. UnsupportedModelError naming one that is not there, or twice."""
    if isinstance(outputs, str) or not list(outputs):
        raise UnsupportedModelError(f"outputs must be a list of names, got {outputs!r}")
    there = {value.name: value for value in proto.graph.output}
    for k, name in enumerate(outputs):
        if name not in there or name in outputs[:k]:
            raise UnsupportedModelError(
                f"outputs: {name!r} {'stands there twice' if name in there else 'is no output; there are ' + ', '.join(there)}"
            )
    kept = needed(proto.graph, outputs, reads)
    before = {name for node in proto.graph.node for name in reads(node)}
    after = {name for node in kept for name in reads(node)} | set(outputs)
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for field, values in (
        ("node", kept),
        ("output", [there[name] for name in outputs]),
        ("input", [v for v in proto.graph.input if v.name in after or v.name not in before]),
        ("initializer", [t for t in proto.graph.initializer if t.name in after]),
    ):
        made.graph.ClearField(field)
        getattr(made.graph, field).extend(values)
    return made


def advice(graph: onnx.GraphProto, node: onnx.NodeProto, reads: Reads) -> str:
    """What to do where a node cannot be imported that only some outputs need; empty where all need it."""
    spared = [value.name for value in graph.output if not any(other is node or other == node for other in needed(graph, [value.name], reads))]
    return f"; without it go outputs {', '.join(map(repr, spared))}: from_onnx(..., outputs={spared}), or convert --output-names" if spared else ""
