"""dtypes, shapes and small values of a graph, in one walk: what is known before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from fastrnn.errors import FastRNNError, InvalidModelError, ShapeError, UnsupportedModelError
from fastrnn.model.ops import EVAL, MAX_ELEMENTS, OPS, UNKNOWN, Spec
from fastrnn.model.ops.control import Repetition, after_the_runs, agreed, before_a_run, handed_on
from fastrnn.model.ops.registry import ANY_DIM, check_rank, count, where
from fastrnn.model.sizes import Size, value_of

MALFORMED = (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError)  # what NumPy and Python say of constants of the wrong form
SMALL = 1024  # elements up to which a value is followed: shapes, axes, conditions
MOST_SUMMED = 1 << 22  # products, or entries of the axes of an empty array, that are worth it
WINDOWS = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "onnx.LpPool", "onnx.RoiAlign", "onnx.DeformConv", "onnx.Col2Im")  # fmt: skip
# Ops that only move entries, so that they do for symbols as well.
MOVING = ("Identity", "Gather", "Concat", "Slice", "Unsqueeze", "Squeeze", "Reshape", "Cast", "Transpose")
# Ops that calculate with Sizes as with numbers.
CALCULATING = ("Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Neg", "Abs", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "Xor",
               "Where", "ReduceProd", "ReduceSum", "ReduceMin", "ReduceMax", "Expand", "Tile", "Split", "ConstantOfShape")  # fmt: skip
# Behind a missing optional input these give a missing value; others say that it is missing.
PASSING = ("Identity", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Cast")


def spec_of(array: np.ndarray) -> Spec:
    """The spec of a constant; Sizes are int64."""
    return Spec("int64" if array.dtype == object else str(array.dtype), array.shape, array if array.size <= SMALL else None)


def evaluate(node, arrays: list[np.ndarray | None]) -> list[np.ndarray]:
    """An op on arrays, NumPy's errors as InvalidModelError."""
    try:
        with np.errstate(all="ignore"):
            symbols = any(a is not None and a.dtype == object for a in arrays)
            return [np.asarray(a, object if symbols else None) for a in EVAL[node.op](node, arrays)]
    except MALFORMED as error:
        if isinstance(error, FastRNNError):
            raise
        raise InvalidModelError(f"{where(node)}: {error}") from error


def known(specs: dict[str, Spec], names: Iterable[str]) -> bool:
    """Whether at least the rank of every value was inferred; omitted ones ("") do not count."""
    return all((spec := specs.get(name)) is not None and spec.shape is not None for name in names if name)


def missing(node, given: list) -> bool:
    """Whether the node only hands on an optional input that was left out."""
    return node.op in PASSING and given[0] is None and bool(node.inputs[0])


def infer_node(node, given: list[Spec | None]) -> list[Spec | None]:
    """Specs of the outputs, None for a missing one; small values included."""
    if missing(node, given):
        return [None] * len(node.outputs)
    if any(s is not None and s.shape is None for s in given):
        return [UNKNOWN] * len(node.outputs)
    for k, spec in enumerate(given[: OPS[node.op].inputs[0]]):
        if spec is None:
            raise InvalidModelError(f"{where(node)}: input {k} ({node.inputs[k]!r}) is missing")
    try:
        specs = OPS[node.op].infer(node, given)[: len(node.outputs)]
    except MALFORMED as error:
        if isinstance(error, FastRNNError):
            raise
        raise InvalidModelError(f"{where(node)}: inputs that make no sense: {error}") from error
    _check_sizes(node, specs)
    if specs[0] is not None and specs[0].value is None and _followed(node, given, specs):
        values = evaluate(node, [None if s is None else s.value for s in given])
        specs = [Spec(s.dtype, v.shape, _plain(v, s.dtype)) for s, v in zip(specs, values)]
    return specs


def _check_sizes(node, specs: Iterable[Spec | None]) -> None:
    for spec in specs:
        if spec is not None and spec.shape is not None:
            check_rank(f"{where(node)}: the result", spec.shape)
            if (n := value_of(count(spec.shape))) != ANY_DIM and n > MAX_ELEMENTS:
                raise UnsupportedModelError(f"{where(node)}: the result would have {n:,} elements")


def _followed(node, given, specs) -> bool:
    """Whether the node's result is worth computing here."""
    present = [s for s in given if s is not None]
    if node.op not in EVAL or not present or any(s.value is None for s in present):
        return False
    symbolic = [s.constant is None for s in present]
    if any(symbolic) and (node.op not in MOVING or node.op != "Concat" and any(symbolic[1:]) or not specs[0].dtype.startswith("int")):
        return False
    if any(s.value.dtype == object for s in present) and not _calculated(node, specs) or node.op == "Gather" and given[1].value.dtype == object:
        return False
    return all(s.shape is not None and (n := count(s.shape)) != ANY_DIM and n <= SMALL for s in specs) and bounded(node, given)


def _calculated(node, specs: Iterable[Spec | None]) -> bool:
    """Whether a node makes of Sizes what it makes of numbers."""
    return node.op in (*MOVING, *CALCULATING) and all(s.dtype in ("int32", "int64") or s.dtype == "bool" and node.op != "Cast" for s in specs)


def bounded(node, specs: Iterable[Spec | None]) -> bool:
    """Whether computing a node beforehand takes memory and time of the order of what goes in and comes out. Padding around a window, and the
    indices that an Einsum sums over, may be of any size; so may the axes of an array that is empty along another."""
    shapes = [s.shape for s in specs if s is not None]
    if node.op == "Einsum" and math.prod(map(math.prod, shapes)) > MOST_SUMMED:
        return False
    return node.op not in WINDOWS and all(not any(d == 0 for d in shape) or math.prod(d for d in shape if d) <= MOST_SUMMED for shape in shapes)


def _plain(value: np.ndarray, dtype: str) -> np.ndarray:
    """Without symbols and Sizes an array of the dtype."""
    return value.astype(dtype) if value.dtype == object and not any(isinstance(v, (str, Size)) for v in value.ravel()) else value


def infer(nodes: Iterable, specs: dict[str, Spec]) -> None:
    """Adds the specs of every value that the nodes make, those inside subgraphs too; missing ones stay absent."""
    for node in nodes:
        given = [specs.get(name) if name else None for name in node.inputs]
        results = (
            _infer_if(node, given, specs)
            if node.op == "If"
            else infer_repetition(node, given, specs)
            if node.op in ("Loop", "Scan")
            else infer_node(node, given)
        )
        specs.update({name: spec for name, spec in zip(node.outputs, results) if name and spec is not None})


def _infer_if(node, given, specs) -> list[Spec]:
    unknown = infer_node(node, given)
    branches = node.branches
    condition = None if given[0] is None else given[0].constant
    if condition is not None:
        branches = branches[:1] if condition.reshape(())[()] else branches[1:]
    results = []
    for branch in branches:
        try:
            infer(branch.nodes, specs)
            results.append([specs.get(name, UNKNOWN) for name in branch.outputs])
        except (ShapeError, InvalidModelError):
            if condition is not None:
                raise
            return unknown  # a branch that these shapes rule out
    for name, *specs_of_it in zip(node.outputs, *results):
        if len({s.dtype for s in specs_of_it} - {""}) > 1:
            raise InvalidModelError(f"{where(node)}: its branches give {' and '.join(s.dtype for s in specs_of_it)} for {name!r}")
    return results[0] if len(results) == 1 else [agreed(a, b) for a, b in zip(*results)]


def infer_repetition(node, given, specs) -> list[Spec]:
    """Of a Loop or a Scan: the body with what it is handed at first, again with dimensions that change left open, until they stay."""
    OPS[node.op].infer(node, given)
    repetition = Repetition(node)
    specs.update(before_a_run(repetition, specs))
    for attempt in range(3):
        infer(node.get("body").nodes, specs)
        joined = handed_on(repetition, specs)
        changed = {name: spec for name, spec in joined.items() if spec[:2] != specs[name][:2]}
        if not changed:
            break
        if attempt:  # one change follows another: nothing but the rank is left, or not even that
            changed = {name: Spec(spec.dtype, None if attempt > 1 or spec.shape is None else (ANY_DIM,) * spec.rank) for name, spec in joined.items()}
        specs.update(changed)
    else:
        infer(node.get("body").nodes, specs)
    results = after_the_runs(repetition, specs)
    _check_sizes(node, results)
    return results
