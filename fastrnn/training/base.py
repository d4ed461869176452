"""What a layer is to the rest: parameters, a forward pass over packed rows, and its transpose."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastrnn.errors import DTypeError, ShapeError, StateError, UnsupportedModelError
from fastrnn.model.show import notebook, parameters
from fastrnn.runtime.checks import as_array, as_mapping, check_dtype
from fastrnn.training.packing import Packing

if TYPE_CHECKING:
    from fastrnn.typing import DTypeLike, Seed

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Run:
    """One pass over one batch: how its rows lie, and what is drawn at random. Immutable.

    training: whether Dropout drops. rng: what it draws from. per_sequence: rows are sequences (behind Last), not steps.
    """

    packing: Packing
    training: bool = False
    rng: np.random.Generator | None = None
    per_sequence: bool = False

    def last(self) -> Run:
        """The run of what reads one row a sequence, in the batch's order."""
        return replace(self, packing=Packing.of(1, self.packing.leading[1]), per_sequence=True)

    def pack(self, a: np.ndarray) -> np.ndarray:
        """(T, B, ...), or (B, ...) where rows are sequences, as rows (N, ...)."""
        return self.packing.pack(a[None] if self.per_sequence else a)

    def unpack(self, rows: np.ndarray) -> np.ndarray:
        """Rows (N, ...) as (T, B, ...), zero past the ends, or as (B, ...) where they are sequences."""
        padded = self.packing.unpack(rows)
        return padded[0] if self.per_sequence else padded

    @property
    def leading(self) -> tuple[int, ...]:
        """The axes of a batch that packing takes: (T, B), or (B,) where rows are sequences."""
        return self.packing.leading[1:] if self.per_sequence else self.packing.leading


class State:
    """What recurrent layers carry from one chunk of a sequence to the next: truncated backpropagation through time (Williams and Peng 1990).

    value: a tuple with one entry a layer, None at first and after reset(), which means zeros. A call that is given the State starts from it and leaves
    the final states in it; gradients stop there. Belongs to one thread at a time.
    """

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def reset(self) -> None:
        """Back to zeros."""
        self.value = None


def carried(state: State | None) -> tuple[Any, ...] | None:
    """What a State holds, None without one; StateError for anything else."""
    if state is not None and not isinstance(state, State):
        raise StateError(f"state must be a State, got {type(state).__name__}; State(value) holds a tuple with one entry for each layer")
    return None if state is None else state.value


class Layer:
    """Parameters and what is computed with them; nothing of a run is kept, so passes from many threads are safe while nobody changes parameters.

    kind: its name in messages. dtype: float32 or float64, of parameters, inputs and outputs; None: without parameters, a layer takes either.
    takes, gives: features of a row before and behind it; takes None: any; gives None: as many as came.
    integers: whether it reads indices (N,) instead of rows (N, F). draws: whether its passes may draw from Run.rng, which is made only for those.
    """

    kind = "layer"
    takes: int | None = None
    gives: int | None = None
    integers = False
    draws = True

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike | None = "float32", seed: Seed | None = None) -> None:
        self.dtype: np.dtype[Any] | None = None if dtype is None and not shapes else as_dtype(dtype, self.kind)
        self._parameters = {name: np.zeros(shape, self.dtype) for name, shape in shapes.items()}
        self.reset_parameters(seed)

    def reset_parameters(self, seed: Seed | None = None) -> None:
        """Draws the parameters anew, in place, from the distribution that torch draws from. seed: an int, a numpy Generator, or None."""
        self._draw(np.random.default_rng(seed))

    def _draw(self, rng: np.random.Generator) -> None:
        """Fills the parameters; a layer that has some says how."""

    def parameters(self) -> dict[str, np.ndarray]:
        """The arrays themselves under torch's names: what is written to them is what the layer computes with."""
        return dict(self._parameters)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the parameters."""
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Copies arrays or tensors of the layer's dtype into the parameters, in place; names and shapes must be the layer's own.

        Raises ShapeError or DTypeError naming the parameter; nothing is changed then. Not safe during passes.
        """
        given = as_mapping(state_dict, "the state dict")
        own = self.parameters()
        same_names(given, own, self.kind)
        arrays = {name: as_array(value, name) for name, value in given.items()}
        for name, array in own.items():
            check_dtype(arrays[name], f"{self.kind}: {name}", array.dtype)
            if arrays[name].shape != array.shape:
                turned = "; is it transposed?" if array.ndim == 2 and arrays[name].shape == array.shape[::-1] else ""
                raise ShapeError(f"{self.kind}: {name} must have shape {array.shape}, got {arrays[name].shape}{turned}")
        for name, array in own.items():
            array[...] = arrays[name]

    def _repr_html_(self) -> str:
        return notebook(repr(self), parameters(self.parameters()), "parameters")

    def astype(self, dtype: DTypeLike) -> Self:
        """A copy with parameters rounded to float32 or widened to float64; shares nothing with this one."""
        other = copy.copy(self)
        wanted = as_dtype(dtype, self.kind)
        other.dtype = None if self.dtype is None else wanted
        other._parameters = {name: array.astype(wanted) for name, array in self._parameters.items()}
        return other

    def run_after(self, run: Run) -> Run:
        """The run as the next layer sees it."""
        return run

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        """y, what backward needs (None unless keep), and the final state (None for a layer without one).

        x: (N, takes) rows of the layer's dtype, or (N,) indices. Allocates y. Arguments are trusted: Sequential checks at its door.
        """
        raise NotImplementedError

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        """Adds the parameters' gradients to grads and returns the input's, (N, takes), or None unless need_dx.

        dy, (N, gives), may be overwritten, and what was saved is used up: once for each forward.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        sizes = "" if self.gives is None else f"{self.takes} -> {self.gives}, "
        return f"{type(self).__name__}({sizes}{'any dtype' if self.dtype is None else self.dtype})"


def same_names(given: Iterable[str], wanted: Iterable[str], where: str) -> None:
    """Raises ShapeError, which says what is missing and what is unknown, unless the names are the same."""
    missing, unknown = [n for n in wanted if n not in given], [n for n in given if n not in wanted]
    if missing or unknown:
        raise ShapeError(
            f"{where}: " + "; ".join(f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names)
        )


def as_dtype(dtype: DTypeLike | None, where: str) -> np.dtype[Any]:
    """float32 or float64 as a dtype; DTypeError for anything else, None among it, which NumPy takes for float64."""
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(f"{where}: {dtype!r} is no dtype") from error
    if dtype is None or found not in DTYPES:
        raise DTypeError(f"{where}: dtype must be float32 or float64, got {None if dtype is None else found}")
    return found


def positive(value: Any, name: str, where: str) -> int:
    """A size, checked: ShapeError unless it is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ShapeError(f"{where}: {name} must be a positive integer, got {value!r}")
    return int(value)


def number(value: Any, name: str) -> float:
    """A number that is finite and not negative; UnsupportedModelError names it."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < math.inf:
        raise UnsupportedModelError(f"{name} must be a finite number, not negative, got {value!r}")
    return float(value)
