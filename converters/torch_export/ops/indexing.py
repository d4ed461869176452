"""Operators that fetch and replace by index."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.torch_export.ops.scattering import accumulated, fitting
from fastrnn.converters.torch_export.ops.shaping import cut
from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import Site


@converts("aten.embedding.default")
def embedding(g: Site, weight, indices):
    """Rows of a table, by indices from 0."""
    return g.emit("Gather", weight, indices, axis=0, wrap=0)


@converts("aten.index_select.default")
def index_select(g: Site, x, dim, index):
    """Entries of one axis; of a number, itself."""
    return g.emit("Gather", x, index, axis=x.axis(dim)) if x.rank else g.emit("Identity", x)


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


@converts("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(g: Site, x, indices, values, accumulate=False):
    """Entries replaced, or added to, by indices of axes that lie together; these are brought to the front meanwhile."""
    axes = _checked(g, indices)
    if not axes or axes != list(range(axes[0], axes[0] + len(axes))):
        raise g.refuse("several indices with a slice between them are not supported")
    first, k, others = axes[0], len(axes), [axis for axis in range(x.rank) if axis not in axes]
    at, new = _joined(g, [indices[axis] for axis in axes]), max(indices[axis].rank for axis in axes)
    sizes = [g.size(x, axis) for axis in (*axes, *others)]
    parts = [g.sizes(part) if part else None for part in (sizes[k : k + first], sizes[k + first :])]
    leading = g.emit("Slice", g.emit("Shape", at), g.ints(0), g.ints(-1)) if new else None
    shape = [part for part in (parts[0], leading, parts[1]) if part is not None]
    rows = g.cast(values, g.dtype)
    if shape:
        rows = g.emit("Expand", rows, g.emit("Concat", *shape, axis=0) if len(shape) > 1 else shape[0])
    y = x.name
    if first:
        y = g.emit("Transpose", x, perm=[*axes, *others])
        rows = g.emit("Transpose", rows, perm=[*range(first, first + new), *range(first), *range(first + new, new + len(others))])
    y = accumulated(g, y, sizes, at, k, rows) if accumulate else g.emit("ScatterND", y, at, rows)
    return g.emit("Transpose", y, perm=np.argsort([*axes, *others]).tolist()) if first else y


@converts("aten.gather.default")
def gather(g: Site, x, dim, index):
    """An entry for each index along one axis; along others, the first of x."""
    if not x.rank:
        return g.emit("Expand", x, g.emit("Shape", index))
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
    else:
        src = fitting(g, src, index)
    if not x.rank:
        return g.emit("Reshape", src, g.ints())
    return g.emit("ScatterElements", x, index, src, axis=x.axis(dim))


@converts(
    "aten.nonzero.default",
    "aten.masked_select.default",
    "aten._unique2.default",
    "aten.unique_consecutive.default",
    "aten._local_scalar_dense.default",
    "aten.item.default",
)
def depends_on_data(g: Site, **rest):
    """Shapes that only the data tell."""
    raise g.refuse("the shape or number that it gives depends on the data, and fastrnn decides all shapes beforehand")
