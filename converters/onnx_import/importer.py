"""An ONNX file to a Model: nodes sorted, names made unique over all subgraphs, each op by its importer (ops/)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto

from fastrnn.converters.onnx_import import ops  # noqa: F401  (fills the registry)
from fastrnn.converters.onnx_import.older import upgraded
from fastrnn.converters.onnx_import.proto import NARROW, WIDENED, Folder, array_of, dtype_name, parse, spec_of, without_functions
from fastrnn.converters.onnx_import.registry import IMPORTERS, REFUSED, Given
from fastrnn.converters.onnx_import.wanted import advice, only
from fastrnn.errors import FastRNNError, InvalidModelError, SuspectModelWarning, UnsupportedModelError
from fastrnn.model import Graph, Model, Node, Value
from fastrnn.model.graph import MAX_DEPTH, every_node
from fastrnn.model.infer import MALFORMED
from fastrnn.model.ops import Spec
from fastrnn.model.ops.foreign import NAMES as FOREIGN

OLDEST, OURS, NEWEST = 1, 7, 28  # older than OURS: by way of onnx's version converter
READ_NARROW = ("Cast", "DequantizeLinear")  # ops that bring numbers of NARROW to others


def import_model(source, external_data: bool, outputs: Sequence[str] | None = None) -> Model:
    """from_onnx, its errors as they come."""
    proto, folder = parse(source)
    folder = folder if external_data else None
    opset = _opset(proto)
    proto = without_functions(proto)
    proto = proto if outputs is None else only(proto, list(outputs) if not isinstance(outputs, str) else outputs, _reads)
    if opset < OURS:
        proto, opset = upgraded(proto, opset, OURS), OURS
    widened = [value.name for value in (*proto.graph.input, *proto.graph.output) if value.type.tensor_type.elem_type in WIDENED]
    if widened:
        warnings.warn(f"floats of 16 bits are computed in float32, and so are {', '.join(map(repr, widened))}", stacklevel=4)
    few = [f"{v.name!r} as {NARROW[v.type.tensor_type.elem_type][1]}" for v in proto.graph.input if v.type.tensor_type.elem_type in NARROW]
    if few:
        warnings.warn(f"numbers of 8 bits and less are taken as what holds them all: {', '.join(few)}", stacklevel=4)
    names = _Names()
    graph = GraphImporter(proto.graph, opset, folder, names, {}, 0)
    inputs = [graph.declare(value) for value in proto.graph.input if value.name not in graph.weight_names]
    graph.run()
    results = graph.results(proto.graph.output)
    declared = {}
    for value, name in zip(proto.graph.output, results):
        dtype, shape = spec_of(value, "output")
        if shape is not None:
            declared[name] = Spec(dtype, shape)
    name = Path(source).stem if isinstance(source, (str, Path)) else proto.graph.name or "model"
    for node, _ in every_node(graph.nodes):
        if node.op == "GRU" and not node.get("linear_before_reset") and "pytorch" in proto.producer_name.lower():
            warnings.warn(
                f"node {node.name!r} (GRU): linear_before_reset=0 in a file that PyTorch wrote; PyTorch's GRU means 1, and its newer exporter "
                "has written 0 by mistake: it is read as written; compare with the original",
                SuspectModelWarning,
                stacklevel=4,
            )
    return Model(tuple(inputs), tuple(results), tuple(graph.nodes), names.weights, (), name, declared)


def _opset(proto: onnx.ModelProto) -> int:
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        if versions.setdefault(entry.domain or "ai.onnx", entry.version) != entry.version:
            raise InvalidModelError(
                f"the opset of domain {entry.domain or 'ai.onnx'!r} stands twice, as {versions[entry.domain or 'ai.onnx']} and {entry.version}"
            )
    if "ai.onnx" not in versions and versions:
        raise UnsupportedModelError(f"the file has ops of {', '.join(sorted(versions))} only, none of the default domain")
    if "ai.onnx" not in versions:
        raise InvalidModelError("the file names no opset of the default domain")
    if not OLDEST <= versions["ai.onnx"] <= NEWEST:
        raise UnsupportedModelError(f"opset {versions['ai.onnx']} is not supported; supported are {OLDEST} to {NEWEST}")
    return versions["ai.onnx"]


class _Names:
    """Names taken in the whole model, and its weights: subgraphs share both."""

    def __init__(self):
        self.values: set[str] = set()
        self.nodes: set[str] = set()
        self.weights: dict[str, np.ndarray] = {}
        self.narrow: dict[str, str] = {}  # values of so few bits that only some ops may read them: their element type
        self.sequences: dict[str, object] = {}  # values that are sequences of tensors: see ops/sequences.py
        self._numbers: dict[str, int] = {}

    def note(self, name: str, elem_type: int) -> None:
        """Notes a value whose element type is one of NARROW."""
        if elem_type in NARROW:
            self.narrow[name] = onnx.TensorProto.DataType.Name(elem_type)

    def unique(self, name: str, taken: set[str]) -> str:
        """The name, or with a number behind it."""
        result = name
        while result in taken or not result:
            self._numbers[name] = self._numbers.get(name, 0) + 1
            result = f"{name}_{self._numbers[name]}"
        taken.add(result)
        return result


class GraphImporter:
    """One graph or subgraph. scope: names in the file, of what is visible here, to names in the model."""

    def __init__(self, proto: onnx.GraphProto, opset: int, folder: Folder | None, names: _Names, scope: Mapping[str, str], depth: int):
        if depth > MAX_DEPTH:
            raise InvalidModelError(f"subgraphs are nested more than {MAX_DEPTH} deep")
        self.proto, self.opset, self.folder, self.names, self.scope, self.depth = proto, opset, folder, names, dict(scope), depth
        self.nodes: list[Node] = []
        self._own: set[str] = set()
        if proto.sparse_initializer:
            raise UnsupportedModelError("sparse initializers are not supported")
        for tensor in proto.initializer:
            if not tensor.name:
                raise InvalidModelError("an initializer has no name")
            self.define(tensor.name)
            names.weights[self.scope[tensor.name]] = array_of(tensor, "weight", folder, narrow=True)
            names.note(self.scope[tensor.name], tensor.data_type)
        self.weight_names = {tensor.name for tensor in proto.initializer}

    def define(self, name: str) -> str:
        """A name of the model for a value of the file."""
        if name in self._own:
            raise InvalidModelError(f"value {name!r} is defined twice")
        self._own.add(name)
        self.scope[name] = self.unique_value(name)
        return self.scope[name]

    def declare(self, value: onnx.ValueInfoProto) -> Value:
        """An input of the model."""
        if not value.name:
            raise InvalidModelError("an input has no name")
        dtype, shape = spec_of(value, "input", narrow=True)
        if shape is None:
            raise UnsupportedModelError(f"input {value.name!r}: its rank is not declared")
        self.names.note(self.define(value.name), value.type.tensor_type.elem_type)
        return Value(self.scope[value.name], dtype, shape)

    def unique_value(self, name: str) -> str:
        """A value name that nothing else has."""
        return self.names.unique(name, self.names.values)

    def unique_node(self, name: str) -> str:
        """A node name that nothing else has."""
        return self.names.unique(name, self.names.nodes)

    def add_weight(self, name: str, array: np.ndarray) -> str:
        """Adds a constant; returns its name."""
        name = self.unique_value(name)
        self.names.weights[name] = array
        return name

    def result(self, name: str) -> str:
        """The model's name of an output."""
        if name not in self.scope:
            raise InvalidModelError(f"output {name!r} is not defined by any node")
        if self.scope[name] in self.names.sequences:
            raise UnsupportedModelError(f"output {name!r}: only tensors are supported, got a sequence of them")
        return self.scope[name]

    def results(self, values: Iterable[onnx.ValueInfoProto]) -> list[str]:
        """The model's names of its outputs; one value that stands twice among them has a copy for the second."""
        names: list[str] = []
        for value in values:
            name = self.result(value.name)
            if name in names:
                source, name = name, self.unique_value(name)
                self.nodes.append(Node("Identity", self.unique_node(name), (source,), (name,)))
            names.append(name)
        return names

    def tensor(self, proto, where: str) -> np.ndarray:
        """A tensor attribute's content."""
        return array_of(proto, where, self.folder, narrow=True)

    def dtype(self, elem_type: int, where: str) -> str:
        """An element type's dtype."""
        return dtype_name(elem_type, where)

    def subgraph(self, proto: onnx.GraphProto, body: bool = False) -> Graph:
        """A branch, or a body, which is given inputs; it sees everything that this graph has so far."""
        inner = GraphImporter(proto, self.opset, self.folder, self.names, self.scope, self.depth + 1)
        if proto.input and not body:
            raise UnsupportedModelError(f"a branch of {self.proto.name!r} takes inputs")
        for value in (*proto.input, *proto.output) if body else ():
            if value.type.WhichOneof("value") not in (None, "tensor_type"):
                raise UnsupportedModelError(
                    f"{value.name!r} in body {proto.name!r}: only tensors are supported, got {value.type.WhichOneof('value')}"
                )
        inputs = tuple(inner.define(value.name) for value in proto.input)
        inner.run()
        outputs = tuple(inner.result(value.name) for value in proto.output)
        for name in self.names.narrow.keys() & set(outputs):
            raise UnsupportedModelError(f"output {name!r} of subgraph {proto.name!r}: dtype {self.names.narrow[name]} is not supported")
        return Graph(tuple(inner.nodes), outputs, inputs)

    def run(self) -> None:
        """Imports the nodes in an order in which each comes after what it reads."""
        for proto in self._sorted():
            try:
                self._node(proto)
            except UnsupportedModelError as error:
                if self.depth or not (what := advice(self.proto, proto, _reads)):
                    raise
                raise UnsupportedModelError(f"{error}{what}") from error

    def _node(self, proto: onnx.NodeProto) -> None:
        """One of them, by its importer."""
        name = self.unique_node(proto.name or f"{proto.op_type}_{proto.output[0] if proto.output else len(self.nodes)}")
        where = f"node {name!r} ({proto.op_type})"
        importer = self._importer(proto, where)
        inputs = [self.scope[name] if name else "" for name in proto.input]
        given = Given(proto, name, inputs, [self.define(name) if name else "" for name in proto.output], self.opset, self)
        if not given.outputs:
            raise given.invalid("it gives no output")
        for k, value in enumerate(inputs):
            if value in self.names.narrow and proto.op_type not in READ_NARROW and (proto.op_type != "CastLike" or k):
                raise given.refuse(f"{value!r} is of {self.names.narrow[value]}, which only {', '.join(READ_NARROW)} may read")
            if value in self.names.sequences and "Sequence" not in proto.op_type:
                raise given.refuse(f"{value!r} is a sequence of tensors, which it does not take")
        if len({attribute.name for attribute in proto.attribute}) < len(proto.attribute):
            raise given.invalid(f"an attribute stands twice among {', '.join(sorted(attribute.name for attribute in proto.attribute))}")
        try:
            importer(given)
        except (*MALFORMED, AttributeError) as error:
            if isinstance(error, FastRNNError):
                raise
            raise given.invalid(f"{type(error).__name__}: {error}") from error
        for attribute in proto.attribute:
            if attribute.name not in given.used:
                raise given.refuse(f"attribute {attribute.name!r} is not supported")

    def _importer(self, proto: onnx.NodeProto, where: str) -> Callable[[Given], None]:
        own = proto.domain in ("", "ai.onnx")
        importer = IMPORTERS.get(proto.op_type if own else f"{proto.domain}.{proto.op_type}")
        if importer is not None:
            return importer
        if not own:
            known = any(name.startswith(f"{proto.domain}.") for name in IMPORTERS)
            raise UnsupportedModelError(
                f"{where}: " + (f"op {proto.op_type!r} of domain" if known else "domain") + f" {proto.domain!r} is not supported"
            )
        if proto.op_type in FOREIGN:
            return Given.foreign
        why = f": {REFUSED[proto.op_type]}" if proto.op_type in REFUSED else ""
        raise UnsupportedModelError(f"{where}: op {proto.op_type!r} is not supported{why}")

    def _sorted(self) -> list[onnx.NodeProto]:
        makers: dict[str, int] = {}
        for k, node in enumerate(self.proto.node):
            for name in node.output:
                if name in makers or name in self._own:
                    raise InvalidModelError(f"value {name!r} is defined twice")
                if name:
                    makers[name] = k
        waiting, readers = {}, {}
        for k, node in enumerate(self.proto.node):
            needed = set()
            for name in set(_reads(node)) - {""}:
                if name in makers:
                    needed.add(makers[name])
                elif name not in self.scope and name in node.input:
                    raise InvalidModelError(f"node {node.name or node.op_type!r} ({node.op_type}): input {name!r} is not defined")
            waiting[k] = len(needed)
            for maker in needed:
                readers.setdefault(maker, []).append(k)
        ready, order = [k for k, n in waiting.items() if n == 0], []
        ready.reverse()
        while ready:
            k = ready.pop()
            order.append(self.proto.node[k])
            for reader in reversed(readers.get(k, [])):
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready.append(reader)
        if len(order) < len(self.proto.node):
            raise InvalidModelError(f"{len(self.proto.node) - len(order)} nodes of graph {self.proto.name!r} wait for one another: it has a cycle")
        return order


def _reads(node: onnx.NodeProto, depth: int = 0) -> Iterable[str]:
    """Names that a node may read, its subgraphs' included."""
    yield from node.input
    if depth > MAX_DEPTH:
        raise InvalidModelError(f"subgraphs are nested more than {MAX_DEPTH} deep")
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            graph = attribute.g
            own = {value.name for value in (*graph.initializer, *graph.input)} | {name for inner in graph.node for name in inner.output}
            for inner in graph.node:
                yield from (name for name in _reads(inner, depth + 1) if name not in own)
            yield from (value.name for value in graph.output if value.name not in own)
