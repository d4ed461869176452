"""What a model needs to run one step at a time: its states as inputs and outputs, and which axis is time.

Two kinds of model step. One with a time axis takes a chunk of steps: its recurrent layers keep states, causal convolutions their
history, and both are exposed where the graph keeps them inside (timeline.py). One that exposes its states as inputs and outputs and
has no time axis takes a call a step. Time is followed by its symbol: the model is folded with the batch as a number, and the length
of its recurrent layers stays a symbol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.errors import FastRNNError, NotStreamableError
from fastrnn.model import Model, Node, Value
from fastrnn.model.edit import changed
from fastrnn.model.graph import every_node
from fastrnn.model.ops import ANY_DIM, OPS
from fastrnn.model.recurrent import RECURRENT, states_of
from fastrnn.model.sizes import Scope, Size, Whole, same
from fastrnn.model.small import BYTES_OF_ALL, BYTES_OF_ROW
from fastrnn.plan.streams import lookback  # noqa: F401  (ops that can be stepped though they mix steps)
from fastrnn.plan.streams.flow import check_ties
from fastrnn.plan.streams.timeline import Prefix, Timeline
from fastrnn.plan.streams.timeline import refuse as _refuse

if TYPE_CHECKING:
    from fastrnn.plan.planner import Plan

# Ops that make an axis one of time where nothing else says so, if they mix its places.
LOOKING = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "CumSum", "Pad", "Concat", "Slice")


@dataclass(frozen=True)
class Steppable:
    """A model with all states exposed. time_axes: where time stands in inputs and outputs, empty where a step is a call.

    initial: first value of a state, or what computes it; zeros where absent. batch, time: those dimensions of the plan's model,
    symbols where free. batch_axes: the batch's place in states that are histories, None where its rows are not apart. The batch in `model` is
    a number or a Size.
    """

    model: Model
    time_axes: dict[str, int]
    initial: dict[str, np.ndarray | Model | Prefix]
    batch: str | int | None
    time: str | None
    batch_axes: dict[str, int | None]

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Inputs that a step takes: neither states nor optional."""
        states = {s.input for s in self.model.states}
        return tuple(v for v in self.model.inputs if v.name not in states and not v.optional)

    def step_shape(self, value: Value) -> tuple[Whole | str, ...]:
        """The shape of an input in a step: without its time axis."""
        axis = self.time_axes.get(value.name)
        return tuple(d for k, d in enumerate(value.shape) if k != axis)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs that a step returns."""
        states = {s.output for s in self.model.states}
        return tuple(name for name in self.model.output_names if name not in states)


def steppable(plan: Plan, batch: int, scope: Scope | None = None) -> Steppable:
    """The steppable form of a plan's model; raises NotStreamableError naming the node that stands in the way. With a scope, the batch is one of its
    dimensions, and the form holds for all that its guards allow."""
    symbol = batch_symbol(plan.model)
    size = batch if scope is None or symbol is None else scope.dimension(symbol, batch)
    model = _folded(plan, {symbol: size})
    line, exposed = _along_time(model)
    if line is None:
        if not any(isinstance(d, str) for v in model.inputs for d in v.shape):
            check_calls(model)
        return Steppable(_rows_apart(plan, plan.model), {}, {}, symbol or _batch_of_calls(plan.model), None, {})
    axes = {name: line.tracks[name].axis for name in (*exposed.input_names, *exposed.output_names) if name in line.tracks}
    fixed = symbol or _fixed_batch(model, line)
    form = Steppable(exposed, axes, line.initial, fixed, line.time, _batch_axes(plan, line, fixed, size) if line.histories else {})
    _check_ends(model, form)
    if plan.model.states:  # entry by entry, so for a number
        check_ties(model if not isinstance(size, Size) else _folded(plan, {symbol: 2}), plan.model.states, line.tracks)
    return form


def _folded(plan: Plan, sizes) -> Model:
    """The plan's model where dimensions have these sizes, optional inputs left out but for states."""
    states = {s.input for s in plan.model.states}
    given = [v for v in plan.model.inputs if not v.optional or v.name in states]
    return _rows_apart(plan, plan.specialised({v.name: tuple(sizes.get(d, d) for d in v.shape) for v in given}))


def _rows_apart(plan: Plan, model: Model) -> Model:
    """The model, made from the plan's, in which each row is rounded to bytes by itself, where a call of the whole rounds them together (model/small.py). Steps of layers are,
    too; of DynamicQuantizeLinear, lookback.py sees to them."""
    symbol = batch_symbol(plan.model)

    def apart(node: Node) -> Node:
        if node.op in RECURRENT and node.attributes.get("x_bits") == BYTES_OF_ALL:
            return replace(node, attributes={**node.attributes, "x_bits": BYTES_OF_ROW})
        spec = plan.model.specs.get(node.inputs[0]) if node.op == "DynamicQuantizeLinear" and not node.get("axes") else None
        if spec is None or spec.shape is None or symbol is None or symbol not in spec.shape:
            return node  # one row, or a mixture of them
        return replace(node, attributes={**node.attributes, "axes": (spec.shape.index(symbol),)})

    nodes = tuple(map(apart, model.nodes))
    return model if nodes == model.nodes else changed(model, nodes=nodes)


def _batch_of_calls(model: Model) -> int | None:
    """The batch of a model whose step is a call and whose sizes are all numbers: the first recurrent layer's, unless other axes are folded into that, which the input tells."""
    states = {s.input for s in model.states}
    value = next((v for v in model.inputs if v.name not in states and len(v.shape) > 1), None)
    node = next((node for node, _ in _lengths(model)), None)
    if value is None or node is None:
        return None
    found, first = model.specs[node.input(0)].shape[1 - node.get("layout")], value.shape[0]
    if not isinstance(found, int) or found == ANY_DIM:
        return None
    if value.name == node.input(0):
        return found
    return first if isinstance(first, int) and first and found % first == 0 else None


def _fixed_batch(model: Model, line: Timeline) -> int:
    """The batch of a model without a symbol for it: the layers', unless other axes are folded into that, which the input tells."""
    found = next((n for n in _batches(model) if n != ANY_DIM), 1)
    value = next(v for v in model.inputs if v.name in line.tracks)
    first = value.shape[1 if line.tracks[value.name].axis == 0 else 0] if len(value.shape) > 2 else found
    return first if isinstance(first, int) and first and isinstance(found, int) and found % first == 0 else found


def _along_time(model: Model) -> tuple[Timeline, Model] | tuple[None, None]:
    """The walk along the time axis and the model that it gives; nothing where a step is a call of the whole graph.

    Time is the length of the first recurrent layer that has one of the inputs' symbols; else the only symbol that is left, if a layer's length
    is computed or an op looks along it. A model with states outside may as well take a frame a call, such as samples that it turns into
    a step itself: that is so where it cannot be walked.
    """
    free = {d for v in model.inputs for d in v.shape if isinstance(d, str)}
    lengths = _lengths(model)
    for _, dim in lengths:
        if dim in free:
            return _walked(model, dim)
    computed = [n for n, dim in lengths if dim == ANY_DIM and n in model.nodes]
    if not free or not computed and (model.states or not any(_looks_aside(node, model, free) for node in model.nodes)):
        return None, None
    if len(free) > 1 and not model.states:
        which = f"which of {', '.join(sorted(free))} is time is not known"
        raise _refuse(computed[0], which) if computed else NotStreamableError(f"{which}: no recurrent layer says so")
    states, time = {s.input for s in model.states}, min(free)
    if states and (len(free) > 1 or any(time not in v.shape for v in model.inputs if v.name not in states)):
        return None, None
    try:
        return _walked(model, time)
    except NotStreamableError:
        if not model.states:
            raise
        return None, None


def _walked(model: Model, time: str) -> tuple[Timeline, Model]:
    for value in model.inputs:
        if value.shape.count(time) > 1:
            raise NotStreamableError(f"input {value.name!r} has its time dimension {time!r} twice")
    line = Timeline(model, time)
    return line, line.run()


def _looks_aside(node: Node, model: Model, free: set[str]) -> bool:
    """Whether a convolution, a delay or the like mixes places of an axis whose length is one of these symbols."""
    specs = [model.specs.get(name) if name else None for name in node.inputs]
    if node.op not in LOOKING or any(s is not None and s.shape is None for s in specs):
        return False
    places = [[s.shape.index(dim) if s is not None and dim in s.shape else None for s in specs] for dim in free]
    apart = OPS[node.op].apart
    return any(axes.count(None) < len(axes) and (apart is None or not apart(node, specs, axes)) for axes in places)


def _batch_axes(plan: Plan, line: Timeline, symbol: str | int, batch: Whole) -> dict[str, int | None]:
    """Which axis of each history is the batch: the one that grows with it; None where rows of a batch are not apart."""
    if not isinstance(symbol, str):
        return {name: 0 if line.specs[name].shape[0] == symbol else None for name in line.histories}
    if isinstance(batch, Size):
        grown = {name: [k for k, d in enumerate(line.specs[name].shape) if isinstance(d, Size)] for name in line.histories}
        return {name: axes[0] if len(axes) == 1 and same(line.specs[name].shape[axes[0]], batch) else None for name, axes in grown.items()}
    try:
        other = Timeline(_folded(plan, {symbol: batch + 1}), line.time)
        other.run()
    except FastRNNError:  # what fits this batch alone
        return dict.fromkeys(line.histories)
    result = {}
    for name in line.histories:
        mine, theirs = line.specs[name].shape, other.specs[name].shape
        grown = [k for k, (a, b) in enumerate(zip(mine, theirs)) if a != b]
        result[name] = grown[0] if len(grown) == 1 and (mine[grown[0]], theirs[grown[0]]) == (batch, batch + 1) else None
    return result


def _lengths(model: Model) -> list[tuple[Node, int | str]]:
    """Recurrent nodes, those in subgraphs too, with the number of their time steps where its symbol is known."""
    found = []
    for node, _ in every_node(model.nodes):
        spec = model.specs.get(node.input(0)) if node.op in RECURRENT else None
        if spec is not None and spec.shape is not None:
            found.append((node, spec.shape[node.get("layout")]))
    return found


def batch_symbol(model: Model) -> str | None:
    """The dimension that is the batch: the one that states have, else the recurrent layers', else the convolutions', else the first symbol of
    the inputs."""
    states = {s.input for s in model.states}
    for value in model.inputs:
        if value.name in states:
            for dim in value.shape:
                if isinstance(dim, str):
                    return dim
    lengths = {dim for _, dim in _lengths(model)}
    for dim in _batches(model):
        if dim != ANY_DIM and not (isinstance(dim, str) and dim in lengths):  # a layer within each step has the steps for rows
            return dim if isinstance(dim, str) else None
    return next((d for v in model.inputs for d in v.shape if isinstance(d, str)), None)


def _batches(model: Model) -> Iterator[int | str]:
    """Dimensions that recurrent layers, then convolutions, have their batch in."""
    for node, _ in _lengths(model):
        yield model.specs[node.input(0)].shape[1 - node.get("layout")]
    for node, _ in every_node(model.nodes):
        spec = model.specs.get(node.inputs[0]) if node.op == "Conv" else None
        if spec is not None and spec.shape is not None:
            yield spec.shape[0]


def time_symbol(model: Model) -> str | None:
    """The dimension of the inputs that is the recurrent layers' length; None where no symbol is."""
    free = {d for v in model.inputs for d in v.shape if isinstance(d, str)}
    return next((dim for _, dim in _lengths(model) if dim in free), None)


def check_calls(model: Model) -> None:
    """Raises unless every layer that runs one step takes all its states from inputs. One that runs along another axis than time, in a
    model with states, may start afresh at each step."""
    inputs, producer = set(model.input_names), _producers(model)
    for node, length in _lengths(model):
        if length != 1:
            if not model.states:
                raise _refuse(node, f"its time dimension is fixed at {length}")
            continue
        for state in states_of(node):
            if not _comes_from(producer, node.input(state.input), inputs):
                raise _refuse(node, "its state is neither an input of the model nor kept along a time axis")


def _comes_from(producer: dict[str, Node], name: str, names: set[str]) -> bool:
    """Whether a value is computed from one of these."""
    seen, todo = set(), [name]
    while todo:
        name = todo.pop()
        if name in names:
            return True
        if name in producer and name not in seen:
            seen.add(name)
            todo += producer[name].reads()
    return False


def _check_ends(model: Model, form: Steppable) -> None:
    axes, tied = form.time_axes, {s.output for s in model.states}
    for state in model.states:
        if state.input in axes or state.output in axes:
            raise NotStreamableError(f"state {state.input!r} <- {state.output!r} has a time axis; a state holds one step")
    for value in form.inputs:
        if value.name not in axes:
            raise NotStreamableError(f"input {value.name!r} has no time axis and is not a state; tie it with states= or fix it with constants=")
    for name in model.output_names:
        if name not in axes and name not in tied:
            node = next((n for n in model.nodes if name in n.outputs), None)
            why = f"output {name!r} has no time axis and feeds no state"
            raise _refuse(node, why) if node else NotStreamableError(why)


def _producers(model: Model) -> dict[str, Node]:
    """The node that makes each value, in subgraphs too."""
    return {name: node for node, _ in every_node(model.nodes) for name in node.outputs if name}
