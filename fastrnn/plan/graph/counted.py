"""Loops that count: how often one runs where its conditions follow from constants, and what it hands on that is no more than a number of the run.

goes on while  counter + 1 < T  and  n < T,  with n = first + step * run   ->   min(trip count, ...) runs, without a condition
n handed on as n + step, a value handed on as it is                        ->   made of the number of the run, or read where it came from
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastrnn.model import Graph, Node
from fastrnn.model.edit import Edit
from fastrnn.model.ops.control import Carried, Repetition

SAME = ("Identity", "Cast", "Squeeze", "Unsqueeze")
NEVER = math.inf
EXACT = 1 << 24  # whole numbers up to here are themselves in float32, in which some files count


class Count(NamedTuple):
    """first + step * number of the run."""

    first: float
    step: float


def counted(node: Node, edit: Edit) -> tuple[Node, list[Node]]:
    """The Loop, simplified, and nodes behind it for results that it no longer gives. A Scan stays as it is."""
    return _Loop(node, edit).simplified() if node.op == "Loop" else (node, [])


class _Loop:
    def __init__(self, node: Node, edit: Edit):
        self.node, self.edit, self.constants, self.loop = node, edit, edit.weights, Repetition(node)
        self.makers = {name: inner for inner in self.loop.body.nodes for name in inner.outputs if name}
        self.counts: dict[str, Count] = {self.loop.counter: Count(0, 1)}
        for c in self.loop.carried:
            if (count := self._carried(c)) is not None:
                self.counts[c.before] = count

    def simplified(self) -> tuple[Node, list[Node]]:
        loop, body, behind = self.loop, self.loop.body, []
        runs = self.runs()
        inputs, before, outputs, results, nodes = list(self.node.inputs[:2]), list(body.inputs[:2]), [body.outputs[0]], [], []
        instead: dict[str, str] = {}
        for c in loop.carried:
            count = self.counts.get(c.before)
            if self._behind(c.after) == c.before:
                instead[c.before] = c.first
                behind += [Node("Identity", self.edit.fresh(f"{c.result}.kept"), (c.first,), (c.result,))] if c.result else []
            elif count is not None and not c.result:
                nodes += self._number(c, count)
            else:
                inputs.append(c.first)
                before.append(c.before)
                outputs.append(c.after)
                results.append(c.result)
        if runs is not None:
            inputs[0], outputs[0] = self.edit.weight(f"{self.node.name}.runs", np.array(runs, np.int64)), loop.go_on
        if inputs == list(self.node.inputs) and runs is None:
            return self.node, []
        stacked = [instead.get(s.part, s.part) for s in loop.stacked]
        outputs = [instead.get(name, name) for name in outputs]
        graph = Graph((*nodes, *(renamed(inner, instead) for inner in body.nodes)), (*outputs, *stacked), tuple(before))
        kept = (*results, *(s.result for s in loop.stacked))
        return replace(self.node, inputs=tuple(inputs), outputs=kept, attributes={**self.node.attributes, "body": graph}), behind

    def runs(self) -> int | None:
        """How often it runs, where conditions end it and that follows from constants; None where nothing is to be proved, or cannot be."""
        loop = self.loop
        goes_on = self._behind(loop.goes_on)
        limit = NEVER if not loop.trips else self._scalar(loop.trips)
        begun = 1 if not loop.condition else self._scalar(loop.condition)
        if goes_on == loop.go_on or limit is None or begun is None:
            return None
        if not begun:
            return 0
        ends = self._first_false(goes_on)
        runs = None if ends is None else min(max(limit, 0), ends + 1)
        return int(runs) if runs is not None and runs < EXACT else None

    def _number(self, c: Carried, count: Count) -> list[Node]:
        """Nodes that make what was handed on out of the number of the run."""
        value, nodes = self.loop.counter, []
        for op, number, neutral in (("Mul", count.step, 1), ("Add", count.first, 0)):
            if number != neutral:
                name = self.edit.fresh(f"{c.before}.{op}")
                nodes.append(Node(op, name, (value, self.edit.weight(f"{name}.by", np.array(int(number), np.int64))), (name,)))
                value = name
        return [*nodes, Node("Cast", self.edit.fresh(f"{c.before}.counted"), (value,), (c.before,), {"to": self.constants[c.first].dtype.name})]

    def _carried(self, c: Carried) -> Count | None:
        """Of a whole number that each run hands on larger by the same."""
        first, maker = self.constants.get(c.first), self.makers.get(self._behind(c.after))
        if first is None or first.shape != () or first.dtype.kind not in "iu" or maker is None or maker.op not in ("Add", "Sub"):
            return None
        a, b = (self._behind(name) for name in maker.inputs)
        step = self._scalar(b) if a == c.before else self._scalar(a) if b == c.before and maker.op == "Add" else None
        return None if step is None else Count(int(first), step if maker.op == "Add" else -step)

    def _behind(self, name: str) -> str:
        """What a value is, where Identity alone stands in between."""
        while name in self.makers and self.makers[name].op == "Identity":
            name = self.makers[name].inputs[0]
        return name

    def _scalar(self, name: str) -> float | None:
        array = self.constants.get(name)
        return None if array is None or array.size != 1 or array.dtype.kind not in "iufb" else array.reshape(())[()].item()

    def _count(self, name: str) -> Count | None:
        """A number that a run knows, by the number of the run."""
        if name in self.counts:
            return self.counts[name]
        if (constant := self._scalar(name)) is not None:
            return Count(constant, 0)
        maker = self.makers.get(name)
        if maker is None or maker.op == "Cast" and not maker.get("to").startswith(("int", "float")):
            return None
        if maker.op in SAME:
            return self._count(maker.inputs[0])
        if maker.op not in ("Add", "Sub"):
            return None
        a, b = (self._count(part) for part in maker.inputs)
        sign = 1 if maker.op == "Add" else -1
        return None if a is None or b is None else Count(a.first + sign * b.first, a.step + sign * b.step)

    def _first_false(self, name: str) -> float | None:
        """The number of the first run for which a condition does not hold, NEVER where it always does; None where that is not known."""
        if name == self.loop.go_on:
            return NEVER
        if (constant := self._scalar(name)) is not None:
            return NEVER if constant else 0
        maker = self.makers.get(name)
        if maker is None:
            return None
        if maker.op in SAME:
            return self._first_false(maker.inputs[0])
        if maker.op == "And":
            ends = [self._first_false(part) for part in maker.inputs]
            return None if None in ends else min(ends)
        if maker.op not in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
            return None
        less, more = (self._count(part) for part in (maker.inputs if maker.op.startswith("Less") else maker.inputs[::-1]))
        if less is None or more is None:
            return None
        gap, step = more.first - less.first, less.step - more.step  # holds while step * run < gap, or <= gap
        if maker.op.endswith("OrEqual"):
            return 0 if gap < 0 else NEVER if step <= 0 else math.floor(gap / step) + 1
        return 0 if gap <= 0 else NEVER if step <= 0 else math.ceil(gap / step)


def renamed(node: Node, names: Mapping[str, str]) -> Node:
    """The node reading other values, in its subgraphs too."""
    attributes = {
        k: Graph(tuple(renamed(inner, names) for inner in v.nodes), tuple(names.get(n, n) for n in v.outputs), v.inputs)
        if isinstance(v, Graph)
        else v
        for k, v in node.attributes.items()
    }
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs), attributes=attributes)
