"""Sequences as batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from fastrnn.errors import DTypeError, ShapeError
from fastrnn.runtime.checks import as_array, as_resets
from fastrnn.training.base import positive
from fastrnn.training.packing import as_lengths

if TYPE_CHECKING:
    from fastrnn.typing import ArrayLike

    Columns = ArrayLike | Sequence[ArrayLike]

BUCKET_BATCHES = 16  # how many batches' sequences are sorted by length together


@dataclass(frozen=True)
class Batch:
    """x (T, B, ...), target (T, B, ...), lengths (B,) or None, mask bool (T, B) or None; with per_sequence target (B, ...) and mask (B,).
    resets: bool (T, B) or None, where sequences start afresh.

    Lengths are integers from 0 to T. ShapeError where they do not fit, DTypeError for lengths, a mask or resets of another kind.
    """

    x: np.ndarray
    target: np.ndarray
    lengths: np.ndarray | None = None
    mask: np.ndarray | None = None
    per_sequence: bool = False
    resets: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("x", "target", "mask"):
            if name != "mask" or self.mask is not None:
                object.__setattr__(self, name, as_array(getattr(self, name), name))
        leading = self.x.shape[1:2] if self.per_sequence else self.x.shape[:2]
        fits = self.target.shape[: len(leading)] == leading and (self.mask is None or self.mask.shape == leading)
        if self.x.ndim < 2 or not fits:
            shapes = {name: getattr(getattr(self, name), "shape", None) for name in ("x", "target", "mask")}
            raise ShapeError("a batch does not fit together: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
        if self.mask is not None and self.mask.dtype != np.bool_:
            raise DTypeError(f"a batch's mask must be bool, got {self.mask.dtype}")
        if self.resets is not None:
            object.__setattr__(self, "resets", as_resets(self.resets, *self.x.shape[:2]))
        if self.lengths is not None:
            object.__setattr__(self, "lengths", as_lengths(self.lengths, *self.x.shape[:2]))

    @property
    def count(self) -> int:
        """Entries that count in a mean over this batch."""
        T, B = self.x.shape[:2]
        within = None if self.lengths is None or self.per_sequence else np.arange(T)[:, None] < self.lengths
        if self.mask is not None:
            return int(np.count_nonzero(self.mask if within is None else self.mask & within))
        return B if self.per_sequence else T * B if self.lengths is None else int(np.sum(self.lengths))

    def chunks(self, steps: int | None) -> Iterator[Batch]:
        """Pieces of this many steps, one after the other, with a target for each step; None: the batch as a whole."""
        if steps is None or self.x.shape[0] <= steps:
            yield self
            return
        for t in range(0, self.x.shape[0], steps):
            part = slice(t, t + steps)
            x = self.x[part]
            lengths = None if self.lengths is None else np.clip(self.lengths - t, 0, len(x))
            yield Batch(
                x,
                self.target[part],
                lengths,
                None if self.mask is None else self.mask[part],
                resets=None if self.resets is None else self.resets[part],
            )


class Batches(Protocol):
    """What fit and evaluate take beside (xs, ys): all data once for each call, as batches, in an order drawn from rng where one is given."""

    def batches(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[Batch]: ...


if TYPE_CHECKING:
    Data = Batches | tuple[Columns, Columns]


class Sequences:
    """Sequences of any lengths with their targets, handed out as batches.

    xs: arrays (T_i, I) of one dtype, or integers (T_i,); or one array (T, n, ...) that holds n sequences. ys: for each sequence an array (T_i, ...), or
    with per_sequence one target (...); or one array (T, n, ...), or (n, ...). bucket: batches are of sequences of like lengths, which wastes less padding;
    their order is still drawn. Keeps references. ShapeError where counts or lengths differ. Iterating is safe from many threads.
    """

    def __init__(self, xs: Columns, ys: Columns, *, per_sequence: bool = False, bucket: bool = False) -> None:
        self.xs = columns(xs, "xs")
        self.ys = [as_array(y, "ys") for y in cast("Iterable[ArrayLike]", ys)] if per_sequence else columns(ys, "ys")
        self.per_sequence, self.bucket = bool(per_sequence), bool(bucket)
        if not self.xs or len(self.xs) != len(self.ys):
            raise ShapeError(f"there must be one target for each sequence and at least one: got {len(self.xs)} sequences and {len(self.ys)} targets")
        for k, (x, y) in enumerate(zip(self.xs, self.ys)):
            if x.ndim != self.xs[0].ndim or x.shape[1:] != self.xs[0].shape[1:] or x.dtype != self.xs[0].dtype or not x.ndim:
                raise ShapeError(
                    f"sequence {k} is {x.dtype} {x.shape}, sequence 0 is {self.xs[0].dtype} {self.xs[0].shape}; only their lengths may differ"
                )
            if y.dtype != self.ys[0].dtype or y.ndim != self.ys[0].ndim or y.shape[not per_sequence :] != self.ys[0].shape[not per_sequence :]:
                raise ShapeError(
                    f"target {k} is {y.dtype} {y.shape}, target 0 is {self.ys[0].dtype} {self.ys[0].shape}; only their lengths may differ"
                )
            if not self.per_sequence and (not y.ndim or len(y) != len(x)):
                raise ShapeError(
                    f"sequence {k} has {len(x)} steps, its target has shape {y.shape}; for one target a sequence, pass per_sequence=True"
                )

    def __len__(self) -> int:
        return len(self.xs)

    def batches(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """All sequences once, the last batch perhaps smaller; in an order drawn from rng, or as they come."""
        size, n = positive(batch_size, "batch_size", "batches"), len(self)
        order = np.arange(n) if rng is None else rng.permutation(n)
        if self.bucket:
            lengths = np.array([len(x) for x in self.xs])
            pools = [order[k : k + size * BUCKET_BATCHES] for k in range(0, n, size * BUCKET_BATCHES)]
            order = np.concatenate([pool[np.argsort(-lengths[pool], kind="stable")] for pool in pools])
        groups = [order[k : k + size] for k in range(0, n, size)]
        for k in range(len(groups)) if rng is None or not self.bucket else rng.permutation(len(groups)):
            yield self._batch(groups[k])

    def _batch(self, chosen: Iterable[int]) -> Batch:
        xs, ys = [self.xs[k] for k in chosen], [self.ys[k] for k in chosen]
        lengths = np.array([len(x) for x in xs], np.int64)
        whole = bool((lengths == lengths[0]).all())
        targets = np.stack(ys) if self.per_sequence else padded(ys, whole)
        return Batch(padded(xs, whole), targets, None if whole else lengths, per_sequence=self.per_sequence)


def columns(arrays: object, name: str) -> list[np.ndarray]:
    """The sequences as a list; those of one array (T, n, ...) are its columns."""
    if not isinstance(arrays, Iterable):
        raise DTypeError(f"{name} must be a list of arrays, or one array, got {type(arrays).__name__}")
    if hasattr(arrays, "__array__") or hasattr(arrays, "__dlpack__"):
        arrays = as_array(arrays, name)
    if isinstance(arrays, np.ndarray) and arrays.dtype != object:
        if arrays.ndim < 2:
            raise ShapeError(f"{name} as one array must have shape (T, n, ...), got {arrays.shape}")
        return [arrays[:, k] for k in range(arrays.shape[1])]
    return [as_array(a, name) for a in arrays]


def padded(arrays: list[np.ndarray], whole: bool) -> np.ndarray:
    """Side by side along axis 1, zero past the ends."""
    if whole:
        return np.stack(arrays, axis=1)
    padded = np.zeros((max(map(len, arrays)), len(arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    for b, a in enumerate(arrays):
        padded[: len(a), b] = a
    return padded
