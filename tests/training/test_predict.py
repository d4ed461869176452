"""What a trained network is asked for: predictions of many sequences, how many are right, a file that the engine reads."""

import numpy as np
import pytest

import fastrnn as fr
import fastrnn.training as tr

LENGTHS = (7, 1, 12, 7, 0, 3)


def networks(last):
    """GRUs in both reset forms, over features and over tokens."""
    end = [tr.Last()] if last else []
    return (
        tr.Sequential(tr.GRU(3, 5, reset_after=False, bidirectional=not last), *end, tr.Linear(5 if last else 10, 4), seed=0),
        tr.Sequential(tr.Embedding(9, 3), tr.GRU(3, 5), *end, tr.Linear(5, 4), seed=0),
    )


def sequences(net, lengths=LENGTHS):
    rng = np.random.default_rng(1)
    return [rng.integers(9, size=n) if net.integers else rng.standard_normal((n, 3)).astype("f4") for n in lengths]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("size", [1, 4, 64])
def test_each_sequence_gets_what_it_gets_alone(last, which, size):
    net = networks(last)[which]
    xs = sequences(net, [n for n in LENGTHS if n or not last])
    found = net.predict(xs, batch_size=size)
    assert isinstance(found, np.ndarray if last else list) and len(found) == len(xs)
    for x, y in zip(xs, found):
        alone = net(x[:, None])
        np.testing.assert_allclose(y, alone[0] if last else alone[:, 0], atol=1e-6)  # sums over rows may be taken in another order
        assert y.shape == ((4,) if last else (len(x), 4)) and y.base is None or last


@pytest.mark.parametrize("last", [False, True])
def test_one_array_gives_one_array(last):
    for net in networks(last):
        xs = np.stack(sequences(net, (6,) * 5), axis=1)  # (T, n, ...)
        np.testing.assert_allclose(net.predict(xs, 2), net(xs), atol=1e-6)


def test_what_is_not_predicted():
    net = networks(False)[0]
    for xs, size, error, says in (
        ([], 4, fr.ShapeError, "no sequence"),
        (sequences(net), 0, fr.ShapeError, "batch_size"),
        (np.zeros(3, "f4"), 4, fr.ShapeError, "(T, n, ...)"),
        ([np.zeros((2, 3), "f4"), np.zeros((2, 4), "f4")], 4, fr.ShapeError, "sequence 1"),
        ([np.zeros((2, 3))], 4, fr.DTypeError, "float32"),
    ):
        with pytest.raises(error, match=says.replace("(", r"\(").replace(")", r"\)")):
            net.predict(xs, size)


def test_a_saved_network_is_a_model(tmp_path):
    net = networks(False)[1]
    net.save(tmp_path / "tagger.safetensors", lengths=True)
    model = fr.load(tmp_path / "tagger.safetensors")
    assert model.name == "tagger" and "lengths" in model.input_names
    x = np.random.default_rng(0).integers(9, size=(6, 3))
    y = fr.compile(model).run({"x": x, "lengths": np.array([6, 2, 4])})["y"]
    wanted = net(x, [6, 2, 4])
    for b, n in enumerate((6, 2, 4)):
        np.testing.assert_allclose(y[:n, b], wanted[:n, b], atol=1e-6)
    with pytest.raises(fr.DTypeError):
        net.astype("float64").save(tmp_path / "double.safetensors")
    assert not (tmp_path / "double.safetensors").exists()


def test_accuracy_counts_what_is_right():
    rng = np.random.default_rng(0)
    logits, classes, mask = rng.standard_normal((6, 4, 5)).astype("f4"), rng.integers(5, size=(6, 4)), rng.random((6, 4)) < 0.5
    right = logits.argmax(-1) == classes
    assert tr.accuracy(logits, classes) == right.mean() and tr.accuracy(logits, classes, mask) == right[mask].mean()
    bits = rng.random((6, 4, 5)) < 0.5
    assert tr.accuracy(logits, bits, mask) == ((logits > 0) == bits)[mask].mean() == tr.accuracy(logits, bits.astype("f4"), mask)
    assert tr.accuracy(np.array([[1.0, 1.0]], "f4"), np.array([0])) == 1  # the first of equals
    for given, error in (
        ((logits, classes[:3]), fr.ShapeError),
        ((logits, classes, np.zeros_like(mask)), fr.ShapeError),
        ((logits, classes, mask.astype(int)), fr.DTypeError),
    ):
        with pytest.raises(error, match="accuracy"):
            tr.accuracy(*given)


def test_accuracy_of_a_network_is_that_of_its_predictions():
    for last in (False, True):
        net = networks(last)[1]
        xs = sequences(net, (5, 2, 8))
        ys = [int(x[-1]) % 4 if last else x % 4 for x in xs]
        found = net.predict(xs)
        wanted = np.mean(np.concatenate([np.atleast_1d(y.argmax(-1) == t) for y, t in zip(found, ys)]))
        assert tr.evaluate(net, tr.accuracy, (xs, ys), 2) == pytest.approx(wanted)
    x, y = xs[0][:, None], np.array([1])
    assert tr.value(net, tr.accuracy, x, y) in (0.0, 1.0)
    with pytest.raises(fr.DTypeError, match="its value and its gradient"):
        tr.value_and_grad(net, tr.accuracy, x, y)
