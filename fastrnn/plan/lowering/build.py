"""Builds a Program: gives every value a place, then emits the nodes in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.errors import NotStreamableError, UnsupportedModelError
from fastrnn.kernels.contract import Kernel, Key
from fastrnn.kernels.reference import recurrence  # noqa: F401  (gives the recurrent ops their meaning)
from fastrnn.model import Model, Node, State
from fastrnn.model.absent import Absent
from fastrnn.model.graph import every_node
from fastrnn.model.infer import evaluate
from fastrnn.model.ops import OPS, Spec
from fastrnn.model.ops.registry import has_symbol
from fastrnn.model.recurrent import INPUTS, RECURRENT, input_of
from fastrnn.model.sizes import Scope, Whole
from fastrnn.plan import policy
from fastrnn.plan.emit.emitter import EMIT, sized
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.chain import chain_of
from fastrnn.plan.lowering.fuse import Fused, main_of
from fastrnn.plan.lowering.hoist import hoisted
from fastrnn.plan.lowering.jumps import agreed, branch, repeat
from fastrnn.plan.lowering.memory import View, c_strides, weight_view
from fastrnn.plan.lowering.ranges import Ranges
from fastrnn.plan.lowering.sharing import last_uses, share_places, sink_outputs
from fastrnn.plan.lowering.views import VIEWS, is_view
from fastrnn.plan.lowering.windows import Pooled, pooled_behind
from fastrnn.plan.program import JumpStep, Kept, KernelStep, Program, PythonStep, Region, Slot, Step
from fastrnn.plan.route import route
from fastrnn.plan.weights.met import packed_while_running
from fastrnn.plan.weights.packed import Packed

if TYPE_CHECKING:
    from fastrnn.plan.planner import Plan


def build_program(
    plan: Plan,
    model: Model,
    scope: Scope | None = None,
    time_axes: Mapping[str, int] | None = None,
    kept: Sequence[State] = (),
    values: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Program:
    """The program of a specialised model (Plan.specialised), whose input shapes are numbers or the Sizes of `scope`.

    time_axes: values whose memory is time-first although their graph shape has time at this axis. kept: states that a stream keeps: their inputs
    are its memory, their outputs are no outputs of the program. values: what inputs must hold, where the model was specialised to it.
    """
    return Builder(plan, model, time_axes or {}, kept, values).build(scope or Scope())


class Builder(Ranges):
    """The state of one build. Emitters read `views`, `specs` and `weights` and call what is here and in Layout."""

    def __init__(self, plan: Plan, model: Model, time_axes: Mapping[str, int], kept: Sequence[State], values: Mapping[str, np.ndarray]):
        super().__init__(keep=plan.threads > 1)
        self.compiled = plan.backend != "reference"  # else every step is NumPy's
        model = plan.fused(model)
        self.plan, self.model, self.weights = plan, model, model.weights
        self.specs: dict[str, Spec] = dict(model.specs)
        self.views = {name: self._weight(name, a) for name, a in model.weights.items() if not isinstance(a, Absent)}
        self.hoisted = hoisted(model)
        self.steps: list[Step | None] = []
        self.estimated_ns: Whole = 0
        self.epilogues = {
            node.head.name: chain_of(node.nodes, self.weights, node.head.outputs[0])
            for node, _ in every_node(model.nodes)
            if isinstance(node, Fused) and node.head and node.nodes
        }
        self.pools: dict[str, Pooled] = {}  # behind the convolution in hand, by its name
        self._worth: dict[int, Whole] = {}  # nanoseconds of steps by index
        self._limits: dict[int, tuple[int, int]] = {}  # slot -> range of its integers
        self._lengths: dict[tuple[str, int], list[tuple]] = {}  # (value, deals) -> (T, (sorted lengths, their rows))
        self._depth = 0  # of Ifs around the node in hand
        self._met: tuple[str, list[Packed]] = "", []  # the node whose weights were packed last while running, and those
        self._values = values
        self._kept, tied = tuple(kept), {state.output for state in kept}
        self._outputs = tuple(name for name in model.output_names if name not in tied)
        self._names = [*model.input_names, *self._outputs]
        self._n_inputs = len(model.inputs)
        self._slots: list[Slot] = []
        self._targets: list[View] = []
        for index, name in enumerate(self._names):
            self._add_slot(index, name, time_axes.get(name, 0))
        sink_outputs(self)
        share_places(self)
        self._last_use = last_uses(self)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a value, which must be known by now."""
        spec = self.specs.get(name)
        if spec is None or has_symbol(spec.shape):
            maker = next((node for node in self.model.nodes if name in node.outputs), None)
            if maker is not None and maker.op == "If":
                agreed(self, maker, maker.outputs.index(name))
            of = f" of node {maker.name!r} ({maker.op})" if maker is not None else ""
            raise UnsupportedModelError(
                f"value {name!r}{of}: its shape depends on data, {'' if spec is None or spec.shape is None else spec.shape}; only shapes that "
                "follow from the inputs' shapes and from constants are supported"
            )
        return spec.shape

    def _weight(self, name: str, array: np.ndarray) -> View:
        """The view of a weight. Sizes lie as int64 in memory, in which an int32 is the first half."""
        view = weight_view(array)
        if array.dtype == object and self.specs[name].dtype == "int32":
            return replace(view, dtype=np.dtype(np.int32), strides=tuple(2 * s for s in view.strides))
        return view

    def _add_slot(self, index: int, name: str, time_axis: int) -> None:
        shape, dtype = self.shape_of(name), np.dtype(self.specs[name].dtype)
        memory = (shape[time_axis], *shape[:time_axis], *shape[time_axis + 1 :]) if shape else ()
        strides = list(c_strides(memory))
        if shape:
            strides.insert(time_axis, strides.pop(0))
        self._slots.append(Slot(name, dtype, memory, value=self._values.get(name) if index < self._n_inputs else None))
        view = View("slot", shape, tuple(strides), dtype, index)
        self.views.setdefault(name, view)
        if index >= self._n_inputs:
            self._targets.append(view)

    def is_view(self, node: Node) -> bool:
        """Whether a node's result is its input's memory."""
        return is_view(node, self.weights)

    # What emitters call, beside what Layout has.

    def packed(self, node: Node) -> list[Packed]:
        """The packed weights of a node; of those that are no constants, where they will lie."""
        if route(node, self.specs, self.weights, self.plan.backend).packs:
            return self.plan.packed_for(node, self.weights)
        if self._met[0] != node.name:
            self._met = node.name, packed_while_running(self, node)
        return self._met[1]

    def kernel(self, key: Key | str) -> Kernel:
        """A kernel by key, or by role, as the plan's backend has it."""
        return policy.pick(key, self.plan.backend, self.plan.isa).kernel

    def infer_output(self, node: Node, k: int) -> tuple[int, ...]:
        """Shape of output k, whether or not it is wanted."""
        if k < len(node.outputs) and node.outputs[k]:
            return self.shape_of(node.outputs[k])
        return OPS[node.op].infer(node, [self.specs.get(name) if name else None for name in node.inputs])[k].shape

    def dtype_of(self, name: str) -> np.dtype:
        """dtype of a value."""
        return np.dtype(self.specs[name].dtype)

    def call(self, name: str, kernel: Kernel, args, pointers, flops: Whole, weight_bytes: Whole) -> None:
        """Appends a kernel call and counts its time."""
        self._worth[len(self.steps)] = policy.estimate_ns(flops, weight_bytes)
        self.estimated_ns = self.estimated_ns + self._worth[len(self.steps)]
        self.step(name, kernel, args, pointers)

    @contextmanager
    def at_once(self, whether: bool = True) -> Iterator[None]:
        """Kernel calls made within run at once: they read nothing of one another."""
        first = len(self.steps)
        yield
        if whether:
            self.steps[first:] = parallel.at_once(self.steps[first:])

    def step(self, name: str, kernel: Kernel, args, pointers) -> None:
        """Appends a kernel call with the scratch that the kernel asks for."""
        work = None
        if kernel.work_bytes:
            work = self.arena.take(None)
            self._scratch.append(work)
        self.steps.append(KernelStep(name, kernel, args.copy(), {f: v for f, v in pointers.items() if v is not None}, work))

    def python(self, name: str, function, inputs, outputs) -> None:
        """Appends function(arrays) -> arrays."""
        self.steps.append(PythonStep(name, function, tuple(inputs), tuple(outputs)))

    def copy(self, name: str, source: View, target: View) -> None:
        """target = source, of one shape."""
        if source.dtype.kind == "c":
            source, target = source.pairs(), target.pairs()
        if self.compiled:
            self.loops(name, sized("copy", source.dtype), target, source)
        else:
            self.python(name, list, (source,), (target,))

    # The walk.

    def build(self, scope: Scope) -> Program:
        """Emits every node and closes the program, which holds as far as what `scope` has noted by now."""
        makers = {name: main_of(node).name for node in self.model.nodes for name in node.outputs}
        self.keeping = True
        for node in self.model.nodes:
            if node.name in self.hoisted:
                self.emit(node)
        self.keeping, self._first = False, len(self.steps)
        for k, node in enumerate(self.model.nodes):
            if node.name not in self.hoisted:
                self.emit(node)
            self.release(lambda name, k=k: self._last_use.get(self.root.get(name, name), -1) <= k)
        for name, target in zip(self._outputs, self._targets):
            if not self.views[name].same_place(target):
                self.copy(makers.get(name, name), self.views[name], target)
        if self.plan.threads > 1 and not any(isinstance(step, JumpStep) for step in self.steps):
            self.steps = parallel.wavefronts(self.steps, [self._worth.get(k, 0) for k in range(len(self.steps))])
        slots = [replace(s, **dict(zip(("low", "high"), self._limits[k]))) if k in self._limits else s for k, s in enumerate(self._slots)]
        states = tuple(self._following(state) for state in self._kept)
        region = Region(dict(scope.dimensions), tuple(scope.guards))
        return Program(
            tuple(slots[: self._n_inputs]),
            tuple(slots[self._n_inputs :]),
            tuple(self.steps),
            self.arena.blocks(),
            self.estimated_ns,
            region,
            self._first,
            states,
        )

    def _following(self, state: State) -> Kept:
        """What a state is at the next step, in C order."""
        current, following = self._slots[self._names.index(state.input)], self.views[state.output]
        if state.index is not None:
            following = following.at(0, state.index) if len(following.shape) > len(current.shape) else following.part(state.index, state.index + 1)
        if (
            following.dtype != current.dtype
            or len(following.shape) != len(current.shape)
            or any(a != b for a, b in zip(following.shape, current.shape))
        ):
            raise NotStreamableError(
                f"state {state.input!r} is {current.dtype} {current.shape}, its output {state.output!r} {following.dtype} {following.shape}"
            )
        return Kept(state.input, self.contiguous(following, f"{state.output} for {state.input}"))

    def emit(self, node: Node) -> None:
        """A node's steps."""
        if isinstance(node, Fused) and node.head:
            if node.pool and not self._pools(node):
                self.emit(replace(node, outputs=node.pool.inputs[:1], pool=None))
                return self.emit(node.pool)
            node = replace(node.head, outputs=node.outputs if not node.pool else node.pool.inputs[:1])  # what follows is in `epilogues` and `pools`
        around, self.at = self.at, node.name
        match route(node, self.specs, self.weights, self.plan.backend).way:
            case "jump" if node.op == "If":
                branch(self, node)
            case "jump":
                repeat(self, node)
            case "view":
                self._view(node)
            case "copy":
                self._concat(node)
            case "kernel":
                EMIT[node.op].run(self, node)
            case "numpy":
                self._numpy(node)
        self.at = around
        self.release_scratch()

    def _pools(self, node: Fused) -> bool:
        """Whether a convolution's call does the pooling behind it as well; one of squares, where they fill its windows' lines."""
        pooled = pooled_behind(node.pool, self.specs)
        found = route(node.head, self.specs, self.weights, self.plan.backend)
        if found.way != "kernel" or 0 in self.shape_of(pooled.output):
            return False
        if found.packs and pooled.lines % 2 and self.packed(node.head)[0].kernel.key.role == "winograd":
            return False
        self.pools[node.head.name] = pooled
        return True

    def _view(self, node: Node) -> None:
        source, shapes = self.views[node.inputs[0]], [self.infer_output(node, k) for k in range(len(node.outputs))]
        constants = [None if not name else self.weights.get(name) for name in node.inputs[1:]]
        results = VIEWS[node.op](node, source, constants, shapes)
        if results is None:
            results = VIEWS[node.op](node, self.contiguous(source, node.outputs[0]), constants, shapes)
        for name, view in zip(node.outputs, results):
            if name and not self.views.setdefault(name, view).same_place(view):
                self.copy(node.name, view, self.views[name])

    def _concat(self, node: Node) -> None:
        y, start = self.place(node.outputs[0], self.infer_output(node, 0)), 0
        axis = node.get("axis") % len(y.shape)
        for name in node.inputs:
            n = self.shape_of(name)[axis]
            part, start = y.part(start, start + n, axis), start + n
            if not self.views[name].same_place(part):
                self.copy(node.name, self.views[name], part)

    def _numpy(self, node: Node) -> None:
        inputs = [self.views[name] if name else None for name in node.inputs]
        if node.op == "Gather" and not node.get("wrap"):
            inputs[1] = self.limit(node, node.inputs[1], 0, inputs[0].shape[node.get("axis")] - 1)
        if node.op in RECURRENT and (lengths := input_of(node, "sequence_lens")):
            inputs[INPUTS.index("sequence_lens")] = self.limit(node, lengths, 0, inputs[0].shape[node.get("layout")])
        outputs = [self.place(name, self.infer_output(node, k)) if name else None for k, name in enumerate(node.outputs)]
        self.estimated_ns = self.estimated_ns + 20_000
        self.python(node.name, lambda arrays, node=node: evaluate(node, arrays), inputs, outputs)

    @contextmanager
    def inside_a_branch(self) -> Iterator[None]:
        """Steps made within may not run at all: nothing after them counts on what they make."""
        lengths, self._depth = self._lengths, self._depth + 1
        self._lengths = {key: list(found) for key, found in lengths.items()}
        yield
        self._lengths, self._depth = lengths, self._depth - 1
