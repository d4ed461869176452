"""Layers that see rows alone, and networks of them: gradients against autograd and central differences, and what is refused."""

import numpy as np
import pytest
import torch
from training_oracle import TOLERANCE, differs, tensors

import fastrnn as fr
import fastrnn.training as tr

I = 7
# name: (ours, torch's) from features I, given the dtype of ours
LAYERS = {
    "linear": (lambda dt: tr.Linear(I, 5, dtype=dt), lambda: torch.nn.Linear(I, 5)),
    "linear without a bias": (lambda dt: tr.Linear(I, 5, bias=False, dtype=dt), lambda: torch.nn.Linear(I, 5, bias=False)),
    "layernorm": (lambda dt: tr.LayerNorm(I, dtype=dt), lambda: torch.nn.LayerNorm(I)),
    "layernorm without a bias": (lambda dt: tr.LayerNorm((I,), eps=0.1, bias=False, dtype=dt), lambda: torch.nn.LayerNorm(I, eps=0.1, bias=False)),
    "tanh": (lambda dt: tr.Tanh(), torch.nn.Tanh),
    "relu": (lambda dt: tr.ReLU(), torch.nn.ReLU),
    "sigmoid": (lambda dt: tr.Sigmoid(), torch.nn.Sigmoid),
    "no dropout": (lambda dt: tr.Dropout(0.0), lambda: torch.nn.Dropout(0.0)),
    "all dropped": (lambda dt: tr.Dropout(1.0), lambda: torch.nn.Dropout(1.0)),
}


def shaken(layer, seed):
    """Parameters drawn anew, those that start as ones and zeros too."""
    rng = np.random.default_rng(seed)
    layer.load_state_dict({name: rng.standard_normal(a.shape).astype(a.dtype) for name, a in layer.state_dict().items()})
    return layer


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_a_layer(name, dtype):
    ours, theirs = LAYERS[name]
    layer, module, rng = shaken(ours(dtype), 1), theirs().to(getattr(torch, dtype)), np.random.default_rng(2)
    module.load_state_dict(tensors(layer.state_dict(), grad=False))
    x = rng.standard_normal((13, I)).astype(dtype)
    run = tr.Run(tr.Packing.of(13, 1), True, rng)
    y, saved, state = layer.forward(x, run)
    given = torch.tensor(x, requires_grad=True)
    wanted = module(given)
    dy = rng.standard_normal(y.shape).astype(dtype)
    wanted.backward(torch.tensor(dy))
    grads = {n: np.ones_like(a) for n, a in layer.parameters().items()}
    dx = layer.backward(dy.copy(), saved, grads)
    assert state is None and differs(y, wanted) <= TOLERANCE[dtype] and differs(dx, given.grad) <= TOLERANCE[dtype]
    for key, p in module.named_parameters():
        assert differs(grads[key] - 1, p.grad) <= TOLERANCE[dtype]  # they add to what is there
    if name not in ("all dropped", "no dropout"):
        assert layer.backward(dy, layer.forward(x, run)[1], grads, need_dx=False) is None
    assert layer.forward(x, run, keep=False)[1] is None


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradients_of_an_embedding_with_indices_that_repeat(dtype):
    layer, rng = tr.Embedding(9, 4, seed=0, dtype=dtype), np.random.default_rng(0)
    x, dy = rng.integers(1, 6, 40).astype(np.int32), rng.standard_normal((40, 4)).astype(dtype)
    y, saved, _ = layer.forward(x, tr.Run(tr.Packing.of(40, 1)))
    w = torch.tensor(layer.parameters()["weight"], requires_grad=True)
    wanted = torch.nn.functional.embedding(torch.tensor(x), w)
    wanted.backward(torch.tensor(dy))
    grads = {"weight": np.zeros((9, 4), dtype)}
    layer.backward(dy, saved, grads)
    assert np.array_equal(y, wanted.detach().numpy()) and differs(grads["weight"], w.grad) <= TOLERANCE[dtype]
    assert not grads["weight"][[0, 6, 7, 8]].any()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_sigmoid_keeps_its_digits_where_it_nears_zero(dtype):
    x = np.array([[-1e30, -80, -20, -1, 0, 1, 90, np.inf]], dtype)
    y, saved, _ = tr.Sigmoid().forward(x, tr.Run(tr.Packing.of(1, 1)))
    wanted = torch.sigmoid(torch.tensor(x)).numpy()
    bound = 4 * np.finfo(dtype).eps
    assert y.dtype == x.dtype and np.allclose(y, wanted, rtol=bound, atol=0)
    assert np.allclose(tr.Sigmoid().backward(np.ones_like(x), saved, {}), wanted * (1 - wanted), rtol=bound, atol=bound * (x[0] > 0))


def test_dropout_keeps_the_mean_and_its_own_mask():
    layer, rng = tr.Dropout(0.25), np.random.default_rng(0)
    x = np.ones((400, 100))
    y, saved, _ = layer.forward(x, tr.Run(tr.Packing.of(400, 1), True, rng))
    assert set(np.unique(y)) == {0.0, 4 / 3} and abs(y.mean() - 1) < 0.01
    assert np.array_equal(layer.backward(x.copy(), saved, {}), y)
    assert layer.forward(x, tr.Run(tr.Packing.of(400, 1), False))[0] is x


def network(dtype):
    return tr.Sequential(
        tr.Embedding(11, I, dtype=dtype), tr.LayerNorm(I, dtype=dtype), tr.Linear(I, 6, dtype=dtype), tr.Tanh(), tr.Linear(6, 5, dtype=dtype), seed=3
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradients_of_a_network_over_ragged_batches(dtype):
    net, rng = network(dtype), np.random.default_rng(1)
    nn = torch.nn
    module = nn.Sequential(nn.Embedding(11, I), nn.LayerNorm(I), nn.Linear(I, 6), nn.Tanh(), nn.Linear(6, 5)).to(getattr(torch, dtype))
    module.load_state_dict(tensors(net.state_dict(), grad=False))
    x, y, lengths = rng.integers(0, 11, (8, 4)), rng.integers(0, 5, (8, 4)), np.array([3, 8, 0, 5])
    inside = torch.tensor(np.arange(8)[:, None] < lengths)
    wanted = torch.nn.functional.cross_entropy(module(torch.tensor(x))[inside], torch.tensor(y)[inside])
    wanted.backward()
    loss, grads = tr.value_and_grad(net, tr.cross_entropy, x, y, lengths=lengths)
    assert type(loss) is float and abs(loss - wanted.item()) <= TOLERANCE[dtype] * loss
    assert abs(tr.value(net, tr.cross_entropy, x, y, lengths=lengths) - loss) <= 1e-6
    assert grads.keys() == net.parameters().keys() == dict(module.named_parameters()).keys()
    for key, p in module.named_parameters():
        assert differs(grads[key], p.grad) <= TOLERANCE[dtype], key
    with torch.no_grad():
        assert differs(net(x, lengths=lengths), torch.where(inside[..., None], module(torch.tensor(x)), 0)) <= TOLERANCE[dtype]


def test_initial_parameters_come_from_torchs_distributions():
    linear, embedding, norm = tr.Linear(400, 300, seed=0), tr.Embedding(300, 200, seed=0), tr.LayerNorm(4)
    for array in linear.parameters().values():
        assert 0.049 < np.abs(array).max() <= 0.05 and abs(array.std() - 0.05 / 3**0.5) < 3e-3
    assert abs(embedding.parameters()["weight"].std() - 1) < 0.01 and abs(embedding.parameters()["weight"].mean()) < 0.01
    assert np.array_equal(norm.parameters()["weight"], np.ones(4)) and not norm.parameters()["bias"].any()


def test_seeds_repeat_and_differ():
    a, b, c = (tr.Linear(3, 4, seed=s).state_dict() for s in (5, 5, 6))
    assert all(np.array_equal(a[k], b[k]) and not np.array_equal(a[k], c[k]) for k in a)
    one, two = network("float32"), network("float64")
    assert all(np.array_equal(a, two.parameters()[k].astype("float32")) for k, a in one.parameters().items())
    assert not np.array_equal(one.layers[2].parameters()["weight"][:5, :6], one.layers[4].parameters()["weight"][:5, :6])


def test_parameters_are_live_and_state_dicts_are_copies():
    layer = tr.Linear(2, 3, seed=0)
    held, copy = layer.parameters()["weight"], layer.state_dict()
    held += 1
    assert np.array_equal(layer.parameters()["weight"], copy["weight"] + 1)
    layer.load_state_dict({k: torch.tensor(v) for k, v in copy.items()})
    assert layer.parameters()["weight"] is held and np.array_equal(held, copy["weight"])
    wide = layer.astype("float64")
    wide.parameters()["weight"][...] = 0
    assert wide.dtype == np.float64 and np.array_equal(held, copy["weight"])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda d: d.pop("2.bias"), fr.ShapeError, "missing 2.bias"),
        (lambda d: d.update(more=d["2.bias"]), fr.ShapeError, "unknown more"),
        (lambda d: d.update({"2.weight": d["2.weight"].T}), fr.ShapeError, r"2\.weight must have shape \(6, 7\), got \(7, 6\); is it transposed\?"),
        (lambda d: d.update({"2.bias": d["2.bias"].astype("float64")}), fr.DTypeError, r"2\.bias must be float32"),
    ],
)
def test_state_dicts_that_do_not_fit_change_nothing(change, error, says):
    net = network("float32")
    before, given = net.state_dict(), net.state_dict()
    given["0.weight"] = given["0.weight"] + 1
    change(given)
    with pytest.raises(error, match=says):
        net.load_state_dict(given)
    assert all(np.array_equal(a, before[k]) for k, a in net.parameters().items())


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: tr.Linear(0, 3), fr.ShapeError, "linear: in_features must be a positive integer, got 0"),
        (lambda: tr.Embedding(3, 2.0), fr.ShapeError, "embedding_dim"),
        (lambda: tr.LayerNorm((3, 4)), fr.ShapeError, "normalized_shape"),
        (lambda: tr.Dropout(1.5), fr.UnsupportedModelError, "from 0 to 1"),
        (lambda: tr.Linear(2, 3, dtype="float16"), fr.DTypeError, "float32 or float64"),
        (lambda: tr.Linear(2, 3, dtype=None), fr.DTypeError, "linear: dtype must be float32 or float64, got None"),
        (lambda: tr.Sequential(tr.Linear(2, 3)).astype(None), fr.DTypeError, "got None"),
        (lambda: tr.LayerNorm(3, eps=-1e-5), fr.UnsupportedModelError, "layernorm: eps must be a finite number"),
        (lambda: tr.Linear(2, 3, dtype="nothing"), fr.DTypeError, "no dtype"),
        (lambda: tr.Sequential(), fr.UnsupportedModelError, "at least one"),
        (lambda: tr.Sequential(tr.Linear(2, 3), np.tanh), fr.UnsupportedModelError, "layer '1' must be a layer"),
        (
            lambda: tr.Sequential(tr.Linear(2, 3), tr.Tanh(), tr.Linear(4, 3)),
            fr.ShapeError,
            r"layer '2' \(linear\) takes 4 features, but layer '1' \(tanh\) gives 3",
        ),
        (lambda: tr.Sequential(tr.Linear(2, 3), tr.Tanh(dtype="float64")), fr.DTypeError, r"layer '1' \(tanh\) is float64"),
        (lambda: tr.Sequential(tr.Linear(2, 3), tr.Embedding(2, 3)), fr.ShapeError, "can only be the first"),
        (lambda: tr.Sequential(*[tr.Linear(3, 3)] * 2), fr.UnsupportedModelError, "more than one place"),
    ],
)
def test_layers_that_do_not_fit_are_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_inputs_that_do_not_fit_are_refused():
    net, words = tr.Sequential(tr.Linear(3, 2), tr.Tanh(), seed=0), network("float32")
    x, y = np.zeros((4, 2, 3), "f4"), np.zeros((4, 2, 2), "f4")
    cases = [
        (lambda: tr.value(tr.Linear(3, 2), tr.mean_squared_error, x, y), fr.UnsupportedModelError, "a network is a Sequential, got Linear"),
        (lambda: tr.value(net, "mse", x, y), fr.UnsupportedModelError, "a loss is a function, got 'mse'"),
        (lambda: net(x[0]), fr.ShapeError, r"layer '0' \(linear\): input 'x' must have shape \(T, B, 3\), got \(2, 3\)"),
        (lambda: net(x.astype("f8")), fr.DTypeError, "must be float32"),
        (lambda: net(x, lengths=[5, 1]), fr.ShapeError, "lengths"),
        (lambda: net(x, lengths=[4.0, 1.0]), fr.DTypeError, "lengths"),
        (lambda: words(x), fr.DTypeError, "must be integers"),
        (lambda: words(np.array([[3, 11]])), fr.ShapeError, "from 0 to 10, got 3 to 11"),
        (lambda: words(np.array([[-1]])), fr.ShapeError, "got -1"),
        (
            lambda: tr.value_and_grad(net, tr.mean_squared_error, x, y[:3]),
            fr.ShapeError,
            r"'target' must have shape \(T, B, ...\) with leading axes \(4, 2\), got \(3, 2, 2\)",
        ),
        (lambda: tr.value_and_grad(net, tr.mean_squared_error, x, y, mask=np.ones((2, 4), bool)), fr.ShapeError, "'mask'"),
        (lambda: tr.Sequential(tr.Last(), tr.Last(), tr.Linear(3, 2))(x), fr.ShapeError, "one Last"),
        (lambda: tr.Sequential(tr.Last(), tr.Linear(3, 2))(x, lengths=[0, 4]), fr.ShapeError, "length 0"),
    ]
    for call, error, says in cases:
        with pytest.raises(error, match=says):
            call()


def test_what_lies_past_the_end_is_never_read():
    words = network("float32")
    assert words(np.array([[3, 2], [4, 99]]), lengths=[2, 1]).shape == (2, 2, 5)


def test_the_last_step_of_each_sequence():
    net, rng = tr.Sequential(tr.Linear(3, 4, dtype="float64"), tr.Last(), tr.Linear(4, 2, dtype="float64"), seed=0), np.random.default_rng(0)
    x, lengths, y = rng.standard_normal((6, 5, 3)), np.array([2, 6, 1, 6, 3]), rng.integers(0, 2, 5)
    w = tensors(net.state_dict())
    picked = torch.tensor(x[lengths - 1, np.arange(5)])
    logits = torch.nn.functional.linear(torch.nn.functional.linear(picked, w["0.weight"], w["0.bias"]), w["2.weight"], w["2.bias"])
    mask = np.array([True, True, False, True, True])
    loss, grads = tr.value_and_grad(net, tr.cross_entropy, x, y, lengths=lengths, mask=mask)
    wanted = torch.nn.functional.cross_entropy(logits[mask], torch.tensor(y[mask]))
    wanted.backward()
    assert (
        abs(loss - wanted.item()) < 1e-12 and all(differs(grads[k], w[k].grad) < 1e-9 for k in w) and differs(net(x, lengths=lengths), logits) < 1e-12
    )
    flipped, again = tr.value_and_grad(net, tr.cross_entropy, x.swapaxes(0, 1), y, lengths=lengths, mask=mask, batch_first=True)
    assert flipped == loss and all(np.array_equal(again[k], grads[k]) for k in grads)
    assert np.array_equal(net(x.swapaxes(0, 1), lengths=lengths, batch_first=True), net(x, lengths=lengths))


def test_networks_inside_networks():
    inner = tr.Sequential(tr.Linear(3, 4), tr.Tanh())
    net = tr.Sequential(inner, tr.Sequential(tr.Last(), tr.Linear(4, 2)), seed=1)
    flat = tr.Sequential(tr.Linear(3, 4), tr.Tanh(), tr.Last(), tr.Linear(4, 2), seed=1)
    assert list(net.parameters()) == ["0.0.weight", "0.0.bias", "1.1.weight", "1.1.bias"] and net.per_sequence
    x, y = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4"), np.array([0, 1])
    loss, grads = tr.value_and_grad(net, tr.cross_entropy, x, y)
    wanted, others = tr.value_and_grad(flat, tr.cross_entropy, x, y)
    assert loss == wanted and all(np.array_equal(a, b) for a, b in zip(grads.values(), others.values()))
    assert np.array_equal(fr.compile(net.to_model())(x), fr.compile(flat.to_model())(x))


def test_a_call_gives_a_new_array():
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype("f4")
    for net in (tr.Sequential(tr.Dropout(0.5)), tr.Sequential(tr.RNN(3, 3, seed=0)), tr.Sequential(tr.Dropout(0.0), tr.Last())):
        y, again = net(x), net(x)
        y[...] = 7
        assert not (x == 7).any() and not np.shares_memory(x, y) and np.array_equal(net(x), again)


def test_all_integers_and_all_layouts_of_memory_are_taken():
    words, rng = network("float32"), np.random.default_rng(0)
    x = rng.integers(0, 11, (6, 3))
    wanted = words(x)
    assert all(np.array_equal(words(x.astype(kind)), wanted) for kind in ("u1", "i2", "u4", "u8", ">i4"))
    assert np.array_equal(words(np.asfortranarray(x)), wanted)
    loss = tr.value(words, tr.cross_entropy, x, x % 5)
    assert all(tr.value_and_grad(words, tr.cross_entropy, x.astype(kind), (x % 5).astype(kind))[0] == loss for kind in ("u1", "u8"))
    net, x = tr.Sequential(tr.Linear(4, 2), seed=0), rng.standard_normal((6, 3, 4)).astype("f4")
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], frozen, torch.tensor(x)):
        assert np.array_equal(net(same), net(x))


def test_empty_batches_pass():
    net = tr.Sequential(tr.Linear(3, 2), tr.LayerNorm(2), seed=0)
    assert net(np.zeros((0, 2, 3), "f4")).shape == (0, 2, 2) and net(np.zeros((2, 0, 3), "f4")).shape == (2, 0, 2)
    with pytest.raises(fr.ShapeError, match="no entry counts"):
        tr.value_and_grad(net, tr.mean_squared_error, np.zeros((0, 2, 3), "f4"), np.zeros((0, 2, 2), "f4"))


def test_a_loss_of_ones_own():
    net = tr.Sequential(tr.Linear(3, 2, dtype="float64"), tr.Tanh(), seed=0)
    x, zeros = np.random.default_rng(0).standard_normal((4, 2, 3)), np.zeros((4, 2, 2))
    loss, grads = tr.value_and_grad(net, lambda rows, target: (float(np.square(rows).sum() / 2), rows), x, zeros)
    y = net(x)
    assert loss == np.square(y).sum() / 2 and np.allclose(grads["0.bias"], (y * (1 - y * y)).sum((0, 1)), rtol=1e-14)
    kept = np.full((8, 2), 2.0)
    for _ in range(2):
        again = tr.value_and_grad(net, lambda rows, target: (1.0, kept), x, zeros)[1]
    assert (kept == 2).all() and np.allclose(again["0.bias"], (2 * (1 - y * y)).sum((0, 1)), rtol=1e-14)
    with pytest.raises(fr.DTypeError, match="loss: it must return its value and its gradient, got float"):
        tr.value_and_grad(net, lambda rows, target: 1.0, x, zeros)
    assert type(tr.value(net, lambda rows, target: (np.float32(1), kept), x, zeros)) is float
    for name in ("rows", "target"):  # which layers, or the caller, still need
        with pytest.raises(ValueError, match="read-only"):
            tr.value_and_grad(net, lambda rows, target, name=name: (1.0, np.negative(rows, out={"rows": rows, "target": target}[name])), x, zeros)
    for error, bad in ((fr.DTypeError, kept.astype("f4")), (fr.DTypeError, 2.0), (fr.ShapeError, kept[:4])):
        with pytest.raises(error, match="loss: the gradient must"):
            tr.value_and_grad(net, lambda rows, target, bad=bad: (1.0, bad), x, zeros)


def test_an_embedding_says_its_sizes():
    assert repr(tr.Embedding(4, 8)) == "Embedding(4 -> 8, float32)"


def test_a_generator_is_made_where_a_layer_may_draw():
    class Own(tr.Layer):
        """Which says nothing of it."""

    quiet = (tr.Linear(3, 3), tr.LSTM(3, 3), tr.LSTM(3, 3, 2), tr.LayerNorm(3), tr.Tanh(), tr.ReLU(), tr.Sigmoid(), tr.Last())
    assert not tr.Sequential(*quiet).draws and not tr.Embedding(3, 3).draws
    assert tr.Sequential(tr.Linear(3, 3), tr.Sequential(tr.Dropout(0.1))).draws and tr.GRU(3, 3, 2, dropout=0.1).draws and Own({}).draws
    with pytest.raises(TypeError):  # what is given is looked at, drawn from or not
        tr.value_and_grad(tr.Sequential(tr.Linear(3, 3)), tr.mean_squared_error, np.ones((2, 1, 3), "f4"), np.ones((2, 1, 3), "f4"), rng="none")
