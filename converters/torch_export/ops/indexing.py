"""Operators that fetch and replace by index, and that order."""

from __future__ import annotations

from fastrnn.converters.torch_export.ops.shaping import cut
from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import Site


@converts("aten.embedding.default")
def embedding(g: Site, weight, indices):
    """Rows of a table, by indices from 0."""
    return g.emit("Gather", weight, indices, axis=0, wrap=0)


@converts("aten.index_select.default")
def index_select(g: Site, x, dim, index):
    """Entries of one axis."""
    return g.emit("Gather", x, index, axis=x.axis(dim))


def _joined(g: Site, indices: list[Tensor]) -> str:
    """Index tensors, broadcast, as the last axis of one."""
    rank = max(i.rank for i in indices)
    whole = indices[0].name
    for index in indices[1:]:
        whole = g.emit("Add", whole, g.emit("Mul", index, g.constant(0, index.dtype)))
    shape, parts = g.emit("Shape", whole), []
    for index in indices:
        parts.append(g.emit("Unsqueeze", g.emit("Expand", g.cast(index, "int64"), shape), g.ints(rank)))
    return g.emit("Concat", *parts, axis=rank)


def _checked(g: Site, indices) -> list[int]:
    """The axes that are indexed."""
    axes = [k for k, i in enumerate(indices) if i is not None]
    if any(indices[k].dtype in ("bool", "uint8") for k in axes):
        raise g.refuse("by a mask: how many entries it takes depends on the data; use torch.where or masked_fill")
    return axes


@converts("aten.index.Tensor")
def index(g: Site, x, indices):
    """x[i], x[:, i], x[i, j]: whole numbers, at one place among the axes."""
    axes = _checked(g, indices)
    if len(axes) == 1:
        return g.emit("Gather", x, indices[axes[0]], axis=axes[0])
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise g.refuse("several indices with a slice between them are not supported")
    first, rest = axes[0], [k for k in range(x.rank) if k not in axes]
    y = g.emit("GatherND", g.emit("Transpose", x, perm=[*axes, *rest]) if first else x, _joined(g, [indices[k] for k in axes]))
    if not first:
        return y
    new = max(indices[k].rank for k in axes)
    order = [*range(new, new + first), *range(new), *range(new + first, new + len(rest))]
    return g.emit("Transpose", y, perm=order)


@converts("aten.index_put.default")
def index_put(g: Site, x, indices, values, accumulate=False):
    """Entries replaced, by indices of the first axes."""
    if accumulate:
        raise g.refuse("accumulate=True is not supported")
    if len(axes := _checked(g, indices)) == 0 or axes != list(range(len(axes))):
        raise g.refuse("only indices of the first axes are supported")
    at = _joined(g, [indices[k] for k in axes])
    leading = g.emit("Slice", g.emit("Shape", at), g.ints(0), g.ints(-1))
    rest = [g.size(x, k) for k in range(len(axes), x.rank)]
    shape = g.emit("Concat", leading, g.sizes(rest), axis=0) if rest else leading
    return g.emit("ScatterND", x, at, g.emit("Expand", g.cast(values, g.dtype), shape))


@converts("aten.gather.default")
def gather(g: Site, x, dim, index):
    """An entry for each index along one axis; along others, the first of x."""
    axis, y = x.axis(dim), x.name
    for k, (have, taken) in enumerate(zip(x.shape, index.shape)):
        if k != axis and have is not None and taken is not None and taken < have:
            y = cut(g, y, k, 0, taken)
    return g.emit("GatherElements", y, index, axis=axis)


@converts("aten.scatter.src", "aten.scatter.value")
def scatter(g: Site, x, dim, index, src=None, value=None):
    """Entries replaced, one for each index along one axis."""
    if src is None:
        src = g.emit("Expand", g.constant(value, g.dtype), g.sizes([g.size(index, k) for k in range(index.rank)]))
    elif src.shape != index.shape:
        raise g.refuse(f"src {src.shape} and index {index.shape} differ in shape")
    return g.emit("ScatterElements", x, index, src, axis=x.axis(dim))


@converts("aten.sort.default", "aten.sort.stable")
def sort(g: Site, x, dim=-1, descending=False, stable=None):
    """Stable, as TopK is."""
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


@converts("aten.nonzero.default", "aten.masked_select.default", "aten._unique2.default", "aten.unique_consecutive.default", "aten._local_scalar_dense.default", "aten.item.default")
def depends_on_data(g: Site, **rest):
    """Shapes that only the data tell."""
    raise g.refuse("the shape or number that it gives depends on the data, and fastrnn decides all shapes beforehand")
