"""Where values lie: views into slots (a call's inputs and outputs), weights, or one block of work space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.model.sizes import Size, Whole, n_steps, same, value_of, wholes


@dataclass(frozen=True)
class View:
    """A value's place. space: "slot" (index into inputs then outputs), "work" (index of a block), or "weight" (array; one of objects holds Sizes,
    and has int64 in memory). Strides in elements, offset in bytes."""

    space: str
    shape: tuple[Whole, ...]
    strides: tuple[Whole, ...]
    dtype: np.dtype
    index: int = 0
    offset: Whole = 0
    array: np.ndarray | None = None

    @property
    def nbytes(self) -> Whole:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def shifted(self, elements: int) -> View:
        """The address moved on, shape and strides as they were: kernels take theirs from their arguments."""
        return replace(self, offset=self.offset + elements * self.dtype.itemsize)

    def part(self, start: int, stop: int, axis: int = 0, step: int = 1) -> View:
        """[start:stop:step] of an axis; step may be negative, stop is then exclusive below."""
        n = n_steps(start, stop, step)
        strides = (*self.strides[:axis], self.strides[axis] * step, *self.strides[axis + 1 :])
        moved = self.shifted(start * self.strides[axis]) if isinstance(n, Size) or n else self
        return replace(moved, shape=(*self.shape[:axis], n, *self.shape[axis + 1 :]), strides=strides)

    def at(self, axis: int, index: int) -> View:
        """One entry of an axis, which goes."""
        moved = self.shifted(index * self.strides[axis])
        return replace(moved, shape=(*self.shape[:axis], *self.shape[axis + 1 :]), strides=(*self.strides[:axis], *self.strides[axis + 1 :]))

    def transposed(self, perm: tuple[int, ...]) -> View:
        """Axes in another order."""
        return replace(self, shape=tuple(self.shape[a] for a in perm), strides=tuple(self.strides[a] for a in perm))

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """Repeated along new axes and axes of size 1, with strides of 0."""
        new = len(shape) - len(self.shape)
        strides = (0,) * new + tuple(0 if own == 1 and size != 1 else stride for own, size, stride in zip(self.shape, shape[new:], self.strides))
        return replace(self, shape=tuple(shape), strides=strides)

    def pairs(self) -> View:
        """Complex numbers as pairs of their parts, along a new last axis."""
        return replace(self, shape=(*self.shape, 2), strides=(*(2 * s for s in self.strides), 1), dtype=self.dtype.type(0).real.dtype)

    def reshaped(self, shape: tuple[int, ...]) -> View | None:
        """The same elements in another shape, None where strides cannot say it."""
        if 0 in self.shape or self.contiguous:
            return replace(self, shape=tuple(shape), strides=c_strides(shape))
        strides = _regrouped([(n, s) for n, s in zip(self.shape, self.strides) if n != 1], shape)
        return None if strides is None else replace(self, shape=tuple(shape), strides=strides)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps, whatever the sizes."""
        return all(n == 1 or same(have, want) for n, have, want in zip(self.shape, self.strides, c_strides(self.shape)))

    def same_place(self, other: View) -> bool:
        """Whether both name the same elements in the same order, whatever the sizes."""
        return (
            self.same_start(other)
            and same_shape(self.shape, other.shape)
            and all(n == 1 or same(a, b) for n, a, b in zip(self.shape, self.strides, other.strides))
        )

    def same_start(self, other: View) -> bool:
        """Whether both begin at one address, whatever the sizes."""
        return (self.space, self.index, id(self.array)) == (other.space, other.index, id(other.array)) and same(self.offset, other.offset)


def same_shape(a: Sequence[Whole], b: Sequence[Whole]) -> bool:
    """Whether two shapes are one, whatever the sizes."""
    return len(a) == len(b) and all(map(same, a, b))


def _regrouped(axes: list[tuple[Whole, Whole]], shape: Sequence[Whole]) -> tuple[Whole, ...] | None:
    """The strides of a shape of as many elements as axes (size, stride), none of size 1, have together; None where there are none. An axis of the
    result is part of an axis, or joins some that follow one another."""
    strides: list[Whole] = []
    axes, left = list(reversed(axes)), list(reversed(shape))  # innermost first
    k = 0
    while k < len(left):
        if left[k] == 1:
            strides.append(strides[-1] * left[k - 1] if strides else axes[0][1] * axes[0][0] if axes else 1)
            k += 1
            continue
        if not axes:
            return None
        size, stride = axes.pop(0)
        parts = [left[k]]
        k += 1
        while not same(math.prod(parts), size):  # whichever falls short takes one more
            if math.prod(parts) > size:
                if not axes or not same(axes[0][1], stride * size):
                    return None
                size = size * axes.pop(0)[0]
            else:
                if k == len(left):
                    return None
                parts.append(left[k])
                k += 1
        for n in parts:
            strides.append(stride)
            stride = stride * n
    return tuple(reversed(strides))


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
    return View("weight", array.shape, c_strides(array.shape), np.dtype(np.int64) if array.dtype == object else array.dtype, array=array)


IMAGES = 3  # loops of rows that products of floats, and chains, do: images, lines, columns; other kernels do two


def grid(keep: int, *views: View, most: int = 2) -> tuple:
    """The sizes of so many loops, T and B or images, T and B, and each view's strides along them, over its leading axes, all but the last `keep`: rows as kernels take them.

    The views have the same leading shape. Axes of size 1 go, and neighbours join where they follow one another in every view;
    raises UnsupportedModelError where more are left.
    """
    leading = len(views[0].shape) - keep if keep else len(views[0].shape)
    axes: list[tuple[int, tuple[int, ...]]] = []
    for axis in range(leading):
        size, strides = views[0].shape[axis], tuple(v.strides[axis] for v in views)
        if size == 1:
            continue
        if axes and all(same(outer, inner * size) for outer, inner in zip(axes[-1][1], strides)):
            axes[-1] = axes[-1][0] * size, strides
        else:
            axes.append((size, strides))
    if len(axes) > most:
        raise UnsupportedModelError(f"a layout of shape {views[0].shape} with strides {[v.strides for v in views]} cannot be walked by rows")
    axes = [(1, (0,) * len(views))] * (most - len(axes)) + axes
    return (*(size for size, _ in axes), *zip(*(strides for _, strides in axes)))


def loops(*views: View) -> np.ndarray:
    """The loops over views of one shape, (size, stride of each view), outermost first: the first view's order, neighbours joined where
    they follow one another in every view."""
    # any order is right: the one of the sizes at hand serves all
    axes = sorted(((n, *(v.strides[k] for v in views)) for k, n in enumerate(views[0].shape) if n != 1), key=lambda axis: -abs(value_of(axis[1])))
    joined: list[tuple[int, ...]] = []
    for axis in axes:
        if joined and all(same(outer, inner * axis[0]) for outer, inner in zip(joined[-1][1:], axis[1:])):
            axis = (joined.pop()[0] * axis[0], *axis[1:])
        joined.append(axis)
    return table_of(joined or [(1, *(0,) * len(views))])


def table_of(rows: Sequence[Sequence[Whole]]) -> np.ndarray:
    """Rows of numbers as kernels read them behind `axes`; of objects where Sizes are among them."""
    return wholes(n for row in rows for n in row).reshape(len(rows), -1)


def grid_table(y: View, x: View, x2: View | None = None) -> np.ndarray:
    """The loops as grid.h takes them: always with a column for x2."""
    return loops(y, x, x2) if x2 is not None else table_of([(*row, 0) for row in loops(y, x)])


@dataclass(frozen=True)
class Blocks:
    """The work space: bytes of each block (None: a kernel says it), and in which order they are taken (k + 1) and given back (-k - 1). kept:
    blocks whose content stays from call to call, until sizes change."""

    nbytes: tuple[Whole | None, ...] = ()
    events: tuple[int, ...] = ()
    kept: frozenset[int] = frozenset()


class Arena:
    """The blocks of a program's work space and the order in which they are taken and given back. Where they lie is decided by the executor, first
    fit, for the sizes at hand; where calls may run at once (`keep`) nothing is given back."""

    def __init__(self, keep: bool = False):
        self.nbytes: list[Whole | None] = []
        self.events: list[int] = []
        self.kept: set[int] = set()
        self._keep = keep

    def take(self, nbytes: Whole | None, kept: bool = False) -> int:
        """The number of a new block of so many bytes; None: a kernel will say how many. kept: its content stays from call to call."""
        self.nbytes.append(nbytes)
        block = len(self.nbytes) - 1
        if kept:
            self.kept.add(block)
        else:
            self.events.append(block + 1)
        return block

    def give(self, block: int) -> None:
        """What comes may lie where the block was."""
        if not self._keep and block not in self.kept:
            self.events.append(-block - 1)

    def blocks(self) -> Blocks:
        """The work space as programs hold it."""
        return Blocks(tuple(self.nbytes), tuple(self.events), frozenset(self.kept))
