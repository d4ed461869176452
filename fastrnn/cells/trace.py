"""What a cell's Python function computes, as a list of instructions.

The function is called once with Values in place of arrays; every operator and function of `maths` that meets one is noted. So a cell may
call helpers, close over numbers and loop over constants as it likes, and the list holds all that its result depends on: two cells with
the same list are the same cell, whatever their code looks like. A compiled backend replays the list on vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastrnn.errors import UnsupportedModelError

if TYPE_CHECKING:
    from fastrnn.typing import DTypeLike

LOGICAL = ("less", "less_equal", "equal", "not_equal", "logical_and", "logical_or", "logical_not")  # what they give is a condition
_UFUNCS = {
    name: name
    for name in (
        "add",
        "subtract",
        "multiply",
        "divide",
        "negative",
        "less",
        "less_equal",
        "equal",
        "not_equal",
        "exp",
        "tanh",
        "sqrt",
        "minimum",
        "maximum",
    )
}
_UFUNCS |= {"absolute": "abs", "bitwise_and": "logical_and", "bitwise_or": "logical_or", "invert": "logical_not"}
_TURNED = {"greater": "less", "greater_equal": "less_equal"}  # of the operands the other way round


@dataclass(frozen=True)
class Program:
    """Instructions in the order they are done. inputs: names, the first values. Each instruction (operation, *operands), where an operand
    is the number of a value, makes the next value; ("constant", bits) is a float32, or of the trace's dtype, by its bits. outputs: numbers of values."""

    inputs: tuple[str, ...]
    instructions: tuple[tuple[Any, ...], ...]
    outputs: tuple[int, ...]

    def __str__(self) -> str:
        lines = [f"inputs {' '.join(self.inputs)}"]
        lines += [f"{k} = {' '.join(map(str, i))}" for k, i in enumerate(self.instructions, len(self.inputs))]
        return "\n".join([*lines, f"outputs {' '.join(map(str, self.outputs))}"])

    @property
    def digest(self) -> str:
        """Names what is computed: equal for equal programs."""
        from hashlib import sha256

        return sha256(str(self).encode()).hexdigest()

    def replay(self, inputs: Mapping[str, Any], perform: Callable[..., Any]) -> list[Any]:
        """The outputs, with `perform(operation, *operands)` doing each instruction."""
        values = [inputs[name] for name in self.inputs]
        for operation, *operands in self.instructions:
            values.append(perform(operation, *(operands if operation == "constant" else (values[k] for k in operands))))
        return [values[k] for k in self.outputs]


class Trace:
    """A program in the making. dtype: of its constants; compiled cells are float32, training has float64 too."""

    def __init__(self, inputs: Sequence[str], dtype: DTypeLike = "float32") -> None:
        self.inputs, self.dtype = tuple(inputs), np.dtype(dtype)
        self.instructions: list[tuple[Any, ...]] = []
        self._known: dict[tuple[Any, ...], Value] = {}

    def values(self) -> dict[str, Value]:
        """The inputs by name."""
        return {name: Value(self, k, False) for k, name in enumerate(self.inputs)}

    def add(self, operation: str, *operands: Any) -> Value:
        """The value of an operation; the same one where it was done before."""
        values = [self._value(operand) for operand in operands]
        conditions = [v.logical for v in values]
        wanted = [True, False, False] if operation == "where" else [operation.startswith("logical")] * len(values)
        if conditions != wanted:
            expected = "conditions" if any(wanted) and operation != "where" else "a condition and two numbers" if operation == "where" else "numbers"
            raise TypeError(f"{operation} takes {expected}")
        return self._add(operation, *(v.number for v in values))

    def perform(self, operation: str, *operands: Any) -> Value:
        """An instruction of another program of this dtype, on values of this one."""
        return self._add(operation, *operands) if operation == "constant" else self.add(operation, *operands)

    def _add(self, *instruction: Any) -> Value:
        if instruction not in self._known:
            self._known[instruction] = Value(self, len(self.inputs) + len(self.instructions), instruction[0] in LOGICAL)
            self.instructions.append(instruction)
        return self._known[instruction]

    def _value(self, operand: Any) -> Value:
        if isinstance(operand, Value):
            if operand.trace is not self:
                raise TypeError("a value of another cell, or of an earlier call, cannot be used here")
            return operand
        if (
            isinstance(operand, (bool, np.bool_))
            or not isinstance(operand, (int, float, np.number))
            or isinstance(operand, (complex, np.complexfloating))
        ):
            raise TypeError(f"a cell computes with numbers and its own values, not {type(operand).__name__}; declare a vector as a parameter")
        with np.errstate(over="ignore"):
            return self._add("constant", int(np.asarray(operand, self.dtype).view(f"u{self.dtype.itemsize}")))

    def program(self, outputs: Sequence[object]) -> Program:
        """What these outputs need, in order."""
        numbers = [self._value(o) for o in outputs]
        if any(v.logical for v in numbers):
            raise TypeError("a condition is not a result; use fr.where(condition, 1.0, 0.0)")
        n, needed = len(self.inputs), {v.number for v in numbers}
        for k in reversed(range(len(self.instructions))):
            if n + k in needed and self.instructions[k][0] != "constant":
                needed |= set(self.instructions[k][1:])
        kept = [k for k in range(len(self.instructions)) if n + k in needed]
        place = {k: k for k in range(n)} | {n + k: n + at for at, k in enumerate(kept)}
        moved = [i if i[0] == "constant" else (i[0], *(place[o] for o in i[1:])) for i in (self.instructions[k] for k in kept)]
        return Program(self.inputs, tuple(moved), tuple(place[v.number] for v in numbers))


class Value(NDArrayOperatorsMixin):
    """A number, or condition, that a cell will have; known only by how it is computed. Python's operators are NumPy's functions, as on arrays."""

    __slots__ = ("logical", "number", "trace")
    __hash__ = None  # type: ignore[assignment]  # == gives a condition

    def __init__(self, trace: Trace, number: int, logical: bool) -> None:
        self.trace, self.number, self.logical = trace, number, logical

    def __pos__(self) -> Value:
        return self

    def __pow__(self, exponent: object) -> Value:
        if isinstance(exponent, Value) or exponent != 2:
            raise TypeError("only the square of a value is compiled; write other powers as products")
        square: Value = self * self
        return square

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a value of a cell is not known while it is compiled, so `if`, `and`, `or`, `not` and min() cannot depend on it; use fr.where, &, |, ~, fr.minimum"
        )

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError("a value of a cell stands for one number of every unit: it has no elements, no dtype and no Python number")

    def _refuse_in_place(self, _: Any) -> NoReturn:
        raise TypeError(
            "an assignment such as += changes the array itself where the function runs on arrays, and every name it goes by; write h = h + a"
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __iand__ = __ior__ = __ipow__ = _refuse_in_place
    __float__ = __int__ = __index__ = __len__ = __iter__ = __getitem__ = __array__ = _refuse

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> Value:
        name = ufunc.__name__
        if method == "__call__" and not options and name in _TURNED:
            return self.trace.add(_TURNED[name], *reversed(operands))
        if method != "__call__" or options or name not in _UFUNCS:
            raise TypeError(f"numpy.{name} is not among the functions that a cell can be compiled with; see fastrnn.cells.maths")
        return self.trace.add(_UFUNCS[name], *operands)


def trace(
    function: Callable[..., Any], inputs: Sequence[str], arguments: Sequence[str], n_outputs: int, where: str, dtype: DTypeLike = "float32"
) -> Program:
    """The program of `function(**arguments)`, all of whose inputs are named in `inputs`. UnsupportedModelError names the line that cannot be compiled."""
    recorder = Trace(inputs, dtype)
    try:
        values = recorder.values()
        result = function(**{name: values[name] for name in arguments})
        outputs = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(outputs) != n_outputs:
            raise TypeError(f"{n_outputs} results are declared, {len(outputs)} were returned")
        return recorder.program(outputs)
    except Exception as error:
        raise UnsupportedModelError(f"{where}: {_line(function, error)}{error}") from error


def _line(function: Callable[..., Any], error: Exception) -> str:
    """Where in the cell's code an error arose: the innermost line that is not of the recording, fastrnn's names or NumPy, else where the function begins."""
    import traceback
    from pathlib import Path

    here, numpy = Path(__file__), Path(np.__file__).parent
    own = (str(here), str(here.with_name("maths.py")), str(here.parents[1] / "__init__.py"))  # the last says which names fastrnn does not have
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in own and numpy not in Path(f.filename).parents]
    if frames:
        return f"{frames[-1].filename}, line {frames[-1].lineno}" + (f", `{frames[-1].line}`: " if frames[-1].line else ": ")
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}: " if code else ""
