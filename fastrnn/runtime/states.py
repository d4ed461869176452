"""Where a stream's states lie: one block of memory for each stream, all of one layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fastrnn.plan.weights.panels import ALIGNMENT


class StateLayout:
    """names, dtypes, shapes of states, and where each begins in a block of `nbytes`. batch_axes: the batch's place in each, None for none."""

    def __init__(self, names: Sequence[str], dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]], batch_axes: Mapping[str, int | None]):
        self.names, self.dtypes, self.shapes, self.batch_axes = tuple(names), tuple(map(np.dtype, dtypes)), tuple(shapes), dict(batch_axes)
        offsets, end = [], 0
        for dtype, shape in zip(self.dtypes, self.shapes):
            offsets.append(end)
            end += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        self.offsets, self.nbytes = np.array(offsets, np.int64), end

    def views(self, block: np.ndarray) -> dict[str, np.ndarray]:
        """The states in a block, by name, sharing its memory."""
        return {name: block[start:start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
                for name, start, dtype, shape in zip(self.names, self.offsets.tolist(), self.dtypes, self.shapes)}
