"""Random inputs that a model can take: sizes of its free dimensions, indices within their tables, lengths within the sequence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.errors import ShapeError
from fastrnn.model import Model
from fastrnn.model.graph import every_node
from fastrnn.model.ops import COMPLEX
from fastrnn.model.recurrent import RECURRENT, input_of
from fastrnn.plan.streams.streaming import batch_symbol, steppable, time_symbol
from fastrnn.runtime.session import Session

DEFAULT_SIZE = 16  # of dimensions that nobody named
FEW = 2  # integers of unknown meaning are below
MOVES = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "TopK")  # the last: rows sorted by length


def index_ranges(model: Model, lengths_only: bool = False) -> dict[str, int | str]:
    """For each integer input whose meaning the graph shows, directly or behind Casts, how many values it may have: the entries that a Gather picks
    from, unless lengths_only; for lengths of sequences the dimension that holds them, whose size is still allowed."""
    source: dict[str, str] = {v.name: v.name for v in model.inputs if v.dtype not in ("float32", "float64", "bool", *COMPLEX.values())}
    sizes: dict[str, int | str] = {}
    for node, _ in every_node(model.nodes):
        if node.op in MOVES and node.inputs[0] in source:
            source[node.outputs[0]] = source[node.inputs[0]]
        data = model.specs.get(node.inputs[0]) if node.op == "Gather" or node.op in RECURRENT else None
        if data is None or data.shape is None:
            continue
        if node.op == "Gather" and not lengths_only and node.inputs[1] in source and isinstance(n := data.shape[node.get("axis")], int):
            name = source[node.inputs[1]]
            sizes[name] = min(n, sizes[name]) if isinstance(sizes.get(name), int) else n
        elif node.op in RECURRENT and (lengths := input_of(node, "sequence_lens")) in source:
            sizes[source[lengths]] = dim if isinstance(dim := data.shape[node.get("layout")], str) else dim + 1
    return sizes


def random_inputs(
    model: Model, batch: int, sizes: Mapping[str, int], constants: Mapping[str, np.ndarray], random, prefix: tuple[int, ...] = ()
) -> dict[str, np.ndarray]:
    """An array for every input that is not optional; prefix: axes in front.

    Floats are normal with deviation 1/2; indices stay inside their tables, lengths in 0..T; bytes take all their values, bools both, other
    integers 0 and 1. constants: inputs that have their value.
    """
    known = {batch_symbol(model): batch} | dict(sizes)
    ranges, arrays = index_ranges(model), {}
    for value in model.inputs:
        if value.optional:
            continue
        if value.name in constants:
            arrays[value.name] = np.broadcast_to(constants[value.name], (*prefix, *constants[value.name].shape)).copy()
            continue
        shape = (*prefix, *(known.get(d, DEFAULT_SIZE) if isinstance(d, str) else d for d in value.shape))
        if value.dtype in ("float32", "float64"):
            arrays[value.name] = (random.standard_normal(shape) / 2).astype(value.dtype)
            continue
        if value.dtype in COMPLEX.values():
            arrays[value.name] = (random.standard_normal((*shape, 2)) / 2).view(np.complex128)[..., 0].astype(value.dtype)
            continue
        low, high = 0, ranges.get(value.name, FEW)
        if isinstance(high, str):
            high = known.get(high, DEFAULT_SIZE) + 1
        elif value.dtype in ("int8", "uint8") and value.name not in ranges:
            low, high = np.iinfo(value.dtype).min, np.iinfo(value.dtype).max + 1
        arrays[value.name] = random.integers(low, high, shape).astype(value.dtype)
    return arrays


def sizes_given(model: Model, given: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Sizes of the free dimensions that arrays of some inputs have; raises ShapeError where they do not fit the inputs or one another."""
    values, sizes = {v.name: v for v in model.inputs}, {}
    for name, array in given.items():
        declared = values[name].shape
        fits = array.ndim == len(declared) and all(
            isinstance(d, str) and sizes.setdefault(d, n) == n or d == n for d, n in zip(declared, array.shape)
        )
        if not fits or str(array.dtype) != values[name].dtype:
            raise ShapeError(f"input {name!r} is {values[name].dtype} ({', '.join(map(str, declared))}), given is {array.dtype} {array.shape}")
    return sizes


def stream_batch(session: Session, batch: int = 1) -> int:
    """The batch for a stream: this one, or the one that the model fixes. Raises NotStreamableError where there is no stream."""
    fixed = steppable(session.stream_plan, batch).batch
    return fixed if isinstance(fixed, int) else batch


def length_symbol(model: Model) -> str | None:
    """The dimension to take several lengths of: the recurrent layers', else the only one that is free beside the batch."""
    free = {d for v in model.inputs for d in v.shape if isinstance(d, str)} - {batch_symbol(model)}
    return time_symbol(model) or (free.pop() if len(free) == 1 else None)
