"""The same inputs through the source's own engine and through fastrnn: how far each output is off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from fastrnn.converters.engines import Engine

from fastrnn.errors import ShapeError
from fastrnn.model import Model
from fastrnn.model.graph import every_node
from fastrnn.plan.streaming import batch_symbol
from fastrnn.runtime.session import Session
from fastrnn.runtime.stream import Stream

TOLERANCE = 2e-5  # of an output's largest entry: a network of a few layers in float32, computed in two orders
DEFAULT_SIZE = 16  # of dimensions that nobody named


@dataclass(frozen=True)
class Difference:
    """One output of one case: largest error and largest entry over all its elements; within: whether the error is small enough."""

    case: str
    output: str
    error: float
    scale: float
    tolerance: float

    @property
    def relative(self) -> float:
        """The error as a fraction of the scale."""
        return self.error / self.scale if self.scale else 0.0 if self.error == 0 else np.inf

    @property
    def within(self) -> bool:
        """Whether it is within tolerance; NaN is not."""
        return self.relative <= self.tolerance


def index_ranges(model: Model) -> dict[str, int]:
    """How many indices each integer input may hold, where a Gather reads it, directly or behind Casts."""
    source: dict[str, str] = {v.name: v.name for v in model.inputs if v.dtype != "float32"}
    sizes: dict[str, int] = {}
    for node, _ in every_node(model.nodes):
        if node.op in ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose") and node.inputs[0] in source:
            source[node.outputs[0]] = source[node.inputs[0]]
        if node.op == "Gather" and node.inputs[1] in source:
            spec, name = model.specs.get(node.inputs[0]), source[node.inputs[1]]
            n = spec.shape[node.get("axis")] if spec is not None and spec.shape is not None else None
            if isinstance(n, int):
                sizes[name] = min(n, sizes.get(name, n))
    return sizes


def random_inputs(model: Model, batch: int, sizes: Mapping[str, int], constants: Mapping[str, np.ndarray], random,
                  prefix: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """An array for every input that is not optional; prefix: axes in front. Indices stay inside their tables."""
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
        else:
            arrays[value.name] = random.integers(0, ranges.get(value.name, 2), shape).astype(value.dtype)
    return arrays


def compare(case: str, wanted: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], tolerance: float) -> list[Difference]:
    """A Difference for each output; raises ShapeError where shapes differ."""
    found = []
    for name, want in wanted.items():
        want, have = np.asarray(want), np.asarray(got[name])
        if want.shape != have.shape or want.dtype.kind != have.dtype.kind:
            raise ShapeError(f"{case}: output {name!r} is {have.dtype} {have.shape}, the other engine's {want.dtype} {want.shape}")
        with np.errstate(invalid="ignore"):  # infinities that agree are told apart below
            error = np.abs(have.astype(np.float64) - want) if want.size else np.zeros(1)
        error = np.where(np.isnan(have) & np.isnan(want) | (have == want), 0.0, error) if want.size else error
        finite = want[np.isfinite(want)] if want.dtype.kind == "f" else want
        found.append(Difference(case, name, float(error.max()), float(np.abs(finite).max(initial=0)), tolerance))
    return found


def verify(session: Session, engine: Engine, batches: Iterable[int] = (1, 3), steps: int = 50, sizes: Mapping[str, int] = {}, tolerance: float = TOLERANCE,
           seed: int = 0, constants: Mapping[str, np.ndarray] = {}, progress: Callable[[str], None] = lambda case: None) -> list[Difference]:
    """Whole calls at several batch sizes, then, where the model has states, a stream of `steps` calls with the states carried.

    Inputs are drawn from a normal distribution of deviation 1/2, indices uniformly. constants: values of inputs that both engines
    get. sizes: of symbolic dimensions, 16 where not said. A batch that the model fixes is used once.
    """
    model, random, found = session.model, np.random.default_rng(seed), []
    symbol = batch_symbol(model)
    for batch in list(batches) if symbol is not None else [1]:
        case = f"batch {batch}" if symbol is not None else "whole"
        progress(case)
        inputs = random_inputs(model, batch, sizes, constants, random)
        found += compare(case, engine({**inputs, **constants}), session.run(inputs), tolerance)
    if model.states:
        progress(f"stream of {steps} steps")
        found += compare_streams(session, engine, steps, sizes, tolerance, constants, random)
    return found


def compare_streams(session: Session, engine: Engine, steps: int, sizes, tolerance: float, constants, random, batch: int = 1) -> list[Difference]:
    """Every step through both, each with its own states; errors and scales over the whole stream."""
    model, stream = session.model, session.stream(batch)
    inputs = random_inputs(model, batch, {d: 1 for v in model.inputs for d in v.shape if d == stream.time} | dict(sizes), constants, random, (steps,))
    states = first_states(session, stream, {name: a[0] for name, a in inputs.items()})
    tied = {s.output for s in model.states}
    wanted, got = {}, {}
    for t in range(steps):
        step = {name: np.asarray(a[t]) for name, a in inputs.items() if name not in states}
        theirs = engine({**step, **constants, **states})
        states = {s.input: np.asarray(s.part(theirs[s.output], states[s.input].ndim), np.float32) for s in model.states}
        mine = stream.step({name: np.squeeze(a, stream.time_axis(name)) if stream.time else a for name, a in step.items()})
        named = dict(zip([n for n in model.output_names if n not in tied], mine if isinstance(mine, tuple) else (mine,)))
        for name, value in named.items():
            got.setdefault(name, []).append(value)
            wanted.setdefault(name, []).append(np.squeeze(theirs[name], stream.time_axis(name)) if stream.time else theirs[name])
    case = f"stream of {steps} steps"
    found = compare(case, {k: np.stack(v) for k, v in wanted.items()}, {k: np.stack(v) for k, v in got.items()}, tolerance)
    return found + compare(f"{case}, state", states, stream.state, tolerance)


def first_states(session: Session, stream: Stream, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Zeros for each tied input, of the shape that it has among the inputs of a step, else (an optional one) in the stream."""
    return {s.input: np.zeros(inputs[s.input].shape if s.input in inputs else stream.state[s.input].shape, np.float32) for s in session.model.states}
