"""Where values are put while a program is built, and the calls that move them: copies, fills, elementwise kernels, sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels.contract import Key
from fastrnn.model.sizes import Size, value_of, wholes
from fastrnn.plan.emit.emitter import new_args
from fastrnn.plan.lowering.chain import Chain
from fastrnn.plan.lowering.memory import Arena, View, c_strides, grid, grid_table, loops, table_of, weight_view

OPERANDS = ("x", "x2", "x3", "x4", "x5", "x6", "x7", "x8")  # the arguments' pointers to a chain's operands


class Layout:
    """Places of values by name. root: values that are views, by the value whose memory they lie in. inside: values that are made
    within another's place: its name; its view -> theirs, or None where strides cannot say it; whether it may lie in their order. keep: no
    work space is used twice."""

    def __init__(self, keep: bool = False):
        self.views: dict[str, View] = {}
        self.root: dict[str, str] = {}
        self.inside: dict[str, tuple[str, Callable[[View], View | None], bool]] = {}
        self.arena = Arena(keep)
        self.at = ""  # the node in hand
        self._owned: dict[str, int] = {}  # value -> block that it holds, given back after its last use
        self._scratch: list[int] = []  # blocks given back when the node in hand is done
        self._numbers: dict[tuple[bytes, str], View] = {}
        self.keeping = False  # what is made now depends on sizes alone, and stays from call to call

    def place(self, name: str, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> View:
        """The view of an output: where it was put already, or new work space. An unwanted output ("") gets scratch.

        order: axes from the outermost to the innermost in memory, C order if left out.
        """
        if not name:
            return self.scratch(shape)
        if name not in self.views and name in self.inside:
            whole, part, ordered = self.inside[name]
            view = part(self.place(whole, self.shape_of(whole), order if ordered and len(self.shape_of(whole)) == len(shape) else None))
            self.views |= {} if view is None else {name: view}
        if name not in self.views:
            view = self._new(shape, self.dtype_of(name), order)
            self.views[name] = view
            self._owned[name] = view.index
        return self.views[name]

    def own(self, name: str, shape: tuple[int, ...]) -> View:
        """New work space, in C order, for a value that no node makes."""
        view = self.views[name] = self._new(shape, self.dtype_of(name))
        self._owned[name] = view.index
        return view

    def hold(self, shape: tuple[int, ...], dtype) -> View:
        """Work space that is never given back."""
        return self._new(shape, dtype)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a value."""
        raise NotImplementedError

    def dtype_of(self, name: str) -> np.dtype:
        """dtype of a value."""
        raise NotImplementedError

    def _new(self, shape, dtype, order=None) -> View:
        order = tuple(range(len(shape))) if order is None else order
        strides = dict(zip(order, c_strides([shape[a] for a in order])))
        view = View("work", tuple(shape), tuple(strides[a] for a in range(len(shape))), np.dtype(dtype))
        return replace(view, index=self.arena.take(view.nbytes, self.keeping))

    def place_like(self, name: str, x: View) -> View:
        """The view of an output of x's shape, its axes in x's order in memory."""
        return self.place(
            name, x.shape, tuple(sorted(range(len(x.shape)), key=lambda a: (-abs(value_of(x.strides[a])), a))) if 0 not in x.strides else None
        )

    def place_last(self, name: str, shape: tuple[int, ...]) -> View:
        """The view of an output (N, C, sizes...), channels last in memory."""
        return self.place(name, shape, (0, *range(2, len(shape)), 1))

    def scratch(self, shape, dtype=np.float32) -> View:
        """Work space until the node is done."""
        view = self._new(shape, dtype)
        self._scratch.append(view.index)
        return view

    def release_scratch(self) -> None:
        """Gives back what the node in hand took."""
        for block in self._scratch:
            self.arena.give(block)
        self._scratch.clear()

    def release(self, done: Callable[[str], bool]) -> None:
        """Gives back the memory of values that nothing needs any more."""
        for name in [n for n in self._owned if done(n)]:
            self.arena.give(self._owned.pop(name))

    def number(self, value: float, dtype=np.float32) -> View:
        """A constant of one element, rank 0; a Size is an int64."""
        if isinstance(value, Size):
            return weight_view(wholes([value]).reshape(()))
        array = np.array(value, dtype)
        return self._numbers.setdefault((array.tobytes(), array.dtype.name), weight_view(array))

    def zeros(self, n: int) -> View:
        """A row of n zeros: the initial state where none is given."""
        return weight_view(np.zeros(n, np.float32))

    # Layouts that kernels want.

    def contiguous(self, view: View, owner: str = "") -> View:
        """The view, or a C-ordered copy; the copy lives as long as value `owner`, or as the node in hand."""
        if 0 in view.shape:
            return replace(view, strides=c_strides(view.shape))
        if view.contiguous:
            return view
        copy = self._new(view.shape, view.dtype)
        if owner:
            self._owned[owner] = copy.index
        else:
            self._scratch.append(copy.index)
        self.copy(self.at, view, copy)
        return copy

    def rows(self, value: str | View) -> View:
        """A value whose last axis is contiguous and whose other axes are two loops at most; copied where it is not."""
        view = self.views[value] if isinstance(value, str) else value
        return view if _walks(view) else self.contiguous(view)

    def unit_stride(self, y: View) -> View:
        """y, if entries of its last axis lie one after the other; else scratch of its shape."""
        return y if y.strides[-1] == 1 or y.shape[-1] == 1 else self.scratch(y.shape, y.dtype)

    def walks(self, view: View, loops: int = 2) -> bool:
        """Whether the view is rows in so many loops at most; in two, rows() takes it as it is."""
        return _walks(view, loops)

    def as_rows(self, y: View, loops: int = 2) -> View:
        """y, if rows can be written to it in so many loops; else scratch of its shape."""
        return y if _walks(y, loops) else self.scratch(y.shape, y.dtype)

    def row_pair(self, x: View, y: View, loops: int = 2) -> tuple[View, View]:
        """Rows to read and rows to write as loops that both follow: x copied, and y scratch that the caller copies on, where they are not."""
        for pair in (lambda: (x, y), lambda: (self.contiguous(x), y), lambda: (self.contiguous(x), self.scratch(y.shape, y.dtype))):
            read, written = pair()
            if _walks(read, loops) and _walks(written, loops) and _walk_together(read, written, loops):
                return read, written
        raise AssertionError("two arrays in C order follow one another")

    # Calls.

    def copy(self, name: str, source: View, target: View) -> None:
        """target = source, of one shape."""
        raise NotImplementedError

    def loops(self, name: str, kernel: Key | str, y: View, x: View, x2: View | None = None, **fields) -> None:
        """A kernel of native/arrays/grid.h over views of one shape."""
        table = grid_table(y, x, x2)
        pointers = {"x": x, "y": y, "axes": weight_view(table)} | ({} if x2 is None else {"x2": x2})
        size = math.prod(y.shape)
        self.call(name, self.kernel(kernel), new_args(T=len(table), **fields), pointers, flops=4 * size, weight_bytes=8 * size)

    def view_of(self, operand: str | View) -> View:
        """The view of a chain's operand."""
        return operand if isinstance(operand, View) else self.views[operand]

    def chain(self, name: str, chain: Chain, y: View) -> None:
        """y = the result of a chain, its operands broadcast to y's shape."""
        views = [self.view_of(operand).broadcast(y.shape) for operand in chain.operands]
        table, program = loops(y, *views), chain.instructions()
        flags = sum(1 << k for k, v in enumerate((y, *views)) if v.dtype == bool)
        args = new_args(T=len(table), I=len(views), H=len(program), P=flags)
        pointers = {"y": y, **dict(zip(OPERANDS, views)), "axes": weight_view(np.concatenate([table.ravel(), program.view(np.int64)]))}
        size = math.prod(y.shape)
        self.call(name, self.kernel("chain"), args, pointers, flops=20 * size * len(program), weight_bytes=8 * size)

    def pointwise(self, name: str, y: View, x: View, *steps: tuple) -> None:
        """y = x through steps (operation, a second operand's view or None)."""
        chain = Chain({})
        value = chain.operand(x)
        for operation, other in steps:
            value = chain.do(operation, value, *([] if other is None else [value if other is x else chain.operand(other)]))
        self.chain(name, chain, y)

    def fill(self, name: str, y: View, value) -> None:
        """y = value everywhere."""
        self.copy(name, self.number(value, y.dtype).broadcast(y.shape), y)

    def rowwise(self, name: str, kernel: Key | str, y: View, x: View, axis: int, **fields) -> None:
        """A kernel of native/arrays/grid.h that takes one axis, from and to, at every position of the others."""
        others = [replace(v, shape=v.shape[:axis] + v.shape[axis + 1 :], strides=v.strides[:axis] + v.strides[axis + 1 :]) for v in (y, x)]
        table = table_of([*grid_table(*others), (x.shape[axis], y.strides[axis], x.strides[axis], 0)])
        size = math.prod(x.shape)
        self.call(
            name,
            self.kernel(kernel),
            new_args(T=len(table), **fields),
            {"x": x, "y": y, "axes": weight_view(table)},
            flops=30 * size,
            weight_bytes=8 * size,
        )

    def reduce(self, name: str, y: View, rows: View, divisor: int = 1, kernel: Key | str = "reduce", **fields) -> None:
        """y = rows reduced over their last axis, a sum divided."""
        n, lead = rows.shape[-1], replace(rows, shape=rows.shape[:-1], strides=rows.strides[:-1])
        table = table_of([*grid_table(y, lead), (n, 0, rows.strides[-1], 0)])
        args = new_args(T=len(table), scale=divisor, **fields)
        self.call(name, self.kernel(kernel), args, {"x": rows, "y": y, "axes": weight_view(table)}, flops=n, weight_bytes=4 * n)


def _walk_together(x: View, y: View, loops: int) -> bool:
    try:
        grid(1, x, y, most=loops)
        return True
    except UnsupportedModelError:
        return False


def _walks(view: View, loops: int = 2) -> bool:
    return bool(view.shape) and (view.shape[-1] <= 1 or view.strides[-1] == 1) and _walk_together(view, view, loops)
