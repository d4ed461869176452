"""A plan made concrete for one set of shapes: steps with their arguments, and where every address goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fastrnn.kernels.contract import Kernel
from fastrnn.plan.lowering.memory import View


@dataclass(frozen=True)
class Slot:
    """An input or output of a call: its memory is C-contiguous of this shape. low, high: range of its integers, or None."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class KernelStep:
    """One kernel call: sizes and options in `args`, addresses by field in `pointers`.

    together: this call and the next ones, so many in all, run at once; 0: it runs alone, though maybe in several parts (args["parts"]).
    follows: it reads what the call before it in such a group makes, step by step.
    """

    node: str
    kernel: Kernel
    args: np.void
    pointers: Mapping[str, View]
    together: int = 0
    follows: bool = False


@dataclass(frozen=True)
class PythonStep:
    """One op through NumPy: function(list of arrays or None) -> list of arrays, copied into `outputs`."""

    node: str
    function: Callable
    inputs: tuple[View | None, ...]
    outputs: tuple[View | None, ...]


@dataclass(frozen=True)
class JumpStep:
    """On to step `target`, where the bool behind `condition` is false; always, without one. How an If chooses its branch."""

    node: str
    condition: View | None
    target: int


@dataclass(frozen=True)
class CheckStep:
    """Raises ShapeError unless all of these int64, C-contiguous, lie in low..high: indices that come from inside the graph."""

    node: str
    view: View
    low: int
    high: int


Step = KernelStep | PythonStep | JumpStep | CheckStep


@dataclass(frozen=True)
class Program:
    """What a runtime frame is made from. Immutable and shared; holds its weights alive through the views."""

    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    steps: tuple[Step, ...]
    work_bytes: int
    estimated_ns: float

    def without_time(self, names: set[str]) -> Program:
        """The same program whose slots of these names, time-first and one step long, leave that axis out."""

        def strip(slot: Slot) -> Slot:
            if slot.name not in names:
                return slot
            if slot.shape[0] != 1:
                raise ValueError(f"{slot.name!r}: {slot.shape[0]} steps, not one")
            return replace(slot, shape=slot.shape[1:])

        return replace(self, inputs=tuple(map(strip, self.inputs)), outputs=tuple(map(strip, self.outputs)))
