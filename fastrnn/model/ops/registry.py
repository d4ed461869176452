"""What the vocabulary is made of: an op's attributes, its shape inference, and its meaning in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.sizes import Size
from fastrnn.model.small import BOUNDED, DTYPE_OF, UNBOUNDED

Dim = int | Size | str  # a number, a free dimension of the call in hand, or a symbol
Shape = tuple[Dim, ...]
ANY_DIM = "?"  # a dimension that inference cannot name; equal to nothing, not even to itself
DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
COMPLEX = {
    "float32": "complex64",
    "float64": "complex128",
}  # by the dtype of its parts: of inputs and outputs, and of what moves them; nothing calculates with it
MAX_RANK = 8  # of any value; the executor's arrays on the stack are that long
MAX_ELEMENTS = 1 << 40  # of any value
MANY = 1 << 16


class Spec(NamedTuple):
    """dtype and shape of a value, and its content where that is known beforehand.

    shape is None where not even the rank is known. value: an array; its entries may be Sizes or symbols (dtype object).
    """

    dtype: str
    shape: Shape | None
    value: np.ndarray | None = None

    @property
    def constant(self) -> np.ndarray | None:
        """The value, if all its entries are known; Sizes are."""
        return None if self.value is None or self.value.dtype == object and any(isinstance(v, str) for v in self.value.ravel()) else self.value

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


UNKNOWN = Spec("", None)


@dataclass(frozen=True)
class Op:
    """infer: (node, specs of its inputs, None where omitted) -> specs of its outputs. inputs: fewest and most; outputs: most.

    apart: (node, specs, axes) -> whether the op keeps positions along the time axis apart, axes[k] being that axis of input k
    or None; an op without it mixes steps. See plan/streams/streaming.py.
    """

    infer: Callable[[Any, list[Spec | None]], list[Spec | None]]
    attributes: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[int, int] = (1, 1)
    outputs: int = 1
    apart: Callable[[Any, list, list], bool] | None = None


OPS: dict[str, Op] = {}
EVAL: dict[str, Callable] = {}


def op(*names: str, inputs: tuple[int, int] = (1, 1), outputs: int = 1, apart: Callable | None = None, **attributes):
    """Registers a shape function under op names; attributes are those the op may carry, with their defaults, and of a kind that ATTRIBUTE_TYPES has."""
    for name in attributes:
        assert name in ATTRIBUTE_TYPES, f"attribute {name!r} of {', '.join(names)}: which values it may have is said in _KINDS"

    def register(infer):
        for name in names:
            OPS[name] = Op(infer, attributes, inputs, outputs, apart)
        return infer

    return register


def meaning(*names: str):
    """Registers (node, arrays) -> list of arrays, the op's meaning in NumPy, under op names; omitted inputs are None."""

    def register(function):
        for name in names:
            EVAL[name] = function
        return function

    return register


def always(node, specs, axes) -> bool:
    """Elementwise, or only the place of axes changes."""
    return True


def aligned(node, specs, axes) -> bool:
    """Elementwise with broadcasting: time at one place, counted from the end, in every operand that has it."""
    return len({axis - spec.rank for spec, axis in zip(specs, axes) if axis is not None}) == 1


def rows(node, specs, axes) -> bool:
    """Along the last axis of the first input only."""
    return axes[0] is not None and axes[0] != specs[0].rank - 1 and all(axis is None for axis in axes[1:])


# Attributes: one meaning for each name over all ops.


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**63


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 3.4e38


def _number(value) -> bool:
    return _whole(value) or isinstance(value, float)


def _flag(value) -> bool:
    return _whole(value) and value in (0, 1)


def _wholes(value) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_whole, value))


def _text(value) -> bool:
    return isinstance(value, str)


def _graph(value) -> bool:
    return type(value).__name__ == "Graph"


def _scale(value) -> bool:
    return _finite(value) and 1e-30 < value < 1e30


def _scales(value) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_scale, value))


_KINDS = {
    _whole: "hidden_size axis group num_outputs batch_dims batch_axis time_axis blocksize block_size num_groups p num_scan_inputs opset size x_zero cell_power x_bits",
    _flag: "layout torch_form linear_before_reset input_forget transA transB keepdims noop_with_empty_axes allowzero wrap fmod select_last_index "
    "largest sorted exclusive reverse upper ceil_mode count_include_pad detect_negative detect_positive storage_order",
    _finite: "clip alpha beta gamma epsilon bias cell_clip",
    _scale: "x_scale h_scale",
    _scales: "w_scales r_scales",
    _number: "value",
    _wholes: "perm axes split kernel_shape strides pads dilations output_padding output_shape scan_input_axes scan_output_axes "
    "scan_input_directions scan_output_directions",
    _text: "direction to mode auto_pad reduction dtype approximate output_dtype equation options message cell fingerprint",
    _graph: "then_branch else_branch body",
}
ATTRIBUTE_TYPES = {name: check for check, names in _KINDS.items() for name in names.split()} | {"activations": lambda v: isinstance(v, (list, tuple))}


def check_node(node) -> None:
    """Raises UnsupportedModelError for an attribute that the op does not know, InvalidModelError for one of the wrong type
    and for a wrong number of inputs or outputs."""
    fewest, most = OPS[node.op].inputs
    if not fewest <= len(node.inputs) <= most:
        raise InvalidModelError(f"{where(node)}: takes {fewest} to {most} inputs, got {len(node.inputs)}")
    for k, name in enumerate(node.inputs[:fewest]):
        if not name:
            raise InvalidModelError(f"{where(node)}: input {k} is missing")
    if not 1 <= len(node.outputs) <= OPS[node.op].outputs:
        raise InvalidModelError(f"{where(node)}: gives 1 to {OPS[node.op].outputs} outputs, got {len(node.outputs)}")
    known = OPS[node.op].attributes
    for name, value in node.attributes.items():
        if name not in known:
            raise UnsupportedModelError(f"{where(node)}: unknown attribute {name!r}")
        if not (value is None and known[name] is None) and not ATTRIBUTE_TYPES[name](value):
            raise InvalidModelError(f"{where(node)}: attribute {name!r} cannot be {value!r}")


def check_rank(what: str, shape) -> None:
    """Raises UnsupportedModelError for more axes than the executor's arrays hold."""
    if len(shape) > MAX_RANK:
        raise UnsupportedModelError(f"{what} has {len(shape)} dimensions; at most {MAX_RANK} are supported")


def where(node) -> str:
    """How messages name a node."""
    return f"node {node.name!r} ({node.op})"


# What shape functions share.


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether two dimensions may be equal: only two different numbers are not."""
    return isinstance(a, str) or isinstance(b, str) or a == b


def require(node, spec: Spec | None, what: str, dtypes: tuple[str, ...] = ()) -> Spec:
    """The spec, if the input is there and has one of the dtypes; UnsupportedModelError for others, which ONNX may allow."""
    if spec is None:
        raise InvalidModelError(f"{where(node)}: {what} is missing")
    if dtypes and spec.dtype not in dtypes:
        raise UnsupportedModelError(f"{where(node)}: {what} must be {' or '.join(dtypes)}, got {spec.dtype}")
    return spec


def want(node, spec: Spec | None, what: str, shape: tuple[Dim | None, ...], dtype: str = "float32", hint: str = "") -> None:
    """Raises unless an input is there with this shape; None in `shape` leaves a dimension free."""
    spec = require(node, spec, what, (dtype,))
    if spec.rank != len(shape) or any(s is not None and not same_dim(s, g) for s, g in zip(shape, spec.shape)):
        expected = ", ".join("?" if s is None else str(s) for s in shape)
        raise ShapeError(f"{where(node)}: {what} must have shape ({expected}){hint}, got {tuple(spec.shape)}")


def want_weights(node, spec: Spec | None, what: str, shape: tuple[Dim | None, ...], scale: Spec | None, rows: int, hint: str = "") -> None:
    """want for a matrix of any precision (model/small.py): of int8, with a scale for each of its rows, its first `rows` axes."""
    spec = require(node, spec, what, tuple(DTYPE_OF.values()))
    want(node, spec, what, shape, spec.dtype, hint)
    if spec.dtype == "int8":
        want(node, scale, f"{what}'s scale", spec.shape[:rows])
    elif scale is not None:
        raise InvalidModelError(f"{where(node)}: {what} of {spec.dtype} has a scale")


def check_x_bits(node, *more: int) -> None:
    """Raises unless x_bits is one of those that there are."""
    if node.get("x_bits") not in (known := (BOUNDED, UNBOUNDED, *more)):
        raise InvalidModelError(f"{where(node)}: x_bits must be one of {', '.join(map(str, known))}, got {node.get('x_bits')}")


def axis_of(node, axis: int, rank: int) -> int:
    """A non-negative axis; raises InvalidModelError where it is outside the rank."""
    if not -rank <= axis < rank:
        raise InvalidModelError(f"{where(node)}: axis {axis} is outside rank {rank}")
    return axis % rank


def axes_of(node, given, rank: int) -> tuple[int, ...]:
    """Non-negative axes, none twice, in the order given."""
    axes = tuple(axis_of(node, int(a), rank) for a in np.atleast_1d(given))
    if len(set(axes)) < len(axes):
        raise InvalidModelError(f"{where(node)}: an axis stands twice in {tuple(int(a) for a in np.atleast_1d(given))}")
    return axes


def count(shape: Shape) -> Dim:
    """Number of elements; ANY_DIM where a dimension is a symbol."""
    return ANY_DIM if has_symbol(shape) else math.prod(shape)


def has_symbol(shape: Shape | None) -> bool:
    """Whether dimensions of a shape are not known, or not even how many there are."""
    return shape is None or any(isinstance(d, str) for d in shape)


def broadcast(node, *shapes: Shape) -> Shape:
    """The common shape of several, as NumPy and ONNX broadcast."""
    rank, result = max(map(len, shapes)), []
    for dims in zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes), strict=True):
        numbers, symbols = [d for d in dims if not isinstance(d, str) and d != 1], {d for d in dims if isinstance(d, str)}
        if any(d != numbers[0] for d in numbers[1:]):
            raise ShapeError(f"{where(node)}: shapes {', '.join(map(str, shapes))} do not broadcast")
        result.append(numbers[0] if numbers else 1 if not symbols else symbols.pop() if len(symbols) == 1 else ANY_DIM)
    return tuple(result)
