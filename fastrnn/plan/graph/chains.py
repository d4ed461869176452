"""Cells one after another with equal weights become one recurrent layer; a single cell becomes one of a single step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np

from fastrnn.model import Node
from fastrnn.plan.graph.algebra import Form, Vector, mapped
from fastrnn.plan.graph.cell_steps import CellStep, step_of_rnn
from fastrnn.plan.graph.placing import Layers
from fastrnn.plan.graph.reading import Reading


def chains(layers: Layers, nodes: list[Node], reading: Reading, least: int) -> list[Node] | None:
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
            chain = _chain(layers, steps, steps[name], taken) if least > 1 else [steps[name]]
            taken |= {s.result for s in chain}
            chains.append(chain[::-1])
    places, dropped = {}, set()
    for chain in chains:
        if len(chain) < least:
            continue
        new = _unrolled(layers, chain, made)
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


def _chain(layers: Layers, steps: dict[str, CellStep], step: CellStep, taken: set[str]) -> list[CellStep]:
    """The step and those before it with the same weights, last first."""
    chain = [step]
    while True:
        step = chain[-1]
        before = [steps[v.name] for v in step.vectors | {step.h} if v is not None and v.index is None and v.name in steps]
        fit = [
            b
            for b in before
            if b.result not in taken
            and b.op == step.op
            and (step.h is None or step.h.name == b.result)
            and (not step.cell or step.c is not None and step.c.name == b.cell)
            and _alike(layers, step, b)
        ]
        if len(fit) != 1:
            return chain
        chain.append(fit[0])


def _alike(layers: Layers, step: CellStep, before: CellStep) -> bool:
    """Whether the step before has the same weights, its own state where this one has the new one."""
    x, h = _roles(step, before.result)
    return x is not None and _roles_as(layers, before, step, x, h) is not None


def _roles(step: CellStep, h_name: str) -> tuple[Vector | None, Vector | None]:
    h = [v for v in step.vectors if v.name == h_name and v.index is None]
    xs = step.vectors - set(h)
    return (xs.pop(), h[0]) if len(h) == 1 and len(xs) == 1 else (None, None)


def _roles_as(layers: Layers, step: CellStep, model: CellStep, x: Vector, h: Vector) -> tuple[Vector, Vector] | None:
    """x and h of a step that has the same weights as one whose x and h are known."""
    for mine in step.vectors:
        others = step.vectors - {mine}
        if len(others) == 1 and step.h in (None, mine) and mine.width == h.width:
            other = next(iter(others))
            if _signature(layers, step, other, mine) == _signature(layers, model, x, h):
                return other, mine
    return None


def _signature(layers: Layers, step: CellStep, x: Vector, h: Vector):
    """What two steps share if they have the same weights."""
    roles = {x: Vector("x", x.width), h: Vector("h", h.width), step.reset: Vector("r h", h.width)}
    forms = [*(step.gates[letter] for letter in sorted(step.gates)), *([step.recurrent] if step.recurrent else [])]
    return (step.op, step.activations, step.negated, sorted(step.gates), step.reset is None, step.recurrent is None,
            tuple(_by_content(layers, mapped(form, roles.get)) for form in forms))  # fmt: skip


def _by_content(layers: Layers, form: Form) -> tuple:
    # counted: what stands twice under two names counts twice
    parts = Counter((p.vector, layers.digest(p.weight), p.turned, p.rows, p.cols, scale) for p, scale in form.parts)
    biases = Counter((layers.digest(name), cols, scale) for (name, cols), scale in form.biases)
    return frozenset(parts.items()), frozenset(biases.items()), form.products


def _unrolled(layers: Layers, chain: list[CellStep], made) -> list[Node] | None:
    """The layer in place of steps in order, and their new states out of its outputs; None where they are none.

    What a cell holds between two steps the layer does not give: where something else reads it, the nodes that make it stay.
    """
    roles = _all_roles(layers, chain)
    if roles is None:
        return None
    xs, hs, first, last, new = [x for x, _ in roles], [h for _, h in roles], chain[0], chain[-1], []
    start = min(made[first.result], made.get(first.cell, made[first.result]))
    if len(chain) == 1:
        found = _single(layers, new, xs[0], first)
    else:
        found = _entries(layers, new, xs, first.result)
    given = [hs[0], *([first.c] if first.cell else [])]
    if found is None or any(made.get(v.name, -1) >= start for v in (*given, *xs)):
        return None
    sequence, backwards = found
    B = layers.specs[sequence].shape[1]
    states = [layers.shaped(new, f"{first.result}.{k}", layers.value(new, v), (1, B, v.width)) for k, v in enumerate(given)]
    if None in states:
        return None
    y, *ends = layers.layer(new, last, xs[-1], hs[-1], sequence, states, backwards)
    flat = layers.node(new, "Squeeze", f"{first.result}.flat", (y, layers.whole(f"{y}.axes", 1)))[0]
    for k, step in enumerate(chain):
        at = layers.weight(f"{step.result}.at", np.array(len(chain) - 1 - k if backwards else k))
        whole = layers.node(new, "Gather", f"{step.result}.entry", (flat, at), axis=0)[0]
        new.append(
            Node("Identity", f"{step.result}.state", (layers.shaped(new, step.result, whole, layers.specs[step.result].shape),), (step.result,))
        )
    if last.cell:
        new.append(Node("Identity", f"{last.cell}.state", (layers.shaped(new, last.cell, ends[1], layers.specs[last.cell].shape),), (last.cell,)))
    return new


def _all_roles(layers: Layers, chain: list[CellStep]) -> list[tuple[Vector, Vector]] | None:
    """(x, h) of each step."""
    if len(chain) == 1:
        step = chain[0]
        size, inputs = layers.specs[step.result].shape[-1], layers.model.input_names
        # an LSTM's x and h play one part in it: of two that fit, either may be h
        hs = sorted(
            (v for v in step.vectors if step.h == v or step.h is None and v.width == size),
            key=lambda v: (v.name in layers.weights, v.name not in inputs, v.name),
        )
        xs = step.vectors - set(hs[:1])
        fixed = {v.name for v in (*hs[:1], step.c) if v is not None} & set(layers.weights)
        return [(xs.pop(), hs[0])] if hs and len(xs) == 1 and not fixed else None
    roles = [_roles(step, before.result) for before, step in pairwise(chain)]
    first = _roles_as(layers, chain[0], chain[1], *roles[0])
    return None if first is None or any(x is None for x, _ in roles) else [first, *roles]


def _entries(layers: Layers, new: list[Node], xs: list[Vector], name: str) -> tuple[str, bool] | None:
    """One value that the steps take entry after entry of, time first, cut to what they take, and whether from its end."""
    places = [x.index for x in xs]
    if len({(x.name, x.axis) for x in xs}) != 1 or not all(isinstance(p, int) for p in places):
        return None
    step = places[1] - places[0]
    if abs(step) != 1 or any(b - a != step for a, b in pairwise(places)):
        return None
    low, high = min(places), max(places) + 1
    sequence = layers.sequence(new, xs[0].name, xs[0].axis, name)
    if sequence is None:
        return None
    T = layers.specs[sequence].shape[0]
    if T != high - low:
        bounds = [layers.whole(f"{name}.axes", n) for n in (low, high, 0)]
        sequence = layers.node(new, "Slice", f"{name}.steps", (sequence, *bounds))[0]
    return sequence, step < 0


def _single(layers: Layers, new: list[Node], x: Vector, step: CellStep) -> tuple[str, bool] | None:
    """One step's x as a sequence of one."""
    if x.index is not None:
        if not isinstance(x.index, int) or (sequence := layers.sequence(new, x.name, x.axis, step.result)) is None:
            return None
        bounds = [layers.whole(f"{step.result}.axes", n) for n in (x.index, x.index + 1, 0)]
        return layers.node(new, "Slice", f"{step.result}.steps", (sequence, *bounds))[0], False
    shape = [d for d in layers.specs[x.name].shape[:-1] if d != 1]
    if len(shape) > 1:
        return None
    sequence = layers.shaped(new, step.result, x.name, (1, *(shape or [1]), x.width))
    return None if sequence is None else (sequence, False)
