"""One thread against two, fastrnn alone."""

import os

import cases
import numpy as np
import pytest
from contenders import fastrnn_engine


@pytest.mark.parametrize("case", cases.THREADS, ids=str)
def test_threads(race, case):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core to run on: two threads need two")
    ready = {f"threads={n}": fastrnn_engine.prepare(case, threads=n) for n in (1, 2)}
    one, two = (result() for _, result in ready.values())
    assert np.array_equal(one, two), f"{case}: two threads give other bits than one"
    race({name: run for name, (run, _) in ready.items()}, case)
