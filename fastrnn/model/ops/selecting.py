"""Ops that choose or place entries: ArgMax, TopK, GatherElements, GatherND, ScatterElements, OneHot, Trilu, CumSum, ReverseSequence."""

from __future__ import annotations

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.elementwise import FLOATS, NUMBERS
from fastrnn.model.ops.indexing import check_range
from fastrnn.model.ops.registry import ANY_DIM, Spec, axis_of, meaning, op, require, same_dim, where
from fastrnn.model.ops.shaping import INTS, known
from fastrnn.model.sizes import whole


def _off_axis(node, specs, axes) -> bool:
    return axes[0] is not None and axes[0] != node.get("axis") % specs[0].rank and all(a is None for a in axes[1:])


@op("ArgMax", "ArgMin", axis=0, keepdims=1, select_last_index=0, apart=_off_axis)
def arg(node, inputs):
    """Where the largest or least entry stands along an axis, int64."""
    x = require(node, inputs[0], "data", NUMBERS)
    axis = axis_of(node, node.get("axis"), x.rank)
    if x.shape[axis] == 0:
        raise ShapeError(f"{where(node)}: axis {axis} of {x.shape} is empty")
    return [Spec("int64", (*x.shape[:axis], *((1,) if node.get("keepdims") else ()), *x.shape[axis + 1 :]))]


@meaning("ArgMax", "ArgMin")
def arg_meaning(node, inputs):
    """The first of equal ones, or the last."""
    x, axis, find = inputs[0], node.get("axis"), np.argmax if node.op == "ArgMax" else np.argmin
    at = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis, keepdims=True) if node.get("select_last_index") else find(x, axis=axis, keepdims=True)
    return [np.asarray(at if node.get("keepdims") else at.squeeze(axis), np.int64)]


@op("TopK", inputs=(2, 2), outputs=2, axis=-1, largest=1, sorted=1, apart=_off_axis)
def top_k(node, inputs):
    """The k largest or least entries along an axis in order, and where they stood."""
    x, k = require(node, inputs[0], "X", NUMBERS), known(node, inputs[1], "K")
    axis, n = axis_of(node, node.get("axis"), x.rank), ANY_DIM if k is None else whole(k.reshape(())[()])
    if not isinstance(n, str) and (n < 0 or not isinstance(x.shape[axis], str) and n > x.shape[axis]):
        raise ShapeError(f"{where(node)}: {n} entries of axis {axis} of {x.shape}")
    shape = (*x.shape[:axis], n, *x.shape[axis + 1 :])
    return [Spec(x.dtype, shape), Spec("int64", shape)]


@meaning("TopK")
def top_k_meaning(node, inputs):
    """A stable sort: the first of equal ones comes first."""
    x, k, axis = inputs[0], int(inputs[1].reshape(())), node.get("axis")
    if node.get("largest"):
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    order = np.take(order, np.arange(k), axis=axis)
    return [np.take_along_axis(x, order, axis), order.astype(np.int64)]


@op("GatherElements", inputs=(2, 2), axis=0)
def gather_elements(node, inputs):
    """An entry of the data for each index, along one axis."""
    data, index = require(node, inputs[0], "data"), require(node, inputs[1], "indices", INTS)
    axis_of(node, node.get("axis"), data.rank)
    if data.rank != index.rank:
        raise ShapeError(f"{where(node)}: data {data.shape} and indices {index.shape} differ in rank")
    return [Spec(data.dtype, index.shape)]


def _along(node, data: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, ...]:
    """The entries of data that indices along the node's axis name."""
    axis = node.get("axis") % data.ndim
    n = data.shape[axis]
    check_range(node, index, -n, n - 1)
    grid = list(np.indices(index.shape, sparse=True))
    if any(i > d for k, (i, d) in enumerate(zip(index.shape, data.shape)) if k != axis):
        raise ShapeError(f"{where(node)}: indices {index.shape} do not lie within data {data.shape}")
    grid[axis] = np.where(index < 0, index + n, index)
    return tuple(grid)


@meaning("GatherElements")
def gather_elements_meaning(node, inputs):
    """By fancy indexing, ranges checked."""
    return [inputs[0][_along(node, *inputs)]]


REDUCTIONS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


@op("ScatterElements", inputs=(3, 3), axis=0, reduction="none")
def scatter_elements(node, inputs):
    """data with entries replaced by updates, or joined with them."""
    data, index, updates = (require(node, s, what) for s, what in zip(inputs, ("data", "indices", "updates")))
    require(node, index, "indices", INTS)
    axis_of(node, node.get("axis"), data.rank)
    if node.get("reduction") not in ("none", *REDUCTIONS):
        raise InvalidModelError(f"{where(node)}: reduction {node.get('reduction')!r} is unknown")
    if updates.dtype != data.dtype or updates.rank != index.rank or index.rank != data.rank or not all(map(same_dim, index.shape, updates.shape)):
        raise ShapeError(
            f"{where(node)}: data {data.dtype} {data.shape}, indices {index.shape} and updates {updates.dtype} {updates.shape} do not fit"
        )
    return [Spec(data.dtype, data.shape)]


@meaning("ScatterElements")
def scatter_elements_meaning(node, inputs):
    """On a copy; one after the other."""
    data, index, updates = inputs
    result, at = data.copy(), _along(node, data, index)
    if node.get("reduction") == "none":
        result[at] = updates
    else:
        REDUCTIONS[node.get("reduction")].at(result, at, updates)
    return [result]


@op("GatherND", inputs=(2, 2), batch_dims=0)
def gather_nd(node, inputs):
    """Slices of the data at indices (..., k) into k axes behind the leading ones that both share."""
    data, index, b = require(node, inputs[0], "data"), require(node, inputs[1], "indices", INTS), node.get("batch_dims")
    k = index.shape[-1] if index.rank else None
    if not 0 <= b < min(index.rank, data.rank) or not isinstance(k, str) and not 1 <= k <= data.rank - b:
        raise InvalidModelError(f"{where(node)}: data {data.shape}, indices {index.shape} and batch_dims={b} do not fit")
    if not all(map(same_dim, data.shape[:b], index.shape[:b])):
        raise ShapeError(f"{where(node)}: data {data.shape} and indices {index.shape} differ in their first {b} axes")
    return [Spec(data.dtype, None if isinstance(k, str) else (*index.shape[:-1], *data.shape[b + k :]))]


@meaning("GatherND")
def gather_nd_meaning(node, inputs):
    """By fancy indexing, ranges checked."""
    data, index, b = *inputs, node.get("batch_dims")
    for axis in range(index.shape[-1]):
        check_range(node, index[..., axis], -data.shape[b + axis], data.shape[b + axis] - 1)
    leading = [np.arange(n).reshape(*(1,) * k, n, *(1,) * (index.ndim - 2 - k)) for k, n in enumerate(index.shape[:b])]
    return [np.asarray(data[(*leading, *np.moveaxis(index, -1, 0))])]


@op("OneHot", inputs=(3, 3), axis=-1)
def one_hot(node, inputs):
    """An axis more, on at the index and off elsewhere; an index outside is off everywhere."""
    index, depth, values = (require(node, s, what) for s, what in zip(inputs, ("indices", "depth", "values")))
    require(node, index, "indices", NUMBERS)
    axis, n = axis_of(node, node.get("axis"), index.rank + 1), ANY_DIM if depth.constant is None else whole(depth.constant.reshape(())[()])
    if values.rank != 1 or not same_dim(values.shape[0], 2) or not isinstance(n, str) and n < 0:
        raise InvalidModelError(f"{where(node)}: values must be (off, on), got shape {values.shape}, depth {n}")
    return [Spec(values.dtype, (*index.shape[:axis], n, *index.shape[axis:]))]


@meaning("OneHot")
def one_hot_meaning(node, inputs):
    """A comparison with the numbers of the new axis."""
    index, depth, values = inputs
    n, axis = int(depth.reshape(())), node.get("axis") % (index.ndim + 1)
    index = np.expand_dims(index.astype(np.int64), axis)
    places = np.arange(n).reshape(n, *(1,) * (index.ndim - axis - 1))
    return [np.where(np.where(index < 0, index + n, index) == places, values[1], values[0]).astype(values.dtype)]


@op("Trilu", inputs=(1, 2), upper=1, apart=lambda node, specs, axes: axes[0] is not None and axes[0] < specs[0].rank - 2)
def trilu(node, inputs):
    """The upper or lower triangle of the last two axes, from diagonal k on; zero elsewhere."""
    x = require(node, inputs[0], "the input")
    if x.rank < 2:
        raise ShapeError(f"{where(node)}: {x.shape} is no matrix")
    return [Spec(x.dtype, x.shape)]


@meaning("Trilu")
def trilu_meaning(node, inputs):
    """NumPy's, for a diagonal however far outside."""
    x, k = inputs[0], 0 if len(inputs) < 2 or inputs[1] is None else int(inputs[1].reshape(()))
    distance = np.subtract.outer(np.arange(x.shape[-2]), np.arange(x.shape[-1]))
    return [np.where(distance <= -k if node.get("upper") else distance >= -k, x, x.dtype.type(0)).astype(x.dtype)]


@op("CumSum", inputs=(2, 2), exclusive=0, reverse=0)
def cum_sum(node, inputs):
    """Running sums along an axis."""
    x = require(node, inputs[0], "x", (*FLOATS, "int32", "int64", "uint32", "uint64"))
    axis = known(node, inputs[1], "axis")
    if axis is not None:
        axis_of(node, int(axis.reshape(())), x.rank)
    return [Spec(x.dtype, x.shape)]


@meaning("CumSum")
def cum_sum_meaning(node, inputs):
    """NumPy's; exclusive: without the entry itself; reverse: from the end."""
    x, axis = inputs[0], axis_of(node, int(inputs[1].reshape(())), inputs[0].ndim)
    x = np.flip(x, axis) if node.get("reverse") else x
    if node.get("exclusive"):
        shifted = np.zeros_like(x)
        shifted[(*(slice(None),) * axis, slice(1, None))] = x[(*(slice(None),) * axis, slice(None, -1))]
        x = shifted
    total = np.cumsum(x, axis=axis, dtype=x.dtype)
    return [np.ascontiguousarray(np.flip(total, axis) if node.get("reverse") else total)]


@op("ReverseSequence", inputs=(2, 2), batch_axis=1, time_axis=0)
def reverse_sequence(node, inputs):
    """The first so many steps of each row turned around."""
    x, lengths, batch, time = (
        require(node, inputs[0], "the input"),
        require(node, inputs[1], "sequence_lens", INTS),
        node.get("batch_axis"),
        node.get("time_axis"),
    )
    if x.rank < 2 or {batch, time} != {0, 1}:
        raise InvalidModelError(f"{where(node)}: batch_axis and time_axis must be 0 and 1 of at least two axes, got {batch}, {time} of {x.shape}")
    if lengths.rank != 1 or not same_dim(lengths.shape[0], x.shape[batch]):
        raise ShapeError(f"{where(node)}: sequence_lens must have shape ({x.shape[batch]},), got {lengths.shape}")
    return [Spec(x.dtype, x.shape)]


@meaning("ReverseSequence")
def reverse_sequence_meaning(node, inputs):
    """By index, lengths checked."""
    x, lengths = inputs
    moved = x if node.get("time_axis") == 0 else x.swapaxes(0, 1)
    check_range(node, lengths, 0, moved.shape[0])
    steps = np.arange(moved.shape[0]).reshape(-1, 1)
    at = np.where(steps < lengths, lengths - 1 - steps, steps)
    result = moved[at, np.arange(moved.shape[1])]
    return [result if node.get("time_axis") == 0 else np.ascontiguousarray(result.swapaxes(0, 1))]
