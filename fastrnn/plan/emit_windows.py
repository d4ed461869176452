"""Convolutions, padding and reductions, out of copies, dense layers over windows, and sums over rows.

A convolution is a dense layer whose rows are windows of a channels-last input: where they lie one after the other, a window is
simply an address; elsewhere a strided copy lays them out. Its result lies channels-last too, so chains need no transposes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastrnn.model import Node
from fastrnn.model.ops.indexing import pad_widths
from fastrnn.model.ops.linear import transposed_padding, window_of
from fastrnn.model.ops.normal import reduced_axes
from fastrnn.plan.emit import constant_but_first, emits, new_args
from fastrnn.plan.memory import View, c_strides, grid
from fastrnn.plan.views import regular


@emits("Conv", kernel="dense", refused=constant_but_first("weights"), packs=True)
def conv(build, node):
    """Windows of the padded input, times each group's matrix."""
    x, w = build.views[node.inputs[0]], build.weights[node.inputs[1]]
    window = window_of(node, w.shape[2:], x.shape[2:])
    last = _channels_last(x)
    if any(window.before) or any(window.after):
        padded = build.scratch((x.shape[0], *(n + b + a for n, b, a in zip(x.shape[2:], window.before, window.after)), x.shape[1]))
        build.fill(node.name, padded, 0.0)
        build.copy(node.name, last, _inside(padded, window.before, x.shape[2:]))
        last = padded
    elif last.strides[-1] != 1:
        last = build.contiguous(last)
    _windows_times(build, node, last, window.kernel, window.strides, window.dilations)


@emits("ConvTranspose", kernel="dense", refused=constant_but_first("weights"), packs=True)
def conv_transpose(build, node):
    """A convolution of the input spread out with zeros between, its kernel flipped."""
    x, w = build.views[node.inputs[0]], build.weights[node.inputs[1]]
    n = w.ndim - 2
    window = window_of(node, w.shape[2:], (1,) * n)
    before, _, sizes = transposed_padding(node, window, x.shape[2:])
    spread = build.scratch((x.shape[0], *(s + window.span(k) - 1 for k, s in enumerate(sizes)), x.shape[1]))
    build.fill(node.name, spread, 0.0)
    source, target = _channels_last(x), spread
    for k in range(n):
        first, step, room = window.span(k) - 1 - before[k], window.strides[k], spread.shape[1 + k]
        skip = max(0, -(first // step)) if first < 0 else 0
        count = max(0, min(x.shape[2 + k] - skip, -(-(room - first - skip * step) // step)))
        source = source.part(skip, skip + count, 1 + k)
        start = first + skip * step
        target = target.part(start, start + (count - 1) * step + 1 if count else start, 1 + k, step)
    build.copy(node.name, source, target)
    _windows_times(build, node, spread, window.kernel, (1,) * n, window.dilations)


def _channels_last(x: View) -> View:
    return x.transposed((0, *range(2, len(x.shape)), 1))


def _inside(x: View, before, sizes) -> View:
    """The part behind the padding, along axes 1 to the last but one."""
    for k, (b, n) in enumerate(zip(before, sizes)):
        x = x.part(b, b + n, 1 + k)
    return x


def _windows_times(build, node: Node, last: View, kernel, strides, dilations) -> None:
    """Dense layers over the windows of a channels-last input (N, sizes..., C)."""
    shape, groups = build.infer_output(node, 0), node.get("group")
    n, channels, units = len(kernel), last.shape[-1] // groups, shape[1] // groups
    step = last.strides[1:-1]
    windows = replace(last, shape=(shape[0], *shape[2:], *kernel, channels),
                      strides=(last.strides[0], *(s * t for s, t in zip(step, strides)), *(s * d for s, d in zip(step, dilations)), last.strides[-1]))
    y = build.place_last(node.outputs[0], shape)
    if 0 in shape:
        return
    last_y = _channels_last(y)
    target = build.as_rows(last_y)
    for g, packed in enumerate(build.packed(node)):
        rows = windows.shifted(g * channels * windows.strides[-1])
        flat = rows.reshaped((*rows.shape[:1 + n], math.prod(kernel) * channels))
        rows = build.rows(flat) if flat is not None else build.contiguous(rows).reshaped((*rows.shape[:1 + n], math.prod(kernel) * channels))
        part = target.part(g * units, (g + 1) * units, len(target.shape) - 1)
        rows, written = build.row_pair(rows, part)
        T, B, (x_t, x_b), (y_t, y_b) = grid(1, rows, written)
        args = new_args(T=T, B=B, I=rows.shape[-1], H=units, x_t=x_t, x_b=x_b, y_t=y_t, y_b=y_b)
        build.call(node.name, packed.kernel, args, {"x": rows, "y": written, **packed.views}, flops=2.0 * T * B * packed.weight_bytes / 4,
                   weight_bytes=packed.weight_bytes)
        if written is not part:
            build.copy(node.name, written, part)
    if target is not last_y:
        build.copy(node.name, target, last_y)


def _pad_refused(node: Node, specs, constants) -> str | None:
    if any(name and name not in constants for name in node.inputs[1:]):
        return "no kernel for computed widths"
    shape = specs[node.inputs[0]].shape
    if node.get("mode") == "wrap" and shape is not None:
        widths = pad_widths(node, len(shape), constants[node.inputs[1]], constants.get(node.input(3)))
        if any(isinstance(n, int) and (max(w) > n or min(w) < 0) for n, w in zip(shape, widths)):
            return "no kernel for wrapping around more than once"
    return None


@emits("Pad", kernel="copy32", refused=_pad_refused)
def pad(build, node):
    """The inside copied, then the edges axis by axis: from a value, or from views of what is there, forwards or backwards."""
    x, y = build.views[node.inputs[0]], build.place(node.outputs[0], build.infer_output(node, 0))
    widths = pad_widths(node, len(x.shape), build.weights[node.inputs[1]], build.weights.get(node.input(3)))
    for axis, (before, after) in enumerate(widths):
        x = x.part(max(0, -before), x.shape[axis] - max(0, -after), axis)
    widths = [(max(0, b), max(0, a)) for b, a in widths]
    if node.get("mode") == "constant" and any(map(any, widths)):
        value = build.weights.get(node.input(2))
        build.fill(node.name, y, 0 if value is None else value.reshape(())[()])
    inside = y
    for axis, (before, _) in enumerate(widths):
        inside = inside.part(before, before + x.shape[axis], axis)
    build.copy(node.name, x, inside)
    if node.get("mode") == "constant":
        return
    for axis, (before, after) in enumerate(widths):
        n, band = x.shape[axis], y
        for later in range(axis + 1, len(widths)):
            band = band.part(widths[later][0], widths[later][0] + x.shape[later], later)
        for start, width, side in ((0, before, -1), (before + n, after, 1)):
            if width:
                build.copy(node.name, _edge(band, axis, before, n, width, side, node.get("mode")), band.part(start, start + width, axis))


def _edge(y: View, axis: int, before: int, n: int, width: int, side: int, mode: str) -> View:
    """What fills `width` entries in front (side -1) or behind (1) of the n entries at `before` of an axis."""
    first, last = before, before + n - 1
    if mode == "edge":
        at = first if side < 0 else last
        return y.part(at, at + 1, axis).broadcast((*y.shape[:axis], width, *y.shape[axis + 1:]))
    if mode == "wrap":
        return y.part(last - width + 1, last + 1, axis) if side < 0 else y.part(first, first + width, axis)
    return y.part(first + width, first, axis, -1) if side < 0 else y.part(last - 1, last - 1 - width, axis, -1)


def _scattered(node: Node, specs, constants) -> tuple[int, tuple[int, ...]] | None:
    """Where constant indices put each update: element offset of the first, and steps along the axes of the indices; None if irregular."""
    index, shape = constants.get(node.inputs[1]), specs[node.inputs[0]].shape
    if index is None or shape is None or any(isinstance(d, str) for d in shape):
        return None
    k = index.shape[-1]
    wrapped = [np.where(index[..., a] < 0, index[..., a] + shape[a], index[..., a]) for a in range(k)]
    found = regular(sum((w * s for w, s in zip(wrapped, c_strides(shape)[:k])), np.zeros((), np.int64)))
    return found if found and all(step or n == 1 for step, n in zip(found[1], index.shape)) else None


def _scatter_refused(node: Node, specs, constants) -> str | None:
    return None if _scattered(node, specs, constants) else "no kernel but for constant indices at regular distances"


@emits("ScatterND", kernel="copy32", refused=_scatter_refused)
def scatter(build, node):
    """The data copied, then the updates to where they belong."""
    data, updates = build.views[node.inputs[0]], build.views[node.inputs[2]]
    y = build.place(node.outputs[0], data.shape)
    whole = y if y.contiguous else build.scratch(data.shape, data.dtype)
    build.copy(node.name, data, whole)
    first, steps = _scattered(node, build.specs, build.weights)
    rest = len(data.shape) - build.weights[node.inputs[1]].shape[-1]
    strides = (*steps, *(whole.strides[len(whole.strides) - rest:] if rest else ()))
    build.copy(node.name, updates, replace(whole.shifted(first), shape=updates.shape, strides=strides))
    if whole is not y:
        build.copy(node.name, whole, y)


@emits("ReduceMean", "ReduceSum", kernel="reduce", refused=constant_but_first("axes"))
def reduce(build, node):
    """Rows of the reduced axes, added in one fixed order."""
    x, rank = build.views[node.inputs[0]], len(build.views[node.inputs[0]].shape)
    axes = reduced_axes(node, rank, build.weights.get(node.input(1)))
    y = build.place(node.outputs[0], build.infer_output(node, 0))
    if not axes:
        return build.copy(node.name, x, y)
    kept = tuple(a for a in range(rank) if a not in axes)
    n = math.prod(x.shape[a] for a in axes)
    turned = x.transposed((*kept, *(a for a in range(rank) if a in axes)))
    shape = tuple(x.shape[a] for a in kept)
    rows = turned.reshaped((*shape, n))
    rows = build.contiguous(turned).reshaped((*shape, n)) if rows is None else rows
    if n == 0:
        return build.fill(node.name, y, np.nan if node.op == "ReduceMean" else 0.0)
    outer = y.reshaped(shape)
    build.reduce(node.name, outer, rows, n if node.op == "ReduceMean" else 1)
    return None


@emits("Softmax", kernel="softmax")
def softmax(build, node):
    """Along one axis, as rows."""
    x = build.views[node.inputs[0]]
    y, axis = build.place_like(node.outputs[0], x), node.get("axis") % len(x.shape)
    build.rowwise(node.name, "softmax", y, x, axis)


@emits("LayerNormalization", kernel="reduce")
def layer_normalization(build, node):
    """Mean, centred values, their mean square, and their quotient, each over rows."""
    x, name = build.contiguous(build.views[node.inputs[0]]), node.name
    axis, y = node.get("axis") % len(x.shape), build.place(node.outputs[0], x.shape)
    if 0 in x.shape:
        return
    lead, n = x.shape[:axis], math.prod(x.shape[axis:])
    rows, mean, centred, square = x.reshaped((*lead, n)), build.scratch((*lead, 1)), build.scratch((*lead, n)), build.scratch((*lead, n))
    build.reduce(name, mean.reshaped(lead), rows, n)
    build.pointwise(name, "sub", centred, rows, mean.broadcast((*lead, n)))
    build.pointwise(name, "mul", square, centred, centred)
    build.reduce(name, mean.reshaped(lead), square, n)
    build.pointwise(name, "add", mean, mean, build.number(node.get("epsilon")).broadcast(mean.shape))
    build.pointwise(name, "sqrt", mean, mean)
    build.pointwise(name, "div", centred, centred, mean.broadcast((*lead, n)))
    whole = centred.reshaped(x.shape)
    scaled = y if not node.input(2) else whole
    build.pointwise(name, "mul", scaled, whole, build.views[node.inputs[1]].broadcast(x.shape))
    if node.input(2):
        build.pointwise(name, "add", y, scaled, build.views[node.inputs[2]].broadcast(x.shape))
