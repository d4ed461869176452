"""Where values lie: views into slots (a call's inputs and outputs), weights, or one block of work space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.plan.weights.panels import ALIGNMENT


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

    def part(self, start: int, stop: int, axis: int = 0, step: int = 1) -> View:
        """[start:stop:step] of an axis; step may be negative, stop is then exclusive below."""
        n = len(range(start, stop, step))
        strides = (*self.strides[:axis], self.strides[axis] * step, *self.strides[axis + 1:])
        moved = self.shifted(start * self.strides[axis]) if n else self
        return replace(moved, shape=(*self.shape[:axis], n, *self.shape[axis + 1:]), strides=strides)

    def at(self, axis: int, index: int) -> View:
        """One entry of an axis, which goes."""
        moved = self.shifted(index * self.strides[axis])
        return replace(moved, shape=(*self.shape[:axis], *self.shape[axis + 1:]), strides=(*self.strides[:axis], *self.strides[axis + 1:]))

    def transposed(self, perm: tuple[int, ...]) -> View:
        """Axes in another order."""
        return replace(self, shape=tuple(self.shape[a] for a in perm), strides=tuple(self.strides[a] for a in perm))

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """Repeated along new axes and axes of size 1, with strides of 0."""
        new = len(shape) - len(self.shape)
        strides = (0,) * new + tuple(0 if own == 1 != size else stride for own, size, stride in zip(self.shape, shape[new:], self.strides))
        return replace(self, shape=tuple(shape), strides=strides)

    def reshaped(self, shape: tuple[int, ...]) -> View | None:
        """The same elements in another shape, None where strides cannot say it."""
        if 0 in self.shape:
            return replace(self, shape=tuple(shape), strides=c_strides(shape))
        dummy = np.lib.stride_tricks.as_strided(np.empty(1, np.uint8), self.shape, self.strides)
        try:
            strides = dummy.reshape(shape, copy=False).strides
        except ValueError:
            return None
        return replace(self, shape=tuple(shape), strides=strides)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        return all(n == 1 or have == want for n, have, want in zip(self.shape, self.strides, c_strides(self.shape)))

    def same_place(self, other: View) -> bool:
        """Whether both name the same elements in the same order."""
        if (self.space, self.index, self.offset, self.shape, id(self.array)) != (other.space, other.index, other.offset, other.shape, id(other.array)):
            return False
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, other.strides))


def c_strides(shape) -> tuple[int, ...]:
    """C-order strides in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def weight_view(array: np.ndarray) -> View:
    """A view of an array that the plan owns."""
    array = np.require(array, requirements="C")
    return View("weight", array.shape, c_strides(array.shape), array.dtype, array=array)


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


def loops(*views: View) -> np.ndarray:
    """The loops over views of one shape, (size, stride of each view), outermost first: the first view's order, neighbours joined where
    they follow one another in every view."""
    axes = sorted(((n, *(v.strides[k] for v in views)) for k, n in enumerate(views[0].shape) if n != 1), key=lambda axis: -abs(axis[1]))
    joined: list[tuple[int, ...]] = []
    for axis in axes:
        if joined and all(outer == inner * axis[0] for outer, inner in zip(joined[-1][1:], axis[1:])):
            axis = (joined.pop()[0] * axis[0], *axis[1:])
        joined.append(axis)
    return np.array(joined or [(1, *(0,) * len(views))], np.int64)


def grid_table(y: View, x: View, x2: View | None = None) -> np.ndarray:
    """The loops as grid.h takes them: always with a column for x2."""
    table = loops(y, x) if x2 is None else loops(y, x, x2)
    return np.pad(table, ((0, 0), (0, 4 - table.shape[1])))


class Arena:
    """First-fit allocation of the work space at plan time; freed ranges are given out again, unless calls may run at once (`keep`)."""

    def __init__(self, keep: bool = False):
        self.size, self._free, self._keep = 0, [], keep

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
        if self._keep:
            return
        nbytes = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        merged = []
        for start, length in sorted([*self._free, (offset, nbytes)]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            elif length:
                merged.append((start, length))
        self._free = merged
