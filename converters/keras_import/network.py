"""Sequential and functional networks: which layer is called on what, in an order in which everything is there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.converters.keras_import.registry import FUNCTIONS, LAYERS, OWN, PASS
from fastrnn.converters.keras_import.site import Graph, Site, Tensor
from fastrnn.converters.keras_import.tree import Layer
from fastrnn.errors import InvalidModelError, UnsupportedModelError
from fastrnn.model import Model, Node

DTYPES = {"float32": "float32", "int32": "int32", "int64": "int64", "bool": "bool", "uint8": "uint8", "int8": "int8", "int16": "int16"}
MAX_ARGUMENT_DEPTH = 8


def build_model(root: Layer, version: tuple[int, ...]) -> Model:
    """The Model of the outermost network."""
    graph = Graph(version)
    symbols = _Symbols()

    def source(layer: Layer) -> Tensor:
        return graph.add_input(layer.name, _input_dtype(root, layer), symbols.shape(layer))

    results = _run(graph, root, source)
    outputs = {}
    for name, tensor in results:
        outputs[graph.unique(name)] = tensor
    for name, tensor in outputs.items():
        graph.build.add("Identity", name, [tensor.name], [name])
    graph.settle()
    names = (*outputs, *graph.outputs)
    nodes = _needed(graph.build.nodes, names)
    read = set().union(*(node.reads() for node in nodes))
    return Model(tuple(graph.inputs), names, nodes, {k: a for k, a in graph.build.weights.items() if k in read}, tuple(graph.states), root.name)


def _needed(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[Node, ...]:
    """Those that the outputs follow from, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            wanted |= node.reads()
            kept.append(node)
    return tuple(reversed(kept))


class _Symbols:
    """Names of open dimensions: B for the batch, T for the steps of the first input that leaves them open, else the input and the axis."""

    def __init__(self):
        self._time = ""

    def shape(self, layer: Layer) -> tuple[int | str, ...]:
        given = input_shape(layer)
        if not self._time and len(given) > 1 and given[1] is None:
            self._time = layer.name
        return tuple(
            dim if dim is not None else "B" if k == 0 else "T" if k == 1 and layer.name == self._time else f"{layer.name}_{k}"
            for k, dim in enumerate(given)
        )


def input_shape(layer: Layer) -> tuple[int | None, ...]:
    """The shape that a config gives an input, the batch first."""
    given = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
    if given is None and isinstance(layer.config.get("input_shape"), list):
        given = [None, *layer.config["input_shape"]]
    if given is None and layer.kind == "Embedding":
        given = [None, layer.config.get("input_length")]
    if given is None and layer.config.get("input_dim") is not None:
        given = [None, layer.config.get("input_length"), layer.config["input_dim"]]
        given = given if layer.kind not in ("Dense",) else [None, given[2]]
    if (
        not isinstance(given, (list, tuple))
        or not given
        or any(d is not None and (isinstance(d, bool) or not isinstance(d, int) or not 0 < d < 2**31) for d in given)
    ):
        raise UnsupportedModelError(
            f"layer {layer.where!r}: the file does not say what shape the input has (got {given!r}); build the model with an Input before it is saved"
        )
    return tuple(given)


def _input_dtype(root: Layer, layer: Layer) -> str:
    """int32 where only embeddings read it: Keras declares a float there and converts."""
    readers = _readers(root, layer.name)
    if readers and all(r.kind == "Embedding" for r in readers) or layer.kind == "Embedding":
        return "int32"
    dtype = layer.config.get("dtype") or "float32"
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UnsupportedModelError(f"layer {layer.where!r}: an input of dtype {dtype!r} is not supported")
    return DTYPES[dtype]


def _readers(root: Layer, name: str) -> list[Layer]:
    """Layers that read an input of the outermost network; operations that make masks of it left out."""
    if root.kind == "Sequential":
        layers = list(root.children.values())
        return [layers[1]] if len(layers) > 1 and layers[0].kind == "InputLayer" else layers[:1]
    return [
        child
        for child in root.children.values()
        if child.kind != "NotEqual" and any(h[0] == name for node in child.nodes or () for h in _histories(node))
    ]


def _run(graph: Graph, network: Layer, source: Callable[[Layer], Tensor]) -> list[tuple[str, Tensor]]:
    """Calls every layer of a network; its outputs by the names of the layers that make them."""
    return (
        _sequential(graph, network, source)
        if network.kind == "Sequential" and not any(c.nodes for c in network.children.values())
        else _functional(graph, network, source)
    )


def _sequential(graph: Graph, network: Layer, source) -> list[tuple[str, Tensor]]:
    layers = list(network.children.values())
    if not layers:
        raise InvalidModelError(f"{network.where}: it has no layers")
    first = layers[0]
    if first.kind != "InputLayer" and "batch_input_shape" not in first.config and network.config.get("build_input_shape") is not None:
        first = Layer("InputLayer", {"name": f"{first.name}_input", "batch_shape": network.config["build_input_shape"]}, first.where)
    elif first.kind != "InputLayer" and first.is_network:
        first = next(iter(first.children.values()), first)
    x: Any = source(
        first if first.kind in ("InputLayer", "Embedding") else Layer(first.kind, {**first.config, "name": f"{first.name}_input"}, first.where)
    )
    for layer in layers:
        if layer.kind != "InputLayer":
            x = call(graph, layer, [x], {})
    return [(layers[-1].name if k == 0 else f"{layers[-1].name}_{k}", t) for k, t in enumerate(_flat(x))]


def _functional(graph: Graph, network: Layer, source) -> list[tuple[str, Tensor]]:
    values: dict[tuple[str, int], list[Tensor]] = {}
    for layer in network.children.values():
        if layer.kind == "InputLayer":
            values[layer.name, 0] = [source(layer)]
    offsets = {layer.name: _offset(network, layer) for layer in network.children.values() if layer.is_network}
    waiting = [(layer, k, node) for layer in network.children.values() if layer.kind != "InputLayer" for k, node in enumerate(_listed(layer))]
    while waiting:
        left = []
        for layer, k, node in waiting:
            needs = _histories(node)
            if all((name, index) in values for name, index, _ in needs):
                args, kwargs = _arguments(layer, node, values)
                values[layer.name, k + offsets.get(layer.name, 0)] = _flat(call(graph, layer, args, kwargs))
            else:
                left.append((layer, k, node))
        if len(left) == len(waiting):
            raise InvalidModelError(f"layer {left[0][0].where!r}: what it is called on is made by no layer")
        waiting = left
    ends = [_pick(values, h) for h in _ends(network, "output_layers")]
    names = [h[0] for h in _ends(network, "output_layers")]
    return [(name if names.count(name) == 1 else f"{name}_{names[:k].count(name)}", t) for k, (name, t) in enumerate(zip(names, ends))]


def _listed(layer: Layer) -> list:
    if not isinstance(layer.nodes, list):
        raise InvalidModelError(f"layer {layer.where!r}: it does not say what it is called on")
    return layer.nodes


def _ends(network: Layer, which: str) -> list[tuple[str, int, int]]:
    """(layer, call, output) of a network's ends, listed, alone or by name."""
    given = network.config.get(which)
    found, todo = [], [given]
    while todo and None not in found:
        one = todo.pop(0)
        if isinstance(one, Mapping) or isinstance(one, list) and _history(one) is None:
            todo[:0] = one.values() if isinstance(one, Mapping) else one
        else:
            found.append(_history(one))
    if not found or None in found:
        raise InvalidModelError(f"{network.where}: {which} cannot be {given!r}"[:300])
    return found


def _history(given) -> tuple[str, int, int] | None:
    """(layer, call, output), if it is that: of Keras 3, or a list of Keras 2 that may end in call arguments."""
    if isinstance(given, Mapping):
        if given.get("class_name") != "__keras_tensor__" or not isinstance(given.get("config"), Mapping):
            return None
        given = given["config"].get("keras_history")
    whole = (
        isinstance(given, list)
        and 3 <= len(given) <= 4
        and isinstance(given[0], str)
        and all(isinstance(k, int) and not isinstance(k, bool) for k in given[1:3])
    )
    return tuple(given[:3]) if whole else None


def _histories(given, depth: int = 0) -> list[tuple[str, int, int]]:
    """All tensors that a call reads."""
    if depth > MAX_ARGUMENT_DEPTH:
        raise UnsupportedModelError("the arguments of a call are nested too deep")
    if (found := _history(given)) is not None:
        rest = given[3] if isinstance(given, list) and len(given) > 3 else None
        return [found, *_histories(rest, depth + 1)]
    parts = given.values() if isinstance(given, Mapping) else given if isinstance(given, list) else ()
    return [h for part in parts for h in _histories(part, depth + 1)]


def _offset(network: Layer, layer: Layer) -> int:
    """1 where calls of a model inside are counted from 1, as Keras 2 does: its own inputs were call 0."""
    calls = len(layer.nodes or ())
    used = {h[1] for other in network.children.values() for node in other.nodes or () for h in _histories(node) if h[0] == layer.name}
    used |= {h[1] for h in _ends(network, "output_layers") if h[0] == layer.name}
    return int(bool(used) and min(used) >= 1 and max(used) == calls)


def _pick(values, history) -> Tensor:
    name, index, k = history
    made = values.get((name, index))
    if made is None or not 0 <= k < len(made):
        raise InvalidModelError(f"layer {name!r}: there is no output {k} of its call {index}")
    return made[k]


def _arguments(layer: Layer, node, values) -> tuple[list, dict]:
    """Positional and named arguments of one call."""
    if isinstance(node, Mapping):
        args, kwargs = node.get("args", []), node.get("kwargs", {})
        if not isinstance(args, list) or not isinstance(kwargs, Mapping):
            raise InvalidModelError(f"layer {layer.where!r}: a call that cannot be read")
        return [_value(a, values, layer) for a in args], {str(k): _value(v, values, layer) for k, v in kwargs.items()}
    if isinstance(node, list) and node and _history(node) is None:
        tensors = [_value(a, values, layer) for a in node]
        kwargs = {}
        for entry in node:
            if isinstance(entry, list) and len(entry) > 3 and isinstance(entry[3], Mapping):
                kwargs |= {str(k): _value(v, values, layer) for k, v in entry[3].items()}
        return [tensors if len(tensors) > 1 else tensors[0]], kwargs
    if (found := _history(node)) is not None:  # one tensor, not in a list
        return [_pick(values, found)], {
            str(k): _value(v, values, layer)
            for k, v in (node[3].items() if isinstance(node, list) and len(node) > 3 and isinstance(node[3], Mapping) else ())
        }
    raise InvalidModelError(f"layer {layer.where!r}: a call that cannot be read")


def _value(given, values, layer: Layer):
    """An argument: a tensor, a number, a word, or a list of such."""
    if (found := _history(given)) is not None and (isinstance(given, Mapping) or (found[0], found[1]) in values):
        return _pick(values, found)
    if isinstance(given, list):
        return [_value(v, values, layer) for v in given]
    if isinstance(given, Mapping):
        config = given.get("config")
        if given.get("class_name") in ("__tensor__", "__numpy__") and isinstance(config, Mapping):
            try:
                return np.array(config.get("value"), config.get("dtype", "float32"))
            except (TypeError, ValueError) as error:
                raise InvalidModelError(f"layer {layer.where!r}: a constant that cannot be read: {error}") from error
        if given.get("class_name") == "__tuple__" and isinstance(given.get("items"), list):
            return [_value(v, values, layer) for v in given["items"]]
        if given.get("class_name") == "__ellipsis__":
            return Ellipsis
        if given.get("class_name") in ("slice", "__slice__") or set(given) >= {"start", "stop", "step"}:
            parts = config if isinstance(config, Mapping) else given
            return slice(*(parts.get(k) for k in ("start", "stop", "step")))
        return {str(k): _value(v, values, layer) for k, v in given.items()}
    return given


def _flat(x) -> list[Tensor]:
    return [t for part in x for t in _flat(part)] if isinstance(x, (list, tuple)) else [x]


def call(graph: Graph, layer: Layer, args: Sequence, kwargs: Mapping) -> Any:
    """What a layer, or a network inside, makes of its arguments: a Tensor or nested lists of them."""
    site = Site(graph, layer)
    if kwargs.get("training") not in (None, False, 0):
        raise site.refuse("it is called with training=True, so it draws random numbers or changes its weights")
    kwargs = {k: v for k, v in kwargs.items() if k != "training" and v is not None}
    if layer.is_network:
        given = iter(_flat(list(args)))
        mask = kwargs.pop("mask", None)
        inputs = []
        for tensor in given:
            inputs.append(tensor if mask is None or not isinstance(mask, Tensor) else tensor.masked(mask))
        if kwargs:
            raise site.refuse(f"call argument {next(iter(kwargs))!r} is not supported")
        return _nested(graph, layer, inputs)
    if layer.is_operation:
        return _operation(site, args, kwargs)
    kind = LAYERS[layer.kind]
    if not args:
        raise site.invalid("it is called on nothing")
    mask = kwargs.pop("mask", None) if kind.masks != OWN else None
    if isinstance(args[0], Tensor) and mask is not None:
        args = [args[0].masked(mask), *args[1:]]
    _check_arguments(site, kind.call, args, kwargs)
    result = kind.call(site, *args, **kwargs)
    site.finish()
    return result if kind.masks == OWN else result.masked(args[0].mask if kind.masks == PASS else None)


def _operation(site: Site, args: Sequence, kwargs: Mapping) -> Tensor:
    """An operation of keras.ops: its options stand in its config; those that say nothing are left out."""
    convert = FUNCTIONS[site.layer.kind]
    taken = inspect.signature(convert).parameters
    options = {
        k: v for k, v in {**site.layer.config, **kwargs}.items() if k in taken or v not in (None, False) and k not in ("name", "dtype", "trainable")
    }
    _check_arguments(site, convert, args, options)
    return convert(site, *args, **options)


def _check_arguments(site: Site, function: Callable, args: Sequence, kwargs: Mapping) -> None:
    """Raises unless the function takes these arguments, and has tensors where it says so."""
    try:
        given = inspect.signature(function).bind(site, *args, **kwargs).arguments
    except TypeError as error:
        raise site.refuse(f"a call with these arguments is not supported: {error}") from error
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        said = str(parameter.annotation)
        if name in given and (said == "Tensor" or said.startswith("Tensor |") and given[name] is not None) and not isinstance(given[name], Tensor):
            raise site.invalid(f"it is called on {str(given[name])[:80]!r}; {name} is a tensor")


def _nested(graph: Graph, network: Layer, inputs: list[Tensor]) -> Any:
    """A model inside: its inputs are given, in its own order."""
    order = {}
    if network.kind != "Sequential" or any(c.nodes for c in network.children.values()):
        order = {h[0]: k for k, h in enumerate(_ends(network, "input_layers"))}

    def source(layer: Layer) -> Tensor:
        k = order.get(layer.name, 0)
        if k >= len(inputs):
            raise InvalidModelError(f"model {network.where!r}: {len(inputs)} inputs are given, it has {len(order) or 1}")
        return inputs[k]

    found = [t for _, t in _run(graph, network, source)]
    return found[0] if len(found) == 1 else found
