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
    z = torch.sigmoid(a[:, H : 2 * H] + h @ R[H : 2 * H].T + b[H : 2 * H])
    if o.get("reset_after", True):
        n = torch.tanh(a[:, 2 * H :] + r * (h @ R[2 * H :].T + b[2 * H :]))
    else:
        n = torch.tanh(a[:, 2 * H :] + (r * h) @ R[2 * H :].T + b[2 * H :])
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


DO = {"add": torch.add, "subtract": torch.sub, "multiply": torch.mul, "divide": torch.div, "negative": torch.neg, "less": torch.lt, "less_equal": torch.le,
      "equal": torch.eq, "not_equal": torch.ne, "logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_not": torch.logical_not, "abs": torch.abs,
      "where": torch.where, "sqrt": torch.sqrt, "relu": torch.relu, "minimum": torch.minimum, "maximum": torch.maximum, "exp": torch.exp, "tanh": torch.tanh,
      "sigmoid": torch.sigmoid, "log1p_unit": torch.log1p}  # fmt: skip


def any_step(o, w, suffix, x, state):
    """One step of any cell, from its declaration and its instructions; x (B, I + scalars)."""
    cell, H, dtype = o["cell"], state[-1].shape[1] if len(state) > 1 else o["H"], x.dtype
    parts = {
        f"{side}.{name}": part
        for side, kind, names in (("x", "ih", cell.x_gates), ("h", "hh", cell.h_gates))
        for name, part in zip(names, w[f"weight_{kind}_{suffix}"].split(H) if names else ())
    }
    biases = dict.fromkeys((g.name for g in cell.gates), torch.zeros(H, dtype=dtype))
    for side, kind in (("x", "ih"), ("h", "hh")):
        if f"bias_{kind}_{suffix}" in w:
            for name, part in zip(cell.biased(side), w[f"bias_{kind}_{suffix}"].split(H)):
                biases[name] = biases[name] + part
    features = x[:, : x.shape[1] - len(cell.scalars)]
    values = dict(zip(cell.states, state)) | {name: w[f"weight_{name}_{suffix}"] for name in cell.parameters} | {"x": features}
    values |= {name: x[:, features.shape[1] + k, None] for k, name in enumerate(cell.scalars)}

    def perform(operation, *operands):
        if operation == "constant":
            return torch.tensor(np.array(operands[0], f"u{dtype.itemsize}").view(o["dtype"])[()])
        return DO[operation](*operands)

    def gate(name, h):
        total = biases[name] + (features @ parts[f"x.{name}"].T if f"x.{name}" in parts else 0)
        return total + (h @ parts[f"h.{name}"].T if f"h.{name}" in parts else 0)

    def replay(program):
        found = program.replay({name: values.get(name, torch.zeros(1, dtype=dtype)) for name in program.inputs}, perform)
        return [f.expand(len(x), H) if f.shape[-1] == H else f for f in found]

    pointwise, operand = cell.programs(o["dtype"])
    values |= {g.name: gate(g.name, state[0]) for g in cell.gates if not g.second}
    if operand:
        (given,) = replay(operand)
        values |= {name: gate(name, given) for name in cell.second_gates}
    new = replay(pointwise)
    if f"weight_hr_{suffix}" in w:
        new[0] = new[0] @ w[f"weight_hr_{suffix}"].T
    return tuple(new)


STEPS = {"rnn": rnn_step, "gru": gru_step, "lstm": lstm_step, "recurrent": any_step}


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
    sizes = (w["weight_hh_l0"].shape[1], H)[: 2 if kind == "lstm" else 1]
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
