"""Sequences as rows without padding: time step after time step, the longest sequence first, as torch's PackedSequence lays them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.errors import DTypeError, ShapeError
from fastrnn.runtime.checks import as_array, as_resets

if TYPE_CHECKING:
    from fastrnn.typing import ArrayLike


def as_lengths(lengths: ArrayLike | None, T: int, B: int) -> np.ndarray:
    """int64 (B,), the lengths of a batch, from 0 to T; ShapeError or DTypeError for anything else."""
    lengths = as_array(lengths, "lengths")
    if lengths.dtype.kind not in "iu":
        raise DTypeError(f"lengths must be integers, got {lengths.dtype}")
    if lengths.shape != (B,) or B and not 0 <= lengths.min() <= lengths.max() <= T:
        raise ShapeError(
            f"lengths must be {B} integers from 0 to {T}, one for each sequence, got shape {lengths.shape}"
            + (f" with values from {lengths.min()} to {lengths.max()}" if lengths.size else "")
        )
    return lengths.astype(np.int64, copy=False)


@dataclass(frozen=True)
class Packing:
    """How B sequences of up to T steps lie in N rows. Immutable, so it may be shared; what follows from it is computed once, as passes of a few steps are made of little else.

    sizes: int64 (T,), the sequences that reach each step. order: int64 (B,), which of the batch stands at each place; None: they keep their places.
    """

    T: int
    B: int
    sizes: np.ndarray = field(repr=False)
    order: np.ndarray | None = field(default=None, repr=False)

    @staticmethod
    def of(T: int, B: int, lengths: ArrayLike | None = None, resets: ArrayLike | None = None) -> Packing:
        """The packing of a batch. lengths: B integers from 0 to T, in any order; None: all are T. resets: bools (T, B), where a sequence starts afresh before a
        step. ShapeError or DTypeError for anything else."""
        if resets is not None:
            return Episodes.cut(T, B, lengths, as_resets(resets, T, B))
        if lengths is None:
            return _of_whole_sequences(T, B)
        lengths = as_lengths(lengths, T, B)
        sizes = B - np.cumsum(np.bincount(lengths, minlength=T + 1), dtype=np.int64)[:T]
        in_order = bool((lengths[:-1] >= lengths[1:]).all())
        return Packing(T, B, sizes, None if in_order else np.argsort(-lengths, kind="stable"))

    @cached_property
    def N(self) -> int:
        """Rows: the steps of all sequences."""
        return int(self.sizes.sum())

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 (T,): where each step's rows begin."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def whole(self) -> bool:
        """Whether every sequence has T steps, so that rows are a reshape."""
        return not self.T or bool(self.sizes[-1] == self.B)

    @property
    def leading(self) -> tuple[int, int]:
        """The axes of a batch that packing takes."""
        return self.T, self.B

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Time and sequence of every row."""
        place = np.arange(self.N) - np.repeat(self.starts, self.sizes)
        return np.repeat(np.arange(self.T), self.sizes), place if self.order is None else self.order[place]

    def pack(self, x: np.ndarray) -> np.ndarray:
        """(T, B, ...) as (N, ...): a view where every sequence is whole and x is contiguous, else a copy."""
        return x.reshape(self.T * self.B, *x.shape[2:]) if self.whole else x[self._rows()]

    def unpack(self, rows: np.ndarray) -> np.ndarray:
        """(N, ...) as (T, B, ...), zero past the ends: a view where every sequence is whole."""
        if self.whole:
            return rows.reshape(self.T, self.B, *rows.shape[1:])
        padded = np.zeros((*self.leading, *rows.shape[1:]), rows.dtype)
        padded[self._rows()] = rows
        return padded

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (B,): the steps of the sequence at each place, longest first."""
        return (self.sizes[:, None] > np.arange(self.B)).sum(0)

    def last(self) -> np.ndarray:
        """int64 (B,): the row of the last step of each sequence, in the batch's own order. ShapeError if one has none."""
        if self.B and not self.lengths[-1]:
            raise ShapeError("a sequence of length 0 has no last step")
        return (self.way().ends - self.B)[self.places]

    @cached_property
    def places(self) -> np.ndarray:
        """int64 (B,): at which place each sequence of the batch stands."""
        return np.arange(self.B) if self.order is None else np.argsort(self.order)

    def begun(self, state: np.ndarray, reverse: np.ndarray) -> np.ndarray:
        """Initial states (L, B, n) of a batch as the packing has its places. reverse: bools (L,), whose direction runs from the end."""
        return state if self.order is None else state[:, self.order]

    def ended(self, state: np.ndarray, reverse: np.ndarray) -> np.ndarray:
        """Final states (L, places, n) as the batch has its sequences; reverse as of begun."""
        return state[:, self.places]

    def way(self, reverse: bool = False) -> Way:
        """How a direction goes over the rows."""
        return self._ways[reverse]

    @cached_property
    def _ways(self) -> tuple[Way, Way]:
        return Way(self, False), Way(self, True)


@dataclass(frozen=True)
class Way:
    """How one direction goes over the rows of a packing. Rows are counted with the B initial states in front of the N rows. Immutable."""

    packing: Packing = field(repr=False)
    reverse: bool

    @cached_property
    def pieces(self) -> np.ndarray:
        """Runs of rows whose previous rows lie together, in the order in which they are computed: int64 (P, 4) of row, not counting initial states, rows,
        previous row, place: that of a piece's first row."""
        p = self.packing
        sizes, starts, zero = p.sizes, p.starts, np.zeros(p.T, np.int64)
        if not self.reverse:
            pieces = np.stack([starts, sizes, np.append(0, p.B + starts[:-1])[: p.T], zero], 1)
        else:  # of a step's sequences the longer ones go on from the step after it, the others begin here, at their own end
            older, later = np.append(sizes[1:], 0)[: p.T], np.append(starts[1:], 0)[: p.T]
            both = [[starts, older, p.B + later, zero], [starts + older, sizes - older, older, older]]
            pieces = np.array(both).transpose(2, 0, 1)[::-1].reshape(-1, 4)
        return _fixed(np.ascontiguousarray(pieces[pieces[:, 1] > 0]))

    @cached_property
    def ends(self) -> np.ndarray:
        """int64 (B,): the row that is computed last of each sequence, in the order of places; without steps the initial one."""
        p = self.packing
        places, lengths = np.arange(p.B), p.lengths
        return _fixed(np.where(lengths, places + p.B + (0 if self.reverse else np.append(p.starts, 0)[lengths - 1]), places))

    @cached_property
    def previous(self) -> np.ndarray | slice:
        """The row before each row: int64 (N,), or a slice where they follow one another."""
        p = self.packing
        if p.whole and not self.reverse:
            return slice(0, p.N)
        row, n, before, _ = self.pieces.T
        order = np.argsort(row)
        return _fixed(np.arange(p.N) + np.repeat((before - row)[order], n[order]))


NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Episodes(Packing):
    """A batch whose sequences start afresh in the middle: each episode is a sequence of its own here, so no gradient passes from one to the one before.

    T, B: the longest episode, how many there are. batch: T and B of the whole. starts_at, sequence: int64 (B,), at which step of which sequence each begins.
    first, final: int64 (batch's B,), the first and the last episode of each sequence. afresh: bools (batch's B,), where the first does not go on from the
    sequence's initial state. A direction that runs from the end goes on from it in the last episode, whatever `afresh` says, and ends with the first.
    """

    batch: tuple[int, int] = (0, 0)
    starts_at: np.ndarray = field(default_factory=lambda: NONE, repr=False)
    sequence: np.ndarray = field(default_factory=lambda: NONE, repr=False)
    first: np.ndarray = field(default_factory=lambda: NONE, repr=False)
    final: np.ndarray = field(default_factory=lambda: NONE, repr=False)
    afresh: np.ndarray = field(default_factory=lambda: NONE, repr=False)

    @staticmethod
    def cut(T: int, B: int, lengths: ArrayLike | None, resets: np.ndarray) -> Episodes:
        """The packing of a batch cut where `resets`, bools (T, B), says so."""
        lengths = np.full(B, T, np.int64) if lengths is None else as_lengths(lengths, T, B)
        resets = resets & (np.arange(T)[:, None] < lengths)
        begins = resets.copy()
        begins[:1] = True
        sequence, starts_at = np.nonzero(begins.T) if T else (np.arange(B), np.zeros(B, np.int64))  # by sequence, then by time
        last = np.append(sequence[1:] != sequence[:-1], True)[: len(sequence)]
        long = np.where(last, lengths[sequence], np.append(starts_at[1:], 0)[: len(sequence)]) - starts_at
        first = np.flatnonzero(np.append(True, last[:-1])[: len(sequence)])
        whole = Packing.of(int(long.max(initial=0)), len(sequence), long)
        afresh = resets[0] if T else np.zeros(B, bool)
        return Episodes(whole.T, whole.B, whole.sizes, whole.order, (T, B), starts_at, sequence, first, np.flatnonzero(last), afresh)

    @property
    def leading(self) -> tuple[int, int]:
        return self.batch

    @property
    def whole(self) -> bool:
        """Rows are a reshape of nothing here."""
        return False

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        time, episode = super()._rows()
        return self.starts_at[episode] + time, self.sequence[episode]

    def last(self) -> np.ndarray:
        lengths = self.lengths[self.places][self.final]
        if not lengths.all():
            raise ShapeError("a sequence of length 0 has no last step")
        return (self.way().ends - self.B)[self.places][self.final]

    def begun(self, state: np.ndarray, reverse: np.ndarray) -> np.ndarray:
        started, goes_on = np.zeros((state.shape[0], self.B, state.shape[2]), state.dtype), ~self.afresh
        for into, given, from_end in zip(started, state, reverse):
            if from_end:
                into[self.final] = given
            else:
                into[self.first[goes_on]] = given[goes_on]
        return super().begun(started, reverse)

    def ended(self, state: np.ndarray, reverse: np.ndarray) -> np.ndarray:
        found = super().ended(state, reverse)
        return np.where(reverse[:, None, None], found[:, self.first], found[:, self.final])


def _fixed(a: np.ndarray) -> np.ndarray:
    """The array, which many share, not to be written to."""
    a.flags.writeable = False
    return a


@lru_cache(64)
def _of_whole_sequences(T: int, B: int) -> Packing:
    """Batches of one size after another share it."""
    return Packing(T, B, np.full(T, B, np.int64))
