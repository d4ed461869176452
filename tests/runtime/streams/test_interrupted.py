"""Ctrl-C while a long chunk is computed: states are those before it, or those behind it, as push says, and the stream goes on."""

import signal
import threading

import numpy as np
import pytest

import fastrnn as fr


def timed():
    """A layer with a time axis: a chunk is one call."""
    return fr.LSTM(64, 64, num_layers=2, seed=0).to_model(), np.random.default_rng(0).standard_normal((60_000, 1, 64)).astype(np.float32), "moved"


def called():
    """A model that exposes its states: a chunk is a call a step."""
    torch = pytest.importorskip("torch")

    class Frame(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = torch.nn.GRUCell(64, 64)

        def forward(self, x, h):
            h = self.cell(x, h)
            return h * 2, h

    torch.manual_seed(0)
    model = fr.from_torch(Frame().eval(), (torch.randn(1, 64), torch.randn(1, 64)))
    return model, np.random.default_rng(0).standard_normal((300_000, 1, 64)).astype(np.float32), "kept"


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
@pytest.mark.parametrize("make", [timed, called], ids=lambda f: f.__name__)
def test_states_are_those_before_or_behind(make):
    model, x, states = make()
    session = fr.compile(model, states=None if model.states else {model.inputs[1].name: model.outputs[1].name})
    stream, whole = session.stream(batch=1), session.stream(batch=1)
    stream.push(x[:7])
    whole.push(x[:7])
    before = stream.state
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            stream.push(x)
    finally:
        signal.signal(signal.SIGINT, former)
    whole.push(x)
    wanted = before if states == "kept" else whole.state
    assert all(np.array_equal(stream.state[name], wanted[name]) for name in wanted)
    again = session.stream(batch=1)
    again.state = wanted
    assert np.array_equal(stream.push(x[:5]), again.push(x[:5]))
