"""Gemm and MatMul: rows times a matrix, and what is fused behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Node
from fastrnn.model.sizes import Whole, wholes
from fastrnn.model.small import UNBOUNDED
from fastrnn.plan.emit.emitter import emits, new_args, only_float32
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.layout import OPERANDS
from fastrnn.plan.lowering.memory import View, grid, grid_table, weight_view
from fastrnn.plan.lowering.windows import Pooled


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
    multiply(build, node, packed, a, target, lambda view: view)
    if target is not y:
        build.copy(node.name, target, y)


def integers_refused(node: Node, specs, constants) -> str | None:
    """Products of bytes are for constant ones."""
    if any(name and name not in constants for name in (node.inputs[1], *map(node.input, (3, 4, 5)))):
        return "no kernel for a product of two computed matrices of bytes"
    if specs[node.inputs[1]].shape is None or node.op == "MatMulInteger" and len(specs[node.inputs[1]].shape) != 2:
        return "no kernel for more than one matrix of bytes"
    return None


def zero_point(build, node: Node) -> View:
    """Of what is multiplied: one number, or one for each row of it, so that it broadcasts to the result."""
    zero = build.views[node.inputs[2]]
    if len(zero.shape) == 1:  # of the rows of one matrix
        return replace(zero, shape=(), strides=()) if zero.shape == (1,) else replace(zero, shape=(*zero.shape, 1), strides=(*zero.strides, 0))
    return zero


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
    multiply(build, node, build.packed(node)[0], a, target, lambda view: view)
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


def multiply(
    build,
    node: Node,
    packed,
    rows: View,
    y: View,
    turned: Callable[[View], View],
    taps: list[Whole] | None = None,
    segments: tuple[list[Whole], Whole] | None = None,
) -> None:
    """y = rows times the packed matrix, a group a part of the features, then what is fused behind the node.

    taps: of a depthwise kernel, whose rows are addresses. segments: of windows where they lie: offsets, and floats of each.
    turned: a view of the node's result in the form of y. y: where a pooling goes with the node, its result.
    """
    fused = build.epilogues.get(node.name)
    pooled = build.pools.get(node.name)
    of_bytes, whole = packed.kernel.key.role == "integer_product", build.infer_output(node, 0)
    operands = [turned(build.view_of(name).broadcast(whole)) for name in fused.operands[1:]] if fused else []
    if of_bytes and node.input(2):
        operands = [turned(zero_point(build, node).broadcast(whole))]
    ends = {}
    if of_bytes and node.input(5):
        scale = np.broadcast_to(build.weights[node.inputs[5]].reshape(-1), y.shape[-1:])
        ends = {"x3": weight_view(np.ascontiguousarray(scale)), "x4": build.views[node.inputs[6]]}
    try:
        calls = [_by_lines(pooled, rows, y, *operands)] if pooled else list(by_grid(1, rows, y, *operands))
    except UnsupportedModelError:
        calls, operands = list(by_grid(1, rows, y)), None
    for (T, B, (x_t, x_b), (y_t, y_b), *steps), (x, target, *more) in calls:
        units, lines = y.shape[-1] // packed.groups, pooled.lines if pooled else 1
        window = (pooled.lines, pooled.columns, int(pooled.mean)) if pooled else (0, 0, 0)
        table = [taps] if taps is not None else [segments[0]] if segments else []
        if fused and operands is not None:
            program, channel = fused.instructions(), [v.strides[-1] if v.shape[-1] > 1 else 0 for v in more]
            table += [[len(more), len(program), *window], [n for (t, b), u in zip(steps, channel) for n in (t, b, u)], program.view(np.int64)]
        elif table or pooled:
            table.append([0, 0, *window])
        depth = len(taps) if taps is not None else segments[1] if segments else rows.shape[-1] // packed.groups
        args = new_args(
            I=depth,
            chunk=len(segments[0]) if segments else 0,
            H=units,
            P=packed.groups,
            x_t=x_t,
            x_b=x_b,
            y_t=y_t,
            y_b=y_b,
            weights=packed.weights_code,
            x_bits=node.attributes.get("x_bits", UNBOUNDED),
        )
        if of_bytes:
            args["x_bits"], args["h_bits"] = int(rows.dtype == np.int8), int(_has_zero_points(build, node))
            args["x2_t"], args["x2_b"] = steps[0] if steps else (0, 0)
            args["p_bits"] = ("int32", "uint8", "int8").index(y.dtype.name)
        pointers = {**packed.views, **ends, **({"axes": weight_view(wholes(n for part in table for n in part))} if table else {})}
        parts = parallel.row_parts(build.plan.threads, 2 * T * lines * B * packed.multiplies, T, B, whole=pooled is not None)
        with build.at_once(len(parts) > 1):
            for t, n_t, b, n_b in parts:
                args["T"], args["B"] = n_t * lines, n_b
                if pooled:  # where lines wait for their window
                    pointers["hn"] = build.scratch((lines, B, y.shape[-1]))
                along = ((x_t * lines, x_b), (y_t, y_b), *((s_t * lines, s_b) for s_t, s_b in steps))
                moved = zip(("x", "y", *OPERANDS[1:]), (x, target, *more), along)
                build.call(
                    node.name,
                    packed.kernel,
                    args,
                    {**pointers, **{name: view.shifted(t * along_t + b * along_b) for name, view, (along_t, along_b) in moved}},
                    flops=n_t * lines * n_b * (2 * packed.multiplies),
                    weight_bytes=packed.weight_bytes,
                )
    if fused and operands is None:
        build.chain(node.name, fused.over({k: turned(build.view_of(name).broadcast(whole)) if k else y for k, name in enumerate(fused.operands)}), y)


def _has_zero_points(build, node: Node) -> bool:
    """Whether weights of bytes, as int8, have zero points other than 0."""
    zero = build.weights[node.input(3)] if node.input(3) else np.zeros(1, np.int8)
    return bool((zero != (128 if build.weights[node.inputs[1]].dtype == np.uint8 else 0)).any())


def _by_lines(pooled: Pooled, rows: View, y: View, *operands: View) -> tuple[tuple, tuple[View, ...]]:
    """As by_grid gives one part, of windows: lines of y, columns of rows, and steps of both along lines and columns."""
    if pooled.images:  # one
        rows, y, *operands = (view.at(0, 0) for view in (rows, y, *operands))
    return (y.shape[0], rows.shape[1], *((v.strides[0], v.strides[1]) for v in (rows, y, *operands))), (rows, y, *operands)


def by_grid(keep: int, *views: View) -> Iterator[tuple[tuple, tuple[View, ...]]]:
    """(grid's walk, views) of the fewest parts along leading axes that a grid can walk; raises UnsupportedModelError where none is left to cut."""
    try:
        yield grid(keep, *views), views
    except UnsupportedModelError:
        if len(views[0].shape) <= keep + 2:
            raise
        for k in range(views[0].shape[0]):
            yield from by_grid(keep, *(v.at(0, k) for v in views))
