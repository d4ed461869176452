"""A model as text: a screenful, all of it, or for a notebook."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.cells.activations import parse_activation
from fastrnn.model.graph import Graph, Model, every_node

MOST_VALUES, MOST_OPS, WIDTH, MOST_LETTERS = 7, 16, 100, 200  # of a screenful: 24 lines
MOST_ENTRIES = 8  # of a weight, that are written out


class WholeGraph(Graph):
    """A model's own graph; its text is all of the model but the numbers of large weights."""

    _model: Model  # no field of the dataclass

    def __init__(self, model: Model) -> None:
        super().__init__(model.nodes, model.output_names, model.input_names)
        object.__setattr__(self, "_model", model)

    def __str__(self) -> str:
        return listing(self._model)

    __repr__ = __str__


def summary(model: Model) -> str:
    """A screenful: name, size, inputs, outputs and states, and how often each op stands there."""
    nodes = [node for node, _ in every_node(model.nodes)]
    ops = Counter(node.op for node in nodes).most_common()
    said = [f"{count} {op}" for op, count in ops[:MOST_OPS]] + ([f"{sum(c for _, c in ops[MOST_OPS:])} others"] if len(ops) > MOST_OPS else [])
    lines = [_head(model, len(nodes))]
    for kind, values in (("input ", _inputs(model)), ("output", map(str, model.outputs))):
        lines += [f"  {kind} {text}" if len(text) <= MOST_LETTERS else f"  {kind} {text[:MOST_LETTERS]}..." for text in _first(list(values))]
    lines += textwrap.wrap(", ".join(said), WIDTH, initial_indent="  ops    ", subsequent_indent="         ")
    return "\n".join([*lines, "  print(model.graph) shows every node"])


def listing(model: Model) -> str:
    """Every input, output, state, weight and node, subgraphs indented; small weights with their numbers."""
    lines = [_head(model, sum(1 for _ in every_node(model.nodes)))]
    lines += [f"  input  {text}" for text in _inputs(model)]
    lines += [f"  output {value}" for value in model.outputs]
    for name, array in sorted(model.weights.items()):
        numbers = f" = {array.tolist()}" if array.size <= MOST_ENTRIES and array.dtype.kind in "iub" else ""
        lines.append(f"  weight {name} {array.dtype} ({', '.join(map(str, array.shape))}){numbers}")
    for node, depth in every_node(model.nodes):
        attributes = ", ".join(f"{k}={_attribute(k, v)}" for k, v in node.attributes.items() if not isinstance(v, Graph))
        given, made = (", ".join(n or "-" for n in names) for names in (node.inputs, node.outputs))
        lines.append(f"  {'  ' * depth}{node.op:<10} {node.name}: {given} -> {made}" + (f"  [{attributes}]" if attributes else ""))
    return "\n".join(lines)


def aligned(given: Iterable[Sequence[object]]) -> str:
    """Cells below one another, the first of a line to the left, the others to the right."""
    lines = [list(map(str, line)) for line in given]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.rjust(width) if k else cell.ljust(width) for k, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines
    )


def parameters(arrays: Mapping[str, np.ndarray]) -> str:
    """Names, dtypes, shapes and sizes of parameters, and how many numbers they are."""
    lines = [(name, a.dtype, f"({', '.join(map(str, a.shape))})", f"{a.size:,}") for name, a in arrays.items()]
    return aligned([*lines, ("all of them", "", "", f"{sum(a.size for a in arrays.values()):,}")])


def notebook(text: str, details: str, label: str) -> str:
    """HTML of a text, and of a longer one behind a label."""
    import html  # for notebooks alone

    return f"<pre>{html.escape(text)}</pre><details><summary>{html.escape(label)}</summary><pre>{html.escape(details)}</pre></details>"


def _head(model: Model, n_nodes: int) -> str:
    return f"Model {model.name[:WIDTH]!r}: {n_nodes} node{'s' * (n_nodes != 1)}, {sum(w.nbytes for w in model.weights.values()):,} bytes of weights"


def _inputs(model: Model) -> Iterable[str]:
    source = {s.input: s.source for s in model.states}
    return (f"{value}" + (f"  <- {source[value.name]}" if value.name in source else "") for value in model.inputs)


def _first(texts: list[str]) -> list[str]:
    if len(texts) <= MOST_VALUES:
        return texts
    return [*texts[: MOST_VALUES - 1], f"... and {len(texts) - MOST_VALUES + 1} more"]


def _attribute(name: str, value: Any) -> str:
    if name == "activations":  # names and parameters, or what was made of them
        value = tuple(map(parse_activation, value))
    return f"({', '.join(map(str, value))})" if isinstance(value, (tuple, list)) else str(value)
