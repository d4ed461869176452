"""Operators that count, or gather what belongs together: histograms, the most frequent entry, places of what is not 0, bags of embeddings, segments."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.torch_export.registry import Size, Tensor, converts
from fastrnn.converters.torch_export.site import Site


def _line(g: Site, x: Tensor) -> str:
    return g.emit("Reshape", g.cast(x, g.dtype), g.ints(-1))


def _range(g: Site, y: str, given, apart: float) -> tuple[str, str]:
    """Both ends: as given, or those of the data; and so far to either side where they are equal."""
    ends = [g.constant(v, g.dtype) for v in given] if given else [g.emit(op, y, g.ints(0), keepdims=0) for op in ("ReduceMin", "ReduceMax")]
    same, gap = g.emit("Equal", *ends), g.constant(apart, g.dtype)
    return tuple(g.emit("Where", same, g.emit(op, end, gap), end) for op, end in zip(("Sub", "Add"), ends))


def _counted(g: Site, y: str, low: str, high: str, bins: int, weight: str | None = None) -> str:
    """How many entries, or how much weight, each bin has; the last one with its upper end. All entries are compared with all bins."""
    at = g.emit("Floor", g.emit("Div", g.emit("Mul", g.emit("Sub", y, low), g.constant(bins, g.dtype)), g.emit("Sub", high, low)))
    inside = g.emit("And", g.emit("GreaterOrEqual", y, low), g.emit("LessOrEqual", y, high))
    at = g.emit("Where", inside, g.emit("Min", at, g.constant(bins - 1, g.dtype)), g.constant(-1, g.dtype))
    held = g.emit("Cast", g.emit("Equal", g.emit("Unsqueeze", at, g.ints(1)), g.graph.constant(np.arange(bins, dtype=g.dtype))), to=g.dtype)
    held = held if weight is None else g.emit("Mul", held, g.emit("Unsqueeze", weight, g.ints(1)))
    return g.emit("ReduceSum", held, g.ints(0), keepdims=0)


@converts("aten.histc.default")
def histc(g: Site, x, bins=100, min=0, max=0):  # the schema's names
    """Entries in each of some bins of one width; between those of the data where both ends are one."""
    y = _line(g, x)
    return _counted(g, y, *_range(g, y, (min, max) if min != max else None, 1), bins)


@converts("aten.histogram.bin_ct")
def histogram(g: Site, x, bins=100, range=None, weight=None, density=False):  # the schema's names
    """The same, with weights or as a density, and the edges of the bins."""
    y = _line(g, x)
    low, high = _range(g, y, range, 0.5)
    counts, width = (
        _counted(g, y, low, high, bins, None if weight is None else _line(g, weight)),
        g.emit("Div", g.emit("Sub", high, low), g.constant(bins, g.dtype)),
    )
    edges = g.emit("Add", g.emit("Mul", g.graph.constant(np.arange(bins + 1, dtype=g.dtype)), width), low)
    if density:
        counts = g.emit("Div", counts, g.emit("Mul", g.emit("ReduceSum", counts, g.ints(0), keepdims=1), width))
    return [counts, edges]


@converts("aten.mode.default")
def mode(g: Site, x, dim=-1, keepdim=False):
    """The most frequent entry, the least of those, and where it last stands. All are compared with all."""
    if not x.rank:
        return [x.name, g.constant(0, "int64")]
    axis = x.axis(dim)
    same = g.emit("Equal", g.emit("Unsqueeze", x, g.ints(axis + 1)), g.emit("Unsqueeze", x, g.ints(axis)))
    count = g.emit("ReduceSum", g.emit("Cast", same, to="int64"), g.ints(axis + 1), keepdims=0)
    best = g.emit("Equal", count, g.emit("ReduceMax", count, g.ints(axis), keepdims=1))
    most = np.inf if x.dtype.startswith("float") else np.iinfo(x.dtype).max
    value = g.emit("ReduceMin", g.emit("Where", best, x, g.constant(most, x.dtype)), g.ints(axis), keepdims=1)
    places = g.emit("Range", *(g.cast(v, "int64") for v in (0, g.size(x, axis), 1)))
    places = g.emit("Unsqueeze", places, g.ints(*range(1, x.rank - axis))) if axis < x.rank - 1 else places
    at = g.emit("ReduceMax", g.emit("Where", g.emit("Equal", x, value), places, g.constant(-1, "int64")), g.ints(axis), keepdims=1)
    return [value, at] if keepdim else [g.emit("Squeeze", v, g.ints(axis)) for v in (value, at)]


@converts("aten.nonzero_static.default")
def nonzero_static(g: Site, x, size, fill_value=-1):
    """The places of the first so many entries that are not 0, in rows; rows that are left hold fill_value."""
    if not x.rank:
        return g.graph.constant(np.zeros((size, 0), np.int64))
    mask = g.emit("Cast", g.emit("Reshape", g.cast(x, "bool"), g.ints(-1)), to="int64")
    held, at = g.emit("TopK", g.emit("Pad", mask, g.ints(0, size)), g.ints(size), outputs=2, axis=0, largest=1)
    columns, sizes = [], [g.size(x, k) for k in range(x.rank)]
    for k in range(x.rank):
        step = g.emit("Div", at, g.sizes([g.product(sizes[k + 1 :])]))
        columns.append(g.emit("Unsqueeze", g.emit("Mod", step, g.sizes([sizes[k]])) if k else step, g.ints(1)))
    rows = g.emit("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]
    return g.emit("Where", g.emit("Cast", g.emit("Unsqueeze", held, g.ints(1)), to="bool"), rows, g.constant(fill_value, "int64"))


def _members(g: Site, starts: str, ends: str, n: int | Size) -> str:
    """Which of n rows lie in which segment, (segments, n)."""
    places = g.emit("Unsqueeze", g.emit("Range", *(g.cast(v, "int64") for v in (0, n, 1))), g.ints(0))
    first, last = (g.emit("Unsqueeze", v, g.ints(1)) for v in (starts, ends))
    return g.emit("And", g.emit("GreaterOrEqual", places, first), g.emit("Less", places, last))


def _gathered(g: Site, rows: str, members: str, how: str, empty: float, dtype: str) -> str:
    """rows (n, d) of each segment joined; `empty` for one of none, but for a mean."""
    zero = g.constant(0, dtype)
    if how in ("sum", "mean"):
        share = g.emit("Cast", members, to=dtype)
        total = g.emit("MatMul", share, rows)
        if how == "sum":
            return total
        count = g.emit("ReduceSum", share, g.ints(1), keepdims=1)
        return g.emit(
            "Where", g.emit("Equal", count, zero), g.constant(empty, dtype), g.emit("Div", total, g.emit("Max", count, g.constant(1, dtype)))
        )
    op, fill = {"max": ("ReduceMax", -np.inf), "min": ("ReduceMin", np.inf), "prod": ("ReduceProd", 1)}[how]
    each = g.emit("Where", g.emit("Unsqueeze", members, g.ints(2)), g.emit("Unsqueeze", rows, g.ints(0)), g.constant(fill, dtype))
    y = g.emit(op, each, g.ints(1), keepdims=0)
    some = g.emit("ReduceMax", g.emit("Cast", members, to="int64"), g.ints(1), keepdims=1)
    return g.emit("Where", g.emit("Cast", some, to="bool"), y, g.constant(empty, dtype))


@converts("aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
def embedding_bag(g: Site, weight, indices, offsets, mode=0, per_sample_weights=None, include_last_offset=False, padding_idx=-1):
    """Rows of a table, those of each bag summed, averaged or the largest of each entry; 0 for a bag of none. The rest is for gradients."""
    if padding_idx != -1:
        raise g.refuse(f"padding_idx={padding_idx} is not supported")
    starts, n = g.cast(offsets, "int64"), g.size(indices, 0)
    end = g.emit("Slice", starts, g.ints(1), g.ints(np.iinfo(np.int64).max), g.ints(0))
    if include_last_offset:
        starts = g.emit("Slice", starts, g.ints(0), g.ints(-1), g.ints(0))
    else:
        end = g.emit("Concat", end, g.sizes([n]), axis=0)
    rows = g.emit("Gather", weight, indices, axis=0)
    rows = rows if per_sample_weights is None else g.emit("Mul", rows, g.emit("Unsqueeze", per_sample_weights, g.ints(1)))
    return [_gathered(g, rows, _members(g, starts, end, n), ("sum", "mean", "max")[mode], 0, g.dtype), None, None, None]


@converts("aten.segment_reduce.default")
def segment_reduce(g: Site, data, reduce, lengths=None, offsets=None, axis=0, unsafe=False, initial=None):  # the schema's names
    """Rows one behind the other in segments, by their lengths or by where they start. unsafe: without a check."""
    given = lengths if offsets is None else offsets
    if given.rank != 1 or axis:
        raise g.refuse("along another axis than the first is not supported")
    if offsets is None:
        ends = g.emit("CumSum", g.cast(lengths, "int64"), g.constant(0, "int64"))
        starts = g.emit("Sub", ends, g.cast(lengths, "int64"))
    else:
        y = g.cast(offsets, "int64")
        starts, ends = (g.emit("Slice", y, g.ints(a), g.ints(b), g.ints(0)) for a, b in ((0, -1), (1, np.iinfo(np.int64).max)))
    if initial is not None and reduce not in ("sum", "prod", "max", "min"):
        raise g.refuse(f"initial={initial} with {reduce} is not supported")
    rows = g.emit("Reshape", data, g.sizes([g.size(data, 0), g.product([g.size(data, k) for k in range(1, data.rank)])]))
    none = {"sum": 0, "mean": np.nan, "max": -np.inf, "min": np.inf, "prod": 1}[reduce]
    y = _gathered(g, rows, _members(g, starts, ends, g.size(data, 0)), reduce, none, g.dtype)
    if initial is not None:
        y = g.emit({"sum": "Add", "prod": "Mul", "max": "Max", "min": "Min"}[reduce], y, g.constant(initial, g.dtype))
    return g.emit("Reshape", y, g.sizes([-1, *(g.size(data, k) for k in range(1, data.rank))]))
