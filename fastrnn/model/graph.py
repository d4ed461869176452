"""The graph: static single assignment, values by name, symbolic dimensions as strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fastrnn.errors import InvalidModelError, UnsupportedModelError
from fastrnn.model.ops import MAX_RANK, OPS, Shape, Spec, check_node

DTYPES = ("float32", "int64")


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

    def get(self, attribute: str):
        """The attribute, or the op's default."""
        return self.attributes.get(attribute, OPS[self.op].attributes[attribute])

    def input(self, k: int) -> str:
        """Name of input k, empty where omitted."""
        return self.inputs[k] if k < len(self.inputs) else ""

    def output(self, k: int) -> str:
        """Name of output k, empty where omitted."""
        return self.outputs[k] if k < len(self.outputs) else ""


@dataclass(frozen=True)
class State:
    """An output, or element `index` of its axis 0, that feeds an input at the next step."""

    input: str
    output: str
    index: int | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """A network as plain data. Immutable; shared freely between threads; the weights are the caller's arrays, not copies.
    Raises InvalidModelError when malformed, UnsupportedModelError for an op, attribute or dtype that is not known."""

    inputs: tuple[Value, ...]
    output_names: tuple[str, ...]
    nodes: tuple[Node, ...]
    weights: Mapping[str, np.ndarray]
    states: tuple[State, ...] = ()
    name: str = "model"

    def __post_init__(self):
        self._check_names()
        _ = self.specs
        for state in self.states:
            self._check_state(state)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(v.name for v in self.inputs)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The outputs, in order, with their dtypes and symbolic shapes."""
        return tuple(Value(name, *self.specs[name]) for name in self.output_names)

    def _check_state(self, state: State):
        where = f"state {state.input!r} <- {state.output!r}"
        if state.input not in self.input_names or state.output not in self.output_names:
            raise InvalidModelError(f"{where}: not an input and an output of the model")
        if [s.input for s in self.states].count(state.input) > 1:
            raise InvalidModelError(f"{where}: the input is tied twice")
        (dtype, shape), given = self.specs[state.input], self.specs[state.output]
        result = given.shape
        if state.index is not None:
            if isinstance(state.index, bool) or not isinstance(state.index, int) or not result or not isinstance(result[0], int) or not 0 <= state.index < result[0]:
                raise InvalidModelError(f"{where}: index {state.index!r} is outside axis 0 of {result}")
            result = result[1:]
        if dtype != given.dtype or len(shape) != len(result) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(shape, result)):
            raise InvalidModelError(f"{where}: {dtype} {shape} does not fit {given.dtype} {result}")

    def _check_names(self):
        known = set(self.weights)
        for value in self.inputs:
            if value.name in known or not value.name:
                raise InvalidModelError(f"input {value.name!r}: name is empty or taken")
            if value.dtype not in DTYPES:
                raise UnsupportedModelError(f"input {value.name!r}: dtype {value.dtype} is not supported; supported are {', '.join(DTYPES)}")
            known.add(value.name)
        names = set()
        for node in self.nodes:
            where = f"node {node.name!r} ({node.op})"
            if node.op not in OPS:
                raise UnsupportedModelError(f"{where}: unknown op")
            if node.name in names:
                raise InvalidModelError(f"{where}: a second node of that name")
            names.add(node.name)
            check_node(node)
            for name in node.inputs:
                if name and name not in known:
                    raise InvalidModelError(f"{where}: input {name!r} is not defined before it")
            for name in node.outputs:
                if name in known:
                    raise InvalidModelError(f"{where}: output {name!r} is defined twice")
                if name:
                    known.add(name)
        if len(set(self.output_names)) < len(self.output_names):
            raise InvalidModelError(f"an output stands twice in {', '.join(self.output_names)}")
        for name in self.output_names:
            if name not in known:
                raise InvalidModelError(f"output {name!r} is not defined by any node")

    @cached_property
    def specs(self) -> dict[str, Spec]:
        """dtype and symbolic shape of every value, inferred."""
        return self.infer({v.name: v.shape for v in self.inputs})

    def infer(self, shapes: Mapping[str, Shape]) -> dict[str, Spec]:
        """dtype and shape of every value, given the shapes of the inputs in use (left out: omitted)."""
        specs = {name: Spec(str(a.dtype), a.shape) for name, a in self.weights.items()}
        specs |= {v.name: Spec(v.dtype, tuple(shapes[v.name])) for v in self.inputs if v.name in shapes}
        for node in self.nodes:
            given = [specs.get(name) for name in node.inputs]
            for name, spec in zip(node.outputs, OPS[node.op].infer(node, given), strict=False):
                if name:
                    specs[name] = spec
        for name, spec in specs.items():
            if spec is not None and len(spec.shape) > MAX_RANK:
                raise UnsupportedModelError(f"value {name!r} has {len(spec.shape)} dimensions; at most {MAX_RANK} are supported")
        return specs

    def save(self, path) -> None:
        """Writes the model as fastrnn's .safetensors; a temporary file, fsync and rename, so never half a file."""
        from fastrnn.model.file import save

        save(self, path)

    def __repr__(self) -> str:
        state_of = {s.input: s.output for s in self.states}
        lines = [f"Model {self.name!r}: {len(self.nodes)} nodes, {sum(w.nbytes for w in self.weights.values()):,} bytes of weights"]
        lines += [f"  input  {value}" + (f"  <- {state_of[value.name]}" if value.name in state_of else "") for value in self.inputs]
        lines += [f"  output {value}" for value in self.outputs]
        lines += [f"  {node.op:<10} {node.name}: {', '.join(n or '-' for n in node.inputs)} -> {', '.join(n or '-' for n in node.outputs)}" for node in self.nodes]
        return "\n".join(lines)
