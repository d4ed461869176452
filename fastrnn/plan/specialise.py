"""A program for a call: of what the call brings, sizes stay symbols, and only what truly decides something is fixed.

What an integer input decides, a branch whose shapes differ or a size, is fixed where a program cannot be had otherwise: such an input steers, and
a program then holds for its value alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fastrnn import log
from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model
from fastrnn.model.graph import every_node
from fastrnn.model.sizes import Scope, sizes_in
from fastrnn.plan.lowering.build import build_program
from fastrnn.plan.program import Program

if TYPE_CHECKING:
    from fastrnn.plan.planner import Plan

MOST_STEERING = 16  # entries of an input that may steer
# Inputs of ops, by position, whose content decides shapes.
DECIDING = {"If": (0,), "Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2), "Slice": (1, 2, 3, 4), "Pad": (1, 3), "Split": (1,),
            "Squeeze": (1,), "Unsqueeze": (1,), "TopK": (1,), "OneHot": (1,), "Loop": (0, 1), "CumSum": (1,), "Trilu": (1,),
            "onnx.AffineGrid": (1,), "onnx.BlackmanWindow": (0,), "onnx.CenterCropPad": (1,), "onnx.Col2Im": (1, 2), "onnx.CumProd": (1,), "onnx.DFT": (1, 2),
            "onnx.HammingWindow": (0,), "onnx.HannWindow": (0,), "onnx.MaxUnpool": (2,), "onnx.MelWeightMatrix": (0, 1, 2), "onnx.Resize": (3,), "onnx.STFT": (1, 3)}  # fmt: skip
# Inputs of floats that do where they are a model's own: computed ones are data.
DECIDING_FLOATS = {"OneHot": (1,), "Range": (0, 1, 2), "onnx.MelWeightMatrix": (3, 4), "onnx.Resize": (1, 2), "onnx.Upsample": (1,)}


def specialise(plan: Plan, arrays: Mapping[str, np.ndarray]) -> Program:
    """The program for inputs such as these (checked against the model before), for all sizes and values that decide the same."""
    return steered_program(plan, {name: a.shape for name, a in arrays.items()}, arrays)[1]


def steered_program(plan: Plan, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> tuple[Model, Program]:
    """program_for these shapes, where it cannot be had otherwise for what those inputs hold that steer and whose arrays are given."""
    try:
        return program_for(plan, shapes)
    except UnsupportedModelError:
        if not (values := steering_values(plan.model, arrays)):
            raise
        return program_for(plan, shapes, values)


def program_for(plan: Plan, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, np.ndarray] = MappingProxyType({})) -> tuple[Model, Program]:
    """The model that is left for inputs of these shapes, their free dimensions as Sizes, and its program. values: of inputs that steer."""
    begun, scope, declared = time.perf_counter(), Scope(), {v.name: v.shape for v in plan.model.inputs}
    model = plan.specialised(
        {name: shape if name in values else sizes_in(scope, name, declared[name], shape) for name, shape in shapes.items()}, values=values
    )
    program = build_program(plan, model, scope, values=values)
    log.debug("model %r: a program in %.1f ms for sizes such as %s", plan.model.name, 1e3 * (time.perf_counter() - begun), shapes)
    return model, program


def steering_values(model: Model, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of those arrays that steer."""
    return {name: arrays[name].copy() for name in steering(model) if name in arrays and arrays[name].size <= MOST_STEERING}


def steering(model: Model) -> set[str]:
    """Inputs of integers or bools from which follows what decides branches or shapes; of floats, those that decide it themselves."""
    deciding: set[str] = set()
    themselves: set[str] = set()
    for node, _ in every_node(model.nodes):
        deciding |= {node.input(k) for k in DECIDING.get(node.op, ())} | {name for name in node.inputs[1:] if node.op.startswith("Reduce")}
        themselves |= {node.input(k) for k in DECIDING_FLOATS.get(node.op, ())}
    makers = {name: node for node, _ in every_node(model.nodes) for name in node.outputs if name}
    todo, seen = list(deciding - {""}), set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += makers[name].reads() if name in makers else ()
    return {v.name for v in model.inputs if v.name in (themselves if v.dtype.startswith("float") else seen | themselves)}
