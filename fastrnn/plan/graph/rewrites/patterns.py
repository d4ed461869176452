"""What a pattern is, a function (graph, node) -> nodes in its place, or None, found by the op of its last node; and the walk that replaces them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from fastrnn.model import Graph, Model, Node
from fastrnn.model.edit import Edit, live
from fastrnn.model.infer import known

REWRITES: dict[str, Callable] = {}


def rewrites(op: str):
    """Registers a pattern under the op of its last node."""

    def register(function):
        REWRITES[op] = function
        return function

    return register


class Patterns(Edit):
    """A graph being rewritten: who makes a value, how often it is read."""

    def __init__(self, model: Model):
        super().__init__(model)
        self.made: dict[str, Node] = {}
        self.reads: Counter = Counter(model.output_names)

    def walk(self, nodes) -> list[Node]:
        """The nodes with patterns replaced, subgraphs too."""
        for node in nodes:
            self.reads.update(node.inputs)
            self.reads.update({name: 2 for graph in node.subgraphs for name in graph.captures()})
        result = []
        for node in nodes:
            if node.subgraphs:
                node = replace(
                    node,
                    attributes={k: replace(v, nodes=tuple(self.walk_branch(v))) if isinstance(v, Graph) else v for k, v in node.attributes.items()},
                )
            # of unknown shape: in a branch that may not fit, which is left as it is
            found = REWRITES[node.op](self, node) if node.op in REWRITES and known(self.specs, (*node.inputs, *node.outputs)) else None
            for made in found or [node]:
                result.append(made)
                self.made |= {name: made for name in made.outputs if name}
        return result

    def walk_branch(self, graph: Graph) -> tuple[Node, ...]:
        """A subgraph's nodes with patterns replaced, what they made useless gone."""
        self.reads.update(graph.outputs)
        return live(self.walk(graph.nodes), set(graph.outputs))[0]

    def only(self, name: str, *ops: str) -> Node | None:
        """The node of one of these ops that makes `name`, if nothing else reads it."""
        node = self.made.get(name)
        return node if node is not None and node.op in ops and self.reads[name] == 1 else None

    def scalar(self, name: str) -> float | None:
        """The number behind a constant of one element."""
        array = self.weights.get(name)
        return None if array is None or array.size != 1 else float(array.reshape(()))


def rewrite(model: Model) -> Model:
    """The model with every pattern replaced. Specs of the values stay."""
    graph = Patterns(model)
    return graph.result(graph.walk(model.nodes))
