"""Masks beside initial states: Keras 3 runs a layer over what is masked there, and hands the mask on; Keras 2 computed with it."""

import keras_nets as nets
import numpy as np
import pytest

import fastrnn as fr

keras, L = nets.keras, nets.L
LAYERS = {
    "GRU": (lambda **given: L.GRU(5, **given), 1),
    "GRU_before": (lambda **given: L.GRU(5, reset_after=False, **given), 1),
    "LSTM": (lambda **given: L.LSTM(5, **given), 2),
    "RNN": (lambda **given: L.RNN(L.SimpleRNNCell(5), **given), 1),
    "Bidirectional": (lambda **given: L.Bidirectional(L.GRU(5, **given)), 2),
}
random = np.random.default_rng(0)
X, STATES = random.normal(size=(3, 6, 4)).astype("f4"), [random.normal(size=(3, 5)).astype("f4") for _ in range(2)]
X[0, 3:], X[1, 1:3] = 0, 0  # behind, and between


def decoder(kind, sequences, mask=None):
    """A layer that starts from given states, and one behind it. mask: of the first, named in its call."""
    make, n = LAYERS[kind]
    x, states = keras.Input((None, 4)), [keras.Input((5,)) for _ in range(n)]
    masked = L.Masking()(x)
    named = {} if mask is None else {"mask": keras.ops.any(keras.ops.not_equal(x, 0.0), axis=-1)}
    y = make(return_sequences=sequences)(masked, initial_state=states if n > 1 else states[0], **named)
    keras.utils.set_random_seed(1)
    return keras.Model([x, *states], [y, L.LSTM(3)(y)] if sequences else y), [X, *STATES[:n]]


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_as_keras_3_does(kind, sequences, tmp_path):
    model, given = decoder(kind, sequences)
    want = nets.evaluated(model, given)
    model.save(tmp_path / "m.keras")
    for read in (fr.from_keras(model), fr.load(tmp_path / "m.keras")):
        got = fr.compile(read)(*given)
        for mine, theirs in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, (tuple, list)) else (want,), strict=True):
            assert mine.shape == theirs.shape and np.abs(mine - theirs).max() < 1e-6


@pytest.mark.parametrize("kind", LAYERS)
def test_as_keras_2_did(kind, tmp_path):
    model, given = decoder(kind, False)
    explicit, _ = decoder(kind, False, mask=True)
    explicit.set_weights(model.get_weights())
    nets.save_keras2(model, tmp_path / "m.h5")
    want, other = nets.evaluated(explicit, given), nets.evaluated(model, given)
    got = fr.compile(fr.load(tmp_path / "m.h5"))(*given)
    assert np.abs(got - want).max() < 1e-6 < np.abs(got - other).max()
