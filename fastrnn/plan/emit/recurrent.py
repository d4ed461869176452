"""RNN, LSTM, GRU and custom cells: a kernel call for each direction, and for each part of the batch where that is split over threads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastrnn.cells import Cell
from fastrnn.model.recurrent import RECURRENT, RecurrentNode, operand_bits
from fastrnn.model.sizes import Whole
from fastrnn.model.small import BYTES_OF_ALL
from fastrnn.plan import policy
from fastrnn.plan.emit.emitter import emits, new_args, set_activation
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.memory import View, weight_view
from fastrnn.plan.weights.packed import Packed


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
    states: dict[str, View | None]  # by the contract's fields
    direction_axis: int
    scalars: View | None = None
    keep: View | None = None

    def of_direction(self, d: int) -> dict[str, tuple[View | None, int]]:
        """Every operand of a direction by the contract's fields, each with the stride of its rows."""
        found: dict[str, tuple[View | None, int]] = {"x": (self.x, self.x_strides[1]), "y": (self.y.shifted(d * self.y_direction), self.y_strides[1])}
        for name, view in self.states.items():
            found[name] = (None, 0) if view is None else (view.shifted(d * view.strides[self.direction_axis]), view.strides[1 - self.direction_axis])
        if self.scalars is not None:
            found["x2"] = self.scalars, self.scalars.strides[1]
        if self.keep is not None:
            found["keep"] = self.keep, self.keep.strides[1]
        return found


# The contract's fields of each state, first and last rows. Those from the third state on have no strides of their own.
STATE_FIELDS = (("h0", "hn"), ("c0", "cn"), ("x3", "x4"), ("x5", "x6"), ("x7", "x8"))


@emits(*RECURRENT, refused=lambda node, specs, constants: None, packs=True)  # it never drops to NumPy unasked
def recurrent(build, node):
    """All directions write their parts of Y and of the final states in place."""
    layer, packed = RecurrentNode(node, build.weights.get), build.packed(node)
    x, y = build.rows(layer.name("X")), build.place(node.output(0), build.infer_output(node, 0))
    finals = [build.place(node.output(s.output), build.infer_output(node, s.output)) if node.output(s.output) else None for s in layer.states]
    made = [None if view is None else build.unit_stride(view) for view in (y, *finals)]
    initials = [_initial(build, node.input(s.input)) if node.input(s.input) else None for s in layer.states]
    for k in range(2, len(layer.states)):
        initials[k] = None if initials[k] is None else build.contiguous(initials[k])
        made[1 + k] = made[1 + k] if made[1 + k] is None or made[1 + k].contiguous else build.scratch(made[1 + k].shape)
    time, batch = (1, 0) if layer.batch_first else (0, 1)
    scalars = build.rows(layer.name("scalars")) if layer.name("scalars") else None
    keep = build.contiguous(build.views[layer.name("keep")]) if layer.name("keep") else None
    y_batch = made[0].strides[0 if layer.batch_first else -2]
    y_direction = made[0].shape[-1] // layer.directions if layer.torch_form else made[0].strides[2 if layer.batch_first else 1]
    states = {name: view for pair, views in zip(STATE_FIELDS, zip(initials, made[1:])) for name, view in zip(pair, views)}
    places = Places(x.shape[time], x.shape[batch], x, made[0], (x.strides[time], x.strides[batch]), (made[0].strides[time], y_batch), y_direction, states,
                    layer.direction_axis, scalars.transposed((1, 0, 2)) if scalars is not None and layer.batch_first else scalars,
                    keep.transposed((1, 0)) if keep is not None and layer.batch_first else keep)  # fmt: skip
    # rows that are rounded together are not shared out
    shared = parallel.share_of_layer(build.plan.threads, packed, places.T, 1 if layer.x_bits == BYTES_OF_ALL else places.B)
    sorted_lengths = build.sorted_lengths(node, layer.name("sequence_lens"), places.T, shared.rows)
    first = len(build.steps)
    with build.at_once(shared.directions * shared.rows > 1):
        for d, cell in enumerate(layer.cells):
            _direction(build, layer, d, cell, packed[d], places, shared, sorted_lengths)
    if shared.directions * shared.rows * shared.units == 1 and policy.in_turn([p.kernel for p in packed], places.B, packed[0].units):
        build.steps[first] = replace(build.steps[first], in_turn=True)
    for done, wanted in zip(made, (y, *finals)):
        if done is not wanted:
            build.copy(node.name, done, wanted)


def _initial(build, name: str) -> View:
    """The rows of an initial state; of one number everywhere, one row for all."""
    view = build.views[name]
    if view.space == "weight" and view.array.size == 1 and view.array.dtype == np.float32:
        row = weight_view(np.full(view.shape[-1], view.array.reshape(())[()], np.float32))
        return row.broadcast(view.shape)
    return build.rows(view)


def _direction(build, layer: RecurrentNode, d: int, cell: Cell, packed: Packed, places: Places, shared: parallel.Share, sorted_lengths) -> None:
    """The calls of one direction, a call for each part of its rows."""
    P, input_size, rows = places.y.shape[-1] // (layer.directions if layer.torch_form else 1), places.x.shape[2], -(-places.B // shared.rows)
    apart = cell.x_gates != cell.first_gates
    x_bytes = packed.arrays["w_x"].nbytes if "w_x" in packed.arrays else 0
    hoisted = policy.chunk(packed.kernel, places.T, rows, input_size, P, apart, x_bytes, packed.precision == "int8") if cell.x_gates else 0
    bits = operand_bits(cell, "w_p" in packed.arrays, layer.x_bits)
    args = new_args(
        T=places.T,
        I=input_size,
        H=packed.units,
        P=P,
        x_t=places.x_strides[0],
        x_b=places.x_strides[1],
        y_t=places.y_strides[0],
        y_b=places.y_strides[1],
        reverse=int(layer.reverse(d)),
        input_forget=int(cell.input_forget),
        chunk=hoisted,
        parts=shared.units,
        weights=packed.weights_code,
        far=int(packed.far),
        x_bits=layer.x_bits,
        h_bits=bits.h,
        p_bits=bits.p,
        ahead=_ahead(packed, places.T, rows, hoisted, input_size, shared.units),
    )
    if cell.clip is not None:
        args["clip"] = cell.clip
    for k, activation in enumerate(cell.activations):
        set_activation(args, k, activation)
    if places.scalars is not None:
        args["x2_t"], args["x2_b"] = places.scalars.strides[:2]
    if places.keep is not None:
        args["keep_t"], args["keep_b"] = places.keep.strides
    by_row = places.of_direction(d)
    if by_row["h0"][0] is None:
        by_row["h0"] = build.zeros(P), 0
    for _, final in STATE_FIELDS[1 : len(cell.states)]:
        if by_row[final][0] is None:
            by_row[final] = build.scratch((places.B, packed.units)), packed.units
    for name in ("h0", "c0", "hn", "cn"):
        if name in by_row:
            args[f"{name}_b"] = by_row[name][1]
    for start, count in shared.row_ranges(places.B):
        args["B"] = count
        if sorted_lengths:  # rows go by their order
            pointers = {name: view for name, (view, _) in by_row.items()} | dict(
                zip(("lengths", "order"), (v.shifted(start) for v in sorted_lengths))
            )
        else:
            pointers = {name: None if view is None else view.shifted(start * stride) for name, (view, stride) in by_row.items()}
        build.call(
            layer.node.name,
            packed.kernel,
            args,
            {**pointers, **packed.views},
            flops=places.T * count * (2 * packed.multiplies),
            weight_bytes=packed.weight_bytes,
        )


def _ahead(packed: Packed, T: Whole, rows: Whole, hoisted: Whole, input_size: int, parts: int) -> Whole:
    """1 where projections of later steps are computed beside the steps, else 0."""
    if "w_x" not in packed.arrays or "w_h" not in packed.arrays or packed.far:
        return 0
    return policy.ahead(packed.kernel, T, rows, hoisted, input_size, *(packed.arrays[name].nbytes // parts for name in ("w_x", "w_h")))
