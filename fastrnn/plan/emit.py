"""One function an op: a node becomes kernel calls over views. Ops that are not here, or that an emitter refuses, run through NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fastrnn.kernels.contract import ARGS
from fastrnn.model import Node
from fastrnn.model.ops import Spec
from fastrnn.model.recurrent import RecurrentNode
from fastrnn.plan import parallel, policy
from fastrnn.plan.fold import RECURRENT


@dataclass(frozen=True)
class Emitter:
    """run: (build.Builder, node) -> kernel calls. kernel: (node, specs) -> the kernel's name. packs: weights are packed when the model is compiled.

    refused: (node, specs, constants) -> why NumPy has to run it, or None.
    """

    run: Callable
    kernel: Callable[[Node, Mapping[str, Spec]], str]
    refused: Callable[[Node, Mapping[str, Spec], Mapping[str, np.ndarray]], str | None]
    packs: bool = False

    def choose(self, node: Node, specs, constants, backend: str) -> policy.Choice:
        """The kernel for a node, or NumPy and why."""
        if backend != "reference" and (why := self.refused(node, specs, constants)) is not None:
            return policy.Choice(None, why)
        return policy.pick(self.kernel(node, specs), backend)


EMIT: dict[str, Emitter] = {}


def only_float32(node: Node, specs, constants) -> str | None:
    """Kernels of arithmetic are for float32."""
    others = {specs[name].dtype for name in node.inputs if name and name in specs} - {"float32", ""}
    return f"no kernel for {', '.join(sorted(others))}" if others else None


def constant_but_first(what: str):
    """A refusal unless all inputs but the first are constants; the first, and whatever else is no integer, must be float32."""

    def refused(node: Node, specs, constants) -> str | None:
        if any(name and name not in constants for name in node.inputs[1:]):
            return f"no kernel for computed {what}"
        numbers = tuple(name for name in node.inputs[1:] if name and not specs[name].dtype.startswith("int"))
        return only_float32(replace(node, inputs=(node.inputs[0], *numbers)), specs, constants)

    return refused


def emits(*names: str, kernel: Callable | str, refused=only_float32, packs: bool = False):
    """Registers (build, node) under op names."""

    def register(function):
        for name in names:
            EMIT[name] = Emitter(function, kernel if callable(kernel) else lambda node, specs, name=kernel: name, refused, packs)
        return function

    return register


def new_args(**fields) -> np.ndarray:
    """A zeroed argument record with some fields set."""
    args = np.zeros((), ARGS)
    args["clip"], args["scale"] = np.inf, 1.0
    for name, value in fields.items():
        args[name] = value
    return args


def set_activation(args, position: int, activation) -> None:
    """Writes an activation into f, g or h of the arguments."""
    args["act"][position] = (activation.code, activation.alpha, activation.beta)


# The weights and peepholes of a recurrent node must be constant: it never drops to NumPy unasked, packing says so by name.
def _recurrent_refused(node: Node, specs, constants) -> str | None:
    known = all(not node.input(k) or node.input(k) in constants for k in (1, 2, 3, 7, 8))
    return None if known else "its weights are not known before it runs"


@emits(*RECURRENT, kernel=lambda node, specs: node.op.lower(), refused=_recurrent_refused, packs=True)
def recurrent(build, node):
    """A kernel call a direction; both write their halves of Y, Y_h and Y_c in place."""
    layer = RecurrentNode(node, build.weights.get)
    x, names = build.rows(layer.name("X")), node.outputs
    P = build.specs[layer.name("R")].shape[2]
    y = build.place(node.output(0), build.infer_output(node, 0))
    target = build.unit_stride(y)
    if layer.batch_first:
        (B, T), (x_b, x_t), (y_b, y_t) = x.shape[:2], x.strides[:2], target.strides[:2]
    else:
        (T, B), (x_t, x_b), (y_t, y_b) = x.shape[:2], x.strides[:2], (target.strides[0], target.strides[-2])
    y_direction = P if layer.torch_form else target.strides[2 if layer.batch_first else 1]
    finals = [build.place(names[k], build.infer_output(node, k)) if k < len(names) and names[k] else None for k in (1, 2)]
    given = finals
    finals = [None if s is None else build.unit_stride(s) for s in finals]
    initials = [build.rows(layer.name(which)) if layer.name(which) else None for which in ("initial_h", "initial_c")]
    packed_directions = build.packed(node)
    weight_bytes = packed_directions[0].weight_bytes
    flops = 2.0 * T * B * weight_bytes / 4
    shared = parallel.share(build.plan.threads, len(layer.cells), T, B, flops, weight_bytes, packed_directions[0].kernel.backend == "native")
    sorted_lengths = build.sorted_lengths(node, layer.name("sequence_lens"), T, shared.rows)

    def rows(view, d):
        """One direction's (B, n) of a state, and its row stride."""
        if view is None:
            return None, 0
        axis = layer.direction_axis
        return view.shifted(d * view.strides[axis]), view.strides[1 - axis]

    first_call = len(build.steps)
    for d, (cell, packed) in enumerate(zip(layer.cells, packed_directions)):
        H, hoisted = packed.units, policy.chunk(T, -(-B // shared.rows), x.shape[2])
        args = new_args(T=T, I=x.shape[2], H=H, P=P, x_t=x_t, x_b=x_b, y_t=y_t, y_b=y_b, reverse=int(layer.reverse(d)), input_forget=int(cell.input_forget),
                        chunk=hoisted, ahead=int(policy.ahead(packed.kernel, -(-B // shared.rows), hoisted, packed.arrays["w_x"].nbytes // shared.units)), parts=shared.units)
        if cell.clip is not None:
            args["clip"] = cell.clip
        for k, activation in enumerate(cell.activations):
            set_activation(args, k, activation)
        (h0, args["h0_b"]), (c0, args["c0_b"]) = rows(initials[0], d), rows(initials[1], d)
        (hn, args["hn_b"]), (cn, args["cn_b"]) = rows(finals[0], d), rows(finals[1], d)
        if h0 is None:
            h0 = build.zeros(P)
        if "c" in cell.states and cn is None:
            cn, args["cn_b"] = build.scratch((B, H)), H
        by_row = {"x": (x, x_b), "y": (target.shifted(d * y_direction), y_b), "h0": (h0, args["h0_b"]), "c0": (c0, args["c0_b"]),
                  "hn": (hn, args["hn_b"]), "cn": (cn, args["cn_b"])}
        for start, count in shared.row_ranges(B):
            args["B"] = count
            if sorted_lengths:  # rows go by their order
                pointers = {name: view for name, (view, _) in by_row.items()} | dict(zip(("lengths", "order"), (v.shifted(start) for v in sorted_lengths)))
            else:
                pointers = {name: None if view is None else view.shifted(start * int(stride)) for name, (view, stride) in by_row.items()}
            share = count / B if B else 1.0
            build.call(node.name, packed.kernel, args, {**pointers, **packed.views}, flops=flops * share, weight_bytes=packed.weight_bytes)
    if build.plan.threads > 1 and flops / policy.FLOPS_PER_NS >= parallel.WORTH_NS:
        build.steps[first_call:] = parallel.at_once(build.steps[first_call:])
    for made, wanted in ((target, y), *zip(finals, given)):
        if made is not wanted:
            build.copy(node.name, made, wanted)
