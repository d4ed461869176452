"""Elementwise nodes: floats and bools as chains, alone or fused, integers and other casts by kernels of their own."""

from __future__ import annotations

import numpy as np

from fastrnn.kernels.contract import Key
from fastrnn.model import Node
from fastrnn.plan.emit.emitter import emits, sized
from fastrnn.plan.lowering import chain
from fastrnn.plan.lowering.memory import View, c_strides

# Kernels over integers, by op; those of one operand read it twice.
INTEGER = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Mod": "mod", "Min": "min", "Max": "max", "Neg": "neg", "Abs": "abs", "Sign": "sign",
    "Equal": "equal", "Less": "less", "LessOrEqual": "less_or_equal", "Greater": "greater", "GreaterOrEqual": "greater_or_equal", "Clip": "max",
}  # fmt: skip
CASTS = {
    "uint8": "float32 float64 int32 int64 bool",
    "int32": "float32 float64 int64 uint8 bool",
    "int64": "float32 float64 int32 uint8 bool",
    "float32": "float64 int32 int64 bool",
    "float64": "float32 int32 int64 bool",
}


def _integer(node: Node, specs) -> Key | None:
    """The kernel of an op on integers, None where there is none."""
    dtype = specs[node.inputs[0]].dtype
    if node.op == "Equal" and dtype == "uint8":
        return Key("equal", dtype=dtype)
    if node.op not in INTEGER or dtype not in ("int32", "int64"):
        return None
    return Key("fmod" if node.op == "Mod" and node.get("fmod") else INTEGER[node.op], dtype=dtype)


def _cast(node: Node, specs) -> Key | None:
    """The kernel of a cast; a bool is a byte of 0 or 1."""
    source, target = specs[node.inputs[0]].dtype, node.get("to")
    source = "uint8" if source == "bool" else source
    return Key(f"cast_{target}", dtype=source) if target in CASTS.get(source, "").split() else None


def _kernel(node: Node, specs) -> Key | str:
    if chain.refused(node, specs, {}) is None:
        return "chain"
    if node.op == "Where":
        return sized("choose", specs[node.inputs[1]].dtype)
    return (_cast(node, specs) if node.op == "Cast" else _integer(node, specs)) or "chain"


def _refused(node: Node, specs, constants) -> str | None:
    why = chain.refused(node, specs, constants)
    if why is None or node.op == "Where":
        return None
    if node.op == "Cast":
        return None if _cast(node, specs) or not specs[node.inputs[0]].dtype else f"no kernel for {specs[node.inputs[0]].dtype} to {node.get('to')}"
    return None if _integer(node, specs) else why


@emits("Chain", kernel="chain", refused=lambda node, specs, constants: None)
def fused(build, node):
    """Several nodes in one pass."""
    _run(build, node.name, chain.chain_of(node.nodes, build.weights), node.outputs[0])


@emits(*chain.PLAIN, *chain.SPELLED, kernel=_kernel, refused=_refused)
def elementwise(build, node):
    """One node."""
    if chain.refused(node, build.specs, build.weights) is None:
        return _run(build, node.name, chain.chain_of([node], build.weights), node.outputs[0])
    y = build.place_like(node.outputs[0], _whole(build, node.inputs, build.infer_output(node, 0)))
    views = [build.views[name].broadcast(y.shape) if name else None for name in node.inputs]
    if node.op == "Where":
        build.copy(node.name, views[2], y)
        return build.loops(node.name, _kernel(node, build.specs), y, views[1], views[0])
    if node.op == "Clip":
        return _clip(build, node, y, views)
    kernel = _kernel(node, build.specs)
    if len(views) == 1 and node.op in ("Min", "Max"):
        return build.copy(node.name, views[0], y)
    build.loops(node.name, kernel, y, views[0], views[min(1, len(views) - 1)])
    for other in views[2:]:
        build.loops(node.name, kernel, y, y, other)
    return None


def _clip(build, node: Node, y: View, views) -> None:
    """min first, then max."""
    x = views[0]
    for bound, kernel in zip(views[1:], ("max", "min")):
        if bound is not None:
            build.loops(node.name, Key(kernel, dtype=x.dtype.name), y, x, bound)
            x = y
    if x is not y:
        build.copy(node.name, x, y)


def _run(build, name: str, program: chain.Chain, output: str) -> None:
    """Places the result in the order of an operand that is as large, and appends the call."""
    shape = build.shape_of(output)
    build.chain(name, program, build.place_like(output, _whole(build, [o for o in program.operands if isinstance(o, str)], shape)))


def _whole(build, names, shape: tuple[int, ...]) -> View:
    """An input of the result's shape, or that shape in C order."""
    views = [build.views[name] for name in names if name]
    return next((v for v in views if v.shape == shape and 0 not in v.strides), None) or View("work", shape, c_strides(shape), np.dtype(np.float32))
