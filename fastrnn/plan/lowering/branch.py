"""An If that only data decides, as steps: both branches are there, jumps go around the one that is not taken, and both write to one place.

    to `else`, unless the condition holds
    then:  its nodes, its outputs copied to their places; to the end
    else:  the same
    end:
"""

from __future__ import annotations

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Node
from fastrnn.model.ops.registry import has_symbol
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
        raise UnsupportedModelError(f"{where}, and its branches give {a.dtype} {a.shape} and {b.dtype} {b.shape}; fix what it depends on with constants=")
    return a.shape
