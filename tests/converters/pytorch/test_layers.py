"""from_torch: recurrent modules, cells and Sequentials beside torch itself."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.testing import TOLERANCES

torch = pytest.importorskip("torch")
nn = torch.nn


def agree(mine, theirs):
    theirs = theirs.detach().numpy()
    assert mine.shape == theirs.shape
    assert np.abs(mine - theirs).max(initial=0) <= TOLERANCES["engine"] * max(1.0, np.abs(theirs).max(initial=0))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(5, 7),
        nn.LSTM(5, 7, 3, batch_first=True),
        nn.GRU(5, 7, 2),
        nn.RNN(5, 7, nonlinearity="relu"),
        nn.LSTM(5, 17, 2, bidirectional=True, bias=False),
    ],
    ids=str,
)
def test_bare_modules_have_states_tied(module, backend):
    session = fr.compile(fr.from_torch(module), backend=backend)
    x = torch.randn(6, 3, 5)
    y, final = module(x)
    final = final if isinstance(final, tuple) else (final,)
    for mine, theirs in zip(session(x), (y, *final), strict=True):
        agree(mine, theirs)
    assert [s.input for s in session.model.states] == ["h0", "c0"][: len(final)]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("cell", [nn.RNNCell(4, 5), nn.RNNCell(4, 5, nonlinearity="relu"), nn.GRUCell(4, 20), nn.LSTMCell(4, 5, bias=False)], ids=str)
def test_cells_step_as_torch_does(cell, backend):
    session = fr.compile(fr.from_torch(cell), backend=backend)
    stream, state = session.stream(3), None
    for x in torch.randn(10, 3, 4):
        state = cell(x, state)
        h = state[0] if isinstance(state, tuple) else state
        agree(stream.step(x), h)
    for mine, theirs in zip(stream.state.values(), state if isinstance(state, tuple) else (state,), strict=True):
        agree(mine, theirs)
    chunk = torch.randn(4, 3, 4).numpy()
    twin = session.stream(3)
    twin.state = stream.state
    assert np.array_equal(stream.push(chunk), np.stack([twin.step(x) for x in chunk]))


ACTIVATIONS = [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(0.3), nn.ELU(0.7), nn.Hardsigmoid(), nn.Softplus(), nn.Softsign(), nn.SiLU(), nn.GELU(),
               nn.Hardtanh(-0.2, 0.4), nn.ReLU6(), nn.Threshold(0.1, 0.0), nn.Softmax(-1), nn.LogSoftmax(-1), nn.Identity(), nn.Dropout(0.5)]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_activations(activation, backend):
    module = nn.Sequential(nn.Linear(5, 9), activation, nn.Linear(9, 33, bias=False)).eval()
    x = torch.randn(7, 5) * 3
    agree(fr.compile(fr.from_torch(module), backend=backend)(x), module(x))


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_sequential_with_recurrent_layers_runs_and_streams(batch_first):
    embedding, gru, lstm, head = (
        nn.Embedding(11, 6),
        nn.GRU(6, 9, 2, batch_first=batch_first),
        nn.LSTM(9, 5, batch_first=batch_first),
        nn.Linear(5, 4),
    )
    session = fr.compile(fr.from_torch(nn.Sequential(embedding, nn.Sequential(gru, nn.Dropout(0.5)), lstm, head, nn.Tanh()).eval()))
    tokens = torch.randint(0, 11, (3, 8))
    expected = torch.tanh(head(lstm(gru(embedding(tokens))[0])[0]))
    y = session(tokens)
    agree(y, expected)
    stream = session.stream(batch=3 if batch_first else 8)
    steps = tokens.T if batch_first else tokens
    mine = np.stack([stream.step(t.numpy()) for t in steps])
    assert np.array_equal(np.moveaxis(mine, 0, 1) if batch_first else mine, y)
    assert sorted(stream.state) == ["1.0.0.h", "1.0.1.h", "2.c", "2.h"]
    stream.reset()
    assert np.array_equal(stream.push(np.ascontiguousarray(steps)), mine)


def test_token_ids_out_of_range():
    session = fr.compile(fr.from_torch(nn.Sequential(nn.Embedding(11, 6), nn.GRU(6, 9))))
    for bad in (-1, 11):
        with pytest.raises(fr.ShapeError, match=rf"'x': {bad} is outside 0..10"):
            session(np.array([[3, bad]]))
    stream = session.stream()
    with pytest.raises(fr.ShapeError):
        stream.step(np.array([11]))
    assert not stream.state["1.h"].any()
    with pytest.raises(fr.DTypeError, match="int64"):
        session(np.array([[3]], np.int32))


class Custom(nn.Module):
    """A module that from_torch does not know."""


@pytest.mark.parametrize(
    "module,message",
    [
        (nn.Sequential(nn.Linear(3, 4), Custom()), "'1'.*Custom"),
        (nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1))), "'0.0'.*Conv2d"),
        (nn.Sequential(nn.Linear(3, 4), nn.Softmax()), "dim is not set"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False)), "'1'.*running statistics"),
        (nn.Sequential(nn.Conv1d(3, 4, 1), nn.PReLU(4)), "'1'.*slope"),
        (nn.Sequential(nn.LSTM(3, 4), nn.GRU(4, 5, batch_first=True)), "batch_first differs"),
        (nn.Sequential(nn.Linear(3, 4), nn.Softplus(beta=2)), "Softplus"),
        (nn.Sequential(nn.Linear(3, 4), nn.Softplus(threshold=1)), "Softplus"),
        (nn.LSTM(3, 4, device="meta"), "meta"),
        (nn.Sequential(nn.LSTMCell(3, 4)), "LSTMCell"),
        (nn.Sequential(nn.Linear(3, 4), nn.Embedding(3, 4)), "Embedding"),
        (nn.Sequential(nn.Embedding(3, 4, max_norm=1.0)), "max_norm"),
        (nn.Sequential(nn.ReLU()), "features"),
        ("not a module", "torch.nn.Module"),
    ],
)
def test_refused_by_name(module, message):
    with pytest.raises(fr.UnsupportedModelError, match=message):
        fr.from_torch(module)


def test_other_dtypes_and_lone_arguments_are_refused():
    with pytest.raises(fr.DTypeError, match="float64"):
        fr.from_torch(nn.LSTM(3, 4).double())
    with pytest.raises(fr.UnsupportedModelError, match="needs example_inputs"):
        fr.from_torch(nn.LSTM(3, 4), dynamic_shapes=({0: None},))


def test_a_module_that_stands_twice_runs_twice():
    linear, relu = nn.Linear(4, 4), nn.ReLU()
    for module in (nn.Sequential(linear, nn.Tanh(), linear), nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu)):
        x = torch.randn(5, 4)
        agree(fr.compile(fr.from_torch(module))(x), module(x))


def test_weights_are_copied():
    module, x = nn.Sequential(nn.Embedding(5, 4), nn.LSTM(4, 3), nn.Linear(3, 2)), np.array([[1], [2]])
    session = fr.compile(fr.from_torch(module))
    before = session(x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert np.array_equal(session(x), before)


def test_forward_hooks_are_refused():
    linear = nn.Linear(3, 4)
    linear.register_forward_hook(lambda module, x, y: y * 100)
    with pytest.raises(fr.UnsupportedModelError, match="'0'.*hooks"):
        fr.from_torch(nn.Sequential(linear))


def test_awkward_names_of_children():
    module = nn.Sequential()
    module.add_module("x", nn.Linear(3, 4))
    module.add_module("y", nn.Tanh())
    x = torch.randn(2, 3)
    agree(fr.compile(fr.from_torch(module))(x), module(x))


SEQUENTIALS = {
    "conv": lambda: nn.Sequential(nn.Conv1d(3, 6, 5, stride=2, padding=2, dilation=2), nn.ReLU(), nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3, groups=2, padding="same", bias=False), nn.PReLU(), nn.Flatten()),
    "conv_modes": lambda: nn.Sequential(nn.Conv1d(3, 4, 5, padding=2, padding_mode="reflect"), nn.Conv1d(4, 4, 3, padding=1, padding_mode="replicate"), nn.Conv1d(4, 2, 3, padding=1, padding_mode="circular")),
    "valid": lambda: nn.Sequential(nn.Conv1d(3, 4, 4, padding="valid"), nn.Softmax(1)),
    "norms": lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.GELU(), nn.LayerNorm(6), nn.GELU("tanh"), nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False), nn.LogSoftmax(-1)),
    "layer_norms": lambda: nn.Sequential(nn.LayerNorm(5), nn.GRU(5, 7), nn.LayerNorm(7, eps=1e-3, elementwise_affine=False), nn.Linear(7, 3), nn.LayerNorm((3,), bias=False), nn.Hardtanh(-0.5, 0.6)),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENTIALS)
def test_convolutions_and_norms(name):
    """Random weights and statistics; the answer in torch's eval mode, for two batch sizes and lengths."""
    torch.manual_seed(0)
    module = SEQUENTIALS[name]().eval()
    with torch.no_grad():
        for tensor in [*module.parameters(), *(b for b in module.buffers() if b.dtype == torch.float32)]:
            tensor.copy_(torch.rand_like(tensor) + 0.1)  # positive: a variance is among them
    session = fr.compile(fr.from_torch(module))
    for batch, length in ((1, 20), (3, 33)):
        x = (
            torch.randn(batch, 3, length)
            if "conv" in name or name == "valid"
            else torch.randn(length, batch, 5)
            if name == "layer_norms"
            else torch.randn(batch, 5)
        )
        want = x
        for layer in module:
            want = layer(want)
            want = want[0] if isinstance(want, tuple) else want
        agree(session(x), want.detach())
    assert "NumPy" not in session.explain().replace("Softmax", "") or name in ("norms", "valid")


def test_a_norm_around_a_recurrent_layer_streams():
    session = fr.compile(fr.from_torch(SEQUENTIALS["layer_norms"]().eval()))
    x = np.random.default_rng(0).standard_normal((12, 2, 5)).astype(np.float32)
    stream = session.stream(2)
    assert np.array_equal(np.stack([stream.step(t) for t in x]), session(x))
