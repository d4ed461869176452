"""Ops that mix time steps and can be stepped all the same: each is a function (timeline, node) that appends what a chunk of steps needs.

    Conv, ConvTranspose  a history as long as the window looks back; ConvInteger, QLinearConv, MaxPool and AveragePool likewise
    DynamicQuantizeLinear  a range for each step
    CumSum               the sum so far
    Pad, Concat, Slice   entries in front of the first step, behind the last, or cut off there: what is late needs a history, see Timeline.align
    RNN, GRU, LSTM       their states as inputs and outputs
    Reshape, Flatten     axes folded into time, and taken out again
    Shape                the number of steps, followed through integer arithmetic

To add one: a function under `@mixing("Op")`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastrnn.model import Node, State
from fastrnn.model.infer import infer_node
from fastrnn.model.ops import ANY_DIM, OPS
from fastrnn.model.ops.indexing import pad_widths
from fastrnn.model.ops.linear import Window, window_of
from fastrnn.model.ops.registry import axis_of
from fastrnn.model.recurrent import INPUTS, RECURRENT, input_of, states_of
from fastrnn.model.sizes import whole
from fastrnn.plan.streams.timeline import OPEN_END, Length, Timeline, Track, mixing, refuse

STEPWISE = INPUTS.index("scalars"), INPUTS.index("keep")  # what comes step by step beside x


@mixing("Shape")
def shape(line: Timeline, node: Node) -> None:
    """The number of steps as an entry."""
    track, dims = line.tracks[node.inputs[0]], np.array(line.specs[node.inputs[0]].shape, object)
    dims[track.axis] = track.length
    line.add(node)
    line.lengths[node.outputs[0]] = dims


@mixing("Flatten")
def flatten(line: Timeline, node: Node) -> None:
    """A Reshape to two axes."""
    track, dims = line.tracks[node.inputs[0]], list(line.specs[node.inputs[0]].shape)
    dims[track.axis], at = track.length, node.get("axis")
    at += len(dims) * (at < 0)
    _reshaped(line, node, None if any(isinstance(d, str) for d in dims) else [math.prod(dims[:at]), math.prod(dims[at:])])


@mixing("Reshape")
def reshape(line: Timeline, node: Node) -> None:
    """Axes beside time folded into it, or taken out again, and any others: no step's entries move to another step."""
    _reshaped(line, node, line.lengths.get(node.inputs[1], line.weights.get(node.inputs[1])))


def _reshaped(line: Timeline, node: Node, target) -> None:
    x, track = node.inputs[0], line.tracks.get(node.inputs[0])
    dims = () if track is None else line.specs[x].shape
    if track is None or target is None or any(isinstance(d, str) for k, d in enumerate(dims) if k != track.axis):
        raise refuse(node, "what it makes of the time axis is not known before it runs")
    target = [n if isinstance(n, Length) else whole(n) for n in target]
    if node.op == "Reshape" and not node.get("allowzero"):
        target = [(track.length if k == track.axis else dims[k]) if n == 0 else n for k, n in enumerate(target)]
    before, after = math.prod(dims[: track.axis]) * track.rows, math.prod(dims[track.axis + 1 :]) * track.each
    places = [k for k, n in enumerate(target) if isinstance(n, Length)] or [k for k, n in enumerate(target) if n == -1]
    if len(places) != 1:
        raise refuse(node, "it mixes time steps, or moves the time axis")
    axis, rest = places[0], [1 if isinstance(n, Length) else n for n in target]
    rest[axis] = 1
    if -1 in rest:  # beside time: what is left of the entries in front of it, or behind
        k = rest.index(-1)
        others = max(-math.prod(rest[:axis] if k < axis else rest[axis + 1 :]), 1)
        beyond = rest[axis + 1 :] if k < axis else rest[:axis]  # on the other side of time, which says what is folded from there
        folded = (after if k < axis else before) // max(math.prod(beyond), 1)
        rest[k] = (before if k < axis else after) // max(target[axis].rows // max(folded, 1), 1) // others
    rows, each = (n // max(math.prod(side), 1) for n, side in ((before, rest[:axis]), (after, rest[axis + 1 :])))
    if math.prod(rest[axis + 1 :]) * each != after or math.prod(rest[:axis]) * rows != before:
        raise refuse(node, "it mixes time steps, or moves the time axis")
    if rows * each > 1 and (track.lead or track.tail):
        x = line.align(x)
        track = line.tracks[x]
        if track.tail:
            raise refuse(node, "it folds an axis into a sequence that is longer than the steps, or shorter")
    track = replace(track, axis=axis, rows=rows, each=each)
    if isinstance(target[axis], Length) and target[axis] != track.length:
        raise refuse(node, "its target is the length of another sequence")
    rest[axis] = -1
    line.add(Node("Reshape", node.name, (x, line.whole(f"{node.name}.target", *rest)), node.outputs), track)


@mixing("Conv")
def conv(line: Timeline, node: Node) -> None:
    """The window looks back over a history; what padding puts in front of step 0 is where the history starts."""
    track = line.tracks.get(node.inputs[0])
    if track is None or track.axis < 2 or any(name in line.tracks for name in node.inputs[1:]):
        line.apart(node)
        return
    look_back(line, node, line.specs[node.inputs[1]].shape[2:])


def look_back(line: Timeline, node: Node, kernel, fill: float = 0.0) -> None:
    """A window over the first input whose padding along time is entries of `fill`."""
    x, track = node.inputs[0], line.tracks[node.inputs[0]]
    k = track.axis - 2
    window = _window(node, kernel, line.specs[x].shape[2:], k)
    reach, before = window.span(k) - 1, window.before[k]
    if window.strides[k] != 1:
        raise refuse(node, f"its stride along time is {window.strides[k]}: a step does not make a whole output")
    if track.lead + before < reach:
        raise refuse(node, f"it looks {_steps(reach - track.lead - before)} ahead")
    if track.edge and before:
        if before < reach:
            raise refuse(node, "it looks at its padding in front of copies of the first step")
        x = line.align(x)
        track = line.tracks[x]
    full = line.history(node, x, reach, fill) if reach else x
    pads = [0 if i == k else n for side in (window.before, window.after) for i, n in enumerate(side)]
    attributes = {name: value for name, value in node.attributes.items() if name != "auto_pad"} | {"pads": pads}
    line.add(
        replace(node, inputs=(full, *node.inputs[1:]), attributes=attributes),
        replace(track, lead=track.lead + before - reach, tail=track.tail + window.after[k]),
    )


@mixing("MaxPool", "AveragePool")
def pool(line: Timeline, node: Node) -> None:
    """As a convolution; what a mean leaves out of its count cannot be kept as a history."""
    track = line.tracks[node.inputs[0]]
    kernel = node.get("kernel_shape")
    if track.axis < 2 or not kernel:
        return line.apart(node)
    padded = _window(node, kernel, line.specs[node.inputs[0]].shape[2:], track.axis - 2).before[track.axis - 2]
    if node.op == "AveragePool" and padded and not node.get("count_include_pad"):
        raise refuse(node, "count_include_pad=0: its first means are over fewer steps")
    dtype = np.dtype(line.specs[node.inputs[0]].dtype)
    least = -np.inf if dtype.kind == "f" else np.iinfo(dtype).min
    return look_back(line, node, tuple(kernel), least if node.op == "MaxPool" else 0.0)


@mixing("DynamicQuantizeLinear")
def dynamic_quantize(line: Timeline, node: Node) -> None:
    """Each step over its own range: what later ones hold is not known yet."""
    axis = line.tracks[node.inputs[0]].axis
    line.apart(replace(node, attributes={**node.attributes, "axes": tuple(sorted({*node.get("axes"), axis}))}))


@mixing("ConvInteger", "QLinearConv")
def conv_of_bytes(line: Timeline, node: Node) -> None:
    """As Conv; in front of step 0 stands the zero point, of which there is one for all steps."""
    track, zero, w = line.tracks.get(node.inputs[0]), node.input(2), 3 if node.op == "QLinearConv" else 1
    if track is None or track.axis < 2 or any(name in line.tracks for name in node.inputs[1:]):
        return line.apart(node)
    fill = line.weights.get(zero) if zero else np.zeros(1, np.uint8)
    if fill is None:
        raise refuse(node, "its zero point, which stands before the first step, is computed")
    return look_back(line, node, line.specs[node.inputs[w]].shape[2:], fill.reshape(-1)[0])


@mixing("CumSum")
def cum_sum(line: Timeline, node: Node) -> None:
    """The sum so far is kept; along another axis it keeps steps apart."""
    x, axis = line.align(node.inputs[0]), line.weights.get(node.inputs[1])
    track, spec = line.tracks[x], line.specs[x]
    if axis is None:
        raise refuse(node, "its axis is computed")
    if int(axis.reshape(())) % len(spec.shape) != track.axis:
        return line.add(replace(node, inputs=(x, node.inputs[1])), track)
    line.single(node, track)
    if node.get("reverse"):
        raise refuse(node, "reverse=1 needs the whole sequence")
    shape = tuple(1 if k == track.axis else d for k, d in enumerate(spec.shape))
    if any(isinstance(d, str) for d in shape):
        raise refuse(node, f"the shape of its sum, {shape}, is not known before it runs")
    name = line.state(f"{node.name}.sum", spec.dtype, shape)
    if not node.get("exclusive") and spec.dtype.startswith("float"):
        line.initial[name] = np.full((1,) * len(shape), -0.0, spec.dtype)  # to which anything adds up to itself, -0 included
    dims = [ANY_DIM if k == track.axis else d for k, d in enumerate(spec.shape)]
    full = line.put("Concat", f"{name}.full", name, x, shape=dims, axis=track.axis)
    sums = line.put("CumSum", f"{name}.sums", full, node.inputs[1], shape=dims)
    line.tie(name, line.cut(f"{name}.next", sums, track.axis, -1, OPEN_END, 1))
    first = 0 if node.get("exclusive") else 1
    bounds = [line.whole(f"{node.name}.{what}", n) for what, n in (("from", first), ("to", first - 1 or OPEN_END), ("axis", track.axis))]
    return line.add(Node("Slice", node.name, (sums, *bounds), node.outputs), track)


@mixing("ConvTranspose")
def conv_transpose(line: Timeline, node: Node) -> None:
    """Each step adds to the outputs from its own on: an output reads a history, and what lies past the last step has to be cut off."""
    x, track = node.inputs[0], line.tracks.get(node.inputs[0])
    if track is None or track.axis == 1 or any(name in line.tracks for name in node.inputs[1:]):
        raise refuse(node, "time is none of the axes along which it runs")
    if track.edge:
        x = line.align(x)
        track = line.tracks[x]
    if track.axis == 0:
        return line.add(replace(node, inputs=(x, *node.inputs[1:])), track)
    k, kernel = track.axis - 2, line.specs[node.inputs[1]].shape[2:]
    window = window_of(node, kernel, (1,) * len(kernel))
    if window.strides[k] != 1:
        raise refuse(node, f"its stride along time is {window.strides[k]}: a step makes more than one output")
    if node.get("auto_pad") not in ("NOTSET", "VALID") or node.get("output_shape") is not None:
        raise refuse(node, "auto_pad or output_shape decide what it cuts off along time")
    reach, extra = window.span(k) - 1, (node.get("output_padding") or [0] * len(kernel))
    if track.lead < window.before[k]:
        raise refuse(node, f"it looks {_steps(window.before[k] - track.lead)} ahead")
    full = line.history(node, x, reach) if reach else x
    pads = [reach if i == k else n for side in (window.before, window.after) for i, n in enumerate(side)]
    attributes = {**node.attributes, "pads": pads, "output_padding": [0 if i == k else n for i, n in enumerate(extra)]}
    line.add(
        replace(node, inputs=(full, *node.inputs[1:]), attributes=attributes),
        replace(track, lead=track.lead - window.before[k], tail=track.tail + reach - window.after[k] + extra[k]),
    )
    return None


@mixing("Pad")
def pad(line: Timeline, node: Node) -> None:
    """Entries in front of the first step, and behind the last; other axes as they are."""
    x, track, mode = node.inputs[0], line.tracks.get(node.inputs[0]), node.get("mode")
    pads, axes = line.weights.get(node.inputs[1]), line.weights.get(node.input(3))
    if pads is None or track is None or node.input(3) and axes is None:
        raise refuse(node, "how much it pads is computed")
    line.single(node, track)
    widths = pad_widths(node, len(line.specs[x].shape), pads, axes)
    before, after = widths[track.axis]
    if track.edge and before > 0 and mode == "constant":
        x = line.align(x)
        track = line.tracks[x]
    if mode in ("reflect", "wrap") and before > 0:
        raise refuse(node, f"mode {mode!r} puts later steps in front of the first")
    widths[track.axis] = 0, 0
    flat = line.whole(f"{node.name}.pads", *(b for b, _ in widths), *(a for _, a in widths))
    _drop(line, node, before, track)
    track = Track(track.axis, track.lead + before, track.tail + after, track.edge if track.lead > 0 else mode == "edge" and before > 0)
    line.add(replace(node, inputs=(x, flat, node.input(2))), track)


def _drop(line: Timeline, node: Node, before: int, track: Track) -> None:
    if track.lead + before < 0:
        raise refuse(node, f"it drops the first {_steps(-before)}: what follows looks {_steps(-before - track.lead)} ahead")


@mixing("Slice")
def slice_(line: Timeline, node: Node) -> None:
    """Entries cut off in front or behind."""
    x, track = node.inputs[0], line.tracks.get(node.inputs[0])
    bounds = [line.lengths.get(name, line.weights.get(name)) for name in node.inputs[1:]]
    if track is None or any(name and b is None for name, b in zip(node.inputs[1:], bounds)):
        raise refuse(node, "where it cuts is computed")
    starts, ends, axes, strides = [*bounds, None, None][:4]
    rank = len(line.specs[x].shape)
    axes = [axis_of(node, int(a), rank) for a in (range(len(starts)) if axes is None else axes)]
    strides = [1] * len(axes) if strides is None else [int(s) for s in strides]
    rest = [k for k, axis in enumerate(axes) if axis != track.axis]
    for k in range(len(axes)):
        if k not in rest:
            line.single(node, track)
            track = _cut(line, node, track, starts[k], ends[k], strides[k])
    if any(isinstance(b, Length) for k in rest for b in (starts[k], ends[k])):
        raise refuse(node, "it depends on the number of steps")
    kinds = (("from", starts), ("to", ends), ("axes", axes), ("by", strides))
    parts = [line.whole(f"{node.name}.{what}", *(whole(values[k]) for k in rest)) for what, values in kinds]
    line.add(replace(node, inputs=(x, *parts)), track)


def _cut(line: Timeline, node: Node, track: Track, start, end, stride: int) -> Track:
    """The track after [start:end] along time."""
    if stride != 1:
        raise refuse(node, f"it takes every {stride}th step" if stride > 1 else "it needs the whole sequence: it runs backwards")
    if isinstance(start, Length) or start < 0:
        raise refuse(node, "it reads from the end of the sequence")
    if isinstance(end, Length) and end.rows > 1:
        raise refuse(node, "it ends at the length of another sequence")
    if not isinstance(end, Length) and 0 <= end < OPEN_END:
        raise refuse(node, f"it ends at entry {int(end)} of the sequence")
    gone = max(0, track.lead + track.tail - end.more) if isinstance(end, Length) else int(-end) if end < 0 else 0
    _drop(line, node, -int(start), track)
    return replace(track, lead=track.lead - int(start), tail=track.tail - gone)


@mixing("Concat")
def concat(line: Timeline, node: Node) -> None:
    """Constants in front of a sequence, or behind it; along another axis it keeps steps apart."""
    timed = [k for k, name in enumerate(node.inputs) if name in line.tracks]
    track, x = line.tracks[node.inputs[timed[0]]], node.inputs[timed[0]]
    if node.get("axis") % len(line.specs[x].shape) != track.axis:
        return line.apart(node)
    line.single(node, track)
    if len(timed) > 1:
        raise refuse(node, "it joins sequences one behind the other")
    for name in node.inputs:
        if name != x and not line.constant(name):
            raise refuse(
                node, f"it joins {name!r} to a sequence, and that is no constant; a history is kept for convolutions, or with one call a step"
            )
    sizes = [0 if name == x else whole(line.specs[name].shape[track.axis]) for name in node.inputs]
    before, after = sum(sizes[: timed[0]]), sum(sizes[timed[0] :])
    if track.edge and before:
        x = line.align(x)
        track = line.tracks[x]
    line.add(Node("Identity", node.name, (x,), node.outputs), replace(track, lead=track.lead + before, tail=track.tail + after))


@mixing(*RECURRENT)
def recurrent(line: Timeline, node: Node) -> None:
    """Its states become inputs and outputs; one whose batch is time starts afresh at each step."""
    track = line.tracks.get(node.inputs[0])
    if track is not None and track.axis == 1 - node.get("layout"):
        _apart_rows(line, node, track)
        return
    others = [k for k, name in enumerate(node.inputs) if k and name in line.tracks]
    if track is None or track.axis == 2 or any(k not in STEPWISE or line.tracks[node.inputs[k]].axis != track.axis for k in others):
        raise refuse(node, "time is not its time axis")
    if node.get("direction") != "forward":
        raise refuse(node, f"direction={node.get('direction')!r} needs the whole sequence")
    if input_of(node, "sequence_lens"):
        raise refuse(node, "it takes sequence_lens")
    line.single(node, track)
    x = line.align(node.inputs[0])
    track = line.tracks[x]
    node = replace(node, inputs=(x, *(line.align(name) if k in others else name for k, name in enumerate(node.inputs[1:], 1))))
    if any(line.tracks[node.inputs[k]] != track for k in others):
        raise refuse(node, "it joins sequences of different lengths")
    if track.tail and any(node.outputs[1:]):
        raise refuse(
            node, f"it runs {abs(track.tail)} entries {'past the last step' if track.tail > 0 else 'less than the steps'}, and its last state is read"
        )
    _expose(line, node, track)


def _apart_rows(line: Timeline, node: Node, track: Track) -> None:
    """A recurrent node along another axis, the steps among its rows, and where each starts from."""
    first = [s.input for s in states_of(node)]
    starts = [line.tracks.get(node.input(k)) for k in first if node.input(k)]
    rows = 0 if node.get("layout") and not node.get("torch_form") else 1
    others = [name for k, name in enumerate(node.inputs) if k not in (0, *first)]
    if input_of(node, "sequence_lens") or any(name in line.tracks for name in others) or any(t is None or t.axis != rows for t in starts):
        raise refuse(node, "time is not its time axis")
    if any(replace(t, axis=0) != replace(track, axis=0) for t in starts):
        raise refuse(node, "it joins sequences of different lengths")
    results = infer_node(node, [line.specs.get(name) if name else None for name in node.inputs])
    line.add(node)
    line.tracks |= {name: replace(track, axis=r.shape.index(line.size(track))) for r, name in zip(results, node.outputs) if name}


def _expose(line: Timeline, node: Node, track: Track) -> None:
    """An input and an output for every state that the node keeps inside or starts from a constant."""
    node_inputs = [*node.inputs, *[""] * (OPS[node.op].inputs[1] - len(node.inputs))]
    node_outputs = [*node.outputs, *[""] * (OPS[node.op].outputs - len(node.outputs))]
    results = OPS[node.op].infer(node, [line.specs.get(n) if n else None for n in node.inputs])
    for letter, position, output in states_of(node):
        source = line.source(node_inputs[position])
        if source in line.tied:
            continue
        if source and not line.constant(source):
            raise refuse(node, f"initial_{letter} comes from {source!r}, which is not a state; tie it with states=")
        name = line.state(f"{node.name}.{letter}", "float32", results[output].shape, history=False)
        if source:
            line.initial[name] = line.weights[source] if source in line.weights else line.before(node, source)
        node_inputs[position] = name
        following = node_outputs[output] = node_outputs[output] or f"{name}.next"
        if following not in line.outputs:
            line.outputs.append(following)
        line.states.append(State(name, following))
    line.add(replace(node, inputs=tuple(node_inputs), outputs=tuple(node_outputs)))
    line.tracks[node.outputs[0]] = replace(track, axis=results[0].shape.index(line.time))


def _steps(n: int) -> str:
    return f"{n} step{'s' * (n > 1)}"


def _window(node: Node, kernel, sizes, time: int) -> Window:
    """The window with SAME padding resolved along time, where it does not depend on the length but for strides."""
    window = window_of(node, kernel, sizes)
    if node.get("auto_pad") not in ("SAME_UPPER", "SAME_LOWER") or window.strides[time] != 1:
        return window
    total = window.span(time) - 1
    less, more = total // 2, total - total // 2
    before, after = list(window.before), list(window.after)
    before[time], after[time] = (more, less) if node.get("auto_pad") == "SAME_LOWER" else (less, more)
    return replace(window, before=tuple(before), after=tuple(after))
