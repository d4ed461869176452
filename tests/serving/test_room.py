"""How many may wait by what steps take: the number that settles at 0.7 of the rate, and what a Batcher that has it refuses."""

import threading

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.serving import Batcher
from fastrnn.serving.room import LOAD, Room


@pytest.mark.parametrize("call,row", [(1e-3, 92e-6), (5e-5, 1e-5), (2e-4, 2e-4)])
def test_what_waits_at_the_load(call, row):
    """Walked with arrivals of their own: of fifty steps hardly one takes more than may wait, and the limit is not much above the longest."""
    room, random, rows, taken = Room(64), np.random.default_rng(0), 1, []
    for n in (1, 40, 3, 64, 17):
        room.note(n, call + n * row)
    for _ in range(20_000):
        rows = max(1, random.poisson(LOAD * 64 / (call + 64 * row) * (call + min(rows, 64) * row)))
        taken.append(rows)
    assert np.mean(np.array(taken) > room.most) < 0.02
    assert room.most <= 1.25 * np.percentile(taken, 99.9) + 2


def test_before_and_despite_what_disturbs():
    room = Room(64)
    assert room.most == 64  # nothing is known
    room.note(1, 1e-3)
    assert room.most == 64
    room.note(64, 7e-3)
    quiet = room.most
    assert 1 < quiet < 30
    for _ in range(3):
        room.note(1, 6e-3)  # who waited for Python's lock
    assert room.most < 2 * quiet
    for _ in range(400):
        room.note(1, 6e-3)  # a processor that has become slower
    assert room.most > 2 * quiet


def test_a_batcher_refuses_by_it():
    """What waits is never more than that, the excess is refused at once, and what was taken is answered."""
    session, x = fr.compile(fr.LSTM(8, 16, seed=0)), np.zeros(8, np.float32)
    with Batcher(session, 256, max_batch=32, max_queue="auto") as batcher:
        assert batcher._engine._max_queue == 32
        for rows in (1, 32):
            batcher._engine._measured_room.note(rows, 1e-4 + rows * 1e-4)
        most = batcher._engine._max_queue
        holding, go = threading.Event(), threading.Event()
        batcher.open("first").result()
        held = batcher._act("first", lambda pool, stream: holding.set() or go.wait(10))
        threading.Thread(target=held.result).start()
        assert holding.wait(10)
        taken, refused = [], 0
        for name in range(3 * 32):
            try:
                taken.append(batcher.submit(name, x, start=True))
            except fr.OverloadedError:
                refused += 1
        assert len(taken) == most < 32 and refused == 3 * 32 - most
        go.set()
        assert all(np.array_equal(future.result(10), taken[0].result()) for future in taken)
    with pytest.raises(fr.ShapeError, match="max_queue"):
        Batcher(session, max_queue="many")
