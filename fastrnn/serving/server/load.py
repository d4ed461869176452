"""How much an event loop has to do, and whether it carries one caller more.

Whoever is taken is owed an answer in time for as long as they stay, so the question is not whether there is time now but whether there will be once
all who were taken stream. The loop's busy share and its callers are smoothed alike, over SMOOTHED_S; callers who came since are not in the share yet,
and are counted with what one takes:

    expected = busy + each * (callers + 1 - callers smoothed),   each = busy / callers smoothed, at least UNKNOWN

An average is more than what a further caller takes, since steps are shared; so a crowd that comes at once is let in over some seconds, and in the end
as many are in as come one by one.
"""

from __future__ import annotations

import os
import time

from fastrnn.errors import OverloadedError

TICK_S, SMOOTHED_S = 0.05, 1.0  # a pause for planning does not count, a second of lateness does
UNKNOWN = 1 / 200  # of the loop, that a caller takes until it is seen: silero's, a frame each 32 ms, take 1/230 where few stream and 1/300 later
SCHEDULED = "/proc/thread-self/schedstat"  # Linux's: nanoseconds that a thread ran, and that it could have run and other programs did
CALM = 0.5  # of the lateness from which on nobody starts: below, they may again


class Load:
    """Belongs to the loop, which calls tick each TICK_S. most_busy: of the loop's time, from which on nobody starts; most_lag_s: how late it may be.

    busy: share of its time in which the loop runs or waits for a processor, or a step runs if that is more; lag_s: how late it is. late: more than it may be, or was so and is not calm again.
    """

    def __init__(self, most_busy: float = float("inf"), most_lag_s: float = float("inf")):
        self.most_busy, self.most_lag_s = most_busy, most_lag_s
        self.busy = self.lag_s = self._callers = 0.0
        self.late = False
        self._at = self._ran_s = self._stepped_s = 0.0
        self._work_s = time.thread_time

    def begin(self) -> None:
        """On the loop's thread, before the first tick."""
        if os.path.exists(SCHEDULED):
            self._work_s = _work_s
        self._at, self._ran_s = time.monotonic(), self._work_s()

    def tick(self, callers: int, stepped_s: float) -> None:
        """callers: who has a stream now. stepped_s: that steps have taken so far, here or on a thread of their own."""
        at, ran_s = time.monotonic(), self._work_s()
        took = at - self._at
        self.see(took, max(ran_s - self._ran_s, stepped_s - self._stepped_s) / took, max(0.0, took - TICK_S), callers)
        self._at, self._ran_s, self._stepped_s = at, ran_s, stepped_s

    def see(self, took_s: float, busy: float, late_s: float, callers: int) -> None:
        """What one tick found."""
        new = min(1.0, took_s / SMOOTHED_S)
        self.busy += new * (busy - self.busy)
        self._callers += new * (callers - self._callers)
        self.lag_s += min(new, TICK_S / SMOOTHED_S) * (late_s - self.lag_s)  # one long pause is one tick's
        self.late = self.lag_s > self.most_lag_s * (CALM if self.late else 1.0)

    def check(self, callers: int) -> None:
        """Raises OverloadedError where the loop does not carry one caller more than these."""
        if self.late:
            raise OverloadedError(f"the server is {self.lag_s * 1e3:.0f} ms behind, and takes no more callers from {self.most_lag_s * 1e3:.0f} on")
        each = max(UNKNOWN, self.busy / max(1.0, self._callers))
        expected = self.busy + each * max(0.0, callers + 1 - self._callers)
        if expected > self.most_busy:
            raise OverloadedError(
                f"the server is busy for {self.busy:.0%} of its time, which {callers + 1} callers would make {expected:.0%}: "
                f"more than {self.most_busy:.0%}"
            )


def _work_s() -> float:
    """What this thread had to do so far. Beside another program, that is more than it ran, and what is left for callers is less."""
    with open(SCHEDULED, "rb") as file:
        ran, waited, _ = file.read().split()
    return (int(ran) + int(waited)) * 1e-9
