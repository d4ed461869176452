"""exp, tanh and sigmoid against float64 libm on a dense sample; benchmarks/checks/activations.py does all 2^32."""

import numpy as np
import pytest

from fastrnn.cells.activations import RECURRENT_ACTIVATIONS, Activation
from fastrnn.testing import EXACT, TINY, TOLERANCES, activate, activation_errors


def sample():
    """Every exponent and sign with 2,039 mantissas spread over it, and all of what is special."""
    bits = np.arange(0, 1 << 32, 4_111, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = np.linspace(-110, 110, 400_000, dtype=np.float32)
    return np.concatenate([bits[~np.isnan(bits)], dense, np.float32([0.0, -0.0, np.inf, -np.inf, TINY, -TINY, 1e-45, 88.72283, 88.7229, -87.33654])])


def test_tanh(each_isa):
    x = sample()
    _, ulp = activation_errors(activate(each_isa, Activation("tanh"), x), x, EXACT["tanh"])
    assert ulp.max() <= TOLERANCES["tanh_ulp"]


def test_sigmoid(each_isa):
    x = sample()
    absolute, ulp = activation_errors(activate(each_isa, Activation("sigmoid"), x), x, EXACT["sigmoid"])
    assert ((ulp <= TOLERANCES["sigmoid_ulp"]) | (absolute <= TOLERANCES["sigmoid_absolute"])).all()


def test_exp(each_isa):
    x = sample()
    _, ulp = activation_errors(activate(each_isa, Activation("exp"), x), x, EXACT["exp"])
    assert ulp.max() <= TOLERANCES["exp_ulp"]


@pytest.mark.parametrize("kind,expected", [("tanh", [1, -1]), ("sigmoid", [1, 0]), ("exp", [np.inf, 0])])
def test_infinities_saturate_and_nan_propagates(each_isa, kind, expected):
    got = activate(each_isa, Activation(kind), np.float32([np.inf, -np.inf, np.nan]))
    assert got[:2].tolist() == expected and np.isnan(got[2])


def test_signs_of_zero(each_isa):
    got = activate(each_isa, Activation("tanh"), np.float32([0.0, -0.0]))
    assert np.array_equal(np.signbit(got), [False, True]) and not got.any()


@pytest.mark.parametrize("kind", RECURRENT_ACTIVATIONS)
def test_every_activation_propagates_nan_and_follows_its_formula(each_isa, kind):
    activation = Activation(kind, 0.7, 0.3)
    x = np.linspace(-12, 12, 5_001).astype(np.float32)
    want = activation(x.astype(np.float64))
    np.testing.assert_allclose(activate(each_isa, activation, x), want, rtol=2e-6, atol=2e-7)
    assert np.isnan(activate(each_isa, activation, np.float32([np.nan] * 3))).all()


def test_same_bits_on_every_isa():
    from fastrnn.kernels import isa

    random = np.random.default_rng(0)
    subnormal = random.integers(1, 1 << 23, 1_000).astype(np.uint32).view(np.float32)
    x = np.concatenate([random.standard_normal(200_000).astype(np.float32) * 10, subnormal, -subnormal, sample()])
    for kind in (*RECURRENT_ACTIVATIONS, "exp"):
        results = [activate(name, Activation(kind, 0.7, 0.3), x) for name in isa.supported()]
        results = [np.where(np.isnan(y), np.float32(np.nan), y).view(np.uint32) for y in results]
        assert all(np.array_equal(results[0], other) for other in results[1:]), kind
