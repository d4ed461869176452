"""Recurrent layers whose activations no cell has (gelu, softmax, ...): the equations as the body of a Scan.

Source of the equations: Keras's LSTMCell, GRUCell and SimpleRNNCell, as in cells/builtin.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrnn.cells import GATES
from fastrnn.converters.keras_import.layers.activations import activate
from fastrnn.converters.keras_import.site import Site, Tensor
from fastrnn.model.graph import Graph as Subgraph
from fastrnn.model.ops import Spec

if TYPE_CHECKING:
    from fastrnn.converters.keras_import.layers.masks import Kept
    from fastrnn.converters.keras_import.layers.recurrent import Cell


def spelled_layer(g: Site, cell: Cell, x: Tensor, given, kept: Kept | None, backwards: bool) -> tuple[Tensor, list[Tensor]]:
    """Outputs (B, T, H) at their places, and the last states (B, H). Behind a mask x is packed: steps past a row's length leave the states as they are, and give 0."""
    p, H = cell.parameters, cell.units
    reset_after = cell.kind == "gru" and cell.reset_after
    bias = p["bias_ih_l0"] if reset_after else p["bias_ih_l0"] + p["bias_hh_l0"]
    projected = g.emit("Gemm", x, g.stored("w_x", p["weight_ih_l0"].T.copy()), g.stored("b_x", bias))
    if given is None:
        batch = g.emit("Slice", g.emit("Shape", x), g.ints(0), g.ints(1), g.ints(0))
        zeros = g.emit("ConstantOfShape", g.emit("Concat", batch, g.ints(H), axis=0), value=0.0)
        given = [zeros] * cell.states
    scanned = [projected]
    if kept:
        number = g.emit("CumSum", g.emit("ConstantOfShape", g.emit("Shape", kept.mask), value=1, dtype="int64"), g.constant(1, "int64"))
        within = g.emit("LessOrEqual", number, g.emit("Unsqueeze", kept.lengths, g.ints(1)))
        scanned.append(g.emit("Unsqueeze", within, g.ints(2)))
    outer = g.graph.build.nodes
    inner = [_inside(g, name, t.spec._replace(value=None)) for name, t in zip("hc", given)]
    step = [_inside(g, name, Spec(t.spec.dtype, (t.shape[0], t.shape[2]))) for name, t in zip(("x", "within"), scanned)]
    g.graph.begin_body()
    after = _step(g, cell, step[0], inner)
    if kept:
        after = [g.emit("Where", step[1], new, old) for new, old in zip(after, inner)]
    shown = g.emit("Where", step[1], after[0], g.floats(0)) if kept else g.emit("Identity", after[0])
    body = Subgraph(tuple(g.graph.end_body()), tuple(t.name for t in (*after, shown)), tuple(t.name for t in (*inner, *step)))
    assert g.graph.build.nodes is outer
    results = g.emit_all(
        "Scan",
        len(after) + 1,
        *given,
        *scanned,
        body=body,
        num_scan_inputs=len(scanned),
        scan_input_axes=[1] * len(scanned),
        scan_output_axes=[1],
        scan_input_directions=[int(backwards)] * len(scanned),
        scan_output_directions=[int(backwards)],
    )
    return results[-1], list(results[:-1])


def _inside(g: Site, name: str, spec: Spec) -> Tensor:
    """What each run of the body is handed."""
    value = g.value(f"step.{name}")
    g.graph.specs[value] = spec
    return Tensor(value, spec)


def _step(g: Site, cell: Cell, x: Tensor, states: list[Tensor]) -> list[Tensor]:
    """New states from the projected input (B, G H) and the old ones, gates in torch's order."""
    p, H, h = cell.parameters, cell.units, states[0]
    f, c = (lambda t, name=name: activate(cell.site, t, name) for name in cell.names)
    recurrent = p["weight_hh_l0"].T.copy()

    def part(t: Tensor, k: int) -> Tensor:
        return g.cut(t, 1, k * H, (k + 1) * H)

    if cell.kind == "gru" and not cell.reset_after:
        hidden = g.emit("Gemm", h, g.stored("w_h", recurrent[:, : 2 * H].copy()))
        r, z = (f(g.emit("Add", part(x, k), part(hidden, k))) for k in (0, 1))
        n = c(g.emit("Add", part(x, 2), g.emit("Gemm", g.emit("Mul", r, h), g.stored("w_n", recurrent[:, 2 * H :].copy()))))
        return [g.emit("Add", n, g.emit("Mul", z, g.emit("Sub", h, n)))]
    hidden = g.emit("Gemm", h, g.stored("w_h", recurrent), g.stored("b_h", p["bias_hh_l0"]) if cell.kind == "gru" else None)
    if cell.kind == "gru":
        r, z = (f(g.emit("Add", part(x, k), part(hidden, k))) for k in (0, 1))
        n = c(g.emit("Add", part(x, 2), g.emit("Mul", r, part(hidden, 2))))
        return [g.emit("Add", n, g.emit("Mul", z, g.emit("Sub", h, n)))]
    total = g.emit("Add", x, hidden)
    if cell.kind == "rnn":
        return [c(total)]
    i, forget, new, o = (part(total, k) for k in range(GATES["lstm"]))
    carried = g.emit("Add", g.emit("Mul", f(forget), states[1]), g.emit("Mul", f(i), c(new)))
    return [g.emit("Mul", f(o), c(carried)), carried]
