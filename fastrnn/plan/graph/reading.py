"""Reads nodes in order into Forms, and finds the steps of cells among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from fastrnn.cells import Activation
from fastrnn.model import Node
from fastrnn.model.ops import ANY_DIM, Spec
from fastrnn.model.ops.elementwise import UNARY_KINDS, unary_activation
from fastrnn.model.ops.shaping import slices, split_sizes
from fastrnn.plan.graph.algebra import Form, Vector, added, applied, bias, cut, mapped, multiplied, number, of_vector, times_matrix
from fastrnn.plan.graph.cell_steps import CellStep, cell_of_lstm, step_of_gru, step_of_lstm

RUN = "run"  # the index of the entry that a run of a body takes
ALL = np.iinfo(np.int32).max  # in place of a size that is not known: what files write for the end of an axis
SAME = ("Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Cast", "Transpose", "Expand")


class Reading:
    """forms: of values, each along its last axis. joined: what a Concat along it puts together. made_of: what vectors are that matrices are
    applied to. cells: of LSTMs, by the cell's new name. steps: by the new state's name, in order. counters: values that number the runs."""

    def __init__(self, weights: Mapping[str, np.ndarray], specs: Mapping[str, Spec], forms: Mapping[str, Form] = (), counter: str = ""):
        self.weights, self.specs, self.counters = weights, specs, {counter} - {""}
        self.forms: dict[str, Form] = dict(forms)
        self.joined: dict[str, list[str]] = {}
        self.made_of: dict[Vector, Form] = {}
        self.cells: dict[str, dict] = {}
        self.steps: dict[str, CellStep] = {}
        self.readers: Counter = Counter()
        self.first: dict[str, int] = {}  # by the new state's name, the node that makes the first thing that the step is known by

    def read(self, nodes: Iterable[Node]) -> Reading:
        """Reads nodes; those that it cannot read make values that are taken as they are."""
        nodes = list(nodes)
        self.readers = Counter(name for node in nodes for name in node.reads())
        for k, node in enumerate(nodes):
            if node.op in ("Cast", "Identity") and node.inputs[0] in self.counters:
                self.counters.add(node.outputs[0])
            reader = READERS.get(node.op)
            if reader is None or not all(self.plain(name) for name in node.outputs if name):
                continue
            form = reader(self, node)
            if form is not None:
                self._found(node.outputs[0], form, k)
        return self

    def plain(self, name: str) -> bool:
        """Whether a value is of floats with a last axis of known size."""
        spec = self.specs.get(name)
        return spec is not None and spec.dtype == "float32" and bool(spec.shape) and isinstance(spec.shape[-1], int) and ANY_DIM not in spec.shape

    def _found(self, name: str, form: Form, k: int) -> None:
        """Notes a value; new states become vectors, so that what follows is said in terms of them. So does a product that is read twice: the
        state after a first step that starts from zeros. Within a step products are read once."""
        self.forms[name] = form
        cell = cell_of_lstm(form)
        if cell:
            self.cells[name], self.first[name] = cell, k
        step = step_of_lstm(form, name, self.cells) or step_of_gru(form, name, self.made_of)
        if step:
            self.steps[name], self.first[name] = step, self.first.get(step.cell, k)
        twice = self.readers[name] > 1 and any(sum(power for _, power in factors) > 1 for factors, _ in form.products)
        if cell or step or twice:
            self.forms[name] = of_vector(self.whole(name))

    def width(self, name: str) -> int:
        """Entries along the last axis."""
        return self.specs[name].shape[-1]

    def whole(self, name: str) -> Vector:
        """A value as it is."""
        return Vector(name, self.width(name))

    def _size(self, name: str) -> tuple:
        return tuple(d for d in self.specs[name].shape if d != 1)

    def form(self, name: str, like: str) -> Form | None:
        """A value as an operand of what makes `like`; None where it is broadcast along more than rows of constants."""
        array = self.weights.get(name)
        if array is not None and array.dtype == np.float32 and array.size:
            first, last = array.flat[0], array.flat[array.size - 1]
            if array.size == 1 or array.strides and not any(array.strides) or array.size <= 1 << 16 and first == last and (array == first).all():
                return number(float(first))
            if array.size == array.shape[-1] == self.width(like):
                return bias(name, self.width(like))
        if not self.plain(name) or self._size(name) != self._size(like) or self.width(name) != self.width(like):
            return None
        return self.forms[name] if name in self.forms else of_vector(self.whole(name))

    def vector(self, name: str) -> Vector:
        """A value that a matrix is applied to."""
        form = self.forms.get(name)
        vector = self.whole(name) if form is None else form.vector
        if vector is None:
            vector = self.whole(name)
            self.made_of[vector] = form
        return vector

    # One method for each op, see READERS.

    def _activation(self, node: Node) -> Form | None:
        form = self.form(node.inputs[0], node.outputs[0])
        return None if form is None else applied(unary_activation(node), form)

    def _clip(self, node: Node) -> Form | None:
        """Between 0 and a bound, the bound times a hard sigmoid; from 0 on, Relu."""
        low, high = (self.weights.get(node.input(k)) for k in (1, 2))
        form = self.form(node.inputs[0], node.outputs[0])
        if (
            form is None
            or low is None
            or low.size != 1
            or low.reshape(()) != 0
            or node.input(2)
            and (high is None or high.size != 1 or not 0 < high.reshape(()) < np.inf)
        ):
            return None
        if not node.input(2):
            return applied(Activation("relu"), form)
        bound = float(high.reshape(()))
        return multiplied(number(bound), applied(Activation("hardsigmoid", alpha=1 / bound, beta=0.0), form))

    def _neg(self, node: Node) -> Form | None:
        form = self.form(node.inputs[0], node.outputs[0])
        return None if form is None else multiplied(number(-1.0), form)

    def _pair(self, node: Node) -> list[Form] | None:
        forms = [self.form(name, node.outputs[0]) for name in node.inputs]
        return None if any(f is None for f in forms) else forms

    def _add(self, node: Node) -> Form | None:
        pair = self._pair(node)
        return pair and added(*pair)

    def _sub(self, node: Node) -> Form | None:
        pair = self._pair(node)
        return pair and added(*pair, -1.0)  # type: ignore[call-arg]  # as many as it takes

    def _mul(self, node: Node) -> Form | None:
        pair = self._pair(node)
        return pair and multiplied(*pair)

    def _sum(self, node: Node) -> Form | None:
        forms = [self.form(name, node.outputs[0]) for name in node.inputs]
        total = forms[0]
        for form in forms[1:]:
            total = None if total is None or form is None else added(total, form)
        return total

    def _matmul(self, node: Node) -> Form | None:
        return self._product(node.inputs[0], node.inputs[1], False)

    def _gemm(self, node: Node) -> Form | None:
        if (node.get("alpha"), node.get("transA")) != (1, 0) or node.input(2) and node.get("beta") != 1:
            return None
        product = self._product(node.inputs[0], node.inputs[1], bool(node.get("transB")))
        constant = self.form(node.input(2), node.outputs[0]) if node.input(2) else number(0.0)
        return None if product is None or constant is None else added(product, constant)

    def _product(self, name: str, weight: str, turned: bool) -> Form | None:
        array = self.weights.get(weight)
        if array is None or array.ndim != 2 or array.dtype != np.float32 or name in self.weights or not self.plain(name):
            return None
        total, row = Form(), 0
        for part in self.joined.get(name, [name]):
            n = self.width(part)
            total = added(total, times_matrix(self.vector(part), weight, turned, (row, row + n), array.shape[0 if turned else 1]))
            row += n
        return total

    def _concat(self, node: Node) -> None:
        rank = len(self.specs[node.outputs[0]].shape)
        if node.get("axis") % rank == rank - 1 and all(self.plain(name) and name not in self.weights for name in node.inputs):
            self.joined[node.outputs[0]] = [part for name in node.inputs for part in self.joined.get(name, [name])]

    def _same(self, node: Node) -> Form | None:
        """Axes of size 1 come and go; the last axis stays, and the others keep their order."""
        source, result = node.inputs[0], node.outputs[0]
        if not self.plain(source) or self._size(source) != self._size(result) or self.width(source) != self.width(result):
            return None
        if node.op == "Transpose":
            perm = [a for a in (node.get("perm") or ()) if self.specs[source].shape[a] != 1]
            if perm != sorted(perm) or not node.get("perm"):
                return None
        if source in self.joined:
            self.joined[result] = self.joined[source]
        return None if source in self.weights else self.form(source, result)

    def _split(self, node: Node) -> None:
        source, rank = node.inputs[0], len(self.specs[node.inputs[0]].shape)
        axis, given = node.get("axis") % rank, self.weights.get(node.input(1))
        n = self.specs[source].shape[axis]
        if node.input(1) and given is None or not isinstance(n, int) or not self.plain(source) or source in self.weights:
            return
        start = 0
        for name, size in zip(node.outputs, split_sizes(node, n, given)):
            if name and (form := self._piece(source, axis, start, size)) is not None:
                self.forms[name] = form
            start += size

    def _slice(self, node: Node) -> Form | None:
        given = [self.weights.get(name) if name else None for name in node.inputs[1:]]
        shape = self.specs[node.inputs[0]].shape
        if any(name and a is None for name, a in zip(node.inputs[1:], given)) or not self.plain(node.inputs[0]) or node.inputs[0] in self.weights:
            return None
        cuts = [
            (axis, start, n) if step == 1 else None
            for axis, start, step, n in slices(node, [d if isinstance(d, int) else ALL for d in shape], *given)
        ]
        cuts = [part for part in cuts if part is None or part[1:] != (0, shape[part[0]] if isinstance(shape[part[0]], int) else ALL)]  # whole axes
        if len(cuts) != 1 or cuts[0] is None or not isinstance(shape[cuts[0][0]], int):
            return None
        return self._piece(node.inputs[0], *cuts[0])

    def _gather(self, node: Node) -> Form | None:
        source, index = node.inputs
        if not self.plain(source) or source in self.weights:
            return None
        rank = len(self.specs[source].shape)
        axis, n = node.get("axis") % rank, self.specs[source].shape[node.get("axis")]
        if index in self.counters:
            return self.entry(source, axis, RUN)
        given = self.weights.get(index)
        if given is None or given.size != 1 or axis == rank - 1 or int(given.reshape(())) < 0 and not isinstance(n, int):
            return None
        at = int(given.reshape(()))
        return self.entry(source, axis, at + n if at < 0 else at)

    def _piece(self, source: str, axis: int, start: int, n: int) -> Form | None:
        """n entries of an axis: of the last one a range of the Form, of another one entry."""
        form = self.forms.get(source) or of_vector(self.whole(source))
        if axis == len(self.specs[source].shape) - 1:
            return cut(form, start, start + n)
        return self.entry(source, axis, start) if n == 1 else None

    def entry(self, source: str, axis: int, index: int | str) -> Form | None:
        """One entry of an axis other than the last."""
        if axis == len(self.specs[source].shape) - 1:
            return None
        form = self.forms.get(source) or of_vector(self.whole(source))
        if not all(v.index is None and self.specs[v.name].shape[:-1] == self.specs[source].shape[:-1] for v in _every_vector(form)):
            form = of_vector(self.whole(source))
        return mapped(form, lambda vector: replace(vector, axis=axis, index=index))


READERS = {
    **dict.fromkeys(SAME, Reading._same), **dict.fromkeys(UNARY_KINDS, Reading._activation), "Neg": Reading._neg, "Add": Reading._add, "Sub": Reading._sub,
    "Mul": Reading._mul, "Sum": Reading._sum, "MatMul": Reading._matmul, "Gemm": Reading._gemm, "Concat": Reading._concat, "Split": Reading._split,
    "Slice": Reading._slice, "Gather": Reading._gather, "Clip": Reading._clip,
}  # fmt: skip


def _every_vector(form: Form) -> set[Vector]:
    return form.vectors.union(*(_every_vector(f.inner) for factors, _ in form.products for f, _ in factors))
