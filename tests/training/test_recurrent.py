"""Backpropagation through time of every kind and option: against torch.nn, autograd over the equations, and central differences."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from training_oracle import TOLERANCE, differs, recurrent, tensors

import fastrnn as fr
import fastrnn.training as tr

KINDS = {"rnn": tr.RNN, "lstm": tr.LSTM, "gru": tr.GRU}
OPTIONS = [
    ("rnn", {}), ("rnn", {"nonlinearity": "relu"}), ("rnn", {"reverse": True, "bias": False}),
    ("lstm", {}), ("lstm", {"peepholes": True}), ("lstm", {"input_forget": True}), ("lstm", {"input_forget": True, "peepholes": True}),
    ("lstm", {"proj_size": 3}), ("lstm", {"proj_size": 2, "peepholes": True, "bias": False}), ("lstm", {"reverse": True}),
    ("gru", {}), ("gru", {"bias": False}), ("gru", {"reset_after": False}), ("gru", {"reset_after": False, "bias": False, "reverse": True}),
]  # fmt: skip
STACKS = [{}, {"num_layers": 2, "bidirectional": True}]
SIZES = [(4, 3, 3, 5), (3, 19, 2, 37)]  # T, B, I, H; units and rows that fill no vector and no tile
every = pytest.mark.parametrize("kind,options", [(k, {**o, **s}) for k, o in OPTIONS for s in STACKS if not (o.get("reverse") and s)], ids=str)


def drawn(layer, T, B, ragged, seed=2):
    """x, the gradient of y, lengths, and initial states, of the layer's dtype."""
    random, o = np.random.default_rng(seed), layer.options
    K, sizes = o.num_layers * o.directions, {"h": o.output_size, "c": o.hidden_size}
    x, dy, *states = (
        random.standard_normal(shape).astype(layer.dtype)
        for shape in ((T, B, layer.takes), (T, B, layer.gives), *((K, B, sizes[name]) for name in o.states))
    )
    return x, dy, random.permutation(np.arange(B) % (T + 1)) if ragged else np.full(B, T), states


def passed(layer, x, dy, lengths, states, training=False):
    """y, final states, gradients of the parameters and of x: forward and backward once."""
    run = tr.Run(tr.Packing.of(*x.shape[:2], lengths), training, np.random.default_rng(0))
    y, saved, finals = layer.forward(run.pack(x), run, tuple(states) if len(states) > 1 else states[0])
    grads = {name: np.zeros_like(a) for name, a in layer.parameters().items()}
    dx = layer.backward(run.pack(dy).copy(), saved, grads)
    return run.unpack(y), finals if isinstance(finals, tuple) else (finals,), grads, run.unpack(dx)


@every
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T,B,I,H", SIZES)
@pytest.mark.parametrize("ragged", [False, True])
def test_gradients(kind, options, dtype, T, B, I, H, ragged):
    layer = KINDS[kind](I, H, seed=1, dtype=dtype, **options)
    x, dy, lengths, states = drawn(layer, T, B, ragged)
    y, finals, grads, dx = passed(layer, x, dy, lengths, states)
    w, given = tensors(layer.parameters()), torch.tensor(x, requires_grad=True)
    wanted, wanted_finals = recurrent(kind, options, w, given, torch.tensor(lengths), tuple(map(torch.tensor, states)))
    inside = torch.tensor(np.arange(T)[:, None] < lengths)[..., None]
    (wanted * torch.tensor(dy) * inside).sum().backward()
    assert differs(y, wanted) <= TOLERANCE[dtype] and differs(dx, given.grad) <= TOLERANCE[dtype]
    for ours, theirs in zip(finals, wanted_finals, strict=True):
        assert differs(ours, theirs) <= TOLERANCE[dtype]
    for name, gradient in grads.items():
        theirs = torch.zeros_like(w[name]) if w[name].grad is None else w[name].grad
        assert differs(gradient, theirs) <= TOLERANCE[dtype], name


@pytest.mark.parametrize(
    "kind,module,options",
    [("rnn", torch.nn.RNN, {}), ("lstm", torch.nn.LSTM, {}), ("lstm", torch.nn.LSTM, {"proj_size": 4}), ("gru", torch.nn.GRU, {})],
)
def test_beside_torch_nn_with_packed_sequences(kind, module, options):
    stack = {"num_layers": 3, "bidirectional": True, **options}
    layer, theirs = KINDS[kind](5, 9, seed=3, dtype="float64", **stack), module(5, 9, **stack).double()
    theirs.load_state_dict(tensors(layer.state_dict(), grad=False))
    x, dy, _, states = drawn(layer, 7, 6, False)
    lengths, given = np.array([3, 7, 1, 7, 5, 2]), torch.tensor(x, requires_grad=True)
    initial = tuple(map(torch.tensor, states))
    rows, ends = theirs(pack_padded_sequence(given, torch.tensor(lengths), enforce_sorted=False), initial if len(initial) > 1 else initial[0])
    wanted, _ = pad_packed_sequence(rows)
    (wanted * torch.tensor(dy)).sum().backward()
    y, finals, grads, dx = passed(layer, x, dy, lengths, states)
    assert differs(y, wanted) <= 1e-12 and differs(dx, given.grad) <= 1e-12
    assert all(differs(ours, end) <= 1e-12 for ours, end in zip(finals, ends if isinstance(ends, tuple) else (ends,), strict=True))
    assert all(differs(grads[name], p.grad) <= 1e-12 for name, p in theirs.named_parameters())


@every
def test_central_differences(kind, options):
    layer = KINDS[kind](3, 5, seed=4, dtype="float64", **options)
    x, dy, lengths, states = drawn(layer, 5, 4, True)
    _, _, grads, dx = passed(layer, x, dy, lengths, states)
    random, step = np.random.default_rng(5), 1e-5

    def loss(inputs):
        return (passed(layer, inputs, dy, lengths, states)[0] * dy).sum()

    for name, array in (*layer.parameters().items(), ("x", x)):
        direction = random.standard_normal(array.shape)
        kept, values = array.copy(), []
        for sign in (1, -1):
            array[...] = kept + sign * step * direction
            values.append(loss(x))
        array[...] = kept
        slope = ((dx if name == "x" else grads[name]) * direction).sum()
        assert abs((values[0] - values[1]) / (2 * step) - slope) <= 1e-7 * max(1.0, abs(slope)), name


@pytest.mark.parametrize("kind,options", OPTIONS, ids=str)
def test_every_instruction_set(kind, options, each_isa):
    layer = KINDS[kind](6, 21, seed=1, **options)
    x, dy, lengths, states = drawn(layer, 5, 11, True)
    exact = layer.astype("float64")
    y, _, grads, dx = passed(layer, x, dy, lengths, states)
    y2, _, grads2, dx2 = passed(exact, *(a.astype("float64") for a in (x, dy)), lengths, [s.astype("float64") for s in states])
    pairs = [(y, y2), (dx, dx2), *((grads[n], grads2[n]) for n in grads)]
    assert all(np.abs(a - b).max() <= 1e-5 * max(np.abs(b).max(), 1e-30) for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_has_the_same_gradient_alone_and_beside_others(kind):
    layer = KINDS[kind](4, 18, num_layers=2, bidirectional=True, seed=6, dtype="float64")
    x, dy, lengths, states = drawn(layer, 6, 5, True)
    y, _, grads, dx = passed(layer, x, dy, lengths, states)
    total = {name: np.zeros_like(a) for name, a in grads.items()}
    for b, length in enumerate(lengths):
        alone = passed(layer, x[:length, b : b + 1], dy[:length, b : b + 1], None, [s[:, b : b + 1].copy() for s in states])
        assert np.allclose(alone[0][:, 0], y[:length, b], rtol=0, atol=1e-14) and np.allclose(alone[3][:, 0], dx[:length, b], rtol=0, atol=1e-13)
        total = {name: total[name] + alone[2][name] for name in total}
    assert all(np.allclose(total[name], grads[name], rtol=1e-11, atol=1e-13) for name in grads)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers(kind):
    """What is dropped is the same on the way back; without training nothing is."""
    layer = KINDS[kind](3, 40, num_layers=2, dropout=0.5, seed=0, dtype="float64")
    x, dy, lengths, states = drawn(layer, 4, 3, False)
    plain, dropped = passed(layer, x, dy, lengths, states), passed(layer, x, dy, lengths, states, training=True)
    assert np.array_equal(dropped[0], passed(layer, x, dy, lengths, states, training=True)[0]) and not np.allclose(plain[0], dropped[0])
    random = np.random.default_rng(0)
    direction, step = random.standard_normal(x.shape), 1e-6
    ends = [(passed(layer, x + sign * step * direction, dy, lengths, states, training=True)[0] * dy).sum() for sign in (1, -1)]
    assert abs((ends[0] - ends[1]) / (2 * step) - (dropped[3] * direction).sum()) <= 1e-7


@pytest.mark.parametrize("kind,options", OPTIONS, ids=str)
def test_the_whole_gradient_of_each_state_is_kept_on_request(kind, options):
    layer = KINDS[kind](3, 5, seed=1, dtype="float64", **options)
    x, dy, _, states = drawn(layer, 4, 2, False)
    run = tr.Run(tr.Packing.of(4, 2))
    _, (_, (saved,)), _ = layer.forward(run.pack(x), run, tuple(states) if len(states) > 1 else states[0])
    saved.keep_dh = True
    layer.backward(run.pack(dy).copy(), (run, [saved]), {name: np.zeros_like(a) for name, a in layer.parameters().items()})
    first, last = (0, 3) if options.get("reverse") else (3, 0)
    assert np.array_equal(run.unpack(saved.dh)[first], dy[first])  # nothing comes after it
    assert not np.allclose(run.unpack(saved.dh)[last], dy[last])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_saturated_gates_keep_their_digits_in_float64(kind):
    """A gate near 0 is right to its last digits, so that what hardly passes it has a gradient too."""
    layer = KINDS[kind](3, 5, seed=1, dtype="float64")
    bias = layer.parameters()["bias_ih_l0"]
    bias[slice(15, 20) if kind == "lstm" else slice(0, 5)] = -30  # o, r
    x, dy, lengths, states = drawn(layer, 4, 3, False)
    y, _, grads, dx = passed(layer, x, dy, lengths, states)
    w, given = tensors(layer.parameters()), torch.tensor(x, requires_grad=True)
    wanted, _ = recurrent(kind, {}, w, given, torch.tensor(lengths), tuple(map(torch.tensor, states)))
    (wanted * torch.tensor(dy)).sum().backward()
    gates = len(grads["bias_ih_l0"]) // 5
    assert differs(y, wanted) <= 1e-12 and differs(dx, given.grad) <= 1e-12
    for gate in range(gates):
        part = slice(gate * 5, (gate + 1) * 5)
        assert all(differs(g[part], w[name].grad[part]) <= 1e-12 for name, g in grads.items()), gate


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "kind,module,options",
    [("rnn", torch.nn.RNN, {}), ("rnn", torch.nn.RNN, {"nonlinearity": "relu"}), ("lstm", torch.nn.LSTM, {}), ("gru", torch.nn.GRU, {})],
)
def test_nan_is_not_hidden_and_stays_in_its_sequence(kind, module, options, dtype, each_isa):
    layer, theirs = KINDS[kind](3, 19, seed=1, dtype=dtype, **options), module(3, 19, **options).to(getattr(torch, dtype))
    theirs.load_state_dict(tensors(layer.state_dict(), grad=False))
    x, dy, lengths, states = drawn(layer, 4, 3, False)
    x[1, 1, 0] = np.nan
    given, initial = torch.tensor(x, requires_grad=True), tuple(map(torch.tensor, states))
    wanted, _ = theirs(given, initial if len(initial) > 1 else initial[0])
    (wanted * torch.tensor(dy)).sum().backward()
    y, _, grads, dx = passed(layer, x, dy, lengths, states)
    assert np.array_equal(np.isnan(y), torch.isnan(wanted)) and np.array_equal(np.isnan(dx), torch.isnan(given.grad))
    assert np.isnan(y[1:, 1]).all() and all(np.array_equal(np.isnan(grads[name]), torch.isnan(p.grad)) for name, p in theirs.named_parameters())


def test_nothing_to_do():
    layer = tr.LSTM(3, 4, num_layers=2, bidirectional=True, seed=0)
    for T, B, lengths in ((0, 2, None), (3, 0, None), (3, 2, np.array([0, 0]))):
        x, dy, _, states = drawn(layer, T, B, False)
        y, finals, grads, dx = passed(layer, x, dy, lengths, states)
        assert y.shape == (T, B, 8) and dx.shape == x.shape and not y.any() and not any(g.any() for g in grads.values())
        assert all(np.array_equal(a, b) for a, b in zip(finals, states))


def test_what_is_refused():
    with pytest.raises(fr.UnsupportedModelError, match="nonlinearity must be 'tanh' or 'relu', got 'sigmoid'"):
        tr.RNN(2, 3, nonlinearity="sigmoid")
    with pytest.raises(fr.UnsupportedModelError, match="dropout must be"):
        tr.GRU(2, 3, dropout=1.5)
    with pytest.raises(fr.UnsupportedModelError, match="proj_size"):
        tr.LSTM(2, 3, proj_size=3)
    with pytest.raises(fr.UnsupportedModelError, match="bidirectional already has a reverse direction"):
        tr.LSTM(2, 3, bidirectional=True, reverse=True)
    with pytest.raises(fr.ShapeError, match="hidden_size must be a positive integer"):
        tr.RNN(2, 0)
    net, state = tr.Sequential(tr.LSTM(2, 3)), tr.State(((np.zeros((1, 2, 3), np.float32), np.zeros((1, 4, 3), np.float32)),))
    with pytest.raises(fr.ShapeError, match=r"initial c must have shape \(1, 2, 3\), got \(1, 4, 3\)"):
        net(np.zeros((1, 2, 2), np.float32), state=state)
    with pytest.raises(fr.DTypeError, match="initial h must be an array of float32"):
        net(np.zeros((1, 2, 2), np.float32), state=tr.State(((np.zeros((1, 2, 3)), np.zeros((1, 2, 3))),)))
    h = np.zeros((1, 2, 3), np.float32)
    for value, given in (((h,), "tuple of 1"), ((h, h, h), "tuple of 3"), (h, "ndarray"), (0.0, "float")):
        with pytest.raises(fr.StateError, match=rf"lstm: a state is a tuple \(h, c\), got {given}"):
            net(np.zeros((1, 2, 2), np.float32), state=tr.State((value,)))
