"""A recurrent node with its optional inputs, directions, layout and options resolved, for all three ops in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastrnn.cells import Cell, gru, lstm, rnn
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.cells.gate_order import gate_blocks, permute_peepholes
from fastrnn.model.graph import Node

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P", "projection")
WEIGHT_INPUTS = tuple(INPUTS.index(name) for name in ("W", "R", "B", "P", "projection"))  # constant, and packed


def cell_of(node: Node, direction: int = 0) -> Cell:
    """The cell that one direction of a node runs; `activations` lists those of all directions, as in ONNX."""
    activations, kind = node.get("activations"), node.op.lower()
    if activations is not None:
        n = len(DEFAULT_ACTIVATIONS[kind])
        activations = activations[direction * n:(direction + 1) * n]
    if kind == "rnn":
        return rnn(activations, node.get("clip"))
    if kind == "gru":
        return gru(activations, node.get("clip"), reset_after=bool(node.get("linear_before_reset")))
    return lstm(activations, node.get("clip"), peepholes=bool(node.input(7)), input_forget=bool(node.get("input_forget")))


@dataclass(frozen=True)
class DirectionWeights:
    """One direction's parameters, an array for each gate in the cell's declared order; views of the node's weights where they can be.

    w_x: (H, I) each, w_h: (H, P) each, b_x, b_h: (H,) each; parameters: vectors (H,); w_p (P, H) or None.
    """

    w_x: Sequence[np.ndarray]
    w_h: Sequence[np.ndarray]
    b_x: Sequence[np.ndarray]
    b_h: Sequence[np.ndarray]
    parameters: tuple[np.ndarray, ...] = ()
    w_p: np.ndarray | None = None

    @property
    def hidden_size(self) -> int:
        """H, which a projection does not change."""
        return len(self.w_h[0])

    @property
    def input_size(self) -> int:
        """I."""
        return self.w_x[0].shape[1]

    def astype(self, dtype) -> DirectionWeights:
        """A copy in another float dtype."""
        gates = ([a.astype(dtype) for a in arrays] for arrays in (self.w_x, self.w_h, self.b_x, self.b_h, self.parameters))
        return DirectionWeights(*gates, None if self.w_p is None else self.w_p.astype(dtype))


class RecurrentNode:
    """What a recurrent node says, with `lookup` giving the array behind a name (None for values not yet known)."""

    def __init__(self, node: Node, lookup: Callable[[str], np.ndarray | None]):
        self.node, self._lookup = node, lookup
        self.kind = node.op.lower()
        self.directions = 2 if node.get("direction") == "bidirectional" else 1
        self.batch_first = node.get("layout") == 1
        self.torch_form = bool(node.get("torch_form"))
        self.direction_axis = 1 if self.batch_first and not self.torch_form else 0  # of states

    @cached_property
    def cells(self) -> list[Cell]:
        """A cell for each direction."""
        return [cell_of(self.node, d) for d in range(self.directions)]

    def name(self, which: str) -> str:
        """The value behind one of INPUTS, empty where omitted."""
        return self.node.input(INPUTS.index(which))

    def array(self, which: str) -> np.ndarray | None:
        """The array behind one of INPUTS, None where omitted."""
        return self._lookup(self.name(which)) if self.name(which) else None

    def reverse(self, direction: int) -> bool:
        """Whether a direction runs from the end."""
        return self.node.get("direction") == "reverse" or direction == 1

    def weights(self, direction: int) -> DirectionWeights:
        """Parameters of one direction, moved from ONNX's gate order to the cell's; zeros for a missing bias."""
        w, r = self.array("W")[direction], self.array("R")[direction]
        b, p, projection = self.array("B"), self.array("P"), self.array("projection")
        b = np.zeros(2 * len(w), w.dtype) if b is None else b[direction]

        def ordered(a):
            return gate_blocks(a, self.kind, "onnx", "torch")

        peepholes = () if p is None else tuple(np.split(permute_peepholes(p[direction], "onnx", "torch"), 3))
        return DirectionWeights(ordered(w), ordered(r), ordered(b[:len(w)]), ordered(b[len(w):]), peepholes,
                                None if projection is None else projection[direction])
