"""Gemm, MatMul, Conv and ConvTranspose: rows times a matrix, and what is fused behind it.

A convolution is a dense layer whose rows are windows of a channels-last input: where a window's entries lie one after the other, it is
simply an address; elsewhere an address and where its segments start; only where segments are very short, a strided copy lays them out. One whose groups are single channels reads its taps where they are. The
result lies channels-last too, so chains need no transposes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Node
from fastrnn.model.ops.linear import Window, taps_of, transposed_padding, window_of
from fastrnn.model.sizes import Size, Whole, largest, n_steps, same, smallest, wholes
from fastrnn.model.small import UNBOUNDED
from fastrnn.plan.emit.emitter import emits, new_args, only_float32
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.layout import OPERANDS
from fastrnn.plan.lowering.memory import View, grid, grid_table, weight_view


def _products_refused(node: Node, specs, constants) -> str | None:
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
    return _products_refused(node, specs, constants)


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


def _integers_refused(node: Node, specs, constants) -> str | None:
    """Products of bytes are for constant ones."""
    if any(name and name not in constants for name in (node.inputs[1], *map(node.input, (3, 4, 5)))):
        return "no kernel for a product of two computed matrices of bytes"
    if specs[node.inputs[1]].shape is None or node.op == "MatMulInteger" and len(specs[node.inputs[1]].shape) != 2:
        return "no kernel for more than one matrix of bytes"
    return None


def _zero_point(build, node: Node) -> View:
    """Of what is multiplied: one number, or one for each row of it, so that it broadcasts to the result."""
    zero = build.views[node.inputs[2]]
    if len(zero.shape) == 1:  # of the rows of one matrix
        return replace(zero, shape=(), strides=()) if zero.shape == (1,) else replace(zero, shape=(*zero.shape, 1), strides=(*zero.strides, 0))
    return zero


@emits("MatMulInteger", refused=_integers_refused, packs=True)
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
    turned: a view of the node's result in the form of y.
    """
    fused = build.epilogues.get(node.name)
    of_bytes, whole = packed.kernel.key.role == "integer_product", build.infer_output(node, 0)
    operands = [turned(build.view_of(name).broadcast(whole)) for name in fused.operands[1:]] if fused else []
    if of_bytes and node.input(2):
        operands = [turned(_zero_point(build, node).broadcast(whole))]
    ends = {}
    if of_bytes and node.input(5):
        scale = np.broadcast_to(build.weights[node.inputs[5]].reshape(-1), y.shape[-1:])
        ends = {"x3": weight_view(np.ascontiguousarray(scale)), "x4": build.views[node.inputs[6]]}
    try:
        calls = list(by_grid(1, rows, y, *operands))
    except UnsupportedModelError:
        calls, operands = list(by_grid(1, rows, y)), None
    for (T, B, (x_t, x_b), (y_t, y_b), *steps), (x, target, *more) in calls:
        units = y.shape[-1] // packed.groups
        table = [taps] if taps is not None else [segments[0]] if segments else []
        if fused and operands is not None:
            program, channel = fused.instructions(), [v.strides[-1] if v.shape[-1] > 1 else 0 for v in more]
            table += [[len(more), len(program)], [n for (t, b), u in zip(steps, channel) for n in (t, b, u)], program.view(np.int64)]
        elif table:
            table.append([0, 0])
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
        parts = parallel.row_parts(build.plan.threads, 2 * T * B * packed.multiplies, T, B)
        with build.at_once(len(parts) > 1):
            for t, n_t, b, n_b in parts:
                args["T"], args["B"] = n_t, n_b
                moved = zip(("x", "y", *OPERANDS[1:]), (x, target, *more), ((x_t, x_b), (y_t, y_b), *steps))
                build.call(
                    node.name,
                    packed.kernel,
                    args,
                    {**pointers, **{name: view.shifted(t * along_t + b * along_b) for name, view, (along_t, along_b) in moved}},
                    flops=n_t * n_b * (2 * packed.multiplies),
                    weight_bytes=packed.weight_bytes,
                )
    if fused and operands is None:
        build.chain(node.name, fused.over({k: turned(build.view_of(name).broadcast(whole)) if k else y for k, name in enumerate(fused.operands)}), y)


def _has_zero_points(build, node: Node) -> bool:
    """Whether weights of bytes, as int8, have zero points other than 0."""
    zero = build.weights[node.input(3)] if node.input(3) else np.zeros(1, np.int8)
    return bool((zero != (128 if build.weights[node.inputs[1]].dtype == np.uint8 else 0)).any())


def by_grid(keep: int, *views: View) -> Iterator[tuple[tuple, tuple[View, ...]]]:
    """(grid's walk, views) of the fewest parts along leading axes that a grid can walk; raises UnsupportedModelError where none is left to cut."""
    try:
        yield grid(keep, *views), views
    except UnsupportedModelError:
        if len(views[0].shape) <= keep + 2:
            raise
        for k in range(views[0].shape[0]):
            yield from by_grid(keep, *(v.at(0, k) for v in views))


@emits("ConvInteger", refused=_integers_refused, packs=True)
@emits("Conv", refused=_products_refused, packs=True)
def conv(build, node):
    """Windows of the padded input, times each group's matrix."""
    x, kernel = build.views[node.inputs[0]], _kernel_of(build, node)
    window = _dense_taps(window_of(node, kernel, x.shape[2:]), x.shape[2:])
    for k, dilation in enumerate(window_of(node, kernel, x.shape[2:]).dilations):
        x = x.part(0, x.shape[2 + k], 2 + k, dilation) if dilation != window.dilations[k] else x
    last = _channels_last(x)
    if any(window.before) or any(window.after):
        padded = build.scratch((x.shape[0], *(n + b + a for n, b, a in zip(x.shape[2:], window.before, window.after)), x.shape[1]), x.dtype)
        if node.op == "ConvInteger" and node.input(2):  # what stands for 0
            zero = _zero_point(build, node)
            build.copy(node.name, (_channels_last(zero) if zero.shape else zero).broadcast(padded.shape), padded)
        else:
            build.fill(node.name, padded, 0)
        build.copy(node.name, last, _inside(padded, window.before, x.shape[2:]))
        last = padded
    elif last.strides[-1] != 1:
        last = build.contiguous(last)
    _windows_times(build, node, last, window.kernel, window.strides, window.dilations)


@emits("ConvTranspose", refused=_products_refused, packs=True)
def conv_transpose(build, node):
    """A convolution of the input spread out with zeros between, its kernel flipped."""
    x, kernel = build.views[node.inputs[0]], _kernel_of(build, node)
    n = len(kernel)
    window = window_of(node, kernel, (1,) * n)
    before, _, sizes = transposed_padding(node, window, x.shape[2:])
    if len(build.packed(node)) > 1:
        return _phases(build, node, window, before, sizes)
    source, firsts, dilations = _channels_last(x), [window.span(k) - 1 - before[k] for k in range(n)], list(window.dilations)
    for k, dilation in enumerate(window.dilations):
        if sizes[k] == window.strides[k] == 1 < dilation:  # one place for the window: only what its taps meet
            skip = -firsts[k] % dilation
            source = source.part(skip, max(skip, source.shape[1 + k]), 1 + k, dilation)
            firsts[k], dilations[k] = (firsts[k] + skip) // dilation, 1
    window = replace(window, dilations=tuple(dilations))
    spread = build.scratch((x.shape[0], *(s + window.span(k) - 1 for k, s in enumerate(sizes)), x.shape[1]))
    build.fill(node.name, spread, 0.0)
    target = spread
    for k in range(n):
        first, step, room = firsts[k], window.strides[k], spread.shape[1 + k]
        skip = max(0, -(first // step)) if first < 0 else 0
        count = largest(0, smallest(source.shape[1 + k] - skip, -(-(room - first - skip * step) // step)))
        source = source.part(skip, skip + count, 1 + k)
        start = first + skip * step
        target = target.part(start, start + (count - 1) * step + 1 if isinstance(count, Size) or count else start, 1 + k, step)
    build.copy(node.name, source, target)
    return _windows_times(build, node, spread, window.kernel, (1,) * n, window.dilations)


def _phases(build, node: Node, window: Window, before, sizes) -> None:
    """With strides, outputs a stride apart meet the same taps, and no zeros between: a convolution for each such phase."""
    x, shape = build.views[node.inputs[0]], build.infer_output(node, 0)
    y = build.place_last(node.outputs[0], shape)
    if 0 in shape:
        return
    last, axes, room = _channels_last(x), [], []
    for k, size in enumerate(sizes):
        first, step = window.span(k) - 1 - before[k], window.strides[k]
        # of each phase: where it starts, its residue, and where its first output's taps lie in x
        phases = [
            (p, int((p - first) % step), [(p + t * window.dilations[k] - first) // step for t in taps_of(window, k)[int((p - first) % step)]])
            for p in range(min(step, size))
        ]
        axes.append(phases)
        reach = [(q[0], q[-1] + n_steps(p, size, step)) for p, _, q in phases if q]
        room.append((max(0, -min((low for low, _ in reach), default=0)), max(0, max((high for _, high in reach), default=0) - x.shape[2 + k])))
    padded = build.scratch((x.shape[0], *(m + sum(r) for m, r in zip(x.shape[2:], room)), x.shape[1]))
    if any(map(any, room)):
        build.fill(node.name, padded, 0.0)
    build.copy(node.name, last, _inside(padded, [lead for lead, _ in room], x.shape[2:]))
    for phases in itertools.product(*axes):
        places, kernel, taps = padded, [], []
        for k, (_, _, q) in enumerate(phases):
            places = places.shifted((room[k][0] + q[0]) * padded.strides[1 + k] if q else 0)
            kernel.append(len(q))
            taps.append((q[1] - q[0]) * padded.strides[1 + k] if len(q) > 1 else 0)
        steps = tuple((p, sizes[k], 1 + k, window.strides[k]) for k, (p, _, _) in enumerate(phases))

        def turned(view, steps=steps):
            view = _channels_last(view)
            for part in steps:
                view = view.part(*part)
            return view

        part = turned(y)
        packed = build.packed(node)[int(np.ravel_multi_index([r for _, r, _ in phases], window.strides))]
        target = build.as_rows(part)
        _rows_times(build, node, packed, replace(places, shape=(*part.shape[:-1], x.shape[1])), kernel, taps, target, turned)
        if target is not part:
            build.copy(node.name, target, part)


def _kernel_of(build, node: Node) -> tuple[int, ...]:
    """Sizes of a convolution's window."""
    return tuple(int(n) for n in build.shape_of(node.inputs[1])[2:])


def _dense_taps(window: Window, sizes) -> Window:
    """The window over what it reads: along an axis with one place for it and no padding, the taps alone."""
    alone = [window.length(k, n) == 1 and not window.before[k] and not window.after[k] for k, n in enumerate(sizes)]
    return replace(window, dilations=tuple(1 if one else d for one, d in zip(alone, window.dilations)))


def _channels_last(x: View) -> View:
    return x.transposed((0, *range(2, len(x.shape)), 1))


def _inside(x: View, before, sizes) -> View:
    """The part behind the padding, along axes 1 to the last but one."""
    for k, (b, n) in enumerate(zip(before, sizes)):
        x = x.part(b, b + n, 1 + k)
    return x


def _windows_times(build, node: Node, last: View, kernel, strides, dilations) -> None:
    """The product with the windows of a channels-last input (N, sizes..., C)."""
    shape, packed = build.infer_output(node, 0), build.packed(node)[0]
    step = last.strides[1:-1]
    places = replace(
        last, shape=(shape[0], *shape[2:], last.shape[-1]), strides=(last.strides[0], *(s * t for s, t in zip(step, strides)), last.strides[-1])
    )
    taps = [s * d for s, d in zip(step, dilations)]
    y = build.place_last(node.outputs[0], shape)
    if 0 in shape:
        return
    last_y = _channels_last(y)
    target = build.as_rows(last_y)
    if packed.kernel.key.role == "depthwise":
        if target.strides[-1] != 1:
            target = build.scratch(last_y.shape, last_y.dtype)
        multiply(build, node, packed, places, target, _channels_last, offsets_of(kernel, taps))
    else:
        _rows_times(build, node, packed, places, kernel, taps, target, _channels_last)
    if target is not last_y:
        build.copy(node.name, target, last_y)


def _rows_times(build, node: Node, packed, places: View, kernel, taps, target: View, turned: Callable[[View], View]) -> None:
    """A dense layer over windows that start at `places` (..., C) of a channels-last array, with strides `taps` along the kernel's axes."""
    channels, width = places.shape[-1] // packed.groups, math.prod(kernel) * places.shape[-1]
    windows = replace(
        places,
        shape=(*places.shape[:-1], packed.groups, *kernel, channels),
        strides=(*places.strides[:-1], channels * places.strides[-1], *taps, places.strides[-1]),
    )
    flat = windows.reshaped((*places.shape[:-1], width))
    if (flat is None or not build.walks(flat)) and (segments := _segments(kernel, taps, channels, packed.groups)) is not None:
        target_last = target if target.strides[-1] == 1 or target.shape[-1] == 1 else build.scratch(target.shape, target.dtype)
        multiply(build, node, packed, places, target_last, turned, segments=segments)
        if target_last is not target:
            build.copy(node.name, target_last, target)
        return
    rows = build.rows(flat) if flat is not None else build.contiguous(windows).reshaped((*places.shape[:-1], width))
    rows, written = build.row_pair(rows, target)
    multiply(build, node, packed, rows, written, turned)
    if written is not target:
        build.copy(node.name, written, target)


def _segments(kernel, taps, channels: Whole, groups: int) -> tuple[list[Whole], Whole] | None:
    """Offsets of a window's runs of neighbours, and floats of each; None where they are so short that copying them together costs less.

    A run of fewer than four floats does not outweigh its start (Conv 3x3 of groups of two channels).
    """
    outer, length = list(zip(kernel, taps)), channels
    while groups == 1 and outer and (outer[-1][0] == 1 or same(outer[-1][1], length)):
        length = length * outer.pop()[0]
    return None if length < 4 else (offsets_of([n for n, _ in outer], [step for _, step in outer]), length)


def offsets_of(kernel, taps) -> list[Whole]:
    """Where each entry of a window lies, in C order: `taps` apart along its axes."""
    return [sum(i * t for i, t in zip(at, taps)) for at in np.ndindex(*kernel)]
