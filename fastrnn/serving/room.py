"""How many requests may wait so that those who are taken wait no longer than under an ordinary load.

A step of n rows takes about a + b n seconds: a is what weights and the call cost, whatever the rows. At a load of 0.7 of the most that goes, max_batch rows
after max_batch rows, steps settle where as many come while one runs as the next one takes, and with arrivals of their own they vary about that:

    n = f (a + b n),  f = LOAD max_batch / (a + b max_batch) requests a second,  variance n / (1 - (f b)^2)

So the longest queues under that load are n and three deviations. If no more wait, a request waits, whatever is offered, for a step of so many rows and
then for its own.
"""

from __future__ import annotations

import math

LOAD, DEVIATIONS = 0.7, 3
SLOWER = 0.02  # how much of a longer time is believed at once: a thread that waits for Python's lock, or for the processor, tells nothing of the step


class Room:
    """What steps took, by powers of two of their rows, and what follows. Not locked: whoever notes holds the engine's lock."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._steps: dict[int, tuple[int, float]] = {}  # rows and seconds of the best step, or a later one's share of it
        self.most = max_batch  # requests that may wait; so many before steps of two sizes were seen

    def note(self, rows: int, seconds: float) -> None:
        """A step more."""
        kind = rows.bit_length()
        before = self._steps.get(kind)
        if before is not None and seconds / rows > before[1] / before[0]:
            seconds, rows = before[1] * (1 - SLOWER) + seconds * before[0] / rows * SLOWER, before[0]
        self._steps[kind] = rows, seconds
        self.most = self._most()

    def _most(self) -> int:
        few, many = self._steps[min(self._steps)], self._steps[max(self._steps)]
        if few[0] == many[0]:
            return self._max_batch
        row = max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
        call = max(0.0, few[1] - row * few[0])
        whole = call + row * self._max_batch
        if not whole:
            return self._max_batch
        offered = LOAD * self._max_batch / whole
        settled = offered * call / (1 - offered * row)
        return min(self._max_batch, max(1, round(settled + DEVIATIONS * math.sqrt(settled / (1 - (offered * row) ** 2)))))
