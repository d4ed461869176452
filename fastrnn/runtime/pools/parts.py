"""What a chunk of a pool is run in: pieces in which the same rows take the same steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastrnn.errors import ShapeError
from fastrnn.runtime import checks


def checked_lengths(lengths: object, n: int, steps: int) -> np.ndarray | None:
    if lengths is None:
        return None
    a = checks.as_array(lengths, "lengths")
    if a.shape != (n,) or a.dtype.kind not in "iu" and a.size:
        raise ShapeError(f"lengths must be {n} integers, got {a.dtype} of shape {a.shape}")
    if a.size and (a.min() < 0 or a.max() > steps):
        raise ShapeError(f"lengths must lie in 0..{steps}, got {a.min()}..{a.max()}")
    return a.astype(np.int64)


class Part(NamedTuple):
    """Rows first..end of an order (None: as they come) take `steps` steps from `start` on; before, those of `reset` start afresh."""

    order: np.ndarray | None
    first: int
    end: int
    start: int
    steps: int
    reset: np.ndarray


NONE = np.zeros(0, np.int64)


def parts(n: int, steps: int, lengths: np.ndarray | None, resets: np.ndarray | None, most: int) -> Iterator[Part]:
    """What a chunk is run in: it is cut where a row ends or starts afresh. Longest rows first, so that those still running are a prefix."""
    if lengths is None and resets is None:
        if n and steps:
            yield Part(None, 0, n, 0, steps, NONE)
        return
    lengths = np.full(n, steps) if lengths is None else lengths
    order = np.argsort(-lengths, kind="stable")
    for first in range(0, n, max(most, 1)):
        rows = order[first : first + most]
        longest, places = int(lengths[rows[0]]), set(lengths[rows].tolist())
        if resets is not None:
            places |= set(np.flatnonzero(resets[:longest, rows].any(1)).tolist())
        cuts = sorted(places - {0} | {longest})
        for start, end in zip([0, *cuts], cuts):
            if end > start:
                running = rows[lengths[rows] > start]
                yield Part(order, first, first + len(running), start, end - start, NONE if resets is None else running[resets[start, running]])


def steps_done(n: int, steps: int, lengths: np.ndarray | None, resets: np.ndarray | None) -> np.ndarray:
    """How many steps each row did, or -1 - n for n since it last started afresh."""
    done = np.full(n, steps) if lengths is None else lengths
    if resets is None or not steps:
        return done
    within = resets & (np.arange(steps)[:, None] < done)
    last = steps - 1 - np.argmax(within[::-1], 0)
    return np.where(within.any(0), -1 - (done - last), done)
