"""Operators that order entries, or find their place in an order; and what runs along an axis: products, extremes and sums of exponentials so far."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastrnn.converters.torch_export.ops.shaping import cut
from fastrnn.converters.torch_export.registry import Size, Tensor, converts
from fastrnn.converters.torch_export.site import LAST, Site


@converts("aten.sort.default", "aten.sort.stable")
def sort(g: Site, x, dim=-1, descending=False, stable=None):
    """Stable, as TopK is. A number is sorted as it is."""
    if not x.rank:
        return [x.name, g.constant(0, "int64")]
    axis = x.axis(dim)
    return g.emit("TopK", x, g.sizes([g.size(x, axis)]), outputs=2, axis=axis, largest=int(descending))


@converts("aten.argsort.default", "aten.argsort.stable")
def argsort(g: Site, x, dim=-1, descending=False, stable=None):
    """Where a sort takes them from."""
    return sort(g, x, dim, descending)[1]


@converts("aten.topk.default")
def topk(g: Site, x, k, dim=-1, largest=True, sorted=True):  # the schema's names
    """The first few of a sort."""
    return g.emit("TopK", x, g.sizes([k]), outputs=2, axis=x.axis(dim), largest=int(largest))


def _last_of(g: Site, x: str, k, axis: int, keepdim: bool) -> list[str]:
    """The k-th smallest along an axis, and where it stands."""
    found = g.emit("TopK", x, g.sizes([k]), outputs=2, axis=axis, largest=0)
    found = [cut(g, y, axis, -1, LAST) for y in found]
    return found if keepdim else [g.emit("Squeeze", y, g.ints(axis)) for y in found]


def _line(g: Site, x: Tensor) -> tuple[str, int | Size]:
    """All entries in a row, and how many there are."""
    return g.emit("Reshape", x, g.ints(-1)), g.product([g.size(x, k) for k in range(x.rank)])


@converts("aten.kthvalue.default")
def kthvalue(g: Site, x, k, dim=-1, keepdim=False):
    """The last of the k smallest."""
    return [x.name, g.constant(0, "int64")] if not x.rank else _last_of(g, x.name, k, x.axis(dim), keepdim)


@converts("aten.median.default", "aten.median.dim")
def median(g: Site, x, dim=None, keepdim=False):
    """The lower one in the middle; NaN where there is one."""
    whole = "dim" not in g.target
    if not whole and not x.rank:
        return [x.name, g.constant(0, "int64")]
    (y, n), axis = (_line(g, x), 0) if whole else ((x.name, g.size(x, dim)), x.axis(dim))
    k = (n + 1) // 2 if isinstance(n, int) else Size(g.emit("Div", g.emit("Add", n, g.ints(1)), g.ints(2)))
    value, at = _last_of(g, y, k, axis, keepdim)
    if x.dtype.startswith("float"):
        none = g.emit("ReduceMax", g.emit("Cast", g.emit("IsNaN", y), to="int64"), g.ints(axis), keepdims=int(keepdim))
        value = g.emit("Where", g.emit("Cast", none, to="bool"), g.constant(np.nan, x.dtype), value)
    return value if whole else [value, at]


@converts("aten.nanmedian.default", "aten.nanmedian.dim")
def nanmedian(g: Site, x, dim=None, keepdim=False):
    """That of the entries that are numbers, NaN where none is. Those that are not are sorted behind all others."""
    whole = "dim" not in g.target
    if not whole and not x.rank:
        return [x.name, g.constant(0, "int64")]
    (y, n), axis = (_line(g, x), 0) if whole else ((x.name, g.size(x, dim)), x.axis(dim))
    missing = g.emit("IsNaN", y)
    ordered, places = g.emit("TopK", g.emit("Where", missing, g.constant(np.inf, x.dtype), y), g.sizes([n]), outputs=2, axis=axis, largest=0)
    count = g.emit("ReduceSum", g.emit("Cast", g.emit("Not", missing), to="int64"), g.ints(axis), keepdims=1)
    at = g.emit("Div", g.emit("Max", g.emit("Sub", count, g.constant(1, "int64")), g.constant(0, "int64")), g.constant(2, "int64"))
    value = g.emit(
        "Where", g.emit("Equal", count, g.constant(0, "int64")), g.constant(np.nan, x.dtype), g.emit("GatherElements", ordered, at, axis=axis)
    )
    found = [value, g.emit("GatherElements", places, at, axis=axis)]
    found = found if keepdim else [g.emit("Squeeze", y, g.ints(axis)) for y in found]
    return found[0] if whole else found


@converts("aten.bucketize.Tensor", "aten.bucketize.Scalar", "aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def searchsorted(g: Site, x=None, boundaries=None, sorted_sequence=None, out_int32=False, right=False, side=None, sorter=None):
    """How many bounds a value lies behind: those below it, or with right those not above it. All are compared with all."""
    if sorter is not None:
        raise g.refuse("sorter is not supported")
    bounds, behind = boundaries if sorted_sequence is None else sorted_sequence, "Greater" if right or side == "right" else "GreaterOrEqual"
    a, b = g.common(bounds, x)
    shared = bounds.rank > 1  # a row of bounds for each row of values
    rank = x.rank if isinstance(x, Tensor) else 0
    values = g.emit("Unsqueeze", b, g.ints(rank))
    rows = g.emit("Unsqueeze", a, g.ints(bounds.rank - 1)) if shared else a
    passed = g.emit("Cast", g.emit("Not", g.emit(behind, rows, values)), to=g.dtype)
    return g.emit("ReduceSum", passed, g.ints(rank), keepdims=0)


def _running(g: Site, axis: int, n: int, start: list[str], fills: list, join: Callable) -> list[str]:
    """Each entry joined with all before it, in rounds over twice as many: join(earlier, later) of lists of values, fills: what changes nothing."""
    step, values, rank = 1, start, len(g.shape)
    while step < n:
        pads = [0] * (2 * rank)
        pads[axis] = step
        earlier = [cut(g, g.emit("Pad", v, g.ints(*pads), g.constant(fill, dtype)), axis, 0, n) for v, (fill, dtype) in zip(values, fills)]
        values, step = join(earlier, values), 2 * step
    return values


def _length(g: Site, x: Tensor, dim: int) -> tuple[int, int]:
    axis = x.axis(dim)
    if x.shape[axis] is None:
        raise g.refuse("over an axis whose length varies", x.fake.shape[axis])
    return axis, x.shape[axis]


@converts("aten.cumprod.default")
def cumprod(g: Site, x, dim):
    """Products so far."""
    if not x.rank:
        return g.cast(x, g.dtype)
    axis, n = _length(g, x, dim)
    return _running(g, axis, n, [g.cast(x, g.dtype)], [(1, g.dtype)], lambda a, b: [g.emit("Mul", a[0], b[0])])[0]


@converts("aten.cummax.default", "aten.cummin.default")
def cummax(g: Site, x, dim):
    """The largest or smallest so far, and where it last stood; NaN once there was one."""
    if not x.rank:
        return [x.name, g.constant(0, "int64")]
    axis, n = _length(g, x, dim)
    most = "max" in g.target
    bounds = np.finfo(x.dtype) if x.dtype.startswith("float") else np.iinfo(x.dtype)
    fill = (-np.inf if most else np.inf) if x.dtype.startswith("float") else (bounds.min if most else bounds.max)
    places = g.emit("Expand", g.emit("Reshape", g.ints(*range(n)), g.ints(*(n if k == axis else 1 for k in range(x.rank)))), g.emit("Shape", x))

    def join(earlier, later):
        wins = g.emit("GreaterOrEqual" if most else "LessOrEqual", later[0], earlier[0])
        if x.dtype.startswith("float"):
            wins = g.emit("Or", wins, g.emit("IsNaN", later[0]))
        return [g.emit("Where", wins, b, a) for a, b in zip(earlier, later)]

    return _running(g, axis, n, [x.name, places], [(fill, x.dtype), (0, "int64")], join)


@converts("aten.logcumsumexp.default")
def logcumsumexp(g: Site, x, dim):
    """log of the sum of exponentials so far."""
    if not x.rank:
        return x.name
    axis, n = _length(g, x, dim)

    def join(earlier, later):
        high, low = g.emit("Max", earlier[0], later[0]), g.emit("Min", earlier[0], later[0])
        same = g.emit("Equal", high, low)  # infinities, whose difference is none, among these
        gap = g.emit("Where", same, g.constant(0, g.dtype), g.emit("Sub", low, high))
        return [g.emit("Add", high, g.emit("Log", g.emit("Add", g.emit("Exp", gap), g.constant(1, g.dtype))))]

    return _running(g, axis, n, [x.name], [(-np.inf, g.dtype)], join)[0]
