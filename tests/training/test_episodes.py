"""Sequences that start afresh in the middle: against torch with states times (1 - done), against fr.LSTM's resets, and cut gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.training import Packing
from fastrnn.training.data import Batch

KINDS = {"rnn": (tr.RNN, torch.nn.RNN), "lstm": (tr.LSTM, torch.nn.LSTM), "gru": (tr.GRU, torch.nn.GRU)}
masks = st.integers(1, 7).flatmap(
    lambda T: st.integers(1, 5).flatmap(
        lambda B: st.tuples(
            st.lists(st.integers(0, T), min_size=B, max_size=B), st.lists(st.lists(st.booleans(), min_size=B, max_size=B), min_size=T, max_size=T)
        )
    )
)


def drawn(T, B, p=0.3, seed=0):
    random = np.random.default_rng(seed)
    return random, random.random((T, B)) < p


@settings(max_examples=150, deadline=None)
@given(masks)
def test_rows_and_their_neighbours(batch):
    lengths, mask = np.array(batch[0]), np.array(batch[1], bool)
    T, B = mask.shape
    random, packing = np.random.default_rng(0), Packing.of(T, B, lengths, mask)
    x, initial = random.standard_normal((T, B, 2)), random.standard_normal((1, B, 2))
    inside = np.arange(T)[:, None] < lengths
    assert packing.N == inside.sum() and np.array_equal(packing.unpack(packing.pack(x)), x * inside[..., None])
    before, ends = np.zeros_like(x), initial[0].copy()
    for b, length in enumerate(lengths):
        for t in range(length):
            before[t, b] = 0 if mask[t, b] else ends[b]
            ends[b] = x[t, b]
    forward = np.zeros(1, bool)
    states = np.concatenate([packing.begun(initial, forward)[0], packing.pack(x)])
    assert np.array_equal(states[packing.way().previous], packing.pack(before))
    assert np.array_equal(packing.ended(states[packing.way().ends][None], forward)[0], ends)
    after, ends = np.zeros_like(x), initial[0].copy()
    for b, length in enumerate(lengths):
        for t in reversed(range(length)):
            after[t, b] = 0 if t + 1 < length and mask[t + 1, b] else ends[b]
            ends[b] = x[t, b]
    states = np.concatenate([packing.begun(initial, ~forward)[0], packing.pack(x)])
    assert np.array_equal(states[packing.way(True).previous], packing.pack(after))
    assert np.array_equal(packing.ended(states[packing.way(True).ends][None], ~forward)[0], ends)
    if lengths.all():
        assert np.array_equal(packing.pack(x)[packing.last()], x[lengths - 1, np.arange(B)])


def torch_run(theirs, x, mask, lengths, state):
    """y (T, B, H) and the final states, walked step by step."""
    T, B, _ = x.shape
    outputs, states = [], tuple(torch.tensor(s) for s in state)
    for t in range(T):
        kept = torch.tensor(~mask[t], dtype=torch.float64)[None, :, None]
        begun = tuple(s * kept for s in states)
        y, after = theirs(x[t : t + 1], begun if len(begun) > 1 else begun[0])
        after = after if isinstance(after, tuple) else (after,)
        active = torch.tensor(t < lengths)[None, :, None]
        states = tuple(torch.where(active, a, s) for a, s in zip(after, states))
        outputs.append(torch.where(active[0], y[0], 0.0))
    return torch.stack(outputs), states


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_values_states_and_gradients_as_torch_with_states_masked(kind, ragged):
    T, B, I, H = 11, 6, 3, 5
    random, mask = drawn(T, B)
    lengths = random.integers(1, T + 1, B) if ragged else np.full(B, T)
    net = tr.Sequential(KINDS[kind][0](I, H, 2, seed=1, dtype="float64"))
    theirs = KINDS[kind][1](I, H, 2, dtype=torch.float64)
    theirs.load_state_dict({name.removeprefix("0."): torch.tensor(a) for name, a in net.parameters().items()})
    x, target = random.standard_normal((T, B, I)), random.standard_normal((T, B, H))
    given = tuple(random.standard_normal((2, B, H)) for _ in range(2 if kind == "lstm" else 1))
    state = tr.State((given if kind == "lstm" else given[0],))
    found, grads = tr.value_and_grad(net, tr.mean_squared_error, x, target, lengths=lengths if ragged else None, state=state, resets=mask)
    y, after = torch_run(theirs, torch.tensor(x), mask, lengths, given)
    inside = torch.tensor(np.arange(T)[:, None] < lengths)
    loss = ((y - torch.tensor(target)) ** 2)[inside].mean()
    loss.backward()
    assert found == pytest.approx(loss.item(), rel=1e-12)
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(grads[f"0.{name}"], p.grad.numpy(), rtol=1e-9, atol=1e-12)
    final = state.value[0] if kind == "lstm" else (state.value[0],)
    for ours, other in zip(final, after):
        np.testing.assert_allclose(ours, other.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"reverse": True}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_directions_that_run_from_the_end(kind, options):
    """As the layer that runs, final states among it; gradients by finite differences, and those of episodes as sequences of their own."""
    T, B, I, H = 9, 4, 3, 5
    random, mask = drawn(T, B, seed=5)
    lengths = np.array([T, 4, 1, 0])
    net = tr.Sequential(KINDS[kind][0](I, H, 2, seed=1, dtype="float64", **options))
    layer = {"rnn": fr.RNN, "lstm": fr.LSTM, "gru": fr.GRU}[kind](I, H, 2, **options)
    layer.load_state_dict({name.removeprefix("0."): a.astype(np.float32) for name, a in net.parameters().items()})
    D = 2 if "bidirectional" in options else 1
    x, weights = random.standard_normal((T, B, I)), random.standard_normal((T, B, D * H))
    given = tuple(random.standard_normal((2 * D, B, H)) for _ in range(2 if kind == "lstm" else 1))
    single, entry = tuple(a.astype(np.float32) for a in given), given if kind == "lstm" else given[0]
    state = tr.State((entry,))
    y = net(x, lengths, state=state, resets=mask)
    theirs, after = layer(x.astype(np.float32), single if kind == "lstm" else single[0], lengths, resets=mask)
    np.testing.assert_allclose(y, theirs, atol=1e-5)
    for ours, other in zip(state.value[0] if kind == "lstm" else (state.value[0],), after if kind == "lstm" else (after,)):
        np.testing.assert_allclose(ours, other, atol=1e-5)

    def loss_of(rows, target):
        return float((rows * target).sum()), target

    def loss():
        return tr.value_and_grad(net, loss_of, x, weights, lengths=lengths, state=tr.State((entry,)), resets=mask)

    _, grads = loss()
    for name, a in net.parameters().items():
        for at in random.integers(0, a.size, 4):
            before, eps = a.flat[at], 1e-5
            values = []
            for moved in (before + eps, before - eps):
                a.flat[at] = moved
                values.append(loss()[0])
            a.flat[at] = before
            assert grads[name].flat[at] == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("kind", KINDS)
def test_as_the_layer_that_runs(kind):
    random, mask = drawn(20, 4, 0.15, 2)
    net = tr.Sequential(KINDS[kind][0](3, 6, seed=3))
    layer = {"rnn": fr.RNN, "lstm": fr.LSTM, "gru": fr.GRU}[kind](3, 6)
    layer.load_state_dict({name.removeprefix("0."): a for name, a in net.parameters().items()})
    x = random.standard_normal((20, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(net(x, resets=mask), layer(x, resets=mask)[0], rtol=2e-5, atol=2e-6)
    turned = net(np.ascontiguousarray(x.swapaxes(0, 1)), batch_first=True, resets=mask).swapaxes(0, 1)
    assert np.array_equal(turned, net(x, resets=mask)) and np.array_equal(net(x, resets=np.zeros_like(mask)), net(x))


def test_no_gradient_passes_where_a_sequence_starts_afresh():
    """What lies before the last episode changes neither its loss nor its gradients."""
    random, mask = np.random.default_rng(4), np.zeros((9, 3), bool)
    mask[5] = True
    net, x = tr.Sequential(tr.GRU(2, 4, seed=0, dtype="float64")), random.standard_normal((9, 3, 2))
    target, counts = random.standard_normal((9, 3, 4)), np.arange(9)[:, None] >= np.full(3, 5)
    whole, grads = tr.value_and_grad(net, tr.mean_squared_error, x, target, mask=counts, resets=mask)
    alone, wanted = tr.value_and_grad(net, tr.mean_squared_error, x[5:], target[5:])
    assert whole == pytest.approx(alone, rel=1e-14)
    for name in grads:
        np.testing.assert_allclose(grads[name], wanted[name], rtol=1e-12, atol=1e-14)


class Episodic:
    """Batches with resets, as fit takes them."""

    def __init__(self, x, y, mask):
        self.batch = Batch(x, y, resets=mask)

    def batches(self, batch_size, rng=None):
        yield self.batch


def test_fit_with_resets_in_chunks():
    random, mask = drawn(24, 5, 0.2, 5)
    x = random.standard_normal((24, 5, 2)).astype(np.float32)
    y = np.zeros((24, 5, 1), np.float32)  # how long the episode has lasted, at most three: needs a state, and resets
    for t in range(24):
        y[t, :, 0] = np.where(mask[t] | (t == 0), 0, np.minimum(y[t - 1, :, 0] + 1, 3)) if t else 0
    losses = {}
    for resets in (mask, None):
        net = tr.Sequential(tr.GRU(2, 12, seed=0), tr.Linear(12, 1, seed=1))
        history = tr.fit(
            net,
            tr.mean_squared_error,
            Episodic(x, y, resets),
            Episodic(x, y, resets),
            optimiser=tr.Adam(net, 0.02),
            epochs=150,
            tbptt=8,
            progress=False,
        )
        losses[resets is not None] = history.best
    assert losses[True] < 0.25 * losses[False] and losses[True] < 0.1


def test_what_is_refused():
    net, x = tr.Sequential(tr.GRU(2, 4)), np.zeros((5, 3, 2), np.float32)
    for mask, error in ((np.zeros((5, 2), bool), fr.ShapeError), (np.zeros((5, 3)), fr.DTypeError)):
        with pytest.raises(error, match="resets"):
            net(x, resets=mask)
        with pytest.raises(error, match="resets"):
            Batch(x, x, resets=mask)
