"""Diagnostics against torch.autograd, central differences and NumPy."""

import numpy as np
import pytest
import torch

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.training.diagnostics import hidden_gradients, saturation, spectral_radius

T, B, I, H, O = 9, 4, 3, 5, 2
LENGTHS = [9, 2, 7, 5]
LAYERS = {
    "rnn": lambda **o: tr.RNN(I, H, **o),
    "lstm": lambda **o: tr.LSTM(I, H, **o),
    "lstm_rich": lambda **o: tr.LSTM(I, H, proj_size=3, peepholes=True, **o),
    "lstm_coupled": lambda **o: tr.LSTM(I, H, input_forget=True, **o),
    "gru": lambda **o: tr.GRU(I, H, **o),
    "gru_before": lambda **o: tr.GRU(I, H, reset_after=False, **o),
}


def network(kind, **options):
    layer = LAYERS[kind](dtype="float64", **options)
    return tr.Sequential(layer, tr.Linear(layer.gives, O, dtype="float64"), seed=3)


def batch(seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((T, B, I)), random.standard_normal((T, B, O))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
def test_hidden_gradients_are_differences_of_a_loss_from_the_middle(kind, lengths):
    """Behind a cut at t, the loss is a function of the state there: dL/dh_t but for what step t's own output adds, which Linear gives."""
    net, (x, target) = network(kind), batch()
    norms = hidden_gradients(net, tr.mean_squared_error, x, target, lengths=lengths)
    assert norms.shape == (T, B) and norms.dtype == np.float64
    ends, layer, out = np.array(lengths or [T] * B), net.layers[0], net.layers[1].parameters()
    P = layer.options.output_size

    def loss_from(t, h, rest):
        """The part of the loss that h at step t has a hand in."""
        total = np.where(t < ends, ((h @ out["weight"].T + out["bias"] - target[t]) ** 2).sum(1), 0).sum()
        if t + 1 < T:
            state = tr.State((((h[None], rest) if layer.kind == "lstm" else h[None]), None))
            y = net(x[t + 1 :], lengths=np.clip(ends - t - 1, 0, None), state=state)
            valid = np.arange(t + 1, T)[:, None] < ends
            total += (((y - target[t + 1 :]) ** 2).sum(2) * valid).sum()
        return total / (ends.sum() * O)

    for t in (0, 1, 4, T - 1):
        state = tr.State()
        net(x[: t + 1], lengths=np.minimum(ends, t + 1), state=state)
        h, rest = (state.value[0][0][0], state.value[0][1]) if layer.kind == "lstm" else (state.value[0][0], None)
        gradient, step = np.zeros((B, P)), 1e-6
        for place in np.ndindex(B, P):
            up, down = h.copy(), h.copy()
            up[place] += step
            down[place] -= step
            gradient[place] = (loss_from(t, up, rest) - loss_from(t, down, rest)) / (2 * step)
        expected = np.where(t < ends, np.linalg.norm(gradient, axis=1), 0)
        np.testing.assert_allclose(norms[t], expected, rtol=1e-6, atol=1e-9)


def unrolled(kind, parameters, suffix, xs):
    """A direction of torch's, cell by cell, so that each h is a leaf that keeps its gradient."""
    cell = getattr(torch.nn, f"{kind.upper()}Cell")(xs[0].shape[1], H, dtype=torch.float64)
    cell.load_state_dict({name: torch.from_numpy(parameters[f"{name}_{suffix}"]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})
    state, hs = None, []
    for x in xs:
        state = cell(x, state)
        hs.append(state[0] if kind == "lstm" else state)
        hs[-1].retain_grad()
    return hs


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_hidden_gradients_of_both_directions_of_a_stack_are_autograds(kind):
    net, (x, target) = network(kind, num_layers=2, bidirectional=True), batch(1)
    own, rows, found = net.layers[0].parameters(), list(torch.from_numpy(x)), {}
    for k in range(2):
        found[k, False] = unrolled(kind, own, f"l{k}", rows)
        found[k, True] = unrolled(kind, own, f"l{k}_reverse", rows[::-1])[::-1]
        rows = [torch.cat(both, 1) for both in zip(found[k, False], found[k, True])]
    weight, bias = (torch.from_numpy(net.layers[1].parameters()[name]) for name in ("weight", "bias"))
    torch.nn.functional.mse_loss(torch.stack(rows) @ weight.T + bias, torch.from_numpy(target)).backward()
    for (k, reverse), hs in found.items():
        norms = hidden_gradients(net, tr.mean_squared_error, x, target, k=k, reverse=reverse)
        np.testing.assert_allclose(norms, [h.grad.norm(dim=1).numpy() for h in hs], rtol=1e-9)


def test_hidden_gradients_of_a_linear_recurrence_are_powers():
    """h' = R h through relu with everything positive: dL/dh_t = (R^T)^(T - 1 - t) dL/dh at the end."""
    net = tr.Sequential(tr.RNN(1, 2, nonlinearity="relu", bias=False, dtype="float64"), tr.Last(dtype="float64"))
    net.load_state_dict({"0.weight_ih_l0": np.ones((2, 1)), "0.weight_hh_l0": np.diag([0.9, 0.5])})
    norms = hidden_gradients(net, lambda y, target: (float(y.sum()), np.ones_like(y)), np.ones((T, 1, 1)), np.zeros(1))
    back = np.arange(T)[::-1]
    np.testing.assert_allclose(norms[:, 0], np.hypot(0.9**back, 0.5**back), rtol=1e-12)
    assert spectral_radius(net.layers[0]) == {"a": pytest.approx(0.9)}


def test_a_layer_inside_another_network_has_its_place():
    net, (x, target) = network("gru"), batch()
    inside = tr.Sequential(tr.Dropout(0.5, dtype="float64"), tr.Sequential(*net.layers))
    expected = hidden_gradients(net, tr.mean_squared_error, x, target)
    assert np.array_equal(hidden_gradients(inside, tr.mean_squared_error, x, target, layer="1.0"), expected)
    swapped = hidden_gradients(net, tr.mean_squared_error, x.swapaxes(0, 1), target.swapaxes(0, 1), batch_first=True)
    np.testing.assert_allclose(swapped, expected, rtol=1e-12)
    reversed_ = tr.RNN(I, H, reverse=True, seed=1)
    assert spectral_radius(reversed_)["a"] > 0 and hidden_gradients(reversed_, lambda y, t: (0.0, np.ones_like(y)), x.astype("f4"), x).shape == (T, B)


def test_spectral_radius_by_gate():
    layer = tr.LSTM(I, H, num_layers=2, bidirectional=True, seed=1)
    own = layer.parameters()["weight_hh_l1_reverse"]
    expected = {gate: np.abs(np.linalg.eigvals(own[g * H : (g + 1) * H].astype(np.float64))).max() for g, gate in enumerate("ifgo")}
    assert spectral_radius(layer, 1, reverse=True) == pytest.approx(expected)
    assert list(spectral_radius(tr.GRU(I, H))) == ["r", "z", "n"]
    projected = tr.LSTM(I, H, proj_size=3, seed=1)
    p = projected.parameters()
    assert spectral_radius(projected)["o"] == pytest.approx(np.abs(np.linalg.eigvals(p["weight_hr_l0"] @ p["weight_hh_l0"][3 * H :])).max(), rel=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_saturation_counts_gates(kind):
    """Biases that shut one gate and open the next; the others count as computed step by step."""
    net, (x, _) = network(kind), batch()
    layer = net.layers[0]
    p, order = layer.parameters(), {"rnn": "a", "lstm": "ifgo", "gru": "rzn"}[layer.kind]
    p["bias_ih_l0"][:] = np.repeat(np.array([-20.0, 20.0, 0.0, 20.0])[: len(order)], H) if len(order) > 1 else 20.0
    found = saturation(layer, x, lengths=LENGTHS)
    assert list(found) == list(order)
    if len(order) == 1:
        assert found["a"] == (0.0, 1.0)
    else:
        assert found[order[0]] == (1.0, 0.0) and found[order[1]] == (0.0, 1.0)
        assert 0 <= sum(found[order[2]]) < 1
    assert saturation(net, x, layer=0, lengths=LENGTHS) == found


def test_saturation_of_an_rnn_is_that_of_its_outputs_and_leaves_padding_out():
    net, (x, _) = network("rnn"), batch()
    net.layers[0].parameters()["weight_ih_l0"][...] *= 4
    y = net.layers[0]
    h, _ = fr_rnn(y)(x.astype(np.float32), lengths=LENGTHS)
    values = h[np.arange(T)[:, None] < np.array(LENGTHS)]
    assert saturation(net, x, lengths=LENGTHS)["a"] == pytest.approx(((values < -0.8).mean(), (values > 0.8).mean()))


def fr_rnn(layer):
    """The engine's layer with the same weights."""
    same = fr.RNN(I, H)
    same.load_state_dict({name: array.astype(np.float32) for name, array in layer.state_dict().items()})
    return same


def test_what_is_not_there_is_refused_by_name():
    net, (x, target) = network("gru"), batch()
    with pytest.raises(fr.UnsupportedModelError, match="layer 1 is not recurrent; '0' is"):
        hidden_gradients(net, tr.mean_squared_error, x, target, layer=1)
    with pytest.raises(fr.UnsupportedModelError, match="k must be from 0 to 0"):
        saturation(net, x, k=1)
    with pytest.raises(fr.UnsupportedModelError, match="one direction"):
        spectral_radius(net.layers[0], reverse=True)
    with pytest.raises(fr.UnsupportedModelError, match="relu"):
        saturation(tr.RNN(I, H, nonlinearity="relu"), x.astype(np.float32))
    with pytest.raises(fr.ShapeError, match="target"):
        hidden_gradients(net, tr.mean_squared_error, x, target[:-1])
