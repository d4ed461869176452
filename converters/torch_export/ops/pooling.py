"""Pooling over windows, and over everything."""

from __future__ import annotations

import itertools
import math

import numpy as np

from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import Site


def _pool(g: Site, op: str, x: Tensor, n: int, kernel, stride, padding, ceil_mode, outputs: int = 1, **attributes) -> str | list[str]:
    """One number stands for all n spatial axes; without a stride, windows lie side by side; a list of 2 n pads says both sides. A batch axis is added where there is none."""

    def each(values):
        values = [values] if isinstance(values, int) else list(values)
        return values * n if len(values) == 1 else values

    alone = x.rank == n + 1
    attributes |= {
        "kernel_shape": each(kernel),
        "strides": each(stride or kernel),
        "pads": padding if isinstance(padding, list) and len(padding) == 2 * n else each(padding) * 2,
    }
    if "dilations" in attributes:
        attributes["dilations"] = each(attributes["dilations"])
    y = g.emit(op, g.emit("Unsqueeze", x, g.ints(0)) if alone else x, outputs=outputs, ceil_mode=int(ceil_mode), **attributes)
    found = [g.emit("Squeeze", v, g.ints(0)) if alone else v for v in ([y] if outputs == 1 else y)]
    return found[0] if outputs == 1 else found


def _dims(g: Site) -> int:
    """How many axes the op pools over: the digit in its name."""
    return next(int(c) for c in g.target if c.isdigit())


@converts(*(f"aten.max_pool{n}d{form}.default" for n in (1, 2, 3) for form in ("", "_with_indices")))
def max_pool(g: Site, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    """The largest of each window, and where in its channel it stood; ONNX counts over all channels."""
    n, places = _dims(g), "indices" in g.target and g.uses(1)
    y = _pool(g, "MaxPool", x, n, kernel_size, stride, padding, ceil_mode, 2 if places else 1, dilations=dilation)
    if not places:
        return [y, None] if "indices" in g.target else y
    channel = g.product([g.size(x, k) for k in range(x.rank - n, x.rank)])
    return [y[0], g.emit("Mod", y[1], g.sizes([channel]))]


@converts(*(f"aten.avg_pool{n}d.default" for n in (1, 2, 3)))
def avg_pool(g: Site, x, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The mean of each window, or its sum over another number."""
    n = _dims(g)
    if divisor_override is None:
        return _pool(g, "AveragePool", x, n, kernel_size, stride, padding, ceil_mode, count_include_pad=int(count_include_pad))
    after = g.node.meta["val"].shape
    kernel, steps, pads = (list(v) * n if len(v) == 1 else list(v) for v in (kernel_size, stride or kernel_size, padding))
    behind = pads
    if ceil_mode:  # the last windows are made whole by zeros
        if not all(isinstance(d, int) for d in (*after[-n:], *x.fake.shape[-n:])):
            raise g.refuse("divisor_override with ceil_mode is only supported for fixed sizes", *x.fake.shape[-n:])
        behind = [max(0, (o - 1) * s + k - d - p) for o, s, k, d, p in zip(after[-n:], steps, kernel, x.fake.shape[-n:], pads)]
    y = _pool(g, "AveragePool", x, n, kernel, steps, [*pads, *behind], False, count_include_pad=1)
    window = math.prod(kernel)
    return g.emit("Mul", y, g.constant(window / divisor_override, g.dtype))


MOST_WINDOWS = 64  # of different lengths along an axis: so many slices


@converts(*(f"aten.adaptive_{kind}_pool{n}d.default" for kind in ("avg", "max") for n in (1, 2, 3)), "aten._adaptive_avg_pool2d.default")
def adaptive_pool(g: Site, x, output_size):
    """Each axis by itself: to one entry, to as many as there are, or a fixed size to a number of windows."""
    n, is_max = _dims(g), "max" in g.target
    outputs = [output_size] * n if isinstance(output_size, int) else list(output_size)
    axes, y, windows = list(range(x.rank - n, x.rank)), x.name, [1] * n
    if is_max and g.uses(1):
        return _adaptive_places(g, x, n)
    before, after = x.fake.shape, (g.node.meta["val"][0] if is_max else g.node.meta["val"]).shape
    whole = [axis for axis, o in zip(axes, outputs) if isinstance(o, int) and o == 1]
    if whole:
        y = g.emit("ReduceMax" if is_max else "ReduceMean", y, g.ints(*whole), keepdims=1)
    for k, axis in enumerate(axes):
        size = x.shape[axis]
        if axis in whole or str(before[axis]) == str(after[axis]):
            continue
        if size is None or not isinstance(after[axis], int):
            raise g.refuse(f"axis {axis} to {outputs[k]} entries is only supported where its size is fixed", before[axis], after[axis])
        if size % after[axis] == 0:
            windows[k] = size // after[axis]
            continue
        if after[axis] > MOST_WINDOWS:
            raise g.refuse(f"axis {axis} from {size} to {after[axis]} entries: more than {MOST_WINDOWS} windows of different lengths")
        y = _windows(g, y, axis, size, after[axis], is_max)
    if any(w > 1 for w in windows):
        y = _pool(g, "MaxPool" if is_max else "AveragePool", Tensor(y, x.shape, x.dtype), n, windows, windows, 0, False)
    y = g.emit("Identity", y) if y == x.name else y
    return [y, None] if is_max else y


def _adaptive_places(g: Site, x: Tensor, n: int) -> list[str]:
    """The largest of each adaptive window and where in its channel it stood: the entries of all windows side by side, short ones filled up with their first."""
    sizes, counts = x.shape[-n:], g.node.meta["val"][0].shape[-n:]
    if None in sizes or not all(isinstance(c, int) for c in counts):
        raise g.refuse("where the largest stood is only supported for fixed sizes", *x.fake.shape[-n:])
    channel, windows = np.arange(math.prod(sizes)).reshape(sizes), []
    for at in itertools.product(*map(range, counts)):
        cut = channel[tuple(slice(k * s // c, -(-(k + 1) * s // c)) for k, s, c in zip(at, sizes, counts))].ravel()
        windows.append(cut)
    widest = max(map(len, windows))
    entries = np.array([np.concatenate([w, np.full(widest - len(w), w[0])]) for w in windows])
    leading = [g.size(x, k) for k in range(x.rank - n)]
    each = g.emit("Gather", g.emit("Reshape", x, g.sizes([*leading, -1])), g.graph.constant(entries), axis=x.rank - n)
    best = g.emit("ArgMax", each, axis=-1, keepdims=1)
    largest = g.emit("GatherElements", each, best, axis=-1)
    firsts = g.emit("Expand", g.graph.constant(entries), g.emit("Shape", each))
    places = g.emit("GatherElements", firsts, best, axis=-1)
    return [g.emit("Reshape", v, g.sizes([*leading, *counts])) for v in (largest, places)]


def _windows(g: Site, y: str, axis: int, size: int, count: int, is_max: bool) -> str:
    """Windows from floor(k * size / count) to ceil((k + 1) * size / count), each reduced to one entry."""
    parts = [g.emit("Slice", y, g.ints(k * size // count), g.ints(-(-(k + 1) * size // count)), g.ints(axis)) for k in range(count)]
    return g.emit("Concat", *(g.emit("ReduceMax" if is_max else "ReduceMean", part, g.ints(axis), keepdims=1) for part in parts), axis=axis)
