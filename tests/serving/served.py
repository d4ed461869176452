"""What the tests of serving share: streams to compare with, and a gate that holds an engine in a step."""

import threading

import numpy as np

import fastrnn as fr

I, H = 5, 7


def lstm():
    return fr.compile(fr.LSTM(I, H, num_layers=2, seed=1))


def frames(n, T, seed=0):
    return np.random.default_rng(seed).standard_normal((n, T, I)).astype(np.float32)


def alone(session, xs):
    stream = session.stream()
    return [stream.step(x[None])[0] for x in xs]


def same(got, wanted):
    return len(got) == len(wanted) and all(np.asarray(g).tobytes() == np.asarray(w).tobytes() for g, w in zip(got, wanted))


class Gate:
    """Holds a batcher's engine inside a step until it is opened, may make steps raise, and notes the handles of each."""

    def __init__(self, batcher, monkeypatch):
        self.entered, self.open, self.held, self.fault, self.steps = threading.Event(), threading.Event(), False, None, []
        pool = batcher._engine._pool
        self.pool = pool

        def step(handles, x):
            self.steps.append(list(handles))
            if self.held:
                self.entered.set()
                assert self.open.wait(20)
            if self.fault is not None:
                self.fault(handles, x)
            return pool.step(handles, x)

        class Stepped:
            def __getattr__(self, name):
                return step if name == "step" else getattr(pool, name)

        monkeypatch.setattr(batcher._engine, "_pool", Stepped())

    def hold(self, batcher):
        """The engine is now in a step of a caller of its own."""
        self.held = True
        self.holder = batcher.submit("holder", np.zeros(I, np.float32), start=True)
        assert self.entered.wait(20)
        self.held = False
        return self.holder

    def release(self):
        self.open.set()
        self.holder.result(20)
