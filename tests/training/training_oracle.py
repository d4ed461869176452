"""Networks of torch beside ours: recurrent layers step by step from their equations, so that autograd differentiates every option."""

import numpy as np
import torch

# Largest difference over largest entry, gradients and outputs alike.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def tensors(arrays, grad=True):
    return {name: torch.tensor(array, requires_grad=grad) for name, array in arrays.items()}


def differs(ours, theirs) -> float:
    """Relative to the largest entry."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30)) if ours.size else 0.0


def rnn_step(o, w, s, x, h):
    a = x @ w[f"weight_ih_{s}"].T + w.get(f"bias_ih_{s}", 0) + h[0] @ w[f"weight_hh_{s}"].T + w.get(f"bias_hh_{s}", 0)
    return (torch.relu(a) if o.get("nonlinearity") == "relu" else torch.tanh(a),)


def gru_step(o, w, s, x, h):
    h, H = h[0], w[f"weight_hh_{s}"].shape[1]
    a = x @ w[f"weight_ih_{s}"].T + w.get(f"bias_ih_{s}", torch.zeros(3 * H, dtype=x.dtype))
    R, b = w[f"weight_hh_{s}"], w.get(f"bias_hh_{s}", torch.zeros(3 * H, dtype=x.dtype))
    r = torch.sigmoid(a[:, :H] + h @ R[:H].T + b[:H])
    z = torch.sigmoid(a[:, H:2 * H] + h @ R[H:2 * H].T + b[H:2 * H])
    if o.get("reset_after", True):
        n = torch.tanh(a[:, 2 * H:] + r * (h @ R[2 * H:].T + b[2 * H:]))
    else:
        n = torch.tanh(a[:, 2 * H:] + (r * h) @ R[2 * H:].T + b[2 * H:])
    return ((1 - z) * n + z * h,)


def lstm_step(o, w, s, x, state):
    h, c = state
    a = x @ w[f"weight_ih_{s}"].T + w.get(f"bias_ih_{s}", 0) + h @ w[f"weight_hh_{s}"].T + w.get(f"bias_hh_{s}", 0)
    i, f, g, q = a.chunk(4, 1)
    if o.get("peepholes"):
        i, f = i + w[f"weight_pi_{s}"] * c, f + w[f"weight_pf_{s}"] * c
    i = torch.sigmoid(i)
    f = 1 - i if o.get("input_forget") else torch.sigmoid(f)
    c = f * c + i * torch.tanh(g)
    if o.get("peepholes"):
        q = q + w[f"weight_po_{s}"] * c
    h = torch.sigmoid(q) * torch.tanh(c)
    return h @ w[f"weight_hr_{s}"].T if f"weight_hr_{s}" in w else h, c


STEPS = {"rnn": rnn_step, "gru": gru_step, "lstm": lstm_step}


def direction(kind, o, w, suffix, x, lengths, state, backward):
    """One layer in one direction: y (T, B, P), zero past the ends, and the final states."""
    T, rows = x.shape[0], [None] * x.shape[0]
    for t in reversed(range(T)) if backward else range(T):
        inside = (t < lengths)[:, None]
        stepped = STEPS[kind](o, w, suffix, x[t], state)
        state = tuple(torch.where(inside, new, old) for new, old in zip(stepped, state))
        rows[t] = torch.where(inside, stepped[0], 0)
    return torch.stack(rows), state


def recurrent(kind, o, w, x, lengths, states=None):
    """A stack as torch.nn runs it; o: the options, w: parameters by torch's names. Returns y and the final states, each (layers * directions, B, n)."""
    D, finals = 2 if o.get("bidirectional") else 1, []
    B, H = x.shape[1], w["weight_hh_l0"].shape[0] // {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    sizes = (w["weight_hh_l0"].shape[1], H)[:2 if kind == "lstm" else 1]
    for layer in range(o.get("num_layers", 1)):
        sides = []
        for d, suffix in enumerate((f"l{layer}", f"l{layer}_reverse")[:D]):
            k = layer * D + d
            state = tuple(torch.zeros(B, n, dtype=x.dtype) for n in sizes) if states is None else tuple(s[k] for s in states)
            y, final = direction(kind, o, w, suffix, x, lengths, state, backward=bool(d) or o.get("reverse", False))
            sides.append(y)
            finals.append(final)
        x = torch.cat(sides, 2)
    return x, tuple(torch.stack(s) for s in zip(*finals))
