"""Builds a Program: gives every value a place, then emits the nodes in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fastrnn.cells import Activation
from fastrnn.errors import ShapeError, UnsupportedModelError
from fastrnn.kernels import registry
from fastrnn.kernels.contract import Kernel
from fastrnn.kernels.native import _invoke
from fastrnn.kernels.reference import EVAL
from fastrnn.model import Model, Node
from fastrnn.model.ops import OPS, Spec
from fastrnn.plan import policy
from fastrnn.plan.emit import EMIT, new_args, set_activation
from fastrnn.plan.memory import Arena, View, c_strides, grid
from fastrnn.plan.planner import ALIASES, RECURRENT, VIEWS, Plan, weight_view
from fastrnn.plan.program import KernelStep, Program, PythonStep, Slot


def build_program(plan: Plan, model: Model, shapes: Mapping[str, tuple[int, ...]], time_axes: Mapping[str, int] | None = None) -> Program:
    """The program of `model` (plan.model, or its steppable form) for inputs of these shapes; others are omitted.

    time_axes: values whose memory is time-first although their graph shape has time at this axis.
    """
    return Builder(plan, model, shapes, time_axes or {}).build()


def _result_of(node: Node, source: View) -> View:
    """The view that a Slice, Squeeze, Unsqueeze or Identity makes of its input."""
    if node.op == "Slice":
        return source.part(node.get("start"), node.get("stop"))
    return source.squeezed() if node.op == "Squeeze" else source.unsqueezed() if node.op == "Unsqueeze" else source


def _source_of(node: Node, result: View) -> View:
    """The view of a Squeeze's, Unsqueeze's or Identity's input, given where its output lies."""
    return result.unsqueezed() if node.op == "Squeeze" else result.squeezed() if node.op == "Unsqueeze" else result


class Builder:
    """The state of one build. Emitters (emit.py) read views and specs and call `place`, `scratch` and `call`."""

    def __init__(self, plan: Plan, model: Model, shapes, time_axes):
        self.plan, self.model, self.packed = plan, model, plan.packed
        self.specs: dict[str, Spec] = model.infer(shapes)
        self.views: dict[str, View] = {name: weight_view(a) for name, a in model.weights.items()}
        self.steps: list[KernelStep | PythonStep] = []
        self.arena, self.estimated_ns = Arena(), 0.0
        self._owned: dict[str, tuple[int, int]] = {}  # value -> work range it holds, given back after its last use
        self._scratch: list[tuple[int, int]] = []  # ranges given back when the node in hand is done
        self._limits: dict[int, tuple[int, int]] = {}  # slot -> range of its integers
        self._lengths: dict[tuple[str, int], tuple[View, View]] = {}  # (value, T) -> sorted lengths, their rows
        self._zeros: View | None = None
        self._names = [v.name for v in model.inputs if v.name in shapes] + list(model.output_names)
        self._n_inputs = len(self._names) - len(model.output_names)
        self._slots: list[Slot] = []
        self._targets: list[View] = []
        for index, name in enumerate(self._names):
            self._add_slot(index, name, time_axes.get(name, 0))
        self._sink_outputs()
        self._last_use = self._last_uses()

    def _add_slot(self, index: int, name: str, time_axis: int) -> None:
        if self.specs.get(name) is None:
            raise ShapeError(f"output {name!r} needs an optional input that was left out")
        dtype, shape = np.dtype(self.specs[name].dtype), self.specs[name].shape
        memory = (shape[time_axis], *shape[:time_axis], *shape[time_axis + 1:]) if shape else ()
        strides = list(c_strides(memory))
        if shape:
            strides.insert(time_axis, strides.pop(0))
        self._slots.append(Slot(name, dtype, memory))
        view = View("slot", shape, tuple(strides), dtype, index)
        self.views.setdefault(name, view)
        if index >= self._n_inputs:
            self._targets.append(view)

    def _sink_outputs(self) -> None:
        """Producers of a Concat or a squeezed value that lies in an output write there directly."""
        produced = {name for node in self.model.nodes if node.op != "Slice" for name in node.outputs}
        for node in reversed(self.model.nodes):
            view = self.views.get(node.outputs[0])
            if node.op not in VIEWS or view is None or node.op == "Slice":
                continue
            start = 0
            for name in node.inputs:
                if node.op == "Concat":
                    stop = start + self.specs[name].shape[0]
                    part, start = view.part(start, stop), stop
                else:
                    part = _source_of(node, view)
                if name not in self.views and name in produced:
                    self.views[name] = part

    def _last_uses(self) -> dict[str, int]:
        """Index of the last node that reads or writes a value's memory, through views as well; outputs stay to the end."""
        last, root = {}, {}
        for k, node in enumerate(self.model.nodes):
            if node.op in ALIASES:
                root[node.outputs[0]] = root.get(node.inputs[0], node.inputs[0])
            for name in (*node.inputs, *node.outputs):
                last[root.get(name, name)] = k
        return last | {root.get(name, name): len(self.model.nodes) for name in self.model.output_names}

    # What emitters call.

    def infer_output(self, node: Node, k: int) -> tuple[int, ...]:
        """Shape of output k, whether or not it is wanted."""
        return OPS[node.op].infer(node, [self.specs.get(name) for name in node.inputs])[k].shape

    def place(self, name: str, shape: tuple[int, ...]) -> View:
        """The view of an output: where it was put already, or new work space. An unwanted output ("") gets scratch."""
        if not name:
            return self.scratch(shape)
        if name not in self.views:
            dtype = np.dtype(self.specs[name].dtype)
            view = View("work", shape, c_strides(shape), dtype)
            self.views[name] = replace(view, offset=self.arena.take(view.nbytes))
            self._owned[name] = (self.views[name].offset, view.nbytes)
        return self.views[name]

    def scratch(self, shape, dtype=np.float32) -> View:
        """Work space until the node is done."""
        view = View("work", tuple(shape), c_strides(shape), np.dtype(dtype))
        view = replace(view, offset=self.arena.take(view.nbytes))
        self._scratch.append((view.offset, view.nbytes))
        return view

    def zeros(self) -> View:
        """A row of zeros as long as any hidden state: the initial state where none is given."""
        if self._zeros is None:
            longest = max(a.shape[-1] for a in self.model.weights.values() if a.ndim == 3)
            self._zeros = weight_view(np.zeros(longest, np.float32))
        return self._zeros

    def limit(self, node: Node, name: str, low: int, high: int) -> View:
        """The view of integers that must lie in low..high. They must be an input of the model: the caller's door checks them."""
        view = self.views[name]
        if view.space != "slot" or view.index >= self._n_inputs:
            raise UnsupportedModelError(f"node {node.name!r} ({node.op}): {name!r} must be an input of the model")
        before = self._limits.get(view.index, (low, high))
        self._limits[view.index] = max(low, before[0]), min(high, before[1])
        return view

    def sorted_lengths(self, node: Node, name: str, T: int) -> tuple[View, View] | None:
        """Lengths sorted descending and the row of each, computed once for all layers; None where omitted."""
        if name not in self.views:
            return None
        if (name, T) not in self._lengths:
            view = self.limit(node, name, 0, T)
            B = view.shape[0]
            both = View("work", (2, B), (B, 1), np.dtype(np.int64))
            both = replace(both, offset=self.arena.take(both.nbytes))
            kernel = registry.find("sort_lengths", "native", self.plan.isa)
            self._emit(name, kernel, new_args(T=T, B=B), {"x": view, "y": both})
            self._lengths[name, T] = both, both.shifted(B)
        return self._lengths[name, T]

    def call(self, node: Node, kernel: Kernel, args, pointers, flops: float, weight_bytes: float) -> None:
        """Appends a kernel call, with its own scratch."""
        self.estimated_ns += policy.estimate_ns(flops, weight_bytes)
        self._emit(node.name, kernel, args, pointers)

    def elementwise(self, node: Node, x: View, y: View, activation: Activation) -> None:
        """y = activation(x) over rows; with the identity, a copy."""
        if not x.shape:
            x, y = x.unsqueezed(), y.unsqueezed()
        T, B, (x_t, x_b), (y_t, y_b) = grid(1, x, y)
        args = new_args(T=T, B=B, I=x.shape[-1], x_t=x_t, x_b=x_b, y_t=y_t, y_b=y_b)
        set_activation(args, 0, activation)
        kernel = registry.find("activate", "native", self.plan.isa)
        self.call(node, kernel, args, {"x": x, "y": y}, flops=20.0 * T * B * x.shape[-1], weight_bytes=0)

    def _emit(self, name: str, kernel: Kernel, args, pointers) -> None:
        for field, view in pointers.items():
            args[field] = 1 if view is not None else 0  # work_bytes may ask whether a pointer is there
        nbytes = _invoke.work_bytes(kernel.work_bytes, np.ascontiguousarray(args.reshape(1)))
        pointers = {**pointers, "work": self.scratch((nbytes,), np.uint8)} if nbytes else pointers
        self.steps.append(KernelStep(name, kernel, args.copy(), {f: v for f, v in pointers.items() if v is not None}))

    # The walk.

    def build(self) -> Program:
        """Emits every node and closes the program."""
        for k, node in enumerate(self.model.nodes):
            if node.op in VIEWS:
                self._view_op(node)
            elif self.packed[node.name, 0].kernel is None:
                self._python(node)
            else:
                EMIT[node.op](self, node)
            self._release(k)
        for name, target in zip(self.model.output_names, self._targets):
            if not self.views[name].same_place(target):
                self._copy(Node("Identity", f"copy to {name}", (name,), (name,)), self.views[name], target)
        slots = [replace(s, **dict(zip(("low", "high"), self._limits[k]))) if k in self._limits else s for k, s in enumerate(self._slots)]
        return Program(tuple(slots[:self._n_inputs]), tuple(slots[self._n_inputs:]), tuple(self.steps), self.arena.size, self.estimated_ns)

    def _release(self, k: int) -> None:
        for offset, nbytes in self._scratch:
            self.arena.give(offset, nbytes)
        self._scratch.clear()
        for name in [n for n in self._owned if self._last_use.get(n, -1) <= k]:
            self.arena.give(*self._owned.pop(name))

    def _copy(self, node: Node, source: View, target: View) -> None:
        if source.dtype == np.float32 and self.plan.backend != "reference":
            self.elementwise(node, source, target, Activation("identity"))
        else:
            self.steps.append(PythonStep(node.name, list, (source,), (target,)))

    def _view_op(self, node: Node) -> None:
        sources = [self.views.get(name) for name in node.inputs]
        output = node.outputs[0]
        if sources[0] is None:
            return  # an omitted optional input stays omitted
        if node.op == "Concat":
            target, start = self.place(output, self.specs[output].shape), 0
            for source in sources:
                part, start = target.part(start, start + source.shape[0]), start + source.shape[0]
                if not source.same_place(part):
                    self._copy(node, source, part)
            return
        view = _result_of(node, sources[0])
        target = self.views.setdefault(output, view)
        if not target.same_place(view):
            self._copy(node, view, target)

    def _python(self, node: Node) -> None:
        def function(arrays, evaluate=EVAL[node.op], node=node):
            return evaluate(node, arrays)

        inputs = tuple(self.views.get(name) if name else None for name in node.inputs)
        if node.op == "Gather":
            self.limit(node, node.inputs[1], 0, inputs[0].shape[0] - 1)
        if node.op in RECURRENT and node.input(4) in self.views:
            self.limit(node, node.input(4), 0, inputs[0].shape[node.get("layout")])
        outputs = tuple(self.place(name, self.infer_output(node, k)) if name else None for k, name in enumerate(node.outputs))
        self.estimated_ns += 20_000.0
        self.steps.append(PythonStep(node.name, function, inputs, outputs))
