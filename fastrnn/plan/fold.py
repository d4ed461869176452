"""Everything that can be known beforehand is computed here: constants, shapes, the branch that an If takes, dead nodes.

Runs twice: when a model is compiled, with symbolic dimensions, and for each set of shapes in use. What folding may add in memory is
bounded; a node past the bound is left to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model import Graph, Model, Node, Value
from fastrnn.model.absent import Absent
from fastrnn.model.infer import PASSING, SMALL, evaluate, infer_node, spec_of
from fastrnn.model.ops import ANY_DIM, EVAL, UNKNOWN, Spec
from fastrnn.model.ops.control import agreed
from fastrnn.model.ops.registry import count
from fastrnn.model.recurrent import RECURRENT

LEAST_BUDGET, BUDGET_PER_BYTE = 1 << 20, 4


def fold(model: Model, shapes: Mapping[str, tuple]) -> Model:
    """The model for inputs of these shapes, symbols among them; inputs left out are omitted. Raises ShapeError or
    InvalidModelError naming the node that they do not fit."""
    return _Folder(model, shapes).run()


class _Folder:
    """specs: of every value; constants: arrays by name, the weights among them; renamed: values that are another by now, "" if missing."""

    def __init__(self, model: Model, shapes: Mapping[str, tuple]):
        self.model = model
        self.inputs = tuple(replace(v, shape=tuple(shapes[v.name])) for v in model.inputs if v.name in shapes)
        self.constants = dict(model.weights)
        self.specs = {name: spec_of(a) for name, a in self.constants.items()}
        self.specs |= {v.name: Spec(v.dtype, v.shape) for v in self.inputs}
        self.renamed = {v.name: "" for v in model.inputs if v.name not in shapes}
        self.budget = max(LEAST_BUDGET, BUDGET_PER_BYTE * sum(a.nbytes for a in model.weights.values()))

    def run(self) -> Model:
        nodes = self.visit(self.model.nodes)
        for name in self.model.output_names:
            if name in self.renamed:
                source = self.renamed[name]
                if not source:
                    raise ShapeError(f"output {name!r} needs an optional input that was left out")
                nodes.append(Node("Identity", f"output {name}", (source,), (name,)))
                self.specs[name] = self.specs[source]
        nodes, needed = live(nodes, set(self.model.output_names))
        # in C order once and for all: a program takes them as they lie
        weights = {name: a if isinstance(a, Absent) else np.require(a, requirements="C") for name, a in self.constants.items() if name in needed}
        model = replace_model(self.model, self.inputs, nodes, weights)
        model.__dict__["specs"] = self.specs
        return model

    def visit(self, nodes) -> list[Node]:
        """The nodes that are left of these."""
        left: list[Node] = []
        for node in nodes:
            was_missing = bool(node.inputs) and node.inputs[0] in self.renamed and not self.renamed[node.inputs[0]]
            node = replace(node, inputs=tuple(name and self.renamed.get(name, name) for name in node.inputs))
            if node.op == "If":
                left += self.visit_if(node)
                continue
            given = [self.specs.get(name) if name else None for name in node.inputs]
            if was_missing and node.op in PASSING:
                self.renamed |= {name: "" for name in node.outputs if name}
                continue
            specs = infer_node(node, given)
            arrays = self.constant(node, specs)
            for k, name in enumerate(node.outputs):
                if name:
                    self.specs[name] = specs[k] if arrays is None else spec_of(arrays[k])
                    if arrays is not None:
                        self.constants[name] = arrays[k]
            if arrays is None and (node.op == "Identity" or node.op == "Cast" and specs[0].dtype == given[0].dtype):
                self.renamed |= {node.outputs[0]: node.inputs[0]} if node.outputs[0] else {}
            elif arrays is None:
                left.append(node)
        return left

    def constant(self, node: Node, specs) -> list[np.ndarray] | None:
        """The results, where all inputs are constant and the budget allows."""
        if all(s is not None and s.constant is not None for s in specs):
            return [s.constant for s in specs]
        if node.op == "Mul" and all(s.dtype.startswith(("int", "uint")) for s in specs) and any(self.zero(name) for name in node.inputs):
            shape = specs[0].shape
            return [np.zeros(shape, specs[0].dtype)] if shape is not None and count(shape) != ANY_DIM and count(shape) <= SMALL else None
        if node.op in RECURRENT or node.op not in EVAL or any(name and name not in self.constants for name in node.inputs):
            return None
        if not any(node.inputs) or any(s.shape is None or count(s.shape) == ANY_DIM for s in specs):
            return None
        inputs = [self.constants[name] if name else None for name in node.inputs]
        nbytes = sum(count(s.shape) * np.dtype(s.dtype).itemsize for s in specs)
        largest = max((a.nbytes for a in inputs if a is not None), default=0)
        if nbytes > max(self.budget, largest):
            return None
        arrays = evaluate(node, inputs)
        shared = all(a.size * a.itemsize <= largest and any(b is not None and np.may_share_memory(a, b) for b in inputs) for a in arrays)
        if not shared:
            if nbytes > self.budget:
                return None
            self.budget -= nbytes
        return arrays

    def zero(self, name: str) -> bool:
        """Whether a value is a constant of zeros: an integer times that is zero whatever it is."""
        return name in self.constants and not self.constants[name].any()

    def visit_if(self, node: Node) -> list[Node]:
        """Nothing but the branch's nodes where the condition is known; else the If, its branches folded."""
        given = [self.specs.get(name) if name else None for name in node.inputs]
        infer_node(node, given)
        condition = self.constants.get(node.inputs[0], given[0].constant)
        if condition is not None:
            branch = node.branches[0 if condition.reshape(())[()] else 1]
            left = self.visit(branch.nodes)
            for name, source in zip(node.outputs, branch.outputs):
                if name:
                    self.renamed[name] = self.renamed.get(source, source)
            return left
        branches = {key: self.visit_branch(node.get(key)) for key in ("then_branch", "else_branch")}
        for name, *sources in zip(node.outputs, *(b.outputs for b in branches.values())):
            if name and not all(sources):
                raise ShapeError(f"node {node.name!r} (If): output {name!r} needs an optional input that was left out")
            if name:
                self.specs[name] = agreed(*(self.specs.get(s, UNKNOWN) for s in sources))
        return [replace(node, attributes={**node.attributes, **branches})]

    def visit_branch(self, branch: Graph) -> Graph:
        outer = self.specs.copy(), self.constants.copy(), self.renamed.copy(), self.budget
        try:
            nodes = self.visit(branch.nodes)
            outputs = [self.renamed.get(name, name) for name in branch.outputs]
            return Graph(tuple(live(nodes, set(outputs))[0]), tuple(outputs))
        except (ShapeError, InvalidModelError):  # a branch that these shapes rule out; it raises if it is taken
            self.specs, self.constants, self.renamed, self.budget = outer
            return branch


def live(nodes: list[Node], needed: set[str]) -> tuple[tuple[Node, ...], set[str]]:
    """The nodes that the needed values depend on, unneeded outputs emptied; and all names that are read."""
    kept, needed = [], set(needed)
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(replace(node, outputs=tuple(name if name in needed else "" for name in node.outputs)))
            needed |= node.reads()
    return tuple(reversed(kept)), needed


def replace_model(model: Model, inputs: tuple[Value, ...], nodes, weights) -> Model:
    """A model made of parts that were checked before: nothing is validated again."""
    result = object.__new__(Model)
    states = tuple(s for s in model.states if s.input in {v.name for v in inputs})
    fields = {"inputs": inputs, "output_names": model.output_names, "nodes": tuple(nodes), "weights": weights, "states": states,
              "name": model.name, "declared": model.declared}
    result.__dict__.update(fields)
    return result
