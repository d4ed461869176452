"""An If, a Loop and a Scan as steps that jumps go around, or back to.

An If that only data decides: both branches are there, and both write to one place.

    to else, unless the condition holds
    then:  its nodes, its outputs copied to their places; to the end
    else:  the same

A Loop or a Scan: a counter, a jump out, the body once, a jump back.

    counter = 0, what is handed on = its first value
    top:  out, unless counter < trips and the condition holds
          entries taken from what is scanned, the body, what it gave put to its place
          what it hands on copied to where the next run reads it; counter + 1; to the top
"""

from __future__ import annotations

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels.contract import Key
from fastrnn.model import Node
from fastrnn.model.ops.control import Repetition
from fastrnn.model.ops.registry import ANY_DIM, has_symbol
from fastrnn.plan.emit.indexing import put_at, take_at
from fastrnn.plan.lowering.memory import View
from fastrnn.plan.program import JumpStep


def branch(build, node: Node) -> None:
    """Jumps around the branch that is not taken; both write to the outputs' places."""
    made = [build.place(name, agreed(build, node, k)) if name else None for k, name in enumerate(node.outputs)]
    condition = build.contiguous(build.views[node.inputs[0]])
    jumps = []
    for k, taken in enumerate(node.branches):
        jumps.append(len(build.steps))
        build.steps.append(None)
        with build.inside_a_branch():
            for inner in taken.nodes:
                build.emit(inner)
        for name, target in zip(taken.outputs, made):
            if target is not None:
                build.copy(node.name, build.views[name], target)
        build.steps[jumps[k]] = JumpStep(node.name, condition if k == 0 else None, len(build.steps) + (k == 0))


def agreed(build, node: Node, k: int) -> tuple[int, ...]:
    """The shape that both branches of an If give its output k."""
    where = f"node {node.name!r} (If): its condition is only known at run time"
    for taken in node.branches:
        if any(name not in build.specs for name in (*taken.outputs, *taken.made())):
            raise UnsupportedModelError(f"{where}, and a branch does not fit these shapes; fix what it depends on with constants=")
    a, b = (build.specs[taken.outputs[k]] for taken in node.branches)
    if a[:2] != b[:2] or has_symbol(a.shape):
        raise UnsupportedModelError(
            f"{where}, and its branches give {a.dtype} {a.shape} and {b.dtype} {b.shape}; fix what it depends on with constants="
        )
    return a.shape


def repeat(build, node: Node) -> None:
    """Emits a Loop or a Scan whose shapes are all known and stay from run to run."""
    loop = Repetition(node)
    trips = loop.count(build.specs)
    _refuse_open_ends(build, loop, trips)
    counter, bound, going = _starts(build, loop, trips)
    handed = {}
    for c in loop.carried:
        handed[c.before] = build.own(c.before, build.shape_of(c.before))
        build.copy(node.name, build.views[c.first], handed[c.before])
    entries = [(t, build.own(t.entry, build.shape_of(t.entry))) for t in loop.taken]
    stacks = [(s, build.place(s.result, build.shape_of(s.result))) for s in loop.stacked if s.result]
    top, jumps = len(build.steps), []
    if bound is not None:
        less = build.hold((), np.bool_)
        _whole(build, node.name, "less", np.less, less, counter, bound)
        jumps.append(_jump(build, node.name, less))
    if loop.condition or loop.goes_on:
        jumps.append(_jump(build, node.name, going))
    spent = build.estimated_ns
    for t, entry in entries:
        take_at(build, node.name, _turned(build.views[t.source], t.axis, t.backwards), t.axis, counter, entry)
    with build.inside_a_branch():
        for inner in loop.body.nodes:
            build.emit(inner)
    for s, whole in stacks:
        put_at(build, node.name, build.views[s.part], _turned(whole, s.axis, s.backwards), s.axis, counter)
    ends = [(build.views[loop.goes_on].reshaped(()), going)] if loop.goes_on else []
    _hand_on(build, node.name, [*((build.views[c.after], handed[c.before]) for c in loop.carried), *ends])
    _whole(build, node.name, "add", np.add, counter, counter, build.number(1, np.int64))
    build.estimated_ns = build.estimated_ns + (build.estimated_ns - spent) * (0 if isinstance(trips, str) else trips - 1)
    build.steps.append(JumpStep(node.name, None, top))
    for k in jumps:
        build.steps[k] = JumpStep(node.name, build.steps[k].condition, len(build.steps))
    for c in loop.carried:
        if c.result:
            build.copy(node.name, handed[c.before], build.place(c.result, build.shape_of(c.result)))


def _refuse_open_ends(build, loop: Repetition, trips) -> None:
    place = f"node {loop.node.name!r} ({loop.node.op})"
    if trips == ANY_DIM and any(s.result for s in loop.stacked):
        raise UnsupportedModelError(
            f"{place}: how often it runs depends on data, and with it the size of {next(s.result for s in loop.stacked if s.result)!r}; "
            "fix what it depends on with constants="
        )
    for c in loop.carried:
        first, after = build.specs.get(c.first), build.specs.get(c.after)
        if first is None or after is None or first[:2] != after[:2]:
            raise UnsupportedModelError(
                f"{place}: {c.before!r} is {first and first[:2]} at first and {after and after[:2]} after a run; "
                "only what keeps its shape is handed on where data, or many runs, decide"
            )


def _starts(build, loop: Repetition, trips) -> tuple[View, View | None, View | None]:
    """The counter at 0, what it is to stay below, and the condition, each a scalar."""
    counter = build.own(loop.counter, ()) if loop.counter else build.hold((), np.int64)
    build.copy(loop.node.name, build.number(0, np.int64), counter)
    if trips != ANY_DIM:
        bound = build.number(trips, np.int64)
    else:
        bound = build.views[loop.trips].reshaped(()) if loop.trips else None
    going = None
    if not loop.scan:
        going = build.own(loop.go_on, ())
        build.copy(loop.node.name, build.views[loop.condition].reshaped(()) if loop.condition else build.number(True, np.bool_), going)
    return counter, bound, going


def _jump(build, name: str, condition: View) -> int:
    build.steps.append(JumpStep(name, condition, 0))
    return len(build.steps) - 1


def _whole(build, name: str, role: str, function, y: View, a: View, b: View) -> None:
    """y = a function of two whole numbers."""
    if build.compiled:
        build.loops(name, Key(role, dtype="int64"), y, a, b)
    else:
        build.python(name, lambda arrays: [np.asarray(function(*arrays))], (a, b), (y,))


def _turned(view: View, axis: int, backwards: bool) -> View:
    """The view with an axis from its end."""
    axis %= len(view.shape)
    return view.part(view.shape[axis] - 1, -1, axis, -1) if backwards else view


def _hand_on(build, name: str, pairs: list[tuple[View, View]]) -> None:
    """Copies to where the next run reads; by way of scratch where one copy would spoil what another is still to read."""
    staged = []
    for source, target in pairs:
        if source.same_place(target):
            continue
        if source.space == "work" and any(_meets(source, other) for _, other in pairs):
            copy = build.scratch(source.shape, source.dtype)
            build.copy(name, source, copy)
            source = copy
        staged.append((source, target))
    for source, target in staged:
        build.copy(name, source, target)


def _meets(source: View, target: View) -> bool:
    """Whether a source lies in what is written: blocks hold one value each."""
    return source.index == target.index
