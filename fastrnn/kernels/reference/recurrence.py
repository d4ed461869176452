"""The naive time loop: any cell from its specification, in float64 or float32. The oracle of every compiled kernel."""

from __future__ import annotations

import numpy as np

from fastrnn.cells import Cell
from fastrnn.cells.spec import RAW_INPUT
from fastrnn.model import Node
from fastrnn.model.ops import meaning
from fastrnn.model.recurrent import INPUTS, RECURRENT, DirectionWeights, RecurrentNode, operand_bits
from fastrnn.model.small import BYTES_OF_ALL, UNBOUNDED, product, range_of


def step(
    cell: Cell, w: DirectionWeights, x: np.ndarray, states: list[np.ndarray], scalars: np.ndarray, x_bits: int = UNBOUNDED, within=None
) -> list[np.ndarray]:
    """New states from x (B, I), states [(B, P), (B, H)...] and scalars (B, n), in the dtype of x. x_bits: of int8 weights, what x is rounded to, within which range."""
    h, bits = states[0], operand_bits(cell, w.w_p is not None, x_bits)
    bias_x, bias_h = dict(zip(cell.x_gates, w.b_x, strict=True)), dict(zip(cell.h_gates, w.b_h, strict=True))
    scale_x, scale_h = dict(zip(cell.x_gates, w.s_x or ())), dict(zip(cell.h_gates, w.s_h or ()))
    zero_x, zero_h = dict(zip(cell.x_gates, w.z_x or ())), dict(zip(cell.h_gates, w.z_h or ()))
    # from the sum of both biases on, then what is over x, then what is over h: as the kernels do
    over_x, recurrent = dict(zip(cell.x_gates, w.w_x, strict=True)), dict(zip(cell.h_gates, w.w_h, strict=True))
    values = {g.name: bias_x.get(g.name, 0) + bias_h.get(g.name, 0) for g in cell.gates}
    for gate, matrix in over_x.items():
        values[gate] = product(x, matrix, scale_x.get(gate), x_bits, values[gate], zero_x.get(gate), within)
    for gate in cell.first_gates:
        values[gate] = product(h, recurrent[gate], scale_h.get(gate), bits.h, values[gate], zero_h.get(gate))
    values |= (
        dict(zip(cell.states, states))
        | dict(zip(cell.parameters, w.parameters))
        | {name: scalars[:, k : k + 1] for k, name in enumerate(cell.scalars)}
    )
    values |= {RAW_INPUT: x}
    if cell.operand:
        operand = cell.second_operand(values)
        for gate in cell.second_gates:
            values[gate] = product(operand, recurrent[gate], scale_h.get(gate), bits.h, values[gate], zero_h.get(gate))
    new = list(cell.new_states(values))
    if w.w_p is not None:
        new[0] = product(new[0], w.w_p, w.s_p, bits.p, np.zeros((), x.dtype))
    return new


def run(
    cell: Cell,
    w: DirectionWeights,
    x: np.ndarray,
    states: list[np.ndarray | None],
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    scalars: np.ndarray | None = None,
    x_bits: int = UNBOUNDED,
    keep: np.ndarray | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """y (T, B, P) and the final states, from x (T, B, I) and a cell's scalars (T, B, n); None as a state means zeros. keep (T, B): what states are multiplied by
    on their way into a step, in reverse from the step after it in time; of those multiplied by 0 nothing is left. Computes in the dtype of x."""
    T, B, _ = x.shape
    w = w.astype(x.dtype)
    H = w.hidden_size
    P = H if w.projected is None else w.projected
    states = [np.zeros((B, P if k == 0 else H), x.dtype) if s is None else s.astype(x.dtype) for k, s in enumerate(states)]
    scalars = np.zeros((T, B, 0), x.dtype) if scalars is None else scalars.astype(x.dtype)
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    y = np.zeros((T, B, P), x.dtype)
    within = range_of(x[np.arange(T)[:, None] < lengths]) if x_bits == BYTES_OF_ALL else None
    for t in range(T):
        rows = np.flatnonzero(lengths > t)
        if not rows.size:
            break
        at = lengths[rows] - 1 - t if reverse else np.full(rows.size, t)
        before = [s[rows] for s in states]
        if keep is not None and (t or not reverse):
            factor = keep[at + reverse, rows][:, None].astype(x.dtype)
            before = [np.where(factor == 0, 0, factor * s) for s in before]
        new = step(cell, w, x[at, rows], before, scalars[at, rows], x_bits, within)
        for state, value in zip(states, new, strict=True):
            state[rows] = value
        y[at, rows] = new[0]
    return y, states


@meaning(*RECURRENT)
def recurrent(node: Node, inputs: list):
    """All directions of one layer; computes in the dtype of X."""
    weights = dict(zip(node.inputs, inputs))
    layer = RecurrentNode(node, lambda name: weights[name])
    x, lengths = inputs[0], layer.array("sequence_lens")
    states = [layer.array(INPUTS[s.input]) for s in layer.states]
    timed = [x, layer.array("scalars"), layer.array("keep")]
    x, scalars, keep = [a if a is None or not layer.batch_first else np.swapaxes(a, 0, 1) for a in timed]
    states = [s if s is None else np.moveaxis(s, layer.direction_axis, 0) for s in states]
    done = [
        run(cell, layer.weights(d), x, [None if s is None else s[d] for s in states], lengths, layer.reverse(d), scalars, layer.x_bits, keep)
        for d, cell in enumerate(layer.cells)
    ]
    y, finals = np.stack([y for y, _ in done], axis=1), [np.stack(s) for s in zip(*(s for _, s in done))]
    T, D, B, P = y.shape
    if layer.torch_form:
        y = y.transpose(0, 2, 1, 3).reshape(T, B, D * P)
        y = np.swapaxes(y, 0, 1) if layer.batch_first else y
    elif layer.batch_first:
        y = y.transpose(2, 0, 1, 3)
    return [y, *(np.moveaxis(s, 0, layer.direction_axis) for s in finals)]
