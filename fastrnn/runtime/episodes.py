"""Sequences of several episodes one behind the other: where a mask says so, a row starts afresh before a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np


def cuts(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """Steps from one that is the first of some row's episode to the next such. mask: (T, B) bool."""
    places = [0, *(np.flatnonzero(mask[1:].any(1)) + 1).tolist(), len(mask)]
    yield from zip(places, places[1:])


def run(call: Callable[[dict], list[np.ndarray]], timed: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray], lengths: np.ndarray | None, mask: np.ndarray,
        axis: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs along `axis`, and the final states, of calls of a layer that run a piece each.

    call: from inputs by name to y and the final states. timed: inputs with a time axis. states: (layers, B, n) by name, from which they go on; a row starts
    afresh at zeros.
    """
    parts = []
    if lengths is not None:
        mask = mask & (np.arange(len(mask))[:, None] < lengths)  # a row that has ended keeps its final state
    for start, end in cuts(mask):
        states = {name: np.where(mask[start][:, None], np.float32(0), s) for name, s in states.items()} if len(mask) and mask[start].any() else states
        piece = (slice(None),) * axis + (slice(start, end),)
        left = None if lengths is None else np.clip(lengths - start, 0, end - start)
        y, *final = call({**{name: np.ascontiguousarray(a[piece]) for name, a in timed.items()}, **states, "lengths": left})
        parts.append(y)
        states = dict(zip(states, final))
    return np.concatenate(parts, axis), list(states.values())
