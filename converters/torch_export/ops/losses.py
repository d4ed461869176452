"""What value_leaf.py puts in the place of functions that look into tensors."""

from __future__ import annotations

from fastrnn.converters.torch_export.registry import converts
from fastrnn.converters.torch_export.site import Site
from fastrnn.model import Node
from fastrnn.model.graph import Graph


@converts("fastrnn.require.default")
def require(g: Site, x, condition, message):
    """Checked when the model runs."""
    return g.emit("Require", x, g.emit("Reshape", condition, g.ints(1)), message=message)


@converts("fastrnn.alignments.default")
def alignments(g: Site, emissions, skips, steps):
    """A Scan over steps: the sum of three ways into each state, times what the step emits there; rows that have ended keep theirs."""
    never, nodes = g.constant(-float("inf"), g.dtype), g.graph.build.nodes
    rows = g.sizes([g.size(emissions, 1)])
    edge = g.emit("Expand", never, g.emit("Concat", rows, g.ints(2), axis=0))
    start = g.emit(
        "Concat",
        g.emit("Expand", g.constant(0, g.dtype), g.emit("Concat", rows, g.ints(1), axis=0)),
        g.emit("Expand", never, _but_one(g, emissions)),
        axis=1,
    )
    ends, one = g.emit("Unsqueeze", steps, g.ints(1)), g.constant(1, "int64")
    stay, step, emitted = (g.value() for _ in range(3))
    g.graph.build.nodes = []
    wide = g.emit("Concat", edge, stay, axis=1)
    go, skip = (g.emit("Slice", wide, g.ints(k), g.ints(k - 2), g.ints(1)) for k in (1, 0))
    skip = g.emit("Where", skips, skip, never)
    most = g.emit("Max", stay, go, skip)
    most = g.emit("Where", g.emit("Equal", most, never), g.constant(0, g.dtype), most)
    total = g.emit("Sum", *(g.emit("Exp", g.emit("Sub", way, most)) for way in (stay, go, skip)))
    reached = g.emit("Add", g.emit("Add", g.emit("Log", total), most), emitted)
    reached, counted = g.emit("Where", g.emit("Less", step, ends), reached, stay), g.emit("Add", step, one)
    body, g.graph.build.nodes = Graph(tuple(g.graph.build.nodes), (reached, counted), (stay, step, emitted)), nodes
    final, after = g.value(), g.value()
    nodes.append(Node("Scan", final, (start, g.constant(0, "int64"), emissions.name), (final, after), {"body": body, "num_scan_inputs": 1}))
    return final


def _but_one(g: Site, emissions) -> str:
    """(B, S - 1) of emissions (T, B, S)."""
    states = g.size(emissions, 2)
    return (
        g.sizes([g.size(emissions, 1), states - 1])
        if isinstance(states, int)
        else g.emit("Sub", g.sizes([g.size(emissions, 1), states]), g.ints(0, 1))
    )
