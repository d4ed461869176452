"""Who may ask: starts, ends, step numbers, and callers that do not ask any more."""

import logging
import time

import numpy as np
import pytest
from served import alone, frames, same

import fastrnn as fr
from fastrnn.serving import Batcher


def test_start_end_and_unknown(session):
    x = frames(1, 1)[0, 0]
    with Batcher(session) as batcher:
        with pytest.raises(fr.UnknownStreamError, match="'a'"):
            batcher.submit("a", x)
        batcher.submit("a", x, start=True).result()
        with pytest.raises(fr.StateError, match="started already"):
            batcher.submit("a", x, start=True)
        batcher.submit("a", x, end=True).result()
        with pytest.raises(fr.UnknownStreamError):
            batcher.submit("a", x)
        assert same([batcher.submit("a", x, start=True, end=True).result()], alone(session, [x]))
        assert len(batcher) == 0 and "a" not in batcher


def test_a_new_start_behind_an_end_that_waits(held, session):
    batcher, gate = held
    xs = frames(1, 4)[0]
    futures = [batcher.submit("a", xs[0], start=True), batcher.submit("a", xs[1], end=True)]
    with pytest.raises(fr.UnknownStreamError):
        batcher.submit("a", xs[2])
    futures += [batcher.submit("a", xs[2], start=True), batcher.submit("a", xs[3])]
    gate.release()
    assert same([f.result(20) for f in futures], alone(session, xs[:2]) + alone(session, xs[2:]))


def test_step_numbers_make_retries_safe(session):
    xs = frames(1, 6)[0]
    wanted = alone(session, xs)
    with Batcher(session) as batcher:
        assert same([batcher.submit("a", xs[0], start=True, step=7).result()], wanted[:1])
        assert same([batcher.submit("a", xs[0], start=True, step=7).result()], wanted[:1])
        with pytest.raises(fr.StateError, match="started already"):
            batcher.submit("a", xs[0], start=True, step=8)
        got = [batcher.submit("a", xs[1], step=8).result() for _ in range(3)]
        assert same(got, [wanted[1]] * 3)
        for wrong in (6, 7, 10, -1):
            with pytest.raises(fr.StateError, match=f"step 9 is next, got step {wrong}"):
                batcher.submit("a", xs[2], step=wrong)
        with pytest.raises(fr.StateError, match="end=False"):
            batcher.submit("a", xs[1], step=8, end=True)
        assert same([batcher.submit("a", xs[2]).result()], wanted[2:3])  # without a number: the next
        assert same([batcher.submit("a", xs[3], step=np.int64(10)).result()], wanted[3:4])
        assert same([batcher.submit("a", xs[4], step=11, end=True).result() for _ in range(2)], [wanted[4]] * 2)  # also after the end
        with pytest.raises(fr.UnknownStreamError):
            batcher.submit("a", xs[5], step=12)
        for wrong in (1.0, True, "1"):
            with pytest.raises(TypeError, match="step must be an int"):
                batcher.submit("a", xs[5], step=wrong)
        assert same([batcher.submit("a", xs[0], start=True, step=11).result()], wanted[:1])  # a start is no retry of what ended
        assert batcher.metrics()["retries"] == 4


def test_a_retry_of_what_waits_has_its_answer(held, session):
    batcher, gate = held
    xs = frames(1, 2)[0]
    first = [batcher.submit("a", xs[0], start=True, step=0) for _ in range(2)]
    second = [batcher.submit("a", xs[1], step=1) for _ in range(3)]
    assert not second[0].cancel() and not second[1].cancel()  # others have been promised this step
    gate.release()
    assert same([f.result(20) for f in first + second], [alone(session, xs)[k] for k in (0, 0, 1, 1, 1)])
    assert second[1].result() is not second[2].result()


def test_when_full_a_start_is_refused_and_the_idle_are_evicted_only_in_time(session):
    x = frames(1, 1)[0, 0]
    with Batcher(session, 2) as batcher:
        for c in range(2):
            batcher.submit(c, x, start=True).result()
        with pytest.raises(fr.PoolFullError, match="all 2 streams"):
            batcher.submit(2, x, start=True)
        batcher.submit(0, x, end=True)
        batcher.submit(1, x).result()
        batcher.submit(2, x, start=True).result()
    with Batcher(session, 2, idle_timeout_s=0.2) as batcher:
        for c in range(2):
            batcher.submit(c, x, start=True).result()
        with pytest.raises(fr.PoolFullError):
            batcher.submit(2, x, start=True)
        time.sleep(0.12)
        batcher.submit(1, x).result()
        time.sleep(0.12)
        assert same([batcher.submit(2, x, start=True).result()], alone(session, [x]))
        with pytest.raises(fr.UnknownStreamError):
            batcher.submit(0, x)  # never a start from zeros
        assert set(batcher) == {1, 2} and batcher.metrics()["evicted"] == 1


def test_the_idle_are_evicted_though_nobody_asks(session, caplog):
    caplog.set_level(logging.INFO, "fastrnn")
    with Batcher(session, 2, idle_timeout_s=0.05) as batcher:
        batcher.submit("gone", frames(1, 1)[0, 0], start=True).result()
        end = time.monotonic() + 20
        while len(batcher) and time.monotonic() < end:
            time.sleep(0.01)
        assert len(batcher) == 0 and batcher.metrics()["evicted"] == 1
    assert "evicted 1 idle callers: 'gone'" in caplog.text
