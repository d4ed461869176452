"""A Loop or a Scan over one cell becomes a recurrent layer. One that also computes something else, or hands on more than the layer's states, stays."""

from __future__ import annotations

import numpy as np

from fastrnn.model import Node
from fastrnn.model.ops import ANY_DIM
from fastrnn.model.ops.control import Repetition
from fastrnn.plan.graph.algebra import Vector
from fastrnn.plan.graph.cell_steps import CellStep, step_of_rnn
from fastrnn.plan.graph.fold import REPEATING
from fastrnn.plan.graph.placing import Layers
from fastrnn.plan.graph.reading import RUN, Reading


def loops(layers: Layers, nodes: list[Node], reading: Reading) -> list[Node] | None:
    """The nodes with every Loop and Scan that is one layer replaced; None where there is none."""
    result, any_found = [], False
    for node in nodes:
        new = _loop(layers, node, reading) if node.op in REPEATING else None
        result += new or [node]
        any_found |= bool(new)
    return result if any_found else None


def _loop(layers: Layers, node: Node, outer: Reading) -> list[Node] | None:
    """A Loop or Scan whose body is one cell, as a layer."""
    loop = Repetition(node)
    forms = dict(outer.forms)
    for t in loop.taken:
        inside = outer.entry(t.source, t.axis % len(layers.specs[t.source].shape), RUN) if outer.plain(t.source) else None
        if inside is None:
            return None
        forms[t.entry] = inside
    inner = Reading(layers.weights, layers.specs, forms, loop.counter).read(loop.body.nodes)
    after = {c.before: _name_behind(inner, c.after) for c in loop.carried}
    for c in loop.carried:
        step = inner.steps.get(after[c.before]) or _rnn(layers, inner, c)
        h = Vector(c.before, layers.specs[c.before].shape[-1]) if step and layers.specs[c.before].shape else None
        if step is None or step.h not in (None, h) or h not in step.vectors | {step.h}:
            continue
        cell = next((d for d in loop.carried if step.cell and after[d.before] == step.cell and step.c == Vector(d.before, h.width)), None)
        if bool(step.cell) != bool(cell) or {d.result for d in loop.carried if d not in (c, cell)} - {""}:
            continue
        xs = step.vectors - {h}
        if len(xs) != 1 or next(iter(xs)).index != RUN:
            continue
        return _instead(layers, loop, step, xs.pop(), h, [c, *([cell] if cell else [])], inner)
    return None


def _name_behind(reading: Reading, name: str) -> str:
    """The new state that a value is, or its own name."""
    form = reading.forms.get(name)
    vector = form.vector if form is not None else None
    return vector.name if vector is not None and vector.index is None else name


def _rnn(layers: Layers, reading: Reading, carried) -> CellStep | None:
    form = reading.forms.get(carried.after)
    shape = layers.specs[carried.before].shape
    return step_of_rnn(form, carried.after, Vector(carried.before, shape[-1])) if form is not None and shape else None


def _instead(layers: Layers, loop: Repetition, step: CellStep, x: Vector, h: Vector, carried: list, reading: Reading) -> list[Node] | None:
    """The layer, and what the loop's results are made of."""
    name, nodes = loop.node.name, []
    backwards = {t.backwards for t in loop.taken if _reads(reading, t, x)} if loop.scan else {False}
    T = layers.specs[x.name].shape[x.axis]
    if (
        len(backwards) != 1
        or loop.count(layers.specs) != T
        or T == ANY_DIM
        or any(
            s.result and _name_behind(reading, s.part) != step.result and reading.forms.get(s.part) != reading.forms.get(step.result)
            for s in loop.stacked
        )
    ):
        return None
    backwards = backwards.pop()
    sequence = layers.sequence(nodes, x.name, x.axis, name)
    if sequence is None:
        return None
    B = layers.specs[sequence].shape[1]
    states = [layers.shaped(nodes, c.first, c.first, (1, B, h.width)) for c in carried]
    if None in states:
        return None
    y, *ends = layers.layer(nodes, step, x, h, sequence, states, backwards)
    for c, end in zip(carried, ends):
        if c.result:
            last = layers.shaped(nodes, c.result, end, layers.specs[c.result].shape)
            nodes.append(Node("Identity", f"{c.result}.last", (last,), (c.result,)))
    for s in loop.stacked:
        if s.result:
            _stack(layers, nodes, s, y, backwards)
    return nodes


def _reads(reading: Reading, taken, x: Vector) -> bool:
    return any(v == x for v in reading.forms[taken.entry].vectors)


def _stack(layers: Layers, nodes: list[Node], stacked, y: str, backwards: bool) -> None:
    """Y (T, 1, B, H) as the loop's result: time at its axis, in its order."""
    part = layers.specs[stacked.part].shape
    axis = stacked.axis % (len(part) + 1)
    flat = layers.node(nodes, "Squeeze", f"{stacked.result}.flat", (y, layers.whole(f"{stacked.result}.axes", 1)))[0]
    if stacked.backwards != backwards:
        bounds = [layers.whole(f"{stacked.result}.axes", n) for n in (-1, np.iinfo(np.int64).min, 0, -1)]
        flat = layers.node(nodes, "Slice", f"{stacked.result}.turned", (flat, *bounds))[0]
    new = [k + 1 for k, d in enumerate(part) if d == 1][: max(0, len(part) - 2)]
    if new:
        flat = layers.node(nodes, "Unsqueeze", f"{stacked.result}.shaped", (flat, layers.whole(f"{stacked.result}.axes", *new)))[0]
    order = [*range(1, axis + 1), 0, *range(axis + 1, len(part) + 1)]
    nodes.append(Node("Transpose", f"{stacked.result}.stacked", (flat,), (stacked.result,), {"perm": tuple(order)}))
