"""Operators that make tensors out of sizes and numbers."""

from __future__ import annotations

import math

from fastrnn.converters.torch_export.registry import Size, Tensor, converts
from fastrnn.converters.torch_export.site import Site


def fill(g: Site, size, value) -> str:
    """A tensor of one value; zeros are remembered, since as initial states they go without saying."""
    if isinstance(value, (Tensor, Size)):
        return g.emit("Expand", g.cast(value, g.dtype), g.sizes(size))
    number = float(value) if g.dtype.startswith("float") else int(value)
    if not math.isfinite(number):
        return g.emit("Expand", g.constant(value, g.dtype), g.sizes(size))
    made = g.emit("ConstantOfShape", g.sizes(size), value=number, dtype=g.dtype)
    if number == 0:
        g.graph.zeros.add(made)
    return made


@converts("aten.zeros.default", "aten.new_zeros.default", "aten.empty.memory_format", "aten.new_empty.default")
def zeros(g: Site, size, x=None):
    """0; where torch leaves the content open, too."""
    return fill(g, size, 0)


@converts("aten.ones.default", "aten.new_ones.default")
def ones(g: Site, size, x=None):
    """1."""
    return fill(g, size, 1)


@converts("aten.full.default", "aten.new_full.default")
def full(g: Site, size, fill_value, x=None):
    """A number."""
    return fill(g, size, fill_value)


@converts(
    "aten.zeros_like.default", "aten.empty_like.default", "aten.ones_like.default", "aten.full_like.default", "aten.fill.Scalar", "aten.fill.Tensor"
)
def like(g: Site, x, fill_value=None, value=None):
    """Of another tensor's shape."""
    given = fill_value if value is None else value
    return fill(g, [g.size(x, k) for k in range(x.rank)], (1 if "ones" in g.target else 0) if given is None else given)


@converts("aten.arange.default", "aten.arange.start", "aten.arange.start_step")
def arange(g: Site, end, start=0, step=1):
    """Numbers in a row."""
    return g.emit("Range", *(g.cast(v, g.dtype) for v in (start, end, step)))


@converts("aten.copy.default")
def copy(g: Site, x, src):
    """The source at the target's shape."""
    return g.emit("Expand", g.cast(src, g.dtype), g.sizes([g.size(x, k) for k in range(x.rank)]))


@converts("aten.tril.default", "aten.triu.default")
def triangle(g: Site, x, diagonal):
    """One half of each matrix, the rest zero."""
    return g.emit("Trilu", x, g.constant(diagonal, "int64"), upper=int("triu" in g.target))
