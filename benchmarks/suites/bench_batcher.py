"""Callers of a Batcher, tasks of one event loop: how much of the time its pool steps; and what becomes of requests when more come than can be done."""

import asyncio
import time

import cases
import numpy as np
import pytest

import fastrnn as fr
from fastrnn.serving import Batcher

CALLERS = (100, 1000)
LOADS = (0.3, 0.7, 4.0)  # of the measured rate
MANY, MAX_BATCH, QUEUES = 2000, 64, ("auto", 16, 64)


class Layer:
    """Layers that take so much longer than it takes to ask for a step in Python that who offers four times their rate has half of the time left."""

    I, H, LAYERS = 256, 1024, 3

    def __init__(self):
        self.session = fr.compile(fr.LSTM(self.I, self.H, self.LAYERS, seed=0))
        self.x = np.random.default_rng(0).standard_normal((MANY, self.I)).astype(np.float32)


async def closed(batcher, x, seconds: float) -> dict:
    """Every caller asks as soon as it has its answer."""
    clock, answered, until = time.perf_counter, 0, time.perf_counter() + seconds

    async def caller(name):
        nonlocal answered
        start = True
        while clock() < until:
            await batcher.step(name, x[name], start=start)
            start, answered = False, answered + 1

    began = clock()
    await asyncio.gather(*map(caller, range(len(x))))
    took, found = clock() - began, batcher.metrics()
    return {"rate": answered / took, "busy": found["run_us"]["sum"] * 1e-6 / took, "rows": found["frames"] / found["steps"]}


async def offered(batcher, x, rate: float, seconds: float) -> dict:
    """Callers ask on clocks of their own, which jitter, answered or not; microseconds from asking to the answer, or to the refusal."""
    clock, random, waits, refusals, tasks = time.perf_counter, np.random.default_rng(1), [], [], set()
    for name in range(len(x)):
        await asyncio.wrap_future(batcher.open(name))
    period = len(x) / rate

    async def ask(name):
        asked = clock()
        try:
            await batcher.step(name, x[name])
            waits.append(clock() - asked)
        except fr.OverloadedError:
            refusals.append(clock() - asked)

    due, n = clock() + 0.05 + random.random(len(x)) * period, 0
    began, end = clock(), clock() + 0.05 + seconds
    while (now := clock()) < end:
        for name in np.flatnonzero(due <= now).tolist():
            task = asyncio.ensure_future(ask(name))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due[name] += period * (1 + 0.1 * (random.random() - 0.5))
            n += 1
        await asyncio.sleep(max(0.0, min(0.001, due.min() - clock())))
    took = clock() - began
    if tasks:
        await asyncio.wait(set(tasks), timeout=10)
    found = {f"p{q}": 1e6 * float(np.percentile(waits, q)) for q in (50, 99)} | {
        "rate": len(waits) / took,
        "offered": n / took,
        "unresolved": n - len(waits) - len(refusals),
    }
    return found | {"refused": len(refusals) / n, "refused_p99": 1e6 * float(np.percentile(refusals, 99)) if refusals else None}


def services():
    """(name, session, what one caller sends, options of its pool)."""
    for I, H in ((40, 64), (256, 768)):
        yield f"LSTM {I}, {H}", fr.compile(fr.LSTM(I, H, seed=0)), np.zeros(I, np.float32), {}
    silero = cases.SHARED / "silero-vad/silero_vad_16k_op15.onnx"
    if silero.exists():
        yield (
            "silero",
            fr.compile(fr.load(silero), constants={"sr": np.array(16_000)}),
            np.zeros(512, np.float32),
            {"context": {"input": 64}, "sizes": {"sequence": 512}},
        )


@pytest.mark.parametrize("callers", CALLERS)
def test_busy(record, request, callers):
    """A small layer, a larger one, and a voice activity detector."""
    seconds = 0.3 if request.config.getoption("--quick") else 4

    def measure():
        found = {}
        for name, session, one, options in services():
            x, pool, rows = np.tile(one, (callers, 1)), session.pool(callers, **options), min(callers, 256)
            handles, n = [pool.open() for _ in range(rows)], 0
            began = time.perf_counter()
            while time.perf_counter() < began + seconds / 4:
                pool.step(handles, x[:rows])
                n += rows
            alone = n / (time.perf_counter() - began)
            with Batcher(session, callers, **options) as batcher:
                found[name] = asyncio.run(closed(batcher, x, seconds)) | {"pool": alone}
        return {"callers": callers, "layers": found}

    record(measure, f"{callers} callers")


@pytest.mark.parametrize("max_queue", QUEUES)
def test_overload(record, request, max_queue):
    """The rate is measured with callers that ask as soon as they are answered."""
    layer, seconds = Layer(), 0.5 if request.config.getoption("--quick") else 6

    def measure():
        with Batcher(layer.session, MANY, MAX_BATCH) as batcher:
            rate = asyncio.run(closed(batcher, layer.x[: 4 * MAX_BATCH], seconds / 2))["rate"]
        found = {}
        for load in LOADS:
            with Batcher(layer.session, MANY, MAX_BATCH, max_queue=max_queue) as batcher:
                found[load] = asyncio.run(offered(batcher, layer.x, load * rate, seconds))
        return {"measured": rate, "loads": found}

    record(measure, f"LSTM {layer.I}, {layer.H}, {layer.LAYERS} layers, {MANY} callers, max_queue {max_queue}")
