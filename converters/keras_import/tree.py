"""The layers of a config, nested as Keras nests them, and their weights found in a file of either form or in a live model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastrnn.converters.keras_import.hdf5 import Array, Group
from fastrnn.converters.keras_import.registry import FUNCTIONS, LAYERS, Variable
from fastrnn.errors import DTypeError, InvalidModelError, UnsupportedModelError

NETWORKS = ("Sequential", "Functional", "Model")
MAX_DEPTH, MAX_LAYERS = 16, 4096
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # the latter in .keras files of tf.keras 2.12


@dataclass
class Layer:
    """A layer's config, its own variables and its children by attribute; a network's are its layers, under their names."""

    kind: str
    config: Mapping
    where: str
    nodes: list | None = None  # of a functional network: how it is called
    variables: list[Variable] = field(default_factory=list)
    children: dict[str, Layer] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    module: str = ""

    @property
    def is_operation(self) -> bool:
        """Whether it is an operation of keras.ops, which stands among the layers of a functional model of Keras 3. Layers alone say whether they are trained."""
        return (
            self.module.startswith("keras.src.ops")
            or self.kind in FUNCTIONS
            and "trainable" not in self.config
            and "layers" not in self.config
            and self.nodes is not None
        )

    @property
    def name(self) -> str:
        """Its own name."""
        return str(self.config.get("name", self.kind))

    @property
    def is_network(self) -> bool:
        """Whether it is a model inside a model, or the model itself."""
        return self.kind in NETWORKS

    def every(self, trainable: bool = True) -> Iterator[tuple[Layer, Variable, bool]]:
        """All variables below it in Keras's order, each with whether it is trained: a frozen layer's are not."""
        trainable = trainable and bool(self.config.get("trainable", True))
        for variable in self.variables:
            yield self, variable, trainable and variable.trainable
        for child in self.children.values():
            yield from child.every(trainable)


def layer_of(given, where: str = "", depth: int = 0) -> Layer:
    """A Layer from what Keras serialised, {"class_name": ..., "config": ...}."""
    if depth > MAX_DEPTH:
        raise UnsupportedModelError(f"{where}: models and layers are nested more than {MAX_DEPTH} deep")
    if not isinstance(given, Mapping) or not isinstance(given.get("class_name"), str) or not isinstance(given.get("config"), (Mapping, list)):
        raise InvalidModelError(f"{where or 'config'}: no layer's class_name and config")
    kind, config = given["class_name"], given["config"]
    if isinstance(config, list):  # a Sequential of Keras 2.2 and before
        config = {"layers": config}
    name = str(given.get("name") or config.get("name") or kind)
    where = f"{where}.{name}" if where else name
    layer = Layer(
        kind, config if config.get("name") else {**config, "name": name}, where, given.get("inbound_nodes"), module=str(given.get("module") or "")
    )
    if not isinstance(layer.nodes, (list, type(None))):
        raise InvalidModelError(f"layer {where!r}: what it is called on cannot be {str(layer.nodes)[:100]!r}")
    _refuse_dtype(layer)
    if layer.is_network:
        listed = config.get("layers")
        if not isinstance(listed, list) or len(listed) > MAX_LAYERS:
            raise InvalidModelError(f"{where}: its layers are no list of at most {MAX_LAYERS}")
        for one in listed:
            child = layer_of(one, where if depth else "", depth + 1)
            if child.name in layer.children:
                raise InvalidModelError(f"{where}: two layers are called {child.name!r}")
            layer.children[child.name] = child
    elif layer.is_operation and kind in FUNCTIONS:
        pass
    elif kind in LAYERS and not layer.is_operation:
        layer.variables = LAYERS[kind].variables(config)
        for attribute, child in LAYERS[kind].children(config).items():
            layer.children[attribute] = layer_of(child, where, depth + 1)
    else:
        raise UnsupportedModelError(f"layer {where!r}: {_unknown(layer, given)}")
    return layer


def _unknown(layer: Layer, given: Mapping) -> str:
    if layer.kind in ("Lambda", "TFOpLambda", "SlicingOpLambda"):
        return f"a {layer.kind} is Python code, or an operation of TensorFlow called as a function; neither is run nor read: put a layer in its place"
    registered = given.get("registered_name")
    if layer.kind == "ConvLSTM1D" or layer.kind.startswith("ConvLSTM"):
        return f"{layer.kind} is not supported"
    custom = registered and ">" in str(registered) or layer.module and not layer.module.startswith(("keras", "tensorflow.keras", "tf_keras"))
    return f"{layer.kind} is {'a class of its own, whose code is not in the file' if custom else 'not among the layers that are read'}"


def _refuse_dtype(layer: Layer) -> None:
    """Raises for layers that compute in another dtype than float32."""
    policy = layer.config.get("dtype")
    name = policy.get("config", {}).get("name") if isinstance(policy, Mapping) and isinstance(policy.get("config"), Mapping) else policy
    if layer.kind != "InputLayer" and not layer.is_operation and name not in (None, "float32"):
        raise UnsupportedModelError(
            f"layer {layer.where!r}: it computes in {name!r}; float32 is supported: rebuild the model with dtype='float32' and set its weights"
        )


# Weights.


def weights_from_paths(root: Layer, weights: Group) -> None:
    """Fills in arrays from a .keras file, where each layer's variables lie under the path of attributes that leads to it."""
    _fill_from(root, weights)


def _fill_from(layer: Layer, group: Group | None) -> None:
    for place in dict.fromkeys(v.place for v in layer.variables):
        variables = [v for v in layer.variables if v.place == place]
        held = group
        if place and group is not None:
            held = next((found for spelling in place.split("|") if (found := group.group(spelling))), None)
        held = held.group("vars") if held is not None else None
        for k, variable in enumerate(sorted(variables, key=lambda v: not v.trainable)):
            found = held.find(str(k)) if held is not None else None
            if not isinstance(found, Array):
                raise InvalidModelError(f"layer {layer.where!r}: weight {variable.name!r} is not in the file (vars/{k} under {place or 'the layer'})")
            layer.arrays[variable.name] = _float32(found.read(), layer, variable.name)
        if held is not None and len(held.children) > len(variables):
            raise InvalidModelError(f"layer {layer.where!r}: {len(held.children)} weights are in the file; its config says {len(variables)}")
    if layer.is_network:
        _fill_members(layer, [c for c in layer.children.values() if not c.is_operation], group, CONTAINERS)
        return
    listed: dict[str, list[Layer]] = {}
    for attribute, child in layer.children.items():
        path, _, place = attribute.rpartition("/")
        if path:
            listed.setdefault(path, []).append(child)  # one of a list, such as cells/0
        elif any(True for _ in child.every()):
            _fill_from(child, group.group(place) if group is not None else None)
    for path, members in listed.items():
        _fill_members(layer, members, group, (path,))


def _fill_members(layer: Layer, members: Sequence[Layer], group: Group | None, containers: Sequence[str]) -> None:
    """Members of a container, which the file names by their class: dense, dense_1, ... Numbers may have gaps."""
    held = next((found for name in containers if group is not None and (found := group.group(name))), None)
    by_class: dict[str, list[tuple[int, Group]]] = {}
    for name, child in held.children.items() if held is not None else ():
        base, number = (m[1], int(m[2])) if (m := re.fullmatch(r"(.*)_(\d{1,9})", name)) else (name, -1)
        if isinstance(child, Group):
            by_class.setdefault(base, []).append((number, child))
    taken: dict[str, int] = {}
    for member in members:
        base = snake_case(member.kind)
        groups = [child for _, child in sorted(by_class.get(base, ()), key=lambda one: one[0])]
        k = taken[base] = taken.get(base, -1) + 1
        found = groups[k] if k < len(groups) else None
        saved = found.group("vars") if found is not None else None
        if saved is not None and (name := saved.text("name")) is not None and name != member.name:
            raise InvalidModelError(f"layer {member.where!r}: the weights in its place are those of {name!r}")
        if found is None and any(True for _ in member.every()):
            raise InvalidModelError(f"layer {member.where!r}: its weights are not in the file")
        _fill_from(member, found)


def snake_case(name: str) -> str:
    """A class's name as Keras's files have it."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def weights_from_lists(root: Layer, weights: Group) -> None:
    """Fills in arrays from an .h5 file, where each layer of the outermost model has a list of weights: trained ones first."""
    lists = {}
    for name in _listed(weights, "layer_names"):
        group = weights.group(name)
        if group is None:
            raise InvalidModelError(f"layer {name!r} has no group in the file")
        found = [(weight, group.find(weight)) for weight in _listed(group, "weight_names")]
        for weight, array in found:
            if not isinstance(array, Array):
                raise InvalidModelError(f"layer {name!r}: weight {weight!r} is not in the file")
        lists[name] = [(weight, array.read()) for weight, array in found]
    fill(root, lists)


def _listed(group: Group, name: str) -> list[str]:
    """Names in an attribute, or, where they are too long for one, in name0, name1, ..."""
    if (whole := group.attributes.get(name)) is not None:
        return whole
    parts = []
    while (part := group.attributes.get(f"{name}{len(parts)}")) is not None:
        parts.append(part)
    if not parts:
        raise InvalidModelError(f"group {group.path or '/'!r} has no {name}")
    return [one for part in parts for one in part]


def fill(root: Layer, lists: Mapping[str, Sequence[tuple[str, np.ndarray]]]) -> None:
    """Fills in arrays from lists of (name, array) by layer."""
    for child in root.children.values():
        if child.is_operation:
            continue
        slots = list(child.every())
        slots = [s for s in slots if s[2]] + [s for s in slots if not s[2]]
        given = lists.get(child.name, ())
        if len(given) != len(slots):
            raise InvalidModelError(
                f"layer {child.where!r}: {len(given)} weights are given, {', '.join(n for n, _ in given) or 'none'}; its config says {len(slots)}"
            )
        for (layer, variable, _), (name, array) in zip(slots, given):
            last, wanted = re.sub(r":\d+$", "", name).rpartition("/")[2], variable.name.rpartition("/")[2]
            if re.sub(r"_\d+$", "", last) != wanted and last in {v.name.rpartition("/")[2] for _, v, _ in slots}:
                raise InvalidModelError(f"layer {layer.where!r}: {name!r} stands where {variable.name!r} is expected")
            layer.arrays[variable.name] = _float32(array, layer, variable.name)


def _float32(array: np.ndarray, layer: Layer, name: str) -> np.ndarray:
    if array.dtype.kind in "iu" and layer.kind == "Normalization" and name == "count":
        return array
    if array.dtype != np.float32:
        raise DTypeError(f"layer {layer.where!r}: weight {name!r} must be float32, got {array.dtype}")
    return array
