"""Sequences of several episodes one behind the other: where a mask says so, a row starts afresh before a step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def cuts(mask: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Steps from one that is the first of some row's episode to the next such, and the rows whose first it is. mask: (T, B) bool."""
    times, rows = np.nonzero(mask)
    starts = np.unique(np.append(times, 0))
    bounds = np.searchsorted(times, [*starts, len(mask)])
    for start, end, first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(mask)], bounds, bounds[1:]):
        yield start, end, rows[first:last]
