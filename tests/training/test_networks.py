"""Networks with recurrent layers: gradients against autograd over torch's equations, against central differences, and each sequence alone."""

import threading
import tracemalloc

import numpy as np
import pytest
import torch
from training_oracle import TOLERANCE, differs, recurrent, tensors

import fastrnn as fr
import fastrnn.training as tr

MAKE = {"rnn": tr.RNN, "gru": tr.GRU, "lstm": tr.LSTM}
# name: kind, options
STACKS = {
    "rnn": ("rnn", {}),
    "rnn relu, two ways": ("rnn", {"nonlinearity": "relu", "bidirectional": True}),
    "gru": ("gru", {"num_layers": 2}),
    "gru before, two ways": ("gru", {"reset_after": False, "bidirectional": True, "num_layers": 2}),
    "gru before, reverse": ("gru", {"reset_after": False, "reverse": True, "bias": False}),
    "lstm": ("lstm", {"bidirectional": True, "num_layers": 2}),
    "lstm projected": ("lstm", {"proj_size": 3, "num_layers": 2, "bidirectional": True}),
    "lstm peepholes": ("lstm", {"peepholes": True, "num_layers": 2}),
    "lstm coupled": ("lstm", {"input_forget": True, "bidirectional": True}),
    "lstm, all": ("lstm", {"peepholes": True, "input_forget": True, "proj_size": 2, "bidirectional": True, "bias": False}),
}
T, B, H, C = 7, 4, 6, 5
LENGTHS = np.array([3, 7, 0, 5])


def network(name, dtype="float64", dropout=0.0):
    """Embedding, the stack, LayerNorm, a GRU, Linear."""
    kind, o = STACKS[name]
    width = (o.get("proj_size") or H) * (2 if o.get("bidirectional") else 1)
    extra = {"dropout": dropout} if dropout and o.get("num_layers", 1) > 1 else {}
    return tr.Sequential(
        tr.Embedding(9, 4, dtype=dtype),
        MAKE[kind](4, H, dtype=dtype, **o, **extra),
        tr.LayerNorm(width, dtype=dtype),
        tr.Dropout(dropout),
        tr.GRU(width, 3, dtype=dtype),
        tr.Linear(3, C, dtype=dtype),
        seed=1,
    )


def logits_of(name, w, x, lengths, states=(None, None)):
    """What the network gives, by torch, and its final states."""
    kind, o = STACKS[name]
    part = {k: {n[2:]: a for n, a in w.items() if n.startswith(f"{k}.")} for k in range(6)}
    y, one = recurrent(kind, o, part[1], torch.nn.functional.embedding(x, part[0]["weight"]), lengths, states[0])
    y = torch.nn.functional.layer_norm(y, y.shape[2:], part[2]["weight"], part[2]["bias"])
    y, two = recurrent("gru", {}, part[4], y, lengths, states[1])
    return torch.nn.functional.linear(y, part[5]["weight"], part[5]["bias"]), (one, two)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 9, (T, B)), rng.integers(0, C, (T, B)), rng.random((T, B)) < 0.7


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", STACKS)
def test_gradients_over_ragged_and_masked_batches(name, dtype):
    net, (x, y, mask) = network(name, dtype), batch()
    w = tensors(net.state_dict())
    logits, _ = logits_of(name, w, torch.tensor(x), torch.tensor(LENGTHS))
    counted = torch.tensor((np.arange(T)[:, None] < LENGTHS) & mask)
    wanted = torch.nn.functional.cross_entropy(logits[counted], torch.tensor(y)[counted])
    wanted.backward()
    loss, grads = tr.value_and_grad(net, tr.cross_entropy, x, y, lengths=LENGTHS, mask=mask)
    assert abs(loss - wanted.item()) <= TOLERANCE[dtype] * loss
    for key, p in w.items():
        wanted = torch.zeros_like(p) if p.grad is None else p.grad  # the peephole of a coupled gate is read by nothing
        assert differs(grads[key], wanted) <= TOLERANCE[dtype], key
    flipped, again = tr.value_and_grad(net, tr.cross_entropy, x.T, y.T, lengths=LENGTHS, mask=mask.T, batch_first=True)
    assert flipped == loss and all(np.array_equal(again[k], g) for k, g in grads.items())


@pytest.mark.parametrize("name", STACKS)
def test_central_differences_with_dropout(name):
    """The same seed drops the same numbers, so that the loss is a function of the parameters."""
    net, (x, y, mask), rng = network(name, dropout=0.3), batch(), np.random.default_rng(5)

    def loss():
        return tr.value_and_grad(net, tr.cross_entropy, x, y, lengths=LENGTHS, mask=mask, rng=3)[0]

    _, grads = tr.value_and_grad(net, tr.cross_entropy, x, y, lengths=LENGTHS, mask=mask, rng=3)
    assert loss() != tr.value(net, tr.cross_entropy, x, y, lengths=LENGTHS, mask=mask)
    for key, array in net.parameters().items():
        along, kept, step = rng.standard_normal(array.shape), array.copy(), 1e-5
        array += step * along
        above = loss()
        array[...] = kept - step * along
        slope = (above - loss()) / (2 * step)
        array[...] = kept
        # the truncation's third derivative and the loss's rounding over the step
        assert abs(slope - (grads[key] * along).sum()) <= 1e-7 * max(1, abs(slope)), key


@pytest.mark.parametrize("name", STACKS)
def test_a_ragged_batch_is_each_sequence_alone(name):
    net, (x, y, _) = network(name), batch()
    together, (loss, grads) = net(x, lengths=LENGTHS), tr.value_and_grad(net, tr.cross_entropy, x, y, lengths=LENGTHS)
    total, summed = 0.0, {k: np.zeros_like(g) for k, g in grads.items()}
    for b, n in enumerate(LENGTHS):
        assert not together[n:, b].any()
        if not n:
            continue
        assert differs(net(x[:n, b : b + 1])[:, 0], together[:n, b]) <= 1e-13
        one, parts = tr.value_and_grad(net, tr.cross_entropy, x[:n, b : b + 1], y[:n, b : b + 1])
        total += one * n
        for k, g in parts.items():
            summed[k] += g * n
    assert abs(total / LENGTHS.sum() - loss) <= 1e-13 * loss and all(differs(grads[k], g / LENGTHS.sum()) <= 1e-12 for k, g in summed.items())


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm peepholes"])
def test_truncated_backpropagation_carries_detached_states(name):
    net, (x, y, _) = network(name), batch()
    w, state, states = tensors(net.state_dict()), tr.State(), (None, None)
    whole = net(x, lengths=LENGTHS)
    for t in (0, 3, 6):
        part, lengths = slice(t, t + 3), np.clip(LENGTHS - t, 0, len(x[t : t + 3]))
        for p in w.values():
            p.grad = None
        logits, states = logits_of(name, w, torch.tensor(x[part]), torch.tensor(lengths), states)
        states = tuple(tuple(s.detach() for s in one) for one in states)
        inside = torch.tensor(np.arange(len(x[part]))[:, None] < lengths)
        wanted = torch.nn.functional.cross_entropy(logits[inside], torch.tensor(y[part])[inside])
        wanted.backward()
        assert differs(net(x[part], lengths, None if state.value is None else tr.State(state.value)), whole[part]) <= 1e-13
        before = state.value
        assert tr.value(net, tr.cross_entropy, x[part], y[part], lengths=lengths, state=tr.State(before)) == pytest.approx(wanted.item(), rel=1e-12)
        loss, grads = tr.value_and_grad(net, tr.cross_entropy, x[part], y[part], lengths=lengths, state=state)
        assert abs(loss - wanted.item()) <= 1e-12 and all(differs(grads[k], p.grad) <= 1e-9 for k, p in w.items())
        ours = state.value[1] if STACKS[name][0] == "lstm" else (state.value[1],)
        assert all(differs(a, b) <= 1e-12 for a, b in zip((*ours, state.value[4]), (*states[0], *states[1])))
    state.reset()
    assert state.value is None


def test_states_that_do_not_fit_are_refused_and_kept():
    net, (x, y, _) = network("lstm"), batch()
    state = tr.State()
    net(x, state=state)
    held = state.value
    for call in (
        lambda: net(x[:, :3], state=state),
        lambda: tr.value_and_grad(net, tr.cross_entropy, x[:, :3], y[:, :3], state=state),
        lambda: tr.value_and_grad(net, tr.cross_entropy, x, y + C, state=state),
        lambda: tr.value(net, tr.cross_entropy, x, y + C, state=state),
    ):
        with pytest.raises(fr.ShapeError):
            call()
        assert state.value is held
    for call in (
        lambda s: net(x, state=s),
        lambda s: tr.value(net, tr.cross_entropy, x, y, state=s),
        lambda s: tr.value_and_grad(net, tr.cross_entropy, x, y, state=s),
    ):
        with pytest.raises(fr.StateError, match="state must be a State, got tuple"):
            call(held)
    with pytest.raises(fr.StateError, match=r"layer '0' \(embedding\) carries no state, but is given a float"):
        net(x, state=tr.State((0.0, *held[1:])))
    for value in (held[:5], held[1], 0.0):
        with pytest.raises(fr.StateError, match="one entry for each of its 6 layers"):
            net(x, state=tr.State(value))


def test_many_threads_share_a_network():
    net, data = network("lstm, all", dropout=0.2), [batch(k) for k in range(8)]
    wanted = [tr.value_and_grad(net, tr.cross_entropy, x, y, lengths=LENGTHS, rng=0) for x, y, _ in data]
    wrong = []

    def work(k):
        x, y, _ = data[k]
        for _ in range(10):
            loss, grads = tr.value_and_grad(net, tr.cross_entropy, x, y, lengths=LENGTHS, rng=0)
            if loss != wanted[k][0] or any(not np.array_equal(g, wanted[k][1][n]) for n, g in grads.items()):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.parametrize(
    "layer",
    [
        tr.RNN(88, 100),
        tr.GRU(88, 46),
        tr.GRU(88, 46, reset_after=False),
        tr.LSTM(88, 36),
        tr.LSTM(64, 48, num_layers=2, bidirectional=True),
        tr.RNN(64, 48, num_layers=2, bidirectional=True),
    ],
    ids=repr,
)
def test_memory_stays_near_what_is_kept(layer):
    """At most 1.5 times the activations that the way back needs, the input and the output among them."""
    net, rng = tr.Sequential(layer, tr.LayerNorm(layer.gives), tr.Linear(layer.gives, 88), seed=0), np.random.default_rng(0)
    x, y = rng.standard_normal((200, 16, layer.takes)).astype("f4"), rng.random((200, 16, 88)) < 0.1
    tr.value_and_grad(net, tr.binary_cross_entropy, x, y)
    tracemalloc.start()
    try:
        kept = net.forward(*net.enter(x))
        needed = tracemalloc.get_traced_memory()[0] + x.nbytes
        del kept
        tracemalloc.reset_peak()
        tr.value_and_grad(net, tr.binary_cross_entropy, x, y)
        peak = tracemalloc.get_traced_memory()[1] + x.nbytes
    finally:
        tracemalloc.stop()
    assert peak <= 1.5 * needed, (peak, needed)
