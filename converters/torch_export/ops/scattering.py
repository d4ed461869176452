"""Operators that put entries at places that an index names, joined with what is there."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.converters.torch_export.ops.shaping import cut
from fastrnn.converters.torch_export.registry import Size, Tensor, converts
from fastrnn.converters.torch_export.site import Site

JOINED = {"sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min", "add": "add", "multiply": "mul"}


def fitting(g: Site, src: Tensor, index: Tensor) -> str:
    """As much of the source as there are indices."""
    y = src.name
    for k, (have, taken) in enumerate(zip(src.shape, index.shape)):
        if str(src.fake.shape[k]) != str(index.fake.shape[k]):
            if taken is None or have is None:
                raise g.refuse(f"src {src.shape} and index {index.shape} differ in shape", src.fake.shape[k], index.fake.shape[k])
            y = cut(g, y, k, 0, taken)
    return y


def joined(g: Site, x: str, index: str, src: str, axis: int, how: str, include_self: bool = True) -> str:
    """x with sources joined to the entries that the index names. Without include_self, to each other alone."""

    def put(onto: str, what: str, reduction: str) -> str:
        return g.emit("ScatterElements", onto, index, what, axis=axis, reduction=reduction)

    zero, one = g.constant(0, g.dtype), g.constant(1, g.dtype)
    count = None
    if how == "mean" or not include_self:
        shapes = g.emit("Shape", x), g.emit("Shape", index)
        count = put(g.emit("Expand", zero, shapes[0]), g.emit("Expand", one, shapes[1]), "add")
    if not include_self:
        start = {"sum": 0, "mean": 0, "prod": 1, "amax": _least(g.dtype, True), "amin": _least(g.dtype, False)}[how]
        fresh = g.emit("Greater", count, zero)
        x = g.emit("Where", fresh, g.constant(start, g.dtype), x)
    y = put(x, src, JOINED[how])
    if how == "mean":
        y = g.emit("Div", y, g.emit("Max", g.emit("Add", count, one) if include_self else count, one))
    return y


def _least(dtype: str, lowest: bool):
    if dtype.startswith("float"):
        return -math.inf if lowest else math.inf
    return np.iinfo(dtype).min if lowest else np.iinfo(dtype).max


@converts("aten.scatter_add.default", "aten.scatter_reduce.two", "aten.scatter.reduce")
def scatter_reduce(g: Site, x, dim, index, src, reduce="sum", include_self=True):
    """One for each index along one axis."""
    if reduce == "mean" and not g.dtype.startswith("float"):
        raise g.refuse(f"the mean of {g.dtype} is not supported")
    if not x.rank:  # numbers, as rows of one
        row = [g.emit("Reshape", t, g.ints(1)) for t in (x, index, src)]
        return g.emit("Reshape", joined(g, *row, 0, reduce, include_self), g.ints())  # type: ignore[call-arg]  # as many as it takes
    return joined(g, x.name, index.name, fitting(g, src, index), x.axis(dim), reduce, include_self)


def _along(g: Site, index: Tensor, source: Tensor, axis: int) -> str:
    """A row of indices for one axis, spread over the others of a source."""
    spread = g.emit("Reshape", index, g.ints(*(-1 if k == axis else 1 for k in range(source.rank))))
    return g.emit("Expand", spread, g.emit("Shape", source))


@converts("aten.index_add.default", "aten.index_reduce.default")
def index_add(g: Site, x, dim, index, source, alpha=1, reduce="sum", include_self=True):
    """Whole slices of a source, one for each index."""
    how = {"prod": "prod", "mean": "mean", "amax": "amax", "amin": "amin", "sum": "sum"}[reduce]
    y = source.name if alpha == 1 else g.emit("Mul", source, g.cast(alpha, g.dtype))
    if not x.rank:
        row, at, what = (g.emit("Reshape", t, g.ints(-1)) for t in (x, index, y))
        return g.emit("Reshape", joined(g, row, at, what, 0, how, include_self), g.ints())
    axis = x.axis(dim)
    return joined(g, x.name, _along(g, index, source, axis), y, axis, how, include_self)


@converts("aten.put.default")
def put(g: Site, x, index, source, accumulate=False):
    """Entries counted over the whole tensor."""
    flat, at, values = (g.emit("Reshape", t, g.ints(-1)) for t in (x, index, source))
    y = g.emit("ScatterElements", flat, at, values, axis=0, reduction="add" if accumulate else "none")
    return g.emit("Reshape", y, g.emit("Shape", x))


@converts("aten.masked_scatter.default")
def masked_scatter(g: Site, x, mask, source):
    """Where the mask holds, the entries of a source one after the other."""
    held = g.emit("Expand", mask, g.emit("Shape", x))
    order = g.emit("CumSum", g.emit("Cast", g.emit("Reshape", held, g.ints(-1)), to="int64"), g.constant(0, "int64"))
    at = g.emit("Max", g.emit("Sub", order, g.constant(1, "int64")), g.constant(0, "int64"))
    taken = g.emit("Reshape", g.emit("Gather", g.emit("Reshape", source, g.ints(-1)), at, axis=0), g.emit("Shape", x))
    return g.emit("Where", held, taken, x)


def accumulated(g: Site, x: str, sizes: list[int | Size], at: str, k: int, values: str) -> str:
    """values (..., rest) added to x, whose sizes these are, at indices (..., k) of the first k axes, which are counted as one."""
    columns, rest = g.emit("Reshape", at, g.ints(-1, k)), g.product(sizes[k:])
    wrapped = g.emit("Where", g.emit("Less", columns, g.constant(0, "int64")), g.emit("Add", columns, g.sizes(sizes[:k])), columns)
    strides = g.sizes([g.product(sizes[axis + 1 : k]) for axis in range(k)])
    line = g.emit("ReduceSum", g.emit("Mul", wrapped, strides), g.ints(1), keepdims=1)
    flat, rows = g.emit("Reshape", x, g.sizes([g.product(sizes[:k]), rest])), g.emit("Reshape", values, g.sizes([-1, rest]))
    y = g.emit("ScatterElements", flat, g.emit("Expand", line, g.emit("Shape", rows)), rows, axis=0, reduction="add")
    return g.emit("Reshape", y, g.emit("Shape", x))
