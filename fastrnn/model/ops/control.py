"""If, Loop and Scan: subgraphs that see the values around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.registry import ANY_DIM, MANY, UNKNOWN, Dim, Spec, axis_of, meaning, op, require, where
from fastrnn.model.sizes import largest, whole


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


@dataclass(frozen=True)
class Taken:
    """An input of a Scan, of which each run of the body sees one entry of an axis."""

    source: str
    entry: str
    axis: int
    backwards: bool


@dataclass(frozen=True)
class Stacked:
    """An output that is made of what each run of the body gives, along an axis."""

    part: str
    result: str
    axis: int
    backwards: bool


@dataclass(frozen=True)
class Carried:
    """What a run of the body hands to the next: its first value, its names before and after a run, and the last value's."""

    first: str
    before: str
    after: str
    result: str


class Repetition:
    """A Loop or a Scan in one form. Names are "" where omitted; a Scan has no trip count, counter or conditions.

    trips: how often at most. counter, go_on: what the body is told, the number of the run and the condition. goes_on: whether there is
    another run; condition: whether there is a first.
    """

    def __init__(self, node):
        body = node.get("body")
        self.node, self.body, self.scan = node, body, node.op == "Scan"
        self.trips, self.condition, self.counter, self.go_on, self.goes_on = "", "", "", "", ""
        if self.scan:
            n_taken = node.get("num_scan_inputs")
            n = len(node.inputs) - n_taken
            given, made, start = body.inputs, body.outputs, 0
        else:
            n = len(node.inputs) - 2
            self.trips, self.condition = node.input(0), node.input(1)
            self.counter, self.go_on, self.goes_on = body.inputs[0], body.inputs[1], body.outputs[0]
            given, made, start = body.inputs[2:], body.outputs[1:], 2
        results = [node.output(k) for k in range(len(made))]
        self.carried = [Carried(node.inputs[start + k], given[k], made[k], results[k]) for k in range(n)]
        axes, backwards = (_listed(node, f"scan_input_{what}", len(given) - n) for what in ("axes", "directions"))
        self.taken = [Taken(node.inputs[n + k], given[n + k], axes[k], bool(backwards[k])) for k in range(len(given) - n)] if self.scan else []
        axes, backwards = (_listed(node, f"scan_output_{what}", len(made) - n) for what in ("axes", "directions"))
        self.stacked = [Stacked(made[n + k], results[n + k], axes[k], bool(backwards[k])) for k in range(len(made) - n)]

    @cached_property
    def _identities(self) -> dict[str, str]:
        return {node.outputs[0]: node.inputs[0] for node in self.body.nodes if node.op == "Identity"}

    def unconditional(self, specs) -> bool:
        """Whether nothing but the trip count ends it: the conditions are true whatever the data."""
        if self.scan or not self.condition and not self.goes_on:
            return True
        ends = self.goes_on
        while ends in self._identities:
            ends = self._identities[ends]
        return (not self.condition or _true(specs, self.condition)) and (ends == self.go_on or _true(specs, ends))

    def count(self, specs) -> Dim:
        """How often the body runs, where that follows from shapes and constants; else ANY_DIM."""
        if self.scan:
            dims = [specs[t.source].shape[axis_of(self.node, t.axis, specs[t.source].rank)] for t in self.taken]
            numbers, symbols = [d for d in dims if not isinstance(d, str)], {d for d in dims if isinstance(d, str)}
            if any(d != numbers[0] for d in numbers[1:]):
                raise ShapeError(f"{where(self.node)}: its inputs have {', '.join(map(str, numbers))} entries along the scanned axes")
            return numbers[0] if numbers else symbols.pop() if len(symbols) == 1 else ANY_DIM
        if self.condition and _false(specs, self.condition):
            return 0
        value = specs[self.trips].value if self.trips and self.trips in specs else None
        if value is None or not self.unconditional(specs):
            return ANY_DIM
        n = value.reshape(-1)[0]
        return n if isinstance(n, str) else largest(0, whole(n))


def _listed(node, name: str, n: int) -> list[int]:
    given = node.get(name) if node.op == "Scan" else None
    if given is not None and len(given) != n:
        raise InvalidModelError(f"{where(node)}: {name} must have {n} entries, got {len(given)}")
    if given is not None and name.endswith("directions") and not set(given) <= {0, 1}:
        raise InvalidModelError(f"{where(node)}: {name} must be 0 or 1, got {list(given)}")
    return [0] * n if given is None else [int(a) for a in given]


def _constant(specs, name: str) -> np.ndarray | None:
    return specs[name].constant if name in specs else None


def _true(specs, name: str) -> bool:
    return (value := _constant(specs, name)) is not None and bool(value.reshape(-1)[:1].all())


def _false(specs, name: str) -> bool:
    return (value := _constant(specs, name)) is not None and not value.reshape(-1)[:1].all()


@op("Loop", inputs=(0, MANY), outputs=MANY, body=None)
@op(
    "Scan",
    inputs=(1, MANY),
    outputs=MANY,
    body=None,
    num_scan_inputs=None,
    scan_input_axes=None,
    scan_output_axes=None,
    scan_input_directions=None,
    scan_output_directions=None,
)
def loop(node, inputs):
    """Checks what does not depend on the body's values, which are inferred in fastrnn/model/infer.py."""
    body = node.get("body")
    if body is None:
        raise InvalidModelError(f"{where(node)}: body is missing")
    if node.op == "Loop":
        carried = len(node.inputs) - 2
        if carried < 0 or len(body.inputs) != carried + 2 or len(body.outputs) < carried + 1 or len(node.outputs) > len(body.outputs) - 1:
            raise InvalidModelError(
                f"{where(node)}: {len(node.inputs)} inputs, {len(node.outputs)} outputs, and a body of {len(body.inputs)} inputs "
                f"and {len(body.outputs)} outputs do not fit"
            )
        if not node.inputs[0] and not node.inputs[1]:
            raise InvalidModelError(f"{where(node)}: neither a trip count nor a condition ends it")
        for spec, what, dtype in zip(inputs, ("the trip count", "the condition"), ("int64", "bool")):
            if spec is not None and (spec.dtype != dtype or spec.shape not in ((), (1,), ("?",))):
                raise InvalidModelError(f"{where(node)}: {what} must be a scalar of {dtype}, got {spec.dtype} {spec.shape}")
    else:
        n = node.get("num_scan_inputs")
        if (
            n is None
            or not 1 <= n <= len(node.inputs)
            or len(body.inputs) != len(node.inputs)
            or len(body.outputs) < len(node.inputs) - n
            or len(node.outputs) > len(body.outputs)
        ):
            raise InvalidModelError(
                f"{where(node)}: num_scan_inputs={n}, {len(node.inputs)} inputs, {len(node.outputs)} outputs, and a body of "
                f"{len(body.inputs)} inputs and {len(body.outputs)} outputs do not fit"
            )
    for carried in Repetition(node).carried:
        if not carried.first:
            raise InvalidModelError(f"{where(node)}: the first value of {carried.before!r} is missing")
    return [UNKNOWN] * len(node.outputs)


def before_a_run(repetition: Repetition, specs) -> dict[str, Spec]:
    """Specs of what the body is given, those it is handed on as they are at first."""
    given = {c.before: Spec(*specs.get(c.first, UNKNOWN)[:2]) for c in repetition.carried}
    for t in repetition.taken:
        source = specs.get(t.source, UNKNOWN)
        if source.shape is None:
            given[t.entry] = Spec(source.dtype, None)
        else:
            axis = axis_of(repetition.node, t.axis, source.rank)
            given[t.entry] = Spec(source.dtype, (*source.shape[:axis], *source.shape[axis + 1 :]))
    if not repetition.scan:
        given |= {repetition.counter: Spec("int64", ()), repetition.go_on: Spec("bool", ())}
    return given


def steady(repetition: Repetition, specs) -> bool:
    """Whether every run leaves what it hands on in the shape it had."""
    return all(_fits(specs.get(c.first), specs.get(c.after)) for c in repetition.carried)


def _fits(a: Spec | None, b: Spec | None) -> bool:
    return a is not None and b is not None and None not in (a.shape, b.shape) and a[:2] == b[:2] and ANY_DIM not in a.shape


def after_the_runs(repetition: Repetition, specs) -> list[Spec]:
    """Specs of the results, once those of the body are there."""
    n, node, results = repetition.count(specs), repetition.node, []
    for c in repetition.carried:
        spec = specs.get(c.before, UNKNOWN)
        results.append(Spec(*spec[:2]))
    for s in repetition.stacked:
        part = specs.get(s.part, UNKNOWN)
        if part.shape is None:
            results.append(Spec(part.dtype, None))
        else:
            axis = axis_of(node, s.axis, part.rank + 1)
            results.append(Spec(part.dtype, (*part.shape[:axis], n, *part.shape[axis:])))
    return results[: len(node.outputs)]


def handed_on(repetition: Repetition, specs) -> dict[str, Spec]:
    """Specs of what the body is handed, by what it was given and what it gave: dimensions that change are unknown."""
    joined = {}
    for c in repetition.carried:
        before, after = specs.get(c.before, UNKNOWN), specs.get(c.after, UNKNOWN)
        if before.dtype and after.dtype and before.dtype != after.dtype:
            raise InvalidModelError(f"{where(repetition.node)}: {c.before!r} is {before.dtype}, but is handed on as {after.dtype}")
        joined[c.before] = agreed(before, after) if after.dtype else UNKNOWN
    return joined


@op("Require", inputs=(2, 2), message="", apart=lambda node, specs, axes: axes[1] is None)
def require_(node, inputs):
    """The first input as it is; raises ShapeError with the message once the second, a bool (1,) made of shapes, is known not to hold."""
    x, condition = require(node, inputs[0], "the input"), require(node, inputs[1], "the condition", ("bool",))
    if condition.constant is not None and not condition.constant.all():
        raise ShapeError(f"{where(node)}: {node.get('message')}")
    return [x]


@meaning("Require")
def require_meaning(node, inputs):
    """Where the condition was not known before."""
    if not inputs[1].all():
        raise ShapeError(f"{where(node)}: {node.get('message')}")
    return [inputs[0]]
