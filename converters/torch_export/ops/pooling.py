"""Pooling over windows, and over everything."""

from __future__ import annotations

from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import Site


def _pool(g: Site, op: str, x: Tensor, n: int, kernel, stride, padding, ceil_mode, **attributes) -> str:
    """One number stands for all n spatial axes; without a stride, windows lie side by side. A batch axis is added where there is none."""
    def each(values):
        values = [values] if isinstance(values, int) else list(values)
        return values * n if len(values) == 1 else values

    alone = x.rank == n + 1
    attributes |= {"kernel_shape": each(kernel), "strides": each(stride or kernel), "pads": each(padding) * 2}
    if "dilations" in attributes:
        attributes["dilations"] = each(attributes["dilations"])
    y = g.emit(op, g.emit("Unsqueeze", x, g.ints(0)) if alone else x, ceil_mode=int(ceil_mode), **attributes)
    return g.emit("Squeeze", y, g.ints(0)) if alone else y


def _dims(g: Site) -> int:
    """How many axes the op pools over: the digit in its name."""
    return next(int(c) for c in g.target if c.isdigit())


@converts(*(f"aten.max_pool{n}d{form}.default" for n in (1, 2, 3) for form in ("", "_with_indices")))
def max_pool(g: Site, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    """The largest of each window; where it stood is not supported."""
    y = _pool(g, "MaxPool", x, _dims(g), kernel_size, stride, padding, ceil_mode, dilations=dilation)
    return [y, None] if "indices" in g.target else y


@converts(*(f"aten.avg_pool{n}d.default" for n in (1, 2, 3)))
def avg_pool(g: Site, x, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True):
    """The mean of each window."""
    return _pool(g, "AveragePool", x, _dims(g), kernel_size, stride, padding, ceil_mode, count_include_pad=int(count_include_pad))


MOST_WINDOWS = 64  # of different lengths along an axis: so many slices


@converts(*(f"aten.adaptive_{kind}_pool{n}d.default" for kind in ("avg", "max") for n in (1, 2, 3)), "aten._adaptive_avg_pool2d.default")
def adaptive_pool(g: Site, x, output_size):
    """Each axis by itself: to one entry, to as many as there are, or a fixed size to a number of windows."""
    n, is_max = _dims(g), "max" in g.target
    outputs = [output_size] * n if isinstance(output_size, int) else list(output_size)
    axes, y, windows = list(range(x.rank - n, x.rank)), x.name, [1] * n
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


def _windows(g: Site, y: str, axis: int, size: int, count: int, is_max: bool) -> str:
    """Windows from floor(k * size / count) to ceil((k + 1) * size / count), each reduced to one entry."""
    parts = [g.emit("Slice", y, g.ints(k * size // count), g.ints(-(-(k + 1) * size // count)), g.ints(axis)) for k in range(count)]
    return g.emit("Concat", *(g.emit("ReduceMax" if is_max else "ReduceMean", part, g.ints(axis), keepdims=1) for part in parts), axis=axis)
