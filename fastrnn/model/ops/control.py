"""If: subgraphs that see the values around them."""

from __future__ import annotations

from fastrnn.errors import InvalidModelError
from fastrnn.model.ops.registry import ANY_DIM, MANY, UNKNOWN, Spec, op, require, where


@op("If", outputs=MANY, then_branch=None, else_branch=None)
def if_(node, inputs):
    """What both branches agree on; their values are inferred in fastrnn/model/infer.py."""
    condition = require(node, inputs[0], "the condition", ("bool",))
    if condition.rank and condition.shape != (1,):
        raise InvalidModelError(f"{where(node)}: the condition must be a scalar, got shape {condition.shape}")
    for name in ("then_branch", "else_branch"):
        if node.get(name) is None or len(node.get(name).outputs) != len(node.outputs):
            raise InvalidModelError(f"{where(node)}: {name} must give {len(node.outputs)} outputs")
    return [UNKNOWN] * len(node.outputs)


def agreed(a: Spec | None, b: Spec | None) -> Spec:
    """What is known of a value that comes from either branch."""
    if a is None or b is None or a.dtype != b.dtype:
        return UNKNOWN
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return Spec(a.dtype, None)
    return Spec(a.dtype, tuple(x if x == y and x != ANY_DIM else ANY_DIM for x, y in zip(a.shape, b.shape)))
