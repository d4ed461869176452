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


@converts(*(f"aten.adaptive_{kind}_pool{n}d.default" for kind in ("avg", "max") for n in (1, 2, 3)), "aten._adaptive_avg_pool2d.default")
def adaptive_pool(g: Site, x, output_size):
    """To one entry, or to a number that divides a known size."""
    n, is_max = _dims(g), "max" in g.target
    output, axes = [output_size] * n if isinstance(output_size, int) else list(output_size), range(x.rank - n, x.rank)
    if all(o == 1 for o in output):
        y = g.emit("ReduceMax" if is_max else "ReduceMean", x, g.ints(*axes), keepdims=1)
    elif all(isinstance(x.shape[a], int) and x.shape[a] % o == 0 for a, o in zip(axes, output)):
        kernel = [x.shape[a] // o for a, o in zip(axes, output)]
        y = _pool(g, "MaxPool" if is_max else "AveragePool", x, n, kernel, kernel, 0, False)
    else:
        raise g.refuse(f"to {output} of {[x.shape[a] for a in axes]}: only to 1, or to a number that divides a fixed size")
    return [y, None] if is_max else y
