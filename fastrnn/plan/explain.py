"""What runs, as a table: for all shapes what route.py decides so far; for given ones, all numbers, the steps of the program itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.kernels.contract import Kernel
from fastrnn.model import Model, Node
from fastrnn.model.graph import every_node
from fastrnn.model.recurrent import RECURRENT
from fastrnn.plan import policy
from fastrnn.plan.graph.narrow import said
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.fuse import Fused, main_of
from fastrnn.plan.program import KernelStep, Program, PythonStep
from fastrnn.plan.route import Route, route
from fastrnn.plan.specialise import steered_program
from fastrnn.plan.weights.packed import Packed

if TYPE_CHECKING:
    from fastrnn.plan.planner import Plan

HEAD = ("op", "node", "kernel", "backend", "isa", "packed", "why")
SHAPE_OPS = ("Shape", "Size")
BY_NUMPY = "outside the promise of equal bits"


def table(plan: Plan, shapes: Mapping[str, tuple | np.ndarray] | None = None) -> str:
    """rows() under a line that says what the plan was made for."""
    lines = [HEAD, *rows(plan, shapes)]
    widths = [max(len(row[k]) for row in lines) for k in range(len(HEAD))]
    small = sorted({p.precision for parts in plan.packed.values() for p in parts} - {"float32"})
    precision = plan.precision if plan.precision != "float32" or not small else f"{' and '.join(small)} where the model has it"
    head = f"{plan.model.name}: backend {plan.backend}, ISA {plan.isa}, {precision}, {plan.threads} thread{'s' if plan.threads > 1 else ''}"
    return "\n".join([head, *("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in lines)])


def rows(plan: Plan, shapes: Mapping[str, tuple | np.ndarray] | None = None) -> list[tuple[str, ...]]:
    """op, node, kernels, backend, isa, packed bytes and why of every op.

    shapes: of inputs, symbols among them, for what is left once they are known; other inputs keep their own, optional ones are left out. Where
    all are numbers the kernels are those that the program calls, in its order, and what cannot run raises as it would in a call. An array in the
    place of a shape has that shape, and says what an input holds that steers. Without shapes: what holds for all of them.
    """
    if shapes is None:
        return Explanation(plan, plan.model).rows()
    whole = in_use(plan.model, shapes)
    if any(isinstance(n, str) for shape in whole.values() for n in shape):
        return Explanation(plan, plan.specialised(whole)).rows()
    return Explanation(plan, *steered_program(plan, whole, arrays_among(shapes))).rows()


def arrays_among(shapes: Mapping[str, tuple | np.ndarray]) -> dict[str, np.ndarray]:
    """Those that are arrays."""
    return {name: a for name, a in shapes.items() if isinstance(a, np.ndarray)}


def in_use(model: Model, shapes: Mapping[str, tuple | np.ndarray]) -> dict[str, tuple]:
    """Shapes of the inputs of a call that gives these: a symbol of theirs is the same number in the others."""
    shapes = {**shapes, **{name: a.shape for name, a in arrays_among(shapes).items()}}
    sizes = {d: n for v in model.inputs if v.name in shapes for d, n in zip(v.shape, shapes[v.name]) if isinstance(d, str)}
    return {
        v.name: tuple(shapes[v.name]) if v.name in shapes else tuple(sizes.get(d, d) for d in v.shape)
        for v in model.inputs
        if v.name in shapes or not v.optional
    }


class Explanation:
    """The rows of one model of a plan; of its program, where there is one."""

    def __init__(self, plan: Plan, model: Model, program: Program | None = None):
        self.plan, self.model = plan, model
        self.ran = None if program is None else _by_node(program)
        self.early = _early(model) if program is None else set()

    def rows(self) -> list[tuple[str, ...]]:
        """One or more of each node, in order; then those of outputs that are copies of what no node makes."""
        result = []
        for node, depth in every_node(self.plan.fused(self.model).nodes):
            result += self._fused(node, depth) if isinstance(node, Fused) else self._node(node, "  " * depth + node.name)
        made = {row[1].strip() for row in result}
        return result + [
            ("Identity", name, *_names(kernels), "-", "copied to the output") for name, kernels in (self.ran or {}).items() if name not in made
        ]

    def _fused(self, node: Fused, depth: int) -> list[tuple[str, ...]]:
        """The rows of a call of several nodes: the product that the others are fused into, else the last."""
        main = main_of(node)
        own = self._node(main, "  " * depth + main.name)
        others = [(n.op, "  " * depth + n.name, "-", "-", "-", "-", f"fused into {main.name}") for n in node.nodes if n is not main]
        if node.pool and (self.ran is None or node.pool.name not in self.ran):
            others.append((node.pool.op, "  " * depth + node.pool.name, "-", "-", "-", "-", f"fused into {main.name}"))
        elif node.pool:
            others += self._node(node.pool, "  " * depth + node.pool.name)
        return own + others if node.head else others + [(*own[0][:-1], f"{own[0][-1]}; {len(node.nodes)} nodes in one pass")]

    def _node(self, node: Node, label: str) -> list[tuple[str, ...]]:
        found = route(node, self.model.specs, self.model.weights, self.plan.backend)
        if node.name in self.early and found.way != "jump":
            return [(node.op, label, "-", "-", "-", "-", "computed for the shapes in use, before anything runs")]
        packed = self.plan.packed_for(node, self.model.weights) if found.packs else []
        kernels, why = ([packed[0].kernel] if packed else [found.kernel] if found.kernel else [None] if found.way == "numpy" else []), found.why
        why = packed[0].why if packed else why
        if self.ran is not None:
            kernels = self.ran.get(node.name, [])
            why = _in_this_program(found, why, kernels)
        if found.way == "numpy" or packed and packed[0].kernel is None:
            why = f"{why}; {BY_NUMPY}"
        if small := said(node, self.model.weights, self.plan.precision):
            why = f"{why}; {small}" if why else small
        if node.op not in RECURRENT:
            return [(node.op, label, *_names(kernels), _bytes(packed), why)]
        return self._directions(node, label, packed, kernels, why)

    def _directions(self, node: Node, label: str, packed: list[Packed], kernels: list[Kernel | None], why: str) -> list[tuple[str, ...]]:
        if packed and (shared := self._shared(node, packed)):
            why = f"{why}; {shared}"
        backwards = node.get("direction") == "reverse"
        first = (node.op, label + (" (reverse)" if backwards else ""), *_names(kernels), _bytes(packed[:1]), why)
        others = [(node.op, f"{label} (reverse)", *_names([p.kernel] if kernels else []), _bytes([p]), why) for p in packed[1:]]
        return [first, *others]

    def _shared(self, node: Node, packed: list[Packed]) -> str:
        """How a layer is shared out over threads; on one, whether its directions take turns. Nothing where there is nothing to say."""
        layout, shape, several = node.get("layout"), self.model.specs[node.inputs[0]].shape, self.plan.threads > 1
        if shape is None or any(isinstance(n, str) for n in shape[:2]):
            return f"up to {self.plan.threads} threads, by the shapes in use" if several else ""
        if not several:
            turns = policy.in_turn([p.kernel for p in packed], shape[1 - layout], packed[0].units)
            return "both directions step by step in turn" if turns else ""
        return parallel.share_of_layer(self.plan.threads, packed, shape[layout], shape[1 - layout]).why


def _in_this_program(found: Route, why: str, kernels: list) -> str:
    """The reason, where a program is there to look at."""
    if found.way == "view" and kernels:
        return "strides cannot say it: copied"
    if found.way == "jump":
        return "decided at run time"
    if not kernels and found.way in ("copy", "kernel"):
        return "made in its place" if found.way == "copy" else "nothing to compute"
    return why


def _by_node(program: Program) -> dict[str, list[Kernel | None]]:
    """The kernels of each node, in order, each once; None for NumPy."""
    result: dict[str, dict[Kernel | None, None]] = {}
    for step in program.steps:
        if isinstance(step, KernelStep) or isinstance(step, PythonStep) and not step.packs:
            result.setdefault(step.node, {})[step.kernel if isinstance(step, KernelStep) else None] = None
    return {name: list(kernels) for name, kernels in result.items()}


def _names(kernels: Iterable[Kernel | None]) -> tuple[str, str, str]:
    """kernel, backend and isa: each name once."""
    named = [("NumPy", "reference", "-") if k is None else (k.name, k.backend, k.isa) for k in kernels] or [("-", "-", "-")]
    return tuple(", ".join(dict.fromkeys(column)) for column in zip(*named))


def _bytes(packed: Iterable[Packed]) -> str:
    total = sum(p.weight_bytes for p in packed)
    return f"{total:,} B" if total else "-"


def _early(model: Model) -> set[str]:
    """Names of nodes that depend on nothing but shapes and constants."""
    given, early = set(model.weights), set()
    for node, _ in every_node(model.nodes):
        if node.op in SHAPE_OPS or not node.subgraphs and any(node.inputs) and all(name in given for name in node.inputs if name):
            given |= set(node.outputs)
            early.add(node.name)
    return early
