"""A stack of recurrent layers with torch's options and parameter names, and its nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrnn.cells import GATES, Cell
from fastrnn.cells.activations import Activation, parse_activation
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.cells.gate_order import permute, permute_peepholes
from fastrnn.errors import DTypeError, ShapeError, UnsupportedModelError
from fastrnn.model.builder import GraphBuilder
from fastrnn.model.graph import Model, State, Value
from fastrnn.model.recurrent import INPUTS

PEEPHOLES = ("i", "f", "o")


@dataclass(frozen=True)
class StackOptions:
    """What a torch.nn.RNN, LSTM or GRU and ONNX's operators can be told. kind: rnn, lstm, gru, or recurrent for a custom cell."""

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
    cell: Cell | None = None

    def __post_init__(self) -> None:
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
        projects = self.kind == "lstm" or self.cell is not None and self.cell.projectable
        if not 0 <= self.proj_size < self.hidden_size or self.proj_size and not projects:
            raise UnsupportedModelError(
                f"{self.kind}: proj_size must be 0, or, for a cell that neither reads h unit for unit nor has a second phase, less than hidden_size = "
                f"{self.hidden_size}, got {self.proj_size}"
            )
        if self.cell is not None and self.cell.uses_input and any(self.layer_input(k) != self.hidden_size for k in range(min(self.num_layers, 2))):
            raise ShapeError(
                f"{self.kind}: cell {self.cell.name!r} reads x unit for unit, so every layer's input must have hidden_size = {self.hidden_size} features"
            )
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
        return self.cell.states if self.cell else ("h", "c") if self.kind == "lstm" else ("h",)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the numbers that come with each step."""
        return self.cell.scalars if self.cell else ()

    def layer_input(self, layer: int) -> int:
        """I of a layer."""
        return self.input_size if layer == 0 else self.output_size * self.directions

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter names and shapes, torch's, with peepholes as weight_p{i,f,o}_l0."""
        H, P, cell = self.hidden_size, self.output_size, self.cell
        shapes: dict[str, tuple[int, ...]] = {}
        over = {"ih": len(cell.x_gates), "hh": len(cell.h_gates)} if cell else dict.fromkeys(("ih", "hh"), GATES[self.kind])
        biased = {"ih": len(cell.biased("x")), "hh": len(cell.biased("h"))} if cell else over
        for layer in range(self.num_layers):
            columns = {"ih": self.layer_input(layer), "hh": P}
            for suffix in self.suffixes(layer):
                shapes |= {f"weight_{side}_{suffix}": (n * H, columns[side]) for side, n in over.items() if n}
                if self.bias:
                    shapes |= {f"bias_{side}_{suffix}": (n * H,) for side, n in biased.items() if n}
                if self.proj_size:
                    shapes[f"weight_hr_{suffix}"] = (P, H)
                shapes |= {f"weight_{name}_{suffix}": (H,) for name in self.vectors}
        return shapes

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the per-unit parameters."""
        return self.cell.parameters if self.cell else tuple(f"p{gate}" for gate in PEEPHOLES) if self.peepholes else ()

    def suffixes(self, layer: int) -> tuple[str, ...]:
        """Endings of a layer's parameter names, forward first."""
        return (f"l{layer}", f"l{layer}_reverse")[: self.directions]

    def check(self, parameters: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
        """float32 copies of the parameters; raises ShapeError or DTypeError naming layer and parameter."""
        shapes = self.shapes()
        missing, unknown = [n for n in shapes if n not in parameters], [n for n in parameters if n not in shapes]
        if missing or unknown:
            raise ShapeError(
                f"{where}: " + "; ".join(f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names)
            )
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


def parse_activations(kind: str, given: Any, bidirectional: bool) -> tuple[tuple[Activation, ...], ...]:
    """A tuple of activations for each direction, from one tuple (for all) or a pair of tuples."""
    if given is None:
        return ()
    expected = len(DEFAULT_ACTIVATIONS[kind])
    given = (given,) if isinstance(given, (str, Activation)) else given

    def is_one(item: Any) -> bool:
        return isinstance(item, (str, Activation)) or isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[1], Mapping)

    listed = isinstance(given, (tuple, list))
    directions = (given,) * (2 if bidirectional else 1) if listed and all(map(is_one, given)) else given
    if (
        not listed
        or len(directions) != (2 if bidirectional else 1)
        or any(not isinstance(d, (tuple, list)) or len(d) != expected for d in directions)
    ):
        raise UnsupportedModelError(f"{kind}: activations must be {expected} for one direction, or a pair of such tuples for two; got {given!r}")
    return tuple(tuple(parse_activation(a, f"{kind} activations") for a in d) for d in directions)


def _node_weights(o: StackOptions, layer: int, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A layer's weights as ONNX's operator takes them: directions stacked, gates in ONNX's order."""

    def stacked(pattern: str, reorder: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.stack([reorder(parameters[pattern.format(s)]) for s in o.suffixes(layer)])

    def gates(a: np.ndarray) -> np.ndarray:
        return a if o.cell else permute(a, o.kind, "torch", "onnx")

    suffix = o.suffixes(layer)[0]
    weights = {which: stacked(f"weight_{side}_{{}}", gates) for which, side in (("W", "ih"), ("R", "hh")) if f"weight_{side}_{suffix}" in parameters}
    biases = [stacked(f"bias_{side}_{{}}", gates) for side in ("ih", "hh") if f"bias_{side}_{suffix}" in parameters]
    if biases:
        weights["B"] = np.concatenate(biases, axis=1)
    if o.vectors:
        whole = [np.concatenate([parameters[f"weight_{name}_{s}"] for name in o.vectors]) for s in o.suffixes(layer)]
        weights["P"] = np.stack([p if o.cell else permute_peepholes(p, "torch", "onnx") for p in whole])
    if o.proj_size:
        weights["projection"] = stacked("weight_hr_{}", lambda a: a)
    return weights


def add_stack(
    build: GraphBuilder,
    name: str,
    o: StackOptions,
    parameters: Mapping[str, np.ndarray],
    x: str,
    y: str,
    states: Mapping[str, str] = {},
    finals: Mapping[str, str] = {},
    lengths: str = "",
    scalars: str = "",
    keep: str = "",
) -> None:
    """Adds a stack from value x to value y.

    states, finals: {"h": value, "c": value} of shape (layers * D, B, n), as torch passes them; left out, they stay inside. scalars: a value with
    x's first two axes and one for those of a custom cell; keep: one with x's first two axes, what states are multiplied by on their way into a step.
    """
    D, parts = o.directions, {letter: list[str]() for letter in finals}
    for layer in range(o.num_layers):
        node = f"{name}.{layer}" if o.num_layers > 1 else name
        weights = {k: build.weight(f"{node}.{k}", a) for k, a in _node_weights(o, layer, parameters).items()}
        given = {}
        for letter, whole in states.items():
            given[letter] = whole
            if o.num_layers > 1:
                given[letter] = f"{node}.{letter}.initial"
                bounds = [
                    build.whole(f"{given[letter]}.{what}", value) for what, value in (("start", layer * D), ("stop", (layer + 1) * D), ("axis", 0))
                ]
                build.add("Slice", given[letter], [whole, *bounds], [given[letter]])
        outputs = [y if layer == o.num_layers - 1 else f"{node}.y"]
        for letter in o.states:
            final = "" if letter not in finals else finals[letter] if o.num_layers == 1 else f"{node}.{letter}.final"
            outputs.append(final)
            if final:
                parts[letter].append(final)
        values = {"X": x, "sequence_lens": lengths, "scalars": scalars, "keep": keep, **weights, **{f"initial_{k}": given.get(letter, "") for k, letter in enumerate(o.states)}}  # fmt: skip
        inputs = [values.get(name, "") for name in INPUTS]
        while not inputs[-1]:
            inputs.pop()
        build.add("Recurrent" if o.cell else o.kind.upper(), node, inputs, outputs, **_attributes(o))
        x = outputs[0]
    if o.num_layers > 1:
        for letter, final in finals.items():
            build.add("Concat", f"{name}.{letter}.final", parts[letter], [final], axis=0)


def side_by_side(build: GraphBuilder, name: str, scalars: Mapping[str, str]) -> str:
    """The value that has these values (T, B) in a last axis; empty for none."""
    if not scalars:
        return ""
    columns = [f"{name}.{scalar}" for scalar in scalars]
    for value, column in zip(scalars.values(), columns):
        build.add("Unsqueeze", column, [value, build.whole(f"{column}.axis", 2)], [column])
    if len(columns) == 1:
        return columns[0]
    build.add("Concat", f"{name}.scalars", columns, [f"{name}.scalars"], axis=2)
    return f"{name}.scalars"


def _attributes(o: StackOptions) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "hidden_size": o.hidden_size,
        "direction": "bidirectional" if o.bidirectional else "reverse" if o.reverse else "forward",
        "layout": int(o.batch_first),
        "torch_form": 1,
    }
    if o.cell:
        attributes |= {"cell": o.cell.name, "fingerprint": o.cell.fingerprint}
    if o.clip is not None:
        attributes["clip"] = float(o.clip)
    if o.activations:
        attributes["activations"] = tuple(a for d in o.activations for a in d)
    if o.kind == "gru":
        attributes["linear_before_reset"] = int(o.reset_after)
    if o.input_forget:
        attributes["input_forget"] = 1
    return attributes


def stack_model(o: StackOptions, parameters: Mapping[str, np.ndarray], name: str, with_lengths: bool = False, with_keep: bool = False) -> Model:
    """A stack as a model: inputs x, h0, c0 (a custom cell's states and scalars, lengths, and keep), outputs y, h_n, c_n, the states tied. h0, c0,
    lengths and keep may be left out.

    h0, c0 are (layers * D, B, n) in both layouts, as torch has them.
    """
    shape = ("B", "T", o.input_size) if o.batch_first else ("T", "B", o.input_size)
    inputs = [Value("x", "float32", shape), *(Value(name, "float32", shape[:2]) for name in o.scalars)]
    inputs += [
        Value(f"{s}0", "float32", (o.num_layers * o.directions, "B", o.hidden_size if k else o.output_size), optional=True)
        for k, s in enumerate(o.states)
    ]
    inputs += [Value("lengths", "int64", ("B",), optional=True)] if with_lengths else []
    inputs += [Value("keep", "float32", shape[:2], optional=True)] if with_keep else []
    build = GraphBuilder()
    scalars = side_by_side(build, name, {scalar: scalar for scalar in o.scalars})
    add_stack(
        build,
        name,
        o,
        parameters,
        "x",
        "y",
        {s: f"{s}0" for s in o.states},
        {s: f"{s}_n" for s in o.states},
        "lengths" if with_lengths else "",
        scalars,
        "keep" if with_keep else "",
    )
    states = tuple(State(f"{s}0", f"{s}_n") for s in o.states)
    return Model(tuple(inputs), ("y", *(f"{s}_n" for s in o.states)), tuple(build.nodes), build.weights, states, name)
