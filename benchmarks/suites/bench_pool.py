"""Many streams, of which some have a step ready: a pool, beside peers whose states the caller gathers and scatters with NumPy."""

import time
from itertools import cycle

import cases
import numpy as np
import pytest
from contenders import fastrnn_engine
from contenders.gathered import Gathered, peers

from fastrnn.kernels import roofline

STREAMS = 10_000
CHUNKS = (16, 32, 64, 256)  # rows of a peer's call; the best one counts
DRAWS = 8  # sets of ready streams, one after the other
LOADS = (0.3, 0.5, 0.7, 0.85)  # of the rate that a pool reaches with all streams ready


def in_turn(step, draws):
    """step of one draw after the other, a call each: without a function of Python's between, which is a tenth of the shortest steps."""
    return map(step, *map(cycle, zip(*draws))).__next__


@pytest.mark.parametrize("ready", cases.READY, ids=str)
@pytest.mark.parametrize("case", cases.POOLS, ids=str)
def test_pool(race, case, ready):
    random, (pool, handles) = np.random.default_rng(0), fastrnn_engine.pool(case, STREAMS)
    counts = random.integers(ready[0], ready[1] + 1, DRAWS)
    draws = [(random.permutation(STREAMS)[:n], random.standard_normal((n, case.I)).astype(np.float32)) for n in counts]
    named = [(handles[chosen].tolist() if len(chosen) < 16 else handles[chosen], x) for chosen, x in draws]
    best = {}
    for name, run in peers(case).items():
        tried = {}
        for chunk in [c for c in CHUNKS if c < ready[1]] or CHUNKS[:1]:
            peer = Gathered(run, case, chunk, STREAMS)
            for (chosen, x), (who, _) in zip(draws[:2], named):
                mine, theirs = pool.step(who, x), peer.step(chosen, x)
                assert np.abs(mine - theirs).max() < 1e-5, f"{case}: {name} differs"
            for who, _ in named[:2]:
                pool.reset(who)
            started = time.perf_counter()
            for chosen, x in draws:
                peer.step(chosen, x)
            tried[chunk] = time.perf_counter() - started, peer
        best[name] = min(tried.values(), key=lambda pair: pair[0])[1]
    runs = {"fastrnn": in_turn(pool.step, named), **{name: in_turn(peer.step, draws) for name, peer in best.items()}}
    work = roofline.Work(case.work.flops * float(counts.mean()), case.work.weight_bytes)
    race(
        runs,
        f"{case.kind.upper()} I={case.I} H={case.H}, {ready[0]} to {ready[1]} of {STREAMS} ready",
        work=work,
        rows=float(counts.mean()),
        chunks={name: peer.chunk for name, peer in best.items()},
    )


def waits(step, case, callers: int, period: float, seconds: float) -> np.ndarray:
    """Seconds from when each frame came until its answer was there, the wait for the engine counted: callers tick on clocks of their own, which jitter."""
    random, clock = np.random.default_rng(1), time.perf_counter
    x = random.standard_normal((callers, case.I)).astype(np.float32)
    due = clock() + 0.05 + random.random(callers) * period
    found, end = [], clock() + 0.05 + seconds
    while (now := clock()) < end:
        ready = np.flatnonzero(due <= now)
        if not len(ready):
            continue
        step(ready, x[ready])
        found.append(clock() - due[ready])
        due[ready] += period * (1 + 0.1 * (random.random(len(ready)) - 0.5))
    return np.concatenate(found) if found else np.zeros(1)


@pytest.mark.parametrize("load", LOADS)
def test_open_loop(record, request, load):
    """The callers are as many as keep the pool busy for this share of its time; the peers serve as many."""
    case, quick = cases.POOLS[0], request.config.getoption("--quick")
    pool, handles = fastrnn_engine.pool(case, STREAMS)
    x, started, rounds = np.zeros((STREAMS, case.I), np.float32), time.perf_counter(), 1 if quick else 5
    for _ in range(rounds):
        pool.step(handles, x)
    rate = rounds * STREAMS / (time.perf_counter() - started)
    callers = STREAMS // 4
    period, seconds = callers / (load * rate), 0.2 if quick else 2
    engines = {
        "fastrnn": lambda ready, x: pool.step(handles[ready], x),
        **{name: Gathered(run, case, 64, STREAMS).step for name, run in peers(case).items()},
    }

    def measure():
        facts = {}
        for name, step in engines.items():
            found = 1e6 * waits(step, case, callers, period, seconds)
            facts[name] = {f"p{q}": float(np.percentile(found, q)) for q in (50, 99, 99.9)} | {"rate": len(found) / seconds}
        return {"load": load, "offered": callers / period, "callers": callers, "waits": facts}

    record(measure, f"{case.kind.upper()} I={case.I} H={case.H}, {callers} callers, {load:.0%} of the rate of the pool")
