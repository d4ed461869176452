"""Subgraphs to a Model: each operator by its converter, states of recurrent operators as inputs and outputs that are tied."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastrnn.converters.keras_import.site import Graph, Tensor
from fastrnn.converters.tflite_import.call import Call, Frame
from fastrnn.converters.tflite_import.registry import OPERATORS, REFUSED
from fastrnn.converters.tflite_import.schema import OTHERS, Subgraph, TfliteModel, read
from fastrnn.errors import FastRNNError, InvalidModelError, UnsupportedModelError
from fastrnn.model import Model, Node
from fastrnn.model.graph import MAX_DEPTH
from fastrnn.model.infer import MALFORMED
from fastrnn.model.ops.registry import ANY_DIM


class Network(Graph):
    """The graph that grows, and the file that it is made of."""

    def __init__(self, file: TfliteModel):
        super().__init__(())
        self.file, self._depth = file, 0
        self._around: list[tuple] = []  # of bodies that are being made: the nodes around
        self._stored: dict[tuple[str, tuple, bytes], Tensor] = {}

    def begin_body(self) -> None:
        """What is added from here on, constants apart, belongs to a body."""
        self._around.append((self.build.nodes, self._settled))
        self.build.nodes, self._settled = [], (0, self._settled[1])

    def end_body(self) -> list[Node]:
        """The body's nodes; what follows is added behind what was there before."""
        nodes, (_, n_weights) = self.build.nodes, self._settled
        self.build.nodes, (n_nodes, _) = self._around.pop()
        self._settled = n_nodes, n_weights
        return nodes

    @property
    def nested(self) -> bool:
        """Whether what is made now belongs to a body."""
        return bool(self._around)

    def named_constant(self, name: str, array: np.ndarray) -> Tensor:
        """A constant under the file's name, each once."""
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._stored:
            value = self.build.weight(self.unique(name or "constant"), array)
            self.settle()
            self._stored[key] = self.tensor(value)
        return self._stored[key]

    def subgraph(self, index: int, where: str) -> Subgraph:
        """One of the file's, by an operator's option."""
        if not 0 < index < len(self.file.subgraphs):  # the first one is the model
            raise InvalidModelError(f"{where}: subgraph {index} of {len(self.file.subgraphs)}")
        return self.file.subgraphs[index]

    def run(self, graph: Subgraph, given: list, where: str = "the model") -> Frame:
        """The operators over inputs; returns every value."""
        if len(given) != len(graph.inputs):
            raise InvalidModelError(f"{where}: {len(given)} values for {len(graph.inputs)} inputs")
        if self._depth > MAX_DEPTH:
            raise InvalidModelError(f"{where}: subgraphs are nested more than {MAX_DEPTH} deep")
        read = frozenset(graph.outputs).union(*(operator.inputs for operator in graph.operators))
        frame = Frame(graph.tensors, read, dict(zip(graph.inputs, given)))
        self._depth += 1
        for k, operator in enumerate(graph.operators):
            call = Call(self, frame, operator, k)
            if operator.kind not in OPERATORS:
                raise call.refuse(f"it is not supported{': ' + REFUSED[operator.kind] if operator.kind in REFUSED else ''}")
            try:
                OPERATORS[operator.kind](call)
            except MALFORMED as error:
                if isinstance(error, FastRNNError):
                    raise
                raise call.invalid(f"{type(error).__name__}: {error}") from error
            for index in operator.outputs:
                if index not in frame.values and index in read:
                    raise call.refuse(f"its output {graph.tensors[index].name[:80]!r} is not supported")
        self._depth -= 1
        return frame

    def results(self, frame: Frame, graph: Subgraph, where: str) -> list:
        """The outputs of a subgraph that was run."""
        found = []
        for index in graph.outputs:
            info = graph.tensors[index]
            if index not in frame.values and info.array is not None:
                frame.values[index] = self.named_constant(info.name, info.array)
            if index not in frame.values:
                raise InvalidModelError(f"{where}: output {info.name[:80]!r} is not made by any operator")
            found.append(frame.values[index])
        return found


def build_model(path: Path) -> Model:
    """The Model of a file."""
    file = read(path.read_bytes())
    network, graph = Network(file), file.subgraphs[0]
    if not graph.outputs:
        raise InvalidModelError("it has no outputs")
    given = [_input(network, graph, index, k) for k, index in enumerate(graph.inputs)]
    frame = network.run(graph, given)
    outputs = []
    for index, value in zip(graph.outputs, network.results(frame, graph, "the model")):
        if not isinstance(value, Tensor):
            raise UnsupportedModelError(f"output {graph.tensors[index].name[:80]!r}: only tensors are supported")
        name = network.unique(file.names[1].get(index) or graph.tensors[index].name or "output")
        network.build.nodes.append(Node("Identity", name, (value.name,), (name,)))
        outputs.append(name)
    network.settle()
    return Model(
        tuple(network.inputs), (*outputs, *network.outputs), tuple(network.build.nodes), network.build.weights, tuple(network.states), path.stem
    )


def _input(network: Network, graph: Subgraph, index: int, k: int) -> Tensor:
    info = graph.tensors[index]
    name = network.file.names[0].get(index) or info.name or f"input{k}"
    if info.dtype in OTHERS.values():
        raise UnsupportedModelError(f"input {name!r}: dtype {info.dtype} is not supported")
    shape = tuple(d if d is not None else "B" if axis == 0 else f"{name}_{axis}" for axis, d in enumerate(info.shape))
    assert ANY_DIM not in shape
    return network.add_input(name, "float32" if info.dtype == "float16" else info.dtype, shape)
