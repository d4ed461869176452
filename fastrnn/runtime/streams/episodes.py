"""Sequences of several episodes one behind the other: where a mask says so, a row starts afresh before a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np


def cuts(mask: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Steps from one that is the first of some row's episode to the next such, and the rows whose first it is. mask: (T, B) bool."""
    times, rows = np.nonzero(mask)
    starts = np.unique(np.append(times, 0))
    bounds = np.searchsorted(times, [*starts, len(mask)])
    for start, end, first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(mask)], bounds, bounds[1:]):
        yield start, end, rows[first:last]


def run(call: Callable[[dict[str, np.ndarray | None]], list[np.ndarray]], timed: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray], lengths: np.ndarray | None, mask: np.ndarray,
        axis: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs along `axis`, and the final states, of calls of a layer that run a piece each.

    call: from inputs by name to y and the final states. timed: inputs with a time axis. states: (layers, B, n) by name, from which they go on; a row starts
    afresh at zeros.
    """
    parts = []
    if lengths is not None:
        mask = mask & (np.arange(len(mask))[:, None] < lengths)  # a row that has ended keeps its final state
    for start, end, rows in cuts(mask):
        if len(rows):
            states = {name: np.array(s) for name, s in states.items()}
            for s in states.values():
                s[:, rows] = 0
        piece = (slice(None),) * axis + (slice(start, end),)
        left = None if lengths is None else np.clip(lengths - start, 0, end - start)
        y, *final = call({**{name: np.ascontiguousarray(a[piece]) for name, a in timed.items()}, **states, "lengths": left})
        parts.append(y)
        states = dict(zip(states, final))
    return np.concatenate(parts, axis), list(states.values())
