"""One function an op: a node becomes kernel calls over views. Ops that are not here run through NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastrnn.kernels.contract import ARGS
from fastrnn.kernels.reference.ops import UNARY_KINDS, unary_activation
from fastrnn.model.recurrent import RecurrentNode
from fastrnn.plan import policy
from fastrnn.plan.memory import grid

EMIT = {}


def emits(*names: str):
    """Registers (build, node) under op names; build is a build.Builder."""

    def register(function):
        for name in names:
            EMIT[name] = function
        return function

    return register


def new_args(**fields) -> np.ndarray:
    """A zeroed argument record with some fields set."""
    args = np.zeros((), ARGS)
    args["clip"] = np.inf
    for name, value in fields.items():
        args[name] = value
    return args


def set_activation(args, position: int, activation) -> None:
    """Writes an activation into f, g or h of the arguments."""
    args["act"][position] = (activation.code, activation.alpha, activation.beta)


@emits("RNN", "GRU", "LSTM")
def recurrent(build, node):
    """A kernel call a direction; both write their halves of Y, Y_h and Y_c in place."""
    layer = RecurrentNode(node, lambda name: build.model.weights.get(name))
    x, names = build.views[layer.name("X")], node.outputs
    P = build.specs[layer.name("R")].shape[2]
    y = build.place(node.output(0), build.infer_output(node, 0))
    if layer.batch_first:
        (B, T), (x_b, x_t), (y_b, y_t) = x.shape[:2], x.strides[:2], y.strides[:2]
    else:
        (T, B), (x_t, x_b), (y_t, y_b) = x.shape[:2], x.strides[:2], (y.strides[0], y.strides[-2])
    y_direction = P if layer.torch_form else y.strides[2 if layer.batch_first else 1]
    finals = [build.place(names[k], build.infer_output(node, k)) if k < len(names) and names[k] else None for k in (1, 2)]
    initials = [build.views.get(layer.name(which)) for which in ("initial_h", "initial_c")]
    sorted_lengths = build.sorted_lengths(node, layer.name("sequence_lens"), T)

    def rows(view, d):
        """One direction's (B, n) of a state, and its row stride."""
        if view is None:
            return None, 0
        axis = layer.direction_axis
        return view.shifted(d * view.strides[axis]), view.strides[1 - axis]

    for d, cell in enumerate(layer.cells):
        packed = build.packed[node.name, d]
        H = packed.units
        args = new_args(T=T, B=B, I=x.shape[2], H=H, P=P, x_t=x_t, x_b=x_b, y_t=y_t, y_b=y_b, reverse=int(layer.reverse(d)),
                        input_forget=int(cell.input_forget), chunk=policy.chunk(T, B, x.shape[2]))
        if cell.clip is not None:
            args["clip"] = cell.clip
        for k, activation in enumerate(cell.activations):
            set_activation(args, k, activation)
        pointers = {"x": x, "y": y.shifted(d * y_direction), **packed.views}
        (h0, args["h0_b"]), (c0, args["c0_b"]) = rows(initials[0], d), rows(initials[1], d)
        (hn, args["hn_b"]), (cn, args["cn_b"]) = rows(finals[0], d), rows(finals[1], d)
        if h0 is None:
            h0 = build.zeros()
        if "c" in cell.states and cn is None:
            cn, args["cn_b"] = build.scratch((B, H)), H
        pointers |= {"h0": h0, "c0": c0, "hn": hn, "cn": cn}
        if sorted_lengths:
            pointers |= {"lengths": sorted_lengths[0], "order": sorted_lengths[1]}
        build.call(node, packed.kernel, args, pointers, flops=2.0 * T * B * (packed.weight_bytes / 4), weight_bytes=packed.weight_bytes)


@emits("Gemm")
def gemm(build, node):
    """A dense layer over the rows of A."""
    packed, a = build.packed[node.name, 0], build.views[node.inputs[0]]
    y = build.place(node.outputs[0], build.infer_output(node, 0))
    T, B, (x_t, x_b), (y_t, y_b) = grid(1, a, y)
    args = new_args(T=T, B=B, I=a.shape[-1], H=y.shape[-1], x_t=x_t, x_b=x_b, y_t=y_t, y_b=y_b)
    build.call(node, packed.kernel, args, {"x": a, "y": y, **packed.views}, flops=2.0 * T * B * packed.weight_bytes / 4, weight_bytes=packed.weight_bytes)


@emits("Gather")
def gather(build, node):
    """Rows of an embedding table; indices come straight from an input, whose range is checked at the door."""
    packed, table = build.packed[node.name, 0], build.model.weights[node.inputs[0]]
    index = build.limit(node, node.inputs[1], 0, len(table) - 1)
    y = build.place(node.outputs[0], build.infer_output(node, 0))
    T, B, (x_t, x_b), (y_t, y_b) = grid(0, index, replace(y, shape=y.shape[:-1], strides=y.strides[:-1]))
    args = new_args(T=T, B=B, I=len(table), H=table.shape[1], x_t=x_t, x_b=x_b, y_t=y_t, y_b=y_b)
    build.call(node, packed.kernel, args, {"x": index, "y": y, **packed.views}, flops=0.0, weight_bytes=4.0 * T * B * table.shape[1])


@emits(*(name for name in UNARY_KINDS if name != "Identity"))
def unary(build, node):
    """An activation over rows."""
    build.elementwise(node, build.views[node.inputs[0]], build.place(node.outputs[0], build.infer_output(node, 0)), unary_activation(node))
