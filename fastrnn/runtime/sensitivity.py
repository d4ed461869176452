"""What each node's small weights cost, one node at a time: for those who must choose what to leave in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model
from fastrnn.model.graph import Node, every_node
from fastrnn.model.show import notebook
from fastrnn.plan.graph.narrow import chosen, narrowed, small_weights
from fastrnn.runtime.progress import shown
from fastrnn.runtime.session import bound, compile

if TYPE_CHECKING:
    from fastrnn.typing import ArrayLike, Constants, Layer, Precision, States

HEAD = ("op", "node", "precision", "weights", "bytes saved", "error")


@dataclass(frozen=True)
class Cost:
    """One node whose weights are small while those of all others stay float32.

    weights: numbers in its matrices. bytes_saved: of float32's, its scales counted. errors: by output, the largest difference to float32 as a fraction of
    the output's largest entry.
    """

    op: str
    node: str
    precision: str
    weights: int
    bytes_saved: int
    errors: Mapping[str, float]

    @property
    def error(self) -> float:
        """The largest of any output; NaN counts as the largest."""
        return max(self.errors.values(), key=_rank, default=0.0)


@dataclass(frozen=True, repr=False)
class Sensitivity(Sequence[Cost]):
    """Rows of Cost, the dearest first; its text is a table. together: errors by output where all of these nodes are small at once."""

    rows: tuple[Cost, ...]
    together: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Cost: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Cost, ...]: ...

    def __getitem__(self, index: int | slice) -> Cost | tuple[Cost, ...]:
        return self.rows[index]

    def __repr__(self) -> str:
        if not self.rows:
            return "Sensitivity: the precision reaches no node"
        outputs = list(self.together)
        shown_outputs = outputs if len(outputs) > 1 else []  # of one output the error says it
        lines = [(*HEAD, *shown_outputs)]
        lines += [(c.op, c.node, c.precision, f"{c.weights:,}", f"{c.bytes_saved:,}", *_figures(c.errors, shown_outputs)) for c in self.rows]
        lines.append(
            (
                "",
                "all of them",
                "",
                *(f"{sum(n):,}" for n in zip(*((c.weights, c.bytes_saved) for c in self.rows))),
                *_figures(self.together, shown_outputs),
            )
        )
        widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) if k < 3 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths))).rstrip() for line in lines
        )

    def _repr_html_(self) -> str:
        said = (
            f"{len(self)} nodes, together {_figures(self.together, [])[0]}; the dearest is {self[0].node!r}, {self[0].error:.1e}"
            if self.rows
            else repr(self)
        )
        return notebook(said, repr(self), "node by node")


def sensitivity(
    model: Model | Layer,
    inputs: Mapping[str, ArrayLike],
    precision: Precision = "int8",
    *,
    states: States | None = None,
    constants: Constants | None = None,
    stream_batch: int | None = None,
    progress: bool | None = None,
) -> Sensitivity:
    """What each node's precision costs: a Sensitivity, a sequence of Cost, the dearest first.

    For each node with weights that the precision reaches, the model is compiled with that node alone in it and compared with itself in float32, rounding of what
    the weights multiply included.

    model, states, constants: as compile takes them. inputs: arrays by name, of one call; typical data, for errors depend on it. precision: "int8", "bfloat16", or
    a dict by node, as compile takes it. stream_batch: then inputs are instead what Stream.push takes, a step in each entry of axis 0, and go through streams of
    so many rows, states carried. progress: a bar, None: in a notebook and on a terminal (with rich). Compiles the model twice, and once a node.

    Raises UnsupportedModelError as compile does, and for "float32"; ShapeError and DTypeError naming the input, NotStreamableError.
    """
    model, choice = bound(model, states, constants), chosen(precision)
    if {choice.default, *choice.named.values()} == {"float32"}:
        raise UnsupportedModelError('precision: in float32 no node costs anything; give "int8", "bfloat16", or a dict by node')
    small = narrowed(model, precision)
    already = {node.name for node, _ in every_node(model.nodes) if small_weights(node, model.weights)}
    nodes = [
        node
        for node, _ in every_node(small.nodes)
        if choice.of(node) != "float32" and small_weights(node, small.weights) and node.name not in already
    ]
    ties = {s.input: s.output if s.index is None else (s.output, s.index) for s in model.states} or states

    def outputs(one: Precision) -> Mapping[str, np.ndarray]:
        session = compile(model, precision=one, states=ties)
        if stream_batch is None:
            return session.run(inputs)
        stream = session.stream(stream_batch)
        made = stream.push(inputs)
        return dict(zip(stream.output_names, made if isinstance(made, tuple) else (made,), strict=True))

    with shown(progress, len(nodes) + 2, "sensitivity") as show:
        exact = outputs("float32")
        show(1, "all of them")
        together, rows = _errors(exact, outputs(precision)), []
        for done, node in enumerate(nodes):
            show(2 + done, node.name)
            errors = _errors(exact, outputs({node.name: choice.of(node)}))
            rows.append(Cost(node.op, node.name, choice.of(node), *_size(node, small), errors))
    return Sensitivity(tuple(sorted(rows, key=lambda row: _rank(row.error), reverse=True)), together)


def _size(node: Node, model: Model) -> tuple[int, int]:
    """Numbers in a node's matrices, and the bytes that they take less than in float32."""
    matrices = small_weights(node, model.weights)
    n = sum(model.weights[name].size for name in matrices)
    return n, 4 * n - sum(model.weights[name].nbytes + (model.weights[scale].nbytes if scale else 0) for name, scale in matrices.items())


def _errors(exact: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {
        name: _error(*(np.asarray(b, np.complex128 if a.dtype.kind == "c" else np.float64) for b in (a, other[name]))) for name, a in exact.items()
    }


def _error(exact: np.ndarray, other: np.ndarray) -> float:
    """The largest over the largest entry; NaN where there is nothing to compare."""
    if not np.isfinite(exact).any():
        return np.nan
    same = (exact == other) | np.isnan(exact) & np.isnan(other)
    with np.errstate(invalid="ignore"):  # of infinities that agree
        error = float(np.where(same, 0, np.abs(other - exact)).max(initial=0))
    scale = float(np.abs(exact[np.isfinite(exact)]).max(initial=0))
    return error / scale if scale else error and np.inf


def _rank(error: float) -> float:
    return np.inf if np.isnan(error) else error


def _figures(errors: Mapping[str, float], outputs: Iterable[str]) -> list[str]:
    return [f"{max(errors.values(), key=_rank, default=0.0):.1e}", *(f"{errors[name]:.1e}" for name in outputs)]
