"""Gemm and MatMul: rows times a constant matrix, products of two computed ones."""

from __future__ import annotations

import math
from dataclasses import replace

from fastrnn.model import Node
from fastrnn.plan.emit.emitter import emits, new_args, only_float32
from fastrnn.plan.emit.rows import multiply
from fastrnn.plan.lowering.memory import grid_table, weight_view


def products_refused(node: Node, specs, constants) -> str | None:
    """Kernels are for float32, over constant weights of any precision."""
    if specs[node.inputs[1]].dtype in ("uint16", "int8"):
        if any(name and name not in constants for name in node.inputs[1:]):
            return f"no kernel for computed weights of {specs[node.inputs[1]].dtype}"
        node = replace(node, inputs=(node.inputs[0], node.input(2)))
    return only_float32(node, specs, constants)


def _gemm_refused(node: Node, specs, constants) -> str | None:
    if node.inputs[1] not in constants:
        return "no kernel for a product of two computed matrices that was not rewritten"
    if node.input(2):
        c, n = constants.get(node.input(2)), specs[node.inputs[1]].shape[0 if node.get("transB") else 1]
        if c is None or c.size not in (1, n) or c.size != (c.shape[-1] if c.ndim else 1):
            return "no kernel for a C that is not one constant row"
    return products_refused(node, specs, constants)


@emits("Gemm", refused=_gemm_refused, packs=True)
def gemm(build, node):
    """A dense layer over the rows of A."""
    packed, a = build.packed(node)[0], build.views[node.inputs[0]]
    a = build.rows(a.transposed((1, 0)) if node.get("transA") else a)
    y = build.place(node.outputs[0], build.infer_output(node, 0))
    if 0 in y.shape:
        return
    a, target = build.row_pair(a, y)
    multiply(build, node, packed, a, target)
    if target is not y:
        build.copy(node.name, target, y)


def integers_refused(node: Node, specs, constants) -> str | None:
    """Products of bytes are for constant ones."""
    if any(name and name not in constants for name in (node.inputs[1], *map(node.input, (3, 4, 5)))):
        return "no kernel for a product of two computed matrices of bytes"
    if specs[node.inputs[1]].shape is None or node.op == "MatMulInteger" and len(specs[node.inputs[1]].shape) != 2:
        return "no kernel for more than one matrix of bytes"
    return None


@emits("MatMulInteger", refused=integers_refused, packs=True)
def matmul_integer(build, node):
    """Rows of bytes times a constant matrix of them, int32 or bytes again."""
    a = build.views[node.inputs[0]]
    y = build.place(node.outputs[0], build.infer_output(node, 0))
    if 0 in y.shape:
        return
    one = len(a.shape) == 1
    a, target = build.row_pair(
        replace(a, shape=(1, *a.shape), strides=(0, *a.strides)) if one else a, replace(y, shape=(1, *y.shape), strides=(0, *y.strides)) if one else y
    )
    multiply(build, node, build.packed(node)[0], a, target)
    if not target.same_place(y) and not one:
        build.copy(node.name, target, y)


@emits("MatMul", kernel="product")
def matmul(build, node):
    """Two computed matrices: one of two axes and no batch, or batches of them."""
    a, b = (build.views[name] for name in node.inputs)
    y = build.place(node.outputs[0], build.infer_output(node, 0))
    if 0 in y.shape:
        return
    a = a if len(a.shape) > 1 else replace(a, shape=(1, *a.shape), strides=(0, *a.strides))
    b = b if len(b.shape) > 1 else replace(b, shape=(*b.shape, 1), strides=(*b.strides, 0))
    a = a if a.strides[-1] == 1 or a.shape[-1] == 1 else build.contiguous(a)
    target = y if len(build.views[node.inputs[1]].shape) > 1 else replace(y, shape=(*y.shape, 1), strides=(*y.strides, 0))
    target = (
        target
        if len(build.views[node.inputs[0]].shape) > 1
        else replace(target, shape=(*target.shape[:-1], 1, target.shape[-1]), strides=(*target.strides[:-1], 0, target.strides[-1]))
    )
    made = build.unit_stride(target)
    M, K, N, batch = a.shape[-2], a.shape[-1], b.shape[-1], made.shape[:-2]
    outer = [replace(v, shape=v.shape[:-2], strides=v.strides[:-2]).broadcast(batch) for v in (made, a, b)]
    table = grid_table(*outer)
    args = new_args(T=len(table), B=M, I=K, H=N, x_b=a.strides[-2], y_b=made.strides[-2], x_t=b.strides[-2], y_t=b.strides[-1])
    size = math.prod(batch)
    build.call(
        node.name,
        build.kernel("product"),
        args,
        {"x": a, "x2": b, "y": made, "axes": weight_view(table)},
        flops=2 * size * M * N * K,
        weight_bytes=4 * size * N * K,
    )
    if made is not target:
        build.copy(node.name, made, target)
