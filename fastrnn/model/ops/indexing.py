"""Ops that fetch, fill and repeat: Gather, ScatterND, Pad, Tile, Range, ConstantOfShape."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.ops.registry import ANY_DIM, DTYPES, Spec, axes_of, axis_of, count, meaning, op, require, same_dim, where
from fastrnn.model.ops.shaping import INTS, known
from fastrnn.model.sizes import Size, n_steps, whole


@op("Tile", inputs=(2, 2))
def tile(node, inputs):
    """Repeated along each axis."""
    data, repeats = require(node, inputs[0], "the input"), known(node, inputs[1], "repeats")
    if repeats is None:
        return [Spec(data.dtype, (ANY_DIM,) * data.rank)]
    if len(repeats) != data.rank or min(repeats, default=0) < 0:
        raise InvalidModelError(f"{where(node)}: repeats {repeats.tolist()} do not fit rank {data.rank}")
    return [Spec(data.dtype, tuple(d if r == 1 else ANY_DIM if isinstance(d, str) else d * whole(r) for d, r in zip(data.shape, repeats)))]


@meaning("Tile")
def tile_meaning(node, inputs):
    """NumPy's tile."""
    return [np.tile(inputs[0], inputs[1])]


PAD_MODES = ("constant", "reflect", "edge", "wrap")


def pad_widths(node, rank: int, pads, axes=None) -> list[tuple[int, int]]:
    """(before, after) for every axis; negative widths cut."""
    axes = range(rank) if axes is None else axes_of(node, axes, rank)
    if len(pads) != 2 * len(axes):
        raise InvalidModelError(f"{where(node)}: {len(pads)} pads for {len(axes)} axes")
    widths = [(0, 0)] * rank
    for k, axis in enumerate(axes):
        widths[axis] = whole(pads[k]), whole(pads[k + len(axes)])
    return widths


def _pad_apart(node, specs, axes) -> bool:
    pads = specs[1].constant
    given = specs[3].constant if len(specs) > 3 and specs[3] is not None else None
    return pads is not None and axes[0] is not None and pad_widths(node, specs[0].rank, pads, given)[axes[0]] == (0, 0)


@op("Pad", inputs=(2, 4), mode="constant", apart=_pad_apart)
def pad(node, inputs):
    """By pads (2 * axes,), all the widths before, then all after; with a value, or from the data."""
    data, pads = require(node, inputs[0], "data"), known(node, inputs[1], "pads")
    if node.get("mode") not in PAD_MODES:
        raise InvalidModelError(f"{where(node)}: mode {node.get('mode')!r} is unknown; known are {', '.join(PAD_MODES)}")
    axes = inputs[3] if len(inputs) > 3 else None
    if len(inputs) > 2 and inputs[2] is not None and (inputs[2].dtype != data.dtype or count(inputs[2].shape) not in (1, ANY_DIM)):
        raise InvalidModelError(f"{where(node)}: the value must be one {data.dtype}, got {inputs[2].dtype} {inputs[2].shape}")
    if pads is None or axes is not None and axes.constant is None:
        return [Spec(data.dtype, (ANY_DIM,) * data.rank)]
    widths = pad_widths(node, data.rank, pads, None if axes is None else axes.constant)
    dims = tuple(ANY_DIM if isinstance(d, str) and w != (0, 0) else d if isinstance(d, str) else d + sum(w) for d, w in zip(data.shape, widths))
    if any(not isinstance(d, str) and d < 0 for d in dims):
        raise ShapeError(f"{where(node)}: cutting {widths} leaves less than nothing of {data.shape}")
    for d, w in zip(data.shape, widths):
        cut = sum(min(0, n) for n in w)
        if not isinstance(d, str) and -cut > d:
            raise ShapeError(f"{where(node)}: cutting {w} from an axis of {d}")
        d = d if isinstance(d, str) else d + cut
        room = {"constant": None, "reflect": d - 1}.get(node.get("mode"), max(w) if d else 0) if not isinstance(d, str) else None
        if room is not None and max(*w, 0) > max(room, 0):
            raise ShapeError(f"{where(node)}: {node.get('mode')} cannot make {max(w)} from an axis of {d}")
    return [Spec(data.dtype, dims)]


@meaning("Pad")
def pad_meaning(node, inputs):
    """NumPy's pad, after cuts."""
    x, pads, value, axes = [*inputs, None, None][:4]
    widths = pad_widths(node, x.ndim, pads, axes)
    x = x[tuple(slice(max(0, -a), x.shape[k] - max(0, -b)) for k, (a, b) in enumerate(widths))]
    grown = [(max(0, a), max(0, b)) for a, b in widths]
    if node.get("mode") != "constant":
        return [np.pad(x, grown, mode=node.get("mode"))]
    return [np.pad(x, grown, constant_values=0 if value is None else value.reshape(()))]


@op("ConstantOfShape", value=0.0, dtype="float32")
def constant_of_shape(node, inputs):
    """Filled with one value."""
    target = require(node, inputs[0], "the input", INTS)
    if node.get("dtype") not in DTYPES:
        raise UnsupportedModelError(f"{where(node)}: dtype {node.get('dtype')!r} is not supported")
    if target.value is None:
        return [Spec(node.get("dtype"), (ANY_DIM,) * int(target.shape[0]) if not isinstance(target.shape[0], str) else None)]
    dims = tuple(d if isinstance(d, str) else whole(d) for d in target.value)
    if any(not isinstance(d, str) and d < 0 for d in dims):
        raise InvalidModelError(f"{where(node)}: the shape {dims} holds a negative size")
    return [Spec(node.get("dtype"), dims)]


@meaning("ConstantOfShape")
def constant_of_shape_meaning(node, inputs):
    """A view of one element."""
    return [np.broadcast_to(np.array(node.get("value"), node.get("dtype")), tuple(int(d) for d in inputs[0]))]


@op("Range", inputs=(3, 3))
def range_(node, inputs):
    """start, start + delta, ... below limit."""
    specs = [require(node, s, what) for s, what in zip(inputs, ("start", "limit", "delta"))]
    if len({s.dtype for s in specs}) > 1:
        raise InvalidModelError(f"{where(node)}: start, limit and delta differ in dtype: {', '.join(s.dtype for s in specs)}")
    values = [s.constant for s in specs]
    if any(v is None for v in values):
        return [Spec(specs[0].dtype, (ANY_DIM,))]
    values = [v.reshape(-1)[0] for v in values]
    if any(isinstance(v, Size) for v in values) and not isinstance(values[2], Size) and values[2]:
        return [Spec(specs[0].dtype, (n_steps(whole(values[0]), whole(values[1]), int(values[2])),))]
    values = [float(v) for v in values]
    if values[2] == 0:
        raise InvalidModelError(f"{where(node)}: delta is 0")
    return [Spec(specs[0].dtype, (max(0, math.ceil((values[1] - values[0]) / values[2])),))]


@meaning("Range")
def range_meaning(node, inputs):
    """Multiples of delta on top of start."""
    start, limit, delta = (v.reshape(())[()] for v in inputs)
    n = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
    return [(start + np.arange(n, dtype=inputs[0].dtype) * delta).astype(inputs[0].dtype)]


def _gather_apart(node, specs, axes) -> bool:
    return axes[0] is None or axes[0] != node.get("axis") % specs[0].rank and axes[1] is None


@op("Gather", inputs=(2, 2), axis=0, wrap=1, apart=_gather_apart)
def gather(node, inputs):
    """Entries along `axis` by index, from -n to n - 1; + wrap=0: from 0."""
    data, index = require(node, inputs[0], "data"), require(node, inputs[1], "indices", INTS)
    axis = axis_of(node, node.get("axis"), data.rank)
    n = data.shape[axis]
    if index.constant is not None and not isinstance(n, str) and index.constant.size:
        check_range(node, index.constant, -n if node.get("wrap") else 0, n - 1)
    return [Spec(data.dtype, (*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]))]


def check_range(node, index: np.ndarray, low: int, high: int) -> None:
    """Raises ShapeError for an index that is outside low..high."""
    if index.size and ((index < low).any() or (index > high).any()):
        bad = index.min() if (index < low).any() else index.max()
        raise ShapeError(f"{where(node)}: index {bad} is outside {low}..{high}")


@meaning("Gather")
def gather_meaning(node, inputs):
    """NumPy's take, the range checked."""
    n = inputs[0].shape[node.get("axis")]
    check_range(node, inputs[1], -n if node.get("wrap") else 0, n - 1)
    return [np.take(inputs[0], inputs[1], axis=node.get("axis"))]


@op("ScatterND", inputs=(3, 3), reduction="none")
def scatter_nd(node, inputs):
    """data with slices replaced by updates, at indices (..., k) into the first k axes."""
    data, index, updates = (require(node, s, what) for s, what in zip(inputs, ("data", "indices", "updates")))
    require(node, index, "indices", INTS)
    if node.get("reduction") != "none":
        raise UnsupportedModelError(f"{where(node)}: reduction {node.get('reduction')!r} is not supported; only 'none' is")
    k = index.shape[-1] if index.rank else None
    if isinstance(k, str):
        return [Spec(data.dtype, data.shape)]
    if updates.dtype != data.dtype or isinstance(k, str) or not 1 <= k <= data.rank:
        raise InvalidModelError(f"{where(node)}: data {data.dtype} {data.shape}, indices {index.shape} and updates {updates.dtype} do not fit")
    expected = (*index.shape[:-1], *data.shape[k:])
    if len(expected) != updates.rank or not all(map(same_dim, expected, updates.shape)):
        raise ShapeError(f"{where(node)}: updates must have shape {expected}, got {updates.shape}")
    return [Spec(data.dtype, data.shape)]


@meaning("ScatterND")
def scatter_nd_meaning(node, inputs):
    """On a copy; the ranges are checked."""
    data, index, updates = inputs
    for axis in range(index.shape[-1]):
        check_range(node, index[..., axis], -data.shape[axis], data.shape[axis] - 1)
    result = data.copy()
    result[tuple(np.moveaxis(index, -1, 0))] = updates
    return [result]
