"""Overload, cancellations, timeouts and steps that raise: every future resolves, and no stream moves twice or not at all."""

import asyncio
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest
from served import Gate, H, I, alone, frames, same

import fastrnn as fr
from fastrnn.serving import Batcher


def test_more_than_max_queue_are_refused_at_once(session, monkeypatch, caplog):
    xs = frames(8, 2)
    with Batcher(session, 64, max_queue=5) as batcher:
        gate = Gate(batcher, monkeypatch)
        gate.hold(batcher)
        futures = [batcher.submit(c, xs[c, 0], start=True) for c in range(5)]
        for c in (5, 6):
            with pytest.raises(fr.OverloadedError, match="no more than 5"):
                batcher.submit(c, xs[c, 0], start=True)
        with pytest.raises(fr.OverloadedError):
            batcher.submit(0, xs[0, 1])
        gate.release()
        assert same([f.result(20) for f in futures], [alone(session, xs[c])[0] for c in range(5)])
        assert same([batcher.submit(0, xs[0, 1]).result()], alone(session, xs[0])[1:])
        assert batcher.metrics()["overloaded"] == 3 and set(batcher) == {"holder", *range(5)}
    assert caplog.text.count("overloaded") == 1


def test_a_cancelled_request_moves_nothing_and_one_that_began_moves_once(held, session):
    batcher, gate = held
    xs = frames(1, 5)[0]
    assert not gate.holder.cancel()  # it has begun
    futures = [batcher.submit("a", x, start=t == 0) for t, x in enumerate(xs)]
    assert futures[2].cancel() and futures[2].cancel() and futures[4].cancel()
    gate.release()
    assert same([futures[t].result(20) for t in (0, 1, 3)], alone(session, xs[[0, 1, 3]]))
    with pytest.raises(CancelledError):
        futures[2].result()
    assert batcher.metrics()["cancelled"] == 2 and not futures[0].cancel()


def test_what_waits_behind_a_cancelled_start_or_number_is_told(held, session):
    batcher, gate = held
    xs = frames(1, 4)[0]
    start, behind = batcher.submit("a", xs[0], start=True), batcher.submit("a", xs[1])
    first, second, third = (batcher.submit("b", xs[t], start=t == 0, step=t) for t in range(3))
    assert start.cancel() and second.cancel()
    for lost in (behind, third):
        with pytest.raises(fr.StateError, match="before this one was cancelled or failed"):
            lost.result(20)
    with pytest.raises(fr.UnknownStreamError):
        batcher.submit("a", xs[1])
    again = [batcher.submit("b", xs[t], step=t) for t in (1, 2)]
    gate.release()
    assert same([f.result(20) for f in [first, *again]], alone(session, xs[:3]))


def test_a_coroutine_that_times_out_before_its_step_has_moved_nothing(session, monkeypatch):
    xs = frames(1, 3)[0]

    async def main():
        async with Batcher(session) as batcher:
            gate = Gate(batcher, monkeypatch)
            await batcher.step("a", xs[0], start=True, step=0)
            gate.hold(batcher)
            for timeout in (0.01, 0.05):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(batcher.step("a", xs[1], step=1), timeout)
            assert batcher.metrics()["waiting"] == 0 and batcher.metrics()["cancelled"] == 2
            waits = asyncio.create_task(batcher.step("a", xs[1], step=1))
            await asyncio.sleep(0.01)
            gate.release()
            return [await waits, await batcher.step("a", xs[2], step=2)]

    assert same(asyncio.run(main()), alone(session, xs)[1:])


def test_a_step_that_has_begun_moves_though_its_coroutine_is_gone(session, monkeypatch):
    xs = frames(1, 3)[0]

    async def main():
        batcher = Batcher(session)
        gate = Gate(batcher, monkeypatch)
        await batcher.step("a", xs[0], start=True, step=0)
        monkeypatch.setattr("fastrnn.serving.engine.HERE_S", -1.0)  # the worker's, always
        gate.held = True
        task = asyncio.create_task(batcher.step("a", xs[1], step=1))
        while not gate.entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.held = False
        gate.open.set()
        got = [await batcher.step("a", xs[1], step=1), await batcher.step("a", xs[2], step=2)]
        batcher.close()
        return got

    assert same(asyncio.run(main()), alone(session, xs)[1:])


def test_a_step_that_raises_resolves_every_future_and_moves_nothing(held, session, caplog):
    batcher, gate = held
    xs = frames(6, 4)
    futures = [batcher.submit(c, xs[c, 0], start=True) for c in range(6)]
    gate.release()
    wait(futures, 20)

    def fault(handles, x):
        raise MemoryError("injected")

    gate.fault = fault
    for f in [batcher.submit(c, xs[c, 1], step=1) for c in range(6)]:
        with pytest.raises(MemoryError, match="injected"):
            f.result(20)
    gate.fault = None
    assert all(same([batcher.submit(c, xs[c, t], step=t).result() for t in (1, 2)], alone(session, xs[c])[1:3]) for c in range(6))
    assert "raised MemoryError: injected" in caplog.text


def test_the_row_that_makes_a_step_raise_is_found(held, session):
    batcher, gate = held
    xs = frames(9, 3)

    def fault(handles, x):
        if (x == 666).any():
            raise ValueError("a row of 666")

    gate.fault = fault
    bad = xs.copy()
    bad[4, 1] = 666
    futures = [[batcher.submit(c, bad[c, t], start=t == 0) for t in range(3)] for c in range(9)]
    gate.release()
    for c in range(9):
        if c != 4:
            assert same([f.result(20) for f in futures[c]], alone(session, xs[c]))
    assert same([futures[4][0].result(20)], alone(session, xs[4])[:1])
    with pytest.raises(ValueError, match="666"):
        futures[4][1].result(20)
    with pytest.raises(fr.StateError, match="before this one"):
        futures[4][2].result(20)
    assert same([batcher.submit(4, xs[4, t]).result() for t in (1, 2)], alone(session, xs[4])[1:])


def test_a_start_that_fails_leaves_no_caller(held):
    batcher, gate = held

    def fault(handles, x):
        raise ValueError("injected")

    gate.fault = fault
    start, behind = batcher.submit("a", np.ones(I, np.float32), start=True), batcher.submit("a", np.ones(I, np.float32))
    gate.open.set()
    for future, error in ((gate.holder, ValueError), (start, ValueError), (behind, fr.StateError)):
        with pytest.raises(error):
            future.result(20)
    gate.fault = None
    assert len(batcher) == 0 and batcher.submit("a", np.ones(I, np.float32), start=True).result().shape == (H,)


def test_an_interrupt_in_a_step_ends_its_streams_and_no_others(session, monkeypatch):
    xs = frames(2, 3)
    with Batcher(session) as batcher:
        gate = Gate(batcher, monkeypatch)
        for c in range(2):
            batcher.submit(c, xs[c, 0], start=True).result()

        def fault(handles, x):
            raise KeyboardInterrupt

        gate.fault = fault

        async def main():
            await batcher.step(0, xs[0, 1])

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
        gate.fault = None
        with pytest.raises(fr.UnknownStreamError):
            batcher.submit(0, xs[0, 1])
        assert same([batcher.submit(1, xs[1, 1]).result()], alone(session, xs[1])[1:2])


def test_what_is_not_finite_stays_with_its_caller(session):
    xs = frames(12, 6)
    xs[::3, 2] = np.nan
    xs[1::3, 3] = np.inf
    with Batcher(session) as batcher:
        futures = [[batcher.submit(c, xs[c, t], start=t == 0, end=t == 5) for c in range(12)] for t in range(6)]
        assert all(same([futures[t][c].result(20) for t in range(6)], alone(session, xs[c])) for c in range(2, 12, 3))
        again = [batcher.submit(c, frames(1, 1)[0, 0], start=True) for c in range(12)]
        assert all(same([f.result(20)], alone(session, frames(1, 1)[0])) for f in again)
