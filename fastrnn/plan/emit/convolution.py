"""Conv and ConvTranspose.

A convolution is a dense layer whose rows are windows of a channels-last input: where a window's entries lie one after the other, it is simply an
address; elsewhere an address and where its segments start; only where segments are very short, a strided copy lays them out. One whose groups are
single channels reads its taps where they are. The result lies channels-last too, so chains need no transposes; a pooling behind it takes lines while
they are hot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastrnn.model import Node
from fastrnn.model.ops.linear import Window, taps_of, transposed_padding, window_of
from fastrnn.model.sizes import Size, Whole, largest, n_steps, same, smallest
from fastrnn.plan.emit.emitter import emits
from fastrnn.plan.emit.matrix import integers_refused, products_refused
from fastrnn.plan.emit.rows import multiply, zero_point
from fastrnn.plan.lowering.memory import IMAGES, View
from fastrnn.plan.lowering.windows import Padded, channels_last, inside, padded_input


@emits("ConvInteger", refused=integers_refused, packs=True)
@emits("Conv", refused=products_refused, packs=True)
def conv(build, node):
    """Windows of the padded input, times each group's matrix."""
    x, kernel = build.views[node.inputs[0]], _kernel_of(build, node)
    window = _dense_taps(window_of(node, kernel, x.shape[2:]), x.shape[2:])
    for k, dilation in enumerate(window_of(node, kernel, x.shape[2:]).dilations):
        x = x.part(0, x.shape[2 + k], 2 + k, dilation) if dilation != window.dilations[k] else x
    last = channels_last(x)
    if (padded := padded_input(node, kernel, x.shape)) is not None:
        last = _padded(build, node, padded, last)
    elif last.strides[-1] != 1:
        last = build.contiguous(last)
    _windows_times(build, node, last, window.kernel, window.strides, window.dilations)


def _padded(build, node: Node, padded: Padded, last: View) -> View:
    """A channels-last input with its padding around it, made there or copied."""
    whole = build.views.get(padded.name) or build.scratch(padded.shape, last.dtype)
    sizes = last.shape[1:-1]
    place = inside(whole, padded.window.before, sizes)
    if not last.same_place(place):
        build.copy(node.name, last, place)
    zero = zero_point(build, node) if node.op == "ConvInteger" and node.input(2) else build.number(0, last.dtype)  # what stands for 0
    for part in padded.border(whole, sizes):
        build.copy(node.name, (channels_last(zero) if zero.shape else zero).broadcast(part.shape), part)
    return whole


@emits("ConvTranspose", refused=products_refused, packs=True)
def conv_transpose(build, node):
    """A convolution of the input spread out with zeros between, its kernel flipped."""
    x, kernel = build.views[node.inputs[0]], _kernel_of(build, node)
    n = len(kernel)
    window = window_of(node, kernel, (1,) * n)
    before, _, sizes = transposed_padding(node, window, x.shape[2:])
    if len(build.packed(node)) > 1:
        return _phases(build, node, window, before, sizes)
    source, firsts, dilations = channels_last(x), [window.span(k) - 1 - before[k] for k in range(n)], list(window.dilations)
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
    last, axes, room = channels_last(x), [], []
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
    build.copy(node.name, last, inside(padded, [lead for lead, _ in room], x.shape[2:]))
    for phases in itertools.product(*axes):
        places, kernel, taps = padded, [], []
        for k, (_, _, q) in enumerate(phases):
            places = places.shifted((room[k][0] + q[0]) * padded.strides[1 + k] if q else 0)
            kernel.append(len(q))
            taps.append((q[1] - q[0]) * padded.strides[1 + k] if len(q) > 1 else 0)
        steps = tuple((p, sizes[k], 1 + k, window.strides[k]) for k, (p, _, _) in enumerate(phases))

        def turned(view, steps=steps):
            view = channels_last(view)
            for part in steps:
                view = view.part(*part)
            return view

        part = turned(y)
        packed = build.packed(node)[int(np.ravel_multi_index([r for _, r, _ in phases], window.strides))]
        target = build.as_rows(part, IMAGES)
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


def _windows_times(build, node: Node, last: View, kernel, strides, dilations) -> None:
    """The product with the windows of a channels-last input (N, sizes..., C)."""
    shape, packed = build.infer_output(node, 0), build.packed(node)[0]
    step = last.strides[1:-1]
    places = replace(
        last, shape=(shape[0], *shape[2:], last.shape[-1]), strides=(last.strides[0], *(s * t for s, t in zip(step, strides)), last.strides[-1])
    )
    taps = [s * d for s, d in zip(step, dilations)]
    pooled = build.pools.get(node.name)
    y = build.place_last(*((pooled.output, build.shape_of(pooled.output)) if pooled else (node.outputs[0], shape)))
    if 0 in shape:
        return
    last_y = channels_last(y)
    role = packed.kernel.key.role
    target = build.unit_stride(last_y) if pooled or role != "dense" else last_y
    target = target if pooled or role == "winograd" else build.as_rows(target, IMAGES)
    if role == "depthwise":
        multiply(build, node, packed, places, target, channels_last, offsets_of(kernel, taps))
    elif role == "winograd":
        multiply(build, node, packed, places, target, channels_last)
    else:
        _rows_times(build, node, packed, places, kernel, taps, target, channels_last)
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
    flat = flat if flat is not None and build.walks(flat, IMAGES) else None
    if flat is None and (segments := _segments(kernel, taps, channels, packed.groups)) is not None:
        target_last = target if target.strides[-1] == 1 or target.shape[-1] == 1 else build.scratch(target.shape, target.dtype)
        multiply(build, node, packed, places, target_last, turned, segments=segments)
        if target_last is not target:
            build.copy(node.name, target_last, target)
        return
    rows = flat if flat is not None else build.contiguous(windows).reshaped((*places.shape[:-1], width))
    rows, written = build.row_pair(rows, target, IMAGES) if node.name not in build.pools else (rows, target)
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
