"""Counters and histograms of a batcher. Not locked: whoever writes holds the engine's lock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

ROWS = tuple(2**k for k in range(15))
MICROSECONDS = tuple(m * 10**k for k in range(7) for m in (1, 2, 5))
COUNTERS = ("requests", "answers", "steps", "frames", "retries", "overloaded", "cancelled", "failed", "started", "ended", "evicted")


class Histogram:
    """How many values were at most each bound, and above the one before it; a last place for those above all."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """One value more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_all(self, values: Sequence[float]) -> None:
        """So many more."""
        counts, bounds = self.counts, self.bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sum += sum(values)

    def as_dict(self) -> dict[str, Any]:
        """bounds, counts (one more than bounds: values above the last), count and sum."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "count": sum(self.counts), "sum": self.sum}


class Metrics:
    """What a batcher has done since it was made. A name of COUNTERS is an attribute. frames: rows stepped, each step of a chunk counted."""

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)
        self.batch_rows, self.queue_us, self.run_us = Histogram(ROWS), Histogram(MICROSECONDS), Histogram(MICROSECONDS)

    def as_dict(self) -> dict[str, Any]:
        """Counters as ints, histograms as dicts."""
        histograms = {name: getattr(self, name).as_dict() for name in ("batch_rows", "queue_us", "run_us")}
        return {name: getattr(self, name) for name in COUNTERS} | histograms
