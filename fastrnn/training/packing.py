"""Sequences as rows without padding: time step after time step, the longest sequence first, as torch's PackedSequence lays them out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fastrnn.errors import DTypeError, ShapeError
from fastrnn.runtime.checks import as_array, as_resets


def as_lengths(lengths, T: int, B: int) -> np.ndarray:
    """int64 (B,), the lengths of a batch, from 0 to T; ShapeError or DTypeError for anything else."""
    lengths = as_array(lengths, "lengths")
    if lengths.dtype.kind not in "iu":
        raise DTypeError(f"lengths must be integers, got {lengths.dtype}")
    if lengths.shape != (B,) or B and not 0 <= lengths.min() <= lengths.max() <= T:
        raise ShapeError(f"lengths must be {B} integers from 0 to {T}, one for each sequence, got shape {lengths.shape}"
                         + (f" with values from {lengths.min()} to {lengths.max()}" if lengths.size else ""))
    return lengths.astype(np.int64, copy=False)


@dataclass(frozen=True)
class Packing:
    """How B sequences of up to T steps lie in N rows. Immutable, so it may be shared.

    sizes: int64 (T,), the sequences that reach each step. order: int64 (B,), which of the batch stands at each place; None: they keep their places.
    """

    T: int
    B: int
    sizes: np.ndarray = field(repr=False)
    order: np.ndarray | None = field(default=None, repr=False)

    @staticmethod
    def of(T: int, B: int, lengths=None, resets=None) -> Packing:
        """The packing of a batch. lengths: B integers from 0 to T, in any order; None: all are T. resets: bools (T, B), where a sequence starts afresh before a
        step. ShapeError or DTypeError for anything else."""
        if resets is not None:
            return Episodes.cut(T, B, lengths, as_resets(resets, T, B))
        if lengths is None:
            return Packing(T, B, np.full(T, B, np.int64))
        lengths = as_lengths(lengths, T, B)
        sizes = B - np.cumsum(np.bincount(lengths, minlength=T + 1), dtype=np.int64)[:T]
        in_order = bool((lengths[:-1] >= lengths[1:]).all())
        return Packing(T, B, sizes, None if in_order else np.argsort(-lengths, kind="stable"))

    @property
    def N(self) -> int:
        """Rows: the steps of all sequences."""
        return int(self.sizes.sum())

    @property
    def starts(self) -> np.ndarray:
        """int64 (T,): where each step's rows begin."""
        return np.cumsum(self.sizes) - self.sizes

    @property
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

    @property
    def lengths(self) -> np.ndarray:
        """int64 (B,): the steps of the sequence at each place, longest first."""
        return (self.sizes[:, None] > np.arange(self.B)).sum(0)

    def last(self) -> np.ndarray:
        """int64 (B,): the row of the last step of each sequence, in the batch's own order. ShapeError if one has none."""
        if self.B and not self.lengths[-1]:
            raise ShapeError("a sequence of length 0 has no last step")
        return (self.ends() - self.B)[self.places()]

    def places(self) -> np.ndarray:
        """int64 (B,): at which place each sequence of the batch stands."""
        return np.arange(self.B) if self.order is None else np.argsort(self.order)

    def begun(self, state: np.ndarray) -> np.ndarray:
        """Initial states (L, B, n) of a batch as the packing has its places."""
        return state if self.order is None else state[:, self.order]

    def ended(self, state: np.ndarray) -> np.ndarray:
        """Final states (L, places, n) as the batch has its sequences."""
        return state[:, self.places()]

    def pieces(self, reverse: bool = False) -> np.ndarray:
        """Runs of rows whose previous rows lie together, in the order in which a direction computes them: int64 (P, 4) of row, rows, previous row, place.

        Previous rows are counted with the B initial states in front of the N rows; place: that of a piece's first row.
        """
        sizes, starts, zero = self.sizes, self.starts, np.zeros(self.T, np.int64)
        if not reverse:
            pieces = np.stack([starts, sizes, np.append(0, self.B + starts[:-1])[: self.T], zero], 1)
        else:  # of a step's sequences the longer ones go on from the step after it, the others begin here, at their own end
            older, later = np.append(sizes[1:], 0)[: self.T], np.append(starts[1:], 0)[: self.T]
            both = [[starts, older, self.B + later, zero], [starts + older, sizes - older, older, older]]
            pieces = np.array(both).transpose(2, 0, 1)[::-1].reshape(-1, 4)
        return np.ascontiguousarray(pieces[pieces[:, 1] > 0])

    def ends(self, reverse: bool = False) -> np.ndarray:
        """int64 (B,): the row that a direction computes last of each sequence, in the order of places, counted as in pieces; without steps the initial one."""
        places, lengths = np.arange(self.B), self.lengths
        rows = places + self.B + (0 if reverse else np.append(self.starts, 0)[lengths - 1])
        return np.where(lengths, rows, places)

    def previous(self, reverse: bool = False) -> np.ndarray | slice:
        """The row before each row, counted as in pieces: int64 (N,), or a slice where they follow one another."""
        if self.whole and not reverse:
            return slice(0, self.N)
        row, n, before, _ = self.pieces(reverse).T
        order = np.argsort(row)
        return np.arange(self.N) + np.repeat((before - row)[order], n[order])


@dataclass(frozen=True)
class Episodes(Packing):
    """A batch whose sequences start afresh in the middle: each episode is a sequence of its own here, so no gradient passes from one to the one before.

    T, B: the longest episode, how many there are. batch: T and B of the whole. starts_at, sequence: int64 (B,), at which step of which sequence each begins.
    first, final: int64 (batch's B,), the episode that goes on from the sequence's initial state, -1 where none does, and the one that gives its final state.
    """

    batch: tuple[int, int] = (0, 0)
    starts_at: np.ndarray = field(default=None, repr=False)
    sequence: np.ndarray = field(default=None, repr=False)
    first: np.ndarray = field(default=None, repr=False)
    final: np.ndarray = field(default=None, repr=False)

    @staticmethod
    def cut(T: int, B: int, lengths, resets: np.ndarray) -> Episodes:
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
        return Episodes(whole.T, whole.B, whole.sizes, whole.order, (T, B), starts_at, sequence, np.where(afresh, -1, first), np.flatnonzero(last))

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
        lengths = self.lengths[self.places()][self.final]
        if not lengths.all():
            raise ShapeError("a sequence of length 0 has no last step")
        return (self.ends() - self.B)[self.places()][self.final]

    def begun(self, state: np.ndarray) -> np.ndarray:
        started = np.zeros((state.shape[0], self.B, state.shape[2]), state.dtype)
        goes_on = self.first >= 0
        started[:, self.first[goes_on]] = state[:, goes_on]
        return super().begun(started)

    def ended(self, state: np.ndarray) -> np.ndarray:
        return super().ended(state)[:, self.final]
