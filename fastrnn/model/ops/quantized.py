"""Numbers as small integers times a scale: QuantizeLinear and its like, products of integers."""

from __future__ import annotations

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.elementwise import FLOATS
from fastrnn.model.ops.linear import conv, conv_apart, conv_meaning, matmul
from fastrnn.model.ops.registry import OPS, Spec, axis_of, meaning, op, require, same_dim, where

BYTES = ("int8", "uint8")
STORED = (*BYTES, "int16", "uint16")


def _scale_shape(node, shape, scale, what: str) -> None:
    """Raises unless a scale is one number, a row along `axis`, or one number for each block along it."""
    if scale.rank == 0 or scale.shape == (1,) or scale.rank == 1 and isinstance(scale.shape[0], str):
        return
    axis, block = axis_of(node, node.get("axis"), len(shape)), node.get("block_size")
    if block:
        expected = tuple(-(-d // block) if k == axis and not isinstance(d, str) else d for k, d in enumerate(shape))
        fits = len(expected) == scale.rank and all(
            same_dim(a, b) or k == axis and isinstance(shape[k], str) for k, (a, b) in enumerate(zip(expected, scale.shape))
        )
    else:
        expected, fits = (shape[axis],), scale.rank == 1 and same_dim(scale.shape[0], shape[axis])
    if not fits:
        raise ShapeError(f"{where(node)}: {what} must be one number or have shape {expected}, got {scale.shape}")


def spread(node, given: np.ndarray, shape) -> np.ndarray:
    """A scale or zero point so that it broadcasts to the data's shape."""
    if given.size == 1 and given.ndim < 2:
        return given.reshape(())
    axis, block = node.get("axis") % len(shape), node.get("block_size")
    if block:
        return np.repeat(given, block, axis=axis).take(np.arange(shape[axis]), axis=axis)
    return given.reshape(-1, *(1,) * (len(shape) - axis - 1))


def _apart(node, specs, axes) -> bool:
    return axes[0] is not None and (
        all(s is None or s.rank == 0 or s.shape == (1,) for s in specs[1:]) or axes[0] != node.get("axis") % specs[0].rank
    )


@op("QuantizeLinear", inputs=(2, 3), axis=1, block_size=0, output_dtype="uint8", apart=_apart)
def quantize(node, inputs):
    """x / scale rounded to even, plus the zero point, at the ends of the dtype where it is outside."""
    x, scale = require(node, inputs[0], "x", ("float32", "int32")), require(node, inputs[1], "y_scale", ("float32",))
    zero = inputs[2] if len(inputs) > 2 else None
    dtype = node.get("output_dtype") if zero is None else require(node, zero, "y_zero_point", STORED).dtype
    if dtype not in STORED:
        raise InvalidModelError(f"{where(node)}: output_dtype must be one of {', '.join(STORED)}, got {dtype!r}")
    for spec, what in ((scale, "y_scale"), (zero, "y_zero_point")):
        if spec is not None:
            _scale_shape(node, x.shape, spec, what)
    return [Spec(dtype, x.shape)]


def saturated(x: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded numbers as integers of a dtype, those outside at its ends; NaN as 0."""
    ends = np.iinfo(dtype)
    return np.clip(np.nan_to_num(x, nan=0.0), ends.min, ends.max).astype(dtype)


@meaning("QuantizeLinear")
def quantize_meaning(node, inputs):
    """In float32, the sum with the zero point in whole numbers."""
    x, scale, zero = [*inputs, None][:3]
    dtype = node.get("output_dtype") if zero is None else str(zero.dtype)
    whole = np.rint(x.astype(scale.dtype) / spread(node, scale, x.shape)).astype(np.float64)
    return [saturated(whole if zero is None else whole + spread(node, zero, x.shape).astype(np.float64), dtype)]


@op("DequantizeLinear", inputs=(2, 3), axis=1, block_size=0, apart=_apart)
def dequantize(node, inputs):
    """(x - zero point) scale. x of float32: what floats of 8 bits are taken as."""
    x, scale = require(node, inputs[0], "x", (*STORED, "int32", "float32")), require(node, inputs[1], "x_scale", ("float32",))
    zero = inputs[2] if len(inputs) > 2 else None
    for spec, what in ((scale, "x_scale"), (zero, "x_zero_point")):
        if spec is not None:
            _scale_shape(node, x.shape, spec, what)
    if zero is not None and zero.dtype != x.dtype:
        raise InvalidModelError(f"{where(node)}: x_zero_point must be {x.dtype}, got {zero.dtype}")
    return [Spec("float32", x.shape)]


@meaning("DequantizeLinear")
def dequantize_meaning(node, inputs):
    """The difference in whole numbers, then one product."""
    x, scale, zero = [*inputs, None][:3]
    x = x if x.dtype.kind == "f" else x.astype(np.int64)
    difference = x if zero is None else x - spread(node, zero, x.shape)
    return [np.asarray(difference.astype(scale.dtype) * spread(node, scale, x.shape), scale.dtype)]


def _own_ranges(node, specs, axes) -> bool:
    return axes[0] in node.get("axes")


@op("DynamicQuantizeLinear", outputs=3, axes=(), apart=_own_ranges)
def dynamic_quantize(node, inputs):
    """To uint8 over the range of what is there: y, its scale (1 where all is 0), its zero point. + axes: along which each place has a range of its own; scales and zero points
    then have the rank of x, and size 1 along the others."""
    x, axes = require(node, inputs[0], "x", FLOATS), node.get("axes")
    if len(set(axes)) < len(axes) or any(not 0 <= k < x.rank for k in axes):
        raise InvalidModelError(f"{where(node)}: axes {axes} are not different ones of {x.rank}")
    shape = tuple(d if k in axes else 1 for k, d in enumerate(x.shape)) if axes else ()
    return [Spec("uint8", x.shape), Spec(x.dtype, shape), Spec("uint8", shape)]


@meaning("DynamicQuantizeLinear")
def dynamic_quantize_meaning(node, inputs):
    """The range is widened to hold 0."""
    x, axes = inputs[0], node.get("axes")
    over = {"axis": tuple(k for k in range(x.ndim) if k not in axes), "keepdims": bool(axes), "initial": 0}
    low, high = x.min(**over), x.max(**over)
    scale = ((high - low) / x.dtype.type(255)).astype(x.dtype)
    scale = np.where(scale == 0, x.dtype.type(1), scale)
    zero = saturated(np.rint(-low / scale), "uint8")
    y = saturated(np.rint(x / scale).astype(np.float64) + zero, "uint8")
    return [y, np.asarray(scale), np.asarray(zero, np.uint8)]


def _rows_of_bytes(node, specs, axes) -> bool:
    """Time among the rows of the first operand, whose zero points are one, or one for each."""
    zero, last = axes[2] if len(axes) > 2 else None, specs[0].rank - 1
    own = zero is None or zero - specs[2].rank == axes[0] - specs[0].rank
    return axes[0] is not None and axes[0] < last and own and all(axis is None for k, axis in enumerate(axes) if k not in (0, 2))


def _windows_of_bytes(node, specs, axes) -> bool:
    """As a convolution; where each row has a zero point, along the rows."""
    zero, w = axes[2] if len(axes) > 2 else None, 3 if node.op == "QLinearConv" else 1
    others = [axis for k, axis in enumerate(axes) if k not in (0, 2)]
    return zero in (None, axes[0]) and (zero is None or axes[0] == 0) and conv_apart(node, [specs[0], specs[w]], [axes[0], *others])


def _of_floats(specs) -> list:
    """Integers as if they were float32, for the shape functions of products."""
    return [None if s is None else Spec("float32", s.shape) for s in specs]


@op("MatMulInteger", inputs=(2, 7), apart=_rows_of_bytes)
def matmul_integer(node, inputs):
    """Products of bytes less their zero points, int32; + plus a bias of int32, then as bytes again: times scales of float32, one or one for each unit, plus a zero point."""
    for spec, what in zip(inputs[:2], "AB"):
        require(node, spec, what, BYTES)
    _check_bias(node, inputs, -1)
    _check_zeros(node, inputs, 0, 1, -1)
    return [Spec(_result_of(node, inputs, -1), matmul(node, _of_floats(inputs[:2]))[0].shape)]


def _check_zero(node, zero: Spec | None, of: Spec, what: str, units=None) -> None:
    """Raises unless a zero point has the dtype of what it is of, and is one number or, with `units`, one for each of so many; others are for `what` of more than a matrix."""
    if zero is None:
        return
    if zero.dtype != of.dtype:
        raise InvalidModelError(f"{where(node)}: the zero point of {what} must be {of.dtype} as it is, got {zero.dtype}")
    if units is not None and zero.rank == 1 and zero.shape != (1,) and not same_dim(zero.shape[0], units):
        raise ShapeError(f"{where(node)}: the zero point of {what} must be one number or have shape ({units},), got {zero.shape}")


def _check_zeros(node, inputs, x: int, w: int, axis: int) -> None:
    """The zero points of two operands: behind their scales (QLinear...), or behind both operands."""
    zeros = (inputs[x + 2], inputs[w + 2]) if w > 1 else [*inputs, None, None][2:4]
    _check_zero(node, zeros[0], inputs[x], "the first operand")
    _check_zero(node, zeros[1], inputs[w], "the weights", inputs[w].shape[axis] if inputs[w].rank else None)


def _check_bias(node, inputs, axis: int) -> None:
    """Raises unless the bias, the fifth input, is a row of int32 for the units."""
    if len(inputs) > 4 and inputs[4] is not None:
        bias, units = require(node, inputs[4], "bias", ("int32",)), inputs[1].shape[axis]
        if bias.rank != 1 or not same_dim(bias.shape[0], units):
            raise ShapeError(f"{where(node)}: the bias must have shape ({units},), got {bias.shape}")


def _less_zero(x: np.ndarray, zero: np.ndarray | None, column: bool) -> np.ndarray:
    """x less one zero point, or one for each row (column: False) or column."""
    x = x.astype(np.int32)
    if zero is None:
        return x
    return x - (zero.reshape(()) if zero.size == 1 else zero if column or zero.ndim > 1 else zero.reshape(-1, 1)).astype(np.int32)


@meaning("MatMulInteger")
def matmul_integer_meaning(node, inputs):
    """Exact."""
    a, b, a_zero, b_zero, bias, scale, zero = [*inputs, *[None] * 5][:7]
    total = np.matmul(_less_zero(a, a_zero, False), _less_zero(b, b_zero, True)).astype(np.int32)
    total = total if bias is None else total + bias
    return [total if scale is None else _requantised(total, scale, zero.reshape(()))]


def _result_of(node, inputs, axis: int) -> str:
    """The dtype of a product of bytes: int32, or that of the zero point behind its scales, the sixth and seventh input."""
    scale, zero = [*inputs, *[None] * 5][5:7]
    if scale is None:
        return "int32"
    scale, zero = require(node, scale, "scale", ("float32",)), require(node, zero, "zero point of the result", BYTES)
    units = inputs[1].shape[axis]
    if scale.rank != 1 or not same_dim(scale.shape[0], units) and scale.shape[0] != 1 or zero.shape not in ((), (1,)):
        raise ShapeError(f"{where(node)}: the scale must have shape ({units},) and the zero point be one number, got {scale.shape} and {zero.shape}")
    return zero.dtype


def _requantised(total: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """int32 totals times a float32 scale, rounded to even, plus the zero point."""
    return saturated(np.rint(total.astype(np.float32) * scale).astype(np.float64) + zero.astype(np.float64), str(zero.dtype))


@op("QLinearMatMul", inputs=(8, 8), apart=_rows_of_bytes)
def qlinear_matmul(node, inputs):
    """a, its scale and zero point; b, likewise; the scale and zero point of y."""
    for k, what in ((0, "a"), (3, "b"), (7, "y_zero_point")):
        require(node, inputs[k], what, BYTES)
    _check_zeros(node, inputs, 0, 3, -1)
    return [Spec(inputs[7].dtype, matmul(node, _of_floats([inputs[0], inputs[3]]))[0].shape)]


@meaning("QLinearMatMul")
def qlinear_matmul_meaning(node, inputs):
    """Exact sums, one scaling."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
    total = np.matmul(_less_zero(a, a_zero, False), _less_zero(b, b_zero, True))
    a_scale = a_scale if a_scale.size == 1 or a_scale.ndim > 1 else a_scale.reshape(-1, 1)
    return [_requantised(total, a_scale * b_scale / y_scale, y_zero)]


WINDOW = {name: default for name, default in OPS["Conv"].attributes.items() if name != "x_bits"}


@op("ConvInteger", inputs=(2, 7), **WINDOW, apart=_windows_of_bytes)
def conv_integer(node, inputs):
    """Convolution of bytes less their zero points, int32; + a bias, and bytes again, as MatMulInteger has them."""
    for spec, what in zip(inputs[:2], "xw"):
        require(node, spec, what, BYTES)
    _check_bias(node, inputs, 0)
    _check_zeros(node, inputs, 0, 1, 0)
    return [Spec(_result_of(node, inputs, 0), conv(node, _of_floats(inputs[:2]))[0].shape)]


def _units(zero: np.ndarray | None, w: np.ndarray) -> np.ndarray:
    """w less its zero points, one or one for each unit."""
    return w.astype(np.int32) if zero is None else w.astype(np.int32) - zero.astype(np.int32).reshape(-1, *(1,) * (w.ndim - 1))


@meaning("ConvInteger")
def conv_integer_meaning(node, inputs):
    """Exact; the padding is the zero point."""
    x, w, x_zero, w_zero, bias, scale, zero = [*inputs, *[None] * 5][:7]
    (total,) = conv_meaning(node, [_less_zero(x, x_zero, True), _units(w_zero, w), *([] if bias is None else [bias])])
    return [total if scale is None else _requantised(total, scale.reshape(-1, *(1,) * (w.ndim - 2)), zero.reshape(()))]


@op("QLinearConv", inputs=(8, 9), **WINDOW, apart=_windows_of_bytes)
def qlinear_conv(node, inputs):
    """x, its scale and zero point; w, likewise, one for all units or one for each; those of y; a bias of int32 in the products' scale."""
    for k, what in ((0, "x"), (3, "w"), (7, "y_zero_point")):
        require(node, inputs[k], what, BYTES)
    _check_zeros(node, inputs, 0, 3, 0)
    bias = _of_floats(inputs[8:])
    return [Spec(inputs[7].dtype, conv(node, [*_of_floats([inputs[0], inputs[3]]), *bias])[0].shape)]


@meaning("QLinearConv")
def qlinear_conv_meaning(node, inputs):
    """Exact sums, one scaling for each unit."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = [*inputs, None][:9]
    total = conv_meaning(node, [_less_zero(x, x_zero, True), _units(w_zero, w), *([] if bias is None else [bias])])[0]
    scale = (x_scale.reshape(()) * w_scale / y_scale.reshape(())).astype(np.float32)
    return [_requantised(total, scale.reshape(-1, *(1,) * (w.ndim - 2)), y_zero.reshape(()))]
