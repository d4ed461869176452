"""MaxPool, AveragePool, GlobalMaxPool, DepthToSpace, SpaceToDepth and the normalisations of channels: what convolutional networks do between products.

Pooling reads a channels-last input as a depthwise convolution does: a window is an address and a list of offsets. Where a window reaches over
an edge, the input is laid out anew with what the padding counts as around it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastrnn.kernels.contract import Key
from fastrnn.model import Node
from fastrnn.model.ops.linear import Window, window_of
from fastrnn.model.ops.pooling import pooled
from fastrnn.model.ops.quantized import BYTES
from fastrnn.model.sizes import largest, wholes
from fastrnn.plan.emit.convolution import offsets_of
from fastrnn.plan.emit.emitter import by_size, emits, new_args, only_float32
from fastrnn.plan.emit.rows import by_grid
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.chain import number
from fastrnn.plan.lowering.memory import View, weight_view
from fastrnn.plan.lowering.windows import channels_last, inside


def _pool_refused(node: Node, specs, constants) -> str | None:
    if len(node.outputs) > 1 and node.outputs[1]:
        return "no kernel that says where the maxima were"
    return None if specs[node.inputs[0]].dtype in BYTES else only_float32(node, specs, constants)


@emits("MaxPool", kernel=lambda node, specs: Key("pool_max", dtype=specs[node.inputs[0]].dtype), refused=_pool_refused)
def max_pool(build, node):
    """The largest entry of each window; padding is below everything."""
    dtype = build.views[node.inputs[0]].dtype
    window, last, sizes, _ = _windows(build, node, -np.inf if dtype.kind == "f" else np.iinfo(dtype).min)
    _pool(build, node, Key("pool_max", dtype=dtype.name), window, last, sizes)


@emits("AveragePool", kernel="pool_mean")
def average_pool(build, node):
    """The mean of each window, by what it counts: entries, with count_include_pad the padding as well, never what hangs over with ceil_mode."""
    window, last, sizes, source = _windows(build, node, 0.0)
    whole = math.prod(window.kernel)
    if all(_within(window, k, n, m) for k, (n, m) in enumerate(zip(source, sizes))):
        _pool(build, node, "pool_mean", window, last, sizes, whole)
        return
    y = _pool(build, node, "pool_mean", window, last, sizes)
    counts = np.ones((), np.float32)  # which ties a free dimension to its size
    for k, (n, m) in enumerate(zip(source, sizes)):
        low, high = (-window.before[k], n + window.after[k]) if node.get("count_include_pad") else (0, n)
        m, low, high = int(m), int(low), int(high)  # counts are laid out for these sizes alone
        at = (np.arange(m) * window.strides[k] - window.before[k])[:, None] + np.arange(window.kernel[k]) * window.dilations[k]
        counts = counts[..., None] * ((at >= low) & (at < high)).sum(axis=1).astype(np.float32)
    build.pointwise(node.name, y, y, ("div", weight_view(counts)))


def _within(window: Window, axis: int, n, m) -> bool:
    """Whether all m windows along an axis of n entries lie on entries."""
    return not window.before[axis] and (m - 1) * window.strides[axis] + window.span(axis) <= n


def _windows(build, node: Node, around: float) -> tuple[Window, View, tuple, tuple]:
    """The window, the channels-last input with `around` where windows reach over it, sizes of the output and of the input."""
    x = build.views[node.inputs[0]]
    source = x.shape[2:]
    window = window_of(node, tuple(node.get("kernel_shape")), source)
    sizes = tuple(pooled(node, window, k, n) for k, n in enumerate(source))
    last = channels_last(x)
    if all(_within(window, k, n, m) for k, (n, m) in enumerate(zip(source, sizes))):
        return window, last if last.strides[-1] == 1 else build.contiguous(last), sizes, source
    room = [largest(n + b, (m - 1) * t + window.span(k)) for k, (n, b, m, t) in enumerate(zip(source, window.before, sizes, window.strides))]
    padded = build.scratch((x.shape[0], *room, x.shape[1]), x.dtype)
    build.fill(node.name, padded, around)
    build.copy(node.name, last, inside(padded, window.before, source))
    return window, padded, sizes, source


def _pool(build, node: Node, kernel: Key | str, window: Window, last: View, sizes, divisor: int = 1) -> View:
    """y (N, C, sizes...), channels last in memory, from windows of `last`; returns its place."""
    shape = build.infer_output(node, 0)
    y = build.place_last(node.outputs[0], shape)
    if 0 in shape:
        return y
    step = last.strides[1:-1]
    places = replace(
        last, shape=(shape[0], *sizes, shape[1]), strides=(last.strides[0], *(s * t for s, t in zip(step, window.strides)), last.strides[-1])
    )
    taps = [s * d for s, d in zip(step, window.dilations)]
    offsets = offsets_of(window.kernel, taps)
    last_y = channels_last(y)
    target = last_y if last_y.strides[-1] == 1 or shape[1] == 1 else build.scratch(last_y.shape, y.dtype)
    chosen, size = build.kernel(kernel), len(offsets)
    for walk in by_grid(1, places, target):
        (_, x_t, x_b), (_, y_t, y_b), T, B, (x, to) = *walk.steps, walk.T, walk.B, walk.views
        args = new_args(H=shape[1], I=len(offsets), x_t=x_t, x_b=x_b, y_t=y_t, y_b=y_b, scale=divisor)
        parts = parallel.row_parts(build.plan.threads, T * B * shape[1] * size, T, B)
        with build.at_once(len(parts) > 1):
            for t, n_t, b, n_b in parts:
                args["T"], args["B"] = n_t, n_b
                build.call(
                    node.name,
                    chosen,
                    args,
                    {"x": x.shifted(t * x_t + b * x_b), "y": to.shifted(t * y_t + b * y_b), "axes": weight_view(wholes(offsets))},
                    flops=n_t * n_b * shape[1] * size,
                    weight_bytes=4 * n_t * n_b * shape[1],
                )
    if target is not last_y:
        build.copy(node.name, target, last_y)
    return y


@emits("GlobalMaxPool", kernel="reduce_max")
def global_max_pool(build, node):
    """The largest of each channel."""
    x, y = build.views[node.inputs[0]], build.place(node.outputs[0], build.infer_output(node, 0))
    n = math.prod(x.shape[2:])
    rows = x.reshaped((*x.shape[:2], n))
    rows = build.contiguous(x).reshaped((*x.shape[:2], n)) if rows is None else rows
    build.reduce(node.name, y.reshaped(x.shape[:2]), rows, kernel="reduce_max")


@emits("DepthToSpace", "SpaceToDepth", kernel=by_size("copy"), refused=lambda node, specs, constants: None)
def blocks(build, node):
    """One copy between views with a block's axes apart."""
    x, y = build.views[node.inputs[0]], build.place(node.outputs[0], build.infer_output(node, 0))
    if 0 in y.shape:
        return
    s, down, by_column = node.get("blocksize"), node.op == "DepthToSpace", node.get("mode") == "DCR"
    deep, wide = (x, y) if down else (y, x)  # (n, c s s, h, w) and (n, c, h s, w s)
    n, c, h, w = wide.shape
    split = _apart(deep, 1, (s, s, c) if by_column else (c, s, s))
    split = split.transposed((0, 3, 4, 1, 5, 2) if by_column else (0, 1, 4, 2, 5, 3))
    joined = _apart(_apart(wide, 3, (w // s, s)), 2, (h // s, s))
    build.copy(node.name, *((split, joined) if down else (joined, split)))


def _apart(view: View, axis: int, sizes: tuple) -> View:
    """The view, one axis as several."""
    strides, step = [], view.strides[axis]
    for n in reversed(sizes):
        strides.insert(0, step)
        step *= n
    return replace(
        view, shape=(*view.shape[:axis], *sizes, *view.shape[axis + 1 :]), strides=(*view.strides[:axis], *strides, *view.strides[axis + 1 :])
    )


@emits("InstanceNormalization", "GroupNormalization", kernel="reduce")
def group_normalization(build, node):
    """Mean, centred values, their mean square, and their quotient, each over a group's rows; then by channel."""
    x, name = build.contiguous(build.views[node.inputs[0]]), node.name
    y = build.place(node.outputs[0], x.shape)
    if 0 in x.shape:
        return
    N, C = x.shape[:2]
    groups = node.get("num_groups") if node.op == "GroupNormalization" else C
    n = math.prod(x.shape[1:]) // groups
    rows, mean, centred, square = (
        x.reshaped((N, groups, n)),
        build.scratch((N, groups, 1)),
        build.scratch((N, groups, n)),
        build.scratch((N, groups, n)),
    )
    build.reduce(name, mean.reshaped((N, groups)), rows, n)
    build.pointwise(name, centred, rows, ("sub", mean))
    build.pointwise(name, square, centred, ("mul", centred))
    build.reduce(name, mean.reshaped((N, groups)), square, n)
    build.pointwise(name, mean, mean, ("add", number(node.get("epsilon"))), ("sqrt", None))
    build.pointwise(name, centred, centred, ("div", mean))
    build.pointwise(
        name,
        y,
        centred.reshaped(x.shape),
        ("mul", _by_channel(build, node, 1, C, len(x.shape))),
        ("add", _by_channel(build, node, 2, C, len(x.shape))),
    )


def _by_channel(build, node: Node, k: int, C, rank: int) -> View:
    """A factor (C,) or (groups,) as (C, 1, ...)."""
    view = build.views[node.inputs[k]]
    m, stride = view.shape[0], view.strides[0]
    if m != C:
        view = build.contiguous(replace(view, shape=(m, C // m), strides=(stride, 0)))
        stride = 1
    return replace(view, shape=(C, *(1,) * (rank - 2)), strides=(stride, *(0,) * (rank - 2)))
