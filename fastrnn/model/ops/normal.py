"""Reductions and normalisations."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.elementwise import FLOATS, NUMBERS
from fastrnn.model.ops.registry import ANY_DIM, Spec, axes_of, axis_of, meaning, op, require, same_dim, where
from fastrnn.model.ops.shaping import known


def _ends(dtype: np.dtype) -> tuple:
    """The least and the greatest number of a dtype: what the maximum and the minimum of nothing are."""
    return (-np.inf, np.inf) if dtype.kind == "f" else (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def mean(x: np.ndarray, axis: tuple[int, ...], keepdims: bool = True) -> np.ndarray:
    """The sum over axes by their size; NaN where that is 0, without NumPy's warning."""
    return np.sum(x, axis=axis, keepdims=keepdims) / x.dtype.type(math.prod(x.shape[a] for a in axis))


def _log_sum_exp(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Shifted by the largest entry, where that is a number."""
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else total.squeeze(axis)


REDUCTIONS = {
    "ReduceMean": (FLOATS, lambda x, axis, keepdims: mean(x, axis, keepdims)),
    "ReduceSum": (NUMBERS, np.sum),
    "ReduceMax": ((*NUMBERS, "bool"), lambda x, axis, keepdims: np.max(x, axis=axis, keepdims=keepdims, initial=_ends(x.dtype)[0])),
    "ReduceMin": ((*NUMBERS, "bool"), lambda x, axis, keepdims: np.min(x, axis=axis, keepdims=keepdims, initial=_ends(x.dtype)[1])),
    "ReduceProd": (NUMBERS, np.prod),
    "ReduceL2": (FLOATS, lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))),
    "ReduceSumSquare": (FLOATS, lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims)),
    "ReduceL1": (FLOATS, lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims)),
    "ReduceLogSum": (FLOATS, lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims))),
    "ReduceLogSumExp": (FLOATS, lambda x, axis, keepdims: _log_sum_exp(x, axis, keepdims)),
}


def reduced_axes(node, rank: int, axes) -> tuple[int, ...]:
    """Axes that a reduction takes: those given, or all (none with noop_with_empty_axes)."""
    if axes is None or len(np.atleast_1d(axes)) == 0:
        return () if node.get("noop_with_empty_axes") else tuple(range(rank))
    return axes_of(node, axes, rank)


def _reduce_apart(node, specs, axes) -> bool:
    given = specs[1].constant if len(specs) > 1 and specs[1] is not None else None
    return axes[0] is not None and axes[0] not in reduced_axes(node, specs[0].rank, given)


@op(*REDUCTIONS, inputs=(1, 2), keepdims=1, noop_with_empty_axes=0, apart=_reduce_apart)
def reduce(node, inputs):
    """Over axes, which stay as 1 or go."""
    data = require(node, inputs[0], "data", REDUCTIONS[node.op][0])
    given = known(node, inputs[1], "axes") if len(inputs) > 1 and inputs[1] is not None else None
    if len(inputs) > 1 and inputs[1] is not None and given is None:
        return [Spec(data.dtype, (ANY_DIM,) * data.rank if node.get("keepdims") else None)]
    axes = reduced_axes(node, data.rank, given)
    return [Spec(data.dtype, tuple(1 if k in axes else d for k, d in enumerate(data.shape) if node.get("keepdims") or k not in axes))]


@meaning(*REDUCTIONS)
def reduce_meaning(node, inputs):
    """NumPy's reduction; over no axes, element by element. The mean of nothing is NaN."""
    axes = reduced_axes(node, inputs[0].ndim, inputs[1] if len(inputs) > 1 else None)
    return [np.asarray(REDUCTIONS[node.op][1](inputs[0], axis=axes, keepdims=bool(node.get("keepdims"))), inputs[0].dtype)]


@op("Softmax", "LogSoftmax", axis=-1, apart=lambda node, specs, axes: axes[0] != node.get("axis") % specs[0].rank)
def softmax(node, inputs):
    """Along one axis."""
    data = require(node, inputs[0], "the input", FLOATS)
    if data.shape[axis_of(node, node.get("axis"), data.rank)] == 0:
        raise ShapeError(f"{where(node)}: axis {node.get('axis')} of {data.shape} is empty")
    return [Spec(data.dtype, data.shape)]


@meaning("Softmax", "LogSoftmax")
def softmax_meaning(node, inputs):
    """Shifted by the largest entry."""
    axis = node.get("axis")
    shifted = inputs[0] - inputs[0].max(axis=axis, keepdims=True)
    total = np.exp(shifted).sum(axis=axis, keepdims=True)
    return [shifted - np.log(total) if node.op == "LogSoftmax" else np.exp(shifted) / total]


@op("BatchNormalization", inputs=(5, 5), epsilon=1e-5, apart=lambda node, specs, axes: axes[0] is not None and axes[0] != 1)
def batch_normalization(node, inputs):
    """With the stored mean and variance: X (N, C, ...), scale, B, mean, var (C,)."""
    x = require(node, inputs[0], "X", FLOATS)
    channels = x.shape[1] if x.rank > 1 else 1
    for spec, what in zip(inputs[1:], ("scale", "B", "mean", "var")):
        if require(node, spec, what, FLOATS).rank != 1 or not same_dim(spec.shape[0], channels):
            raise ShapeError(f"{where(node)}: {what} must have shape ({channels},), got {spec.shape}")
    return [Spec(x.dtype, x.shape)]


def batch_factors(node, scale, bias, mean, var):
    """(a, b) with y = a x + b."""
    a = scale / np.sqrt(var + var.dtype.type(node.get("epsilon")))
    return a, bias - mean * a


@meaning("BatchNormalization")
def batch_normalization_meaning(node, inputs):
    """y = a x + b for each channel."""
    x, *parameters = inputs
    a, b = (p.reshape(-1, *(1,) * (x.ndim - 2)) for p in batch_factors(node, *parameters))
    return [np.asarray(x * a + b, x.dtype)]


@op(
    "LayerNormalization",
    inputs=(2, 3),
    axis=-1,
    epsilon=1e-5,
    apart=lambda node, specs, axes: axes[0] is not None and axes[0] < node.get("axis") % specs[0].rank,
)
def layer_normalization(node, inputs):
    """Over the axes from `axis` on, then times scale plus bias."""
    x = require(node, inputs[0], "X", FLOATS)
    axis = axis_of(node, node.get("axis"), x.rank)
    for spec, what in zip(inputs[1:], ("Scale", "B")):
        if spec is not None and (
            spec.rank > x.rank - axis or not all(d == 1 or same_dim(d, n) for d, n in zip(reversed(spec.shape), reversed(x.shape)))
        ):
            raise InvalidModelError(f"{where(node)}: {what} {spec.shape} does not broadcast to {x.shape[axis:]}")
    return [Spec(x.dtype, x.shape)]


@meaning("LayerNormalization")
def layer_normalization_meaning(node, inputs):
    """(x - mean) / sqrt(var + epsilon), the variance that of the population."""
    x, scale, bias = [*inputs, None][:3]
    axes = tuple(range(node.get("axis") % x.ndim, x.ndim))
    centred = x - mean(x, axes)
    y = centred / np.sqrt(mean(centred * centred, axes) + x.dtype.type(node.get("epsilon"))) * scale
    return [np.asarray(y if bias is None else y + bias, x.dtype)]


def _channels(node, inputs) -> Spec:
    """X (N, C, ...) of floats, its scale and bias (C,)."""
    x = require(node, inputs[0], "X", FLOATS)
    if x.rank < 2:
        raise ShapeError(f"{where(node)}: X {x.shape} must have at least 2 axes")
    for spec, what in zip(inputs[1:], ("scale", "bias")):
        sizes = (x.shape[1], node.get("num_groups") or x.shape[1]) if node.op == "GroupNormalization" else x.shape[1:2]
        if require(node, spec, what, FLOATS).rank != 1 or not any(same_dim(spec.shape[0], n) for n in sizes):
            raise ShapeError(f"{where(node)}: {what} must have shape ({x.shape[1]},), got {spec.shape}")
    return x


@op("InstanceNormalization", inputs=(3, 3), epsilon=1e-5, apart=lambda node, specs, axes: axes[0] == 0)
@op("GroupNormalization", inputs=(3, 3), epsilon=1e-5, num_groups=None, apart=lambda node, specs, axes: axes[0] == 0)
def group_normalization(node, inputs):
    """Over the spatial axes of each channel, or of each group of channels; then times scale plus bias, (C,) or, before opset 21, (groups,)."""
    x = _channels(node, inputs)
    if node.op == "GroupNormalization":
        groups = node.get("num_groups")
        if groups is None or groups < 1 or not isinstance(x.shape[1], str) and x.shape[1] % groups:
            raise InvalidModelError(f"{where(node)}: num_groups {groups} does not divide X {x.shape}")
    return [Spec(x.dtype, x.shape)]


@meaning("InstanceNormalization", "GroupNormalization")
def group_normalization_meaning(node, inputs):
    """(x - mean) / sqrt(var + epsilon) within each group."""
    x, *factors = inputs
    groups = node.get("num_groups") if node.op == "GroupNormalization" else x.shape[1]
    rows = x.reshape(x.shape[0], groups, -1) if x.size else x.reshape(x.shape[0], groups, 0)
    centred = rows - mean(rows, (2,))
    normal = (centred / np.sqrt(mean(centred * centred, (2,)) + x.dtype.type(node.get("epsilon")))).reshape(x.shape)
    scale, bias = (np.repeat(f, x.shape[1] // len(f)).reshape(-1, *(1,) * (x.ndim - 2)) for f in factors)
    return [np.asarray(normal * scale + bias, x.dtype)]


@op(
    "RMSNormalization",
    inputs=(2, 2),
    axis=-1,
    epsilon=1e-5,
    apart=lambda node, specs, axes: axes[0] is not None and axes[0] < node.get("axis") % specs[0].rank,
)
def rms_normalization(node, inputs):
    """Over the axes from `axis` on, then times scale."""
    return layer_normalization(node, inputs)


@meaning("RMSNormalization")
def rms_normalization_meaning(node, inputs):
    """x / sqrt(mean(x^2) + epsilon)."""
    x, scale = inputs
    axes = tuple(range(node.get("axis") % x.ndim, x.ndim))
    return [np.asarray(x / np.sqrt(mean(x * x, axes) + x.dtype.type(node.get("epsilon"))) * scale, x.dtype)]


@op("LpNormalization", axis=-1, p=2, apart=lambda node, specs, axes: axes[0] != node.get("axis") % specs[0].rank)
def lp_normalization(node, inputs):
    """By the norm along an axis."""
    x = require(node, inputs[0], "the input", FLOATS)
    axis_of(node, node.get("axis"), x.rank)
    if node.get("p") not in (1, 2):
        raise InvalidModelError(f"{where(node)}: p must be 1 or 2, got {node.get('p')}")
    return [Spec(x.dtype, x.shape)]


@meaning("LpNormalization")
def lp_normalization_meaning(node, inputs):
    """Where the norm is 0, 0."""
    x, axis = inputs[0], node.get("axis")
    norm = np.abs(x).sum(axis=axis, keepdims=True) if node.get("p") == 1 else np.sqrt((x * x).sum(axis=axis, keepdims=True))
    return [np.asarray(np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)), x.dtype)]


@op("LRN", alpha=1e-4, beta=0.75, bias=1.0, size=None, apart=lambda node, specs, axes: axes[0] is not None and axes[0] != 1)
def lrn(node, inputs):
    """X (N, C, ...) by the squares of `size` channels around each."""
    x = require(node, inputs[0], "X", FLOATS)
    if x.rank < 2 or node.get("size") is None or node.get("size") < 1:
        raise InvalidModelError(f"{where(node)}: takes X (N, C, ...) and a size of at least 1, got {x.shape} and {node.get('size')}")
    return [Spec(x.dtype, x.shape)]


@meaning("LRN")
def lrn_meaning(node, inputs):
    """x / (bias + alpha / size * sum of squares) ** beta."""
    x, size = inputs[0], node.get("size")
    before = (size - 1) // 2
    squares = np.pad(x * x, [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)])
    total = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(axis=-1)
    return [np.asarray(x / (node.get("bias") + node.get("alpha") / size * total) ** node.get("beta"), x.dtype)]
