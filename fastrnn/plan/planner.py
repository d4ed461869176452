"""The Plan: constants folded, kernels chosen and weights packed once; programs are built from it for the shapes in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels import isa
from fastrnn.model import Model, Node
from fastrnn.model.absent import absent_like, refuse_absent
from fastrnn.model.graph import every_node
from fastrnn.model.infer import known
from fastrnn.model.ops import ANY_DIM
from fastrnn.model.ops.foreign import PREFIX
from fastrnn.model.recurrent import MATRIX_INPUTS, RECURRENT
from fastrnn.model.sizes import Scope
from fastrnn.plan import policy
from fastrnn.plan.emit import elementwise, indexing, matrix, normal, recurrent  # noqa: F401  (they register emitters)
from fastrnn.plan.emit.emitter import EMIT
from fastrnn.plan.graph.fold import REPEATING, fold, replace_model
from fastrnn.plan.graph.recognise import recognise
from fastrnn.plan.graph.rewrite import rewrite
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.fuse import Fused, fuse
from fastrnn.plan.lowering.views import is_view
from fastrnn.plan.weights.packed import Packed, pack, sources_of

SHAPE_OPS = ("Shape", "Size")


@dataclass(frozen=True)
class Plan:
    """A model with its kernels chosen and weights packed. Immutable but for `later`, a cache; shared between threads.

    packed: by node. later: nodes whose weights or place only the shapes in use make known, such as those in a branch, once packed.
    """

    model: Model
    backend: str
    isa: str
    precision: str
    threads: int
    packed: Mapping[str, list[Packed]]
    later: dict[str, list[Packed]] = field(default_factory=dict)

    def specialised(self, shapes: Mapping[str, tuple], model: Model | None = None, values: Mapping[str, np.ndarray] = MappingProxyType({})) -> Model:
        """The model (this plan's, or its steppable form) for inputs of these shapes, Sizes and symbols among them, some with these values, with
        everything computed that they decide; other inputs are omitted."""
        model = recognise(fold(model or self.model, shapes, values))
        return model if self.backend == "reference" else rewrite(model)

    def packed_for(self, node: Node, weights: Mapping[str, np.ndarray]) -> list[Packed]:
        """A node's directions or groups: packed when the model was compiled, or now where only the shapes in use made weights constant."""
        sources = sources_of(node, weights)
        for before in (self.packed.get(node.name), self.later.get(node.name)):
            if before and len(before[0].sources) == len(sources) and all(a is b for a, b in zip(before[0].sources, sources)):
                return before
        packed = self.later[node.name] = pack(node, weights, self.backend)  # which another thread may replace at once
        return packed

    def explain(self, shapes: Mapping[str, tuple] | None = None) -> str:
        """A line for each op: kernel, backend, ISA, packed bytes and why. Ops left to NumPy are marked.

        shapes: of inputs, symbols among them, for what is left once they are known; without, what holds for all shapes.
        """
        table = [("op", "node", "kernel", "backend", "isa", "packed", "why"), *self.rows(shapes)]
        widths = [max(len(row[k]) for row in table) for k in range(7)]
        head = f"{self.model.name}: backend {self.backend}, ISA {self.isa}, {self.precision}, {self.threads} thread{'s' if self.threads > 1 else ''}"
        return "\n".join([head, *("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in table)])

    def rows(self, shapes: Mapping[str, tuple] | None = None) -> list[tuple[str, ...]]:
        """op, node, kernel, backend, isa, packed and why of every op; see explain."""
        model = self.specialised(self._sized(shapes)) if shapes else self.model
        rows, early = [], _early(model)
        for node, depth in every_node(model.nodes if self.backend == "reference" else fuse(model).nodes):
            label = "  " * depth + node.name
            if isinstance(node, Fused):
                rows += self._fused(model, node, depth)
            elif node.op == "If":
                rows.append((node.op, label, "-", "-", "-", "-", "decided for the shapes in use, else at run time"))
            elif node.op in REPEATING:
                rows.append((node.op, label, "-", "-", "-", "-", "laid out, or run again and again, for the shapes in use"))
            elif node.name in early:
                rows.append((node.op, label, "-", "-", "-", "-", "computed for the shapes in use, before anything runs"))
            elif is_view(node, model.weights):
                rows.append((node.op, label, "-", "-", "-", "-", "a view: nothing to compute"))
            else:
                rows += self._kernels(model, node, label)
        return rows

    def _sized(self, shapes: Mapping[str, tuple]) -> dict[str, tuple]:
        """Shapes of all inputs, given ones as a program for them has them: numbers of free dimensions as Sizes, so that the same is left to run."""
        scope, sized = Scope(), {v.name: v.shape for v in self.model.inputs if not v.optional or v.name in shapes} | dict(shapes)
        for value in self.model.inputs:
            if value.name in shapes:
                sized[value.name] = tuple(scope.dimension(f"{value.name}[{axis}]" if d == ANY_DIM else d, n) if isinstance(d, str) and not isinstance(n, str) else n
                                          for axis, (d, n) in enumerate(zip(value.shape, shapes[value.name])))
        return sized

    def _fused(self, model: Model, node: Fused, depth: int) -> list[tuple[str, ...]]:
        """The rows of a call of several nodes: the product that the others are fused into, else the last."""
        main = node.head or node.nodes[-1]
        rows = self._kernels(model, main, "  " * depth + main.name)
        others = [(n.op, "  " * depth + n.name, "-", "-", "-", "-", f"fused into {main.name}") for n in node.nodes if n is not main]
        if node.head:
            return rows + others
        return others + [(*rows[0][:-1], f"{rows[0][-1]}; {len(node.nodes)} nodes in one pass")]

    def _kernels(self, model: Model, node: Node, label: str) -> list[tuple[str, ...]]:
        emitter = EMIT.get(node.op)
        packed = self.packed.get(node.name, [])
        if not packed and model is not self.model and emitter and emitter.packs and emitter.refused(node, model.specs, model.weights) is None:
            packed = self.packed_for(node, model.weights)
        if packed:
            choice = policy.Choice(packed[0].kernel, packed[0].why)
        elif node.op == "Concat":
            choice = policy.pick("copy32", self.backend)
        elif emitter:
            choice = emitter.choose(node, model.specs, model.weights, self.backend)
        else:
            choice = policy.pick(node.op.lower(), self.backend)
        kernel, why = choice.kernel, choice.why
        if kernel is None:
            why = "by the onnx package's reference implementation" if node.op.startswith(PREFIX) else why
            return [(node.op, label, "NumPy", "reference", "-", "-", f"{why}; outside the promise of equal bits")]
        if node.op in RECURRENT and self.threads > 1:
            why = f"{why}; {self._threads(model, node, packed)}"
        directions = node.op in RECURRENT and len(packed) == 2
        sizes = [p.weight_bytes for p in packed] if directions else [sum(p.weight_bytes for p in packed)]
        return [(node.op, label + (" (reverse)" if d or node.op in RECURRENT and node.get("direction") == "reverse" else ""), kernel.name, kernel.backend,
                 kernel.isa, f"{size:,} B" if size else "-", why) for d, size in enumerate(sizes)]


    def _threads(self, model: Model, node: Node, packed: list[Packed]) -> str:
        layout, shape = node.get("layout"), model.specs[node.inputs[0]].shape
        if shape is None or not all(isinstance(n, int) for n in shape[:2]):
            return f"up to {self.threads} threads, by the shapes in use"
        return parallel.share_of_layer(self.threads, packed, shape[layout], shape[1 - layout]).why


def _early(model: Model) -> set[str]:
    """Names of nodes that depend on nothing but shapes and constants."""
    given, early = set(model.weights), set()
    for node, _ in every_node(model.nodes):
        if node.op in SHAPE_OPS or not node.subgraphs and any(node.inputs) and all(name in given for name in node.inputs if name):
            given |= set(node.outputs)
            early.add(node.name)
    return early


def compile_plan(model: Model, backend: str = "auto", precision: str = "float32", threads: int = 1) -> Plan:
    """Folds constants, chooses kernels and packs weights. Raises UnsupportedModelError for what cannot be honoured, by name."""
    if precision not in ("float32", "bfloat16", "int8"):
        raise UnsupportedModelError(f"precision {precision!r} is unknown")
    if precision != "float32":
        raise UnsupportedModelError(f"precision {precision!r} is not supported yet; use 'float32'")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UnsupportedModelError(f"threads must be a positive integer, got {threads!r}")
    backend = policy.resolve_backend(backend)
    refuse_absent(model, "compile")
    model = recognise(fold(model, {v.name: v.shape for v in model.inputs}))
    if backend != "reference":
        model = rewrite(model)
    packed: dict[str, list[Packed]] = {}
    for node, _ in every_node(model.nodes):
        emitter = EMIT.get(node.op)
        if emitter and emitter.packs and known(model.specs, node.inputs) and emitter.refused(node, model.specs, model.weights) is None:
            packed[node.name] = pack(node, model.weights, backend)
    model, packed = _give_up(model, packed) if backend != "reference" else (model, packed)
    return Plan(model, backend, isa.chosen() if backend != "reference" else "-", precision, min(threads, parallel.MOST_THREADS), packed)


def _give_up(model: Model, packed: dict[str, list[Packed]]) -> tuple[Model, dict[str, list[Packed]]]:
    """The same without the numbers of recurrent weights that nothing reads but what was packed from them. Biases stay: they are small, and packed two become one."""
    read_elsewhere = set(model.output_names)
    for node, _ in every_node(model.nodes):
        positions = MATRIX_INPUTS if node.op in RECURRENT and node.name in packed else ()
        read_elsewhere |= {name for k, name in enumerate(node.inputs) if k not in positions} | {name for graph in node.subgraphs for name in graph.outputs}
    gone = {name: absent_like(a) for name, a in model.weights.items() if name not in read_elsewhere}
    stand_in = {id(model.weights[name]): a for name, a in gone.items()}
    packed = {name: [replace(p, sources=tuple(stand_in.get(id(a), a) for a in p.sources)) for p in parts] for name, parts in packed.items()}
    lighter = replace_model(model, model.inputs, model.nodes, {**model.weights, **gone})
    lighter.__dict__["specs"] = model.specs
    return lighter, packed
