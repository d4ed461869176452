"""A trained network as a Model: each layer's nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch

import numpy as np

from fastrnn.errors import DTypeError, UnsupportedModelError
from fastrnn.model import Model, Value
from fastrnn.model.builder import GraphBuilder
from fastrnn.model.stack import add_stack, parse_activations
from fastrnn.training import layers
from fastrnn.training.base import Layer
from fastrnn.training.custom import Recurrent
from fastrnn.training.recurrent import BuiltIn
from fastrnn.training.sequential import Sequential


def to_model(net: Sequential, name: str = "model", lengths: bool = False) -> Model:
    """See Sequential.to_model."""
    if net.dtype is not None and net.dtype != np.float32:
        raise DTypeError(f"models are float32, this network is {net.dtype}: net.astype('float32').to_model()")
    if net.takes is None and not net.integers:
        raise UnsupportedModelError("to_model: no layer says how many features the input has")
    x = Value("x", "int64", ("T", "B")) if net.integers else Value("x", "float32", ("T", "B", net.takes))
    build, last = GraphBuilder(), "x"
    for place, layer in net.leaves():
        last = _nodes(layer, build, f"{place}.{layer.kind}", last, "lengths" if lengths else "")
    build.add("Identity", "y", [last], ["y"])
    inputs = (x, Value("lengths", "int64", ("B",), optional=True)) if lengths else (x,)
    return Model(inputs, ("y",), tuple(build.nodes), build.weights, name=name)


def _weights(build: GraphBuilder, node: str, layer: Layer) -> list[str]:
    """Copies of all parameters, so that training on leaves the model as it is."""
    return [build.weight(f"{node}.{name}", array) for name, array in layer.state_dict().items()]


@singledispatch
def _nodes(layer: Layer, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
    """Adds what the layer computes from value x, within the lengths that a value of this name has; returns its own value."""
    raise UnsupportedModelError(f"to_model: layer {node!r} is a {type(layer).__name__}, which has no nodes")


@_nodes.register
def _(layer: layers.Embedding, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
    build.add("Gather", node, [*_weights(build, node, layer), x], [f"{node}.y"], axis=0, wrap=0)
    return f"{node}.y"


@_nodes.register
def _(layer: layers.Linear, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
    build.add("Gemm", node, [x, *_weights(build, node, layer)], [f"{node}.y"], transB=1)
    return f"{node}.y"


@_nodes.register
def _(layer: layers.LayerNorm, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
    build.add("LayerNormalization", node, [x, *_weights(build, node, layer)], [f"{node}.y"], epsilon=layer.eps)
    return f"{node}.y"


@_nodes.register
def _(layer: layers.Dropout, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
    return x


def _alone(op: str) -> Callable[[Layer, GraphBuilder, str, str, str], str]:
    """A node with one input and one output."""

    def nodes(layer: Layer, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
        build.add(op, node, [x], [f"{node}.y"])
        return f"{node}.y"

    return nodes


for _layer, _op in ((layers.Tanh, "Tanh"), (layers.ReLU, "Relu"), (layers.Sigmoid, "Sigmoid")):
    _nodes.register(_layer, _alone(_op))


@_nodes.register
def _(layer: BuiltIn, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
    options = replace(layer.options, activations=parse_activations("rnn", ("relu",), layer.options.bidirectional)) if layer.relu else layer.options
    add_stack(build, node, options, layer.state_dict(), x, f"{node}.y", lengths=lengths)
    return f"{node}.y"


@_nodes.register
def _(layer: Recurrent, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
    if layer.code.fingerprint != layer.cell.fingerprint:
        raise UnsupportedModelError(f"to_model: layer {node!r}: cell {layer.cell.name!r} computes something else by now than what was trained")
    features, scalars = x, ""
    if layer.options.scalars:
        features, scalars = f"{node}.x", f"{node}.scalars"
        for name, start, stop in ((features, 0, layer.options.input_size), (scalars, layer.options.input_size, layer.takes)):
            bounds = [build.whole(f"{name}.{what}", value) for what, value in (("start", start), ("stop", stop), ("axis", 2))]
            build.add("Slice", name, [x, *bounds], [name])
    add_stack(build, node, layer.options, layer.state_dict(), features, f"{node}.y", lengths=lengths, scalars=scalars)
    return f"{node}.y"


@_nodes.register
def _(layer: layers.Last, build: GraphBuilder, node: str, x: str, lengths: str) -> str:
    if lengths:
        raise UnsupportedModelError(f"to_model: layer {node!r} takes the last of all steps in a model, so lengths=True cannot be met")
    build.add("Gather", node, [x, build.weight(f"{node}.index", np.array(-1))], [f"{node}.y"], axis=0)
    return f"{node}.y"
