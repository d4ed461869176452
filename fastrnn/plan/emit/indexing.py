"""Ops that fetch, fill and repeat: copies between strided views where indices are regular, kernels that read the indices where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastrnn.kernels.contract import Key
from fastrnn.model import Node
from fastrnn.model.ops.indexing import check_range, pad_widths
from fastrnn.model.sizes import Whole, whole
from fastrnn.plan.emit.emitter import by_size, emits, new_args, sized
from fastrnn.plan.lowering.memory import View, c_strides, loops, table_of, weight_view
from fastrnn.plan.lowering.views import regular


def _pad_refused(node: Node, specs, constants) -> str | None:
    if any(name and name not in constants for name in node.inputs[1:]):
        return "no kernel for computed widths"
    shape = specs[node.inputs[0]].shape
    if node.get("mode") == "wrap" and shape is not None:
        widths = pad_widths(node, len(shape), constants[node.inputs[1]], constants.get(node.input(3)))
        if any(not isinstance(n, str) and (max(w) > n or min(w) < 0) for n, w in zip(shape, widths)):
            return "no kernel for wrapping around more than once"
    return None


@emits("Pad", kernel=by_size("copy"), refused=_pad_refused)
def pad(build, node):
    """The inside copied, then the edges axis by axis: from a value, or from views of what is there, forwards or backwards."""
    x, y = build.views[node.inputs[0]], build.place(node.outputs[0], build.infer_output(node, 0))
    widths = pad_widths(node, len(x.shape), build.weights[node.inputs[1]], build.weights.get(node.input(3)))
    for axis, (before, after) in enumerate(widths):
        x = x.part(max(0, -before), x.shape[axis] - max(0, -after), axis)
    widths = [(max(0, b), max(0, a)) for b, a in widths]
    if node.get("mode") == "constant" and any(map(any, widths)):
        value = build.weights.get(node.input(2))
        build.fill(node.name, y, 0 if value is None else value.reshape(())[()])
    inside = y
    for axis, (before, _) in enumerate(widths):
        inside = inside.part(before, before + x.shape[axis], axis)
    build.copy(node.name, x, inside)
    if node.get("mode") == "constant":
        return
    for axis, (before, after) in enumerate(widths):
        n, band = x.shape[axis], y
        for later in range(axis + 1, len(widths)):
            band = band.part(widths[later][0], widths[later][0] + x.shape[later], later)
        for start, width, side in ((0, before, -1), (before + n, after, 1)):
            if width:
                build.copy(node.name, _edge(band, axis, before, n, width, side, node.get("mode")), band.part(start, start + width, axis))


def _edge(y: View, axis: int, before: int, n: int, width: int, side: int, mode: str) -> View:
    """What fills `width` entries in front (side -1) or behind (1) of the n entries at `before` of an axis."""
    first, last = before, before + n - 1
    if mode == "edge":
        at = first if side < 0 else last
        return y.part(at, at + 1, axis).broadcast((*y.shape[:axis], width, *y.shape[axis + 1 :]))
    if mode == "wrap":
        return y.part(last - width + 1, last + 1, axis) if side < 0 else y.part(first, first + width, axis)
    return y.part(first + width, first, axis, -1) if side < 0 else y.part(last - 1, last - 1 - width, axis, -1)


def _scattered(node: Node, specs, constants) -> tuple[int, tuple[int, ...]] | None:
    """Where constant indices put each update: element offset of the first, and steps along the axes of the indices; None if irregular."""
    index, shape = constants.get(node.inputs[1]), specs[node.inputs[0]].shape
    if index is None or shape is None or any(isinstance(d, str) for d in shape):
        return None
    k = index.shape[-1]
    for axis in range(k):
        check_range(node, index[..., axis], -shape[axis], shape[axis] - 1)
    wrapped = [np.where(index[..., a] < 0, index[..., a] + shape[a], index[..., a]) for a in range(k)]
    found = regular(sum((w * s for w, s in zip(wrapped, c_strides(shape)[:k])), np.zeros((), np.int64)))
    return found if found and all(step or n == 1 for step, n in zip(found[1], index.shape)) else None


@emits("ScatterND", kernel=by_size("put"), refused=lambda node, specs, constants: None)
def scatter(build, node):
    """The data copied, then the updates to where they belong: a later one over an earlier one."""
    data, updates, index = (build.views[node.inputs[k]] for k in (0, 2, 1))
    y, name, regularly = build.place(node.outputs[0], data.shape), node.name, _scattered(node, build.specs, build.weights)
    whole = y if y.contiguous else build.scratch(data.shape, data.dtype)
    if not data.same_place(whole):
        build.copy(name, data, whole)
    n_indices = index.shape[-1]
    rest = data.shape[n_indices:], whole.strides[n_indices:]
    if regularly:
        first, steps = regularly
        build.copy(name, updates, replace(whole.shifted(first), shape=updates.shape, strides=(*steps, *rest[1])))
    elif 0 not in updates.shape:
        index = build.limit_columns(node, node.inputs[1], data.shape[:n_indices])
        flat = offsets_of_rows(build, name, index, data.shape, whole.strides)
        source = build.contiguous(updates).reshaped((flat.shape[0], *rest[0]))
        target = replace(whole, shape=source.shape, strides=(0, *rest[1]))
        at = replace(flat, shape=source.shape, strides=(1, *(0,) * len(rest[0])))
        # walked in the updates' order, so that the last of two that meet stays
        table = np.ascontiguousarray(loops(source, target, at)[:, [0, 2, 1, 3]])
        build.call(
            name,
            build.kernel(sized("put", data.dtype)),
            new_args(T=len(table), P=1),
            {"x": source, "y": whole, "x2": at, "axes": weight_view(table)},
            flops=0,
            weight_bytes=2 * source.nbytes,
        )
    if whole is not y:
        build.copy(name, whole, y)


def offsets_of_rows(build, name: str, index: View, shape, strides) -> View:
    """Elements (n,) from the start of an array of this layout, for indices (n, k) into its first k axes, in range."""
    flat, n_indices = build.scratch(index.shape[:1], np.int64), index.shape[-1]
    args = new_args(T=index.shape[0], I=n_indices, x_t=index.strides[0], x_b=index.strides[1])
    table = table_of(list(zip(shape[:n_indices], strides)))
    build.call(
        name,
        build.kernel(Key("offsets", dtype="int64")),
        args,
        {"x": index, "y": flat, "axes": weight_view(table)},
        flops=0.0,
        weight_bytes=16 * flat.shape[0],
    )
    return flat


@emits("Gather", kernel=by_size("take"), refused=lambda node, specs, constants: None)
def gather(build, node):
    """Entries of an axis by indices whose range is checked before."""
    x, axis = build.views[node.inputs[0]], node.get("axis") % len(build.views[node.inputs[0]].shape)
    n = x.shape[axis]
    index = build.limit(node, node.inputs[1], -n if node.get("wrap") else 0, n - 1)
    take_at(build, node.name, x, axis, index, build.place(node.outputs[0], build.infer_output(node, 0)))


def take_at(build, name: str, x: View, axis: int, index: View, y: View) -> None:
    """y = entries of an axis of x by int64 indices in range."""
    if 0 in y.shape:
        return
    axis %= len(x.shape)
    if not build.compiled:
        build.python(name, lambda arrays: [np.take(arrays[0], arrays[1], axis=axis)], (x, index), (y,))
        return
    before, after = axis, len(x.shape) - axis - 1
    source = replace(x, shape=y.shape, strides=(*x.strides[:axis], *(0,) * len(index.shape), *x.strides[axis + 1 :]))
    take(
        build, name, source, replace(index, shape=y.shape, strides=(*(0,) * before, *index.strides, *(0,) * after)), y, x.shape[axis], x.strides[axis]
    )


def take(build, name: str, source: View, at: View, y: View, n: Whole, stride: Whole) -> None:
    """y = what lies `at` times a stride further than the source says, all of one shape; below 0, n is added first."""
    table = loops(y, source, at)
    build.call(
        name,
        build.kernel(sized("take", y.dtype)),
        new_args(T=len(table), H=n, P=stride),
        {"x": source, "y": y, "x2": at, "axes": weight_view(table)},
        flops=0,
        weight_bytes=2 * y.nbytes,
    )


def put_at(build, name: str, x: View, y: View, axis: int, index: View) -> None:
    """The entry of an axis of y that an int64 scalar names = x."""
    axis %= len(y.shape)
    if 0 in x.shape or 0 in y.shape:
        return
    entry = replace(y, shape=x.shape, strides=(*y.strides[:axis], *y.strides[axis + 1 :]))
    if not build.compiled:
        build.python(name, lambda arrays: [_with(arrays[0], arrays[1], axis, int(arrays[2]))], (y, x, index), (y,))
        return
    table = np.ascontiguousarray(loops(x, entry, replace(index, shape=x.shape, strides=(0,) * len(x.shape)))[:, [0, 2, 1, 3]])
    build.call(
        name,
        build.kernel(sized("put", x.dtype)),
        new_args(T=len(table), H=y.shape[axis], P=y.strides[axis]),
        {"x": x, "y": y, "x2": index, "axes": weight_view(table)},
        flops=0,
        weight_bytes=2 * x.nbytes,
    )


def _with(whole: np.ndarray, part: np.ndarray, axis: int, index: int) -> np.ndarray:
    """The array, one entry of an axis replaced."""
    whole = whole.copy()
    whole[(*(slice(None),) * axis, index)] = part
    return whole


def _tile_refused(node: Node, specs, constants) -> str | None:
    return None if node.inputs[1] in constants else "no kernel for computed repeats"


@emits("Tile", kernel=by_size("copy"), refused=_tile_refused)
def tile(build, node):
    """One copy of a view that repeats: each axis as (repeats, size)."""
    x, y, repeats = (
        build.views[node.inputs[0]],
        build.place(node.outputs[0], build.infer_output(node, 0)),
        [whole(r) for r in build.weights[node.inputs[1]]],
    )
    if 0 in y.shape:
        return
    laid_out = [n for pair in zip(repeats, x.shape) for n in pair]
    source = replace(x, shape=tuple(laid_out), strides=tuple(s for stride in x.strides for s in (0, stride)))
    target = replace(y, shape=tuple(laid_out), strides=tuple(s for stride, n in zip(y.strides, x.shape) for s in (stride * n, stride)))
    build.copy(node.name, source, target)
