"""Bytes with a scale and a zero point: QuantizeLinear and its like.

MatMulInteger and ConvInteger are matrix.py's.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastrnn.kernels.contract import Key
from fastrnn.model import Node
from fastrnn.plan.emit.emitter import emits, new_args
from fastrnn.plan.lowering.memory import View, grid_table, weight_view


def _one_by_one(node: Node, specs, constants, values: tuple[str, ...]) -> str | None:
    """Scales are one number, or a row along an axis; blocks are seldom met."""
    if node.get("block_size"):
        return "no kernel for scales by block"
    dtype = specs[node.inputs[0]].dtype
    return f"no kernel for {dtype}" if dtype and dtype not in values else None


def _quantize_refused(node: Node, specs, constants) -> str | None:
    if (kind := specs[node.outputs[0]].dtype) not in ("uint8", "int8", ""):
        return f"no kernel for {kind}"
    return _one_by_one(node, specs, constants, ("float32",))


def _scales(build, node: Node, shape, dtype) -> tuple[View, View]:
    """Scale and zero point, each as large as the data and with the same strides."""
    scale = build.views[node.inputs[1]]
    zero = build.views[node.input(2)] if node.input(2) else weight_view(np.zeros([1] * len(scale.shape), dtype)).broadcast(scale.shape)
    rank, axis = len(shape), node.get("axis") % max(1, len(shape))

    def spread(view: View) -> View:
        """At its axis; one number at none."""
        if view.shape in ((), (1,)):
            return replace(view, shape=(1,) * rank, strides=(0,) * rank).broadcast(shape)
        ones, zeros = [1] * rank, [0] * rank
        ones[axis], zeros[axis] = view.shape[0], view.strides[0]
        return replace(view, shape=tuple(ones), strides=tuple(zeros)).broadcast(shape)

    scale, zero = spread(scale), spread(zero)
    if scale.strides != zero.strides:  # a row of scales with one zero point
        whole = build.scratch(scale.shape, dtype)
        build.copy(node.name, zero, whole)
        scales = build.scratch(scale.shape)
        build.copy(node.name, scale, scales)
        scale, zero = scales, whole
    return scale, zero


def _walked(build, node: Node, key: Key, x: View, y: View, dtype) -> None:
    scale, zero = _scales(build, node, x.shape, dtype)
    table = grid_table(y, x, scale)
    size = math.prod(y.shape)
    build.call(
        node.name,
        build.kernel(key),
        new_args(T=len(table)),
        {"x": x, "y": y, "x2": scale, "x3": zero, "axes": weight_view(table)},
        flops=8 * size,
        weight_bytes=5 * size,
    )


@emits("QuantizeLinear", kernel=lambda node, specs: Key("quantize", dtype=specs[node.outputs[0]].dtype), refused=_quantize_refused)
def quantize(build, node):
    """One pass."""
    x = build.views[node.inputs[0]]
    y = build.place_like(node.outputs[0], x)
    dtype = build.dtype_of(node.outputs[0])
    _walked(build, node, Key("quantize", dtype=dtype.name), x, y, dtype)


@emits(
    "DequantizeLinear",
    kernel=lambda node, specs: Key("dequantize", dtype=specs[node.inputs[0]].dtype),
    refused=lambda node, specs, constants: _one_by_one(node, specs, constants, ("uint8", "int8", "int32")),
)
def dequantize(build, node):
    """One pass."""
    x = build.views[node.inputs[0]]
    y = build.place_like(node.outputs[0], x)
    _walked(build, node, Key("dequantize", dtype=x.dtype.name), x, y, x.dtype)


@emits("DynamicQuantizeLinear", kernel="dynamic_quantize")
def dynamic_quantize(build, node):
    """The range, then the bytes, of one row or of each place along `axes`: x and y in C order of them and then of the others."""
    axes = node.get("axes")
    order = (*axes, *(k for k in range(len(build.views[node.inputs[0]].shape)) if k not in axes))
    x = build.contiguous(build.views[node.inputs[0]].transposed(order))
    y, scale, zero = (
        build.place(name, build.infer_output(node, k), order if axes else None) if name else build.scratch(build.infer_output(node, k), dtype)
        for k, (name, dtype) in enumerate(zip((*node.outputs, "", "")[:3], (np.uint8, np.float32, np.uint8)))
    )
    y = y.transposed(order)
    made = y if y.contiguous else build.scratch(y.shape, np.uint8)
    size = math.prod(x.shape)
    build.call(
        node.name,
        build.kernel("dynamic_quantize"),
        new_args(T=math.prod(x.shape[: len(axes)]), I=math.prod(x.shape[len(axes) :])),
        {"x": x, "y": made, "hn": scale, "cn": zero},
        flops=12 * size,
        weight_bytes=5 * size,
    )
    if made is not y:
        build.copy(node.name, made, y)
