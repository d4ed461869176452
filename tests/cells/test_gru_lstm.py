"""When a GRU (reset before the matrix) and an LSTM compute the same recurrence, and the one difference that remains.

An LSTM with a coupled gate and the identity as output activation, i = 1 - z and f = z in torch's reading of z, keeps in c what a GRU
keeps in h: c' = z c + (1 - z) n. Its output gate stands for the reset gate, o = r. What remains is where the gate stands. The GRU's r
multiplies h as the candidate's matrix reads it; r and z read h itself. The LSTM's o multiplies c as it leaves the cell, a step
earlier, and every gate's matrix reads that product.
"""

import numpy as np
import pytest

import fastrnn as fr

I, H, T, B = 5, 7, 12, 3
OPEN = 40.0  # sigmoid(40) is 1 in float32
IDENTITY = ("affine", {"alpha": 1.0, "beta": 0.0})


def weights(seed=0):
    """W (H, I), R (H, H) and b (H,) of a GRU's gates, by gate."""
    random = np.random.default_rng(seed)
    return {g: (random.standard_normal((H, I)) / 2, random.standard_normal((H, H)) / 2, random.standard_normal(H) / 2) for g in "rzn"}


def stacked(order, gates):
    """A state dict of float32 weights, gates in `order`."""
    parts = [np.concatenate([gates[g][k] for g in order]).astype(np.float32) for k in range(3)]
    return {"weight_ih_l0": parts[0], "weight_hh_l0": parts[1], "bias_ih_l0": parts[2], "bias_hh_l0": np.zeros_like(parts[2])}


def gru_of(gates):
    layer = fr.GRU(gates["n"][0].shape[1], H, reset_after=False)
    layer.load_state_dict(stacked("rzn", gates))
    return layer


def lstm_of(gates):
    """The LSTM with i = 1 - z, f = 1 - i, g = n, o = r."""
    forgotten = tuple(np.zeros_like(part) for part in gates["z"])  # a coupled gate has no weights of its own
    layer = fr.LSTM(gates["n"][0].shape[1], H, input_forget=True, activations=("sigmoid", "tanh", IDENTITY))
    layer.load_state_dict(stacked("ifgo", {"i": tuple(-part for part in gates["z"]), "f": forgotten, "g": gates["n"], "o": gates["r"]}))
    return layer


def inputs(seed=1, width=I):
    random = np.random.default_rng(seed)
    return random.standard_normal((T, B, width)).astype(np.float32), random.uniform(-1, 1, (1, B, H)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_with_the_gate_open_they_are_one_recurrence():
    """r = o = 1: the exposed state is the state, at every step, from any initial state."""
    gates = weights()
    gates["r"] = tuple(np.zeros_like(part) for part in gates["r"][:2]) + (np.full(H, OPEN),)
    x, h0 = inputs()
    y, h = gru_of(gates)(x, h0)
    exposed, (last, c) = lstm_of(gates)(x, (h0, h0))
    close(exposed, y)
    close(c, h)
    close(last, h)


def test_with_gates_of_x_alone_the_output_gate_is_the_reset_gate_a_step_early():
    """R_r = R_z = 0, and o shown the next x: c is the GRU's h, and the LSTM puts out r h as the GRU's candidate reads it one step later."""
    gates = {g: (W, R if g == "n" else np.zeros_like(R), b) for g, (W, R, b) in weights(2).items()}
    x, h0 = inputs(3)
    following = np.concatenate([x[1:], np.zeros_like(x[:1])])
    both = np.concatenate([x, following], -1)
    wide = {g: (np.concatenate([np.zeros_like(W), W] if g == "r" else [W, np.zeros_like(W)], 1), R, b) for g, (W, R, b) in gates.items()}
    W, _, b = gates["r"]
    r = sigmoid(x @ W.T + b)
    y, h = gru_of(gates)(x, h0)
    exposed, (_, c) = lstm_of(wide)(both, ((r[0] * h0[0])[None].astype(np.float32), h0))
    close(c, h)
    close(exposed[:-1], r[1:] * y[:-1])


@pytest.mark.parametrize("seed", range(3))
def test_what_remains_is_what_the_gates_read(seed):
    """Any weights: their outputs part, yet each step is the same once z is shown h itself and the candidate r h."""
    gates, (x, h0) = weights(seed), inputs(seed)
    (Wr, Rr, br), (Wz, Rz, bz), (Wn, Rn, bn) = gates["r"], gates["z"], gates["n"]
    y, _ = gru_of(gates)(x, h0)
    _, (_, c) = lstm_of(gates)(x, (h0, h0))
    assert np.abs(c[0] - y[-1]).max() > 0.01
    nothing = np.zeros((H, H))
    shown = lstm_of(
        {"r": (np.zeros((H, I + H)), nothing, br), "z": (np.concatenate([Wz, Rz], 1), nothing, bz), "n": (np.concatenate([Wn, nothing], 1), Rn, bn)}
    )
    before = np.concatenate([h0, y[:-1]])
    r = sigmoid(x @ Wr.T + before @ Rr.T + br)
    for t in range(T):
        _, (_, c) = shown(np.concatenate([x[t], before[t]], -1)[None], ((r[t] * before[t])[None].astype(np.float32), before[t][None]))
        close(c[0], y[t])
