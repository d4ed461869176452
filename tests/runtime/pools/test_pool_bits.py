"""Pool: each stream gives the bits that it gives alone, whatever is stepped beside it."""

import numpy as np
import pytest
from pooled import KINDS, Beside

import fastrnn as fr
from fastrnn.testing import CAUSAL as STYLES


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_a_pool_is_a_stream_alone(kind):
    beside = Beside(*KINDS[kind]())
    beside.open(70)
    for n in (1, 2, 3, 7, 33, 70):
        beside.step(n)
    for n, steps, ragged, resets in (
        (5, 4, False, False),
        (70, 3, True, False),
        (40, 6, True, True),
        (3, 9, False, True),
        (4, 0, False, False),
        (0, 3, False, False),
    ):
        beside.push(n, steps, ragged, resets)
        beside.step(min(n + 1, 9))
    beside.states_agree()


def test_tiles_that_two_threads_share():
    """Steps of some hundred microseconds, which a thread is woken for."""
    beside = Beside(fr.compile(fr.LSTM(40, 64, seed=1), threads=2), (40,), capacity=700)
    beside.open(700)
    for n in (700, 511, 130, 699):
        beside.step(n)
    beside.push(300, 3, True, True)
    beside.states_agree()


def test_steps_that_follow_one_another_share_threads_that_are_awake():
    """Steps of some ten microseconds, which no thread is woken for; of streams in the same order, and in another."""
    x, random = np.random.default_rng(0).standard_normal((99, 40)).astype(np.float32), np.random.default_rng(1)
    pools = [fr.compile(fr.LSTM(40, 64, seed=1), threads=threads).pool(300) for threads in (1, 2)]
    handles = [np.array([pool.open() for _ in range(300)]) for pool in pools]
    for draw in range(40):
        n = int(random.integers(30, 100))
        chosen = np.arange(n) if draw % 2 else random.permutation(300)[:n]
        named = [one[chosen] for one in handles]
        results = [[pool.step(who, x[:n]) for _ in range(30)] for pool, who in zip(pools, named, strict=True)]
        assert np.array_equal(*(np.array(one).view(np.uint32) for one in results))
    for one, other in zip(*(one.tolist() for one in handles), strict=True):
        first, second = pools[0].state(one), pools[1].state(other)
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_on_every_instruction_set(each_isa):
    for kind in ("lstm", "gru_before", "convolutions_" + STYLES[0]):
        beside = Beside(*KINDS[kind](), capacity=40)
        beside.open(40)
        for n in (1, 6, 40):
            beside.step(n)
        beside.push(17, 4, True, True)


def interleaved(kind, capacity, actions, seed=0):
    """Steps, chunks, opens, closes, resets, exports and restores in drawn order."""
    beside = Beside(*KINDS[kind](), capacity=capacity, seed=seed)
    random, closed = beside.random, []
    for _ in range(actions):
        what = random.choice(["step", "push", "open", "close", "reset", "move"], p=[0.6, 0.05, 0.15, 0.1, 0.05, 0.05])
        if what == "open" or not beside.alone:
            if len(beside.alone) < capacity:
                beside.open()
            else:
                with pytest.raises(fr.PoolFullError):
                    beside.pool.open()
        elif what == "step":
            beside.step(int(random.integers(1, len(beside.alone) + 1)))
        elif what == "push":
            beside.push(int(random.integers(1, len(beside.alone) + 1)), int(random.integers(1, 5)), True, bool(random.integers(2)))
        else:
            (handle,) = beside.some(1)
            handle = int(handle)
            if what == "close":
                beside.pool.close(handle)
                del beside.alone[handle]
                closed.append(handle)
            elif what == "reset":
                beside.pool.reset(handle)
                beside.alone[handle].reset()
            else:
                data, stream = beside.pool.export(handle), beside.alone.pop(handle)
                beside.pool.close(handle)
                closed.append(handle)
                beside.alone[beside.pool.restore(data)] = stream
        assert len(beside.pool) == len(beside.alone) and set(beside.pool) == set(beside.alone)
    for handle in closed:
        assert handle not in beside.pool
        with pytest.raises(fr.UnknownStreamError):
            beside.pool.step([handle], beside.draw(1))
    beside.states_agree()
    return len(closed)


@pytest.mark.parametrize("kind", ["lstm", "gru_after", "exposed"])
def test_opened_closed_reset_and_moved_in_any_order(kind):
    assert interleaved(kind, 40, 400) > 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_streams_in_any_order(seed):
    interleaved("lstm", 10_000, 40_000, seed)
