"""Reductions and normalisations, over rows."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.kernels.contract import Key
from fastrnn.model import Node
from fastrnn.model.ops.normal import reduced_axes
from fastrnn.plan.emit.emitter import emits
from fastrnn.plan.lowering.chain import number

# op: kernel, what nothing reduces to.
REDUCTIONS = {"ReduceMean": ("reduce", np.nan), "ReduceSum": ("reduce", 0), "ReduceMax": ("reduce_max", -np.inf), "ReduceMin": ("reduce_min", np.inf),
              "ReduceProd": ("reduce_prod", 1), "ReduceL2": ("reduce_squares", 0), "ReduceSumSquare": ("reduce_squares", 0)}  # fmt: skip


def _kernel(node: Node, specs) -> Key:
    name, dtype = REDUCTIONS[node.op][0], specs[node.inputs[0]].dtype
    return Key(name, dtype=dtype)


def _refused(node: Node, specs, constants) -> str | None:
    dtype = specs[node.inputs[0]].dtype
    if any(name and name not in constants for name in node.inputs[1:]):
        return "no kernel for computed axes"
    return None if dtype in ("float32", "int32", "int64", "") else f"no kernel for {dtype}"  # "": not known yet


@emits(*REDUCTIONS, kernel=_kernel, refused=_refused)
def reduce(build, node):
    """Rows of the reduced axes, put together in one fixed order."""
    x, rank = build.views[node.inputs[0]], len(build.views[node.inputs[0]].shape)
    axes = reduced_axes(node, rank, build.weights.get(node.input(1)))
    y, kernel = build.place(node.outputs[0], build.infer_output(node, 0)), _kernel(node, build.specs)
    kept = tuple(a for a in range(rank) if a not in axes)
    n = math.prod(x.shape[a] for a in axes)
    shape = tuple(x.shape[a] for a in kept)
    if n == 0:
        empty = REDUCTIONS[node.op][1]
        ends = {"ReduceMax": "min", "ReduceMin": "max"}.get(node.op)
        return build.fill(node.name, y, getattr(np.iinfo(x.dtype), ends) if ends and x.dtype.kind == "i" else empty)
    if not axes and kernel.role == "reduce_squares":
        return build.pointwise(node.name, y, x, ("mul", x), *([("sqrt", None)] if node.op == "ReduceL2" else []))
    if not axes:
        return build.copy(node.name, x, y)
    turned = x.transposed((*kept, *(a for a in range(rank) if a in axes)))
    rows = turned.reshaped((*shape, n))
    rows = build.contiguous(turned).reshaped((*shape, n)) if rows is None else rows
    outer = y.reshaped(shape)
    build.reduce(node.name, outer, rows, n if node.op == "ReduceMean" else 1, kernel)
    if node.op == "ReduceL2":
        build.pointwise(node.name, y, y, ("sqrt", None))
    return None


@emits("Softmax", "LogSoftmax", kernel=lambda node, specs: node.op.lower())
def softmax(build, node):
    """Along one axis, as rows."""
    x = build.views[node.inputs[0]]
    y, axis = build.place_like(node.outputs[0], x), node.get("axis") % len(x.shape)
    build.rowwise(node.name, node.op.lower(), y, x, axis)


@emits("LayerNormalization", kernel="reduce")
def layer_normalization(build, node):
    """Mean, centred values, their mean square, and their quotient, each over rows."""
    x, name = build.contiguous(build.views[node.inputs[0]]), node.name
    axis, y = node.get("axis") % len(x.shape), build.place(node.outputs[0], x.shape)
    if 0 in x.shape:
        return
    lead, n = x.shape[:axis], math.prod(x.shape[axis:])
    rows, mean, centred, square = x.reshaped((*lead, n)), build.scratch((*lead, 1)), build.scratch((*lead, n)), build.scratch((*lead, n))
    build.reduce(name, mean.reshaped(lead), rows, n)
    build.pointwise(name, centred, rows, ("sub", mean))
    build.pointwise(name, square, centred, ("mul", centred))
    build.reduce(name, mean.reshaped(lead), square, n)
    build.pointwise(name, mean, mean, ("add", number(node.get("epsilon"))), ("sqrt", None))
    spread = mean.reshaped((*lead, *(1,) * (len(x.shape) - axis)))
    after = [(operation, build.views[node.input(k)]) for k, operation in ((1, "mul"), (2, "add")) if node.input(k)]
    build.pointwise(name, y, centred.reshaped(x.shape), ("div", spread), *after)
