"""A recurrent node with its optional inputs, directions, layout and options resolved, for all four ops in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastrnn.cells import Cell, find_cell, gru, lstm, rnn
from fastrnn.cells.activations import WITHIN_ONE, WITHIN_UNIT
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.cells.gate_order import gate_blocks, peephole_blocks
from fastrnn.model.graph import Node
from fastrnn.model.small import BOUNDED, PRECISION_OF, UNBOUNDED, restored

RECURRENT = ("RNN", "GRU", "LSTM", "Recurrent")
# Of all four ops; scales are of int8 weights; keep has X's first two axes: what a row's states are multiplied by on their way into a step; RNN and GRU end with the first state, LSTM with the projection. P: peepholes, or a custom cell's parameters.
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_0", "initial_1", "P", "projection", "scalars", "initial_2", "initial_3", "initial_4",
          "W_scale", "R_scale", "projection_scale", "W_zero", "R_zero", "keep")  # fmt: skip
WEIGHT_INPUTS = tuple(
    INPUTS.index(name) for name in ("W", "R", "B", "P", "projection", "W_scale", "R_scale", "projection_scale", "W_zero", "R_zero")
)  # constant, and packed
MATRIX_INPUTS = tuple(INPUTS.index(name) for name in ("W", "R", "P", "projection"))  # of these, what packing keeps number for number


def input_of(node: Node, which: str) -> str:
    """The value behind one of INPUTS, empty where omitted."""
    return node.input(INPUTS.index(which))


def keeps_within_one(cell: Cell) -> bool:
    """Whether a cell's output, before a projection, stays within -1 and 1 by its activations (a GRU's: where its initial state is)."""
    kinds = [a.kind for a in cell.activations]
    if cell.custom:
        return False
    if cell.name == "rnn":
        return kinds[0] in WITHIN_ONE
    return kinds[0] in WITHIN_UNIT and kinds[2 if cell.name == "lstm" else 1] in WITHIN_ONE


class OperandBits(NamedTuple):
    """Of int8 weights, what is multiplied is rounded to so many bits (small.py): h and what is made of it, and what is projected."""

    h: int
    p: int


def operand_bits(cell: Cell, projected: bool, x_bits: int = UNBOUNDED) -> OperandBits:
    """Those of one direction. A projected state has no bound. Where x is rounded to bytes with a zero point, so are they."""
    if x_bits < BOUNDED:
        return OperandBits(x_bits, x_bits)
    p = BOUNDED if keeps_within_one(cell) else UNBOUNDED
    return OperandBits(UNBOUNDED if projected else p, p)


class StateInput(NamedTuple):
    """A state of a node: its name, which input starts it and which output ends it."""

    name: str
    input: int
    output: int


def cell_of(node: Node, direction: int = 0) -> Cell:
    """The cell that one direction of a node runs; `activations` lists those of all directions, as in ONNX."""
    if node.op == "Recurrent":
        return find_cell(node.get("cell"), node.get("fingerprint"), f"node {node.name!r}: ")
    activations, kind = node.get("activations"), node.op.lower()
    if activations is not None:
        n = len(DEFAULT_ACTIVATIONS[kind])
        activations = activations[direction * n : (direction + 1) * n]
    if kind == "rnn":
        return rnn(activations, node.get("clip"))
    if kind == "gru":
        return gru(activations, node.get("clip"), reset_after=bool(node.get("linear_before_reset")))
    return lstm(activations, node.get("clip"), peepholes=bool(input_of(node, "P")), input_forget=bool(node.get("input_forget")))


def states_of(node: Node) -> list[StateInput]:
    """The states of a recurrent node, the output's first."""
    return [StateInput(name, INPUTS.index(f"initial_{k}"), 1 + k) for k, name in enumerate(cell_of(node).states)]


@dataclass(frozen=True)
class DirectionWeights:
    """One direction's parameters, an array for each gate in the cell's declared order; views of the node's weights where they can be.

    w_x: (H, I) each, w_h: (H, P) each, b_x, b_h: (H,) each; parameters: vectors (H,); w_p (P, H) or None. Matrices are of any precision (small.py); s_x, s_h:
    of int8, the scales (H,) of each, s_p (P,); z_x, z_h: zero points, of layers that round to bytes.
    """

    hidden_size: int
    w_x: Sequence[np.ndarray]
    w_h: Sequence[np.ndarray]
    b_x: Sequence[np.ndarray]
    b_h: Sequence[np.ndarray]
    parameters: tuple[np.ndarray, ...] = ()
    w_p: np.ndarray | None = None
    s_x: Sequence[np.ndarray] | None = None
    s_h: Sequence[np.ndarray] | None = None
    s_p: np.ndarray | None = None
    z_x: Sequence[np.ndarray] | None = None
    z_h: Sequence[np.ndarray] | None = None

    def widened(self) -> DirectionWeights:
        """The same numbers in float32."""
        if self.precision == "float32":
            return self
        w_x, w_h = (
            [restored(a, None if s is None else s[k]) for k, a in enumerate(matrices)] for matrices, s in ((self.w_x, self.s_x), (self.w_h, self.s_h))
        )
        return replace(self, w_x=w_x, w_h=w_h, w_p=None if self.w_p is None else restored(self.w_p, self.s_p), s_x=None, s_h=None, s_p=None)

    @property
    def precision(self) -> str:
        """Of the matrices, a key of small.DTYPE_OF."""
        matrices = (*self.w_x, *self.w_h)
        return PRECISION_OF[str(matrices[0].dtype)] if matrices else "float32"

    @property
    def projected(self) -> int | None:
        """P, or None without a projection."""
        return None if self.w_p is None else len(self.w_p)

    def astype(self, dtype) -> DirectionWeights:
        """A copy in another float dtype; small matrices stay as they are."""

        def matrix(a):
            return a.astype(dtype) if a.dtype.kind == "f" else a

        gates = ([matrix(a) for a in arrays] for arrays in (self.w_x, self.w_h, self.b_x, self.b_h, self.parameters))
        return DirectionWeights(
            self.hidden_size, *gates, None if self.w_p is None else matrix(self.w_p), self.s_x, self.s_h, self.s_p, self.z_x, self.z_h
        )  # type: ignore[call-arg]  # as many as it takes


class RecurrentNode:
    """What a recurrent node says, with `lookup` giving the array behind a name (None for values not yet known)."""

    def __init__(self, node: Node, lookup: Callable[[str], np.ndarray | None]):
        self.node, self._lookup = node, lookup
        self.kind = node.op.lower()
        self.directions = 2 if node.get("direction") == "bidirectional" else 1
        self.batch_first = node.get("layout") == 1
        self.torch_form = bool(node.get("torch_form"))
        self.x_bits = UNBOUNDED if node.op == "Recurrent" else node.get("x_bits")
        self.direction_axis = 1 if self.batch_first and not self.torch_form else 0  # of states

    @cached_property
    def cells(self) -> list[Cell]:
        """A cell for each direction."""
        return [cell_of(self.node, d) for d in range(self.directions)]

    @cached_property
    def states(self) -> list[StateInput]:
        """Its states, the output's first."""
        return states_of(self.node)

    def name(self, which: str) -> str:
        """The value behind one of INPUTS, empty where omitted."""
        return input_of(self.node, which)

    def array(self, which: str) -> np.ndarray | None:
        """The array behind one of INPUTS, None where omitted."""
        return self._lookup(self.name(which)) if self.name(which) else None

    def reverse(self, direction: int) -> bool:
        """Whether a direction runs from the end."""
        return self.node.get("direction") == "reverse" or direction == 1

    def weights(self, direction: int) -> DirectionWeights:
        """Parameters of one direction, moved from ONNX's gate order to the cell's; zeros for a missing bias."""
        if self.node.op == "Recurrent":
            return self._custom_weights(direction)
        w, r = self.array("W")[direction], self.array("R")[direction]
        b, p, projection = self.array("B"), self.array("P"), self.array("projection")
        b = np.zeros(2 * len(w), np.float32 if w.dtype.kind in "iu" else w.dtype) if b is None else b[direction]
        s_w, s_r, s_p, z_w, z_r = (
            None if s is None else s[direction] for s in map(self.array, ("W_scale", "R_scale", "projection_scale", "W_zero", "R_zero"))
        )
        if self.x_bits < BOUNDED and z_w is None:
            z_w, z_r = (np.zeros(len(w), np.int8) for _ in range(2))

        def ordered(a):
            return gate_blocks(a, self.kind, "onnx", "torch")

        w_x, w_h = ordered(w), ordered(r)
        peepholes = () if p is None else tuple(peephole_blocks(p[direction], "onnx", "torch"))
        return DirectionWeights(
            len(w_h[0]),
            w_x,
            w_h,
            ordered(b[: len(w)]),
            ordered(b[len(w) :]),
            peepholes,
            None if projection is None else projection[direction],  # type: ignore[call-arg]  # as many as it takes
            *(None if a is None else ordered(a) for a in (s_w, s_r)),
            s_p,
            *(None if a is None else ordered(a) for a in (z_w, z_r)),
        )

    def _custom_weights(self, direction: int) -> DirectionWeights:
        cell, H = self.cells[direction], self.node.get("hidden_size")
        w, r, b, p, projection = (None if a is None else a[direction] for a in map(self.array, ("W", "R", "B", "P", "projection")))
        biased = [(side, name) for side in "xh" for name in cell.biased(side)]
        biases = {} if b is None else dict(zip(biased, np.split(b, len(biased)))) if biased else {}
        absent = np.zeros(H, np.float32)
        return DirectionWeights(
            H,
            [] if w is None else np.split(w, len(cell.x_gates)),
            [] if r is None else np.split(r, len(cell.h_gates)),
            [biases.get(("x", g), absent) for g in cell.x_gates],
            [biases.get(("h", g), absent) for g in cell.h_gates],
            () if p is None else tuple(np.split(p, len(cell.parameters))),
            projection,
        )
