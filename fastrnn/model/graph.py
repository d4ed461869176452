"""The graph: static single assignment, values by name, symbolic dimensions as strings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import InitVar, dataclass, field, fields, replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from fastrnn.cells import registered_cell
from fastrnn.errors import InvalidModelError, UnsupportedModelError
from fastrnn.model.absent import refuse_absent
from fastrnn.model.infer import infer, spec_of
from fastrnn.model.ops import ANY_DIM, COMPLEX, DTYPES, OPS, Shape, Spec, check_node
from fastrnn.model.ops.registry import check_rank

MAX_DEPTH = 16  # of subgraphs inside subgraphs
MAX_LOOPS = 4  # of Loops and Scans among them


@dataclass(frozen=True)
class Value:
    """A named input or output: dtype, and shape with symbolic dimensions such as "B" or "T".

    An optional input may be left out of a call: the ops it feeds then see it omitted.
    """

    name: str
    dtype: str
    shape: Shape
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})" + (" optional" if self.optional else "")


@dataclass(frozen=True)
class Node:
    """One op. An empty string among inputs or outputs marks an omitted optional one."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)

    def get(self, attribute: str) -> Any:
        """The attribute, or the op's default."""
        return self.attributes.get(attribute, OPS[self.op].attributes[attribute])

    def input(self, k: int) -> str:
        """Name of input k, empty where omitted."""
        return self.inputs[k] if k < len(self.inputs) else ""

    def output(self, k: int) -> str:
        """Name of output k, empty where omitted."""
        return self.outputs[k] if k < len(self.outputs) else ""

    @property
    def subgraphs(self) -> tuple[Graph, ...]:
        """Graphs among its attributes."""
        return tuple(a for a in self.attributes.values() if isinstance(a, Graph))

    @property
    def branches(self) -> tuple[Graph, Graph]:
        """Of an If: what runs where its condition holds, and what else."""
        return self.get("then_branch"), self.get("else_branch")

    def reads(self) -> set[str]:
        """Names that it reads, those that its subgraphs take from around them included."""
        return set(self.inputs).union(*(g.captures() for g in self.subgraphs)) - {""}


@dataclass(frozen=True)
class Graph:
    """A subgraph: nodes that also see the values around them, and the outputs it gives. Its constants are weights of the model.

    inputs: what each run of a body (Loop, Scan) is given.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ()

    def captures(self) -> set[str]:
        """Names that it takes from around it."""
        made = {name for node in self.nodes for name in node.outputs}.union(self.inputs)
        return set(self.outputs).union(*(node.reads() for node in self.nodes)) - made

    def made(self) -> set[str]:
        """Names of the values that are made in it, subgraphs and what their runs are given included."""
        names = {name for node in self.nodes for name in node.outputs if name}.union(self.inputs)
        return names.union(*(inner.made() for node in self.nodes for inner in node.subgraphs))


def every_node(nodes: Iterable[Node], depth: int = 0) -> Iterator[tuple[Node, int]]:
    """The nodes and those of their subgraphs, each with its depth, in order."""
    for node in nodes:
        yield node, depth
        for graph in node.subgraphs:
            yield from every_node(graph.nodes, depth + 1)


@dataclass(frozen=True)
class State:
    """An output, or slice `index` of its axis 0, that feeds an input at the next step. Where the input has as many axes as the output,
    the slice keeps its axis of 1. dtype and shape are those of the input; a Model fills them in."""

    input: str
    output: str
    index: int | None = None
    dtype: str = field(default="", compare=False)
    shape: Shape = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The state's name in a stream: its input's."""
        return self.input

    @property
    def source(self) -> str:
        """What feeds it: "output", or "output[index]"."""
        return self.output if self.index is None else f"{self.output}[{self.index}]"

    def __str__(self) -> str:
        return f"{self.input} {self.dtype} ({', '.join(map(str, self.shape))}) <- {self.source}"

    def part(self, output: np.ndarray, rank: int) -> np.ndarray:
        """The array or view that feeds an input of this rank."""
        if self.index is None:
            return output
        part: np.ndarray = output[self.index : self.index + 1] if output.ndim == rank else output[self.index]
        return part


@dataclass(frozen=True, eq=False)
class Model:
    """A network as plain data. Immutable; shared freely between threads; the weights are the caller's arrays, not copies.

    declared: specs of outputs that a file states, used where inference cannot tell. Names are unique over the graph and all its
    subgraphs. Raises InvalidModelError when malformed, UnsupportedModelError for an op, attribute or dtype that is not known.
    checked: specs of the values, where all was checked before (model/edit.py): nothing is validated or inferred again.
    """

    inputs: tuple[Value, ...]
    output_names: tuple[str, ...]
    nodes: tuple[Node, ...]
    weights: Mapping[str, np.ndarray]
    states: tuple[State, ...] = ()
    name: str = "model"
    declared: Mapping[str, Spec] = field(default_factory=dict)
    checked: InitVar[dict[str, Spec] | None] = None

    def __post_init__(self, checked: dict[str, Spec] | None) -> None:
        if checked is not None:
            object.__setattr__(self, "specs", checked)
            return
        self._check_names()
        _ = self.specs
        for name, spec in self.declared.items():
            if spec.shape is None:
                raise InvalidModelError(f"output {name!r} is declared without a shape")
            if (inferred := self.specs.get(name)) is not None and inferred.dtype and inferred.dtype != spec.dtype:
                raise InvalidModelError(f"output {name!r} is declared as {spec.dtype}, but is {inferred.dtype}")
        for state in self.states:
            self._check_state(state)
        values = {v.name: v for v in self.inputs}
        filled = tuple(replace(s, dtype=values[s.input].dtype, shape=values[s.input].shape) for s in self.states)
        object.__setattr__(self, "states", filled)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(v.name for v in self.inputs)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The outputs, in order, with their dtypes and symbolic shapes."""
        specs = [(name, self.output_spec(name)) for name in self.output_names]
        return tuple(Value(name, spec.dtype, spec.shape or ()) for name, spec in specs)

    def output_spec(self, name: str) -> Spec:
        """dtype and symbolic shape of an output: inferred, or declared where that cannot tell."""
        inferred, declared = self.specs[name], self.declared.get(name)
        if inferred.shape is None:
            return declared or Spec(inferred.dtype or "?", (ANY_DIM,))
        if declared is None or declared.shape is None or len(declared.shape) != len(inferred.shape):
            return inferred
        return Spec(inferred.dtype, tuple(d if i == ANY_DIM else i for i, d in zip(inferred.shape, declared.shape)))

    def _check_state(self, state: State) -> None:
        where = f"state {state.input!r} <- {state.output!r}"
        if state.input not in self.input_names or state.output not in self.output_names:
            raise InvalidModelError(f"{where}: not an input and an output of the model")
        if [s.input for s in self.states].count(state.input) > 1:
            raise InvalidModelError(f"{where}: the input is tied twice")
        (dtype, shape, _), given = self.specs[state.input], self.output_spec(state.output)
        shape, result = shape or (), given.shape or ()
        if state.index is not None:
            if (
                isinstance(state.index, bool)
                or not isinstance(state.index, int)
                or not result
                or not isinstance(result[0], int)
                or not 0 <= state.index < result[0]
            ):
                raise InvalidModelError(f"{where}: index {state.index!r} is outside axis 0 of {result}")
            result = (1, *result[1:]) if len(shape) == len(result) else result[1:]
        if (
            dtype != given.dtype
            or len(shape) != len(result)
            or any(not isinstance(a, str) and not isinstance(b, str) and a != b for a, b in zip(shape, result))
        ):
            raise InvalidModelError(f"{where}: {dtype} {shape} does not fit {given.dtype} {result}")

    def _check_names(self) -> None:
        for name, array in self.weights.items():
            _check_text(name, "a weight")
            if str(array.dtype) not in DTYPES:
                raise UnsupportedModelError(f"weight {name!r}: dtype {array.dtype} is not supported; supported are {', '.join(DTYPES)}")
            check_rank(f"weight {name!r}", array.shape)
        defined = set(self.weights)
        for value in self.inputs:
            _check_text(value.name, "an input")
            if value.name in defined or not value.name:
                raise InvalidModelError(f"input {value.name!r}: name is empty or taken")
            if value.dtype not in (*DTYPES, *COMPLEX.values()):
                raise UnsupportedModelError(
                    f"input {value.name!r}: dtype {value.dtype} is not supported; supported are {', '.join((*DTYPES, *COMPLEX.values()))}"
                )
            for dim in value.shape:
                if not isinstance(dim, str) and (isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 0):
                    raise InvalidModelError(f"input {value.name!r}: dimension {dim!r} is neither a name nor a size")
            check_rank(f"input {value.name!r}", value.shape)
            defined.add(value.name)
        names: set[str] = set()
        self._check_nodes(self.nodes, set(defined), defined, names, 0)
        seen = set(self.weights) | set(self.input_names) | {name for node in self.nodes for name in node.outputs}
        if len(set(self.output_names)) < len(self.output_names):
            raise InvalidModelError(f"an output stands twice in {', '.join(self.output_names)}")
        for name in self.output_names:
            if name not in seen:
                raise InvalidModelError(f"output {name!r} is not defined by any node")

    def _check_nodes(self, nodes: Iterable[Node], visible: set[str], defined: set[str], names: set[str], depth: int, loops: int = 0) -> None:
        """visible: what a node may read here. defined, names: values and nodes of the whole model so far."""
        if depth > MAX_DEPTH:
            raise InvalidModelError(f"subgraphs are nested more than {MAX_DEPTH} deep")
        for node in nodes:
            where = f"node {node.name!r} ({node.op})"
            for name in (node.name, *node.inputs, *node.outputs, *(name for graph in node.subgraphs for name in (*graph.inputs, *graph.outputs))):
                _check_text(name, where)
            if node.op not in OPS:
                raise UnsupportedModelError(f"{where}: unknown op")
            if node.name in names:
                raise InvalidModelError(f"{where}: a second node of that name")
            names.add(node.name)
            check_node(node)
            inside = loops + (node.op in ("Loop", "Scan"))
            if inside > MAX_LOOPS:
                raise UnsupportedModelError(f"{where}: Loops and Scans are nested more than {MAX_LOOPS} deep")
            for name in node.inputs:
                if name and name not in visible:
                    raise InvalidModelError(f"{where}: input {name!r} is not defined before it")
            for graph in node.subgraphs:
                inner = set(visible)
                for name in graph.inputs:
                    if name in defined or not name:
                        raise InvalidModelError(f"{where}: its subgraph's input {name!r} is empty or taken")
                    inner.add(name)
                    defined.add(name)
                self._check_nodes(graph.nodes, inner, defined, names, depth + 1, inside)
                for name in graph.outputs:
                    if name not in inner:
                        raise InvalidModelError(f"{where}: its subgraph's output {name!r} is not defined")
            for name in node.outputs:
                if name in defined:
                    raise InvalidModelError(f"{where}: output {name!r} is defined twice")
                if name:
                    visible.add(name)
                    defined.add(name)

    @cached_property
    def specs(self) -> dict[str, Spec]:
        """dtype and symbolic shape of every value, inferred; small values too."""
        return self.infer({v.name: v.shape for v in self.inputs})

    def infer(self, shapes: Mapping[str, Shape]) -> dict[str, Spec]:
        """dtype and shape of every value, given the shapes of the inputs in use (left out: omitted)."""
        specs = {name: spec_of(a) for name, a in self.weights.items()}
        specs |= {v.name: Spec(v.dtype, tuple(shapes[v.name])) for v in self.inputs if v.name in shapes}
        infer(self.nodes, specs)
        return specs

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the model as fastrnn's .safetensors, which is what path ends with (UnsupportedModelError otherwise); a temporary file, fsync and rename, so never half a file."""
        from fastrnn.model.file import save

        save(self, path)

    def __reduce__(self) -> tuple[Any, ...]:
        """As its fields, checked again where they arrive, and its custom cells, which go by name."""
        refuse_absent(self, "pickle or copy")
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        named = {(node.get("cell"), node.get("fingerprint")) for node, _ in every_node(self.nodes) if node.op == "Recurrent"}
        cells = [cell for names in named if (cell := registered_cell(*names)) is not None]
        return _arrived, (given | {"weights": dict(self.weights)}, cells)

    @property
    def graph(self) -> Graph:
        """Nodes, inputs and outputs by name; print(model.graph) shows every node, input, output, state and weight."""
        from fastrnn.model.show import WholeGraph

        return WholeGraph(self)

    def __repr__(self) -> str:
        from fastrnn.model.show import summary

        return summary(self)

    def _repr_html_(self) -> str:
        from fastrnn.model.show import listing, notebook, summary

        return notebook(summary(self), listing(self), "every node")


def _check_text(name: object, where: str) -> None:
    if not isinstance(name, str):  # bytes, for one, where a file's text is no UTF-8
        raise InvalidModelError(f"{where}: the name {name!r} is no text")


def _arrived(given: dict[str, Any], cells: list[Any]) -> Model:
    """A model from its pickled fields; its cells are there, for they were read before."""
    return Model(**given)
