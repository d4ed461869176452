"""RNN, LSTM and GRU: a kernel call for each direction, and for each part of the batch where that is split over threads."""

from __future__ import annotations

from dataclasses import dataclass

from fastrnn.cells import Cell
from fastrnn.model import Node
from fastrnn.model.recurrent import WEIGHT_INPUTS, RecurrentNode
from fastrnn.plan import parallel, policy
from fastrnn.plan.emit import emits, new_args, set_activation
from fastrnn.plan.fold import RECURRENT
from fastrnn.plan.memory import View
from fastrnn.plan.pack import Packed


# The weights and peepholes of a recurrent node must be constant: it never drops to NumPy unasked, packing says so by name.
def _refused(node: Node, specs, constants) -> str | None:
    known = all(not node.input(k) or node.input(k) in constants for k in WEIGHT_INPUTS)
    return None if known else "its weights are not known before it runs"


@dataclass(frozen=True)
class Places:
    """Where a layer's rows lie: x and y by time and batch, its states by direction; and how far apart."""

    T: int
    B: int
    x: View
    y: View
    x_strides: tuple[int, int]  # of time and batch
    y_strides: tuple[int, int]
    y_direction: int
    states: dict[str, View | None]  # h0, c0, hn, cn
    direction_axis: int

    def of_direction(self, d: int) -> dict[str, tuple[View | None, int]]:
        """x, y, h0, c0, hn and cn of a direction, each with the stride of its rows."""
        found: dict[str, tuple[View | None, int]] = {"x": (self.x, self.x_strides[1]), "y": (self.y.shifted(d * self.y_direction), self.y_strides[1])}
        for name, view in self.states.items():
            found[name] = (None, 0) if view is None else (view.shifted(d * view.strides[self.direction_axis]), view.strides[1 - self.direction_axis])
        return found


@emits(*RECURRENT, kernel=lambda node, specs: node.op.lower(), refused=_refused, packs=True)
def recurrent(build, node):
    """All directions write their parts of Y, Y_h and Y_c in place."""
    layer, packed = RecurrentNode(node, build.weights.get), build.packed(node)
    x, y = build.rows(layer.name("X")), build.place(node.output(0), build.infer_output(node, 0))
    finals = [build.place(node.outputs[k], build.infer_output(node, k)) if node.output(k) else None for k in (1, 2)]
    made = [None if view is None else build.unit_stride(view) for view in (y, *finals)]
    initials = [build.rows(layer.name(which)) if layer.name(which) else None for which in ("initial_h", "initial_c")]
    time, batch = (1, 0) if layer.batch_first else (0, 1)
    y_batch = made[0].strides[0 if layer.batch_first else -2]
    y_direction = build.specs[layer.name("R")].shape[2] if layer.torch_form else made[0].strides[2 if layer.batch_first else 1]
    places = Places(x.shape[time], x.shape[batch], x, made[0], (x.strides[time], x.strides[batch]), (made[0].strides[time], y_batch), y_direction,
                    dict(zip(("h0", "c0", "hn", "cn"), (*initials, *made[1:]))), layer.direction_axis)
    shared = parallel.share_of_layer(build.plan.threads, packed, places.T, places.B)
    sorted_lengths = build.sorted_lengths(node, layer.name("sequence_lens"), places.T, shared.rows)
    with build.at_once(shared.directions * shared.rows > 1):
        for d, cell in enumerate(layer.cells):
            _direction(build, layer, d, cell, packed[d], places, shared, sorted_lengths)
    for done, wanted in zip(made, (y, *finals)):
        if done is not wanted:
            build.copy(node.name, done, wanted)


def _direction(build, layer: RecurrentNode, d: int, cell: Cell, packed: Packed, places: Places, shared: parallel.Share, sorted_lengths) -> None:
    """The calls of one direction, a call for each part of its rows."""
    P, input_size, rows = build.specs[layer.name("R")].shape[2], places.x.shape[2], -(-places.B // shared.rows)
    hoisted = policy.chunk(places.T, rows, input_size)
    args = new_args(T=places.T, I=input_size, H=packed.units, P=P, x_t=places.x_strides[0], x_b=places.x_strides[1], y_t=places.y_strides[0], y_b=places.y_strides[1],
                    reverse=int(layer.reverse(d)), input_forget=int(cell.input_forget), chunk=hoisted, parts=shared.units,
                    ahead=int(policy.ahead(packed.kernel, places.T, rows, hoisted, input_size, *(packed.arrays[name].nbytes // shared.units for name in ("w_x", "w_h")))))
    if cell.clip is not None:
        args["clip"] = cell.clip
    for k, activation in enumerate(cell.activations):
        set_activation(args, k, activation)
    by_row = places.of_direction(d)
    if by_row["h0"][0] is None:
        by_row["h0"] = build.zeros(P), 0
    if "c" in cell.states and by_row["cn"][0] is None:
        by_row["cn"] = build.scratch((places.B, packed.units)), packed.units
    for name in ("h0", "c0", "hn", "cn"):
        args[f"{name}_b"] = by_row[name][1]
    for start, count in shared.row_ranges(places.B):
        args["B"] = count
        if sorted_lengths:  # rows go by their order
            pointers = {name: view for name, (view, _) in by_row.items()} | dict(zip(("lengths", "order"), (v.shifted(start) for v in sorted_lengths)))
        else:
            pointers = {name: None if view is None else view.shifted(start * stride) for name, (view, stride) in by_row.items()}
        build.call(layer.node.name, packed.kernel, args, {**pointers, **packed.views}, flops=2.0 * places.T * count * packed.weight_bytes / 4,
                   weight_bytes=packed.weight_bytes)
