"""What a model needs to run one step at a time: its states as inputs and outputs, and which axis is time.

Two kinds of model step. One with a time axis takes a chunk of steps, and its recurrent layers keep states that are exposed
here where the graph keeps them inside. One that exposes its states as inputs and outputs and has no time axis takes a call a step.
Time is followed by its symbol: the model is folded with the batch as a number, and the length of its recurrent layers stays a symbol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastrnn.errors import NotStreamableError
from fastrnn.model import Model, Node, State, Value
from fastrnn.model.graph import every_node
from fastrnn.model.ops import ANY_DIM, OPS
from fastrnn.model.recurrent import RECURRENT
from fastrnn.plan.planner import Plan
from fastrnn.plan.views import VIEWS


@dataclass(frozen=True)
class Steppable:
    """A model with all states exposed. time_axes: where time stands in inputs and outputs, empty where a step is a call.

    initial: first value of a state, zeros where absent. batch, time: those dimensions of the plan's model, symbols where free.
    """

    model: Model
    time_axes: dict[str, int]
    initial: dict[str, np.ndarray]
    batch: str | int | None
    time: str | None

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Inputs that a step takes: neither states nor optional."""
        states = {s.input for s in self.model.states}
        return tuple(v for v in self.model.inputs if v.name not in states and not v.optional)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs that a step returns."""
        states = {s.output for s in self.model.states}
        return tuple(name for name in self.model.output_names if name not in states)


def _refuse(node: Node, why: str) -> NotStreamableError:
    return NotStreamableError(f"node {node.name!r} ({node.op}): {why}")


def steppable(plan: Plan, batch: int) -> Steppable:
    """The steppable form of a plan's model for one batch size; raises NotStreamableError naming the node that stands in the way."""
    symbol = batch_symbol(plan.model)
    states = {s.input for s in plan.model.states}
    given = [v for v in plan.model.inputs if not v.optional or v.name in states]
    model = plan.specialised({v.name: tuple(batch if d == symbol else d for d in v.shape) for v in given})
    free = {d for v in model.inputs for d in v.shape if isinstance(d, str)}
    timed = [(n, dim) for n, dim in _lengths(model) if dim in free or dim == ANY_DIM and n in model.nodes and not states]
    if not timed:
        if not free:
            check_calls(model)
        return Steppable(plan.model, {}, {}, symbol, None)
    first, time = timed[0]
    if time == ANY_DIM:
        raise _refuse(first, "the number of its time steps is computed")
    _check_time(model, time)
    exposed, initial = _expose_states(model)
    axes = {name: spec.shape.index(time) for name, spec in exposed.specs.items() if spec.shape is not None and time in spec.shape}
    form = Steppable(exposed, axes, initial, symbol or model.specs[first.input(0)].shape[1 - first.get("layout")], time)
    _check_ends(model, form)
    return form


def _lengths(model: Model) -> list[tuple[Node, int | str]]:
    """Recurrent nodes, those in subgraphs too, with the number of their time steps where its symbol is known."""
    found = []
    for node, _ in every_node(model.nodes):
        spec = model.specs.get(node.input(0)) if node.op in RECURRENT else None
        if spec is not None and spec.shape is not None:
            found.append((node, spec.shape[node.get("layout")]))
    return found


def batch_symbol(model: Model) -> str | None:
    """The dimension that is the batch: the one that states have, else the recurrent layers', else the first symbol of the inputs."""
    states = {s.input for s in model.states}
    for value in model.inputs:
        if value.name in states:
            for dim in value.shape:
                if isinstance(dim, str):
                    return dim
    for node, _ in _lengths(model):
        dim = model.specs[node.input(0)].shape[1 - node.get("layout")]
        if dim != ANY_DIM:
            return dim if isinstance(dim, str) else None
    return next((d for v in model.inputs for d in v.shape if isinstance(d, str)), None)


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
        for name in (node.input(5), node.input(6))[:2 if node.op == "LSTM" else 1]:
            if not _comes_from(producer, name, inputs):
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


def _check_time(model: Model, time: str) -> None:
    """Raises where an op mixes time steps, or lets time disappear."""
    for node in model.nodes:
        specs = [model.specs.get(name) if name else None for name in node.inputs]
        axes = [None if s is None or s.shape is None or time not in s.shape else s.shape.index(time) for s in specs]
        if node.subgraphs and any(time in (model.specs[name].shape or ()) for name in node.reads() if name in model.specs):
            raise _refuse(node, "whether it mixes time steps is not known before it runs")
        if all(axis is None for axis in axes):
            continue
        if node.op in RECURRENT:
            if axes[0] != node.get("layout") or any(axis is not None for axis in axes[1:]):
                raise _refuse(node, "time is not its time axis")
            if node.get("direction") != "forward":
                raise _refuse(node, f"direction={node.get('direction')!r} needs the whole sequence")
            if node.input(4):
                raise _refuse(node, "it takes sequence_lens")
            continue
        results = [model.specs.get(name) for name in node.outputs if name]
        apart = OPS[node.op].apart
        kept = all(r is not None and r.shape is not None and r.shape.count(time) == 1 for r in results)
        if apart is None or not kept or not apart(node, specs, axes):
            raise _refuse(node, "it mixes time steps, or moves the time axis")


def _check_ends(model: Model, form: Steppable) -> None:
    axes, tied = form.time_axes, {s.output for s in model.states}
    for value in form.model.inputs:
        if value.shape.count(form.time) > 1:
            raise NotStreamableError(f"input {value.name!r} has its time dimension {form.time!r} twice")
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


def _source(producer: dict[str, Node], name: str, is_end: Callable[[str], bool]) -> str:
    """The value that `name` is a view of."""
    while not is_end(name) and name in producer and producer[name].op in VIEWS:
        name = producer[name].inputs[0]
    return name


def _expose_states(model: Model) -> tuple[Model, dict[str, np.ndarray]]:
    """Adds an input and an output for every state that a recurrent node keeps inside or starts from a constant."""
    inputs, outputs, states, nodes, initial = list(model.inputs), list(model.output_names), list(model.states), [], {}
    tied, producer = {s.input for s in model.states}, _producers(model)
    for node in model.nodes:
        if node.op not in RECURRENT:
            nodes.append(node)
            continue
        node_inputs = [*node.inputs, *[""] * (OPS[node.op].inputs[1] - len(node.inputs))]
        node_outputs = [*node.outputs, *[""] * (OPS[node.op].outputs - len(node.outputs))]
        for position, letter in ((5, "h"), (6, "c"))[:2 if node.op == "LSTM" else 1]:
            source = _source(producer, node_inputs[position], tied.__contains__)
            if source in tied:
                continue
            if source and source not in model.weights:
                raise _refuse(node, f"initial_{letter} comes from {source!r}, which is not a state; tie it with states=")
            shape = OPS[node.op].infer(node, [model.specs.get(n) for n in node.inputs])[position - 4].shape
            name = f"{node.name}.{letter}"
            while name in model.specs or f"{name}.next" in model.specs:
                name += "'"
            if source:
                initial[name] = model.weights[source]
            node_inputs[position] = name
            node_outputs[position - 4] = node_outputs[position - 4] or f"{name}.next"
            inputs.append(Value(name, "float32", shape))
            outputs += [node_outputs[position - 4]] if node_outputs[position - 4] not in outputs else []
            states.append(State(name, node_outputs[position - 4]))
        nodes.append(replace(node, inputs=tuple(node_inputs), outputs=tuple(node_outputs)))
    return replace(model, inputs=tuple(inputs), output_names=tuple(outputs), nodes=tuple(nodes), states=tuple(states)), initial
