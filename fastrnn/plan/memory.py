"""Where values lie: views into slots (a call's inputs and outputs), weights, or one block of work space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.plan.packing import ALIGNMENT


@dataclass(frozen=True)
class View:
    """A value's place. space: "slot" (index into inputs then outputs), "work", or "weight" (array). Strides in elements."""

    space: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    index: int = 0
    offset: int = 0
    array: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def shifted(self, elements: int) -> View:
        """The address moved on, shape and strides as they were: kernels take theirs from their arguments."""
        return replace(self, offset=self.offset + elements * self.dtype.itemsize)

    def part(self, start: int, stop: int) -> View:
        """[start:stop] of axis 0."""
        return replace(self.shifted(start * self.strides[0]), shape=(stop - start, *self.shape[1:]))

    def squeezed(self) -> View:
        """Axis 0, of size 1, removed."""
        return replace(self, shape=self.shape[1:], strides=self.strides[1:])

    def unsqueezed(self) -> View:
        """A new axis 0."""
        return replace(self, shape=(1, *self.shape), strides=(0, *self.strides))

    def same_place(self, other: View) -> bool:
        """Whether both begin at one address and have one shape."""
        return (self.space, self.index, self.offset, self.shape, id(self.array)) == (other.space, other.index, other.offset, other.shape, id(other.array))


def c_strides(shape) -> tuple[int, ...]:
    """C-order strides in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def grid(keep: int, *views: View) -> tuple:
    """T, B and each view's strides (t, b) over its leading axes, all but the last `keep`: rows as kernels take them.

    The views have the same leading shape. Axes of size 1 go, and neighbours join where they follow one another in every view;
    raises UnsupportedModelError where more than two are left.
    """
    leading = len(views[0].shape) - keep if keep else len(views[0].shape)
    axes: list[tuple[int, tuple[int, ...]]] = []
    for axis in range(leading):
        size, strides = views[0].shape[axis], tuple(v.strides[axis] for v in views)
        if size == 1:
            continue
        if axes and all(outer == inner * size for outer, inner in zip(axes[-1][1], strides)):
            axes[-1] = axes[-1][0] * size, strides
        else:
            axes.append((size, strides))
    if len(axes) > 2:
        raise UnsupportedModelError(f"a layout of shape {views[0].shape} with strides {[v.strides for v in views]} cannot be walked by rows")
    axes = [(1, (0,) * len(views))] * (2 - len(axes)) + axes
    return (axes[0][0], axes[1][0], *zip(axes[0][1], axes[1][1]))


class Arena:
    """First-fit allocation of the work space at plan time; freed ranges are given out again."""

    def __init__(self):
        self.size, self._free = 0, []

    def take(self, nbytes: int) -> int:
        """Offset of a range of at least `nbytes`, aligned."""
        nbytes = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        for k, (start, length) in enumerate(self._free):
            if length >= nbytes:
                self._free[k] = (start + nbytes, length - nbytes)
                return start
        start, self.size = self.size, self.size + nbytes
        return start

    def give(self, offset: int, nbytes: int) -> None:
        """Returns a range; neighbours join."""
        nbytes = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        merged = []
        for start, length in sorted([*self._free, (offset, nbytes)]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            elif length:
                merged.append((start, length))
        self._free = merged
