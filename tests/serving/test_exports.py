"""Steps that bring a state and give one, chunks, and callers that end or move without a step."""

import asyncio

import numpy as np
import pytest
from served import I, alone, frames, lstm, same

import fastrnn as fr
from fastrnn.serving import Batcher

T = 12


@pytest.fixture
def batcher(session):
    with Batcher(session, 8) as batcher:
        yield batcher


def test_a_step_gives_the_stream_that_another_starts_with(session):
    (xs,), ys, data, k = frames(1, T), [], None, 0
    for _ in range(3):  # each with a batcher of its own, as after a fault
        with Batcher(session, 8) as batcher:
            for n in range(4):
                y, data = batcher.submit("a", xs[k], start=n == 0, step=k, state=data if n == 0 else None, export=True).result(20)
                ys.append(y)
                k += 1
    assert same(ys, alone(session, xs))


def test_a_step_that_ends_gives_its_state_and_gives_it_again(session, batcher):
    (xs,) = frames(1, T)
    batcher.submit("a", xs[0], start=True, step=7).result(20)
    y, data = batcher.submit("a", xs[1], step=8, end=True, export=True).result(20)
    again, same_data = batcher.submit("a", xs[1], step=8, end=True, export=True).result(20)
    assert same([again], [y]) and data == same_data and "a" not in batcher
    assert same([batcher.submit("b", xs[2], start=True, state=data).result(20)], alone(session, xs[:3])[2:])


def test_a_retry_is_asked_as_the_request_was(batcher):
    (xs,) = frames(1, 2)
    batcher.submit("a", xs[0], start=True, step=1).result(20)
    with pytest.raises(fr.StateError, match="step 1 was asked for with end=False, export=False"):
        batcher.submit("a", xs[0], start=True, step=1, export=True)


@pytest.mark.parametrize("data", [b"", b"no stream", None], ids=["empty", "noise", "of another model"])
def test_a_state_that_is_none_is_its_callers_fault_alone(held, data):
    batcher, gate = held
    if data is None:
        with Batcher(fr.compile(fr.GRU(I, 3, seed=1)), 2) as other:
            _, data = other.submit("a", np.zeros(I, np.float32), start=True, export=True).result(20)
    (xs,) = frames(1, 2)
    futures = [batcher.submit(name, xs[0], start=True, state=data if name == "bad" else None) for name in ("a", "bad", "b")]
    gate.release()
    with pytest.raises(fr.StateError, match="exported stream"):
        futures[1].result(20)
    assert same([futures[0].result(20)], [futures[2].result(20)]) and "bad" not in batcher and len(batcher) == 3
    assert len(gate.pool) == 3 and same([batcher.submit("bad", xs[0], start=True).result(20)], [futures[0].result(20)])


def test_a_state_comes_with_a_start(batcher):
    batcher.submit("a", np.zeros(I, np.float32), start=True).result(20)
    data = batcher.export("a").result(20)
    with pytest.raises(fr.StateError, match="start=True"):
        batcher.submit("a", np.zeros(I, np.float32), state=data)


def test_chunks_are_as_many_steps(session):
    n, lengths = 6, (1, 3, 3, 0, 5)
    xs = frames(n, sum(lengths))

    async def caller(batcher, name):
        at, ys = 0, []
        for k, steps in enumerate(lengths):
            chunk = xs[name, at : at + steps]
            y = await batcher.push(name, chunk[:, None] if k % 2 else chunk, start=k == 0, step=k)
            assert y.shape == (steps, *((1,) if k % 2 else ()), 7)
            again = await batcher.push(name, chunk[:, None] if k % 2 else chunk, start=k == 0, step=k)
            assert same([again], [y])
            ys += list(y.reshape(steps, 7))
            at += steps
        return ys

    async def main():
        async with Batcher(session, 8) as batcher:
            found = await asyncio.gather(*(caller(batcher, name) for name in range(n)))
            assert batcher.metrics()["frames"] == n * sum(lengths) and batcher.metrics()["retries"] == n * len(lengths)
            return found

    for got, x in zip(asyncio.run(main()), xs):
        assert same(got, alone(session, x))


def test_chunks_of_several_inputs_and_shared_ones():
    model = fr.compile(fr.LSTM(I, 3, seed=1).to_model())
    (xs,) = frames(1, 4)

    async def main():
        async with Batcher(model, 2) as batcher:
            return await batcher.push("a", {"x": xs}, start=True)

    assert same(list(asyncio.run(main())), alone(model, xs))


@pytest.mark.parametrize(
    "chunk, match",
    [(np.zeros((3, I + 1), np.float32), "must have shape"), (np.float32(1), "time axis|steps|axis"), (np.zeros((2, 3, I), np.float32), "must have")],
)
def test_chunks_of_a_wrong_shape_are_refused(batcher, chunk, match):
    with pytest.raises(fr.ShapeError, match=match):
        asyncio.run(batcher.push("a", chunk, start=True))
    assert "a" not in batcher


def test_a_caller_ends_without_a_step(session, batcher):
    (xs,) = frames(1, 3)
    batcher.submit("a", xs[0], start=True).result(20)
    after = batcher.submit("a", xs[1])
    batcher.end("a").result(20)
    assert same([after.result(20)], alone(session, xs[:2])[1:]) and "a" not in batcher
    with pytest.raises(fr.UnknownStreamError):
        batcher.end("a")
    assert same([batcher.submit("a", xs[0], start=True).result(20)], alone(session, xs[:1]))


def test_a_caller_moves_with_its_state_number_and_last_answer(session, batcher):
    (xs,), other = frames(1, 4), Batcher(fr.compile(fr.LSTM(I, 7, num_layers=2, seed=2)), 2)
    with other, Batcher(lstm(), 2) as equal, Batcher(fr.compile(fr.LSTM(I, 3, seed=2)), 2) as smaller:
        batcher.submit("a", xs[0], start=True, step=4).result(20)
        y = batcher.submit("a", xs[1], step=5).result(20)
        left = batcher.leave("a").result(20)
        with pytest.raises(fr.StateError):
            smaller.enter("a", left).result(20)
        assert "a" not in batcher and "a" not in smaller
        equal.enter("a", left).result(20)
        assert same([equal.submit("a", xs[1], step=5).result(20)], [y])  # a retry of what was done before
        assert same([equal.submit("a", xs[2], step=6).result(20)], alone(session, xs[:3])[2:])
        with pytest.raises(fr.StateError, match="step 7 is next"):
            equal.submit("a", xs[2], step=9)
        other.enter("a", left).result(20)  # other weights, the same states
        stream = fr.compile(fr.LSTM(I, 7, num_layers=2, seed=2)).stream()
        state = session.stream()
        for x in xs[:2]:
            state.step(x[None])
        stream.state = state.state
        assert same([other.submit("a", xs[2], step=6).result(20)], [stream.step(xs[2][None])[0]])
