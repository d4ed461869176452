"""Rows times packed weights, and what is fused behind them: the calls behind Gemm, MatMul over bytes, and convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Node
from fastrnn.model.sizes import Whole, largest, smallest, wholes
from fastrnn.model.small import UNBOUNDED
from fastrnn.plan.emit.emitter import new_args
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.layout import OPERANDS
from fastrnn.plan.lowering.memory import IMAGES, View, grid, weight_view
from fastrnn.plan.lowering.windows import Pooled
from fastrnn.plan.weights.packed import Packed

SQUARES = 72  # at once, by kernels/native/products/winograd.h
NO_WINDOW = Pooled(0, 0, False, "", False)


@dataclass(frozen=True)
class Walk:
    """Rows as a kernel walks them: so many images of T x B, and the views with their strides along the three. Of a pooling, T and y's strides are of its windows' lines, and
    the lines of `at_once` windows wait together."""

    images: Whole
    T: Whole
    B: Whole
    views: Sequence[View]
    steps: Sequence[tuple[Whole, Whole, Whole]]
    at_once: Whole = 1

    @property
    def several(self) -> bool:
        """Whether there is more than one image, or it is not known."""
        return not isinstance(self.images, int) or self.images > 1


def multiply(
    build,
    node: Node,
    packed: Packed,
    rows: View,
    y: View,
    turned: Callable[[View], View] = lambda view: view,
    taps: list[Whole] | None = None,
    segments: tuple[list[Whole], Whole] | None = None,
) -> None:
    """y = rows times the packed matrix, a group a part of the features, then what is fused behind the node.

    taps: of a depthwise kernel, whose rows are addresses. segments: of windows where they lie: offsets, and floats of each.
    turned: a view of the node's result in the form of y. y: where a pooling goes with the node, its result.
    """
    fused, pooled = build.epilogues.get(node.name), build.pools.get(node.name)
    of_bytes, whole = packed.kernel.key.role == "integer_product", build.infer_output(node, 0)
    operands = [turned(build.view_of(name).broadcast(whole)) for name in fused.operands[1:]] if fused else []
    if of_bytes and node.input(2):
        operands = [turned(zero_point(build, node).broadcast(whole))]
    squares = packed.kernel.key.role == "winograd"
    walks = (
        (lambda *views: [_by_lines(pooled, squares, *views)])
        if pooled or squares
        else (lambda *views: by_grid(1, *views, most=2 if of_bytes else IMAGES))
    )
    try:
        found, program = list(walks(rows, y, *operands)), fused.instructions() if fused else None
    except UnsupportedModelError:
        found, program = list(walks(rows, y)), None
    pointers = {**packed.views, **(_ends(build, node, y) if of_bytes else {})}
    depth = len(taps) if taps is not None else segments[1] if segments else rows.shape[-1] // packed.groups
    args = new_args(
        I=depth,
        chunk=len(segments[0]) if segments else 0,
        H=y.shape[-1] // packed.groups,
        P=packed.groups,
        weights=packed.weights_code,
        far=int(packed.far),
    )
    args["x_bits"] = int(rows.dtype == np.int8) if of_bytes else node.attributes.get("x_bits", UNBOUNDED)
    for walk in found:
        (_, args["x_t"], args["x_b"]), (_, args["y_t"], args["y_b"]) = walk.steps[:2]
        if of_bytes:
            args["h_bits"], args["p_bits"] = int(_has_zero_points(build, node)), ("int32", "uint8", "int8").index(y.dtype.name)
            _, args["x2_t"], args["x2_b"] = walk.steps[2] if operands else (0, 0, 0)
        table = [taps] if taps is not None else [segments[0]] if segments else []
        if program is not None or pooled or walk.several or taps is not None or segments:
            table += _table(walk, pooled or NO_WINDOW, program)
        _call(build, node, packed, args, {**pointers, **({"axes": weight_view(wholes(n for part in table for n in part))} if table else {})}, walk)
    if fused and program is None:
        build.chain(node.name, fused.over({k: turned(build.view_of(name).broadcast(whole)) if k else y for k, name in enumerate(fused.operands)}), y)


def _table(walk: Walk, pooled: Pooled, program: np.ndarray | None) -> list:
    """What kernels/native/products/dense.h reads of images, windows and the program behind a product."""
    views, steps = (walk.views[2:], walk.steps[2:]) if program is not None else ((), ())
    strides = [n for view, step in zip(views, steps) for n in (*step, view.strides[-1] if view.shape[-1] > 1 else 0)]
    apart = [step[0] for step in walk.steps[:2]]
    head = [len(views), 0 if program is None else len(program), pooled.lines, pooled.columns, int(pooled.mean), walk.at_once, walk.images, *apart]
    return [head, strides, () if program is None else program.view(np.int64)]


def _call(build, node: Node, packed: Packed, args: np.ndarray, pointers: dict, walk: Walk) -> None:
    """The calls of one walk, in parts that run at once where there are threads."""
    pooled, squares = build.pools.get(node.name), packed.kernel.key.role == "winograd"
    lines = pooled.lines if pooled else 1
    flops = walk.images * (2 * lines * packed.multiplies)
    parts = parallel.row_parts(
        build.plan.threads, flops * (walk.T * walk.B), walk.T, walk.B, whole=pooled is not None, squares=squares and not pooled
    )
    with build.at_once(len(parts) > 1):
        for t, n_t, b, n_b in parts:
            args["T"], args["B"] = n_t * lines, n_b
            if pooled:  # where lines wait for their window
                pointers["hn"] = build.scratch((walk.at_once, lines, walk.B, walk.views[1].shape[-1]))
            for k, (name, view, (_, along_t, along_b)) in enumerate(zip(("x", "y", *OPERANDS[1:]), walk.views, walk.steps)):
                pointers[name] = view.shifted(t * along_t * (1 if k == 1 else lines) + b * along_b)
            build.call(node.name, packed.kernel, args, pointers, flops=flops * (n_t * n_b), weight_bytes=packed.weight_bytes)


def _ends(build, node: Node, y: View) -> dict[str, View]:
    """What turns sums of bytes into bytes again: a scale for each unit, and the zero point."""
    if not node.input(5):
        return {}
    scale = np.broadcast_to(build.weights[node.inputs[5]].reshape(-1), y.shape[-1:])
    return {"x3": weight_view(np.ascontiguousarray(scale)), "x4": build.views[node.inputs[6]]}


def zero_point(build, node: Node) -> View:
    """Of what is multiplied: one number, or one for each row of it, so that it broadcasts to the result."""
    zero = build.views[node.inputs[2]]
    if len(zero.shape) == 1:  # of the rows of one matrix
        return replace(zero, shape=(), strides=()) if zero.shape == (1,) else replace(zero, shape=(*zero.shape, 1), strides=(*zero.strides, 0))
    return zero


def _has_zero_points(build, node: Node) -> bool:
    """Whether weights of bytes, as int8, have zero points other than 0."""
    zero = build.weights[node.input(3)] if node.input(3) else np.zeros(1, np.int8)
    return bool((zero != (128 if build.weights[node.inputs[1]].dtype == np.uint8 else 0)).any())


def _by_lines(pooled: Pooled | None, squares: bool, rows: View, y: View, *operands: View) -> Walk:
    """Images (N, lines, columns, C), or rows (lines, columns, C) where a pooling goes along one axis: lines of y, columns of rows. Of squares under a pooling, so many windows at once
    that their weights serve as many as go at once."""
    views, first = (rows, y, *operands), 0 if pooled and not pooled.images else 1
    steps = [(v.strides[0] if first else 0, *v.strides[first : first + 2]) for v in views]
    images, T, B = y.shape[0] if first else 1, y.shape[first], rows.shape[first + 1]
    at_once = smallest(images * T, largest(1, SQUARES // (pooled.lines // 2 * ((B + 1) // 2)))) if pooled and squares else 1
    return Walk(images, T, B, views, steps, at_once)


def by_grid(keep: int, *views: View, most: int = 2) -> Iterator[Walk]:
    """The walks of the fewest parts along leading axes that so many loops can do; raises UnsupportedModelError where none is left to cut."""
    try:
        sizes = grid(keep, *views, most=most)
    except UnsupportedModelError:
        if len(views[0].shape) <= keep + most:
            raise
        for k in range(views[0].shape[0]):
            yield from by_grid(keep, *(v.at(0, k) for v in views), most=most)
        return
    images, T, B, *steps = sizes if most == IMAGES else (1, *sizes[:2], *((0, *step) for step in sizes[2:]))
    yield Walk(images, T, B, views, steps)
