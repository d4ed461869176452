"""Each cell of the gallery against a plain PyTorch loop written from its paper, in float64, and streamed, saved and stacked."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cells import gallery
from fastrnn.model.stack import stack_model
from fastrnn.testing import JIT_ISAS, TOLERANCES

torch = pytest.importorskip("torch")
T, B, I, H = 23, 4, 19, 19


def matrices(state, names_x, names_h):
    """W and R by gate, from a state dict."""
    w = dict(zip(names_x, state["weight_ih_l0"].chunk(len(names_x)))) if names_x else {}
    r = dict(zip(names_h, state["weight_hh_l0"].chunk(len(names_h)))) if names_h else {}
    return w, r


def biases(state, names_x, names_h):
    """By gate, those of both sides added."""
    b = dict.fromkeys((*names_x, *names_h), 0.0)
    for side, names in (("ih", names_x), ("hh", names_h)):
        if f"bias_{side}_l0" in state:
            for name, part in zip(names, state[f"bias_{side}_l0"].chunk(len(names))):
                b[name] = b[name] + part
    return b


def mgu(s, x, h):
    w, r = matrices(s, "fn", "fn")
    b = biases(s, "fn", "fn")
    f = torch.sigmoid(x @ w["f"].T + h[0] @ r["f"].T + b["f"])
    n = torch.tanh(x @ w["n"].T + (f * h[0]) @ r["n"].T + b["n"])
    return ((1 - f) * h[0] + f * n,)


def ligru(s, x, h):
    w, r = matrices(s, "zn", "zn")
    b = biases(s, "zn", "zn")
    z = torch.sigmoid(x @ w["z"].T + h[0] @ r["z"].T + b["z"])
    return (z * h[0] + (1 - z) * torch.relu(x @ w["n"].T + h[0] @ r["n"].T + b["n"]),)


def janet(s, x, h):
    w, r = matrices(s, "fn", "fn")
    b = biases(s, "fn", "fn")
    a = x @ w["f"].T + h[0] @ r["f"].T + b["f"]
    n = torch.tanh(x @ w["n"].T + h[0] @ r["n"].T + b["n"])
    return (torch.sigmoid(a) * h[0] + (1 - torch.sigmoid(a - 1)) * n,)


def ugrnn(s, x, h):
    w, r = matrices(s, "gn", "gn")
    b = biases(s, "gn", "gn")
    g = torch.sigmoid(x @ w["g"].T + h[0] @ r["g"].T + b["g"])
    return (g * h[0] + (1 - g) * torch.tanh(x @ w["n"].T + h[0] @ r["n"].T + b["n"]),)


def indrnn(s, x, h):
    return (torch.relu(x @ s["weight_ih_l0"].T + s["bias_ih_l0"] + s["weight_u_l0"] * h[0]),)


def sru(s, x, h):
    w, _ = matrices(s, "nfr", "")
    b_f, b_r = s["bias_ih_l0"].chunk(2)  # the candidate has none
    f = torch.sigmoid(x @ w["f"].T + s["weight_vf_l0"] * h[1] + b_f)
    r = torch.sigmoid(x @ w["r"].T + s["weight_vr_l0"] * h[1] + b_r)
    c = f * h[1] + (1 - f) * (x @ w["n"].T)
    return r * c + (1 - r) * x, c


def coupled_lstm(s, x, h):
    w, r = matrices(s, "igo", "igo")
    b = biases(s, "igo", "igo")
    i = torch.sigmoid(x @ w["i"].T + h[0] @ r["i"].T + b["i"] + s["weight_pi_l0"] * h[1])
    c = (1 - i) * h[1] + i * torch.tanh(x @ w["g"].T + h[0] @ r["g"].T + b["g"])
    o = torch.sigmoid(x @ w["o"].T + h[0] @ r["o"].T + b["o"] + s["weight_po_l0"] * c)
    return o * torch.tanh(c), c


def decay_lstm(s, x, h, dt):
    w, r = matrices(s, "ifgo", "ifgo")
    b = biases(s, "ifgo", "ifgo")
    i, f, g, o = (x @ w[k].T + h[0] @ r[k].T + b[k] for k in "ifgo")
    decay = torch.exp(-torch.relu(dt[:, None] * s["weight_rate_l0"] + s["weight_offset_l0"]))
    c = torch.sigmoid(f) * (decay * h[1]) + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def leaky(s, x, h):
    leak = s["weight_leak_l0"]
    return ((1 - leak) * h[0] + leak * torch.tanh(x @ s["weight_ih_l0"].T + h[0] @ s["weight_hh_l0"].T + s["bias_ih_l0"] + s["bias_hh_l0"]),)


def clipped_lstm(s, x, h):
    w, r = matrices(s, "ifgo", "ifgo")
    b = biases(s, "ifgo", "ifgo")
    i, f, g, o = (x @ w[k].T + h[0] @ r[k].T + b[k] for k in "ifgo")
    limit = s["weight_limit_l0"]
    c = torch.maximum(torch.minimum(torch.sigmoid(f) * h[1] + torch.sigmoid(i) * torch.tanh(g), limit), -limit)
    return torch.sigmoid(o) * torch.tanh(c), c


LOOPS = {f.__name__: f for f in (mgu, ligru, janet, ugrnn, indrnn, sru, coupled_lstm, decay_lstm, clipped_lstm, leaky)}
each_cell = pytest.mark.parametrize("cell", gallery.CELLS, ids=lambda c: c.name)


def inputs(cell, seed=1):
    random = np.random.default_rng(seed)
    x = random.standard_normal((T, B, I)).astype(np.float32)
    states = tuple(random.uniform(-1, 1, (1, B, H)).astype(np.float32) for _ in cell.states)
    scalars = {name: random.uniform(0, 3, (T, B)).astype(np.float32) for name in cell.scalars}
    return x, states if len(states) > 1 else states[0], scalars


def all_of(y, final):
    return [y, *(final if isinstance(final, tuple) else (final,))]


def test_there_is_a_loop_for_every_cell():
    assert set(LOOPS) == {cell.name for cell in gallery.CELLS}


@each_cell
def test_against_a_torch_loop(cell, each_jit_isa):
    x, state, scalars = inputs(cell)
    layer = fr.Recurrent(cell, I, H, seed=5)
    got = all_of(*layer(x, state, **scalars))
    s = {name: torch.from_numpy(a).double() for name, a in layer.state_dict().items()}
    h, rows = [torch.from_numpy(a[0]).double() for a in (state if isinstance(state, tuple) else (state,))], []
    for t in range(T):
        h = LOOPS[cell.name](s, torch.from_numpy(x[t]).double(), h, *(torch.from_numpy(a[t]).double() for a in scalars.values()))
        rows.append(h[0])
    for value, reference in zip(got, [torch.stack(rows), *(v[None] for v in h)], strict=True):
        reference = reference.numpy()
        assert np.abs(value - reference).max() <= TOLERANCES["parity"](I + H, T, 1) * max(1.0, np.abs(reference).max())


@each_cell
def test_alone_in_a_batch_in_pieces_and_on_every_isa_the_same_bits(cell, monkeypatch):
    x, state, scalars = inputs(cell)
    whole = None
    for name in JIT_ISAS:
        monkeypatch.setenv("FASTRNN_ISA", name)
        layer = fr.Recurrent(cell, I, H, seed=5)
        got = all_of(*layer(x, state, **scalars))
        whole = whole or got
        assert all(np.array_equal(a, b) for a, b in zip(whole, got, strict=True))
        row = slice(2, 3)
        alone = all_of(
            *layer(
                x[:, row],
                tuple(a[:, row] for a in state) if isinstance(state, tuple) else state[:, row],
                **{n: a[:, row] for n, a in scalars.items()},
            )
        )
        assert all(np.array_equal(a[:, row], b) for a, b in zip(whole, alone, strict=True))
        stream = fr.compile(stack_model(layer.options, layer.state_dict(), cell.name)).stream(B)
        stream.state = {f"{n}0": a for n, a in zip(cell.states, state if isinstance(state, tuple) else (state,))}
        given = {"x": x, **scalars} if scalars else x
        first = stream.push({n: a[:9] for n, a in given.items()} if scalars else given[:9])
        rest = [stream.step({n: a[t] for n, a in given.items()} if scalars else given[t]) for t in range(9, T)]
        assert np.array_equal(np.concatenate([first, np.stack(rest)]), whole[0])
        assert all(np.array_equal(a, b) for a, b in zip(stream.state.values(), whole[1:]))


@each_cell
@pytest.mark.usefixtures("cells_compile")
def test_stacked_bidirectional_ragged(cell):
    x, _, scalars = inputs(cell)
    options = {"num_layers": 2, "bidirectional": not cell.uses_input, "seed": 2}
    units, lengths = (I if cell.uses_input else 12), np.array([T, 0, 5, 14])
    layer, reference = (fr.Recurrent(cell, I, units, backend=b, **options) for b in ("auto", "reference"))
    for got, want in zip(all_of(*layer(x, lengths=lengths, **scalars)), all_of(*reference(x, lengths=lengths, **scalars)), strict=True):
        assert np.abs(got - want).max() <= 2 * TOLERANCES["parity"](I + 24, T, 2) * max(1.0, np.abs(want).max())
    y = layer(x, lengths=lengths, **scalars)[0]
    assert not any(y[length:, b].any() for b, length in enumerate(lengths))


@each_cell
@pytest.mark.usefixtures("cells_compile")
def test_saved_and_loaded(cell, tmp_path):
    x, _, scalars = inputs(cell)
    layer = fr.Recurrent(cell, I, H, seed=3)
    model = stack_model(layer.options, layer.state_dict(), cell.name)
    model.save(tmp_path / "cell.safetensors")
    loaded = fr.load(tmp_path / "cell.safetensors")
    assert np.array_equal(fr.compile(loaded).run({"x": x, **scalars})["y"], layer(x, **scalars)[0])
    assert cell.name in str(loaded)
