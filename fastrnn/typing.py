"""Types for annotations, of callers' code too: `from fastrnn.typing import Array, ArrayLike`. Nothing that runs loads it.

A model decides only when it is read what dtypes its arrays have and how many outputs there are. So arrays are of any dtype, but for the float32 of layers,
and where one output is returned as an array and several as a tuple, the type is `Outputs`: `isinstance(y, np.ndarray)` tells them apart, `Session.run`
gives a dict of arrays instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fastrnn.cells import activations
    from fastrnn.model import Model

__all__ = [
    "Activation", "Activations", "Array", "ArrayLike", "Constants", "DTypeLike", "Float32", "Given", "Handles", "Inputs", "Layer", "Loss", "Metric", "Operand", "Outputs", "Precision", "Seed",
    "StateDict", "States",
]  # fmt: skip

Array: TypeAlias = npt.NDArray[Any]
Float32: TypeAlias = npt.NDArray[np.float32]


class SupportsDLPack(Protocol):
    """What hands its memory over as a DLPack capsule."""

    def __dlpack__(self) -> object: ...
    def __dlpack_device__(self) -> tuple[Any, int]: ...


# What is seen as an array: NumPy's own notion of it, and DLPack. dtypes are never converted.
ArrayLike: TypeAlias = npt.ArrayLike | SupportsDLPack
# One input, or several by name; one output, or several in order.
Inputs: TypeAlias = ArrayLike | Mapping[str, ArrayLike]
Outputs: TypeAlias = Array | tuple[Array, ...]
Constants: TypeAlias = Mapping[str, ArrayLike]
# A state as a layer takes it: h, or (h, c).
Given: TypeAlias = ArrayLike | tuple[ArrayLike, ...]
# Which output, or (output, index) of its axis 0, feeds an input.
States: TypeAlias = Mapping[str, str | tuple[str, int]]
# "float32", "bfloat16" or "int8"; or one for each node, by name, beside "default".
Precision: TypeAlias = str | Mapping[str, str]
StateDict: TypeAlias = Mapping[str, ArrayLike]
# What a cell's function computes with.
Operand: TypeAlias = Array | float
# An activation as layers take it: a name, or (name, {"alpha": a, "beta": b}). Of a layer: one for each place in the cell, or a pair of such tuples for two directions.
Activation: TypeAlias = "str | tuple[str, Mapping[str, float]] | activations.Activation"
Activations: TypeAlias = "Sequence[Activation] | Sequence[Sequence[Activation]]"
# What training draws from, and dtypes of its layers: float32 or float64.
Seed: TypeAlias = int | np.random.Generator
DTypeLike: TypeAlias = npt.DTypeLike
# A loss: (prediction, target, mask) to its value and its gradient.
Loss: TypeAlias = Callable[..., tuple[float, Array]]
# A measure, such as accuracy, for its value alone.
Metric: TypeAlias = Callable[..., float]
# Streams of a pool.
Handles: TypeAlias = Sequence[int] | npt.NDArray[np.int64]


class Layer(Protocol):
    """What compile takes beside a Model: a recurrent layer, a network of fastrnn.training."""

    def to_model(self) -> Model: ...
