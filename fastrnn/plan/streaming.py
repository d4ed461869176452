"""What a model needs to run one step at a time: its states as inputs and outputs, and which axis is time.

Two kinds of model step. One with a time axis takes a chunk of steps, and its recurrent layers keep states that are exposed
here where the graph keeps them inside. One that exposes its states as inputs and outputs and has no time axis takes a call a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastrnn.errors import NotStreamableError
from fastrnn.kernels.reference import EVAL
from fastrnn.model import Model, Node, State, Value
from fastrnn.model.ops import OPS
from fastrnn.plan.planner import ALIASES, RECURRENT


@dataclass(frozen=True)
class Steppable:
    """A model with all states exposed. time_axes: where time stands in inputs and outputs, empty where a step is a call.

    initial: first value of a state, zeros where absent. batch, time: those dimensions, symbols where free.
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


def steppable(model: Model) -> Steppable:
    """The steppable form of a model; raises NotStreamableError naming the node that stands in the way."""
    specs, recurrent = model.specs, [n for n in model.nodes if n.op in RECURRENT]
    over_time = [n for n in recurrent if specs[n.input(0)].shape[n.get("layout")] != 1]
    if not over_time:
        symbols = [d for v in model.inputs for d in v.shape if isinstance(d, str)]
        producer = _producers(model)
        for node in recurrent:
            for name in (node.input(5), node.input(6))[:2 if node.op == "LSTM" else 1]:
                if _source(producer, name) in ("", *model.weights):
                    raise _refuse(node, "its state is neither an input of the model nor kept along a time axis")
        return Steppable(model, {}, {}, symbols[0] if symbols else None, None)
    axes = _time_axes(model, over_time)
    exposed, initial = _expose_states(model)
    first = over_time[0]
    shape = specs[first.input(0)].shape
    form = Steppable(exposed, axes, initial, shape[1 - first.get("layout")], shape[first.get("layout")])
    if not isinstance(form.time, str) or form.time == form.batch:
        raise _refuse(first, f"its time dimension is fixed at {form.time}")
    for state in model.states:
        if state.input in axes or state.output in axes:
            raise NotStreamableError(f"state {state.input!r} <- {state.output!r} has a time axis; a state holds one step")
    for value in form.inputs:
        if value.name not in axes:
            raise NotStreamableError(f"input {value.name!r} has no time axis and is not a state; tie it with states= or fix it with constants=")
    tied = {s.output for s in model.states}
    for name in model.output_names:
        if name not in axes and name not in tied:
            node = next((n for n in model.nodes if name in n.outputs), None)
            why = f"output {name!r} has no time axis and feeds no state"
            raise _refuse(node, why) if node else NotStreamableError(why)
    return form


def _time_axes(model: Model, over_time: list[Node]) -> dict[str, int]:
    """The time axis of every value that has one."""
    producer = _producers(model)
    axes: dict[str, int] = {}
    for node in over_time:
        name, axis = node.input(0), node.get("layout")
        while name not in axes:
            axes[name] = axis
            source = producer.get(name)
            if source is None or source.op in RECURRENT:
                break
            if OPS[source.op].time is None:
                raise _refuse(source, "it mixes time steps, or moves the time axis")
            name = source.inputs[1 if source.op == "Gather" else 0]
    for node in model.nodes:
        if node.op in RECURRENT and node.input(0) in axes:
            if node.get("direction") != "forward":
                raise _refuse(node, f"direction={node.get('direction')!r} needs the whole sequence")
            if node.input(4) and not _is_optional(model, node.input(4)):
                raise _refuse(node, "it takes sequence_lens")
            axes[node.outputs[0]] = node.get("layout")
            continue
        timed = [axes[name] for name in node.inputs if name in axes]
        if not timed:
            continue
        rank = len(model.specs[node.outputs[0]].shape)
        if OPS[node.op].time is None or OPS[node.op].time == "row" and timed[0] == rank - 1:
            raise _refuse(node, "it mixes time steps, or moves the time axis")
        axes[node.outputs[0]] = timed[0]
    return axes


def _producers(model: Model) -> dict[str, Node]:
    """The node that makes each value."""
    return {name: node for node in model.nodes for name in node.outputs if name}


def _source(producer: dict[str, Node], name: str) -> str:
    """The value that `name` is a view of."""
    while name in producer and producer[name].op in ALIASES:
        name = producer[name].inputs[0]
    return name


def _constant(model: Model, producer: dict[str, Node], name: str) -> np.ndarray:
    """A weight, through the views between it and `name`."""
    if name in model.weights:
        return model.weights[name]
    node = producer[name]
    return EVAL[node.op](node, [_constant(model, producer, node.inputs[0])])[0]


def _is_optional(model: Model, name: str) -> bool:
    return any(v.name == name and v.optional for v in model.inputs)


def _expose_states(model: Model) -> tuple[Model, dict[str, np.ndarray]]:
    """Adds an input and an output for every state that a recurrent node keeps inside or starts from a constant."""
    inputs, outputs, states, nodes, initial = list(model.inputs), list(model.output_names), list(model.states), [], {}
    tied = {s.input for s in model.states}
    producer = _producers(model)
    for node in model.nodes:
        if node.op not in RECURRENT:
            nodes.append(node)
            continue
        node_inputs = [*node.inputs, *[""] * (OPS[node.op].inputs[1] - len(node.inputs))]
        node_outputs = [*node.outputs, *[""] * (OPS[node.op].outputs - len(node.outputs))]
        for position, letter in ((5, "h"), (6, "c"))[:2 if node.op == "LSTM" else 1]:
            source = _source(producer, node_inputs[position])
            if source in tied:
                continue
            if source and source not in model.weights:
                raise _refuse(node, f"initial_{letter} comes from {source!r}, which is not a state; tie it with states=")
            shape = OPS[node.op].infer(node, [model.specs.get(n) for n in node.inputs])[position - 4].shape
            name = f"{node.name}.{letter}"
            if node_inputs[position]:
                initial[name] = _constant(model, producer, node_inputs[position])
            node_inputs[position] = name
            node_outputs[position - 4] = node_outputs[position - 4] or f"{name}.next"
            inputs.append(Value(name, "float32", shape))
            outputs += [node_outputs[position - 4]] if node_outputs[position - 4] not in outputs else []
            states.append(State(name, node_outputs[position - 4]))
        nodes.append(replace(node, inputs=tuple(node_inputs), outputs=tuple(node_outputs)))
    return replace(model, inputs=tuple(inputs), output_names=tuple(outputs), nodes=tuple(nodes), states=tuple(states)), initial
