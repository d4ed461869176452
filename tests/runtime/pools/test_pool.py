"""Pool: what is refused moves no stream; memory, bytes that travel, one thread at a time."""

import copy
import pickle
import threading
import time

import numpy as np
import pytest
from pooled import KINDS, Beside

import fastrnn as fr
from fastrnn.model import Model, Node, State, Value
from fastrnn.runtime.pools import tiling
from fastrnn.testing import CAUSAL as STYLES


def test_what_is_refused_moves_no_stream():
    session, shape = KINDS["lstm"]()
    beside, other = Beside(session, shape, capacity=5), session.pool(5)
    a, b, c = beside.open(3)
    beside.step(3)
    stranger, gone, x = other.open(), beside.pool.open(), beside.draw(2)
    beside.pool.close(gone)
    for handles, error, message in (
        ([a, a], fr.ShapeError, "named twice"),
        ([a, gone], fr.UnknownStreamError, str(gone)),
        ([a, stranger], fr.UnknownStreamError, "another pool"),
        ([a, 0], fr.UnknownStreamError, "0"),
        ([a, -1], fr.UnknownStreamError, "-1"),
        ([a, 1 << 70], fr.UnknownStreamError, "handle"),
        ([a, True], TypeError, "bool"),
        ([a, "b"], TypeError, "str"),
        ([a, None], TypeError, "NoneType"),
        (np.array([a, a]), fr.ShapeError, "named twice"),
        (np.array([a, gone]), fr.UnknownStreamError, str(gone)),
        (np.array([[a, b]]), fr.ShapeError, "one dimension"),
        (np.array([a, b], np.float64), fr.ShapeError, "float64"),
        ([a] * 6, fr.ShapeError, "twice"),
        ([a], fr.ShapeError, r"\((1, )?1, 4\)"),
        ([a, b, c], fr.ShapeError, r"\((1, )?3, 4\)"),
    ):
        for call in (lambda: beside.pool.step(handles, x), lambda: beside.pool.push(handles, x[None])):
            with pytest.raises(error, match=message):
                call()
    for bad, error in (
        (x.astype(np.float64), fr.DTypeError),
        (x[:, :3], fr.ShapeError),
        (np.ma.masked_array(x), fr.DTypeError),
        ({"y": x}, fr.ShapeError),
        (None, fr.DTypeError),
    ):
        with pytest.raises(error):
            beside.pool.step([a, b], bad)
    y = np.empty((2, 6), np.float32)
    frozen = y.copy()
    frozen.flags.writeable = False
    for out, error in (
        (y[:1], fr.ShapeError),
        (y.astype(np.float64), fr.DTypeError),
        (frozen, fr.ShapeError),
        (np.empty((2, 12), np.float32)[:, ::2], fr.ShapeError),
        (3, fr.DTypeError),
    ):
        with pytest.raises(error):
            beside.pool.step([a, b], x, out=out)
    room = np.zeros(20, np.float32)
    with pytest.raises(fr.ShapeError, match="overlaps"):
        beside.pool.step([a, b], room[:8].reshape(2, 4), out=room[4:16].reshape(2, 6))
    for lengths, error in (([1], fr.ShapeError), ([1, 4], fr.ShapeError), ([-1, 0], fr.ShapeError), ([0.5, 1], fr.ShapeError)):
        with pytest.raises(error, match="lengths"):
            beside.pool.push([a, b], beside.draw(3, 2), lengths)
    for mask, error in ((np.zeros((3, 1), bool), fr.ShapeError), (np.zeros((3, 2)), fr.DTypeError)):
        with pytest.raises(error, match="resets"):
            beside.pool.push([a, b], beside.draw(3, 2), resets=mask)
    for call in (
        lambda: beside.pool.close(gone),
        lambda: beside.pool.reset([a, gone]),
        lambda: beside.pool.state(stranger),
        lambda: beside.pool.export(gone),
    ):
        with pytest.raises(fr.UnknownStreamError):
            call()
    beside.states_agree()
    beside.step(3)


def test_outputs_are_written_in_place():
    beside = Beside(*KINDS["gru_after"]())
    handles = beside.open(40)
    y, x = np.empty((40, 6), np.float32), beside.draw(40)
    assert beside.pool.step(handles, x, out=y) is y
    assert y.tobytes() == np.concatenate([beside.alone[h].step(x[r : r + 1]) for r, h in enumerate(handles)]).tobytes()
    y, x = np.empty((5, 40, 6), np.float32), beside.draw(5, 40)
    assert beside.pool.push(handles, x, out=y) is y
    assert y.tobytes() == np.concatenate([beside.alone[h].push(x[:, r : r + 1]) for r, h in enumerate(handles)], 1).tobytes()


def test_strided_rows_are_read():
    beside = Beside(*KINDS["lstm"]())
    handles, wide = beside.open(40), beside.draw(80)
    y = beside.pool.step(np.array(handles * 2)[:40], wide[::2])
    assert y.tobytes() == np.concatenate([beside.alone[h].step(wide[2 * r : 2 * r + 1]) for r, h in enumerate(handles)]).tobytes()


def test_a_nan_stays_with_its_stream_and_leaves_no_trace():
    beside = Beside(*KINDS["lstm_projected"](), capacity=64)
    handles, x = beside.open(64), beside.draw(64)
    sick = handles[::2]
    x[::2] = np.random.default_rng(1).choice(np.float32([np.nan, np.inf, -np.inf]), x[::2].shape)
    y = beside.pool.step(handles, x)
    assert np.isnan(y[::2]).any()
    for row, handle in enumerate(handles):
        assert beside.alone[handle].step(x[row : row + 1]).tobytes() == y[row : row + 1].tobytes()
    for handle in sick:
        beside.pool.close(handle)
        del beside.alone[handle]
    beside.open(32)
    beside.step(64)
    assert all(np.isfinite(s).all() for h in beside.alone for s in beside.pool.state(h).values())


def test_one_thread_at_a_time_or_in_turn():
    session = fr.compile(fr.LSTM(64, 256, seed=0))
    for lock in (False, True):
        pool = session.pool(256, lock=lock)
        handles, x, errors = np.array([pool.open() for _ in range(256)]), np.zeros((256, 64), np.float32), []

        def work():
            try:
                for _ in range(20):
                    pool.step(handles, x)
            except fr.BusyError as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        deadline = time.monotonic() + 20
        while not lock and not errors and time.monotonic() < deadline:
            try:
                pool.step(handles, x)
            except fr.BusyError as error:
                errors.append(error)
        for t in threads:
            t.join()
        assert bool(errors) != lock
        assert lock is False or pool.steps(int(handles[0])) == 80


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, None, "4", 1 << 25])
def test_bad_capacity(capacity):
    with pytest.raises(fr.ShapeError, match="capacity"):
        KINDS["lstm"]()[0].pool(capacity)


def test_a_fixed_batch_of_several_is_refused():
    weights = {"w": np.full((1, 3, 4), 0.1, np.float32), "r": np.full((1, 3, 3), 0.2, np.float32)}
    model = Model((Value("x", "float32", ("T", 2, 4)),), ("y",), (Node("RNN", "rnn", ("x", "w", "r"), ("y",), {"torch_form": 1}),), weights)
    with pytest.raises(fr.NotStreamableError, match="fixed at 2"):
        fr.compile(model).pool(4)
    with pytest.raises(fr.NotStreamableError):
        fr.compile(fr.LSTM(3, 4, bidirectional=True)).pool(4)


def test_a_stream_travels_as_bytes():
    session, shape = KINDS["lstm"]()
    beside = Beside(session, shape)
    a, b = beside.open(2)
    beside.step(2)
    data = beside.pool.export(a)
    there = fr.compile(fr.LSTM(4, 6, seed=1), backend="jit").pool(3)  # the same model, elsewhere
    moved, x = there.restore(data), beside.draw(1)
    assert there.steps(moved) == beside.pool.steps(a) == 1
    assert there.step([moved], x).tobytes() == beside.alone[a].step(x).tobytes()
    other = fr.compile(fr.LSTM(4, 6, seed=2)).pool(3)
    with pytest.raises(fr.StateError, match="another model"):
        other.restore(data)
    for k in range(len(data)):
        damaged = bytearray(data)
        damaged[k] ^= 1
        for bad in (bytes(damaged), data[:k]):
            with pytest.raises(fr.StateError):
                there.restore(bad)
    for bad in (b"", None, "text", data + b"x"):
        with pytest.raises(fr.StateError):
            there.restore(bad)
    assert len(there) == 1
    there.open(), there.open()
    with pytest.raises(fr.PoolFullError):
        there.restore(data)


def test_states_are_set_and_handed_over():
    session, shape = KINDS["lstm"]()
    beside, x = Beside(session, shape), np.ones((1, 4), np.float32)
    a, b = beside.open(2)
    beside.step(2)
    stream = session.stream()
    stream.state = beside.pool.state(a)
    beside.pool.set_state(b, stream.state)
    assert beside.pool.step([b], x).tobytes() == stream.step(x).tobytes() == beside.pool.step([a], x).tobytes()
    before = beside.pool.state(b)
    for bad in ({}, {**before, "more": 1}, {name: s[..., :2] for name, s in before.items()}, 3):
        with pytest.raises(fr.StateError):
            beside.pool.set_state(b, bad)
    assert all(np.array_equal(before[n], s) for n, s in beside.pool.state(b).items())


def test_pools_stay_in_their_process():
    pool = KINDS["lstm"]()[0].pool(4)
    for call in (lambda: pickle.dumps(pool), lambda: copy.deepcopy(pool)):
        with pytest.raises(TypeError, match="export"):
            call()
    assert "0 of 4 streams open" in repr(pool)


def test_memory_of_many_streams():
    session = fr.compile(fr.LSTM(40, 64))
    pool = session.pool(100_000)
    states = sum(s.nbytes for s in session.stream().state.values())
    assert 100_000 * states <= pool.nbytes <= 1.1 * 100_000 * states


def test_context_is_kept(monkeypatch):
    """Frames of 6 entries, 2 of them from the frame before."""
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((6, 4)).astype(np.float32)}
    nodes = (
        Node("MatMul", "m", ("x", "w"), ("m",)),
        Node("Add", "s", ("m", "a"), ("s",)),
        Node("Tanh", "y", ("s",), ("y",)),
        Node("Identity", "n", ("y",), ("a_next",)),
    )
    model = Model((Value("x", "float32", ("B", 6)), Value("a", "float32", ("B", 4))), ("y", "a_next"), nodes, weights, (State("a", "a_next"),))
    session, frames = fr.compile(model), random.standard_normal((7, 5, 4)).astype(np.float32)
    whole, kept, pool = session.stream(5), session.stream(5, context={"x": 2}), session.pool(8, context={"x": 2})
    handles, before, expected = [pool.open() for _ in range(5)], np.zeros((5, 2), np.float32), []
    for frame in frames:
        expected.append(whole.step(np.concatenate([before, frame], 1)))
        before = frame[:, -2:]
        assert kept.step(frame).tobytes() == pool.step(handles, frame).tobytes() == expected[-1].tobytes()
    kept.reset()
    assert kept.push(frames).tobytes() == np.stack(expected).tobytes()
    assert set(kept.state) == {"a", "x.context"} and kept.state["x.context"].shape == (5, 2)
    for context, error, message in (
        ({"x": 6}, fr.ShapeError, "none for new"),
        ({"x": 0}, fr.ShapeError, "1 entry"),
        ({"a": 1}, fr.ShapeError, "no input of a step"),
        ({"q": 1}, fr.ShapeError, "'x'"),
        (3, fr.ShapeError, "dict"),
    ):
        with pytest.raises(error, match=message):
            session.stream(context=context)
    with pytest.raises(fr.NotStreamableError, match="time axis"):
        fr.compile(fr.LSTM(3, 4)).pool(2, context={"x": 1})


@pytest.mark.parametrize("kind", ["lstm", "gru_before", "exposed", "convolutions_" + STYLES[0]])
def test_resets_of_a_stream(kind):
    session, shape = KINDS[kind]()
    random = np.random.default_rng(0)
    x, mask = random.standard_normal((12, 3, *shape)).astype(np.float32), random.random((12, 3)) < 0.3
    mask[0, 1] = True
    stream, alone, start = session.stream(3), [session.stream() for _ in range(3)], random.standard_normal((2, 3, *shape)).astype(np.float32)
    stream.push(start)
    y = stream.push(x, resets=mask)
    for row, single in enumerate(alone):
        single.push(start[:, row : row + 1])
        for t in range(12):
            if mask[t, row]:
                single.reset()
            assert single.step(x[t, row : row + 1]).tobytes() == y[t, row : row + 1].tobytes()
    out = np.empty_like(y)
    stream.reset()
    stream.push(start)
    assert stream.push(x, resets=mask, out=out) is out and np.array_equal(out, y)
    before = stream.state
    for bad, error in ((mask[:, :2], fr.ShapeError), (mask.astype(int), fr.DTypeError), (mask[:3], fr.ShapeError)):
        with pytest.raises(error, match="resets"):
            stream.push(x, resets=bad)
    with pytest.raises(fr.ShapeError, match="12, 3"):
        stream.push(x, resets=mask, out=np.empty((13, *y.shape[1:]), np.float32))
    assert all(np.array_equal(before[n], s) for n, s in stream.state.items())
    assert stream.push(x[:0], resets=mask[:0]).shape == (0, *y.shape[1:])


def test_tiles_are_small_enough_to_stay_in_cache():
    """And large enough to read weights once that do not."""
    assert fr.compile(fr.LSTM(40, 64)).pool(4)._tiles.most == tiling.NEAR_ROWS
    assert fr.compile(fr.LSTM(64, 1024)).pool(4)._tiles.most == tiling.FAR_ROWS
