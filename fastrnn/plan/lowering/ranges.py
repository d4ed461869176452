"""Integers that must lie in a range before a kernel may use them: indices and lengths. Those of an input are checked at the door, others on the way."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.kernels.contract import Key
from fastrnn.model import Node
from fastrnn.model.ops.indexing import check_range
from fastrnn.model.sizes import largest, same, smallest
from fastrnn.plan.emit.emitter import new_args, sized
from fastrnn.plan.lowering.layout import Layout
from fastrnn.plan.lowering.memory import View, weight_view
from fastrnn.plan.program import CheckStep


class Ranges(Layout):
    """What emitters call for such integers; the part of a Builder (build.py) that knows of slots, branches and steps."""

    def limit(self, node: Node, name: str, low: int, high: int) -> View:
        """The view, as int64, of integers that must lie in low..high. Those of an input are checked at the door, others on the way."""
        view = self.views[name]
        if view.space == "weight" and name in self.weights:
            check_range(node, self.weights[name], low, high)
            return view if view.dtype == np.int64 else weight_view(self.weights[name].astype(np.int64))
        whole = (
            view.space == "slot"
            and same(view.offset, 0)
            and same(math.prod(view.shape), math.prod(self._slots[view.index].shape))
            and 0 not in view.strides
        )
        if whole and view.index < self._n_inputs and view.dtype == np.int64 and not self._depth:
            before = self._limits.get(view.index, (low, high))
            self._limits[view.index] = largest(low, before[0]), smallest(high, before[1])
            return view
        return self._checked(node, view, low, high)

    def _checked(self, node: Node, view: View, low: int, high: int) -> View:
        """Integers copied to where a step checks their range before they are used."""
        copy = self.scratch(view.shape, np.int64)
        if self.compiled and view.dtype in (np.int32, np.int64):
            self.loops(node.name, sized("copy", np.int64) if view.dtype == np.int64 else Key("cast_int64", dtype="int32"), copy, view)
        else:
            self.python(node.name, lambda arrays: [arrays[0].astype(np.int64)], [view], [copy])
        self.steps.append(CheckStep(node.name, copy, low, high))
        return copy

    def limit_columns(self, node: Node, name: str, sizes: tuple[int, ...]) -> View:
        """The view (n, k), as int64, of indices (..., k) into k axes of these sizes, checked."""
        if name in self.weights:
            index = self.weights[name].astype(np.int64).reshape(-1, len(sizes))
            for k, n in enumerate(sizes):
                check_range(node, index[:, k], -n, n - 1)
            return weight_view(index)
        index = self.contiguous(self.views[name])
        index = index.reshaped((math.prod(index.shape[:-1]), len(sizes)))
        columns = [self._checked(node, index.part(k, k + 1, 1), -n, n - 1) for k, n in enumerate(sizes)]
        whole = self.scratch(index.shape, np.int64)
        for k, column in enumerate(columns):
            self.copy(node.name, column, whole.part(k, k + 1, 1))
        return whole

    def sorted_lengths(self, node: Node, name: str, T: int, deals: int = 1) -> tuple[View, View] | None:
        """Lengths sorted descending and the row of each, dealt out to so many calls, computed once for all layers; None where omitted."""
        if name not in self.views:
            return None
        found = self._lengths.setdefault((name, deals), [])
        views = next((views for steps, views in found if same(steps, T)), None)
        if views is None:
            view = self.limit(node, name, 0, T)
            B = view.shape[0]
            both = self.hold((2, B), np.int64)
            self.step(name, self.kernel(Key("sort_lengths", dtype="int64")), new_args(T=T, B=B, P=deals), {"x": view, "y": both})
            views = both.at(0, 0), both.at(0, 1)
            found.append((T, views))
        return views
