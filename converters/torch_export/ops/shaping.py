"""Operators that rearrange."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.torch_export.registry import Size, Tensor, converts, settled
from fastrnn.converters.torch_export.site import LAST, Site

FIRST = np.iinfo(np.int64).min  # as the end of a slice backwards: past the first


@converts("aten.view.default", "aten.view_copy.default", "aten.reshape.default", "aten._unsafe_view.default", "aten._reshape_alias.default")
def view(g: Site, x, size=None, shape=None):
    """Other sizes, one of which may be -1."""
    size = shape if size is None else size
    return g.emit("Reshape", x, g.sizes(size), **({"allowzero": 1} if 0 in [s for s in size if isinstance(s, int)] else {}))


@converts("aten.permute.default", "aten.permute_copy.default")
def permute(g: Site, x, dims):
    """Axes in another order."""
    return g.emit("Transpose", x, perm=[x.axis(d) for d in dims])


@converts("aten.transpose.int", "aten.transpose_copy.int", "aten.t.default", "aten.t_copy.default", "aten.numpy_T.default", "aten.mT.default")
def transpose(g: Site, x, dim0=-2, dim1=-1):
    """Two axes exchanged."""
    return x.name if x.rank < 2 else g.transpose(x, x.axis(dim0), x.axis(dim1), x.rank)


@converts("aten.unsqueeze.default", "aten.unsqueeze_copy.default")
def unsqueeze(g: Site, x, dim):
    """A new axis of 1."""
    return g.emit("Unsqueeze", x, g.ints(dim if dim >= 0 else dim + x.rank + 1))


@converts(
    "aten.squeeze.dim", "aten.squeeze_copy.dim", "aten.squeeze.dims", "aten.squeeze_copy.dims", "aten.squeeze.default", "aten.squeeze_copy.default"
)
def squeeze(g: Site, x, dim=None):
    """Axes of 1 removed; others stay."""
    dims = range(x.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [x.axis(d) for d in dims if x.shape and x.shape[x.axis(d)] == 1]
    return g.emit("Squeeze", x, g.ints(*axes)) if axes else x.name


@converts("aten.expand.default", "aten.expand_copy.default", "aten.expand_as.default", "aten.broadcast_to.default")
def expand(g: Site, x, size=None, other=None):
    """Repeated along axes of 1, as a view; -1 keeps an axis."""
    size = [g.size(other, k) for k in range(other.rank)] if size is None else size
    return g.emit("Expand", x, g.sizes([1 if isinstance(s, int) and s == -1 else s for s in size]))


def cut(g: Site, x, axis: int, start, end, step: int = 1) -> str:
    """A slice; bounds are numbers or sizes."""
    bounds = [v.name if isinstance(v, Size) else g.ints(v) for v in (start, end)]
    return g.emit("Slice", x, *bounds, g.ints(axis), *([] if step == 1 else [g.ints(step)]))


@converts("aten.slice.Tensor", "aten.slice_copy.Tensor")
def slice_(g: Site, x, dim=0, start=None, end=None, step=1):
    """Part of an axis."""
    start, end = 0 if start is None else start, LAST if end is None else end
    return x.name if (start, end, step) == (0, LAST, 1) else cut(g, x, x.axis(dim), start, end, step)


@converts("aten.narrow.default", "aten.narrow_copy.default")
def narrow(g: Site, x, dim, start, length):
    """Part of an axis by its length."""
    axis = x.axis(dim)
    if isinstance(start, int) and start < 0:
        n = g.size(x, axis)
        start = n + start if isinstance(n, int) else Size(g.emit("Add", n, g.ints(start)))
    if isinstance(length, int) and x.shape[axis] is None:  # an axis that is too short is refused and not cut
        whole = g.ints(*range(length))
        return g.emit(
            "Gather", x, g.emit("Add", whole, start) if isinstance(start, Size) else g.ints(*range(start, start + length)), axis=axis, wrap=0
        )
    end = start + length if isinstance(start, int) and isinstance(length, int) else Size(g.emit("Add", g.sizes([start]), g.sizes([length])))
    return cut(g, x, axis, start, end)


@converts("aten.select.int", "aten.select_copy.int")
def select(g: Site, x, dim, index):
    """One entry of an axis."""
    if isinstance(index, Size):
        return g.emit("Squeeze", g.emit("Gather", x, index, axis=x.axis(dim)), g.ints(x.axis(dim)))
    return g.emit("Gather", x, g.constant(index, "int64"), axis=x.axis(dim))


def _parts(g: Site, x: Tensor, axis: int, sizes) -> list[str]:
    if len(sizes) == 1:
        return [g.emit("Identity", x)]
    return g.emit("Split", x, g.sizes(sizes), outputs=len(sizes), axis=axis)


@converts(
    "aten.split.Tensor",
    "aten.split_copy.Tensor",
    "aten.split.sizes",
    "aten.split_with_sizes.default",
    "aten.split_with_sizes_copy.default",
    "aten.unsafe_split.Tensor",
    "aten.chunk.default",
    "aten.unsafe_chunk.default",
)
def split(g: Site, x, split_size=None, split_sizes=None, chunks=None, dim=0):
    """Parts of given sizes; how many there are is known from the program."""
    axis = x.axis(dim)
    sizes = [settled(part.shape[axis]) for part in g.node.meta["val"]]
    if None not in sizes:
        return _parts(g, x, axis, sizes)
    if split_sizes is not None or isinstance(split_size, (list, tuple)):
        return _parts(g, x, axis, split_sizes or split_size)
    raise g.refuse("parts of an axis whose length varies: how many there are would vary too", x.fake.shape[axis])


@converts("aten.unfold.default", "aten.unfold_copy.default")
def unfold(g: Site, x, dimension, size, step):
    """Windows of an axis, their entries along a new last one; of a number, one that holds it."""
    if not x.rank:
        return cut(g, g.emit("Reshape", x, g.ints(1)), 0, 0, size)
    axis = x.axis(dimension)
    n = g.size(x, axis)
    last = n - size + 1 if isinstance(n, int) else Size(g.emit("Sub", n, g.ints(size - 1)))
    starts = g.emit("Range", *(g.cast(v, "int64") for v in (0, last, step)))
    index = g.emit("Add", g.emit("Unsqueeze", starts, g.ints(1)), g.ints(*range(size)))
    windows = g.emit("Gather", x, index, axis=axis)
    return g.emit("Transpose", windows, perm=[*range(axis + 1), *range(axis + 2, x.rank + 1), axis + 1])


@converts("aten.unbind.int", "aten.unbind_copy.int")
def unbind(g: Site, x, dim=0):
    """Each entry of an axis."""
    axis = x.axis(dim)
    if x.shape[axis] is None:
        raise g.refuse("over an axis whose length varies", x.fake.shape[axis])
    return [g.emit("Squeeze", part, g.ints(axis)) for part in _parts(g, x, axis, [1] * x.shape[axis])]


@converts("aten.cat.default")
def cat(g: Site, tensors, dim=0):
    """One behind the other; torch passes over empty ones of one axis."""
    parts = [t for t in tensors if t.shape != (0,)] or tensors[:1]
    axis = dim % len(g.shape)
    return g.emit("Concat", *(g.cast(t, g.dtype) for t in parts), axis=axis) if len(parts) > 1 else g.cast(parts[0], g.dtype)


@converts("aten.stack.default")
def stack(g: Site, tensors, dim=0):
    """Along a new axis."""
    axis = dim % len(g.shape)
    return g.emit("Concat", *(g.emit("Unsqueeze", g.cast(t, g.dtype), g.ints(axis)) for t in tensors), axis=axis)


@converts("aten.flip.default")
def flip(g: Site, x, dims):
    """Axes backwards."""
    axes = [x.axis(d) for d in dims]
    return g.emit("Slice", x, g.ints(*[-1] * len(axes)), g.ints(*[FIRST] * len(axes)), g.ints(*axes), g.ints(*[-1] * len(axes)))


@converts("aten.repeat.default", "aten.tile.default")
def repeat(g: Site, x, repeats=None, dims=None):
    """Copies side by side; along axes of 1 a view."""
    repeats = list(dims if repeats is None else repeats)
    repeats = [1] * (x.rank - len(repeats)) + repeats
    new = len(repeats) - x.rank
    y = g.emit("Unsqueeze", x, g.ints(*range(new))) if new else x.name
    if all(n == 1 or d == 1 for n, d in zip(repeats[new:], x.shape)):
        return g.emit("Expand", y, g.sizes(repeats))
    return g.emit("Tile", y, g.sizes(repeats))


@converts("aten.repeat_interleave.self_int")
def repeat_interleave(g: Site, x, repeats, dim=None, output_size=None):
    """Each entry several times."""
    if dim is None:
        n = g.product([g.size(x, k) for k in range(x.rank)])
        y = g.emit("Expand", g.emit("Reshape", x, g.ints(-1, 1)), g.sizes([n, repeats]))
        return g.emit("Reshape", y, g.ints(-1))
    axis, dims = x.axis(dim), [g.size(x, k) for k in range(x.rank)]
    y = g.emit("Expand", g.emit("Unsqueeze", x, g.ints(axis + 1)), g.sizes([*dims[: axis + 1], repeats, *dims[axis + 1 :]]))
    return g.emit("Reshape", y, g.sizes([*dims[:axis], g.product([dims[axis], repeats]), *dims[axis + 1 :]]))


MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad_by(g: Site, y: str, widths: list[int | Size], mode: str) -> str:
    """All axes, widths before and behind."""
    return g.emit("Pad", y, g.sizes(widths), mode=MODES[mode])


@converts("aten.pad.default", "aten.constant_pad_nd.default")
def pad(g: Site, x, pad, mode="constant", value=None):
    """Axes from the last one on."""
    n = len(pad) // 2
    before, after = [0] * x.rank, [0] * x.rank
    for k in range(n):
        before[x.rank - 1 - k], after[x.rank - 1 - k] = pad[2 * k], pad[2 * k + 1]
    given = [g.cast(value, g.dtype)] if mode == "constant" and value else []
    cuts = [v for v in (*before, *after) if isinstance(v, int) and v < 0]
    if mode == "replicate" and cuts and len(cuts) < 2 * n:  # the ends are repeated before anything is cut off
        y = pad_by(g, x.name, [max(0, v) if isinstance(v, int) else v for v in (*before, *after)], mode)
        return pad_by(g, y, [min(0, v) if isinstance(v, int) else 0 for v in (*before, *after)], "constant")
    return g.emit("Pad", x, g.sizes([*before, *after]), *given, mode=MODES[mode])


@converts("aten.slice_scatter.default")
def slice_scatter(g: Site, x, src, dim=0, start=None, end=None, step=1):
    """A slice replaced."""
    if step != 1:
        raise g.refuse(f"step={step} is not supported, only 1")
    axis, start, end = x.axis(dim), 0 if start is None else start, LAST if end is None else end
    parts = [cut(g, x, axis, 0, start)] if start != 0 else []
    parts.append(g.emit("Expand", g.cast(src, g.dtype), g.sizes([g.size(src, k) if k == axis else g.size(x, k) for k in range(x.rank)])))
    parts += [cut(g, x, axis, end, LAST)] if end != LAST else []
    return g.emit("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]


@converts("aten.select_scatter.default")
def select_scatter(g: Site, x, src, dim, index):
    """One entry of an axis replaced."""
    axis = x.axis(dim)
    if not isinstance(index, int):
        raise g.refuse("at an index that varies", index)
    entry = g.emit("Unsqueeze", src, g.ints(axis))
    parts = [cut(g, x, axis, 0, index)] if index else []
    parts += [entry, *([] if index == -1 else [cut(g, x, axis, index + 1, LAST)])]
    return g.emit("Concat", *parts, axis=axis)
