"""The Plan: constants folded, kernels chosen and weights packed once; programs are made from it for the sizes in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from fastrnn.errors import FastRNNError, NotStreamableError, UnsupportedModelError
from fastrnn.kernels import isa
from fastrnn.model import Model, Node
from fastrnn.model.absent import absent_like, refuse_absent
from fastrnn.model.edit import changed
from fastrnn.model.graph import every_node
from fastrnn.model.infer import known
from fastrnn.model.recurrent import MATRIX_INPUTS, RECURRENT
from fastrnn.plan import explain, policy
from fastrnn.plan.graph.fold import fold
from fastrnn.plan.graph.kept import kept
from fastrnn.plan.graph.quantized import integers
from fastrnn.plan.graph.recognise import recognise
from fastrnn.plan.graph.rewrites import rewrite
from fastrnn.plan.lowering import parallel
from fastrnn.plan.lowering.fuse import fuse
from fastrnn.plan.route import route
from fastrnn.plan.streams.guess import guess_states, with_states
from fastrnn.plan.streams.streaming import steppable
from fastrnn.plan.weights.packed import Packed, pack, sources_of, takes_squares


@dataclass(frozen=True)
class Plan:
    """A model with its kernels chosen and weights packed. Immutable but for `later`, a cache; shared between threads.

    packed: by node. in_squares: whether convolutions may be computed in squares of outputs.
    later: nodes whose weights or place only the shapes in use make known, such as those in a branch, once packed.
    """

    model: Model
    backend: str
    isa: str
    precision: str
    threads: int
    packed: Mapping[str, list[Packed]]
    in_squares: bool = False
    later: dict[str, list[Packed]] = field(default_factory=dict)

    def specialised(self, shapes: Mapping[str, tuple], model: Model | None = None, values: Mapping[str, np.ndarray] = MappingProxyType({})) -> Model:
        """The model (this plan's, or its steppable form) for inputs of these shapes, Sizes and symbols among them, some with these values, with
        everything computed that they decide; other inputs are omitted."""
        model = recognise(fold(model or self.model, shapes, values))
        return model if self.backend == "reference" else rewrite(kept(model))

    def fused(self, model: Model) -> Model:
        """A specialised model with the nodes joined that one call runs."""
        return model if self.backend == "reference" else fuse(model)

    def packed_for(self, node: Node, weights: Mapping[str, np.ndarray]) -> list[Packed]:
        """A node's directions or groups: packed when the model was compiled, or now where only the shapes in use made weights constant."""
        sources = sources_of(node, weights)
        for before in (self.packed.get(node.name), self.later.get(node.name)):
            if before and len(before[0].sources) == len(sources) and all(a is b for a, b in zip(before[0].sources, sources)):
                return before
        packed = self.later[node.name] = pack(node, weights, self.backend, self.in_squares)  # which another thread may replace at once
        return packed

    def explain(self, shapes: Mapping[str, tuple | np.ndarray] | None = None) -> str:
        """A line for each op: kernels, backend, ISA, packed bytes and why; ops left to NumPy are marked. See explain.py."""
        return explain.table(self, shapes)

    def rows(self, shapes: Mapping[str, tuple | np.ndarray] | None = None) -> list[tuple[str, ...]]:
        """op, node, kernels, backend, isa, packed and why of every op; see explain.py."""
        return explain.rows(self, shapes)


def compile_plan(model: Model, backend: str = "auto", precision: str | Mapping[str, str] = "float32", threads: int = 1) -> Plan:
    """Folds constants, chooses kernels and packs weights. precision: what the model's weights were narrowed to (graph/narrow.py), for explain. Raises
    UnsupportedModelError for what cannot be honoured, by name."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UnsupportedModelError(f"threads must be a positive integer, got {threads!r}")
    backend = policy.resolve_backend(backend)
    refuse_absent(model, "compile")
    model = recognise(fold(integers(model), {v.name: v.shape for v in model.inputs}))
    if backend != "reference":
        model = rewrite(kept(model))
    plan = Plan(model, backend, isa.chosen() if backend != "reference" else "-", precision, min(threads, parallel.MOST_THREADS), {})
    in_squares, packed = _in_squares(plan), {}
    for node, _ in every_node(model.nodes):
        if known(model.specs, node.inputs) and route(node, model.specs, model.weights, backend).packs:
            packed[node.name] = pack(node, model.weights, backend, in_squares)
    model, packed = _give_up(model, packed) if backend != "reference" else (model, packed)
    return replace(plan, model=model, packed=packed, in_squares=in_squares)


def _in_squares(plan: Plan) -> bool:
    """Whether a model has convolutions that can be computed in squares of outputs, and no stream could run it along time, where pieces may begin between a square's outputs."""
    model = plan.model
    if plan.backend == "reference" or not any(takes_squares(node, model.weights.get(node.input(1))) for node, _ in every_node(model.nodes)):
        return False
    try:
        return not any(_has_time(with_states(plan, states)) for states in (model.states, guess_states(model).tied(model)))
    except FastRNNError:  # of a batch of one, perhaps
        return False


def _has_time(plan: Plan) -> bool:
    try:
        return bool(steppable(plan, 1).time_axes)
    except NotStreamableError:
        return False


def _give_up(model: Model, packed: dict[str, list[Packed]]) -> tuple[Model, dict[str, list[Packed]]]:
    """The same without the numbers of recurrent weights that nothing reads but what was packed from them. Biases stay: they are small, and packed two become one."""
    read_elsewhere = set(model.output_names)
    for node, _ in every_node(model.nodes):
        positions = MATRIX_INPUTS if node.op in RECURRENT and node.name in packed else ()
        read_elsewhere |= {name for k, name in enumerate(node.inputs) if k not in positions} | {
            name for graph in node.subgraphs for name in graph.outputs
        }
    stand_in = {id(a): absent_like(a) for name, a in model.weights.items() if name not in read_elsewhere}
    gone = {name: stand_in[id(a)] for name, a in model.weights.items() if name not in read_elsewhere}  # one array may go by several names
    packed = {name: [replace(p, sources=tuple(stand_in.get(id(a), a) for a in p.sources)) for p in parts] for name, parts in packed.items()}
    return changed(model, weights={**model.weights, **gone}), packed
