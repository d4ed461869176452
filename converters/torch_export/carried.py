"""Modules that write their buffers in forward (robot policies keep hidden_state so): the buffers become states, inputs and outputs that are tied.

The module is captured inside another one, which takes the buffers as arguments, puts copies in their places for the call, and returns what stands there afterwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from fastrnn.converters.torch_export.capture import arguments
from fastrnn.converters.torch_export.subject import Subject, evaluating
from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model, Node, State, Value
from fastrnn.model.recurrent import INPUTS, RECURRENT

INITIAL = tuple(k for k, name in enumerate(INPUTS) if name.startswith("initial_"))


def written_buffers(module: torch.nn.Module, example_inputs) -> list[str]:
    """Names of the buffers that a call with these inputs writes; the module is left as it was. None are known where the module does not take the inputs."""
    args, kwargs = arguments(example_inputs)
    before = {name: (owner, leaf, owner._buffers[leaf]) for name, owner, leaf in _buffers(module)}
    if not before:
        return []
    with evaluating(module):
        subject, versions = Subject(module), {name: b._version for name, (_, _, b) in before.items()}
        with subject.left_as_called(args, kwargs):
            return [
                name for name, (owner, leaf, buffer) in before.items() if owner._buffers.get(leaf) is not buffer or buffer._version != versions[name]
            ]


def _buffers(module: torch.nn.Module) -> list[tuple[str, torch.nn.Module, str]]:
    """(name, the module that holds it, its name there) of each buffer."""
    return [
        (f"{path}.{leaf}" if path else leaf, part, leaf)
        for path, part in module.named_modules()
        for leaf, b in part._buffers.items()
        if b is not None
    ]


class Carried(torch.nn.Module):
    """A module as a function of its arguments and the buffers that it writes. names: of those, by the argument that stands for each."""

    def __init__(self, module: torch.nn.Module, written: list[str]):
        super().__init__()
        self.inner = module
        places = {name: (owner, leaf) for name, owner, leaf in _buffers(module)}
        given = inspect.signature(module.forward)
        self.names = {_free(name.replace(".", "_"), given.parameters): name for name in written}
        self._places = {argument: places[name] for argument, name in self.names.items()}
        extra = [inspect.Parameter(a, inspect.Parameter.KEYWORD_ONLY) for a in self.names]
        rest = [p for p in given.parameters.values() if p.kind is p.VAR_KEYWORD]
        signature = given.replace(
            parameters=[*(p for p in given.parameters.values() if p.kind is not p.VAR_KEYWORD), *extra, *rest], return_annotation=given.empty
        )

        def forward(*args, **kwargs):
            return self._run(args, kwargs)

        forward.__signature__ = signature
        self.forward = forward

    def _run(self, args: tuple, kwargs: dict) -> dict:
        states = {argument: kwargs.pop(argument) for argument in self._places}
        before = {argument: owner._buffers[leaf] for argument, (owner, leaf) in self._places.items()}
        try:
            for argument, (owner, leaf) in self._places.items():
                owner._buffers[leaf] = states[argument].clone()
            results = _named(self.inner(*args, **kwargs))
            return {**results, **{_free(f"{a}_n", results): owner._buffers[leaf] for a, (owner, leaf) in self._places.items()}}
        finally:
            for argument, (owner, leaf) in self._places.items():
                owner._buffers[leaf] = before[argument]

    def ties(self, outputs: tuple[str, ...]) -> list[State]:
        """Each state with the output that it becomes: the last ones, in order."""
        return [State(argument, output) for argument, output in zip(self.names, outputs[-len(self.names) :])]

    def initial(self) -> dict[str, torch.Tensor]:
        """The buffers as they are, by argument."""
        return {argument: owner._buffers[leaf].detach().clone() for argument, (owner, leaf) in self._places.items()}


def _free(name: str, taken) -> str:
    while name in taken:
        name += "_"
    return name


def _named(results) -> dict:
    """A module's results by the names that its outputs have."""
    if isinstance(results, Mapping):
        return dict(results)
    if isinstance(results, (tuple, list)):
        return {f"y{k}": part for k, part in enumerate(results)}
    return {"y": results}


def convert_carried(
    module: torch.nn.Module, written: list[str], example_inputs, dynamic_shapes, tolerance: float | None, cells: Mapping | None
) -> Model:
    """from_torch of a module that writes these buffers."""
    from fastrnn.converters.torch_export import convert_module

    args, kwargs = arguments(example_inputs)
    carried = Carried(module, written)
    initial = carried.initial()
    if dynamic_shapes is not None:
        names = list(inspect.signature(module.forward).parameters)
        dynamic_shapes = dict(dynamic_shapes) if isinstance(dynamic_shapes, Mapping) else dict(zip(names, dynamic_shapes))
        dynamic_shapes |= dict.fromkeys(initial)
    carried.__class__ = type(type(module).__name__, (Carried,), {})  # whose name messages and the model have
    model = convert_module(carried, (args, {**kwargs, **initial}), dynamic_shapes, tolerance, cells)
    return _with_states(model, carried, {name: t.cpu().numpy() for name, t in initial.items()})


def _with_states(model: Model, carried: Carried, initial: Mapping[str, np.ndarray]) -> Model:
    """The model with its states tied; those that do not start at zero start at their buffer's value."""
    model = _with_fixed_sizes(model, initial)
    ties, read = carried.ties(model.output_names), set().union(*(node.reads() for node in model.nodes))
    unread = {tie for tie in ties if tie.input not in read}
    dropped = {tie.input for tie in unread}, {tie.output for tie in unread}
    ties = [tie for tie in ties if tie not in unread]
    if any(initial[tie.input].dtype != np.dtype(model.specs[tie.input].dtype) for tie in ties):
        raise UnsupportedModelError(f"{model.name}: a buffer of a dtype that is widened cannot be a state")
    nodes, weights, inputs, outputs = list(model.nodes), dict(model.weights), [], [n for n in model.output_names if n not in dropped[1]]
    for value in model.inputs:
        if value.name in dropped[0]:
            continue
        tied = value.name in {tie.input for tie in ties}
        if tied and initial[value.name].any():
            nodes = _started(value, initial[value.name], nodes, weights)
            flag = f"{value.name}.started"
            inputs.append(Value(flag, "bool", tuple(d if isinstance(d, str) else 1 for d in value.shape)))
            outputs.append(f"{flag}_n")
            ties.append(State(flag, f"{flag}_n"))
        inputs.append(replace(value, optional=tied and _starts_layers_only(value.name, nodes)))
    return Model(
        tuple(inputs), tuple(outputs), tuple(nodes), weights, tuple(ties), model.name, {k: s for k, s in model.declared.items() if k in outputs}
    )


def _with_fixed_sizes(model: Model, initial: Mapping[str, np.ndarray]) -> Model:
    """The model with the open sizes of its states that no other input has as they are in the buffers."""
    free = {d for value in model.inputs if value.name not in initial for d in value.shape}
    known = {
        d: n
        for value in model.inputs
        if value.name in initial
        for d, n in zip(value.shape, initial[value.name].shape)
        if isinstance(d, str) and d not in free
    }
    inputs = tuple(replace(v, shape=tuple(known.get(d, d) for d in v.shape)) for v in model.inputs)
    declared = {name: spec._replace(shape=tuple(known.get(d, d) for d in spec.shape)) for name, spec in model.declared.items()}
    return replace(model, inputs=inputs, declared=declared) if known else model


def _starts_layers_only(name: str, nodes: list[Node]) -> bool:
    """Whether a value is nothing but the first state of recurrent layers, so that it may be left out for zeros."""
    uses = [(node, k) for node in nodes for k, given in enumerate(node.inputs) if given == name]
    whole = all(node.op in RECURRENT and k in INITIAL for node, k in uses)
    return bool(uses) and whole and not any(name in graph.captures() for node in nodes for graph in node.subgraphs)


def _started(value: Value, initial: np.ndarray, nodes: list[Node], weights: dict) -> list[Node]:
    """A state that starts at zeros, as states do, and means `initial` until the first call is over: a second state says whether it is."""
    flag, now = f"{value.name}.started", f"{value.name}.now"
    weights[f"{value.name}.first"] = initial
    weights[f"{flag}.true"] = np.array([True])
    if any(value.name in graph.captures() for node in nodes for graph in node.subgraphs):
        raise UnsupportedModelError(f"state {value.name!r} is read inside a loop or branch and does not start at zero")
    moved = [replace(node, inputs=tuple(now if i == value.name else i for i in node.inputs)) for node in nodes]
    return [
        Node("Where", now, (flag, value.name, f"{value.name}.first"), (now,)),
        *moved,
        Node("Or", f"{flag}_n", (flag, f"{flag}.true"), (f"{flag}_n",)),
    ]
