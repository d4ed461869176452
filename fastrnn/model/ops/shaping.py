"""Ops that rearrange: shapes as values, Reshape, Transpose, Slice, Concat, Split, Expand.

Where axes, sizes or a target are inputs whose content is not known beforehand, the shape of the result is not either (None).
"""

from __future__ import annotations

import math

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.registry import (
    ANY_DIM,
    MANY,
    MAX_ELEMENTS,
    OPS,
    Spec,
    always,
    axes_of,
    axis_of,
    broadcast,
    count,
    meaning,
    op,
    require,
    same_dim,
    where,
)
from fastrnn.model.sizes import largest, same, smallest, whole, wholes

INTS = ("int32", "int64")


def known(node, spec: Spec, what: str) -> np.ndarray | None:
    """The content of an integer input, None where it is not known."""
    require(node, spec, what, INTS)
    return spec.constant


@op("Shape")
def shape(node, inputs):
    """The dimensions as int64 (rank,)."""
    spec = require(node, inputs[0], "the input")
    return [Spec("int64", (spec.rank,), wholes(spec.shape))]


@meaning("Shape")
def shape_meaning(node, inputs):
    """Of a concrete array."""
    return [np.array(inputs[0].shape, np.int64)]


@op("Size")
def size(node, inputs):
    """The number of elements, a scalar."""
    n = count(require(node, inputs[0], "the input").shape)
    return [Spec("int64", (), None if isinstance(n, str) else wholes([n]).reshape(()))]


@meaning("Size")
def size_meaning(node, inputs):
    """Of a concrete array."""
    return [np.array(inputs[0].size, np.int64)]


def reshaped(node, shape, target) -> tuple:
    """The shape that a target of Reshape asks for: 0 keeps a dimension, -1 takes what is left."""
    target, left, kept = [d if isinstance(d, str) else whole(d) for d in target], list(shape), []
    for k, dim in enumerate(target):
        if dim == 0 and not node.get("allowzero"):
            if k >= len(shape):
                raise InvalidModelError(f"{where(node)}: dimension {k} of the target is 0 = kept, but {shape} has none there")
            target[k] = shape[k]
            kept.append(shape[k])
        elif not isinstance(dim, str) and dim < -1:
            raise InvalidModelError(f"{where(node)}: the target holds {dim}")
    free = [k for k, dim in enumerate(target) if not isinstance(dim, str) and dim == -1]
    if len(free) > 1:
        raise InvalidModelError(f"{where(node)}: the target {target} holds -1 twice")
    taken = [d for k, d in enumerate(target) if k not in free]
    for dim in (*kept, *(d for d in taken if isinstance(d, str) and d != ANY_DIM)):  # a kept 0, or a symbol, says nothing about the rest
        places = [
            next((k for k, d in enumerate(dims) if (d == dim if isinstance(dim, str) else not isinstance(d, str) and same(d, dim))), None)
            for dims in (left, taken)
        ]
        if None not in places:
            del left[places[0]], taken[places[1]]
    known = not any(isinstance(d, str) for d in (*left, *taken))
    total, part = (math.prod(left), math.prod(taken)) if known else (0, 0)
    if free:
        if known and (part == 0 or total % part):
            raise ShapeError(f"{where(node)}: {tuple(shape)} cannot become {tuple(target)}")
        single = left[0] if len(left) == 1 and not taken else ANY_DIM
        target[free[0]] = total // part if known else single
    elif known and total != part and not any(d == 0 for d in kept if not isinstance(d, str)):
        raise ShapeError(f"{where(node)}: {tuple(shape)} cannot become {tuple(target)}")
    return tuple(d if isinstance(d, str) else whole(d) for d in target)


def _regroup_apart(node, specs, axes) -> bool:
    """As many elements in front of time before as after: none moves from one step to another."""
    axis, result = axes[0], OPS[node.op].infer(node, specs)[0].shape
    if axis is None or result is None or specs[0].shape[axis] not in result:
        return False
    before = count(specs[0].shape[:axis]), count(result[: result.index(specs[0].shape[axis])])
    return before[0] == before[1] != ANY_DIM


@op("Reshape", inputs=(2, 2), allowzero=0, apart=_regroup_apart)
def reshape(node, inputs):
    """To a target of sizes."""
    data, target = require(node, inputs[0], "data"), require(node, inputs[1], "shape", INTS)
    if target.rank != 1:
        raise InvalidModelError(f"{where(node)}: shape must have one axis, got {target.shape}")
    if target.value is not None:
        return [Spec(data.dtype, reshaped(node, data.shape, target.value))]
    rank = target.shape[0]
    return [Spec(data.dtype, (ANY_DIM,) * int(rank) if not isinstance(rank, str) else None)]


@meaning("Reshape")
def reshape_meaning(node, inputs):
    """A view where NumPy can."""
    return [inputs[0].reshape(reshaped(node, inputs[0].shape, inputs[1].tolist()))]


@op("Flatten", axis=1, apart=_regroup_apart)
def flatten(node, inputs):
    """To two axes, those before `axis` and the rest."""
    data, axis = require(node, inputs[0], "the input"), node.get("axis")
    if not -data.rank <= axis <= data.rank:
        raise InvalidModelError(f"{where(node)}: axis {axis} is outside rank {data.rank}")
    axis += data.rank if axis < 0 else 0

    def joined(dims):
        rest = [d for d in dims if d != 1]
        return rest[0] if len(rest) == 1 else count(dims)

    return [Spec(data.dtype, (joined(data.shape[:axis]), joined(data.shape[axis:])))]


@meaning("Flatten")
def flatten_meaning(node, inputs):
    """A view where NumPy can."""
    axis = node.get("axis") + (inputs[0].ndim if node.get("axis") < 0 else 0)
    return [inputs[0].reshape(math.prod(inputs[0].shape[:axis]), math.prod(inputs[0].shape[axis:]))]


@op("Transpose", perm=None, apart=always)
def transpose(node, inputs):
    """Axes in another order; without perm, reversed."""
    data = require(node, inputs[0], "the input")
    perm = permutation(node, data.rank)
    return [Spec(data.dtype, tuple(data.shape[a] for a in perm))]


def permutation(node, rank: int) -> tuple[int, ...]:
    """perm of a Transpose."""
    perm = tuple(reversed(range(rank))) if node.get("perm") is None else tuple(node.get("perm"))
    if sorted(perm) != list(range(rank)):
        raise InvalidModelError(f"{where(node)}: perm {perm} does not order {rank} axes")
    return perm


@meaning("Transpose")
def transpose_meaning(node, inputs):
    """A view."""
    return [inputs[0].transpose(permutation(node, inputs[0].ndim))]


def squeezed_axes(node, shape, axes) -> tuple[int, ...]:
    """Axes that a Squeeze removes: those given, or all of size 1."""
    if axes is None:
        return tuple(k for k, d in enumerate(shape) if d == 1)
    axes = axes_of(node, axes, len(shape))
    for axis in axes:
        if not same_dim(shape[axis], 1):
            raise ShapeError(f"{where(node)}: axis {axis} of {tuple(shape)} is not 1")
    return axes


@op("Squeeze", inputs=(1, 2), apart=always)
def squeeze(node, inputs):
    """Axes of size 1 removed."""
    data = require(node, inputs[0], "data")
    axes = known(node, inputs[1], "axes") if len(inputs) > 1 and inputs[1] is not None else None
    if len(inputs) > 1 and inputs[1] is not None and axes is None or axes is None and any(isinstance(d, str) for d in data.shape):
        return [Spec(data.dtype, None)]
    removed = squeezed_axes(node, data.shape, axes)
    return [Spec(data.dtype, tuple(d for k, d in enumerate(data.shape) if k not in removed))]


@meaning("Squeeze")
def squeeze_meaning(node, inputs):
    """A view."""
    return [inputs[0].squeeze(squeezed_axes(node, inputs[0].shape, inputs[1] if len(inputs) > 1 else None))]


@op("Unsqueeze", inputs=(2, 2), apart=always)
def unsqueeze(node, inputs):
    """New axes of size 1, at their places in the result."""
    data, axes = require(node, inputs[0], "data"), known(node, inputs[1], "axes")
    if axes is None:
        return [Spec(data.dtype, None)]
    new, dims = axes_of(node, axes, data.rank + axes.size), iter(data.shape)
    return [Spec(data.dtype, tuple(1 if k in new else next(dims) for k in range(data.rank + len(new))))]


@meaning("Unsqueeze")
def unsqueeze_meaning(node, inputs):
    """A view."""
    return [np.expand_dims(inputs[0], axes_of(node, inputs[1], inputs[0].ndim + inputs[1].size))]


def slices(node, shape, starts, ends, axes=None, steps=None) -> list[tuple[int, int, int, int]]:
    """(axis, start, step, length) for each cut axis, clamped as ONNX says; shape must be known along those axes."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise InvalidModelError(f"{where(node)}: starts, ends, axes and steps differ in length")
    result = []
    for axis, start, end, step in zip(axes_of(node, list(axes), len(shape)) if len(starts) else (), starts, ends, steps):
        start, end, step, n = whole(start), whole(end), max(-2 * MAX_ELEMENTS, min(int(step), 2 * MAX_ELEMENTS)), shape[axis]
        if step == 0:
            raise InvalidModelError(f"{where(node)}: a step is 0")
        start, end = (v + n if v < 0 else v for v in (start, end))
        low, high = (0, n) if step > 0 else (-1, n - 1)
        start, end = min(max(start, low if step > 0 else 0), high), min(max(end, low), high)
        n = max(0, -(-(end - start) // step))
        result.append((axis, start, step if n > 1 else 1, n))
    return result


def _slices_apart(node, specs, axes) -> bool:
    time = axes[0]
    cut = specs[3].constant if len(specs) > 3 and specs[3] is not None else range(specs[1].shape[0])
    return cut is not None and time is not None and time not in [int(a) % specs[0].rank for a in cut]


@op("Slice", inputs=(3, 5), apart=_slices_apart)
def slice_(node, inputs):
    """[start:end:step] along axes; indices count from the end where negative, and are clamped."""
    data = require(node, inputs[0], "data")
    for spec, what in zip(inputs[1:], ("starts", "ends", "axes", "steps")):
        if spec is not None and spec.shape is not None and spec.rank != 1:
            raise InvalidModelError(f"{where(node)}: {what} must have 1 dimension, got shape {tuple(spec.shape)}")
    given = [known(node, s, what) if s is not None else None for s, what in zip(inputs[1:], ("starts", "ends", "axes", "steps"))]
    if any(s is not None and v is None for s, v in zip(inputs[1:], given)):
        axes = given[2] if len(given) > 2 and given[2] is not None else None
        cut = range(data.rank) if axes is None else axes_of(node, axes, data.rank)
        return [Spec(data.dtype, tuple(ANY_DIM if k in cut else d for k, d in enumerate(data.shape)))]
    starts, ends, axes, steps = [*given, None, None][:4]
    axes = axes_of(node, range(len(starts)) if axes is None else axes, data.rank) if len(starts) else ()
    dims = [0 if isinstance(d, str) else d for d in data.shape]
    result = list(data.shape)
    for (axis, _, _, n), start, end in zip(slices(node, dims, starts, ends, axes, steps), starts, ends):
        step = 1 if steps is None else int(steps[list(axes).index(axis)])
        if not isinstance(data.shape[axis], str):
            result[axis] = n
        elif not (start == 0 and end >= 2**31 - 1 and step == 1):  # all of an axis of unknown length stays itself
            result[axis] = ANY_DIM
    return [Spec(data.dtype, tuple(result))]


@meaning("Slice")
def slice_meaning(node, inputs):
    """A view."""
    index = [slice(None)] * inputs[0].ndim
    for axis, start, step, n in slices(node, inputs[0].shape, *inputs[1:]):
        stop = start + step * n
        index[axis] = slice(start, stop if stop >= 0 else None, step)
    return [inputs[0][tuple(index)]]


@op("Concat", inputs=(1, MANY), axis=None, apart=lambda node, specs, axes: node.get("axis") % specs[0].rank not in axes)
def concat(node, inputs):
    """Along `axis`."""
    specs = [require(node, s, f"input {k}") for k, s in enumerate(inputs)]
    if len({s.dtype for s in specs}) > 1:
        raise InvalidModelError(f"{where(node)}: dtypes differ: {', '.join(s.dtype for s in specs)}")
    if node.get("axis") is None or len({s.rank for s in specs}) > 1:
        raise InvalidModelError(f"{where(node)}: axis is missing, or ranks differ: {', '.join(str(s.shape) for s in specs)}")
    axis = axis_of(node, node.get("axis"), specs[0].rank)
    dims = []
    for k, column in enumerate(zip(*(s.shape for s in specs), strict=True)):
        if k == axis:
            dims.append(column[0] if len(column) == 1 else ANY_DIM if any(isinstance(d, str) for d in column) else sum(column))
            continue
        known = [d for d in column if not isinstance(d, str)]
        if any(d != known[0] for d in known[1:]):
            raise InvalidModelError(f"{where(node)}: cannot join shapes {', '.join(str(s.shape) for s in specs)} along axis {axis}")
        dims.append(known[0] if known else column[0] if len(set(column)) == 1 else ANY_DIM)
    return [Spec(specs[0].dtype, tuple(dims))]


@meaning("Concat")
def concat_meaning(node, inputs):
    """NumPy's concatenate."""
    return [np.concatenate(inputs, axis=node.get("axis"))]


def split_sizes(node, n: int, split) -> list[int]:
    """Lengths of the parts of a Split: those given, or equal ones with a smaller last."""
    if split is not None:
        parts = [whole(p) for p in split]
    else:
        n_parts = node.get("num_outputs") or len(node.outputs)
        if n_parts != len(node.outputs):
            raise InvalidModelError(f"{where(node)}: num_outputs {n_parts}, but {len(node.outputs)} outputs")
        if node.get("num_outputs") is None and n % n_parts:
            raise InvalidModelError(f"{where(node)}: {n} is not divisible by {n_parts}, and no sizes are given")
        length = -(-n // n_parts) if n_parts > 0 else 0
        parts = [largest(0, smallest(length, n - k * length)) for k in range(n_parts)]
    if sum(parts) != n or min(parts, default=0) < 0 or len(parts) != len(node.outputs):
        raise InvalidModelError(f"{where(node)}: cannot split {n} into {parts} for {len(node.outputs)} outputs")
    return parts


@op(
    "Split",
    inputs=(1, 2),
    outputs=MANY,
    axis=0,
    num_outputs=None,
    apart=lambda node, specs, axes: axes[0] is not None and axes[0] != node.get("axis") % specs[0].rank,
)
def split(node, inputs):
    """Into parts along `axis`."""
    data = require(node, inputs[0], "the input")
    axis, given = axis_of(node, node.get("axis"), data.rank), None
    if len(inputs) > 1 and inputs[1] is not None:
        given = known(node, inputs[1], "split")
    unknown = isinstance(data.shape[axis], str) and given is None or len(inputs) > 1 and inputs[1] is not None and given is None
    parts = (
        [ANY_DIM] * len(node.outputs)
        if unknown
        else split_sizes(node, whole(sum(given)) if isinstance(data.shape[axis], str) else data.shape[axis], given)
    )
    return [Spec(data.dtype, (*data.shape[:axis], n, *data.shape[axis + 1 :])) for n in parts]


@meaning("Split")
def split_meaning(node, inputs):
    """Views."""
    axis = node.get("axis")
    parts = split_sizes(node, inputs[0].shape[axis], inputs[1] if len(inputs) > 1 else None)
    return np.split(inputs[0], np.cumsum(parts)[:-1], axis=axis)


@op("Expand", inputs=(2, 2), apart=always)
def expand(node, inputs):
    """Broadcast with a shape."""
    data, target = require(node, inputs[0], "the input"), require(node, inputs[1], "shape", INTS)
    if target.value is None:
        rank = target.shape[0] if target.rank == 1 else None
        return [Spec(data.dtype, (ANY_DIM,) * max(int(rank), data.rank) if not isinstance(rank, str) else None)]
    dims = tuple(d if isinstance(d, str) else whole(d) for d in target.value)
    if any(not isinstance(d, str) and d < 0 for d in dims):
        raise InvalidModelError(f"{where(node)}: the target {dims} holds a negative size")
    return [Spec(data.dtype, broadcast(node, data.shape, dims))]


@meaning("Expand")
def expand_meaning(node, inputs):
    """A view with strides of 0."""
    return [np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, tuple(int(d) for d in inputs[1])))]
