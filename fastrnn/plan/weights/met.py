"""Weights that only a call brings, as inputs or computed: packed when they are met, and kept for the next call while they stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastrnn.model import Node
from fastrnn.plan.program import PythonStep
from fastrnn.plan.weights.packed import Packed, pack, weight_positions


class Packing:
    """A node's weights, arrays in the order of weight_positions, to the arrays that its kernels read, one after the other.

    The last ones are kept and compared by content: a step of an LSTM with H = I = 256 takes 0.9 ms where they are the same, 3.7 ms where not.
    Threads may share one: what is kept is replaced as a whole.
    """

    def __init__(self, node: Node, backend: str):
        self._node, self._backend, self._kept = node, backend, None

    def __call__(self, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        kept = self._kept
        if kept is None or not all(map(_same_bits, kept[0], arrays)):
            arrays = [None if a is None else a.copy() for a in arrays]
            kept = self._kept = arrays, _arrays_of(packed_of(self._node, arrays, self._backend))
        return kept[1]


def packed_of(node: Node, arrays: Sequence[np.ndarray | None], backend: str) -> list[Packed]:
    """The node packed from these arrays, in the order of weight_positions."""
    return pack(node, {node.input(k): a for k, a in zip(weight_positions(node), arrays) if a is not None}, backend)


def packed_while_running(build, node: Node) -> list[Packed]:
    """The node's kernels, their weights in work space that a step of the program fills: for an emitter."""
    names = [node.input(k) for k in weight_positions(node)]
    empty = [np.broadcast_to(np.float32(0), [int(n) for n in build.shape_of(name)]) if name else None for name in names]
    packed = [
        replace(part, places={name: build.scratch(a.shape, a.dtype) for name, a in part.arrays.items()})
        for part in packed_of(node, empty, build.plan.backend)
    ]
    places = [view for part in packed for view in part.views.values()]
    build.steps.append(
        PythonStep(
            node.name, Packing(node, build.plan.backend), tuple(build.views[name] if name else None for name in names), tuple(places), packs=True
        )
    )
    return packed


def _arrays_of(packed: Sequence[Packed]) -> list[np.ndarray]:
    return [a for part in packed for a in part.arrays.values()]


def _same_bits(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Whether two float32 arrays hold the same, NaNs and zeros by their bits."""
    return a is b or a is not None and b is not None and np.array_equal(a.view(np.int32), b.view(np.int32))
