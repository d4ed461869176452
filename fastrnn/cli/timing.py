"""Calls that take turns: what `fastrnn bench` and the benchmarks time with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

DISTURBED = 0.95  # a smaller share of a core than this makes figures doubtful
FAST = 50e-6  # seconds; calls under it are timed in blocks, where the clock and a disturbance weigh little
BLOCK = 1_000
WARM_CALLS, WARM_SECONDS = 50, 1e-3  # at most, that a turn starts with and that do not count: whoever had it before has the caches
TURN_SECONDS = 0.02  # of slower calls, each timed by itself


class Race:
    """Functions without arguments that take turns, so that whatever the machine does meets all of them.

    us: microseconds a call, by name: the mean of each block of calls under 50 us, each call above.
    """

    def __init__(self, runs: Mapping[str, Callable[[], object]], block: int = BLOCK, turn_seconds: float = TURN_SECONDS):
        self._runs, self._sizes, self._calls, self._warm = dict(runs), {}, {}, {}
        self._wall = self._processor = 0.0
        self.us: dict[str, list[float]] = {name: [] for name in runs}
        self.singles: dict[str, list[float]] = {name: [] for name in runs}
        for name, run in runs.items():
            seconds = warm(run)
            self._sizes[name], self._calls[name] = (block, 1) if seconds < FAST else (1, max(1, int(turn_seconds / seconds)))
            self._warm[name] = min(WARM_CALLS, int(WARM_SECONDS / seconds))

    def round(self) -> None:
        """A turn for everyone."""
        clock, wall, processor = time.perf_counter_ns, time.perf_counter(), time.process_time()
        for name, run in self._runs.items():
            size, times = self._sizes[name], self.us[name]
            for _ in range(self._warm[name]):
                run()
            for _ in range(self._calls[name]):
                started = clock()
                for _ in range(size):
                    run()
                times.append((clock() - started) / size / 1e3)
        self._wall += time.perf_counter() - wall
        self._processor += time.process_time() - processor

    @property
    def share(self) -> float:
        """Of the time that rounds took, how much this process had a core: below 1, another process had it too, and long calls look longer than they are."""
        return min(1.0, self._processor / self._wall) if self._wall else 1.0

    def calls(self, count: int, turns: int = 10) -> None:
        """`count` calls of everyone whom rounds time in blocks, each by itself, into `singles`; the clock's own 0.05 us is in them."""
        clock = time.perf_counter_ns
        for _ in range(turns):
            for name, run in self._runs.items():
                times = self.singles[name]
                if self._sizes[name] == 1:
                    continue
                for _ in range(self._warm[name]):
                    run()
                for _ in range(count // turns):
                    started = clock()
                    run()
                    times.append((clock() - started) / 1e3)

    def rounds_within(self, seconds: float, least: int, most: int) -> int:
        """How many rounds take about so long, by the faster of two that do not count."""
        took = min(_seconds(self.round) for _ in range(2))
        for times in self.us.values():
            times.clear()
        self._wall = self._processor = 0.0
        return max(least, min(most, int(seconds / took)))

    def summary(self) -> dict[str, dict[str, float]]:
        """By name: us, the median; p99; how many samples; and p50_call, p99_call of single calls where those are known."""
        result = {}
        for name, times in self.us.items():
            result[name] = {"us": float(np.median(times)), "p99": float(np.percentile(times, 99)), "samples": len(times)}
            singles = self.singles[name] or (times if self._sizes[name] == 1 else [])
            if singles:
                result[name] |= {"p50_call": float(np.median(singles)), "p99_call": float(np.percentile(singles, 99)), "calls": len(singles)}
        return result


def warm(run: Callable[[], object], seconds: float = 0.02) -> float:
    """Seconds of a call once it is warm: of the fastest of at least three, over `seconds`, since one that was interrupted says nothing of the call."""
    run()
    fastest, calls = float("inf"), 0
    stop = time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < stop:
        fastest, calls = min(fastest, _seconds(run)), calls + 1
    return max(fastest, 1e-9)  # a clock may stand still for so short a call


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
