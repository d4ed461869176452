"""Entries of inputs followed by number through ops that only move them, and through recurrent layers from their first state to their last.

What a graph says of its states: which output holds, entry by entry, what takes the place of an input (guess.py), and whether a chunk of steps leaves
there what as many steps would (check_ties, for a model along its time axis).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fastrnn.errors import NotStreamableError
from fastrnn.model import Model, Node, State
from fastrnn.model.infer import evaluate
from fastrnn.model.recurrent import RECURRENT, states_of

MOST_ENTRIES = 1 << 20  # of an input that is followed
MOVES = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather", "Concat")


class Flow:
    """model: folded, for inputs of these shapes. timed: values along time, where recurrent layers count only if they run along it.

    entries: by value, what it holds of inputs. nexts: what takes the place of those entries. starts: inputs that layers start from.
    uses: by input, what reads it other than to move it or to start from it. begun: by input, how often each entry is started from.
    """

    def __init__(self, model: Model | None = None, shapes: Mapping[str, tuple] = {}, timed: Collection[str] | None = None):
        self.entries: dict[str, np.ndarray] = {}
        self.nexts: dict[str, np.ndarray] = {}
        self.starts: set[str] = set()
        self.uses: dict[str, Node] = {}
        self.begun: dict[str, np.ndarray] = {}
        self._model, self._timed, first = model, timed, 0
        for name, shape in shapes.items():
            size = int(np.prod([d if isinstance(d, int) else 0 for d in shape], dtype=np.int64))
            if all(isinstance(d, int) for d in shape) and 0 < size <= MOST_ENTRIES:
                self.entries[name] = first + np.arange(size).reshape(shape)
                self.begun[name] = np.zeros(size, np.int64)
                first += size
        self._firsts = {name: int(self.entries[name].flat[0]) for name in self.begun}
        for node in () if model is None else model.nodes:
            self._follow(node)

    def _of(self, entries: np.ndarray) -> dict[str, np.ndarray]:
        """By input, which of its entries are among these."""
        found = {name: entries[(entries >= first) & (entries < first + self.begun[name].size)] - first for name, first in self._firsts.items()}
        return {name: numbers for name, numbers in found.items() if numbers.size}

    def _follow(self, node: Node) -> None:
        moved = self._start(node) if node.op in RECURRENT else self._move(node) if node.op in MOVES else ()
        for name in node.reads():
            if name in self.entries and name not in moved:
                self.uses |= dict.fromkeys(self._of(self.entries[name]), node)

    def _start(self, node: Node) -> list[str]:
        """A recurrent layer; returns the values that it starts from."""
        if self._timed is not None and node.inputs[0] not in self._timed:
            return []
        read = []
        for _, start, end in states_of(node):
            entries = self.entries.get(node.input(start))
            if entries is None:
                continue
            read.append(node.input(start))
            for name, numbers in self._of(entries).items():
                np.add.at(self.begun[name], numbers, 1)
                self.starts.add(name)
            if node.output(end):
                self.nexts[node.output(end)] = entries
        return read

    def _move(self, node: Node) -> tuple[str, ...]:
        """An op that moves entries; returns what it moves."""
        moved = node.inputs if node.op == "Concat" else node.inputs[:1]
        rest = [self._model.weights.get(name) for name in node.inputs[len(moved) :]]
        if any(name and a is None for name, a in zip(node.inputs[len(moved) :], rest)):
            return ()
        known = ()
        for numbers in (self.entries, self.nexts):
            if all(name in numbers for name in moved):
                results = evaluate(node, [*(numbers[name] for name in moved), *rest])
                numbers |= {name: a for name, a in zip(node.outputs, results) if name}
                known = moved
        return known


def sources(output: str, entries: np.ndarray, wanted: np.ndarray) -> list:
    """The output, or (output, index) for slices of its axis 0, where it holds exactly these entries in order."""
    if np.array_equal(entries, wanted):
        return [output]
    if not entries.ndim or entries.shape[0] < 2:
        return []
    parts = [entries[k : k + 1] if entries.ndim == wanted.ndim else entries[k] for k in range(entries.shape[0])]
    return [(output, k) for k, part in enumerate(parts) if np.array_equal(part, wanted)]


def check_ties(model: Model, states: tuple[State, ...], timed: Collection[str]) -> None:
    """Raises NotStreamableError unless, for each state of a model along time, its output is what the layers that start from it end with, and
    nothing else reads it; or it passes through unchanged. Anything else would change with the chunk and not with the step.

    model: folded, all shapes of states numbers. States of more than MOST_ENTRIES entries are not looked at.
    """
    shapes = {v.name: v.shape for v in model.inputs if v.name in {s.input for s in states}}
    flow = Flow(model, shapes, timed)
    for state in states:
        mine = flow.entries.get(state.input)
        if mine is None:
            continue
        tie, used, begun = f"state {state.input!r} <- {state.source}", flow.uses.get(state.input), flow.begun[state.input]
        source = state.output if state.index is None else (state.output, state.index)
        kept, passed = (
            state.output in numbers and source in sources(state.output, numbers[state.output], mine) for numbers in (flow.nexts, flow.entries)
        )
        if passed and not begun.any():
            continue
        if not kept:
            raise NotStreamableError(
                f"{tie}: the output is not the last state of the layers that start from the input, entry by entry; after a chunk "
                "it would not be what it is after as many steps"
            )
        if used is not None or begun.max() > 1:
            who = f"node {used.name!r} ({used.op}) reads it too" if used is not None else "several layers start from it"
            raise NotStreamableError(f"{tie}: {who}, and it would see the state of the chunk and not of the step")
