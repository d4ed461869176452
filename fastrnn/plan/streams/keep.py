"""Resets in the middle of a chunk by the kernels: an input more, what a row's states are multiplied by on their way into a step.

That is so where states are those of layers that run forward, and start as zeros. Elsewhere a chunk is cut where rows start afresh.
"""

from __future__ import annotations

from dataclasses import replace

from fastrnn.model import Value
from fastrnn.model.edit import changed
from fastrnn.model.recurrent import INPUTS, RECURRENT, states_of
from fastrnn.model.sizes import same
from fastrnn.plan.streams.streaming import Steppable

KEEP = "fastrnn.keep"  # of shape (T, B) in a call, 0 where a row starts afresh, 1 elsewhere
PARTS = ("Slice", "Split", "Gather", "Squeeze", "Unsqueeze", "Identity")  # a stack's states taken apart into its layers'


def keeping(form: Steppable) -> Steppable | None:
    """The form with an input KEEP; None where a state is more than what layers keep, or its rows are not the batch's."""
    if not form.time_axes or form.initial or KEEP in form.model.input_names or any(node.subgraphs for node in form.model.nodes):
        return None
    model, at = form.model, INPUTS.index("keep")
    states, shapes, layouts, nodes = {s.input for s in model.states}, [], set(), []
    for node in model.nodes:
        from_state = {k for k, name in enumerate(node.inputs) if name in states}
        if node.op in RECURRENT:
            layout, x = node.get("layout"), model.specs[node.inputs[0]].shape
            if node.get("direction") != "forward" or node.input(at) or x is None or from_state != {s.input for s in states_of(node)}:
                return None
            shapes.append((x[layout], x[1 - layout]))
            layouts.add(layout)
            node = replace(node, inputs=(*(node.input(k) for k in range(at)), KEEP))
        elif from_state:
            if node.op not in PARTS or from_state != {0}:
                return None
            states.update(node.outputs)
        nodes.append(node)
    batches = [v.shape[1 - axis] for v in form.inputs if (axis := form.time_axes[v.name]) < 2 <= len(v.shape)]
    (time, batch), layout = shapes[0] if shapes else (None, None), min(layouts, default=0)
    if len(layouts) != 1 or time != form.time or states & set(model.output_names) or len(batches) != len(form.inputs):
        return None
    if any(t != time or not _same(b, batch) for t, b in shapes) or not all(_same(b, batch) for b in batches):
        return None
    value = Value(KEEP, "float32", (batch, time) if layout else (time, batch))
    return replace(form, model=changed(model, nodes=tuple(nodes), inputs=(*model.inputs, value)), time_axes={**form.time_axes, KEEP: layout})


def _same(a, b) -> bool:
    """Whether two dimensions are one, symbols by name."""
    return a == b if isinstance(a, str) or isinstance(b, str) else same(a, b)
