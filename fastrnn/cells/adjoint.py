"""Reverse mode over a cell's instructions: the gradients of what a cell computes, as a program like the cell's own.

Values are computed once more from the inputs, so nothing but those has to be kept from the forward pass; what was kept nevertheless is read. Rules are those of calculus; where a function has
a corner, torch's: relu and abs have slope 0 at 0, minimum and maximum share the gradient where both operands are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastrnn.cells.maths import where
from fastrnn.cells.trace import LOGICAL, Program, Trace, Value

if TYPE_CHECKING:
    from fastrnn.typing import DTypeLike


def _extreme(loses: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """Of minimum or maximum: an operand that loses has none, equal ones have half each, and NaN lets it pass to both."""

    def rule(d: Any, y: Any, a: Any, b: Any) -> tuple[Any, ...]:
        shared = where(a == b, d * 0.5, d)
        return where(loses(a, b), 0.0, shared), where(loses(b, a), 0.0, shared)

    return rule


# From the gradient d of a value y and its operands to theirs; None where there is none.
_RULES: dict[str, Callable[..., tuple[Any, ...]]] = {
    "add": lambda d, y, a, b: (d, d),
    "subtract": lambda d, y, a, b: (d, -d),
    "multiply": lambda d, y, a, b: (d * b, d * a),
    "divide": lambda d, y, a, b: (d / b, -(d / b * y)),
    "negative": lambda d, y, a: (-d,),
    "exp": lambda d, y, a: (d * y,),
    "tanh": lambda d, y, a: (d * (1 - y * y),),
    "sigmoid": lambda d, y, a: (d * (y * (1 - y)),),
    "relu": lambda d, y, a: (where(y <= 0, 0.0, d),),
    "sqrt": lambda d, y, a: (d * 0.5 / y,),
    "abs": lambda d, y, a: (where(a < 0, -d, where(a == 0, 0.0, d)),),
    "log1p_unit": lambda d, y, a: (d / (1 + a),),
    "minimum": _extreme(lambda a, b: b < a),
    "maximum": _extreme(lambda a, b: a < b),
    "where": lambda d, y, condition, a, b: (None, where(condition, d, 0.0), where(condition, 0.0, d)),
}
DIFFERENTIATED = frozenset(_RULES)


def adjoint(program: Program, gradients: Sequence[str], wanted: Sequence[str], dtype: DTypeLike, kept: Mapping[int, str] | None = None) -> Program:
    """A program that gives the gradient of each wanted input, from the program's inputs and, under the names `gradients`, that of each of its outputs.

    dtype: that of the program's constants. kept: values of the program, by their numbers, that are inputs too, under these names. An input that nothing depends on has
    gradient 0.
    """
    kept = kept or {}
    recorder = Trace((*program.inputs, *gradients, *kept.values()), dtype)
    given = recorder.values()
    values = [given[name] for name in program.inputs]
    for number, (operation, *operands) in enumerate(program.instructions, len(values)):
        if number in kept:
            values.append(given[kept[number]])
        else:
            values.append(recorder.perform(operation, *(operands if operation == "constant" else (values[k] for k in operands))))
    found: dict[int, Value] = {}

    def add(number: int, d: Value) -> None:
        found[number] = found[number] + d if number in found else d

    for number, name in zip(program.outputs, gradients, strict=True):
        add(number, given[name])
    for k in reversed(range(len(program.instructions))):
        operation, *operands = program.instructions[k]
        number = len(program.inputs) + k
        if number not in found or operation == "constant" or operation in LOGICAL:
            continue
        for operand, d in zip(operands, _RULES[operation](found[number], values[number], *(values[o] for o in operands)), strict=True):
            if d is not None:
                add(operand, d)
    return recorder.program([found.get(program.inputs.index(name), 0.0) for name in wanted])
