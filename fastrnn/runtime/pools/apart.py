"""Which axis the streams of a step are, and whether a model keeps them apart.

A batch of a model is streams beside each other only if no op mixes its rows. That holds for what users stream, but a graph may take a mean over its batch, or
ask of the whole batch which branch to run. Three things are looked at, and one that is not as it should be is enough to step one row at a time:
ops that compute along the axis of rows, branches that data decide, and a few drawn streams, stepped together and alone: their bits find what moves
entries from row to row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastrnn.errors import FastRNNError, NotStreamableError
from fastrnn.model.graph import every_node
from fastrnn.model.ops import OPS
from fastrnn.model.ops.control import Repetition
from fastrnn.model.ops.registry import ANY_DIM
from fastrnn.model.recurrent import RECURRENT
from fastrnn.model.sizes import Size, evaluate
from fastrnn.plan.program import JumpStep, Program, Slot
from fastrnn.runtime.streams.forms import Form, Forms
from fastrnn.runtime.streams.stream import Stream

MOST_ROWS = 32  # for which programs are looked at
DRAWN_STEPS = 3
# Ops that move entries and compute nothing: if they mixed rows, the bits of drawn streams would.
MOVES = frozenset(("AsComplex", "AsReal", "Concat", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Require", "Shape", "Size",
                   "ConstantOfShape", "Range"))  # fmt: skip


@dataclass(frozen=True)
class Axes:
    """Where rows stand in each input and output of a step, and whether that axis is the pool's own: the model has none for them."""

    of: Mapping[str, int]
    added: frozenset[str]


def axes_of(forms: Forms, sizes: Mapping[str, int], values: Mapping[str, np.ndarray]) -> tuple[Axes, bool]:
    """Where rows stand in a step's inputs and outputs, and whether streams may share a call."""
    one = forms.of(1)
    if isinstance(one.steppable.batch, str):
        try:
            axes = _axes_by_size(forms, sizes, values)
            return axes, not (_computes_in_numpy(forms) or _mixes(forms, sizes, values) or _branches(forms, sizes, values)) and _rows_are_apart(
                forms, sizes, values, axes.of
            )
        except _Mixed:
            pass
    elif (one.steppable.batch or 1) != 1:
        raise NotStreamableError(f"the model's batch is fixed at {one.steppable.batch}; the streams of a pool are single rows")
    return _axes_alone(one, sizes, values), False


class _Mixed(Exception):
    """Something else than one axis follows the batch."""


def _program(form: Form, rows: int, sizes, values) -> tuple[Program, dict[str, int]]:
    sizes = {**sizes, form.steppable.batch: rows} if isinstance(form.steppable.batch, str) else dict(sizes)
    sizes |= {form.steppable.time: 1} if form.timed else {}
    return form.program(sizes, values, squeeze=True).program, sizes


def _axes_by_size(forms: Forms, sizes, values) -> Axes:
    """The axes that are as long as the batch, for every batch."""
    form = forms.of(MOST_ROWS)
    try:
        program, bound = _program(form, MOST_ROWS, sizes, values)
    except FastRNNError as error:
        raise _Mixed from error
    axes = {}
    states = {kept.input for kept in program.states}
    for slot in (*program.inputs, *program.outputs):
        if slot.name in states:
            continue
        shapes = [form.dims(slot.shape, bound | {form.steppable.batch: rows}) for rows in (MOST_ROWS, MOST_ROWS - 1)]
        moving = [k for k, pair in enumerate(zip(*shapes)) if pair[0] != pair[1]]
        if moving:
            if len(moving) > 1 or shapes[0][moving[0]] != MOST_ROWS:
                raise _Mixed
            axes[slot.name] = moving[0]
        elif slot in program.outputs:
            raise _Mixed
    return Axes(axes, frozenset())


def _axes_alone(form: Form, sizes, values) -> Axes:
    """Streams one by one: rows stand in the batch's place where a step has one, else in front."""
    program, bound = _program(form, 1, sizes, values)
    axes, added, states = {}, set(), {kept.input for kept in program.states}
    declared = {v.name: [d for k, d in enumerate(v.shape) if k != form.steppable.time_axes.get(v.name)] for v in form.plan.model.inputs}
    for slot in (*program.inputs, *program.outputs):
        if slot.name in states or slot.value is not None:
            continue
        shape, symbol = form.dims(slot.shape, bound), form.steppable.batch
        if isinstance(symbol, str) and symbol in declared.get(slot.name, ()):
            axes[slot.name] = declared[slot.name].index(symbol)
        elif isinstance(symbol, str) and slot in program.inputs:
            continue
        else:
            axes[slot.name] = 0
            if not shape or shape[0] != 1:
                added.add(slot.name)
    return Axes(axes, frozenset(added))


def _computes_in_numpy(forms: Forms) -> bool:
    """Whether products are NumPy's, whose bits depend on how many rows there are."""
    return forms.plan.backend == "reference"


def _mixes(forms: Forms, sizes, values) -> bool:
    """Whether an op computes along an axis that grows with the batch, or may."""
    form = forms.of(MOST_ROWS)
    bound = {**sizes, form.steppable.batch: MOST_ROWS} | ({form.steppable.time: 4} if form.timed else {})
    model, symbol = form.nodes(bound, values), form.steppable.batch

    def grows(dim) -> bool:
        return isinstance(dim, Size) and evaluate(dim, bound) != evaluate(dim, bound | {symbol: MOST_ROWS - 1})

    for node, _ in every_node(model.nodes):
        specs = [model.specs.get(name) if name else None for name in node.inputs]
        if node.op in MOVES or node.subgraphs:
            continue
        places = [[k for k, d in enumerate(spec.shape) if grows(d)] if spec is not None and spec.shape is not None else [] for spec in specs]
        if any(len(found) > 1 for found in places):
            return True
        axes = [found[0] if found else None for found in places]
        if axes.count(None) == len(axes):
            continue
        if node.op in RECURRENT:
            if axes[0] is not None and axes[0] != 1 - node.get("layout"):
                return True
        elif node.op == "ConvTranspose":
            if axes != [0, *[None] * (len(axes) - 1)]:
                return True
        elif OPS[node.op].apart is None or not OPS[node.op].apart(node, specs, axes):
            return True
    return False


def _branches(forms: Forms, sizes, values) -> bool:
    """Whether data decide what runs, for all rows at once."""
    form = forms.of(MOST_ROWS)
    program, _ = _program(form, MOST_ROWS, sizes, values)
    nodes = {node.name: node for node, _ in every_node(form.model.nodes)}
    for step in program.steps:
        if isinstance(step, JumpStep) and step.condition is not None:
            node = nodes.get(step.node)
            loop = Repetition(node) if node is not None and node.op in ("Loop", "Scan") else None
            if loop is None or not loop.unconditional(form.model.specs) or loop.count(form.model.specs) == ANY_DIM:
                return True
    return False


def _rows_are_apart(forms: Forms, sizes, values, axes: Mapping[str, int]) -> bool:
    """Whether a few drawn streams give the same bits together and alone."""
    rng, rows = np.random.default_rng(0), 3
    together, alone = Stream(forms, rows), [Stream(forms, 1) for _ in range(rows)]
    form = forms.of(rows)
    program, bound = _program(form, rows, sizes, values)
    for _ in range(DRAWN_STEPS):
        x = {v.name: values.get(v.name) for v in form.steppable.inputs}
        for slot in program.inputs:
            if x.get(slot.name, 0) is None:
                x[slot.name] = _drawn(rng, slot, form.dims(slot.shape, bound))
        for v in form.steppable.inputs:
            if x[v.name] is None:  # nothing reads it
                x[v.name] = np.zeros(form.dims(form.steppable.step_shape(v), bound), v.dtype)
        try:
            y = together.step(x)
            each = [
                stream.step({name: a if name not in axes else a.take([r], axes[name]) for name, a in x.items()}) for r, stream in enumerate(alone)
            ]
        except FastRNNError:  # drawn integers that are no indices of something inside
            return False
        outputs = y if isinstance(y, tuple) else (y,)
        for k, name in enumerate(form.steppable.outputs):
            for r in range(rows):
                theirs = each[r][k] if isinstance(y, tuple) else each[r]
                if outputs[k].take([r], axes[name]).tobytes() != theirs.tobytes():
                    return False
    states, layout = together.state, form.start(together._sizes_at_start())[0]
    for name, state in states.items():
        axis = layout.batch_axes[name]
        if axis is None or any(state.take([r], axis).tobytes() != stream.state[name].tobytes() for r, stream in enumerate(alone)):
            return False
    return True


def _drawn(rng: np.random.Generator, slot: Slot, shape: tuple[int, ...]) -> np.ndarray:
    """Values that an input may have."""
    if slot.dtype.kind in "fc":
        return (rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if slot.dtype.kind == "c" else 0)).astype(slot.dtype)
    if slot.dtype.kind == "b":
        return rng.random(shape) < 0.5
    low, high = (slot.low, slot.high) if slot.low is not None else (0, 1)
    return rng.integers(int(low), int(high), shape, slot.dtype, endpoint=True)
