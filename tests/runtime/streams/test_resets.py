"""Chunks in which rows start afresh, of streams and pools: the kernels do it where states are layers' alone, else the chunk is cut; the bits are those of
steps with resets between them."""

from dataclasses import replace

import numpy as np
import pytest

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.cells import gallery
from fastrnn.model import Model, Node, Value

T, B, I = 19, 5, 4
LAYERS = {
    "gru": lambda: fr.GRU(I, 7, num_layers=2, seed=0),
    "gru before": lambda: fr.GRU(I, 19, reset_after=False, seed=0),
    "lstm projected": lambda: fr.LSTM(I, 9, num_layers=2, proj_size=3, seed=0),
    "batch first": lambda: fr.LSTM(I, 16, batch_first=True, seed=0),
    "rnn": lambda: fr.RNN(I, 33, seed=0),
    "custom": lambda: fr.Recurrent(gallery.indrnn, I, 7, seed=0),
}


def convolved() -> Model:
    """A causal convolution, whose history is a state, before a GRU."""
    gru, random = fr.GRU(6, 7, seed=0).to_model(), np.random.default_rng(0)
    weights = {**gru.weights, "kernel": random.standard_normal((6, I, 3)).astype(np.float32)}
    nodes = (
        Node("Transpose", "by channel", ("seen",), ("channels",), {"perm": (1, 2, 0)}),
        Node("Conv", "conv", ("channels", "kernel"), ("mixed",), {"pads": (2, 0)}),
        Node("Transpose", "by time", ("mixed",), ("x",), {"perm": (2, 0, 1)}),
        *gru.nodes,
    )
    inputs = (Value("seen", "float32", ("T", "B", I)), *(v for v in gru.inputs if v.name != "x"))
    return replace(gru, inputs=inputs, nodes=nodes, weights=weights)


def networks():
    """(model, precision, whether the kernels do it)."""
    for name, make in LAYERS.items():
        yield pytest.param(make().to_model(), "float32", True, id=name)
    for precision in ("bfloat16", "int8"):
        yield pytest.param(fr.GRU(I, 32, seed=0).to_model(), precision, True, id=precision)
    net = tr.Sequential(tr.Linear(I, 6, seed=1), tr.LSTM(6, 8, seed=2), tr.GRU(8, 5, seed=3), tr.Linear(5, 3, seed=4))
    yield pytest.param(net.to_model(), "float32", True, id="heads")
    yield pytest.param(convolved(), "float32", False, id="history")


def drawn(seed: int):
    random = np.random.default_rng(seed)
    mask = random.random((T, B)) < 0.2
    mask[7], mask[0, 1], mask[-1, 2] = True, True, True
    return random.standard_normal((T, B, I)).astype(np.float32), mask


@pytest.mark.parametrize("model,precision,by_kernels", list(networks()))
def test_the_bits_of_steps(model, precision, by_kernels):
    session = fr.compile(model, precision=precision)
    stream, stepped, pool = session.stream(batch=B), session.stream(batch=B), session.pool(2 * B)
    handles = [pool.open() for _ in range(2 * B)][::2]
    assert (stream._form.keeping is not None) == by_kernels
    for seed in range(2):  # a second chunk goes on from the first
        x, mask = drawn(seed)
        x[3, 1] = np.nan  # and an episode with no number does not reach the next
        y = stream.push(x, resets=mask)
        for t in range(T):
            stepped.reset(np.flatnonzero(mask[t]))
            assert np.array_equal(stepped.step(x[t]), y[t], equal_nan=True), t
        assert np.array_equal(pool.push(handles, x, resets=mask), y, equal_nan=True)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(stream.state.values(), stepped.state.values()))
    lengths, (x, mask), before = np.array([0, T, 3, 8, 1]), drawn(2), [pool.state(handle) for handle in handles]
    ragged = pool.push(handles, x, lengths, resets=mask)
    for row, (handle, n) in enumerate(zip(handles, lengths)):
        alone = session.stream()
        alone.state = before[row]
        assert np.array_equal(alone.push(x[:n, row : row + 1], resets=mask[:n, row : row + 1])[:, 0], ragged[:n, row], equal_nan=True)
        assert not ragged[n:, row].any()
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(alone.state.values(), pool.state(handle).values()))


def test_other_lengths_and_batches_after_it():
    session = fr.compile(fr.GRU(I, 7, seed=0))
    for batch in (1, 3, 40):
        stream, random = session.stream(batch=batch), np.random.default_rng(batch)
        for steps in (1, 0, 30, 2):
            x, mask = random.standard_normal((steps, batch, I)).astype(np.float32), random.random((steps, batch)) < 0.5
            before = stream.state
            y = stream.push(x, resets=mask)
            stream.state = before
            assert np.array_equal(y, np.array([stream.reset(np.flatnonzero(m)) or stream.step(one) for one, m in zip(x, mask)]).reshape(y.shape))
            stream.state = before
            assert np.array_equal(stream.push(x, resets=np.zeros_like(mask)), (setattr(stream, "state", before), stream.push(x))[1])


def test_threads_share_the_rows():
    session = fr.compile(fr.LSTM(I, 24, seed=0), threads=2)
    pool, random = session.pool(300), np.random.default_rng(0)
    handles, x, mask = [pool.open() for _ in range(300)], random.standard_normal((6, 300, I)).astype(np.float32), random.random((6, 300)) < 0.3
    assert np.array_equal(pool.push(handles, x, resets=mask), session.stream(batch=300).push(x, resets=mask))
