"""Everything that can be known beforehand is computed here: constants, shapes, the branch that an If takes, dead nodes.

Runs twice: when a model is compiled, with symbolic dimensions, and for each set of shapes in use. What folding may add in memory is
bounded; a node past the bound is left to run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model import Graph, Model, Node
from fastrnn.model.absent import Absent
from fastrnn.model.edit import Edit, changed, live
from fastrnn.model.graph import every_node
from fastrnn.model.infer import PASSING, SMALL, bounded, evaluate, infer_node, infer_repetition, spec_of
from fastrnn.model.ops import ANY_DIM, EVAL, UNKNOWN, Spec
from fastrnn.model.ops.control import Repetition, Stacked, agreed, steady
from fastrnn.model.ops.registry import count, has_symbol
from fastrnn.model.recurrent import RECURRENT
from fastrnn.model.sizes import Size, has_sizes
from fastrnn.plan.graph.counted import counted

REPEATING = ("Loop", "Scan")
LEAST_BUDGET, BUDGET_PER_BYTE = 1 << 20, 4
MOST_UNROLLED = 2048  # nodes that a Loop or Scan may become


def fold(model: Model, shapes: Mapping[str, tuple], values: Mapping[str, np.ndarray] = MappingProxyType({})) -> Model:
    """The model for inputs of these shapes, Sizes and symbols among them, some with these values; inputs left out are omitted. Raises ShapeError
    or InvalidModelError naming the node that they do not fit."""
    return _Folder(model, shapes, values).run()


def budget_of(weights: Mapping[str, np.ndarray]) -> int:
    """Bytes that may be computed beforehand beside these weights."""
    return max(LEAST_BUDGET, BUDGET_PER_BYTE * sum(a.nbytes for a in weights.values()))


class _Folder(Edit):
    """The model being folded; specs and weights are what is known so far, whatever was computed among them. renamed: values that are another by
    now, "" if missing; room: nodes that may still be laid out."""

    def __init__(self, model: Model, shapes: Mapping[str, tuple], values: Mapping[str, np.ndarray]):
        self.inputs = tuple(replace(v, shape=tuple(shapes[v.name])) for v in model.inputs if v.name in shapes)
        super().__init__(model, {v.name: Spec(v.dtype, v.shape) for v in self.inputs})
        self.weights |= values
        self.specs |= {name: model.specs[name] if a.dtype == object else spec_of(a) for name, a in self.weights.items()}
        self.renamed = {v.name: "" for v in model.inputs if v.name not in shapes}
        self.room = MOST_UNROLLED
        self.budget = budget_of(model.weights)

    def run(self) -> Model:
        nodes = self.visit(self.model.nodes)
        for name in self.model.output_names:
            if name in self.renamed:
                source = self.renamed[name]
                if not source:
                    raise ShapeError(f"output {name!r} needs an optional input that was left out")
                nodes.append(Node("Identity", self.fresh(f"output {name}"), (source,), (name,)))
                self.specs[name] = self.specs[source]
        nodes, needed = live(nodes, set(self.model.output_names))
        # in C order once and for all: a program takes them as they lie
        weights = {name: a if isinstance(a, Absent) else np.require(a, requirements="C") for name, a in self.weights.items() if name in needed}
        return changed(self.model, inputs=self.inputs, nodes=nodes, weights=weights, specs=self.specs)

    def visit(self, nodes) -> list[Node]:
        """The nodes that are left of these."""
        left: list[Node] = []
        for node in nodes:
            was_missing = bool(node.inputs) and node.inputs[0] in self.renamed and not self.renamed[node.inputs[0]]
            node = replace(node, inputs=tuple(name and self.renamed.get(name, name) for name in node.inputs))
            if node.op == "If":
                left += self.visit_if(node)
                continue
            if node.op in REPEATING:
                left += self.visit_repetition(node)
                continue
            given = [self.specs.get(name) if name else None for name in node.inputs]
            if node.op == "CastLike" and given[1] is not None and given[1].dtype:
                node, given = replace(node, op="Cast", inputs=node.inputs[:1], attributes={"to": given[1].dtype}), given[:1]
            if was_missing and node.op in PASSING:
                self.renamed |= {name: "" for name in node.outputs if name}
                continue
            specs = infer_node(node, given)
            arrays = self.constant(node, specs)
            for k, name in enumerate(node.outputs):
                if name:
                    self.specs[name] = specs[k] if arrays is None or arrays[k].dtype == object else spec_of(arrays[k])
                    if arrays is not None:
                        self.weights[name] = arrays[k]
            decided = node.op == "Require" and given[1].constant is not None
            if arrays is None and (decided or node.op == "Identity" or node.op == "Cast" and specs[0].dtype == given[0].dtype):
                self.renamed |= {node.outputs[0]: node.inputs[0]} if node.outputs[0] else {}
            elif arrays is None:
                left.append(node)
        return left

    def constant(self, node: Node, specs) -> list[np.ndarray] | None:
        """The results, where all inputs are constant and the budget allows."""
        if all(s is not None and s.constant is not None for s in specs):
            return [s.constant for s in specs]
        if any(has_sizes(self.weights[name]) for name in node.inputs if name in self.weights):
            return None
        if node.op == "Mul" and all(s.dtype.startswith(("int", "uint")) for s in specs) and any(self.zero(name) for name in node.inputs):
            shape = specs[0].shape
            return [np.zeros(shape, specs[0].dtype)] if shape is not None and count(shape) != ANY_DIM and count(shape) <= SMALL else None
        if node.op in RECURRENT or node.op not in EVAL or any(name and name not in self.weights for name in node.inputs):
            return None
        inputs = [self.weights[name] if name else None for name in node.inputs]
        if not any(node.inputs) or any(has_symbol(s.shape) or any(isinstance(d, Size) for d in s.shape) for s in specs) or not bounded(node, inputs):
            return None
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

    def rename(self, name: str, source: str) -> None:
        """A value is another by now; subgraphs still read it by its own name."""
        self.renamed[name] = source
        if source in self.specs:
            self.specs[name] = self.specs[source]

    def zero(self, name: str) -> bool:
        """Whether a value is a constant of zeros: an integer times that is zero whatever it is."""
        return name in self.weights and not self.weights[name].any()

    def visit_if(self, node: Node) -> list[Node]:
        """Nothing but the branch's nodes where the condition is known; else the If, its branches folded."""
        given = [self.specs.get(name) if name else None for name in node.inputs]
        infer_node(node, given)
        condition = self.weights.get(node.inputs[0], given[0].constant)
        if condition is not None:
            branch = node.branches[0 if condition.reshape(())[()] else 1]
            left = self.visit(branch.nodes)
            for name, source in zip(node.outputs, branch.outputs):
                if name:
                    self.rename(name, self.renamed.get(source, source))
            return left
        branches = {key: self.visit_branch(node.get(key)) for key in ("then_branch", "else_branch")}
        for name, *sources in zip(node.outputs, *(b.outputs for b in branches.values())):
            if name and not all(sources):
                raise ShapeError(f"node {node.name!r} (If): output {name!r} needs an optional input that was left out")
            if name:
                self.specs[name] = agreed(*(self.specs.get(s, UNKNOWN) for s in sources))
        return [replace(node, attributes={**node.attributes, **branches})]

    def visit_repetition(self, node: Node) -> list[Node]:
        """The node with its body folded; laid out run after run where that decides shapes that the runs change, or where all is constant."""
        node, behind = counted(node, self)
        return [*self.folded_repetition(node), *self.visit(behind)]

    def folded_repetition(self, node: Node) -> list[Node]:
        """The same of one that is counted."""
        outer = self.snapshot()
        given = [self.specs.get(name) if name else None for name in node.inputs]
        results = infer_repetition(node, given, self.specs)
        body = node.get("body")
        nodes = self.visit(body.nodes)
        outputs = tuple(self.renamed.get(name, name) for name in body.outputs)
        folded = replace(node, attributes={**node.attributes, "body": Graph(live(nodes, set(outputs))[0], outputs, body.inputs)})
        if not self.settled(folded):
            inner = self.snapshot()
            self.restore(outer)
            unrolled = self.unroll(node)
            if unrolled is not None:
                return unrolled
            self.restore(inner)
        self.specs |= {name: spec for name, spec in zip(node.outputs, results) if name}
        return [folded]

    def settled(self, node: Node) -> bool:
        """Whether it is best left to run: symbols are left to be decided, or all shapes are there and it reads something that is no constant."""
        names = [name for inner, _ in every_node([node]) for name in (*inner.inputs, *inner.outputs) if name and name in self.specs]
        symbols = {d for name in names if self.specs[name].shape is not None for d in self.specs[name].shape if isinstance(d, str)} - {ANY_DIM}
        if symbols:
            return True
        constant = all(name in self.weights for name in node.reads())
        repetition = Repetition(node)
        open_ended = any(s.result for s in repetition.stacked) and repetition.count(self.specs) == ANY_DIM
        return (
            not constant
            and not open_ended
            and steady(repetition, self.specs)
            and all(self.specs[name].shape is not None and count(self.specs[name].shape) != ANY_DIM for name in names)
        )

    def unroll(self, node: Node) -> list[Node] | None:
        """Its runs one after the other, each with the body's names its own; None where they are too many, or data decides how many."""
        outer, repetition = self.snapshot(), Repetition(node)
        n = repetition.count(self.specs)
        if n == ANY_DIM and repetition.trips:
            if repetition.trips not in self.weights:
                return None  # a condition that is known may end it later than a trip count that is not
            n = max(0, int(self.weights[repetition.trips].reshape(-1)[0]))
        n = n if isinstance(n, str) else int(n)  # a Size is tied: another number of runs is another program
        size = 1 + sum(1 for _ in every_node(node.get("body").nodes))
        if isinstance(n, str) and n != ANY_DIM or not isinstance(n, str) and n * size > self.room and repetition.unconditional(self.specs):
            return None
        left: list[Node] = []
        values, going = {c.before: c.first for c in repetition.carried}, repetition.condition
        parts: list[list[str]] = [[] for _ in repetition.stacked]
        run = 0
        while n == ANY_DIM or run < n:
            self.room -= size
            if going and going not in self.weights or self.room < 0:
                self.restore(outer)
                return None
            if going and not self.weights[going].reshape(-1)[0]:
                break
            body = instance(repetition.body, f"{node.name}.{run}", values, self.fresh)
            left += self.visit([*self.entries(repetition, run, n, body), *body.nodes])
            made = dict(zip(repetition.body.outputs, (self.renamed.get(name, name) for name in body.outputs)))
            values = {c.before: made[c.after] for c in repetition.carried}
            going = made[repetition.goes_on] if repetition.goes_on else ""
            for names, s in zip(parts, repetition.stacked):
                names.append(made[s.part])
            run += 1
        for c in repetition.carried:
            if c.result:
                self.rename(c.result, values[c.before])
        stacked = [node for s, names in zip(repetition.stacked, parts) if s.result for node in self.stack(s, names, repetition)]
        return left + self.visit(stacked)

    def entries(self, repetition: Repetition, run: int, n, body: Graph) -> list[Node]:
        """What a run is told and what it is to take, as nodes; numbers as constants."""
        nodes, inner = [], dict(zip(repetition.body.inputs, body.inputs))
        for name, array in ((repetition.counter, np.array(run)), (repetition.go_on, np.array(True))):
            if name:
                self.weights[inner[name]], self.specs[inner[name]] = array, spec_of(array)
        for t in repetition.taken:
            index = self.weight(f"{inner[t.entry]}.index", np.array(n - 1 - run if t.backwards else run))
            nodes.append(Node("Gather", self.fresh(f"{inner[t.entry]}.taken"), (t.source, index), (inner[t.entry],), {"axis": t.axis}))
        return nodes

    def stack(self, stacked: Stacked, names: list[str], repetition: Repetition) -> list[Node]:
        """What the runs gave, put together along a new axis."""
        names = names[::-1] if stacked.backwards else names
        if not names:
            spec = self.specs.get(stacked.part, UNKNOWN)
            infer_repetition(repetition.node, [self.specs.get(name) if name else None for name in repetition.node.inputs], self.specs)
            spec = self.specs[stacked.part]
            if spec.shape is None or count(spec.shape) == ANY_DIM:
                raise ShapeError(f"node {repetition.node.name!r} ({repetition.node.op}): the shape of {stacked.result!r} is not known without a run")
            array = np.expand_dims(np.zeros(spec.shape, spec.dtype), stacked.axis).take([], axis=stacked.axis)
            self.weights[stacked.result], self.specs[stacked.result] = array, spec_of(array)
            return []
        axes = self.whole(f"{stacked.result}.axes", stacked.axis)
        raised = [self.fresh(f"{stacked.result}.{k}") for k in range(len(names))]
        nodes = [Node("Unsqueeze", whole, (name, axes), (whole,)) for name, whole in zip(names, raised)]
        return [*nodes, Node("Concat", self.fresh(f"{stacked.result}.stacked"), tuple(raised), (stacked.result,), {"axis": stacked.axis})]

    def snapshot(self) -> tuple:
        """What is known so far, to come back to."""
        return self.specs.copy(), self.weights.copy(), self.renamed.copy(), self.budget

    def restore(self, state: tuple) -> None:
        """Forgets what was learned since."""
        specs, weights, renamed, self.budget = state
        self.specs, self.weights, self.renamed = specs.copy(), weights.copy(), renamed.copy()

    def visit_branch(self, branch: Graph) -> Graph:
        outer = self.snapshot()
        try:
            nodes = self.visit(branch.nodes)
            outputs = [self.renamed.get(name, name) for name in branch.outputs]
            return Graph(tuple(live(nodes, set(outputs))[0]), tuple(outputs))
        except (ShapeError, InvalidModelError):  # a branch that these shapes rule out; it raises if it is taken
            self.restore(outer)
            return branch


def instance(body: Graph, prefix: str, given: Mapping[str, str], fresh: Callable[[str], str]) -> Graph:
    """A copy of a body whose values and nodes have names of their own; what it is given by another name is read there."""
    names = dict(given)

    def own(name: str) -> str:
        return fresh(f"{prefix}.{name}")

    def copy(graph: Graph) -> Graph:
        names.update({name: own(name) for name in graph.inputs if name not in names})
        nodes = []
        for node in graph.nodes:
            inputs = tuple(names.get(name, name) for name in node.inputs)
            attributes = {k: copy(v) if isinstance(v, Graph) else v for k, v in node.attributes.items()}
            names.update({name: own(name) for name in node.outputs if name})
            nodes.append(
                replace(
                    node,
                    name=names[node.name] if node.name in node.outputs else own(node.name),
                    inputs=inputs,
                    attributes=attributes,
                    outputs=tuple(name and names[name] for name in node.outputs),
                )
            )
        return Graph(tuple(nodes), tuple(names.get(name, name) for name in graph.outputs), tuple(names[name] for name in graph.inputs))

    return copy(body)
