"""Plain NumPy, as one would write it with care: the input projection of all steps in one product, the gates in one array, buffers reused."""

import numpy as np

NAME = "numpy"


def sigmoid(a, out):
    """In place of a temporary."""
    np.negative(a, out)
    np.exp(out, out)
    out += 1
    return np.reciprocal(out, out)


def lstm(H, over_x, over_h, h, c):
    """Pre-activations (n, 4H), gates i f g o."""
    over_x = over_x + over_h
    sigmoid(over_x[:, : 2 * H], over_x[:, : 2 * H])
    g = np.tanh(over_x[:, 2 * H : 3 * H])
    c = over_x[:, H : 2 * H] * c + over_x[:, :H] * g
    return sigmoid(over_x[:, 3 * H :], over_x[:, 3 * H :]) * np.tanh(c), c


def gru(H, over_x, over_h, h):
    """Gates r z n; the reset gate comes after the matrix, as in torch."""
    rz = over_x[:, : 2 * H] + over_h[:, : 2 * H]
    sigmoid(rz, rz)
    n = np.tanh(over_x[:, 2 * H :] + rz[:, :H] * over_h[:, 2 * H :])
    return (n + rz[:, H:] * (h - n),)


def rnn(H, over_x, over_h, h):
    """tanh."""
    return (np.tanh(over_x + over_h),)


CELLS = {"lstm": lstm, "gru": gru, "rnn": rnn}


def prepare(case):
    """See contenders. Ragged rows are sorted, longest first, so that those still running are a prefix."""
    cell, H = CELLS[case.kind], case.H
    w_x, w_h = (np.ascontiguousarray(case.parameters[f"weight_{name}_l0"].T) for name in ("ih", "hh"))
    b_x, b_h = (case.parameters[f"bias_{name}_l0"] for name in ("ih", "hh"))
    order = None if case.lengths is None else np.argsort(-case.lengths, kind="stable")
    active = np.full(case.T, case.B) if order is None else (case.lengths[None] > np.arange(case.T)[:, None]).sum(1)
    carried = tuple(np.zeros((case.B, H), np.float32) for _ in case.states)

    def call(states):
        x = case.x if order is None else case.x[:, order]
        over_x = (x.reshape(-1, case.I) @ w_x + b_x).reshape(case.T, case.B, -1)
        y = np.zeros((case.T, case.B, H), np.float32)
        for t, n in enumerate(active):
            states = cell(H, over_x[t, :n], states[0][:n] @ w_h + b_h, *(s[:n] for s in states))
            y[t, :n] = states[0]
        if order is not None:
            y[:, order] = y.copy()
        return y, states

    def run():
        nonlocal carried
        states = call(carried)[1]
        if case.carried:
            carried = states

    return run, lambda: call(tuple(np.zeros((case.B, H), np.float32) for _ in case.states))[0]
