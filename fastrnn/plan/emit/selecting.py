"""Ops that choose entries by rank or by an index of each, and running sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastrnn.errors import ShapeError
from fastrnn.kernels.contract import Key
from fastrnn.model import Node
from fastrnn.model.ops import Spec
from fastrnn.model.ops.registry import where
from fastrnn.model.sizes import whole
from fastrnn.plan.emit.emitter import by_size, emits
from fastrnn.plan.emit.indexing import offsets_of_rows, take
from fastrnn.plan.lowering.memory import View

ROLES = {"ArgMax": "argmax", "ArgMin": "argmin", "TopK": "top", "CumSum": "running"}
NUMBERS = ("float32", "int32", "int64", "")  # "": not known yet


def _kernel(node: Node, specs: Mapping[str, Spec]) -> Key:
    return Key(ROLES[node.op], dtype=specs[node.inputs[0]].dtype)


def _refused(node: Node, specs, constants) -> str | None:
    dtype = specs[node.inputs[0]].dtype
    if node.op in ("TopK", "CumSum") and node.inputs[1] not in constants:
        return f"no kernel for a computed {'k' if node.op == 'TopK' else 'axis'}"
    return None if dtype in NUMBERS else f"no kernel for {dtype}"


@emits("ArgMax", "ArgMin", kernel=_kernel, refused=_refused)
def arg(build, node):
    """The first of equal ones, or the last."""
    x, axis = build.views[node.inputs[0]], node.get("axis") % len(build.views[node.inputs[0]].shape)
    others = tuple(a for a in range(len(x.shape)) if a != axis)
    y = build.place(node.outputs[0], build.infer_output(node, 0))
    rows, kept = x.transposed((*others, axis)), y.reshaped(tuple(x.shape[a] for a in others))
    build.reduce(node.name, kept, rows, kernel=_kernel(node, build.specs), P=int(node.get("select_last_index")))


@emits("TopK", kernel=_kernel, refused=_refused)
def top_k(build, node):
    """Where they stand, then the entries there."""
    x, axis, shape = build.views[node.inputs[0]], node.get("axis") % len(build.views[node.inputs[0]].shape), build.infer_output(node, 0)
    at = build.place(node.output(1), shape) if node.output(1) else build.scratch(shape, np.int64)
    if 0 not in shape:
        k = whole(build.weights[node.inputs[1]].reshape(())[()])
        build.rowwise(node.name, _kernel(node, build.specs), at, x, axis, H=k, P=int(not node.get("largest")))
    if node.output(0):
        take_each(build, node.name, x, axis, at, build.place(node.output(0), shape))


@emits("CumSum", kernel=_kernel, refused=_refused)
def cum_sum(build, node):
    """From the end: over views that run backwards."""
    x, y = build.views[node.inputs[0]], build.place_like(node.outputs[0], build.views[node.inputs[0]])
    axis = int(build.weights[node.inputs[1]].reshape(())) % len(x.shape)
    if 0 in x.shape:
        return
    if node.get("reverse"):
        x, to = (view.part(view.shape[axis] - 1, -1, axis, -1) for view in (x, y))
    else:
        to = y
    build.rowwise(node.name, _kernel(node, build.specs), to, x, axis, P=int(node.get("exclusive")))


@emits("GatherElements", kernel=by_size("take"), refused=lambda node, specs, constants: None)
def gather_elements(build, node):
    """An entry for each index, whose range is checked before."""
    x, axis = build.views[node.inputs[0]], node.get("axis") % len(build.views[node.inputs[0]].shape)
    n, shape = x.shape[axis], build.views[node.inputs[1]].shape
    if any(i > d for k, (i, d) in enumerate(zip(shape, x.shape)) if k != axis):
        raise ShapeError(f"{where(node)}: indices {shape} do not lie within data {x.shape}")
    take_each(build, node.name, x, axis, build.limit(node, node.inputs[1], -n, n - 1), build.place(node.outputs[0], build.infer_output(node, 0)))


def take_each(build, name: str, x: View, axis: int, at: View, y: View) -> None:
    """y = the entries of an axis of x that int64 indices in range name, one for each."""
    if 0 in y.shape:
        return
    take(build, name, replace(x, shape=y.shape, strides=(*x.strides[:axis], 0, *x.strides[axis + 1 :])), at, y, x.shape[axis], x.strides[axis])


def _gather_nd_refused(node: Node, specs, constants) -> str | None:
    if node.get("batch_dims"):
        return "no kernel for batch_dims"
    shape = specs[node.inputs[1]].shape
    return None if shape is None or not isinstance(shape[-1], str) else "no kernel for indices of a length that is not known"


@emits("GatherND", kernel=by_size("take"), refused=_gather_nd_refused)
def gather_nd(build, node):
    """Indices made into places in memory, then what lies there."""
    x, n_indices, name = build.contiguous(build.views[node.inputs[0]]), int(build.views[node.inputs[1]].shape[-1]), node.name
    y = build.place(node.outputs[0], build.infer_output(node, 0))
    if 0 in y.shape:
        return
    index, made = build.limit_columns(node, node.inputs[1], x.shape[:n_indices]), y if y.contiguous else build.scratch(y.shape, y.dtype)
    flat = offsets_of_rows(build, name, index, x.shape, x.strides)
    rows = made.reshaped((flat.shape[0], *x.shape[n_indices:]))
    at = replace(flat, shape=rows.shape, strides=(1, *(0,) * (len(rows.shape) - 1)))
    take(build, name, replace(x, shape=rows.shape, strides=(0, *x.strides[n_indices:])), at, rows, 0, 1)
    if made is not y:
        build.copy(name, made, y)
