"""One operator as its converter sees it: what goes in, as stored or as the real numbers that it stands for, its options, and the nodes that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.converters.keras_import.site import Tensor
from fastrnn.converters.tflite_import.schema import Operator, Quantization, TensorInfo
from fastrnn.errors import InvalidModelError, UnsupportedModelError
from fastrnn.model import Node

INTEGERS = ("int8", "uint8", "int16", "int32", "int64")  # that may stand for real numbers; int64 as biases beside int16
ACTIVATIONS = {0: None, 1: "Relu", 2: (-1.0, 1.0), 3: (0.0, 6.0), 4: "Tanh"}  # of the schema: NONE, RELU, RELU_N1_TO_1, RELU6, TANH


def stands_for_reals(info: TensorInfo) -> bool:
    """Whether a tensor's integers have a scale."""
    return info.quantization is not None and info.dtype in INTEGERS


def real_array(info: TensorInfo) -> np.ndarray:
    """A constant's numbers."""
    if not stands_for_reals(info):
        return info.array.astype(np.float32) if info.dtype == "float16" else info.array
    q, spread = info.quantization, [1] * info.array.ndim
    if len(q.scale) > 1:
        spread[q.axis] = -1
    zero = q.zero_point.reshape(spread if len(q.zero_point) > 1 else [1] * info.array.ndim)
    return ((info.array.astype(np.int64) - zero) * q.scale.astype(np.float64).reshape(spread)).astype(np.float32)


@dataclass
class Frame:
    """One run of a subgraph. read: tensors that something takes. values: by tensor, as stored: a Tensor, or a list of tensors of TensorFlow's (control.py)."""

    tensors: tuple[TensorInfo, ...]
    read: frozenset[int]
    values: dict[int, Any]


class Call:
    """An operator in a frame."""

    def __init__(self, network, frame: Frame, operator: Operator, index: int):
        self.network, self.frame, self.operator, self.index = network, frame, operator, index

    @property
    def kind(self) -> str:
        """The operator's name."""
        return self.operator.kind

    @property
    def where(self) -> str:
        """How messages name it."""
        name = self.frame.tensors[self.operator.outputs[0]].name if self.operator.outputs else ""
        return f"operator {self.index} {self.kind} ({name[:80]!r})"

    def refuse(self, why: str) -> UnsupportedModelError:
        """The error for what fastrnn lacks."""
        return UnsupportedModelError(f"{self.where}: {why}")

    def invalid(self, why: str) -> InvalidModelError:
        """The error for what makes no sense."""
        return InvalidModelError(f"{self.where}: {why}")

    # Options.

    def option(self, slot: int, form: str = "i", default=0):
        """A number among the options, in struct's notation; slot: its place in the schema."""
        options = self.operator.options
        return default if options is None else options.number(slot, form, default)

    def flag(self, slot: int) -> bool:
        """A bool among the options."""
        return bool(self.option(slot, "B"))

    # What goes in.

    def __len__(self) -> int:
        return len(self.operator.inputs)

    def has(self, k: int) -> bool:
        """Whether input k is given."""
        return k < len(self.operator.inputs) and self.operator.inputs[k] >= 0

    def info(self, k: int) -> TensorInfo:
        """What the file says of input k."""
        if not self.has(k):
            raise self.invalid(f"input {k} is missing")
        return self.frame.tensors[self.operator.inputs[k]]

    def stored(self, k: int):
        """Input k as it is stored."""
        info, index = self.info(k), self.operator.inputs[k]
        if index not in self.frame.values:
            if info.array is None:
                raise self.invalid(f"input {k} ({info.name[:80]!r}) has no value yet")
            array = info.array.astype(np.float32) if info.dtype == "float16" else info.array
            self.frame.values[index] = self.network.named_constant(info.name, array)
        return self.frame.values[index]

    def real(self, k: int) -> Tensor:
        """Input k as the numbers that it stands for."""
        info = self.info(k)
        if not stands_for_reals(info):
            return self.tensor(k)
        if info.array is not None:
            return self.network.named_constant(info.name, real_array(info))
        return self.emit("DequantizeLinear", self.tensor(k), *self._scale(info.dtype, info.quantization), axis=info.quantization.axis)

    def tensor(self, k: int) -> Tensor:
        """Input k as it is stored, which must be no list."""
        value = self.stored(k)
        if not isinstance(value, Tensor):
            raise self.refuse(f"input {k} is a list of tensors")
        return value

    def array(self, k: int, what: str) -> np.ndarray:
        """Input k, which must be a constant, or follow from shapes that are fixed."""
        info = self.info(k)
        if info.array is not None:
            return info.array
        constant = self.tensor(k).spec.constant
        if constant is None:
            raise self.refuse(f"{what} must be a constant")
        return constant

    def wholes(self, k: int, what: str) -> list[int]:
        """The same as whole numbers."""
        array = self.array(k, what)
        if array.dtype.kind not in "iuO":
            raise self.invalid(f"{what} must be whole numbers, got {array.dtype}")
        return [int(v) for v in array.ravel()]

    def _scale(self, dtype: str, q: Quantization) -> tuple[str, str]:
        scale = q.scale if len(q.scale) > 1 else q.scale[0]
        ends = np.iinfo(dtype)
        if not (q.zero_point >= ends.min).all() or not (q.zero_point <= ends.max).all():
            raise self.invalid(f"a zero point is outside {dtype}")
        zero = np.broadcast_to(q.zero_point, q.scale.shape) if len(q.scale) > 1 else q.zero_point[0]
        return self.network.constant(scale, "float32"), self.network.constant(zero, dtype)

    # What comes out.

    def out(self, k: int = 0) -> TensorInfo:
        """What the file says of output k."""
        if k >= len(self.operator.outputs):
            raise self.invalid(f"it has {len(self.operator.outputs)} outputs, {k + 1} at least are expected")
        return self.frame.tensors[self.operator.outputs[k]]

    def give(self, value: Tensor, k: int = 0) -> None:
        """Output k, as the numbers that it stands for."""
        info = self.out(k)
        if stands_for_reals(info):
            if info.dtype in ("int32", "int64"):
                raise self.refuse(f"results of {info.dtype} with a scale are not supported")
            value = self.emit("QuantizeLinear", value, *self._scale(info.dtype, info.quantization), axis=info.quantization.axis)
        self.give_stored(value, k)

    def give_stored(self, value, k: int = 0) -> None:
        """Output k, as it is stored."""
        info = self.out(k)
        wanted = "float32" if info.dtype == "float16" else info.dtype
        if isinstance(value, Tensor) and value.spec.dtype != wanted:
            raise self.invalid(f"it gives {value.spec.dtype}, the file says {wanted}")
        self.frame.values[self.operator.outputs[k]] = value

    # Nodes.

    def emit(self, op: str, *inputs: Tensor | str | None, **attributes) -> Tensor:
        """Adds a node; returns its first result."""
        return self.emit_all(op, 2 if op == "TopK" else 1, *inputs, **attributes)[0]

    def emit_all(self, op: str, results: int | list[bool], *inputs: Tensor | str | None, **attributes) -> list[Tensor | None]:
        """Adds a node of several results, or of those that are wanted."""
        names = ["" if x is None else x if isinstance(x, str) else x.name for x in inputs]
        while names and not names[-1]:
            names.pop()
        base = f"{self.kind.lower()}{self.index}"
        wanted = [True] * results if isinstance(results, int) else results
        made = tuple(self.network.unique(f"{base}.{op.lower()}") if w else "" for w in wanted)
        self.network.build.nodes.append(Node(op, next(filter(None, made), self.network.unique(base)), tuple(names), made, attributes))
        self.network.settle()
        return [self.network.tensor(name) if name else None for name in made]

    def ints(self, *values: int) -> str:
        """A constant int64 (n,)."""
        return self.network.constant(list(values), "int64")

    def floats(self, value) -> str:
        """A constant float32."""
        return self.network.constant(value, "float32")

    def activated(self, value: Tensor, code: int) -> Tensor:
        """The fused activation behind."""
        if code not in ACTIVATIONS:
            raise self.refuse(f"fused activation {code} is not supported")
        kind = ACTIVATIONS[code]
        if isinstance(kind, tuple):
            return self.emit("Clip", value, *(self.floats(v) for v in kind))
        return value if kind is None else self.emit(kind, value)

    def transpose(self, x: Tensor, *perm: int) -> Tensor:
        """Axes in another order."""
        return x if perm == tuple(range(x.rank)) else self.emit("Transpose", x, perm=list(perm))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """As another dtype."""
        return x if x.spec.dtype == dtype else self.emit("Cast", x, to=dtype)

    def moved(self, function, *which: int) -> None:
        """Output 0 as function(inputs) that only moves entries: of stored numbers where all have one scale, else of real ones."""
        infos = [self.info(k) for k in which]
        alike = all(_same(info, self.out()) for info in infos)
        (self.give_stored if alike else self.give)(function(*(self.tensor(k) if alike else self.real(k) for k in which)))


def _same(a: TensorInfo, b: TensorInfo) -> bool:
    """Whether two tensors' stored numbers mean the same."""
    if stands_for_reals(a) != stands_for_reals(b) or a.dtype != b.dtype:
        return False
    p, q = a.quantization, b.quantization
    return not stands_for_reals(a) or len(p.scale) == len(q.scale) == 1 and p.scale[0] == q.scale[0] and p.zero_point[0] == q.zero_point[0]
