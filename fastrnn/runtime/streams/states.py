"""Where a stream's states lie: one block of memory for each stream, all of one layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fastrnn.errors import StateError
from fastrnn.plan.weights.panels import ALIGNMENT
from fastrnn.runtime import checks

ROW_ALIGNMENT = 16  # of a state in a stream's row of a pool: enough for a copy, and small states stay small


class StateLayout:
    """names, dtypes, shapes of states, and where each begins in a block of `nbytes`. batch_axes: the batch's place in each, None for none."""

    def __init__(self, names: Sequence[str], dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]], batch_axes: Mapping[str, int | None]) -> None:
        self.names, self.dtypes, self.shapes, self.batch_axes = tuple(names), tuple(map(np.dtype, dtypes)), tuple(shapes), dict(batch_axes)
        offsets, end = [], 0
        for dtype, shape in zip(self.dtypes, self.shapes):
            offsets.append(end)
            end += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        self.offsets, self.nbytes = np.array(offsets, np.int64), end

    def views(self, block: np.ndarray) -> dict[str, np.ndarray]:
        """The states in a block, by name, sharing its memory."""
        return {
            name: block[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            for name, start, dtype, shape in zip(self.names, self.offsets.tolist(), self.dtypes, self.shapes)
        }

    def checked(self, values: object, what: str) -> dict[str, np.ndarray]:
        """Arrays for all states by name. Raises StateError for one that is missing, unknown, or of another dtype or shape."""
        given = checks.as_mapping(values, what, StateError)
        if set(given) != set(self.names):
            raise StateError(f"states are {sorted(self.names)}, got {sorted(given)}")
        result = {}
        for name, dtype, shape in zip(self.names, self.dtypes, self.shapes):
            array = checks.as_array(given[name], name)
            if array.dtype != dtype or array.shape != shape:
                raise StateError(f"state {name!r} must be {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")
            result[name] = array
        return result


class StateRows:
    """The states of one stream as a row of `nbytes` bytes, one state behind the other. layout: of a stream of one row."""

    def __init__(self, layout: StateLayout) -> None:
        self.layout, self.offsets, end = layout, {}, 0
        for name, dtype, shape in zip(layout.names, layout.dtypes, layout.shapes):
            self.offsets[name] = end
            end += -(-math.prod(shape) * dtype.itemsize // ROW_ALIGNMENT) * ROW_ALIGNMENT
        self.nbytes = max(end, ROW_ALIGNMENT)

    def place(self, name: str) -> tuple[int, int, int]:
        """offset, outer, inner of a state: in a batch, a row of it is `outer` runs of `inner` bytes."""
        k = self.layout.names.index(name)
        shape, axis = self.layout.shapes[k], self.layout.batch_axes[name] or 0
        outer = math.prod(shape[:axis])
        return self.offsets[name], outer, math.prod(shape) * self.layout.dtypes[k].itemsize // max(outer, 1)

    def views(self, row: np.ndarray) -> dict[str, np.ndarray]:
        """The states in a row, by name, as a stream of batch 1 has them; sharing its memory."""
        return {
            name: row[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            for (name, start), dtype, shape in zip(self.offsets.items(), self.layout.dtypes, self.layout.shapes)
        }

    def packed(self, states: Mapping[str, np.ndarray]) -> np.ndarray:
        """The row of these states, which were checked."""
        row = np.zeros(self.nbytes, np.uint8)
        for name, view in self.views(row).items():
            view[...] = states[name]
        return row
