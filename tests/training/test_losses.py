"""Losses against torch's, masked and not, where numbers are large, and what is refused."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from training_oracle import differs

import fastrnn as fr
import fastrnn.training as tr


def torch_loss(name, p, y, mask):
    """torch's own loss, the mean over what the mask keeps."""
    p, y = (p, y) if mask is None else (p[mask], y[mask])
    if name == "cross_entropy":
        return F.cross_entropy(p.reshape(-1, p.shape[-1]), y.reshape(-1))
    if name == "mean_squared_error":
        return F.mse_loss(p, y)
    loss = F.binary_cross_entropy_with_logits(p, y)
    return loss * p.shape[-1] if name == "binary over steps" else loss


def ours(name, p, y, mask):
    if name.startswith("binary"):
        return tr.binary_cross_entropy(p, y, mask, over=name.split()[-1])
    return getattr(tr, name)(p, y, mask)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("leading", [(7,), (4, 3)])
@pytest.mark.parametrize("name", ["cross_entropy", "binary over elements", "binary over steps", "mean_squared_error"])
def test_values_and_gradients(name, leading, masked, dtype):
    rng = np.random.default_rng(0)
    p = (rng.standard_normal((*leading, 5)) * 4).astype(dtype)
    y = rng.integers(0, 5, leading) if name == "cross_entropy" else rng.random((*leading, 5)).astype(dtype)
    mask = rng.random(leading) < 0.6 if masked else None
    if masked and name == "cross_entropy":
        y[~mask] = -1  # what torch calls ignore_index may stand there
    given, kept = torch.tensor(p, requires_grad=True), p.copy()
    wanted = torch_loss(name, given, torch.tensor(y), None if mask is None else torch.tensor(mask))
    wanted.backward()
    loss, gradient = ours(name, p, y, mask)
    bound = 1e-12 if dtype == "float64" else 2e-6
    assert (
        type(loss) is float and abs(loss - wanted.item()) <= bound * abs(loss) and differs(gradient, given.grad) <= bound and np.array_equal(p, kept)
    )


def test_bool_targets_are_ones_and_zeros():
    p, y = np.random.default_rng(0).standard_normal((6, 4)).astype("f4"), np.random.default_rng(1).random((6, 4)) < 0.3
    (a, da), (b, db) = tr.binary_cross_entropy(p, y), tr.binary_cross_entropy(p, y.astype("f4"))
    assert a == b and np.array_equal(da, db)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_large_logits_stay_finite(dtype):
    p = np.array([[3e4, -3e4], [-3e4, 3e4]], dtype)
    loss, gradient = tr.cross_entropy(p, np.array([0, 0]))
    assert loss == 3e4 and np.array_equal(gradient, np.array([[0, 0], [-0.5, 0.5]], dtype))
    loss, gradient = tr.binary_cross_entropy(p, np.array([[1, 0], [1, 0]], dtype))
    assert loss == 1.5e4 and np.array_equal(gradient, np.array([[0, 0], [-0.25, 0.25]], dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_small_losses_keep_their_digits(dtype):
    x = np.array([[-9, 9], [-20, 20], [-60, 60]], dtype)
    loss = tr.binary_cross_entropy(x, x > 0, over="steps")[0]
    wanted = np.log1p(np.exp(x.min(1).astype("f8")))
    assert loss == pytest.approx(2 * wanted.mean(), rel=1e-6)
    for row, value in zip(x, wanted):
        assert tr.binary_cross_entropy(row, row > 0)[0] == pytest.approx(value, rel=1e-6)


def test_nan_is_not_hidden_and_not_spread():
    p, y = np.zeros((3, 2)), np.array([0, 1, 1])
    p[1] = np.nan
    loss, gradient = tr.cross_entropy(p, y)
    assert np.isnan(loss) and np.isfinite(gradient[[0, 2]]).all()
    loss, gradient = tr.cross_entropy(p, y, np.array([True, False, True]))
    assert loss == pytest.approx(np.log(2)) and not gradient[1].any()


def test_anything_like_an_array_is_taken():
    p, y, mask = np.random.default_rng(0).standard_normal((6, 4)), [0, 3, 1, 2, 2, 0], [True, False, True, True, False, True]
    loss, gradient = tr.cross_entropy(p, np.array(y), np.array(mask))
    for same in (tr.cross_entropy(p.tolist(), y, mask), tr.cross_entropy(torch.tensor(p), torch.tensor(y), torch.tensor(mask))):
        assert same[0] == loss and np.array_equal(same[1], gradient)


P, MASK = np.zeros((3, 2), "f4"), np.zeros(3, bool)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: tr.cross_entropy(P, np.array([0, 1, 2])), fr.ShapeError, "classes from 0 to 1, got 0 to 2"),
        (lambda: tr.cross_entropy(P, np.array([0, -1, 1])), fr.ShapeError, "got -1"),
        (lambda: tr.cross_entropy(P, np.zeros(3)), fr.DTypeError, "must be integers"),
        (lambda: tr.cross_entropy(P, np.zeros(2, int)), fr.ShapeError, r"for predictions \(3, 2\) must have shape \(3,\), got \(2,\)"),
        (lambda: tr.cross_entropy(P.astype(int), np.zeros(3, int)), fr.DTypeError, "predictions must be"),
        (lambda: tr.cross_entropy(P, np.zeros(3, int), MASK), fr.ShapeError, "no entry counts"),
        (lambda: tr.cross_entropy(P, np.zeros(3, int), MASK.astype(int)), fr.DTypeError, "mask must be bool"),
        (lambda: tr.cross_entropy(P, np.zeros(3, int), MASK[:2]), fr.ShapeError, "mask must have shape"),
        (lambda: tr.mean_squared_error(P, P[:, :1]), fr.ShapeError, "mean_squared_error"),
        (lambda: tr.mean_squared_error(P, P.astype("f8")), fr.DTypeError, "must be float32"),
        *[
            (lambda loss=loss, target=target: loss(P[:, :0], target), fr.ShapeError, r"last axis with at least one number, got \(3, 0\)")
            for loss, target in ((tr.cross_entropy, np.zeros(3, int)), (tr.binary_cross_entropy, P[:, :0]), (tr.mean_squared_error, P[:, :0]))
        ],
        (lambda: tr.mean_squared_error(np.float32(1), np.float32(1)), fr.ShapeError, "last axis"),
        (lambda: tr.binary_cross_entropy(P, P, over="all"), fr.UnsupportedModelError, "over"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
