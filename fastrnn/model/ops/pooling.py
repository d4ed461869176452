"""Windows that pool: MaxPool, AveragePool, and both over everything."""

from __future__ import annotations

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.elementwise import FLOATS
from fastrnn.model.ops.linear import Window, window_of
from fastrnn.model.ops.registry import ANY_DIM, Spec, meaning, op, require, where


def _window(node, sizes) -> Window:
    if node.get("kernel_shape") is None or len(node.get("kernel_shape")) != len(sizes):
        raise InvalidModelError(f"{where(node)}: kernel_shape must have {len(sizes)} sizes, got {node.get('kernel_shape')}")
    return window_of(node, tuple(node.get("kernel_shape")), sizes)


def pooled(node, window: Window, axis: int, size) -> int | str:
    """Size of the output along a spatial axis. With ceil_mode a last window may hang over, but must start on the input or the padding in front."""
    if isinstance(size, str) or not node.get("ceil_mode"):
        return window.length(axis, size)
    step = window.strides[axis]
    n = -(-(size + window.before[axis] + window.after[axis] - window.span(axis)) // step) + 1
    return n - 1 if (n - 1) * step >= size + window.before[axis] else n


def _pool_apart(node, specs, axes) -> bool:
    return axes[0] is not None and axes[0] < 2


_WINDOW = {"kernel_shape": None, "strides": None, "dilations": None, "pads": None, "auto_pad": "NOTSET", "ceil_mode": 0}


@op("MaxPool", outputs=2, storage_order=0, **_WINDOW, apart=lambda node, specs, axes: _pool_apart(node, specs, axes) and len(node.outputs) == 1)
@op("AveragePool", count_include_pad=0, **_WINDOW, apart=_pool_apart)
def pool(node, inputs):
    """X (N, C, sizes...) -> (N, C, sizes...); MaxPool also tells where in X each came from."""
    x = require(node, inputs[0], "X", FLOATS if node.op == "AveragePool" else (*FLOATS, "int8", "uint8"))
    if x.rank < 3:
        raise ShapeError(f"{where(node)}: X {x.shape} must have at least 3 axes")
    window = _window(node, x.shape[2:])
    sizes = tuple(pooled(node, window, k, s) for k, s in enumerate(x.shape[2:]))
    if any(not isinstance(s, str) and s < 0 for s in sizes):
        raise ShapeError(f"{where(node)}: the window is larger than X {x.shape} with its padding")
    shape = (*x.shape[:2], *sizes)
    return [Spec(x.dtype, shape), Spec("int64", shape)] if node.op == "MaxPool" else [Spec(x.dtype, shape)]


def _windows(node, x: np.ndarray, window: Window, padding, beyond) -> np.ndarray:
    """(N, C, sizes..., kernel...), a view of x within its padding, and what hangs over."""
    n = x.ndim - 2
    sizes = [pooled(node, window, k, s) for k, s in enumerate(x.shape[2:])]
    over = [
        (0, max(0, (m - 1) * t + window.span(k) - s - window.before[k] - window.after[k]))
        for k, (m, s, t) in enumerate(zip(sizes, x.shape[2:], window.strides))
    ]
    padded = np.pad(x, [(0, 0), (0, 0), *zip(window.before, window.after)], constant_values=padding)
    padded = np.pad(padded, [(0, 0), (0, 0), *over], constant_values=beyond)
    view = np.lib.stride_tricks.sliding_window_view(padded, [window.span(k) for k in range(n)], tuple(range(2, 2 + n)))
    starts = tuple(slice(0, (m - 1) * t + 1, t) if m else slice(0, 0) for m, t in zip(sizes, window.strides))
    return view[(slice(None), slice(None), *starts, *(slice(None, None, d) for d in window.dilations))]


@meaning("MaxPool")
def max_pool(node, inputs):
    """Padding is below everything. Where: counted over all of X, with storage_order=1 within a channel column by column."""
    x = inputs[0]
    window, axes = _window(node, x.shape[2:]), tuple(range(x.ndim, 2 * x.ndim - 2))
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    windows = _windows(node, x, window, least, least)
    largest = windows.max(axis=axes, initial=least).astype(x.dtype)
    if len(node.outputs) < 2 or not node.outputs[1]:
        return [largest, np.zeros(largest.shape, np.int64)]
    numbers = np.arange(x.size).reshape(x.shape)
    if node.get("storage_order"):
        numbers = np.arange(x.size).reshape(*x.shape[:2], *x.shape[:1:-1]).transpose(0, 1, *range(x.ndim - 1, 1, -1))
    at = _windows(node, numbers, window, -1, -1).reshape(*largest.shape, -1)
    first = np.where(at < 0, -1, windows.reshape(at.shape) == largest[..., None]).argmax(axis=-1)
    return [largest, np.take_along_axis(at, first[..., None], -1)[..., 0]]


@meaning("AveragePool")
def average_pool(node, inputs):
    """By the entries that are there, or with count_include_pad by those and the padding; what hangs over with ceil_mode never counts."""
    x = inputs[0]
    window, axes = _window(node, x.shape[2:]), tuple(range(x.ndim, 2 * x.ndim - 2))
    total = _windows(node, x, window, 0, 0).sum(axis=axes)
    counted = _windows(node, np.ones((1, 1, *x.shape[2:]), x.dtype), window, node.get("count_include_pad"), 0)
    return [np.asarray(total / counted.sum(axis=axes), x.dtype)]


@op("GlobalAveragePool", "GlobalMaxPool", apart=_pool_apart)
def global_pool(node, inputs):
    """Over all spatial axes, which stay as 1."""
    x = require(node, inputs[0], "X", FLOATS)
    if x.rank < 2:
        raise ShapeError(f"{where(node)}: X {x.shape} must have at least 2 axes")
    if node.op == "GlobalMaxPool" and 0 in x.shape[2:]:
        raise ShapeError(f"{where(node)}: X {x.shape} is empty")
    return [Spec(x.dtype, (*x.shape[:2], *(1,) * (x.rank - 2)))]


@meaning("GlobalAveragePool")
def global_average_pool(node, inputs):
    """The mean."""
    x = inputs[0]
    return [np.asarray(x.mean(axis=tuple(range(2, x.ndim)), keepdims=True), x.dtype)]


@meaning("GlobalMaxPool")
def global_max_pool(node, inputs):
    """The maximum."""
    return [inputs[0].max(axis=tuple(range(2, inputs[0].ndim)), keepdims=True)]


@op("DepthToSpace", blocksize=None, mode="DCR", apart=lambda node, specs, axes: axes[0] == 0)
@op("SpaceToDepth", blocksize=None, mode="DCR", apart=lambda node, specs, axes: axes[0] == 0)
def blocks(node, inputs):
    """Channels to blocks of pixels, X (N, C, H, W), or the way back."""
    x, size = require(node, inputs[0], "the input"), node.get("blocksize")
    if x.rank != 4 or size is None or size < 1 or node.get("mode") not in ("DCR", "CRD"):
        raise InvalidModelError(f"{where(node)}: takes (N, C, H, W) and a blocksize, mode DCR or CRD; got {x.shape}, {size}, {node.get('mode')!r}")
    n, c, h, w = x.shape
    down = node.op == "DepthToSpace"
    for d, part in ((c, size * size),) if down else ((h, size), (w, size)):
        if not isinstance(d, str) and d % part:
            raise ShapeError(f"{where(node)}: {x.shape} does not divide into blocks of {size}")
    grow = lambda d: ANY_DIM if isinstance(d, str) else d * size
    shrink = lambda d, by: ANY_DIM if isinstance(d, str) else d // by
    if down:
        return [Spec(x.dtype, (n, shrink(c, size * size), grow(h), grow(w)))]
    return [Spec(x.dtype, (n, ANY_DIM if isinstance(c, str) else c * size * size, shrink(h, size), shrink(w, size)))]


@meaning("DepthToSpace", "SpaceToDepth")
def blocks_meaning(node, inputs):
    """Axes split, moved, joined."""
    x, s = inputs[0], node.get("blocksize")
    n, c, h, w = x.shape
    if node.op == "SpaceToDepth":
        order = (0, 3, 5, 1, 2, 4) if node.get("mode") == "DCR" else (0, 1, 3, 5, 2, 4)
        return [x.reshape(n, c, h // s, s, w // s, s).transpose(order).reshape(n, c * s * s, h // s, w // s)]
    if node.get("mode") == "DCR":
        moved = x.reshape(n, s, s, c // s**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        moved = x.reshape(n, c // s**2, s, s, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [moved.reshape(n, c // s**2, h * s, w * s)]
