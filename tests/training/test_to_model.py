"""Trained networks in the engine, streams among it, and weights both ways with torch and fr's layers."""

import numpy as np
import pytest
import torch

import fastrnn as fr
import fastrnn.training as tr

STACKS = {
    "rnn": lambda: tr.RNN(6, 9, num_layers=2),
    "rnn relu": lambda: tr.RNN(6, 9, nonlinearity="relu", bidirectional=True),
    "gru": lambda: tr.GRU(6, 9, num_layers=2, bidirectional=True),
    "gru before": lambda: tr.GRU(6, 9, reset_after=False, bias=False),
    "lstm": lambda: tr.LSTM(6, 9, num_layers=2, proj_size=4),
    "lstm peepholes": lambda: tr.LSTM(6, 9, peepholes=True, reverse=True),
    "lstm coupled": lambda: tr.LSTM(6, 9, input_forget=True, peepholes=True, dropout=0.5, num_layers=2),
}


def network(name):
    layer = STACKS[name]()
    return tr.Sequential(
        tr.Embedding(11, 6),
        tr.LayerNorm(6),
        layer,
        tr.Dropout(0.5),
        tr.Linear(layer.gives, 5),
        tr.ReLU(),
        tr.Linear(5, 4, bias=False),
        tr.Sigmoid(),
        seed=3,
    )


@pytest.mark.parametrize("name", STACKS)
def test_a_model_computes_what_the_network_does(name, tmp_path):
    net, x = network(name), np.random.default_rng(0).integers(0, 11, (13, 3))
    model, wanted = net.to_model(), net(x)
    net.reset_parameters(0)  # the model keeps its own
    session = fr.compile(model)
    y = session(x)
    assert y.shape == wanted.shape and y.dtype == wanted.dtype and np.abs(y - wanted).max() <= 2e-6
    model.save(tmp_path / "m.safetensors")
    assert np.array_equal(fr.compile(fr.load(tmp_path / "m.safetensors"))(x), y)
    if name in ("rnn", "gru before", "lstm", "lstm coupled"):
        stream = session.stream(batch=3)
        assert np.array_equal(np.concatenate([stream.push(x[:5]), np.stack([stream.step(row) for row in x[5:]])]), y)
    else:
        with pytest.raises(fr.NotStreamableError):
            session.stream(batch=3)


@pytest.mark.parametrize("name", STACKS)
def test_a_model_that_takes_lengths(name):
    net, x, lengths = network(name), np.random.default_rng(0).integers(0, 11, (13, 4)), np.array([5, 13, 1, 9])
    session = fr.compile(net.to_model(lengths=True))
    y = session.run({"x": x, "lengths": lengths})["y"]
    inside = np.arange(13)[:, None] < lengths
    assert np.abs(y - net(x, lengths=lengths))[inside].max() <= 2e-6 and np.abs(session.run({"x": x})["y"] - net(x)).max() <= 2e-6
    with pytest.raises(fr.UnsupportedModelError, match="layer '1.last'"):
        tr.Sequential(tr.GRU(3, 8), tr.Last()).to_model(lengths=True)


def test_a_model_with_one_answer_a_sequence():
    net, x = (
        tr.Sequential(tr.GRU(3, 8), tr.Last(), tr.Tanh(), tr.Linear(8, 2), seed=0),
        np.random.default_rng(0).standard_normal((9, 4, 3)).astype("f4"),
    )
    y = fr.compile(net.to_model())(x)
    assert y.shape == (4, 2) and np.abs(y - net(x)).max() <= 2e-6


def test_what_has_no_model_is_refused():
    net = tr.Sequential(tr.GRU(3, 8, dtype="float64"))
    with pytest.raises(fr.DTypeError, match=r"net.astype\('float32'\).to_model\(\)"):
        net.to_model()
    x = np.random.default_rng(0).standard_normal((9, 4, 3))
    assert np.abs(fr.compile(net.astype("float32").to_model())(x.astype("f4")) - net(x)).max() <= 2e-6
    with pytest.raises(fr.UnsupportedModelError, match="how many features"):
        tr.Sequential(tr.Tanh()).to_model()

    class Own(tr.Layer):
        kind, takes, gives = "own", 3, 3

    with pytest.raises(fr.UnsupportedModelError, match="layer '0.own' is a Own"):
        tr.Sequential(Own({})).to_model()


@pytest.mark.parametrize(
    ("ours", "layer", "module", "options"),
    [
        (tr.LSTM, fr.LSTM, torch.nn.LSTM, {"proj_size": 4, "num_layers": 2, "bidirectional": True}),
        (tr.GRU, fr.GRU, torch.nn.GRU, {"bidirectional": True}),
        (tr.RNN, fr.RNN, torch.nn.RNN, {"num_layers": 2, "bias": False}),
    ],
    ids=["lstm", "gru", "rnn"],
)
def test_weights_move_both_ways(ours, layer, module, options):
    theirs, net, x = module(3, 8, **options), ours(3, 8, seed=0, **options), np.random.default_rng(0).standard_normal((9, 4, 3)).astype("f4")
    net.load_state_dict(theirs.state_dict())
    drop_in = layer(3, 8, **options)
    drop_in.load_state_dict(net.state_dict())
    with torch.no_grad():
        wanted = theirs(torch.tensor(x))[0].numpy()
    assert np.abs(tr.Sequential(net)(x) - wanted).max() <= 2e-6 and np.abs(drop_in(x)[0] - wanted).max() <= 2e-6
    back = module(3, 8, **options)
    back.load_state_dict({name: torch.tensor(a) for name, a in net.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), theirs.state_dict().values()))
