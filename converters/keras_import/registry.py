"""The one registry of Keras's layers: what weights a class has and where they lie, and the function that turns a call into nodes.

To add a layer: a function under `@layer` in layers/, with a case in tests/nets/keras_nets.py. Its options are read with `g.option`; those that nobody reads are refused
unless they have no meaning for inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

# What a mask of the inputs becomes: it goes on as it is, is lost, or the layer says so itself (and takes it as an argument).
PASS, DROP, OWN = "pass", "drop", "own"


class Variable(NamedTuple):
    """place: the attribute that holds it in a .keras file, empty for the layer itself; several spellings are parted by "|"."""

    name: str
    trainable: bool = True
    place: str = ""


@dataclass(frozen=True)
class Kind:
    """A class of layers. variables, children: what its config says it has; children by attribute, each a config of a layer, or a list of such."""

    call: Callable
    variables: Callable[[Mapping], list[Variable]]
    children: Callable[[Mapping], Mapping[str, object]]
    masks: str


LAYERS: dict[str, Kind] = {}
FUNCTIONS: dict[str, Callable] = {}


def named(*names: str, place: str = "") -> Callable[[Mapping], list[Variable]]:
    """Trainable variables, those called bias where use_bias says so."""
    return lambda config: [Variable(name, True, place) for name in names if "bias" not in name or config.get("use_bias", True)]


def layer(*classes: str, variables: Callable = lambda config: [], children: Callable = lambda config: {}, masks: str = PASS):
    """Registers (site, inputs, **call arguments) -> a Tensor, or a list of them, under class names."""

    def register(call):
        for name in classes:
            LAYERS[name] = Kind(call, variables, children, masks)
        return call

    return register


def function(*names: str):
    """Registers (site, *arguments, **options) -> a Tensor under names of Keras 3's operations, which stand in a functional model like layers."""

    def register(call):
        for name in names:
            FUNCTIONS[name] = call
        return call

    return register
