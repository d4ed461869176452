"""Elementwise operators, reductions and normalisations."""

from __future__ import annotations

from fastrnn.converters.tflite_import.call import Call
from fastrnn.converters.tflite_import.registry import operator

BINARY = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "MAXIMUM": "Max", "MINIMUM": "Min", "POW": "Pow", "FLOOR_MOD": "Mod", "LESS": "Less", "LESS_EQUAL": "LessOrEqual",
          "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "EQUAL": "Equal", "LOGICAL_OR": "Or", "LOGICAL_AND": "And", "PRELU": "PRelu"}  # fmt: skip
UNARY = {"LOGISTIC": "Sigmoid", "TANH": "Tanh", "RELU": "Relu", "EXP": "Exp", "LOG": "Log", "SQRT": "Sqrt", "ABS": "Abs", "NEG": "Neg", "SIN": "Sin", "COS": "Cos", "FLOOR": "Floor",
         "CEIL": "Ceil", "ROUND": "Round", "SIGN": "Sign", "ELU": "Elu", "LOG_SOFTMAX": "LogSoftmax", "LOGICAL_NOT": "Not", "QUANTIZE": "Identity", "DEQUANTIZE": "Identity"}  # fmt: skip
CLIPPED = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
REDUCTIONS = {"MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_PROD": "ReduceProd", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin", "REDUCE_ANY": "ReduceMax",
              "REDUCE_ALL": "ReduceMin"}  # fmt: skip
LEAST_NORM = 1e-6  # by which L2_NORMALIZATION divides at least


@operator(*BINARY)
def binary(call: Call) -> None:
    """Both broadcast; the first four with an activation behind."""
    y = call.emit(BINARY[call.kind], call.real(0), call.real(1))
    call.give(call.activated(y, call.option(0, "b")) if call.kind in ("ADD", "SUB", "MUL", "DIV") else y)


@operator("NOT_EQUAL")
def not_equal(call: Call) -> None:
    """Not equal."""
    call.give(call.emit("Not", call.emit("Equal", call.real(0), call.real(1))))


@operator("SQUARED_DIFFERENCE")
def squared_difference(call: Call) -> None:
    """(a - b)^2."""
    d = call.emit("Sub", call.real(0), call.real(1))
    call.give(call.emit("Mul", d, d))


@operator("FLOOR_DIV")
def floor_div(call: Call) -> None:
    """Of floats; of integers (a - a mod b) / b, which leaves no rest."""
    a, b = call.real(0), call.real(1)
    if a.spec.dtype.startswith("float"):
        call.give(call.emit("Floor", call.emit("Div", a, b)))
    else:
        call.give(call.emit("Div", call.emit("Sub", a, call.emit("Mod", a, b)), b))


@operator("ADD_N")
def add_n(call: Call) -> None:
    """All of them."""
    call.give(call.emit("Sum", *(call.real(k) for k in range(len(call)))))


@operator(*UNARY)
def unary(call: Call) -> None:
    """One by one."""
    call.give(call.real(0) if UNARY[call.kind] == "Identity" else call.emit(UNARY[call.kind], call.real(0)))


@operator(*CLIPPED)
def clipped(call: Call) -> None:
    """Between two bounds."""
    call.give(call.emit("Clip", call.real(0), *(call.floats(v) for v in CLIPPED[call.kind])))


@operator("RSQRT")
def rsqrt(call: Call) -> None:
    """1 / sqrt(x)."""
    call.give(call.emit("Reciprocal", call.emit("Sqrt", call.real(0))))


@operator("SQUARE")
def square(call: Call) -> None:
    """x x."""
    x = call.real(0)
    call.give(call.emit("Mul", x, x))


@operator("LEAKY_RELU")
def leaky_relu(call: Call) -> None:
    """A slope below 0."""
    call.give(call.emit("LeakyRelu", call.real(0), alpha=call.option(0, "f", 0.0)))


@operator("HARD_SWISH")
def hard_swish(call: Call) -> None:
    """x relu6(x + 3) / 6."""
    x = call.real(0)
    call.give(call.emit("Mul", x, call.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)))


@operator("GELU")
def gelu(call: Call) -> None:
    """By erf, or by tanh where it is approximate."""
    call.give(call.emit("Gelu", call.real(0), approximate="tanh" if call.flag(0) else "none"))


@operator("SOFTMAX")
def softmax(call: Call) -> None:
    """Along the last axis, of beta x."""
    x, beta = call.real(0), call.option(0, "f", 0.0)
    call.give(call.emit("Softmax", x if beta == 1 else call.emit("Mul", x, call.floats(beta))))


@operator("L2_NORMALIZATION")
def l2_normalization(call: Call) -> None:
    """Over the last axis."""
    x = call.real(0)
    norm = call.emit("Max", call.emit("ReduceL2", x, call.ints(-1)), call.floats(LEAST_NORM))
    call.give(call.activated(call.emit("Div", x, norm), call.option(0, "b")))


@operator(*REDUCTIONS)
def reduction(call: Call) -> None:
    """Over some axes."""
    axes = call.ints(*call.wholes(1, "axes"))
    call.give(call.emit(REDUCTIONS[call.kind], call.real(0), axes, keepdims=int(call.flag(0)), noop_with_empty_axes=1))


@operator("ARG_MAX", "ARG_MIN")
def arg(call: Call) -> None:
    """The first of the largest, or smallest, along an axis."""
    (axis,) = call.wholes(1, "the axis")
    call.give_stored(call.cast(call.emit("ArgMax" if call.kind == "ARG_MAX" else "ArgMin", call.tensor(0), axis=axis, keepdims=0), call.out().dtype))


@operator("CUMSUM")
def cumsum(call: Call) -> None:
    """Along an axis."""
    (axis,) = call.wholes(1, "the axis")
    call.give(call.emit("CumSum", call.real(0), call.network.constant(axis, "int64"), exclusive=int(call.flag(0)), reverse=int(call.flag(1))))


@operator("CAST")
def cast(call: Call) -> None:
    """Numbers as another dtype."""
    dtype = call.out().dtype
    call.give_stored(call.cast(call.tensor(0), "float32" if dtype == "float16" else dtype))


@operator("SELECT", "SELECT_V2")
def select(call: Call) -> None:
    """One or the other; a condition of one axis chooses whole entries where it is SELECT's."""
    condition, a, b = call.tensor(0), call.real(1), call.real(2)
    if call.kind == "SELECT" and condition.rank == 1 < a.rank:
        condition = call.emit("Unsqueeze", condition, call.ints(*range(1, a.rank)))
    call.give(call.emit("Where", condition, a, b))
