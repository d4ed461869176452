"""Client threads that step, start, end, reset, export, restore, poison and cancel as they please: every answer is bit for bit that of a stream alone."""

import asyncio
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.serving import Batcher

I = 3
CLIENTS = 8


@pytest.fixture(scope="module")
def session():
    return fr.compile(fr.GRU(I, 6, seed=1))


class Client:
    """Some callers, a stream alone beside each, and what both gave. Of every ten callers one is fed what is not finite."""

    def __init__(self, batcher, session, index, callers, steps):
        self.batcher, self.session, self.steps, self.rng, self.names = batcher, session, steps, np.random.default_rng(index), 0
        self.index, self.alone, self.number = index, {}, {}
        self.compared = self.cancelled = 0
        self.wanted = callers

    def fresh(self):
        self.names += 1
        return self.index, self.names

    def x(self, name):
        x = self.rng.standard_normal((1, I)).astype(np.float32)
        if name[1] % 10 == 3 and self.rng.random() < 0.3:
            x[0, self.rng.integers(I)] = self.rng.choice([np.nan, np.inf, -np.inf])
        return x

    def run(self):
        while self.compared < self.steps:
            self.some_steps()
            self.something_else()

    def some_steps(self):
        """A few callers, each a few steps, all submitted before any answer is looked at."""
        names = list(self.alone)
        chosen = [names[k] for k in self.rng.choice(len(names), min(len(names), self.rng.integers(1, 64)), replace=False)] if names else []
        chosen += [self.fresh() for _ in range(min(8, self.wanted - len(names)))]
        asked = []
        for name in chosen:
            start = name not in self.alone
            if start:
                self.alone[name], self.number[name] = self.session.stream(), int(self.rng.integers(100)) if name[1] % 2 else None
            for k in range(self.rng.integers(1, 4)):
                x, number = self.x(name), self.number[name]
                asked.append((name, x, self.batcher.submit(name, x, start=start and k == 0, step=number)))
                if number is not None:
                    self.number[name] = number + 1
            if self.rng.random() < 0.02 and not start and self.number[name] is None and asked[-1][2].cancel():
                self.cancelled += 1
                with pytest.raises(CancelledError):
                    asked.pop()[2].result(60)
        for name, x, future in asked:
            assert future.result(60).tobytes() == self.alone[name].step(x).tobytes(), name
            self.compared += 1

    def something_else(self):
        name = list(self.alone)[self.rng.integers(len(self.alone))]
        what = self.rng.integers(5)
        if what == 0:  # an end, and a name that is not known any more
            x, number = self.x(name), self.number.pop(name)
            got = self.batcher.submit(name, x, end=True, step=number).result(60)
            assert got.tobytes() == self.alone.pop(name).step(x).tobytes()
            with pytest.raises(fr.UnknownStreamError):
                self.batcher.submit(name, x)
        elif what == 1:
            self.batcher.reset(name)
            self.alone[name].reset()
        elif what == 2:  # it goes on under another name
            data, other = self.batcher.export(name).result(60), self.fresh()
            self.batcher.submit(name, self.x(name), end=True).result(60)
            self.batcher.restore(other, data).result(60)
            self.alone[other], self.number[other] = self.alone.pop(name), None
            self.number.pop(name)
        elif what == 3 and self.number[name] is not None:  # a retry of a step that is done
            x, number = self.x(name), self.number[name]
            got = [self.batcher.submit(name, x, step=number).result(60) for _ in range(2)]
            assert got[0].tobytes() == got[1].tobytes() == self.alone[name].step(x).tobytes()
            self.number[name] += 1
        else:
            with pytest.raises(fr.StateError):
                self.batcher.submit(name, self.x(name), start=True)


def stress(session, callers, steps, looks):
    """Runs it; the bytes in use at each of so many looks."""
    failed, memory = [], []
    with Batcher(session, callers, max_batch=100) as batcher:
        clients = [Client(batcher, session, k, callers // CLIENTS, steps // CLIENTS) for k in range(CLIENTS)]

        def run(client):
            try:
                client.run()
            except BaseException as error:
                failed.append(error)
                raise

        threads = [threading.Thread(target=run, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for k in range(looks):
            while any(thread.is_alive() for thread in threads) and sum(client.compared for client in clients) < steps * (k + 1) / (looks + 1):
                time.sleep(0.05)
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
        for thread in threads:
            thread.join()
        assert not failed
        assert batcher.drain(60)  # a reset at the end is not waited for
        metrics = batcher.metrics()
        assert metrics["waiting"] == 0 and metrics["failed"] == 0 and metrics["evicted"] == 0
        assert metrics["answers"] == metrics["requests"] - metrics["cancelled"]
        assert len(batcher) == sum(len(client.alone) for client in clients)
    assert sum(client.compared for client in clients) >= steps
    return memory


def test_callers_from_eight_threads_have_the_bits_of_streams_alone(session):
    stress(session, 400, 30_000, 1)


@pytest.mark.slow
def test_ten_thousand_streams_a_million_steps(session):
    memory = stress(session, 10_000, 1_000_000, 4)
    assert max(memory[1:]) <= 1.01 * memory[1], memory  # the first look: callers are still starting


def test_cancellations_overload_and_clients_that_end_in_the_middle(session):
    """What was accepted is answered or taken back, and the streams are where their answers say."""
    xs = np.random.default_rng(0).standard_normal((40, 200, I)).astype(np.float32)
    accepted, refused, cancelled, answers = [], [], [], {c: [] for c in range(40)}
    with Batcher(session, 64, max_batch=8, max_queue=24) as batcher:

        def thread(c):
            """Half of them leave after 100 steps, with answers on their way."""
            for t in range(100 if c % 2 else 200):
                try:
                    future = batcher.submit(c, xs[c, t], start=not answers[c])
                except fr.OverloadedError:
                    refused.append(t)
                    continue
                accepted.append(future)
                answers[c].append((t, future))
                if c % 2 == 0 and t % 4 == 3 and answers[c][-1][1].cancel():
                    cancelled.append(answers[c].pop())

        async def coroutine(c):
            """Asks again, under the same number and at times with little patience, until it has an answer."""
            for t in range(100):
                impatient = t % 5 == 0
                while len(answers[c]) == t:
                    try:
                        async with asyncio.timeout(2e-5 if impatient else 60):
                            answers[c].append((t, await batcher.step(c, xs[c, t], start=t == 0, step=t)))
                    except (TimeoutError, fr.OverloadedError) as error:
                        (cancelled if isinstance(error, TimeoutError) else refused).append(t)
                        impatient = False
                        await asyncio.sleep(0.001)

        async def coroutines():
            await asyncio.gather(*(coroutine(c) for c in range(30, 40)))

        threads = [threading.Thread(target=thread, args=(c,)) for c in range(30)] + [threading.Thread(target=lambda: asyncio.run(coroutines()))]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
        assert batcher.drain(60)
    assert all(future.done() for future in accepted) and refused and cancelled
    assert all(len(answers[c]) == 100 for c in range(30, 40))
    for c in range(40):
        stream = session.stream()
        for t, answer in answers[c]:
            if isinstance(answer, np.ndarray):
                assert answer.tobytes() == stream.step(xs[c, t][None])[0].tobytes()
            elif (error := answer.exception()) is None:
                assert answer.result().tobytes() == stream.step(xs[c, t][None])[0].tobytes()
            else:  # behind a start that was cancelled
                assert isinstance(error, fr.StateError)
