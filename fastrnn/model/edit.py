"""Changing a graph: names that are free, constants, nodes with their specs, what is live, and the Model that results.

What is changed was checked before, so nothing is validated again, and specs that are known are handed on.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from fastrnn.model.graph import Graph, Model, Node, every_node
from fastrnn.model.infer import infer, spec_of
from fastrnn.model.ops import Spec
from fastrnn.model.sizes import Whole, wholes


def fresh(name: str, taken: Container[str], *endings: str) -> str:
    """The name, with marks behind it until it is not taken, nor with any of these endings."""
    while name in taken or any(name + ending in taken for ending in endings):
        name += "'"
    return name


def live(nodes: Iterable[Node], needed: Iterable[str]) -> tuple[tuple[Node, ...], set[str]]:
    """The nodes that the needed values depend on, unneeded outputs emptied; and all names that are read."""
    kept, needed = [], set(needed)
    for node in reversed(tuple(nodes)):
        if not needed.isdisjoint(node.outputs):
            kept.append(
                node if needed.issuperset(node.outputs) else replace(node, outputs=tuple(name if name in needed else "" for name in node.outputs))
            )
            needed |= node.reads()
    return tuple(reversed(kept)), needed


def reading(nodes: Iterable[Node], names: Mapping[str, str]) -> tuple[Node, ...]:
    """The nodes, reading other values in the place of these, in subgraphs too."""
    return tuple(
        node
        if names.keys().isdisjoint(node.reads())
        else replace(
            node,
            inputs=tuple(names.get(name, name) for name in node.inputs),
            attributes={key: _body_reading(a, names) if isinstance(a, Graph) else a for key, a in node.attributes.items()},
        )
        for node in nodes
    )


def _body_reading(graph: Graph, names: Mapping[str, str]) -> Graph:
    names = {name: other for name, other in names.items() if name in graph.captures()}  # a body's own values may have the names of others
    return replace(graph, nodes=reading(graph.nodes, names), outputs=tuple(names.get(name, name) for name in graph.outputs))


def changed(model: Model, **fields: Any) -> Model:
    """The model with some fields changed, `specs` among them where values differ. States whose inputs are gone are gone too."""
    specs, names = fields.pop("specs", model.specs), {value.name for value in fields.get("inputs", model.inputs)}
    states = tuple(state for state in fields.pop("states", model.states) if state.input in names)
    return replace(model, **fields, states=states, checked=specs)


class Edit:
    """A model being changed: `weights` and `specs` of what it has and of what is added, by name. Not for several threads at once.

    specs: of its values, where not all of the model's are meant to be known yet.
    """

    def __init__(self, model: Model, specs: Mapping[str, Spec] | None = None):
        self.model, self.weights, self.specs = model, dict(model.weights), dict(model.specs if specs is None else specs)

    @cached_property
    def _taken(self) -> set[str]:
        """Names of values and nodes, in subgraphs too."""
        taken = set(self.model.specs)
        for node, _ in every_node(self.model.nodes):
            taken.update((node.name, *node.outputs), *(graph.inputs for graph in node.subgraphs))
        return taken

    def fresh(self, name: str, *endings: str) -> str:
        """The name, with marks behind it where a value or a node has it, or has it with one of these endings; taken from now on."""
        name = fresh(name, self._taken, *endings)
        self._taken.update((name, *(name + ending for ending in endings)))
        return name

    def weight(self, name: str, array: np.ndarray) -> str:
        """Adds a constant; its name."""
        name = self.fresh(name)
        self.weights[name], self.specs[name] = array, spec_of(array)
        return name

    def whole(self, name: str, *values: Whole) -> str:
        """Adds a constant int64 (n,); its name."""
        return self.weight(name, wholes(values))

    def node(
        self, nodes: list[Node], op: str, name: str, inputs: Iterable[str], outputs: int = 1, spec: Spec | None = None, **attributes: Any
    ) -> list[str]:
        """Appends a node to `nodes`; the names of its outputs, one of which goes by the node's. spec: of that one, where inference is not to tell."""
        endings = tuple(f".{k}" for k in range(outputs)) if outputs > 1 else ()
        name = self.fresh(name, *endings)
        node = Node(op, name, tuple(inputs), tuple(name + ending for ending in endings or ("",)), attributes)
        if spec is None:
            infer([node], self.specs)
        else:
            self.specs[name] = spec
        nodes.append(node)
        return list(node.outputs)

    def result(self, nodes: Iterable[Node], **fields: Any) -> Model:
        """The model with these nodes, as far as its outputs and states need them, and fields changed as in changed()."""
        states = fields.get("states", self.model.states)
        nodes, needed = live(nodes, {*fields.get("output_names", self.model.output_names), *(state.output for state in states)})
        weights = {name: array for name, array in self.weights.items() if name in needed}
        return changed(self.model, **{"nodes": nodes, "weights": weights, "specs": self.specs} | fields)
