"""A stack of recurrent layers with torch's options and parameter names, and its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fastrnn.cells import GATES
from fastrnn.cells.activations import Activation, parse_activation
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.cells.gate_order import permute, permute_peepholes
from fastrnn.errors import DTypeError, ShapeError, UnsupportedModelError
from fastrnn.model.graph import Model, Node, State, Value

PEEPHOLES = ("i", "f", "o")


@dataclass(frozen=True)
class StackOptions:
    """What a torch.nn.RNN, LSTM or GRU and ONNX's operators can be told. kind: rnn, lstm or gru."""

    kind: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    bidirectional: bool = False
    proj_size: int = 0
    reset_after: bool = True
    peepholes: bool = False
    input_forget: bool = False
    clip: float | None = None
    activations: tuple[tuple[Activation, ...], ...] = field(default=())  # for each direction; empty: the defaults
    reverse: bool = False

    def __post_init__(self):
        for name in ("input_size", "hidden_size", "num_layers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ShapeError(f"{self.kind}: {name} must be a positive integer, got {value!r}")
            object.__setattr__(self, name, int(value))
        for name in ("bias", "batch_first", "bidirectional", "reset_after", "peepholes", "input_forget", "reverse"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise UnsupportedModelError(f"{self.kind}: {name} must be True or False, got {getattr(self, name)!r}")
        for name, kinds in (("proj_size", (int, np.integer)), ("clip", (int, float, np.number, type(None)))):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kinds) or value is not None and not -1e38 < value < 1e38:
                raise UnsupportedModelError(f"{self.kind}: {name} cannot be {value!r}")
        if not 0 <= self.proj_size < self.hidden_size or self.proj_size and self.kind != "lstm":
            raise UnsupportedModelError(f"{self.kind}: proj_size must be 0, or for an LSTM less than hidden_size = {self.hidden_size}, got {self.proj_size}")
        if self.kind != "lstm" and (self.peepholes or self.input_forget):
            raise UnsupportedModelError(f"{self.kind}: peepholes and input_forget belong to an LSTM")
        if self.clip is not None and not self.clip > 0:
            raise UnsupportedModelError(f"{self.kind}: clip must be positive, got {self.clip!r}")
        if self.bidirectional and self.reverse:
            raise UnsupportedModelError(f"{self.kind}: bidirectional already has a reverse direction; reverse=True cannot be added")

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P: features of h in one direction."""
        return self.proj_size or self.hidden_size

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states."""
        return ("h", "c") if self.kind == "lstm" else ("h",)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter names and shapes, torch's, with peepholes as weight_p{i,f,o}_l0."""
        G, H, P, shapes = GATES[self.kind], self.hidden_size, self.output_size, {}
        for layer in range(self.num_layers):
            I = self.input_size if layer == 0 else P * self.directions
            for suffix in self.suffixes(layer):
                shapes |= {f"weight_ih_{suffix}": (G * H, I), f"weight_hh_{suffix}": (G * H, P)}
                if self.bias:
                    shapes |= {f"bias_ih_{suffix}": (G * H,), f"bias_hh_{suffix}": (G * H,)}
                if self.proj_size:
                    shapes[f"weight_hr_{suffix}"] = (P, H)
                if self.peepholes:
                    shapes |= {f"weight_p{gate}_{suffix}": (H,) for gate in PEEPHOLES}
        return shapes

    def suffixes(self, layer: int) -> tuple[str, ...]:
        """Endings of a layer's parameter names, forward first."""
        return (f"l{layer}", f"l{layer}_reverse")[:self.directions]

    def check(self, parameters: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
        """float32 copies of the parameters; raises ShapeError or DTypeError naming layer and parameter."""
        shapes = self.shapes()
        missing, unknown = [n for n in shapes if n not in parameters], [n for n in parameters if n not in shapes]
        if missing or unknown:
            raise ShapeError(f"{where}: " + "; ".join(f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names))
        checked = {}
        for name, shape in shapes.items():
            array = np.asarray(parameters[name])
            if array.dtype != np.float32 or not array.dtype.isnative:
                raise DTypeError(f"{where}: {name} must be float32 in native byte order, got {array.dtype.str}")
            if array.shape != shape:
                turned = "; is it transposed?" if array.shape == shape[::-1] and len(shape) == 2 else ""
                raise ShapeError(f"{where}: {name} must have shape {shape}, got {array.shape}{turned}")
            checked[name] = np.array(array, order="C")
        return checked


def parse_activations(kind: str, given, bidirectional: bool) -> tuple[tuple[Activation, ...], ...]:
    """A tuple of activations for each direction, from one tuple (for all) or a pair of tuples."""
    if given is None:
        return ()
    expected = len(DEFAULT_ACTIVATIONS[kind])
    given = (given,) if isinstance(given, (str, Activation)) else given

    def is_one(item) -> bool:
        return isinstance(item, (str, Activation)) or isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[1], Mapping)

    listed = isinstance(given, (tuple, list))
    directions = (given,) * (2 if bidirectional else 1) if listed and all(map(is_one, given)) else given
    if not listed or len(directions) != (2 if bidirectional else 1) or any(not isinstance(d, (tuple, list)) or len(d) != expected for d in directions):
        raise UnsupportedModelError(f"{kind}: activations must be {expected} for one direction, or a pair of such tuples for two; got {given!r}")
    return tuple(tuple(parse_activation(a, f"{kind} activations") for a in d) for d in directions)


def _node_weights(o: StackOptions, layer: int, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A layer's weights as ONNX's operator takes them: directions stacked, gates in ONNX's order."""

    def stacked(pattern: str, reorder):
        return np.stack([reorder(parameters[pattern.format(s)]) for s in o.suffixes(layer)])

    def gates(a):
        return permute(a, o.kind, "torch", "onnx")

    weights = {"W": stacked("weight_ih_{}", gates), "R": stacked("weight_hh_{}", gates)}
    if o.bias:
        weights["B"] = np.concatenate([stacked("bias_ih_{}", gates), stacked("bias_hh_{}", gates)], axis=1)
    if o.peepholes:
        whole = [np.concatenate([parameters[f"weight_p{g}_{s}"] for g in PEEPHOLES]) for s in o.suffixes(layer)]
        weights["P"] = np.stack([permute_peepholes(p, "torch", "onnx") for p in whole])
    if o.proj_size:
        weights["projection"] = stacked("weight_hr_{}", lambda a: a)
    return weights


class StackBuilder:
    """Nodes and weights of a graph that grows layer by layer."""

    def __init__(self):
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, op: str, name: str, inputs, outputs, **attributes) -> None:
        """Appends a node."""
        self.nodes.append(Node(op, name, tuple(inputs), tuple(outputs), attributes))

    def weight(self, name: str, array: np.ndarray) -> str:
        """Adds a weight and returns its name."""
        self.weights[name] = np.ascontiguousarray(array)
        return name

    def whole(self, name: str, *values: int) -> str:
        """Adds a constant int64 (n,) and returns its name."""
        return self.weight(name, np.array(values, np.int64))

    def stack(self, name: str, o: StackOptions, parameters: Mapping[str, np.ndarray], x: str, y: str, states: Mapping[str, str] = {},
              finals: Mapping[str, str] = {}, lengths: str = "") -> None:
        """Adds a stack from value x to value y.

        states, finals: {"h": value, "c": value} of shape (layers * D, B, n), as torch passes them; left out, they stay inside.
        """
        D, parts = o.directions, {letter: [] for letter in finals}
        for layer in range(o.num_layers):
            node = f"{name}.{layer}" if o.num_layers > 1 else name
            weights = {k: self.weight(f"{node}.{k}", a) for k, a in _node_weights(o, layer, parameters).items()}
            given = {}
            for letter, whole in states.items():
                given[letter] = whole
                if o.num_layers > 1:
                    given[letter] = f"{node}.{letter}.initial"
                    bounds = [self.whole(f"{given[letter]}.{what}", value) for what, value in (("start", layer * D), ("stop", (layer + 1) * D), ("axis", 0))]
                    self.add("Slice", given[letter], [whole, *bounds], [given[letter]])
            outputs = [y if layer == o.num_layers - 1 else f"{node}.y"]
            for letter in o.states:
                final = "" if letter not in finals else finals[letter] if o.num_layers == 1 else f"{node}.{letter}.final"
                outputs.append(final)
                if final:
                    parts[letter].append(final)
            inputs = [x, weights["W"], weights["R"], weights.get("B", ""), lengths, given.get("h", "")]
            if o.kind == "lstm":
                inputs += [given.get("c", ""), weights.get("P", ""), weights.get("projection", "")]
            self.add(o.kind.upper(), node, inputs, outputs, **self._attributes(o))
            x = outputs[0]
        if o.num_layers > 1:
            for letter, final in finals.items():
                self.add("Concat", f"{name}.{letter}.final", parts[letter], [final], axis=0)

    @staticmethod
    def _attributes(o: StackOptions) -> dict:
        attributes = {"hidden_size": o.hidden_size, "direction": "bidirectional" if o.bidirectional else "reverse" if o.reverse else "forward",
                      "layout": int(o.batch_first), "torch_form": 1}
        if o.clip is not None:
            attributes["clip"] = float(o.clip)
        if o.activations:
            attributes["activations"] = tuple(a for d in o.activations for a in d)
        if o.kind == "gru":
            attributes["linear_before_reset"] = int(o.reset_after)
        if o.input_forget:
            attributes["input_forget"] = 1
        return attributes


def stack_model(o: StackOptions, parameters: Mapping[str, np.ndarray], name: str, with_lengths: bool = False) -> Model:
    """A stack as a model: inputs x, h0, c0 (and lengths), outputs y, h_n, c_n, the states tied. h0, c0 and lengths may be left out.

    h0, c0 are (layers * D, B, n) in both layouts, as torch has them.
    """
    shape = ("B", "T", o.input_size) if o.batch_first else ("T", "B", o.input_size)
    inputs, sizes = [Value("x", "float32", shape)], {"h": o.output_size, "c": o.hidden_size}
    inputs += [Value(f"{s}0", "float32", (o.num_layers * o.directions, "B", sizes[s]), optional=True) for s in o.states]
    inputs += [Value("lengths", "int64", ("B",), optional=True)] if with_lengths else []
    build = StackBuilder()
    build.stack(name, o, parameters, "x", "y", {s: f"{s}0" for s in o.states}, {s: f"{s}_n" for s in o.states}, "lengths" if with_lengths else "")
    states = tuple(State(f"{s}0", f"{s}_n") for s in o.states)
    return Model(tuple(inputs), ("y", *(f"{s}_n" for s in o.states)), tuple(build.nodes), build.weights, states, name)
