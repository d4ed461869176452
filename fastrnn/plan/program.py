"""What a runtime frame is made from: steps with their arguments, where every address goes, and for which sizes it all holds.

A number in a program may be a Size (model/sizes.py): a formula over the free dimensions of a call. The executor evaluates them when a call
brings other sizes than the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fastrnn.kernels.contract import Kernel
from fastrnn.model.sizes import Guard, Size, Whole
from fastrnn.plan.lowering.memory import Blocks, View


@dataclass(frozen=True)
class Slot:
    """An input or output of a call: its memory is C-contiguous of this shape. low, high: range of its integers, or None. value: what an
    input must hold for the program to be the right one, or None."""

    name: str
    dtype: np.dtype
    shape: tuple[Whole, ...]
    low: Whole | None = None
    high: Whole | None = None
    value: np.ndarray | None = None


@dataclass(frozen=True)
class KernelStep:
    """One kernel call: sizes and options by field in `args`, addresses by field in `pointers`.

    work: the block that the kernel says the size of. together: this call and the next ones, so many in all, run at once; 0: it runs alone, though
    maybe in several parts (args["parts"]). follows: it reads what the call before it in such a group makes, step by step. in_turn: it does the next call's steps in turn
    with its own.
    """

    node: str
    kernel: Kernel
    args: Mapping[str, object]
    pointers: Mapping[str, View]
    work: int | None = None
    together: int = 0
    follows: bool = False
    in_turn: bool = False


@dataclass(frozen=True)
class PythonStep:
    """One op through NumPy: function(list of arrays or None) -> list of arrays, copied into `outputs`. packs: it only lays weights out for a kernel
    that comes after."""

    node: str
    function: Callable
    inputs: tuple[View | None, ...]
    outputs: tuple[View | None, ...]
    packs: bool = False


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
    low: Whole
    high: Whole


Step = KernelStep | PythonStep | JumpStep | CheckStep


@dataclass(frozen=True)
class Region:
    """The sizes for which a program holds: its free dimensions, 2 or more, and what must be decided of them as it was."""

    dimensions: Mapping[str, Size]
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Kept:
    """A state of a stream: the input that reads it, and the view that holds what it is at the next step."""

    input: str
    following: View


@dataclass(frozen=True)
class Program:
    """What a runtime frame is made from. Immutable and shared; holds its weights alive through the views.

    first: steps before it depend on nothing but sizes, and run when those change. states: inputs that streams keep.
    """

    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    steps: tuple[Step, ...]
    blocks: Blocks
    estimated_ns: Whole
    region: Region
    first: int = 0
    states: tuple[Kept, ...] = ()

    def without_time(self, names: set[str]) -> Program:
        """The same program whose slots of these names, time-first and one step long, leave that axis out."""

        def strip(slot: Slot) -> Slot:
            if slot.name not in names:
                return slot
            if slot.shape[0] != 1:
                raise ValueError(f"{slot.name!r}: {slot.shape[0]} steps, not one")
            return replace(slot, shape=slot.shape[1:])

        return replace(self, inputs=tuple(map(strip, self.inputs)), outputs=tuple(map(strip, self.outputs)))
