"""Faults that other engines shipped, each as a test by its cause. (Those about files are in tests/model and tests/converters.)"""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, Value
from fastrnn.testing import LAYERS, Case, Shape


def recurrent_model(op="LSTM", I=3, H=4, directions=1, change=None, **attributes):
    """A model of one node over zero weights, after `change` to the weights."""
    G = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    weights = {
        "w": np.zeros((directions, G * H, I), np.float32),
        "r": np.zeros((directions, G * H, H), np.float32),
        "b": np.zeros((directions, 2 * G * H), np.float32),
    }
    (change or (lambda w: None))(weights)
    return Model((Value("x", "float32", ("T", "B", I)),), ("y",), (Node(op, "cell", ("x", "w", "r", "b"), ("y",), attributes),), weights)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.update(r=w["r"][:, :, :3]),  # onnxruntime 29595: weights that do not match hidden_size
        lambda w: w.update(w=w["w"][:, :-1]),  # pytorch 194049: an undersized gate tensor
        lambda w: w.update(b=w["b"][:, :-1]),
        lambda w: w.update(w=w["w"][0]),  # onnxruntime 28653: dims read before the rank was checked
        lambda w: w.update(r=w["r"][..., None]),
        lambda w: w.update(w=np.concatenate([w["w"]] * 2)),
        lambda w: w.update(w=w["w"].swapaxes(1, 2)),
    ],
    ids=["R-narrow", "W-short", "B-short", "W-rank", "R-rank", "W-directions", "W-transposed"],
)
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_weights_that_do_not_fit_are_refused_before_anything_is_read(op, change):
    with pytest.raises((fr.ShapeError, fr.InvalidModelError), match="'cell'"):
        recurrent_model(op, change=change)


def test_a_malformed_node_is_refused_whatever_a_checker_says():
    """onnx 7879: hidden_size that disagrees with the weights passes the ONNX checker."""
    with pytest.raises(fr.ShapeError, match="'cell'"):
        recurrent_model(hidden_size=5)
    with pytest.raises(fr.InvalidModelError, match="sideways"):
        recurrent_model(direction="sideways")


@pytest.mark.parametrize("attributes", [{"activations": ("relu", "tanh", "tanh")}, {"clip": 0.1}, {"input_forget": 1}, {"direction": "reverse"}])
def test_no_attribute_is_ignored(attributes):
    """tract 2751: each changes the answer."""

    def random_weights(w):
        w.update({name: np.random.default_rng(0).uniform(-1, 1, a.shape).astype(np.float32) for name, a in w.items()})

    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
    plain, changed = (fr.compile(recurrent_model(change=random_weights, **a))(x) for a in ({}, attributes))
    assert np.abs(plain - changed).max() > 1e-3


def test_unknown_attributes_are_refused_by_name():
    with pytest.raises(fr.UnsupportedModelError, match="'cell'.*'peephole_mode'"):
        recurrent_model(peephole_mode=1)


@pytest.mark.parametrize("kind", list(LAYERS))
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True, "num_layers": 2}])
def test_nothing_is_left_unwritten_past_the_longest_length(kind, options):
    """onnxruntime 1193: outputs uninitialised past the longest length. Memory is dirtied between the calls."""
    layer, x = LAYERS[kind](3, 9, seed=0, **options), np.random.default_rng(0).standard_normal((8, 3, 3)).astype(np.float32)
    for _ in range(20):
        np.full((8, 3, 18), np.nan, np.float32)
        y, _ = layer(x, lengths=[5, 0, 2])
        assert not y[5:].any() and not y[2:, 2].any() and not y[:, 1].any()


@pytest.mark.parametrize("kind", list(LAYERS))
@pytest.mark.parametrize("reverse", [False, True])
def test_a_row_of_length_zero_returns_its_initial_state(kind, reverse):
    """tensorflow CVE-2020-26270 crashed here; a reverse pass must not read before the start."""
    case = Case(kind, Shape(4, 3, 2, 5, lengths=(0, 4, 0)), {"reverse": reverse}, seed=0)
    y, *finals = case.run(case.layer())
    for final, initial in zip(finals, case.states, strict=True):
        assert np.array_equal(final[:, [0, 2]], initial[:, [0, 2]]) and not np.array_equal(final[:, 1], initial[:, 1])
    assert not y[:, [0, 2]].any()


def test_nan_in_a_weight_is_not_hidden_by_a_bias():
    layer = fr.RNN(2, 3, seed=0)
    state = layer.state_dict()
    state["weight_ih_l0"][1, 0] = np.nan
    layer.load_state_dict(state)
    y, _ = layer(np.ones((2, 1, 2), np.float32))
    assert np.isnan(y[0, 0, 1]) and not np.isnan(y[0, 0, 0]) and np.isnan(y[1]).all()


def test_nothing_leaks_from_one_sequence_to_the_next():
    """triton 7107, onnxruntime 18672: a call is a function of its arguments."""
    layer, random = fr.LSTM(4, 20, 2, bidirectional=True, seed=0), np.random.default_rng(0)
    x = random.standard_normal((6, 2, 4)).astype(np.float32)
    first = layer(x)
    for T in (1, 3, 9):
        layer(random.standard_normal((T, 5, 4)).astype(np.float32) * 100, lengths=random.integers(0, T + 1, 5))
    second = layer(x)
    assert np.array_equal(first[0], second[0]) and all(np.array_equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_subnormal_states_are_flushed(each_isa):
    """oneDNN 561: an LSTM slowed 18 times once its state decayed into the subnormals. Here the state becomes zero: f = 0.5, i g = 0."""
    layer = fr.LSTM(2, 20, seed=0)
    layer.load_state_dict({name: np.zeros_like(a) for name, a in layer.state_dict().items()})
    start, x = np.full((1, 1, 20), 3e-38, np.float32), np.zeros((3, 1, 2), np.float32)
    one, three = (layer(x[:n], (start, start))[1][1] for n in (1, 3))
    assert (one == np.float32(1.5e-38)).all() and not three.any()
    assert np.float32(1e-40) * np.float32(0.5) > 0  # the caller's mode is back
