"""The graph that grows, and one call of a layer as its converter sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from fastrnn.converters.keras_import.tree import Layer
from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model import Node, State, Value
from fastrnn.model.builder import GraphBuilder
from fastrnn.model.infer import infer, spec_of
from fastrnn.model.ops import ANY_DIM, Spec

LAST = np.iinfo(np.int64).max  # as the end of a slice: to the end
MOST_NODES = 1 << 15
# Options without a meaning for inference, those of every layer included.
IGNORED = ("name", "trainable", "dtype", "seed", "batch_input_shape", "batch_shape", "build_config", "implementation", "unroll", "time_major", "input_dtype", "activity_regularizer",
           "autocast", "momentum", "synchronized", "ragged", "sparse", "experimental_autocast", "input_length", "input_dim", "registered_name", "embeddings_initializer", "renorm_momentum",
           "unit_forget_bias", "dropout", "recurrent_dropout", "noise_shape", "rate", "stddev", "use_cudnn")  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A value of the graph. mask: the bool value (B, T) that goes along with it."""

    name: str
    spec: Spec
    mask: Tensor | None = None

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Its dimensions, symbols where they are open."""
        return self.spec.shape

    @property
    def rank(self) -> int:
        """Number of axes, the batch included."""
        return len(self.spec.shape)

    def masked(self, mask: Tensor | None) -> Tensor:
        """The same value with another mask."""
        return replace(self, mask=mask)


class Graph:
    """Nodes, weights, states and the specs of all values."""

    def __init__(self, version: tuple[int, ...]):
        self.version = version
        self.build, self.specs = GraphBuilder(), {}
        self.inputs: list[Value] = []
        self.outputs: dict[str, Tensor] = {}  # of states
        self.states: list[State] = []
        self._names: set[str] = set()
        self._constants: dict[tuple, str] = {}
        self._settled = 0, 0  # nodes and weights whose specs are there

    def unique(self, wanted: str) -> str:
        """A name that nothing has yet."""
        name, k = wanted, 1
        while name in self._names:
            name, k = f"{wanted}.{k}", k + 1
        self._names.add(name)
        return name

    def add_input(self, name: str, dtype: str, shape: Sequence[int | str], optional: bool = False) -> Tensor:
        """An input of the model."""
        value = Value(self.unique(name), dtype, tuple(shape), optional)
        self.inputs.append(value)
        self.specs[value.name] = Spec(dtype, value.shape)
        return self.tensor(value.name)

    def tensor(self, name: str) -> Tensor:
        """A value by its name."""
        spec = self.specs[name]
        if spec.shape is None:
            raise UnsupportedModelError(f"value {name!r}: its rank is not known")
        return Tensor(name, spec)

    def begin_body(self) -> None:
        """What is added from here on, constants apart, belongs to the body of a loop."""
        self._outer = self.build.nodes, self._settled
        self.build.nodes, self._settled = [], (0, self._settled[1])

    def end_body(self) -> list[Node]:
        """The body's nodes; what follows is added behind what was there before."""
        nodes = self.build.nodes
        (self.build.nodes, (count, _)), self._settled = self._outer, (0, self._settled[1])
        self._settled = count, self._settled[1]
        return nodes

    def settle(self) -> None:
        """Specs of what was added to `build` since."""
        nodes, weights = self._settled
        for name, array in islice(self.build.weights.items(), weights, None):
            self.specs[name] = spec_of(array)
        try:
            infer(self.build.nodes[nodes:], self.specs)
        except ShapeError as error:  # shapes in a file that do not fit are a fault of the file
            raise InvalidModelError(str(error)) from error
        self._settled = len(self.build.nodes), len(self.build.weights)
        if len(self.build.nodes) > MOST_NODES:
            raise UnsupportedModelError(f"the model has more than {MOST_NODES} operations")

    def constant(self, value, dtype: str) -> str:
        """A constant of a dtype, each once."""
        array = np.array(value, dtype)
        key = dtype, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = self.build.weight(self.unique("constant"), array)
        return self._constants[key]


class Site:
    """A layer that is called: its options and weights, and the nodes that it becomes."""

    def __init__(self, graph: Graph, layer: Layer):
        self.graph, self.layer, self._read = graph, layer, set()

    @property
    def where(self) -> str:
        """How messages name the layer."""
        return f"layer {self.layer.where!r} ({self.layer.kind})"

    def refuse(self, why: str) -> UnsupportedModelError:
        """The error for what fastrnn lacks."""
        return UnsupportedModelError(f"{self.where}: {why}")

    def invalid(self, why: str) -> InvalidModelError:
        """The error for what no layer can mean."""
        return InvalidModelError(f"{self.where}: {why}")

    # Options.

    def option(self, name: str, default=None):
        """An option of the config, which is then known to be honoured."""
        self._read.add(name)
        return self.layer.config.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """An option that is true or false."""
        value = self.option(name, default)
        if not isinstance(value, bool):
            raise self.invalid(f"{name} must be true or false, got {value!r}")
        return value

    def whole(self, name: str, default: int | None = None, least: int = 1) -> int:
        """An option that is a whole number."""
        value = self.option(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
            raise self.invalid(f"{name} must be a whole number from {least}, got {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """An option that is a number."""
        value = self.option(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e38:
            raise self.invalid(f"{name} must be a number, got {value!r}")
        return float(value)

    def wholes(self, name: str, n: int, default=None, least: int = 1) -> tuple[int, ...]:
        """An option that is n whole numbers, or one for all."""
        value = self.option(name, default)
        value = [value] * n if isinstance(value, int) else value
        if (
            not isinstance(value, (list, tuple))
            or len(value) != n
            or any(isinstance(v, bool) or not isinstance(v, int) or not least <= v < 2**31 for v in value)
        ):
            raise self.invalid(f"{name} must be {n} whole numbers from {least}, got {value!r}")
        return tuple(value)

    def choice(self, name: str, default: str | None, *choices: str | None) -> str | None:
        """An option that is one of some words."""
        value = self.option(name, default)
        if value not in choices:
            raise self.refuse(f"{name}={value!r} is not supported, only {', '.join(map(repr, choices))}")
        return value

    def finish(self) -> None:
        """Raises for an option that nobody read and that may mean something."""
        for name, value in self.layer.config.items():
            if (
                name not in self._read
                and name not in IGNORED
                and not name.endswith(("_initializer", "_regularizer", "_constraint"))
                and value not in (None, False, [], {})
            ):
                raise self.refuse(f"option {name}={value!r} is not known".replace("\n", " ")[:300])

    # Weights.

    def array(self, name: str, shape: Sequence[int | None] | None = None) -> np.ndarray:
        """A weight, its shape checked; None leaves a dimension free."""
        array = self.layer.arrays.get(name)
        if array is None:
            raise self.invalid(f"weight {name!r} is missing")
        if shape is not None and (array.ndim != len(shape) or any(s is not None and s != d for s, d in zip(shape, array.shape))):
            raise InvalidModelError(
                f"{self.where}: weight {name!r} must have shape ({', '.join('?' if s is None else str(s) for s in shape)}), got {array.shape}"
            )
        return array

    def weight(self, name: str, shape: Sequence[int | None] | None = None) -> str:
        """A weight as a value of the graph; one for all calls of the layer."""
        return self.stored(name, self.array(name, shape))

    def stored(self, name: str, array: np.ndarray) -> str:
        """An array under the layer's name; the same value at every call."""
        value = f"{self.layer.where}.{name}"
        if value in self.graph.build.weights and (known := self.graph.build.weights[value]).dtype == array.dtype and np.array_equal(known, array):
            return value
        return self.graph.build.weight(self.graph.unique(value), array)

    def constant(self, value, dtype: str) -> str:
        """A constant of a dtype."""
        return self.graph.constant(value, dtype)

    def ints(self, *values: int) -> str:
        """A constant int64 (n,)."""
        return self.constant(list(values), "int64")

    def floats(self, value) -> str:
        """A constant float32."""
        return self.constant(value, "float32")

    # Nodes.

    def value(self, wanted: str = "") -> str:
        """A name for a value that this layer makes."""
        return self.graph.unique(f"{self.layer.where}.{wanted}" if wanted else self.layer.where)

    def emit(self, op: str, *inputs: Tensor | str | None, **attributes) -> Tensor:
        """Adds a node; returns its first result."""
        return self.emit_all(op, 2 if op == "TopK" else 1, *inputs, **attributes)[0]

    def emit_all(self, op: str, results: int, *inputs: Tensor | str | None, **attributes) -> list[Tensor]:
        """Adds a node of several results."""
        names = ["" if x is None else x if isinstance(x, str) else x.name for x in inputs]
        while names and not names[-1]:
            names.pop()
        made = tuple(self.value(op.lower()) for _ in range(results))
        self.graph.build.nodes.append(Node(op, made[0], tuple(names), made, attributes))
        self.graph.settle()
        return [self.graph.tensor(name) for name in made]

    def known(self, x: Tensor, axis: int, what: str = "") -> int:
        """A dimension that has to be a number."""
        dim = x.shape[axis] if -x.rank <= axis < x.rank else ANY_DIM
        if isinstance(dim, str):
            raise self.refuse(f"axis {axis} of its input {x.shape} must have a fixed size{what}")
        return dim

    def reshape(self, x: Tensor, *dims: int) -> Tensor:
        """In ONNX's terms: 0 keeps a dimension, -1 is what is left."""
        return self.emit("Reshape", x, self.ints(*dims))

    def transpose(self, x: Tensor, *perm: int) -> Tensor:
        """Axes in another order."""
        return x if perm == tuple(range(x.rank)) else self.emit("Transpose", x, perm=list(perm))

    def cut(self, x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        """A slice along one axis."""
        return self.emit("Slice", x, *(self.ints(v) for v in (start, stop, axis, step)))

    def take(self, x: Tensor, axis: int, index: int) -> Tensor:
        """One place of an axis."""
        return self.emit("Gather", x, self.constant(index, "int64"), axis=axis)

    def flip(self, x: Tensor, axis: int) -> Tensor:
        """An axis backwards."""
        return self.cut(x, axis, -1, -LAST, -1)

    def reduce(self, op: str, x: Tensor, axes: Iterable[int], keepdims: bool = False) -> Tensor:
        """Over axes."""
        return self.emit(op, x, self.ints(*axes), keepdims=int(keepdims))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """As another dtype."""
        return x if x.spec.dtype == dtype else self.emit("Cast", x, to=dtype)
