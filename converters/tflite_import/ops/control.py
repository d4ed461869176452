"""WHILE and IF, and the lists that a WHILE fills entry by entry, as TensorFlow's converter leaves them to its own kernels.

A list is what its entries are stacked to. One that each run of a body gives the next entry, or the same first one, needs no memory of its own: the loop stacks what the runs give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastrnn.converters.keras_import.site import Tensor
from fastrnn.converters.tflite_import.call import Call
from fastrnn.converters.tflite_import.registry import operator
from fastrnn.converters.tflite_import.schema import Operator, Subgraph
from fastrnn.model import Graph as Body
from fastrnn.model.ops import Spec


@dataclass(frozen=True)
class Reserved:
    """A list of so many entries, none of which is there yet; carried: by which of a body's inputs."""

    n: Tensor
    carried: int | None = None


@dataclass(frozen=True)
class Written:
    """A list of which one entry was replaced."""

    before: Reserved
    index: int  # a tensor of the body
    entry: Tensor


@dataclass(frozen=True)
class Filled:
    """A list whose entries are there, stacked."""

    whole: Tensor


@operator("FlexTensorListReserve", "TensorListReserve")
def reserve(call: Call) -> None:
    """So many entries."""
    call.frame.values[call.operator.outputs[0]] = Reserved(call.tensor(1))


@operator("FlexTensorListSetItem", "TensorListSetItem")
def set_item(call: Call) -> None:
    """An entry of a list that a WHILE carries."""
    before = call.stored(0)
    if not isinstance(before, Reserved) or before.carried is None:
        raise call.refuse("a list that is written to twice in a run of a WHILE, or outside of one, is not supported")
    call.frame.values[call.operator.outputs[0]] = Written(before, call.operator.inputs[1], call.real(2))


@operator("FlexTensorListStack", "TensorListStack")
def stack(call: Call) -> None:
    """All entries along a new first axis."""
    filled = call.stored(0)
    if not isinstance(filled, Filled):
        raise call.refuse("a list that no WHILE has filled is not supported")
    call.give(filled.whole)


@operator("WHILE")
def while_(call: Call) -> None:
    """Runs of a body as long as a condition holds, which is asked beforehand and after each run."""
    network, where = call.network, call.where
    condition, body = (network.subgraph(call.option(slot), where) for slot in (0, 1))
    n = len(call)
    if not n == len(call.operator.outputs) == len(body.inputs) == len(body.outputs) == len(condition.inputs) or len(condition.outputs) != 1:
        raise call.invalid("its subgraphs take or give other numbers of values than it does")
    first = [call.stored(k) for k in range(n)]
    if any(not isinstance(v, (Tensor, Reserved)) for v in first):
        raise call.refuse("a list that was filled before is not supported")
    lists = [k for k, v in enumerate(first) if isinstance(v, Reserved)]
    kept = [k for k in range(n) if body.outputs[k] == body.inputs[k] and body.inputs.count(body.inputs[k]) == 1]  # handed on as they are
    carried = [k for k in range(n) if k not in lists and k not in kept]
    (start,) = network.results(network.run(condition, list(first), where), condition, where)
    inner = list(first)
    for k in carried:
        inner[k] = _inside(call, f"carried{k}", first[k].spec)
    for k in lists:
        inner[k] = Reserved(first[k].n, k)
    ends = [_inside(call, name, Spec(dtype, ())) for name, dtype in (("run", "int64"), ("going", "bool"))]
    network.begin_body()
    frame = network.run(body, inner, where)
    after = network.results(frame, body, where)
    (again,) = network.results(network.run(condition, [first[k] if k in lists else after[k] for k in range(n)], where), condition, where)
    lists = [k for k in lists if k not in kept]
    entries = [_entry(call, after[k], k) for k in lists]
    nodes = network.end_body()
    if not all(isinstance(t, Tensor) for t in (start, again, *(after[k] for k in carried))):
        raise call.refuse("a condition that is a list, or a value that becomes one, is not supported")
    made = Body(
        tuple(nodes),
        tuple(t.name for t in (again, *(after[k] for k in carried), *(w.entry for w in entries))),
        tuple(t.name for t in (*ends, *(inner[k] for k in carried))),
    )
    wanted = [call.operator.outputs[k] in call.frame.read for k in (*carried, *lists)]
    if not any(wanted):
        return
    results = call.emit_all("Loop", wanted, None, start, *(first[k] for k in carried), body=made)
    for k, value in (*zip(carried, results), *((k, first[k]) for k in kept)):
        if value is not None:
            call.give_stored(value, k)
    for written, whole, k in zip(entries, results[len(carried) :], lists):
        if whole is not None:
            call.frame.values[call.operator.outputs[k]] = Filled(_stacked(call, body, first, written, whole))


def _inside(call: Call, what: str, spec: Spec) -> Tensor:
    """What each run of a body is handed: of an unknown content."""
    name = call.network.unique(f"while{call.index}.{what}")
    call.network.specs[name] = Spec(spec.dtype, spec.shape)
    return Tensor(name, call.network.specs[name])


def _entry(call: Call, value, k: int) -> Written:
    if not isinstance(value, Written) or value.before.carried != k:
        raise call.refuse("a list that a run does not give an entry is not supported")
    return value


def _stacked(call: Call, body: Subgraph, first: list, written: Written, whole: Tensor) -> Tensor:
    """The list after all runs, from what they gave: entry by entry from the first on, or the first one again and again."""
    size, n = call.emit("Gather", call.emit("Shape", whole), call.network.constant(0, "int64"), axis=0), call.cast(written.before.n, "int64")
    info = body.tensors[written.index]
    if info.array is not None and info.array.size == 1 and not info.array.any():
        size, whole = call.network.constant(1, "int64"), call.emit("Slice", whole, call.ints(-1), call.ints(np.iinfo(np.int64).max), call.ints(0))
    elif not _counts(body, first, written.index):
        raise call.refuse("a list that is not filled from its first entry on, one a run, is not supported")
    return call.emit("Require", whole, call.emit("Equal", size, n), message="the WHILE runs another number of times than its list has entries")


def _counts(body: Subgraph, first: list, index: int) -> bool:
    """Whether a tensor of the body is an input that starts at 0 and grows by 1 with each run."""
    if index not in body.inputs:
        return False
    k = body.inputs.index(index)
    start = first[k].spec.constant if isinstance(first[k], Tensor) else None
    maker = next((o for o in body.operators if body.outputs[k] in o.outputs), None)
    return start is not None and start.size == 1 and not start.any() and maker is not None and _adds_one(body, maker, index)


def _adds_one(body: Subgraph, maker: Operator, index: int) -> bool:
    others = [j for j in maker.inputs if j != index]
    if maker.kind != "ADD" or len(maker.inputs) != 2 or len(others) != 1:
        return False
    one = body.tensors[others[0]].array
    return one is not None and one.size == 1 and one.ravel()[0] == 1


@operator("IF")
def if_(call: Call) -> None:
    """One subgraph or the other."""
    network, where = call.network, call.where
    given, branches = [call.tensor(k) for k in range(1, len(call))], []
    for slot in (0, 1):
        graph = network.subgraph(call.option(slot), where)
        network.begin_body()
        results = network.results(network.run(graph, list(given), where), graph, where)
        if any(not isinstance(t, Tensor) for t in results):
            raise call.refuse("lists that it gives are not supported")
        results = [call.emit("Identity", t) for t in results]
        branches.append(Body(tuple(network.end_body()), tuple(t.name for t in results)))
    if {len(b.outputs) for b in branches} != {len(call.operator.outputs)}:
        raise call.invalid("its subgraphs give other numbers of values than it does")
    for k, value in enumerate(call.emit_all("If", len(call.operator.outputs), call.tensor(0), then_branch=branches[0], else_branch=branches[1])):
        call.give_stored(value, k)
