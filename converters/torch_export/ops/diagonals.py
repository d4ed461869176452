"""Views of a tensor that are taken entry by entry: diagonals, and strides over what lies in memory. Their sizes must be fixed, since so are the places."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import Site


def _fixed(g: Site, x: Tensor, axes) -> list[int]:
    """The sizes of some axes."""
    if any(x.shape[a] is None for a in axes):
        raise g.refuse("over axes whose lengths vary", *(x.fake.shape[a] for a in axes))
    return [x.shape[a] for a in axes]


def _plane(g: Site, x: Tensor, dim1: int, dim2: int) -> tuple[str, list[int], tuple[int, int]]:
    """Two axes joined as the last one; the order of axes that led there, and their sizes."""
    a, b = x.axis(dim1), x.axis(dim2)
    order, (r, c) = [*(k for k in range(x.rank) if k not in (a, b)), a, b], _fixed(g, x, (a, b))
    turned = x.name if order == sorted(order) else g.emit("Transpose", x, perm=order)
    return g.emit("Reshape", turned, g.sizes([*(g.size(x, k) for k in order[:-2]), r * c])), order, (r, c)


def _places(sizes: tuple[int, int], offset: int) -> np.ndarray:
    """Of a diagonal among the entries of a plane."""
    return np.diagonal(np.arange(sizes[0] * sizes[1]).reshape(sizes), offset)


@converts("aten.diagonal.default", "aten.diagonal_copy.default")
def diagonal(g: Site, x, offset=0, dim1=0, dim2=1):
    """As a new last axis."""
    flat, _, sizes = _plane(g, x, dim1, dim2)
    return g.emit("Gather", flat, g.ints(*_places(sizes, offset).tolist()), axis=x.rank - 2)


@converts("aten.diagonal_scatter.default")
def diagonal_scatter(g: Site, x, src, offset=0, dim1=0, dim2=1):
    """A diagonal replaced."""
    flat, order, sizes = _plane(g, x, dim1, dim2)
    y = _replaced(g, flat, src.name, x.rank - 2, sizes[0] * sizes[1], _places(sizes, offset))
    y = g.emit("Reshape", y, g.sizes([*(g.size(x, k) for k in order[:-2]), *sizes]))
    return y if order == sorted(order) else g.emit("Transpose", y, perm=np.argsort(order).tolist())


def _replaced(g: Site, x: str, src: str, axis: int, n: int, places: np.ndarray) -> str:
    """x with the entries at these places of its last axis replaced by those of src, the last where several have one place."""
    if not places.size:
        return x
    source, held = np.zeros(n, np.int64), np.zeros(n, bool)
    source[places], held[places] = np.arange(places.size), True
    return g.emit("Where", g.graph.constant(held), g.emit("Gather", src, g.graph.constant(source), axis=axis), x)


def _strided(g: Site, x: Tensor, size, stride, storage_offset) -> np.ndarray:
    """Which entries of x, counted over all of it, a view by strides has."""
    fake = x.fake
    _fixed(g, x, range(x.rank))
    if not all(isinstance(n, int) for n in (*size, *stride)) or not fake.is_contiguous() or fake.storage_offset() != 0:
        raise g.refuse("of sizes that vary, or over what is a view itself, is not supported")
    at = np.full((), storage_offset or 0)
    for n, step in zip(size, stride):
        at = at[..., None] + np.arange(n) * step
    if at.size and at.max() >= fake.numel():
        raise g.refuse("reaches past the tensor")
    return at


@converts("aten.as_strided.default", "aten.as_strided_copy.default")
def as_strided(g: Site, x, size, stride, storage_offset=None):
    """Entries by their place in memory, of a tensor that lies there without gaps."""
    at = _strided(g, x, size, stride, storage_offset)
    return g.emit("Gather", g.emit("Reshape", x, g.ints(-1)), g.graph.constant(at.astype(np.int64)), axis=0)


@converts("aten.as_strided_scatter.default")
def as_strided_scatter(g: Site, x, src, size, stride, storage_offset=None):
    """Those replaced."""
    at = _strided(g, x, size, stride, storage_offset)
    flat, values = (g.emit("Reshape", t, g.ints(-1)) for t in (x, src))
    return g.emit("Reshape", _replaced(g, flat, values, 0, x.fake.numel(), at.ravel()), g.ints(*x.shape))
