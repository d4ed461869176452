"""Elementwise nodes as one program: what kernels/native/arrays/chain.h runs over memory once, and dense.h over a tile that it has just made.

A Chain takes nodes in order. Its values are operands, read from memory, and results of operations; instructions() numbers them for the kernel.
To make an op part of chains: an entry in PLAIN or a function under `spelled`, out of the operations of kernels/contract.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np

from fastrnn.cells import Activation
from fastrnn.kernels.contract import INSTRUCTION, MAX_VALUES, OPERATIONS
from fastrnn.model import Node
from fastrnn.model.ops import Spec
from fastrnn.model.ops.elementwise import UNARY_KINDS, unary_activation
from fastrnn.plan.lowering.memory import View

CODES = {name: code for code, name in enumerate(OPERATIONS)}
MOST_OPERANDS = 8  # pointers that a kernel's arguments have for them
DTYPES = ("float32", "bool")  # a bool is 0 or 1 inside

# Ops that are one operation of the same operands.
PLAIN = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "PRelu": "prelu", "Sigmoid": "sigmoid", "Relu": "relu", "Sqrt": "sqrt", "Abs": "abs", "Sign": "sign",
    "Floor": "floor", "Ceil": "ceil", "Round": "round", "Erf": "erf", "Log": "log", "Sin": "sin", "Cos": "cos", "Reciprocal": "reciprocal",
    "Not": "not", "And": "and", "Or": "or", "Xor": "xor", "Equal": "equal", "Less": "less", "LessOrEqual": "less_or_equal", "Greater": "greater",
    "GreaterOrEqual": "greater_or_equal", "Where": "where", "Mod": "fmod",
}  # fmt: skip
# Those that are one operation of one operand where the last, or in a sum and a product either, is a number.
WITH_NUMBER = {"Add": ("plus", lambda c: c), "Sub": ("plus", lambda c: -c), "Mul": ("times", lambda c: c), "Div": ("quotient", lambda c: c)}
SPELLED: dict[str, Callable] = {}


class Chain:
    """operands: names of values, or views. operations: (operation, the values it reads, (code, alpha, beta) of its constants).

    Values are numbers: results from 0 on, operands from -1 down. fed: the operand that comes first because the kernel makes it itself.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], fed: str = ""):
        self.weights, self.fed = weights, fed
        self.operands: list[str | View] = []
        self.operations: list[tuple[str, tuple[int, ...], tuple]] = []
        self.values: dict[str, int] = {}
        if fed:
            self.operand(fed)

    def operand(self, source: str | View) -> int:
        """The value of something in memory; one made by a node before is that node's."""
        if isinstance(source, str) and source in self.values:
            return self.values[source]
        self.operands.append(source)
        if isinstance(source, str):
            self.values[source] = -len(self.operands)
        return -len(self.operands)

    def do(self, operation: str, *values: int, alpha: float = 0.0, beta: float = 0.0, code: int = 0) -> int:
        """The value of one more operation."""
        self.operations.append((operation, values, (code, alpha, beta)))
        return len(self.operations) - 1

    def map(self, activation: Activation, value: int) -> int:
        """activation(value)."""
        return self.do("map", value, alpha=activation.alpha, beta=activation.beta, code=activation.code)

    def affine(self, value: int, alpha: float, beta: float) -> int:
        """alpha value + beta."""
        return self.map(Activation("affine", alpha, beta), value)

    def add(self, node: Node) -> None:
        """A node's operations."""
        if node.op in WITH_NUMBER and (found := self._number_of(node)):
            operation, of = WITH_NUMBER[node.op]
            value, number = found
            self.values[node.outputs[0]] = self.do(operation, self.operand(value), alpha=of(number))
        elif node.op in PLAIN:
            self.values[node.outputs[0]] = self.do(PLAIN[node.op], *map(self.operand, node.inputs))
        else:
            self.values[node.outputs[0]] = SPELLED[node.op](self, node)

    def _number_of(self, node: Node) -> tuple[str, float] | None:
        """(the other operand, the number) of an operation with a constant of one element that its instruction can hold."""
        a, b = node.inputs
        for value, name in ((a, b), (b, a)) if node.op in ("Add", "Mul") else ((a, b),):
            if name not in self.values and value not in self.weights and (number := self.scalar(name)) is not None:
                return value, number
        return None

    def scalar(self, name: str) -> float | None:
        """The number behind a constant of one element."""
        array = self.weights.get(name)
        return None if array is None or array.size != 1 else float(array.reshape(()))

    def over(self, operands: Mapping[int, View]) -> Chain:
        """The same program over these views."""
        result = Chain(self.weights)
        result.operands, result.operations = [operands[k] for k in range(len(self.operands))], self.operations
        return result

    def instructions(self) -> np.ndarray:
        """The program; a result's place serves again once nothing reads it, but for the last, which is what goes to memory."""
        operations = _with_hard_swishes(self.operations)
        last = {value: k for k, (_, values, _) in enumerate(operations) for value in values}
        top, free, place = len(self.operands), [], {-1 - k: k for k in range(len(self.operands))}
        program = np.zeros(len(operations), INSTRUCTION)
        for k, (operation, values, act) in enumerate(operations):
            reads = [place[v] for v in values]
            free += [place[v] for v in dict.fromkeys(values) if v >= 0 and last[v] == k]
            if not free or k == len(operations) - 1:
                free.append(top)
                top += 1
            place[k] = free.pop()
            program[k] = (CODES[operation], place[k], *[*reads, 0, 0][:3], act)
        return program

    @property
    def fits(self) -> bool:
        """Whether the kernels have room for it."""
        return len(self.operands) <= MOST_OPERANDS and int(self.instructions()["to"].max(initial=0)) < MAX_VALUES


def _with_hard_swishes(operations: list[tuple]) -> list[tuple]:
    """The same program, in which x min(max(x + 3, 0), 6) alpha (Howard et al. 2019, section 5.2), spelled as four operations, is one: the same steps, in registers."""
    readers, kept, place = Counter(v for _, values, _ in operations for v in values), [], {}
    for k, (operation, values, act) in enumerate(operations):
        spelled_out = operations[k - 3 : k + 1] if k >= 3 else []
        if [name for name, *_ in spelled_out] == ["plus", "clip", "mul", "times"]:
            (_, (x,), plus), (_, clipped, bounds), (_, factors, _), _ = spelled_out
            alone = all(readers[v] == 1 for v in range(k - 3, k))
            if (
                alone
                and clipped == (k - 3,)
                and sorted(factors) == sorted((x, k - 2))
                and values == (k - 1,)
                and plus[1] == 3
                and bounds[1:] == (0, 6)
            ):
                del kept[-3:]
                operation, values = "hard_swish", (x,)
        place[k] = len(kept)
        kept.append((operation, tuple(v if v < 0 else place[v] for v in values), act))
    return kept


def chain_of(nodes: Sequence[Node], weights: Mapping[str, np.ndarray], fed: str = "") -> Chain:
    """The program of nodes, in order."""
    chain = Chain(weights, fed)
    for node in nodes:
        chain.add(node)
    return chain


def refused(node: Node, specs: Mapping[str, Spec], constants: Mapping[str, np.ndarray]) -> str | None:
    """Why a node is no part of a chain, or None."""
    if node.op not in PLAIN and node.op not in SPELLED or node.op == "Mod" and not node.get("fmod"):  # whose sign is the divisor's
        return "no kernel"
    names = [node.inputs[0] if node.op == "Pow" and _whole_exponent(node, constants) else name for name in (*node.inputs, *node.outputs) if name]
    dtypes = {node.get("to")} if node.op == "Cast" else set()
    others = (dtypes | {specs[name].dtype for name in names if name in specs}) - {*DTYPES, ""}
    return f"no kernel for {', '.join(sorted(others))}" if others else None


def _whole_exponent(node: Node, constants) -> bool:
    exponent = constants.get(node.inputs[1])
    return exponent is not None and exponent.size == 1 and abs(float(exponent.reshape(()))) < 1 << 24


def spelled(*names: str):
    """Registers (chain, node) -> the result's value under op names."""

    def register(function):
        for name in names:
            SPELLED[name] = function
        return function

    return register


@spelled(*(name for name in UNARY_KINDS if name not in ("Identity", "Sigmoid", "Relu")))
def activation(chain: Chain, node: Node) -> int:
    """One of the recurrent ops' activations."""
    return chain.map(unary_activation(node), chain.operand(node.inputs[0]))


@spelled("Neg")
def negate(chain, node):
    """-1 x, which turns the sign of zero as well."""
    return chain.do("times", chain.operand(node.inputs[0]), alpha=-1.0)


@spelled("Silu")
def silu(chain, node):
    """x sigmoid(x)."""
    x = chain.operand(node.inputs[0])
    return chain.do("mul", x, chain.do("sigmoid", x))


@spelled("Swish")
def swish(chain, node):
    """x sigmoid(alpha x)."""
    x = chain.operand(node.inputs[0])
    return chain.do("mul", x, chain.do("sigmoid", chain.do("times", x, alpha=node.get("alpha"))))


@spelled("Mish")
def mish(chain, node):
    """x tanh(softplus(x))."""
    x = chain.operand(node.inputs[0])
    return chain.do("mul", x, chain.map(Activation("tanh"), chain.map(Activation("softplus"), x)))


@spelled("Selu")
def selu(chain, node):
    """gamma Elu(x)."""
    return chain.do("times", chain.map(Activation("elu", node.get("alpha"), 0.0), chain.operand(node.inputs[0])), alpha=node.get("gamma"))


@spelled("Gelu")
def gelu(chain, node):
    """x Phi(x), exact or through tanh."""
    x = chain.operand(node.inputs[0])
    if node.get("approximate") == "tanh":
        factor = math.sqrt(2 / math.pi)
        inside = chain.do("mul", x, chain.affine(chain.do("mul", x, x), 0.044715 * factor, factor))
        return chain.do("mul", x, chain.affine(chain.map(Activation("tanh"), inside), 0.5, 0.5))
    return chain.do("mul", x, chain.affine(chain.do("erf", chain.do("times", x, alpha=math.sqrt(0.5))), 0.5, 0.5))


@spelled("Min", "Max", "Sum", "Mean")
def variadic(chain, node):
    """From left to right."""
    values = [chain.operand(name) for name in node.inputs]
    operation = {"Min": "min", "Max": "max"}.get(node.op, "add")
    result = reduce(lambda a, b: chain.do(operation, a, b), values) if len(values) > 1 else chain.map(Activation("identity"), values[0])
    return chain.do("quotient", result, alpha=float(len(values))) if node.op == "Mean" else result


@spelled("Pow")
def power(chain, node):
    """As C's pow; an exponent that is an integer becomes a float."""
    exponent, x = chain.weights.get(node.inputs[1]), chain.operand(node.inputs[0])
    if exponent is not None and exponent.dtype != np.float32:
        return chain.do("power", x, chain.operand(number(float(exponent.reshape(())))))
    return chain.do("power", x, chain.operand(node.inputs[1]))


@spelled("Clip")
def clip(chain, node):
    """min first, then max; a bound that is NaN bounds nothing."""
    x, bounds = chain.operand(node.inputs[0]), [node.input(1), node.input(2)]
    if all(not name or name in chain.weights for name in bounds):
        low, high = (chain.scalar(name) if name else None for name in bounds)
        low = -np.inf if low is None or np.isnan(low) else low
        high = np.inf if high is None or np.isnan(high) else high
        return chain.do("clip", x, alpha=min(low, high), beta=high)
    for name, operation in zip(bounds, ("at_least", "at_most")):
        x = chain.do(operation, x, chain.operand(name)) if name else x
    return x


@spelled("Cast")
def cast(chain, node):
    """Between float32 and bool; a bool is a number already."""
    x = chain.operand(node.inputs[0])
    return chain.do("nonzero", x) if node.get("to") == "bool" else chain.map(Activation("identity"), x)


def number(value: float) -> View:
    """A constant of one element, rank 0."""
    array = np.array(value, np.float32)
    return View("weight", (), (), array.dtype, array=array)
