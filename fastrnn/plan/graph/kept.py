"""Steps of a recurrent layer whose states are multiplied by a number for each row before, one after another: one layer that does so itself.

Policies of reinforcement learning are trained so, over sequences in which episodes end (facts: CleanRL's ppo_atari_lstm, sb3-contrib's
RecurrentActorCriticPolicy):

    for x_t, done_t in zip(x, done):
        y_t, state = lstm(x_t, tuple((1 - done_t) * s for s in state))

The node's input `keep` is what they are multiplied by. Of a state that is multiplied by 0 nothing is left; where it was infinite or no number, that is
more than 0 * s says, and what the policy means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

import numpy as np

from fastrnn.model import Model, Node
from fastrnn.model.edit import Edit, live
from fastrnn.model.infer import infer
from fastrnn.model.recurrent import INPUTS, RECURRENT, input_of, states_of
from fastrnn.model.sizes import same

KEEP = INPUTS.index("keep")
DEEPEST = 8  # nodes that make a factor, looked at to see whether two are alike


@dataclass(frozen=True)
class Step:
    """A node, the factor of its states, and what they are before it is applied; cuts: nodes that take those out of what a stack of layers has."""

    node: Node
    factor: str
    states: tuple[str, ...]
    cuts: tuple[Node, ...]


class _Steps(Edit):
    """A graph, who makes a value, and the steps in it."""

    def __init__(self, model: Model):
        super().__init__(model)
        self.made = {name: node for node in model.nodes for name in node.outputs if name}

    def step(self, node: Node) -> Step | None:
        """The node as a step whose states are all multiplied by the same."""
        if node.op not in RECURRENT or node.get("direction") != "forward" or input_of(node, "sequence_lens") or input_of(node, "keep"):
            return None
        x = self.specs[node.inputs[0]]
        if x.shape is None or not _same(x.shape[node.get("layout")], 1):
            return None
        cuts: list[Node] = []
        found = [self._multiplied(node.input(state.input), x.shape[1 - node.get("layout")], cuts) for state in states_of(node)]
        if None in found or not all(self._alike(found[0][0], factor) for factor, _ in found):
            return None
        return Step(node, found[0][0], tuple(state for _, state in found), tuple(cuts))

    def _multiplied(self, name: str, rows, cuts: list[Node]) -> tuple[str, str] | None:
        """(factor, state) whose product it is; of a stack's states, multiplied as one, its own. What cuts that out, where nothing has it alone, is added to cuts."""
        cut = self.made.get(name)
        whole = name if cut is None or cut.op != "Slice" else cut.inputs[0]
        mul = self.made.get(whole)
        if mul is None or mul.op != "Mul":
            return None
        pair = [(f, s) for f, s in (mul.inputs, mul.inputs[::-1]) if self._a_row_each(f, rows) and self.specs[s].shape == self.specs[whole].shape]
        if not pair or whole == name:
            return pair[0] if pair else None
        factor, states = pair[0]
        if (place := self._entry(cut)) is None:
            return None
        parts = self.made.get(states)
        if (
            parts is not None
            and parts.op == "Concat"
            and parts.get("axis") == 0
            and len(parts.inputs) > place
            and all(_same(self.specs[p].shape[0], 1) for p in parts.inputs)
        ):
            return factor, parts.inputs[place]
        cuts.append(replace(cut, name=self.fresh(f"{cut.name}.whole"), inputs=(states, *cut.inputs[1:]), outputs=(self.fresh(f"{name}.whole"),)))
        self.specs[cuts[-1].outputs[0]] = self.specs[name]
        return factor, cuts[-1].outputs[0]

    def _entry(self, cut: Node) -> int | None:
        """Which entry of axis 0 a Slice takes, if it is one."""
        given = [self.weights.get(name) for name in cut.inputs[1:4]]
        if len(cut.inputs) != 4 or any(a is None or a.size != 1 for a in given):
            return None
        start, stop, axis = (int(a.reshape(())) for a in given)
        return start if axis == 0 and start >= 0 and stop == start + 1 else None

    def _a_row_each(self, name: str, rows) -> bool:
        """Whether it is a number for each row, as states (1, B, n) are multiplied by: (1, B, 1) or (B, 1)."""
        shape = self.specs[name].shape
        return (
            shape is not None and len(shape) in (2, 3) and _same(shape[-1], 1) and _same(shape[-2], rows) and (len(shape) == 2 or _same(shape[0], 1))
        )

    def _alike(self, a: str, b: str, deep: int = 0) -> bool:
        """Whether two values are computed alike from the same."""
        if a == b:
            return True
        if a in self.weights and b in self.weights:
            one, other = self.weights[a], self.weights[b]
            return one.dtype == other.dtype and np.array_equal(one, other)
        one, other = self.made.get(a), self.made.get(b)
        return (
            one is not None
            and other is not None
            and deep < DEEPEST
            and one.op == other.op
            and not one.subgraphs
            and len(one.inputs) == len(other.inputs)
            and one.outputs.index(a) == other.outputs.index(b)
            and dict(one.attributes) == dict(other.attributes)
            and all(self._alike(p, q, deep + 1) for p, q in zip(one.inputs, other.inputs))
        )

    def follows(self, step: Step, before: Step) -> bool:
        """Whether a step goes on from another of the same layer, and nothing else does."""
        own = {0, *(s.input for s in states_of(step.node))}
        finals = tuple(before.node.output(s.output) for s in states_of(before.node))
        return (
            step.states == finals
            and step.node.op == before.node.op
            and dict(step.node.attributes) == dict(before.node.attributes)
            and all(self._alike(step.node.input(k), before.node.input(k)) for k in range(len(INPUTS)) if k not in own)
        )

    def joined(self, chain: list[Step]) -> list[Node]:
        """The nodes that do what a chain does."""
        first, last = chain[0], chain[-1].node
        nodes, layout, name = list(first.cuts), last.get("layout"), last.name
        xs, keeps = [step.node.inputs[0] for step in chain], [self._factor(nodes, step.factor, layout) for step in chain]
        if len(chain) > 1:
            xs, keeps = (self.node(nodes, "Concat", f"{name}.{what}", parts, axis=layout) for what, parts in (("steps", xs), ("keep", keeps)))
        inputs = [last.input(k) for k in range(KEEP)] + keeps
        inputs[0] = xs[0]
        for state, value in zip(states_of(last), first.states):
            inputs[state.input] = value
        y, ys = self.fresh(f"{name}.all") if len(chain) > 1 else last.outputs[0], [step.node.outputs[0] for step in chain]
        nodes.append(replace(last, inputs=tuple(inputs), outputs=(y, *last.outputs[1:])))
        if len(chain) > 1:
            infer(nodes[-1:], self.specs)
            axis = layout if last.get("torch_form") or not layout else 1
            nodes.append(Node("Split", self.fresh(f"{name}.each"), (y, self.whole(f"{name}.ones", *[1] * len(ys))), tuple(ys), {"axis": axis}))
        return nodes

    def _factor(self, nodes: list[Node], name: str, layout: int) -> str:
        """A factor as `keep` has it: (1, B), or (B, 1) with layout 1."""
        if len(self.specs[name].shape) == 2:
            return name if layout else self.node(nodes, "Transpose", f"{name}.turned", [name], perm=(1, 0))[0]
        return self.node(nodes, "Squeeze", f"{name}.rows", [name, self.whole(f"{name}.axis", 0 if layout else 2)])[0]


def _same(a, b) -> bool:
    """Whether two dimensions are one, symbols by name."""
    return a == b if isinstance(a, str) or isinstance(b, str) else same(a, b)


def kept(model: Model) -> Model:
    """The model with such steps joined. Specs of the values stay."""
    if not any(node.op in RECURRENT for node in model.nodes) or not any(node.op == "Mul" for node in model.nodes):
        return model
    graph, chains = _Steps(model), []
    for step in filter(None, map(graph.step, model.nodes)):
        for chain in chains:
            if graph.follows(step, chain[-1]):
                chain.append(step)
                break
        else:
            chains.append([step])
    nodes = model.nodes
    for together in [*([chains] if len(chains) > 1 else []), *([chain] for chain in chains)]:
        if (joined := _with(graph, nodes, together)) is not None:
            nodes = joined
        if nodes is not model.nodes and together is chains:  # layers of a stack, whose states are multiplied as one, go together or not at all
            break
    return model if nodes is model.nodes else graph.result(nodes)


def _with(graph: _Steps, nodes: tuple[Node, ...], chains: list[list[Step]]) -> tuple[Node, ...] | None:
    """The nodes with chains joined; None where something else needs what is between steps, or what a step gives is what the next one is given."""
    steps = [step for chain in chains for step in chain]
    gone, model = {id(step.node) for step in steps}, graph.model
    needed = {*model.output_names, *(state.output for state in model.states)}
    joined, read = live(
        _in_order([node for node in nodes if id(node) not in gone] + [node for chain in chains for node in graph.joined(chain)]), needed
    )
    there = {name for node in joined for name in node.outputs} | graph.weights.keys() | {v.name for v in model.inputs}
    lost = {step.node.output(s.output) for step in steps for s in states_of(step.node)}
    return None if (lost & read | needed) - there else joined


def _in_order(nodes: list[Node]) -> list[Node]:
    """The nodes, each behind those that it reads; without those that go round, as where what a step gives is what the next one is given, and who reads them."""
    makers = {name: k for k, node in enumerate(nodes) for name in node.outputs if name}
    waits = [{makers[name] for name in node.reads() if name in makers} for node in nodes]
    readers: dict[int, list[int]] = {}
    for k, needed in enumerate(waits):
        for maker in needed:
            readers.setdefault(maker, []).append(k)
    ready, found = [k for k, needed in enumerate(waits) if not needed], []
    heapify(ready)
    while ready:
        k = heappop(ready)
        found.append(nodes[k])
        for reader in readers.get(k, ()):
            waits[reader].discard(k)
            if not waits[reader]:
                heappush(ready, reader)
    return found
