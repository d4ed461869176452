"""Who runs a node, and why: decided here for the planner, which packs weights, for the builder, which emits steps, and for explain.

jump     an If, a Loop, a Scan: what stands inside runs, or not, or again
view     nothing: the result is the input's memory; copied where strides cannot say it
copy     a Concat: parts copied to their places, unless they are made there
kernel   the op's emitter calls a compiled kernel
numpy    the op's meaning in NumPy, outside the promise of equal bits
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastrnn.kernels.contract import Kernel
from fastrnn.model import Node
from fastrnn.model.infer import known
from fastrnn.model.ops import Spec
from fastrnn.model.ops.foreign import PREFIX
from fastrnn.plan import policy
from fastrnn.plan.emit import convolution, elementwise, indexing, matrix, normal, pooling, quantized, recurrent, selecting  # noqa: F401  (they register emitters)
from fastrnn.plan.emit.emitter import EMIT, by_size
from fastrnn.plan.graph.fold import REPEATING
from fastrnn.plan.lowering.views import is_view
from fastrnn.plan.weights.packed import weight_positions


@dataclass(frozen=True)
class Route:
    """way: one of those above. kernel: the one that does the op's own work, beside which an emitter may call copies; None for other ways, and where the
    packed weights say it (packs), or the shapes in use."""

    way: str
    why: str
    kernel: Kernel | None = None
    packs: bool = False


def route(node: Node, specs: Mapping[str, Spec], constants: Mapping[str, np.ndarray], backend: str) -> Route:
    """Of a node, or of a fused one that is elementwise throughout. specs, constants: what is known of values so far."""
    if node.op == "If":
        return Route("jump", "decided for the shapes in use, else at run time")
    if node.op in REPEATING:
        return Route("jump", "laid out, or run again and again, for the shapes in use")
    if is_view(node, constants):
        return Route("view", "a view: nothing to compute")
    why = "by the onnx package's reference implementation" if node.op.startswith(PREFIX) else "backend='reference'"
    if backend == "reference":
        return Route("copy", why) if node.op == "Concat" else Route("numpy", why)
    if node.op == "Concat":
        return _picked("copy", node, specs, by_size("copy"), backend)
    emitter = EMIT.get(node.op)
    if emitter is None:
        return Route("numpy", why if node.op.startswith(PREFIX) else f"no compiled kernel {node.op.lower()!r}")
    why = emitter.refused(node, specs, constants)
    if why is not None:
        return Route("numpy", why)
    if not emitter.packs:
        return _picked("kernel", node, specs, emitter.kernel, backend)
    constant = all(node.input(k) in constants for k in weight_positions(node) if node.input(k))
    return Route("kernel", "" if constant else "its weights are packed while it runs", packs=constant)


def _picked(way: str, node: Node, specs, name, backend: str) -> Route:
    if node.inputs and (not known(specs, node.inputs[:1]) or not specs[node.inputs[0]].dtype):
        return Route(way, "by the dtype, which the shapes in use make known")
    choice = policy.pick(name(node, specs), backend)
    return Route(way, choice.why, choice.kernel) if choice.kernel else Route("numpy", choice.why)
