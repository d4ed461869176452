"""Fourier transforms of one axis: the sums that define them, the spectrum of real numbers by half, and back."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Node
from fastrnn.model.ops import EVAL, OPS, Spec

R = np.random.default_rng(0)


def run(op, *arrays, **attributes):
    node = Node(op, "n", tuple("ab"[: len(arrays)]), ("x", "y"), attributes)
    found = EVAL[op](node, list(arrays))
    for got, spec in zip(found, OPS[op].infer(node, [Spec(str(a.dtype), a.shape) for a in arrays]), strict=True):
        assert got.shape == spec.shape and str(got.dtype) == spec.dtype
    return found


@pytest.mark.parametrize("dtype,tolerance", [("f4", 1e-5), ("f8", 1e-11)])  # sums of at most 12 terms
@pytest.mark.parametrize("axis,n", [(0, 7), (1, 12), (-1, 1)])
def test_the_sums(axis, n, dtype, tolerance):
    re, im = (R.standard_normal([2 if k != axis % 3 else n for k in range(3)]).astype(dtype) for _ in range(2))
    k = np.arange(n)
    for direction, sign in (("forward", -1), ("reverse", 1)):
        turns = np.exp(sign * 2j * np.pi * np.outer(k, k) / n)
        want = np.moveaxis(np.tensordot(turns, re + 1j * im, (1, axis)), 0, axis)
        for got, part in zip(run("FourierTransform", re, im, axis=axis, direction=direction), (want.real, want.imag)):
            np.testing.assert_allclose(got, part, rtol=0, atol=tolerance)
    half = run("FourierTransform", re, axis=axis, mode="half")
    for got, part in zip(half, run("FourierTransform", re, axis=axis)):
        np.testing.assert_allclose(got, np.take(part, np.arange(n // 2 + 1), axis), rtol=0, atol=tolerance)
    np.testing.assert_allclose(run("HermitianTransform", *half, axis=axis, size=n)[0] / n, re, rtol=0, atol=tolerance)


def test_what_is_no_transform():
    re, im = Spec("float32", (2, 3)), Spec("float32", (2, 4))
    with pytest.raises(fr.ShapeError, match="differ"):
        OPS["FourierTransform"].infer(Node("FourierTransform", "n", ("a", "b"), ("x", "y"), {}), [re, im])
    with pytest.raises(fr.InvalidModelError, match="half"):
        OPS["FourierTransform"].infer(Node("FourierTransform", "n", ("a", "b"), ("x", "y"), {"mode": "half"}), [re, re])
    with pytest.raises(fr.InvalidModelError, match="size"):
        OPS["HermitianTransform"].infer(Node("HermitianTransform", "n", ("a", "b"), ("x",), {}), [re, re])
