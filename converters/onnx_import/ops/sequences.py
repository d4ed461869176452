"""Sequences of tensors whose members are known beforehand: they are taken apart as the file is read, and no node is left of them.

A sequence is a list of values, or all the entries of a tensor along an axis, however many those are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastrnn.converters.onnx_import.registry import REQUIRED, Given, imports


@dataclass(frozen=True)
class Entries:
    """The entries of a value along an axis, which stays as 1 or goes."""

    source: str
    axis: int
    keepdims: int


@imports("SequenceConstruct")
def construct(node: Given) -> None:
    """Of these values."""
    _give(node, list(node.inputs))


@imports("SequenceEmpty")
def empty(node: Given) -> None:
    """Of none."""
    node.ignore("dtype")
    _give(node, [])


@imports("SplitToSequence")
def split(node: Given) -> None:
    """Entry by entry, or in parts of given sizes."""
    axis, keepdims = node.attribute("axis", 0), node.attribute("keepdims", 1)
    if not node.input(1):
        return _give(node, Entries(node.inputs[0], axis, keepdims))
    sizes = _constant(node, 1, "split")
    if sizes.ndim == 0 and sizes == 1:
        return _give(node, Entries(node.inputs[0], axis, 1))
    if sizes.ndim != 1:
        raise node.refuse(f"parts of {sizes} entries, as many as there are, are not supported")
    parts = [node.value(f"part.{k}") for k in range(len(sizes))]
    node.emit("Split", node.inputs[:2], parts, axis=axis)
    return _give(node, parts)


@imports("SequenceInsert", "SequenceErase")
def change(node: Given) -> None:
    """One more in front of a place, or one less; at the end where no place is given."""
    members = list(_members(node))
    n = len(members)
    if node.op == "SequenceInsert":
        members.insert(_place(node, 2, n, n + 1) if node.input(2) else n, node.inputs[1])
    else:
        del members[_place(node, 1, n, n) if node.input(1) else n - 1]
    _give(node, members)


@imports("SequenceAt")
def at(node: Given) -> None:
    """A member by its place, the last ones by negative numbers."""
    sequence = _sequence(node, 0)
    if isinstance(sequence, Entries):
        place = int(_constant(node, 1, "position").reshape(()))
        index = node.constant("index", [place] if sequence.keepdims else place, np.int64)
        node.emit("Gather", [sequence.source, index], axis=sequence.axis)
    else:
        node.emit("Identity", [sequence[_place(node, 1, len(sequence), len(sequence))]])


@imports("SequenceLength")
def length(node: Given) -> None:
    """How many."""
    sequence = _sequence(node, 0)
    if isinstance(sequence, Entries):
        node.emit("Gather", [node.emit("Shape", [sequence.source], [node.value("shape")]), node.constant("axis", sequence.axis, np.int64)], axis=0)
    else:
        node.emit("Identity", [node.constant("length", len(sequence), np.int64)])


@imports("ConcatFromSequence")
def concat(node: Given) -> None:
    """Along an axis, or along a new one."""
    sequence, axis, new = _sequence(node, 0), node.attribute("axis", REQUIRED), node.attribute("new_axis", 0)
    if isinstance(sequence, Entries):
        if (axis, bool(new)) != (sequence.axis, not sequence.keepdims):
            raise node.refuse("the entries of one axis along another are not supported")
        node.emit("Identity", [sequence.source])
        return
    if not sequence:
        raise node.refuse("a sequence of none is not supported")
    if new:
        axes = node.constant("axes", [axis], np.int64)
        sequence = [node.emit("Unsqueeze", [name, axes], [node.value(f"raised.{k}")]) for k, name in enumerate(sequence)]
    node.emit("Concat", sequence, axis=axis)


def _give(node: Given, sequence: list[str] | Entries) -> None:
    node.graph.names.sequences[node.outputs[0]] = sequence


def _sequence(node: Given, k: int) -> list[str] | Entries:
    found = node.graph.names.sequences.get(node.input(k))
    if found is None:
        raise node.refuse(f"{node.input(k)!r} is no sequence whose members are known beforehand")
    return found


def _members(node: Given) -> list[str]:
    sequence = _sequence(node, 0)
    if isinstance(sequence, Entries):
        raise node.refuse("as many members as an axis has are not supported")
    return sequence


def _constant(node: Given, k: int, what: str) -> np.ndarray:
    array = node.graph.names.weights.get(node.input(k))
    if array is None or array.dtype.kind != "i":
        raise node.refuse(f"{what} must be a constant of whole numbers")
    return array


def _place(node: Given, k: int, n: int, end: int) -> int:
    """A place from 0 up to before `end`; negative ones count from n."""
    place = int(_constant(node, k, "position").reshape(()))
    if not -n <= place < end:
        raise node.invalid(f"position {place} is outside a sequence of {n}")
    return place + n if place < 0 else place
