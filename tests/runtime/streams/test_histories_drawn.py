"""Networks drawn by hypothesis, of all that looks back along time: they stream with the bits of the whole sequence."""

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastrnn as fr
from fastrnn.testing import CAUSAL as STYLES
from fastrnn.testing import Net

T, B = 19, 3


def sequence(channels, batch=B, seed=1, steps=T):
    return np.random.default_rng(seed).standard_normal((batch, channels, steps)).astype(np.float32)


def batch_norm(net, x):
    """By stored statistics."""
    mean, var = net.draw(net.channels), net.weight(net.random.uniform(0.5, 2, net.channels).astype(np.float32))
    return net.add("BatchNormalization", x, net.draw(net.channels), net.draw(net.channels), mean, var)


def layer_norm(net, x):
    """Over the channels of each step."""
    normal = net.add("LayerNormalization", net.add("Transpose", x, perm=(0, 2, 1)), net.draw(net.channels), net.draw(net.channels), epsilon=1e-2)
    return net.add("Transpose", normal, perm=(0, 2, 1))


@st.composite
def networks(draw):
    """Stacks of what can be stepped, skip connections among them."""
    net = Net(draw(st.integers(1, 5)), draw(st.integers(0, 99)))
    x, earlier = "x", {}
    for _ in range(draw(st.integers(1, 6))):
        earlier.setdefault(net.channels, []).append(x)
        kind = draw(st.sampled_from(("conv", "conv", "conv", "recurrent", "delay", "function", "skip", "gate", "pad", "norm")))
        if kind == "conv":
            group = net.channels if draw(st.booleans()) else 1
            units = net.channels if group > 1 else draw(st.integers(1, 6))
            x = net.causal(x, draw(st.sampled_from(STYLES)), draw(st.integers(1, 4)), draw(st.integers(1, 3)), units=units, group=group)
        elif kind == "recurrent":
            x = net.recurrent(x, draw(st.sampled_from(("RNN", "GRU", "LSTM"))), draw(st.integers(1, 5)))
        elif kind == "delay":
            x = net.delay(x, draw(st.integers(1, 4)))
        elif kind == "function":
            x = net.add(draw(st.sampled_from(("Relu", "Tanh", "Sigmoid", "Softsign"))), x)
        elif kind == "pad":  # two pads in front, one after the other, and a function between
            first, second = draw(st.integers(0, 2)), draw(st.integers(0, 2))
            y = net.add("Tanh", net.pad(x, first, mode=draw(st.sampled_from(("edge", "constant")))))
            x = net.cut(net.pad(y, second, mode=draw(st.sampled_from(("edge", "constant"))), value=0.5), 0, -first - second or 2**31)
        elif kind == "norm":
            x = draw(st.sampled_from((batch_norm, layer_norm)))(net, x)
        elif kind == "gate":
            x = net.add("Mul", net.add("Sigmoid", x), net.delay(x, 1))
        else:
            x = net.add("Add", x, draw(st.sampled_from(earlier[net.channels])))
    return net.model(x)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.lists(st.integers(0, T), max_size=4), st.integers(0, 9))
def test_drawn_networks_stream_with_the_bits_of_the_whole(model, cuts, seed):
    x = sequence(model.inputs[0].shape[1], seed=seed)
    session, rows = fr.compile(model), np.ascontiguousarray(np.moveaxis(x, 2, 0))
    want, stream = np.moveaxis(session(x), 2, 0), session.stream(B)
    assume(stream.time)  # without a look back a step is a call
    assert np.array_equal(np.concatenate([stream.push(np.ascontiguousarray(part)) for part in np.split(rows, sorted(cuts))]), want)
    stream.reset()
    assert np.array_equal(np.stack([stream.step(row) for row in rows]), want)
