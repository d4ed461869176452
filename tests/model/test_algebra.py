"""Factors of matrices: they multiply to what was given; a matrix without an answer gives NaN and leaves those beside it as they are."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Node
from fastrnn.model.ops import EVAL, OPS, Spec

R = np.random.default_rng(0)
SQUARE = [(4, 4), (2, 3, 5, 5), (1, 1), (2, 0, 0), (0, 3, 3)]
LONG = [(4, 4), (2, 3, 6, 4), (3, 4, 6), (1, 5), (2, 3, 0)]


def run(op, *arrays, outputs=1, **attributes):
    """The meaning, whose shapes and dtypes are those that were inferred."""
    node = Node(op, "n", tuple("abc"[: len(arrays)]), tuple("xyz"[:outputs]), attributes)
    found = EVAL[op](node, list(arrays))
    for got, spec in zip(found, OPS[op].infer(node, [Spec(str(a.dtype), a.shape) for a in arrays])):
        assert got.shape == spec.shape and str(got.dtype) == spec.dtype, op
    return found[0] if outputs == 1 else found[:outputs]


def close(got, want, tolerance=1e-11):
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1, np.abs(want).max(initial=0)))


@pytest.mark.parametrize("shape", SQUARE)
def test_of_square_matrices(shape):
    a = R.standard_normal(shape)
    inverse = run("Inverse", a)
    close(a @ inverse, np.broadcast_to(np.eye(shape[-1]), shape), 1e-9)
    b = R.standard_normal((*shape[:-1], 2))
    close(a @ run("Solve", a, b), b, 1e-9)
    sign, log = run("SlogDet", a, outputs=2)
    close(sign * np.exp(log), run("Det", a))
    positive = a @ a.swapaxes(-1, -2) + np.eye(shape[-1])
    lower, failed = run("Cholesky", positive, outputs=2)
    close(lower @ lower.swapaxes(-1, -2), positive)
    assert not failed.any() and np.array_equal(lower, np.tril(lower))
    values, vectors = run("Eigh", positive, outputs=2)
    close(vectors * values[..., None, :] @ vectors.swapaxes(-1, -2), positive)
    close(run("Eigh", np.triu(positive), outputs=2, upper=1)[0], values)
    close(run("MatrixExp", a) @ run("MatrixExp", -a), np.broadcast_to(np.eye(shape[-1]), shape), 1e-8)


@pytest.mark.parametrize("mode", ["reduced", "complete"])
@pytest.mark.parametrize("shape", LONG)
def test_of_any_matrices(shape, mode):
    a = R.standard_normal(shape)
    q, r = run("QR", a, outputs=2, mode=mode)
    close(q @ r, a)
    u, s, v = run("SVD", a, outputs=3, mode=mode)
    k = s.shape[-1]
    close(u[..., :k] * s[..., None, :] @ v[..., :k, :], a)
    both, pivots = run("LU", a, outputs=2)
    order = run("PivotMatrix", both, pivots)
    m, n = shape[-2:]
    lower, upper = np.tril(both[..., :, : min(m, n)], -1) + np.eye(m, min(m, n)), np.triu(both[..., : min(m, n), :])
    close(order @ lower @ upper, a)
    assert np.abs(lower).max(initial=0) <= 1  # the largest entry of each column is its pivot


def test_one_matrix_without_an_answer_leaves_the_others():
    a = R.standard_normal((3, 4, 4))
    bad = a.copy()
    bad[1, :, 2] = 0
    b = R.standard_normal((4, 2))
    for op, more in (("Inverse", ()), ("Solve", (b,))):
        want, found = run(op, a, *more), run(op, bad, *more, outputs=2)
        assert np.array_equal(found[0][[0, 2]], want[[0, 2]]) and np.isnan(found[0][1]).all() and found[1].tolist() == [0, 3, 0]
    positive = a @ a.swapaxes(-1, -2) + np.eye(4)
    negative = positive.copy()
    negative[2, 1, 1] = -5
    lower, failed = run("Cholesky", negative, outputs=2)
    assert np.array_equal(lower[:2], run("Cholesky", positive)[:2]) and np.isnan(lower[2]).all() and failed.tolist() == [0, 0, 2]
    positive[0, 0, 0] = np.nan
    assert np.isnan(run("SVD", positive, outputs=3)[1][0]).all() and np.isfinite(run("SVD", positive, outputs=3)[1][1:]).all()


def test_a_matrix_alone_gives_the_same_bits():
    a = R.standard_normal((5, 6, 6)).astype("f4")
    for op in ("Inverse", "Det", "LU", "MatrixExp", "QR", "SVD"):
        for k in range(5):
            assert np.array_equal(run(op, a[k]), run(op, a)[k]), op


@pytest.mark.parametrize(
    "op,shapes",
    [
        ("Inverse", [(3, 4)]),
        ("Cholesky", [(3,)]),
        ("Solve", [(3, 3), (4, 2)]),
        ("PivotMatrix", [(3, 3), (3, 3)]),
        ("HouseholderProduct", [(4, 3), (5,)]),
    ],
)
def test_shapes_that_do_not_fit(op, shapes):
    node = Node(op, "n", ("a", "b")[: len(shapes)], ("y",), {})
    with pytest.raises(fr.ShapeError, match="'n'"):
        OPS[op].infer(node, [Spec("int32" if op == "PivotMatrix" and k else "float32", s) for k, s in enumerate(shapes)])
