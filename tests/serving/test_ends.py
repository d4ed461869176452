"""How batchers end: drained, closed under load, forked, dropped; and threads and loops that end before them."""

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import numpy as np
import pytest
from served import Gate, I, alone, frames, same

import fastrnn as fr
from fastrnn.serving import Batcher


def test_a_drained_batcher_has_answered_all_and_takes_no_more(held, session):
    batcher, gate = held
    xs = frames(5, 3)
    futures = [[batcher.submit(c, xs[c, t], start=t == 0) for t in range(3)] for c in range(5)]
    assert not batcher.drain(0.05)
    with pytest.raises(fr.OverloadedError, match="draining"):
        batcher.submit(0, xs[0, 0])
    gate.open.set()
    assert batcher.drain(20)
    assert all(future.done() for of in futures for future in of)
    assert all(same([f.result() for f in futures[c]], alone(session, xs[c])) for c in range(5))
    batcher.close()
    with pytest.raises(fr.StateError, match="closed"):
        batcher.submit(0, xs[0, 0])


def test_closing_refuses_what_waits_and_answers_what_runs(held, session):
    batcher, gate = held
    futures = [batcher.submit(c, x, start=True) for c, x in enumerate(frames(5, 1)[:, 0])] + [batcher.submit(0, frames(1, 1)[0, 0])]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    gate.open.set()
    closing.join(20)
    assert not closing.is_alive() and same([gate.holder.result(20)], alone(session, np.zeros((1, I), np.float32)))
    for future in futures:
        with pytest.raises(fr.StateError, match="was closed before"):
            future.result(20)
    batcher.close()
    assert not any(thread is batcher._engine._worker for thread in threading.enumerate())


def test_a_with_block_drains_and_one_that_raises_closes(session, monkeypatch):
    xs = frames(4, 1)[:, 0]
    with Batcher(session) as batcher:
        futures = [batcher.submit(c, x, start=True) for c, x in enumerate(xs)]
    assert all(same([future.result(0)], alone(session, xs[c : c + 1])) for c, future in enumerate(futures))

    async def broken():
        async with Batcher(session):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        asyncio.run(broken())


def test_a_callback_may_submit_and_close(session):
    x, results, closed = frames(1, 1)[0, 0], [], threading.Event()
    batcher = Batcher(session)

    def more(future):
        results.append(future.result())
        if len(results) < 5:
            batcher.submit("a", x).add_done_callback(more)
        else:
            batcher.close()
            closed.set()

    batcher.submit("a", x, start=True).add_done_callback(more)
    assert closed.wait(20) and same(results, alone(session, [x] * 5))


@pytest.mark.parametrize("drained", [True, False])
def test_shutdown_under_load_resolves_every_future(session, drained):
    batcher, futures, refused = Batcher(session, 64, max_batch=4, max_queue=40), [], []

    def client(k):
        started = False
        while True:
            try:
                futures.append(batcher.submit(k, frames(1, 1, k)[0, 0], start=not started))
                started = True
            except fr.OverloadedError as error:
                if "draining" in str(error):
                    return refused.append(k)
            except fr.StateError:
                return refused.append(k)

    async def coroutines():
        async def one(k):
            try:
                await batcher.step(k, frames(1, 1, k)[0, 0], start=True)
                while True:
                    await batcher.step(k, frames(1, 1, k)[0, 0])
            except (fr.StateError, fr.OverloadedError):
                refused.append(k)

        await asyncio.gather(*(one(100 + k) for k in range(6)))

    threads = [threading.Thread(target=client, args=(k,)) for k in range(4)] + [threading.Thread(target=asyncio.run, args=(coroutines(),))]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    if drained:
        assert batcher.drain(20)
        assert all(future.done() for future in futures)
    batcher.close()
    for thread in threads:
        thread.join(20)
    assert not wait(futures, 20).not_done and not any(thread.is_alive() for thread in threads)
    answered = [future for future in futures if future.exception() is None]
    assert len(answered) > 10 and all(isinstance(future.exception(), fr.StateError) for future in futures if future.exception())
    assert len(answered) == len(futures) or not drained


def test_loops_and_threads_that_end_before_their_answers(held, session):
    batcher, gate = held
    xs = frames(8, 3)

    async def leaves(k):
        task = asyncio.ensure_future(batcher.step(k, xs[k, 0], start=True))
        await asyncio.sleep(0)
        return task

    for k in range(4):  # run() cancels what is left
        asyncio.run(leaves(k))

    def dies(k):
        loop = asyncio.new_event_loop()
        task = loop.create_task(batcher.step(k, xs[k, 0], start=True, step=0))
        loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False
        loop.close()  # with the task waiting
        batcher.submit(k + 10, xs[k, 0], start=True)

    threads = [threading.Thread(target=dies, args=(k,)) for k in range(4, 8)]
    for thread in threads:
        thread.start()
        thread.join(20)
    gate.release()
    assert batcher.metrics()["cancelled"] == 4 and set(batcher) - {"holder"} == {*range(4, 8), *range(14, 18)}
    got = [batcher.submit(k, xs[k, 1], step=1).result(20) for k in range(4, 8)]  # the steps that nobody waited for were taken
    assert same(got, [alone(session, xs[k])[1] for k in range(4, 8)])


def test_a_promise_of_a_loop_that_ends_binds_nobody(session):
    xs = frames(1, 2)[0]
    with Batcher(session) as batcher:
        loop = asyncio.new_event_loop()
        coroutine = batcher.step("a", xs[0], start=True)
        task = loop.create_task(coroutine)
        loop.call_soon(loop.stop)
        loop.run_forever()  # the task has submitted, and the loop looks at the queue never
        task._log_destroy_pending = False
        loop.close()
        assert same([batcher.submit("a", xs[1]).result(20)], alone(session, xs)[1:])


def test_drain_inside_a_coroutine(session):
    async def main():
        batcher = Batcher(session)
        tasks = [asyncio.create_task(batcher.step(k, x, start=True)) for k, x in enumerate(frames(5, 1)[:, 0])]
        await asyncio.sleep(0)
        assert batcher.drain(20)  # while the loop that was to run the step stands still
        batcher.close()
        return await asyncio.gather(*tasks)

    assert same(asyncio.run(main()), [alone(session, x[None])[0] for x in frames(5, 1)[:, 0]])


def test_a_batcher_that_is_dropped_takes_its_thread_along(session):
    batcher = Batcher(session)
    worker = batcher._engine._worker
    assert batcher.submit("a", frames(1, 1)[0, 0], start=True).result(20) is not None
    del batcher
    gc.collect()
    worker.join(20)
    assert not worker.is_alive()


def test_what_travels_is_refused_with_a_reason(session):
    with Batcher(session) as batcher:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="batcher.export"):
                attempt(batcher)
        assert "0 of 4096 callers" in repr(batcher)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told(held):
    batcher, gate = held
    receiver, sender = multiprocessing.Pipe(False)
    if (child := os.fork()) == 0:
        try:
            batcher.submit("a", frames(1, 1)[0, 0], start=True)
        except fr.StateError as error:
            sender.send(str(error))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert receiver.poll(20) and "another process" in receiver.recv()
    gate.release()


def test_an_interpreter_that_ends_with_requests_under_way():
    code = """
import numpy as np, fastrnn as fr
from fastrnn.serving import Batcher
batcher = Batcher(fr.compile(fr.LSTM(40, 64, seed=0)), 4096)
futures = [batcher.submit(k, np.ones(40, np.float32), start=True) for k in range(3000)]
futures[-1].add_done_callback(lambda future: print("resolved"))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd="/", timeout=60)
    assert done.returncode == 0 and done.stdout == "resolved\n" and not done.stderr, done.stderr


def test_gates_let_go(session, monkeypatch):
    """The gate of these tests holds a step, and only the one that it was told to."""
    with Batcher(session) as batcher:
        gate = Gate(batcher, monkeypatch)
        gate.hold(batcher)
        later = batcher.submit("a", frames(1, 1)[0, 0], start=True)
        assert not later.done() and not gate.holder.done()
        gate.release()
        later.result(20)
