"""Recurrent layers that a file spells out become RNN, GRU and LSTM nodes: a Loop or Scan over one cell, cells one after another, a single cell.

A cell is taken for one only if it is, for all real numbers: see algebra.py and cell_steps.py. What else reads a layer's states finds them in
its outputs; a Loop that also computes something else, or hands on more than the layer's states, stays as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np

from fastrnn.model import Graph, Model, Node
from fastrnn.model.edit import Edit, live
from fastrnn.model.graph import every_node
from fastrnn.model.ops import ANY_DIM
from fastrnn.model.ops.control import Repetition
from fastrnn.plan.graph.algebra import Form, Vector, mapped
from fastrnn.plan.graph.cell_steps import CellStep, step_of_rnn
from fastrnn.plan.graph.fold import REPEATING
from fastrnn.plan.graph.reading import RUN, Reading

MOST_ROUNDS = 16  # layers on top of one another
ENDS = {"Tanh", "Sigmoid", "Relu", "HardSigmoid", "Softsign", "Elu", "LeakyRelu", "ThresholdedRelu", "Softplus", "Clip"}


def recognise(model: Model) -> Model:
    """The model with recurrent nodes where it spells layers out. Specs of the values stay."""
    ops = {node.op for node, _ in every_node(model.nodes)}
    if not ops & ENDS or not ops & {"MatMul", "Gemm"}:
        return model
    return _Recogniser(model).run()


class _Recogniser(Edit):
    """The model being changed."""

    def __init__(self, model: Model):
        super().__init__(model)
        self.changed = False
        self._digests: dict[int, bytes] = {}

    def run(self) -> Model:
        nodes = self.walk(list(self.model.nodes), {}, set(self.model.output_names))
        return self.result(nodes) if self.changed else self.model

    def walk(self, nodes: list[Node], forms: dict[str, Form], wanted: set[str]) -> list[Node]:
        """The nodes of a graph with layers in it recognised, and those in subgraphs. forms: of values around it."""
        reading = Reading(self.weights, self.specs, forms).read(nodes)
        for _ in range(MOST_ROUNDS):
            found = self.loops(nodes, reading) or self.chains(nodes, reading, 2)
            if found is None:
                break
            nodes = list(live(found, wanted)[0])
            reading = Reading(self.weights, self.specs, forms).read(nodes)
        nodes = self.chains(nodes, reading, 1) or nodes
        result = []
        for node in nodes:
            if node.subgraphs:
                attributes = {k: replace(v, nodes=tuple(self.walk(list(v.nodes), reading.forms, set(v.outputs)))) if isinstance(v, Graph) else v
                              for k, v in node.attributes.items()}
                node = replace(node, attributes=attributes)
            result.append(node)
        return result

    # What is put in their place.

    def shaped(self, nodes: list[Node], name: str, value: str, shape: tuple) -> str | None:
        """The value with axes of size 1 put in or left out, None where that does not give the shape."""
        have = self.specs[value].shape
        if tuple(d for d in have if d != 1) != tuple(d for d in shape if d != 1) or ANY_DIM in have:
            return None
        ones = [k for k, d in enumerate(have) if d == 1]
        if have != shape and ones:
            value = self.node(nodes, "Squeeze", f"{name}.whole", (value, self.whole(f"{name}.axes", *ones)))[0]
        new = [k for k, d in enumerate(shape) if d == 1]
        if have != shape and new:
            value = self.node(nodes, "Unsqueeze", f"{name}.shaped", (value, self.whole(f"{name}.axes", *new)))[0]
        return value

    def value(self, nodes: list[Node], vector: Vector) -> str:
        """The name of a vector's value."""
        if vector.index is None:
            return vector.name
        at = self.weight(f"{vector.name}.at", np.array(vector.index))
        return self.node(nodes, "Gather", f"{vector.name}.entry", (vector.name, at), axis=vector.axis)[0]

    def layer(self, nodes: list[Node], step: CellStep, x: Vector, h: Vector, sequence: str, states: list[str], backwards: bool) -> list[str]:
        """The recurrent node over X (T, B, I): names of Y (T, 1, B, H), Y_h and, of an LSTM, Y_c (1, B, H)."""
        name, size = f"{step.result}.{step.op.lower()}", self.specs[step.result].shape[-1]
        arrays = step.weights(x, h, size, self.weights)
        w, r, b = (self.weight(f"{name}.{what}", a) for what, a in zip("WRB", arrays))
        attributes = step.attributes(size) | ({"direction": "reverse"} if backwards else {})
        self.changed = True
        return self.node(nodes, step.op, name, (sequence, w, r, b, "", *states), 3 if step.op == "LSTM" else 2, **attributes)

    def sequence(self, nodes: list[Node], source: str, axis: int, name: str) -> str | None:
        """A value of three axes with time first."""
        if len(self.specs[source].shape) != 3 or axis not in (0, 1):
            return None
        return self.node(nodes, "Transpose", f"{name}.time_first", (source,), perm=(1, 0, 2))[0] if axis else source

    # Loops and Scans over one cell.

    def loops(self, nodes: list[Node], reading: Reading) -> list[Node] | None:
        """The nodes with every Loop and Scan that is one layer replaced; None where there is none."""
        result, any_found = [], False
        for node in nodes:
            new = self.loop(node, reading) if node.op in REPEATING else None
            result += new or [node]
            any_found |= bool(new)
        return result if any_found else None

    def loop(self, node: Node, outer: Reading) -> list[Node] | None:
        """A Loop or Scan whose body is one cell, as a layer."""
        loop = Repetition(node)
        forms = dict(outer.forms)
        for t in loop.taken:
            inside = outer._entry(t.source, t.axis % len(self.specs[t.source].shape), RUN) if outer._plain(t.source) else None
            if inside is None:
                return None
            forms[t.entry] = inside
        inner = Reading(self.weights, self.specs, forms, loop.counter).read(loop.body.nodes)
        after = {c.before: self._name_behind(inner, c.after) for c in loop.carried}
        for c in loop.carried:
            step = inner.steps.get(after[c.before]) or self._rnn(inner, c)
            h = Vector(c.before, self.specs[c.before].shape[-1]) if step and self.specs[c.before].shape else None
            if step is None or step.h not in (None, h) or h not in step.vectors | {step.h}:
                continue
            cell = next((d for d in loop.carried if step.cell and after[d.before] == step.cell and step.c == Vector(d.before, h.width)), None)
            if bool(step.cell) != bool(cell) or {d.result for d in loop.carried if d not in (c, cell)} - {""}:
                continue
            xs = step.vectors - {h}
            if len(xs) != 1 or next(iter(xs)).index != RUN:
                continue
            return self._instead(loop, step, xs.pop(), h, [c, *([cell] if cell else [])], inner)
        return None

    def _name_behind(self, reading: Reading, name: str) -> str:
        """The new state that a value is, or its own name."""
        form = reading.forms.get(name)
        vector = form.vector if form is not None else None
        return vector.name if vector is not None and vector.index is None else name

    def _rnn(self, reading: Reading, carried) -> CellStep | None:
        form = reading.forms.get(carried.after)
        shape = self.specs[carried.before].shape
        return step_of_rnn(form, carried.after, Vector(carried.before, shape[-1])) if form is not None and shape else None

    def _instead(self, loop: Repetition, step: CellStep, x: Vector, h: Vector, carried: list, reading: Reading) -> list[Node] | None:
        """The layer, and what the loop's results are made of."""
        name, nodes = loop.node.name, []
        backwards = {t.backwards for t in loop.taken if self._reads(reading, t, x)} if loop.scan else {False}
        T = self.specs[x.name].shape[x.axis]
        if len(backwards) != 1 or loop.count(self.specs) != T or T == ANY_DIM or any(
                s.result and self._name_behind(reading, s.part) != step.result and reading.forms.get(s.part) != reading.forms.get(step.result) for s in loop.stacked):
            return None
        backwards = backwards.pop()
        sequence = self.sequence(nodes, x.name, x.axis, name)
        if sequence is None:
            return None
        B = self.specs[sequence].shape[1]
        states = [self.shaped(nodes, c.first, c.first, (1, B, h.width)) for c in carried]
        if None in states:
            return None
        y, *ends = self.layer(nodes, step, x, h, sequence, states, backwards)
        for c, end in zip(carried, ends):
            if c.result:
                last = self.shaped(nodes, c.result, end, self.specs[c.result].shape)
                nodes.append(Node("Identity", f"{c.result}.last", (last,), (c.result,)))
        for s in loop.stacked:
            if s.result:
                self._stack(nodes, s, y, backwards)
        return nodes

    def _reads(self, reading: Reading, taken, x: Vector) -> bool:
        return any(v == x for v in reading.forms[taken.entry].vectors)

    def _stack(self, nodes: list[Node], stacked, y: str, backwards: bool) -> None:
        """Y (T, 1, B, H) as the loop's result: time at its axis, in its order."""
        part = self.specs[stacked.part].shape
        axis = stacked.axis % (len(part) + 1)
        flat = self.node(nodes, "Squeeze", f"{stacked.result}.flat", (y, self.whole(f"{stacked.result}.axes", 1)))[0]
        if stacked.backwards != backwards:
            bounds = [self.whole(f"{stacked.result}.axes", n) for n in (-1, np.iinfo(np.int64).min, 0, -1)]
            flat = self.node(nodes, "Slice", f"{stacked.result}.turned", (flat, *bounds))[0]
        new = [k + 1 for k, d in enumerate(part) if d == 1][:max(0, len(part) - 2)]
        if new:
            flat = self.node(nodes, "Unsqueeze", f"{stacked.result}.shaped", (flat, self.whole(f"{stacked.result}.axes", *new)))[0]
        order = [*range(1, axis + 1), 0, *range(axis + 1, len(part) + 1)]
        nodes.append(Node("Transpose", f"{stacked.result}.stacked", (flat,), (stacked.result,), {"perm": tuple(order)}))

    # Cells one after another.

    def chains(self, nodes: list[Node], reading: Reading, least: int) -> list[Node] | None:
        """The nodes with cells one after another, `least` or more, as layers; None where there are none."""
        steps = dict(reading.steps)
        for vector, form in reading.made_of.items():
            if vector.name not in steps and least > 1 and (rnn := step_of_rnn(form, vector.name)) is not None:
                steps[vector.name] = rnn
        for node in nodes if least > 1 else ():
            name = node.outputs[0]
            if name not in steps and name in reading.forms and (rnn := step_of_rnn(reading.forms[name], name)) is not None:
                steps[name] = rnn
        made = {name: k for k, node in enumerate(nodes) for name in node.outputs if name}
        steps = {name: step for name, step in steps.items() if name in made}
        chains, taken = [], set()
        for name in sorted(steps, key=made.get, reverse=True):
            if name not in taken:
                chain = self._chain(steps, steps[name], taken) if least > 1 else [steps[name]]
                taken |= {s.result for s in chain}
                chains.append(chain[::-1])
        places, dropped = {}, set()
        for chain in chains:
            if len(chain) < least:
                continue
            new = self._unrolled(chain, made)
            if new is not None:
                first = chain[0]
                places.setdefault(min(made[first.result], made.get(first.cell, made[first.result])), []).append(new)
                dropped |= {s.result for s in chain} | {chain[-1].cell}
        if not places:
            return None
        result = []
        for k, node in enumerate(nodes):
            for new in places.get(k, ()):
                result += new
            outputs = tuple("" if name in dropped else name for name in node.outputs)
            if any(outputs):
                result.append(replace(node, outputs=outputs))
        return result

    def _chain(self, steps: dict[str, CellStep], step: CellStep, taken: set[str]) -> list[CellStep]:
        """The step and those before it with the same weights, last first."""
        chain = [step]
        while True:
            step = chain[-1]
            before = [steps[v.name] for v in step.vectors | {step.h} if v is not None and v.index is None and v.name in steps]
            fit = [b for b in before if b.result not in taken and b.op == step.op and (step.h is None or step.h.name == b.result)
                   and (not step.cell or step.c is not None and step.c.name == b.cell) and self._alike(step, b)]
            if len(fit) != 1:
                return chain
            chain.append(fit[0])

    def _alike(self, step: CellStep, before: CellStep) -> bool:
        """Whether the step before has the same weights, its own state where this one has the new one."""
        x, h = self._roles(step, before.result)
        return x is not None and self._roles_as(before, step, x, h) is not None

    def _roles(self, step: CellStep, h_name: str) -> tuple[Vector | None, Vector | None]:
        h = [v for v in step.vectors if v.name == h_name and v.index is None]
        xs = step.vectors - set(h)
        return (xs.pop(), h[0]) if len(h) == 1 and len(xs) == 1 else (None, None)

    def _roles_as(self, step: CellStep, model: CellStep, x: Vector, h: Vector) -> tuple[Vector, Vector] | None:
        """x and h of a step that has the same weights as one whose x and h are known."""
        for mine in step.vectors:
            others = step.vectors - {mine}
            if len(others) == 1 and step.h in (None, mine) and mine.width == h.width:
                other = next(iter(others))
                if self._signature(step, other, mine) == self._signature(model, x, h):
                    return other, mine
        return None

    def _signature(self, step: CellStep, x: Vector, h: Vector):
        """What two steps share if they have the same weights."""
        roles = {x: Vector("x", x.width), h: Vector("h", h.width), step.reset: Vector("r h", h.width)}
        forms = [*(step.gates[letter] for letter in sorted(step.gates)), *([step.recurrent] if step.recurrent else [])]
        return (step.op, step.activations, step.negated, sorted(step.gates), step.reset is None, step.recurrent is None,
                tuple(self._by_content(mapped(form, roles.get)) for form in forms))

    def _by_content(self, form: Form) -> tuple:
        # counted: what stands twice under two names counts twice
        parts = Counter((p.vector, self._digest(p.weight), p.turned, p.rows, p.cols, scale) for p, scale in form.parts)
        biases = Counter((self._digest(name), cols, scale) for (name, cols), scale in form.biases)
        return frozenset(parts.items()), frozenset(biases.items()), form.products

    def _digest(self, name: str) -> bytes:
        array = self.weights.get(name)
        if array is None:
            return name.encode()
        if id(array) not in self._digests:
            from hashlib import sha256

            self._digests[id(array)] = sha256(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).digest()
        return self._digests[id(array)]

    def _unrolled(self, chain: list[CellStep], made) -> list[Node] | None:
        """The layer in place of steps in order, and their new states out of its outputs; None where they are none.

        What a cell holds between two steps the layer does not give: where something else reads it, the nodes that make it stay.
        """
        roles = self._all_roles(chain)
        if roles is None:
            return None
        xs, hs, first, last, new = [x for x, _ in roles], [h for _, h in roles], chain[0], chain[-1], []
        start = min(made[first.result], made.get(first.cell, made[first.result]))
        if len(chain) == 1:
            found = self._single(new, xs[0], first)
        else:
            found = self._entries(new, xs, first.result)
        given = [hs[0], *([first.c] if first.cell else [])]
        if found is None or any(made.get(v.name, -1) >= start for v in (*given, *xs)):
            return None
        sequence, backwards = found
        B = self.specs[sequence].shape[1]
        states = [self.shaped(new, f"{first.result}.{k}", self.value(new, v), (1, B, v.width)) for k, v in enumerate(given)]
        if None in states:
            return None
        y, *ends = self.layer(new, last, xs[-1], hs[-1], sequence, states, backwards)
        flat = self.node(new, "Squeeze", f"{first.result}.flat", (y, self.whole(f"{y}.axes", 1)))[0]
        for k, step in enumerate(chain):
            at = self.weight(f"{step.result}.at", np.array(len(chain) - 1 - k if backwards else k))
            whole = self.node(new, "Gather", f"{step.result}.entry", (flat, at), axis=0)[0]
            new.append(Node("Identity", f"{step.result}.state", (self.shaped(new, step.result, whole, self.specs[step.result].shape),), (step.result,)))
        if last.cell:
            new.append(Node("Identity", f"{last.cell}.state", (self.shaped(new, last.cell, ends[1], self.specs[last.cell].shape),), (last.cell,)))
        return new

    def _all_roles(self, chain: list[CellStep]) -> list[tuple[Vector, Vector]] | None:
        """(x, h) of each step."""
        if len(chain) == 1:
            step = chain[0]
            size, inputs = self.specs[step.result].shape[-1], self.model.input_names
            # an LSTM's x and h play one part in it: of two that fit, either may be h
            hs = sorted((v for v in step.vectors if step.h == v or step.h is None and v.width == size),
                        key=lambda v: (v.name in self.weights, v.name not in inputs, v.name))
            xs = step.vectors - set(hs[:1])
            fixed = {v.name for v in (*hs[:1], step.c) if v is not None} & set(self.weights)
            return [(xs.pop(), hs[0])] if hs and len(xs) == 1 and not fixed else None
        roles = [self._roles(step, before.result) for before, step in pairwise(chain)]
        first = self._roles_as(chain[0], chain[1], *roles[0])
        return None if first is None or any(x is None for x, _ in roles) else [first, *roles]

    def _entries(self, new: list[Node], xs: list[Vector], name: str) -> tuple[str, bool] | None:
        """One value that the steps take entry after entry of, time first, cut to what they take, and whether from its end."""
        places = [x.index for x in xs]
        if len({(x.name, x.axis) for x in xs}) != 1 or not all(isinstance(p, int) for p in places):
            return None
        step = places[1] - places[0]
        if abs(step) != 1 or any(b - a != step for a, b in pairwise(places)):
            return None
        low, high = min(places), max(places) + 1
        sequence = self.sequence(new, xs[0].name, xs[0].axis, name)
        if sequence is None:
            return None
        T = self.specs[sequence].shape[0]
        if T != high - low:
            bounds = [self.whole(f"{name}.axes", n) for n in (low, high, 0)]
            sequence = self.node(new, "Slice", f"{name}.steps", (sequence, *bounds))[0]
        return sequence, step < 0

    def _single(self, new: list[Node], x: Vector, step: CellStep) -> tuple[str, bool] | None:
        """One step's x as a sequence of one."""
        if x.index is not None:
            if not isinstance(x.index, int) or (sequence := self.sequence(new, x.name, x.axis, step.result)) is None:
                return None
            bounds = [self.whole(f"{step.result}.axes", n) for n in (x.index, x.index + 1, 0)]
            return self.node(new, "Slice", f"{step.result}.steps", (sequence, *bounds))[0], False
        shape = [d for d in self.specs[x.name].shape[:-1] if d != 1]
        if len(shape) > 1:
            return None
        sequence = self.shaped(new, step.result, x.name, (1, *(shape or [1]), x.width))
        return None if sequence is None else (sequence, False)
