"""Whole training runs beside PyTorch's: the same weights, the same order of data, the same optimiser, 200 steps."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from training_oracle import recurrent, tensors

import fastrnn.training as tr

I, H, C, STEPS = 5, 10, 4, 200
KINDS = {"rnn": (tr.RNN, torch.nn.RNN), "gru": (tr.GRU, torch.nn.GRU), "lstm": (tr.LSTM, torch.nn.LSTM)}
OPTIMISERS = {
    "sgd": (lambda n: tr.SGD(n, 0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "adam": (lambda n: tr.Adam(n, 5e-3), lambda p: torch.optim.Adam(p, 5e-3)),
}


def data(seed=0):
    """Ragged sequences whose labels ask for memory: the class of the largest feature two steps before."""
    rng = np.random.default_rng(seed)
    xs = [rng.standard_normal((n, I)).astype("f4") for n in rng.integers(3, 9, 64)]
    return tr.Sequences(xs, [np.concatenate([[0, 0], x[:-2, :C].argmax(1)]) for x in xs])


def batches(n):
    rng, found = np.random.default_rng(7), []
    while len(found) < n:
        found += list(data().batches(8, rng))
    return found[:n]


def our_curve(net, optimiser, n):
    curve = []
    for b in batches(n):
        loss, grads = tr.value_and_grad(net, tr.cross_entropy, b.x, b.target, lengths=b.lengths)
        tr.clip_grad_norm(grads, 1.0)
        optimiser.step(grads)
        curve.append(loss)
    return np.array(curve)


def torch_curve(forward, params, optimiser, n):
    curve = []
    for b in batches(n):
        lengths = np.full(b.x.shape[1], len(b.x)) if b.lengths is None else b.lengths
        logits = forward(torch.tensor(b.x), torch.tensor(lengths))
        inside = torch.tensor(np.arange(len(b.x))[:, None] < lengths)
        loss = torch.nn.functional.cross_entropy(logits[inside], torch.tensor(b.target)[inside])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        curve.append(loss.item())
    return np.array(curve)


def same_curve(ours, theirs):
    assert np.abs(ours / theirs - 1).max() <= 1e-3
    assert theirs[-20:].mean() < 0.85 * theirs[:20].mean()  # something was learnt, so that the run is a test


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_steps(kind, optimiser):
    make, module, options, width = *KINDS[kind], *(({"bidirectional": True}, 2 * H) if kind == "rnn" else ({"num_layers": 2}, H))
    net = tr.Sequential(make(I, H, **options), tr.Linear(width, C), seed=2)
    layer, linear = module(I, H, **options), torch.nn.Linear(width, C)
    for ours, theirs in zip(net.layers, (layer, linear)):
        theirs.load_state_dict(tensors(ours.state_dict(), grad=False))

    def forward(x, lengths):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return linear(pad_packed_sequence(layer(packed)[0])[0])

    params = [*layer.parameters(), *linear.parameters()]
    ours, theirs = OPTIMISERS[optimiser]
    same_curve(our_curve(net, ours(net), STEPS), torch_curve(forward, params, theirs(params), STEPS))
    layer.load_state_dict({k: torch.tensor(v) for k, v in net.layers[0].state_dict().items()})  # and back


@pytest.mark.parametrize(
    ("kind", "options", "optimiser"),
    [("gru", {"reset_after": False}, "adam"), ("lstm", {"peepholes": True, "proj_size": 6, "input_forget": True}, "sgd")],
)
def test_two_hundred_steps_of_what_torch_lacks(kind, options, optimiser):
    net = tr.Sequential(KINDS[kind][0](I, H, **options), tr.Linear(options.get("proj_size", H), C), seed=2)
    w = tensors(net.state_dict())
    ours, theirs = OPTIMISERS[optimiser]

    def forward(x, lengths):
        y, _ = recurrent(kind, options, {k[2:]: p for k, p in w.items() if k[0] == "0"}, x, lengths)
        return torch.nn.functional.linear(y, w["1.weight"], w["1.bias"])

    same_curve(our_curve(net, ours(net), STEPS), torch_curve(forward, list(w.values()), theirs(w.values()), STEPS))


ANEW = """
import hashlib, sys
import numpy as np
import fastrnn.training as tr
rng = np.random.default_rng(0)
xs = [rng.standard_normal((n, 5)).astype("f4") for n in rng.integers(3, 9, 40)]
data = xs, [x[:, :4].argmax(1) for x in xs]
net = tr.Sequential(tr.GRU(5, 11, num_layers=2, dropout=0.2), tr.LSTM(11, 7, bidirectional=True), tr.LayerNorm(14), tr.Linear(14, 4), seed=1)
tr.fit(net, tr.cross_entropy, data, data, optimiser=tr.Adam(net), epochs=3, batch_size=8, clip_norm=1.0, seed=2)
print(hashlib.sha256(b"".join(a.tobytes() for a in net.state_dict().values())).hexdigest())
"""


def test_another_process_gets_the_same_bits():
    found = set()
    for k in range(2):
        environment = {**os.environ, "PYTHONHASHSEED": str(k)}
        found.add(subprocess.run([sys.executable, "-c", ANEW], check=True, capture_output=True, text=True, cwd="/", env=environment).stdout)
    assert len(found) == 1 and len(found.pop()) == 65


@pytest.mark.parametrize("tbptt", [None, 4])
def test_fitting_repeats_to_the_bit_and_learns(tbptt):
    def run(seed):
        net = tr.Sequential(tr.LSTM(I, H, num_layers=2, dropout=0.1), tr.Dropout(0.1), tr.Linear(H, C), seed=0)
        history = tr.fit(
            net, tr.cross_entropy, data(), data(9), optimiser=tr.Adam(net, 2e-2), epochs=6, batch_size=8, clip_norm=1.0, seed=seed, tbptt=tbptt
        )
        return net.state_dict(), history

    (a, one), (b, two), (c, _) = run(1), run(1), run(2)
    assert (
        all(np.array_equal(a[k], b[k]) for k in a)
        and one.train == two.train
        and one.valid == two.valid
        and any(not np.array_equal(a[k], c[k]) for k in a)
    )
    assert one.best < 0.9 * one.valid[0]
