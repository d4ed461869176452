"""Fourier transforms of one axis: the sums that define them, the spectrum of real numbers by half, and back."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, Value
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


@pytest.mark.parametrize("parts,dtype", [("float32", "complex64"), ("float64", "complex128")])
def test_pairs_as_complex_numbers(parts, dtype):
    pairs = R.standard_normal((3, 4, 2)).astype(parts)
    (z,) = run("AsComplex", pairs)
    assert np.array_equal(z, (pairs[..., 0] + 1j * pairs[..., 1]).astype(dtype)) and z.dtype == dtype
    assert np.array_equal(run("AsReal", z)[0], pairs)
    with pytest.raises(fr.ShapeError, match="two parts, got"):
        OPS["AsComplex"].infer(Node("AsComplex", "n", ("a",), ("x",), {}), [Spec(parts, (4, 3))])
    with pytest.raises(fr.UnsupportedModelError, match="must be complex64 or complex128, got"):
        OPS["AsReal"].infer(Node("AsReal", "n", ("a",), ("x",), {}), [Spec(parts, (4, 2))])


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_views(dtype, backend):
    """Written where an output lies, read at any strides, and given out twice; nothing but moves is computed."""
    nodes = (
        Node("AsReal", "pairs", ("x",), ("pairs",)), Node("Gather", "re", ("pairs", "zero"), ("re",), {"axis": 3}), Node("Gather", "im", ("pairs", "one"), ("im",), {"axis": 3}),
        Node("Unsqueeze", "first", ("im", "last"), ("first",)), Node("Unsqueeze", "second", ("re", "last"), ("second",)),
        Node("Concat", "turned", ("first", "second"), ("turned",), {"axis": 3}), Node("AsComplex", "swapped", ("turned",), ("swapped",)),
        Node("Transpose", "moved", ("pairs",), ("moved",), {"perm": (1, 0, 2, 3)}), Node("AsComplex", "across", ("moved",), ("across",)),
        Node("Identity", "same", ("across",), ("same",)),
    )  # fmt: skip
    weights = {"zero": np.array(0), "one": np.array(1), "last": np.array([3])}
    model = Model((Value("x", dtype, ("A", "B", 3)),), ("swapped", "across", "same"), nodes, weights)
    session = fr.compile(model, backend=backend)
    for shape in ((4, 5, 3), (1, 1, 3), (0, 2, 3)):
        x = (R.standard_normal(shape) + 1j * R.standard_normal(shape)).astype(dtype)
        got = session.run({"x": x})
        assert np.array_equal(got["swapped"], x.imag + 1j * x.real)
        assert np.array_equal(got["across"], x.transpose(1, 0, 2)) and np.array_equal(got["same"], got["across"])
    assert backend == "reference" or "numpy" not in str(session.explain()).lower() or dtype == "complex128"
