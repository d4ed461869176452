"""Frames that overlap: a model whose call takes the last entries of the frame before, and then a new one, as a model that is given the new ones alone.

silero's voice activity takes 576 samples, 64 of context and 512 new: given 512, it hears nothing and says so in no way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.errors import NotStreamableError, ShapeError
from fastrnn.model import State, Value
from fastrnn.model.edit import Edit, reading
from fastrnn.model.ops import Spec
from fastrnn.model.sizes import MOST
from fastrnn.plan.streams.streaming import batch_symbol, steppable

if TYPE_CHECKING:
    from fastrnn.plan.planner import Plan

END = 2**31 - 1


def with_context(plan: Plan, context: Mapping[str, int]) -> Plan:
    """The plan whose model keeps the last entries of these inputs as states. Raises ShapeError for an input that has none to keep, NotStreamableError where
    steps lie along a time axis."""
    values, states = {v.name: v for v in plan.model.inputs}, {s.input for s in plan.model.states}
    for name, n in context.items():
        if name not in values or name in states:
            raise ShapeError(f"context: {name!r} is no input of a step; those are {', '.join(repr(v) for v in values if v not in states)}")
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MOST:
            raise ShapeError(f"context: {name!r} must keep 1 entry or more, got {n!r}")
        last = values[name].shape[-1] if values[name].shape else None
        if last is None or last == batch_symbol(plan.model):
            raise ShapeError(f"context: input {name!r} has shape ({', '.join(map(str, values[name].shape))}), no last dimension that a frame fills")
        if isinstance(last, int) and last <= n:
            raise ShapeError(f"context: input {name!r} takes {last} entries a step; {n} of context leave none for new ones")
    if (form := steppable(plan, 1)).time_axes:
        raise NotStreamableError(
            f"context: steps lie along time axis {form.time!r} of the model, which keeps what it needs of earlier ones by itself"
        )
    edit, nodes, whole = Edit(plan.model), [], {}
    inputs, outputs, tied = list(plan.model.inputs), list(plan.model.output_names), list(plan.model.states)
    for name, n in context.items():
        value, kept = values[name], edit.fresh(f"{name}.context")
        shape = (*value.shape[:-1], int(n))
        new = replace(value, shape=(*value.shape[:-1], value.shape[-1] - int(n))) if isinstance(value.shape[-1], int) else value
        edit.specs |= {kept: Spec(value.dtype, shape), name: Spec(value.dtype, new.shape)}
        inputs[inputs.index(value)] = new
        inputs.append(Value(kept, value.dtype, shape))
        (whole[name],) = edit.node(nodes, "Concat", f"{name}.whole", (kept, name), axis=-1)
        cut = [edit.whole(f"{name}.{what}", at) for what, at in (("first", -int(n)), ("end", END), ("axis", -1))]
        (following,) = edit.node(nodes, "Slice", f"{kept}.next", (whole[name], *cut))
        outputs.append(following)
        tied.append(State(kept, following, None, value.dtype, shape))
    model = edit.result([*nodes, *reading(plan.model.nodes, whole)], inputs=tuple(inputs), output_names=tuple(outputs), states=tuple(tied))
    return replace(plan, model=model)
