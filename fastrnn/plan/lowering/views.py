"""Ops that compute nothing: each result is a view of the input's memory, where strides can say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fastrnn.model import Node
from fastrnn.model.ops import COMPLEX
from fastrnn.model.ops.indexing import check_range
from fastrnn.model.ops.shaping import permutation, slices, split_sizes
from fastrnn.model.sizes import whole, wholes
from fastrnn.plan.lowering.memory import View, c_strides

VIEWS: dict[str, Callable] = {}
MAX_INDICES = 1 << 16  # of a constant that is looked through for regular distances


def views(*names: str):
    """Registers (node, view of the data, constant inputs, output shapes) -> views or None under op names."""

    def register(function):
        for name in names:
            VIEWS[name] = function
        return function

    return register


@views("Identity")
def identity(node: Node, x: View, constants, shapes):
    """The same memory."""
    return [x]


@views("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(node: Node, x: View, constants, shapes):
    """Other axes over the same order of elements."""
    return None if (view := x.reshaped(shapes[0])) is None else [view]


@views("Transpose")
def transpose(node: Node, x: View, constants, shapes):
    """Axes in another order."""
    return [x.transposed(permutation(node, len(x.shape)))]


@views("Slice")
def slice_(node: Node, x: View, constants, shapes):
    """Strides and an offset."""
    for axis, start, step, n in slices(node, x.shape, *constants):
        x = x.part(start, start + step * n, axis, step)
    return [x]


@views("Expand")
def expand(node: Node, x: View, constants, shapes):
    """Strides of 0."""
    return [x.broadcast(shapes[0])]


@views("Split")
def split(node: Node, x: View, constants, shapes):
    """A part for each output."""
    axis, start, parts = node.get("axis") % len(x.shape), 0, []
    for n in split_sizes(node, x.shape[axis], constants[0] if constants else None):
        parts.append(x.part(start, start + n, axis))
        start += n
    return parts


@views("Gather")
def gather(node: Node, x: View, constants, shapes):
    """Entries of an axis by constant indices at regular distances, overlapping windows included."""
    axis = node.get("axis") % len(x.shape)
    n, (first, steps) = x.shape[axis], regular(constants[0])
    check_range(node, constants[0], -n if node.get("wrap") else 0, n - 1)
    moved = x.shifted((first + n if first < 0 else first) * x.strides[axis])
    strides = (*x.strides[:axis], *(s * x.strides[axis] for s in steps), *x.strides[axis + 1 :])
    return [replace(moved, shape=shapes[0], strides=strides)]


@views("AsComplex")
def as_complex(node: Node, x: View, constants, shapes):
    """Pairs as numbers, where they lie one after the other."""
    dtype = np.dtype(COMPLEX[x.dtype.name])
    return [replace(x, shape=shapes[0], strides=c_strides(shapes[0]), dtype=dtype)] if x.contiguous else None


@views("AsReal")
def as_real(node: Node, x: View, constants, shapes):
    """Numbers as pairs."""
    return [x.pairs()]


def regular(offsets: np.ndarray) -> tuple[int, tuple[int, ...]] | None:
    """(first, step along each axis) of integers that are first + steps . position, all of one sign; None where they are not."""
    if not offsets.size or offsets.size > MAX_INDICES or offsets.min() < 0 <= offsets.max():
        return None
    first = offsets[(0,) * offsets.ndim]
    steps = tuple(whole(np.take(offsets, [1], axis).flat[0] - first) if n > 1 else 0 for axis, n in enumerate(offsets.shape))
    rebuilt = wholes([first]).reshape(())
    for axis, (n, step) in enumerate(zip(offsets.shape, steps)):
        rebuilt = rebuilt + np.arange(n).reshape(-1, *(1,) * (offsets.ndim - 1 - axis)) * step
    return (whole(first), steps) if np.array_equal(rebuilt, offsets) else None


# The other way: where the input must lie for the output to lie in `y`, so that whoever makes it writes there at once.


def source_of(node: Node, y: View, shape: tuple[int, ...]) -> View | None:
    """The view of a node's input of this shape, given where its output lies."""
    if node.op == "Identity":
        return y
    if node.op in ("Squeeze", "Unsqueeze", "Reshape", "Flatten"):
        return y.reshaped(shape)
    if node.op == "Transpose":
        return y.transposed(tuple(int(k) for k in np.argsort(permutation(node, len(shape)))))
    if node.op == "AsComplex":
        return y.pairs()
    return None


def is_view(node: Node, constants: Mapping[str, np.ndarray]) -> bool:
    """Whether the node is a view, or a copy where strides cannot say it; a Gather only with constant indices at regular distances."""
    return node.op in VIEWS and (node.op != "Gather" or node.inputs[1] in constants and regular(constants[node.inputs[1]]) is not None)
