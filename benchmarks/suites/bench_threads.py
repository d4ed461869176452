"""One thread against two, fastrnn alone."""

import os
from itertools import cycle

import cases
import numpy as np
import pytest
from contenders import fastrnn_engine

STREAMS = 10_000
pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core to run on: two threads need two")


@pytest.mark.parametrize("case", cases.THREADS, ids=str)
def test_threads(race, case):
    ready = {f"threads={n}": fastrnn_engine.prepare(case, threads=n) for n in (1, 2)}
    one, two = (result() for _, result in ready.values())
    assert np.array_equal(one, two), f"{case}: two threads give other bits than one"
    race({name: run for name, (run, _) in ready.items()}, case)


@pytest.mark.parametrize("ready", cases.READY[1:], ids=str)
@pytest.mark.parametrize("case", cases.SHARED_POOLS, ids=str)
def test_shared(race, case, ready):
    """Those of 10,000 streams that are ready, drawn anew each call, one step after the other."""
    random, turns, answers = np.random.default_rng(0), {}, []
    draws = [
        (random.permutation(STREAMS)[:n], random.standard_normal((n, case.I)).astype(np.float32)) for n in random.integers(ready[0], ready[1] + 1, 8)
    ]
    for n in (1, 2):
        pool, handles = fastrnn_engine.pool(case, STREAMS, threads=n)
        named = cycle([(handles[chosen], x) for chosen, x in draws])
        answers.append(pool.step(*next(named)))
        turns[f"threads={n}"] = lambda pool=pool, named=named: pool.step(*next(named))
    assert np.array_equal(*answers), f"{case}: two threads give other bits than one"
    race(turns, f"a pool of {case.kind.upper()} I={case.I} H={case.H}, {ready[0]} to {ready[1]} of {STREAMS} ready")
