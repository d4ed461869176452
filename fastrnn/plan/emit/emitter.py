"""One function an op: a node becomes kernel calls over views. Ops that are not here, or that an emitter refuses, run through NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fastrnn.kernels.contract import ARGS, Key
from fastrnn.model import Node
from fastrnn.model.ops import Spec


@dataclass(frozen=True)
class Emitter:
    """run: (build.Builder, node) -> kernel calls. kernel: (node, specs) -> the key of the one that does the op's own work. packs: that kernel is chosen,
    and weights are packed for it, when the model is compiled. refused: (node, specs, constants) -> why NumPy has to run it, or None.

    plan/route.py asks.
    """

    run: Callable
    kernel: Callable[[Node, Mapping[str, Spec]], Key | str]
    refused: Callable[[Node, Mapping[str, Spec], Mapping[str, np.ndarray]], str | None]
    packs: bool = False


EMIT: dict[str, Emitter] = {}


def only_float32(node: Node, specs, constants) -> str | None:
    """Kernels of arithmetic are for float32."""
    others = {specs[name].dtype for name in node.inputs if name and name in specs} - {"float32", ""}
    return f"no kernel for {', '.join(sorted(others))}" if others else None


def by_size(role: str) -> Callable[[Node, Mapping[str, Spec]], Key]:
    """The key of a kernel that only moves entries, by the size of the first input's."""
    return lambda node, specs: sized(role, specs[node.inputs[0]].dtype)


def sized(role: str, dtype) -> Key:
    """The key of a kernel that only moves entries of a dtype."""
    return Key(role, dtype=f"bits{8 * np.dtype(dtype).itemsize}")


def emits(*names: str, kernel: Callable | str = "", refused=only_float32, packs: bool = False):
    """Registers (build, node) under op names."""

    def register(function):
        for name in names:
            EMIT[name] = Emitter(function, kernel if callable(kernel) else lambda node, specs, name=kernel: name, refused, packs)
        return function

    return register


class Arguments(dict):
    """Fields of the contract's record (kernels/contract.py) by name, Sizes among the numbers; 0 where not set."""

    def __missing__(self, name: str) -> int:
        return 0

    def copy(self) -> Arguments:
        """Another one, to be changed."""
        return Arguments(self, act=list(self["act"]))

    def record(self) -> np.ndarray:
        """One record of the contract, for a call from Python; all fields must be numbers."""
        record = np.zeros(1, ARGS)
        for name, value in self.items():
            record[name] = value
        return record


def new_args(**fields) -> Arguments:
    """Arguments with some fields set."""
    return Arguments({"clip": np.inf, "scale": 1.0, "act": [(0, 0.0, 0.0)] * 3, **fields})


def set_activation(args, position: int, activation) -> None:
    """Writes an activation into f, g or h of the arguments."""
    args["act"][position] = (activation.code, activation.alpha, activation.beta)
