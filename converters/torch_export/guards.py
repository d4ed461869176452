"""What an exported program takes for granted about sizes, as conditions in the graph: other sizes are refused when they are met."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import sympy
import torch

from fastrnn.converters.torch_export.importer import GraphImporter
from fastrnn.model import Value

RELATIONS = {"Eq": "Equal", "Equality": "Equal", "Gt": "Greater", "StrictGreaterThan": "Greater", "Ge": "GreaterOrEqual",
             "GreaterThan": "GreaterOrEqual", "Lt": "Less",
             "StrictLessThan": "Less", "Le": "LessOrEqual", "LessThan": "LessOrEqual", "And": "And", "Or": "Or", "Add": "Add", "Mul": "Mul",
             "Max": "Max", "Min": "Min",
             "Mod": "Mod", "PythonMod": "Mod"}  # fmt: skip

TORCH = Path(torch.__file__).parent


class _Unwritten(Exception):
    """An expression for which there are no nodes."""


def _decided_by_module(guard) -> bool:
    """Whether a guard comes from the module's own lines, or those of torch.nn: a way taken by size. What else torch notes has to do with how it
    lays memory out, or is checked by the shapes of fastrnn's ops."""
    path = Path(guard.sloc.framework_loc.filename)
    return not path.is_relative_to(TORCH) or path.is_relative_to(TORCH / "nn")


def assumptions(program, inputs: list[Value], several: Collection[str], bounded: bool) -> list[sympy.Basic]:
    """Relations between torch's symbols that hold wherever the program does. bounded: with the ranges of its dimensions, which the caller has set.

    torch.export takes it that no open size is 0 or 1. Recurrent networks run with one row and one step, so that is only a condition
    for the symbols in several.
    """
    symbols = {d for v in inputs for d in v.shape if isinstance(d, str)}
    found: dict[str, sympy.Basic] = {}
    for symbol, bounds in program.range_constraints.items():
        if str(symbol) in symbols:
            lower, upper = bounds.lower if bounded else 2, bounds.upper
            if lower > 2 or str(symbol) in several:
                found.setdefault(f"{symbol} >", sympy.Ge(symbol, max(int(lower), 2), evaluate=False))
            if bounded and upper.is_number and upper.is_finite and upper < 1 << 31:
                found.setdefault(f"{symbol} <", sympy.Le(symbol, int(upper), evaluate=False))
    for env in {id(e): e for e in _environments(program)}.values():
        for guard in env.guards:
            free = {str(s) for s in guard.expr.free_symbols}
            if free and free <= symbols and _decided_by_module(guard) and guard.expr.func.__name__ in (*RELATIONS, "Not", "Ne", "Unequality"):
                found.setdefault(str(guard.expr), guard.expr)
    return list(found.values())


def _environments(program):
    """Where torch keeps what it found out about sizes."""
    for node in program.graph.nodes:
        fake = node.meta.get("val") if node.op == "placeholder" else None
        if isinstance(fake, torch.Tensor):
            yield from (d.node.shape_env for d in fake.shape if not isinstance(d, int))


def conditions(importer: GraphImporter, inputs: list[Value], relations: list[sympy.Basic], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """(what is assumed, the value that says whether it holds), as nodes; a relation with functions beyond arithmetic is passed over."""
    sizes: dict[str, tuple[str, int]] = {}
    for value in inputs:
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, str):
                sizes.setdefault(dim, (value.name, axis))
    found = []
    for relation in relations:
        before = len(importer.build.nodes)
        try:
            made = _write(importer, relation, sizes)
        except _Unwritten:
            del importer.build.nodes[before:]
            continue
        renamed = (
            relation.subs({s: sympy.Symbol(names[str(s)], integer=True) for s in relation.free_symbols if str(s) in names}) if names else relation
        )
        found.append((str(relation if renamed in (sympy.true, sympy.false) else renamed), made))
    return found


def _write(importer: GraphImporter, e: sympy.Basic, sizes: Mapping[str, tuple[str, int]]) -> str:
    """An expression as nodes over int64 (1,) and bool (1,)."""
    kind = e.func.__name__
    if e.is_Symbol and str(e) in sizes:
        name, axis = sizes[str(e)]
        return importer.node("Slice", importer.node("Shape", name), importer.ints(axis), importer.ints(axis + 1))
    if e.is_Integer:
        return importer.ints(int(e))
    parts = [_write(importer, part, sizes) for part in e.args]
    if kind in ("Ne", "Unequality"):
        return importer.node("Not", importer.node("Equal", *parts))
    if kind == "Not":
        return importer.node("Not", *parts)
    if kind == "FloorDiv":
        return importer.node("Div", importer.node("Sub", parts[0], importer.node("Mod", *parts)), parts[1])
    if kind not in RELATIONS:
        raise _Unwritten
    whole = parts[0]
    for part in parts[1:]:
        whole = importer.node(RELATIONS[kind], whole, part)
    return whole
