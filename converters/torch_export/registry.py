"""The one registry of ATen's operators: a converter is a decorated function over a Site, which it turns into nodes.

To add an op: one function in ops/, with the parameters of the overload's schema by name (`self` and `input` are called x); those that it does
not take must have their defaults, or have no meaning for inference. A net in tests/nets or a row in tests/converters/pytorch/test_ops.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

CONVERTERS: dict[str, Callable] = {}
# Parameters without a meaning here: where a result lies, and its dtype, which the exported program states for every value.
IGNORED = ("device", "layout", "pin_memory", "memory_format", "generator", "non_blocking", "copy", "dtype", "requires_grad", "cudnn_enabled",
           "cudnn_enable", "momentum",
           "half_to_float", "implicit", "scale_grad_by_freq", "sparse", "padding_idx", "is_coalesced", "inplace")  # fmt: skip


def converts(*names: str):
    """Registers a function of a Site and an overload's arguments under names such as aten.add.Tensor. It returns the name of the result;
    for several results a list, None for one that it does not make."""

    def register(function):
        for name in names:
            CONVERTERS[name] = function
        return function

    return register


def settled(d) -> int | None:
    """A dimension of torch's as a number, where it is one by now: what the capture met later may have settled a symbol."""
    return d if isinstance(d, int) else int(d) if d.node.expr.is_number else None


@dataclass(frozen=True)
class Tensor:
    """A value of the graph. shape: None where a dimension is symbolic. fake: what torch knows of it."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    fake: object = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def axis(self, axis: int) -> int:
        """A non-negative axis."""
        return axis % self.rank if self.rank else 0


@dataclass(frozen=True)
class Complex:
    """A value of complex numbers, by its parts."""

    re: Tensor
    im: Tensor


@dataclass(frozen=True)
class Size:
    """A whole number that follows from shapes: an int64 value (1,)."""

    name: str


def bind(function: Callable, schema, args, kwargs) -> tuple[dict, list[str]]:
    """The arguments that a converter takes, by name; and those that it does not, though they differ from their defaults."""
    taken, given, left = inspect.signature(function).parameters, {}, []
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return {}, []  # it refuses whatever it gets
    for k, parameter in enumerate(schema.arguments):
        name = {"self": "x", "input": "x"}.get(parameter.name, parameter.name)
        if k < len(args):
            value = args[k]
        elif parameter.name in kwargs:
            value = kwargs[parameter.name]
        else:
            value = parameter.default_value
        if name in taken:
            given[name] = value
        elif name not in IGNORED and value != parameter.default_value:
            left.append(f"{parameter.name}={value!r}")
    return given, left
