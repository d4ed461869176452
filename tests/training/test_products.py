"""Products over all rows, ours and the BLAS library's, against NumPy in float64."""

import numpy as np
import pytest

from fastrnn.training import products

# Rows, depth, columns: one of each; what ends within a vector and a tile; one to four vectors and rows alone; more than a block of rows; a matrix of more than OWN_BYTES.
SIZES = [(1, 1, 1), (5, 3, 7), (64, 64, 64), (2, 7, 33), (3, 4, 20), (4, 65, 48), (6, 3, 130), (131, 37, 61), (200, 88, 144), (70, 700, 801)]
TOLERANCE = {"float32": 2e-6, "float64": 4e-15}  # of the largest entry, for a square root of terms: sums of some hundred products


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n,depth,columns", SIZES)
def test_products(dtype, n, depth, columns, each_isa):
    """Among columns of wider arrays, which stay as they are."""
    random = np.random.default_rng(n)
    wide_x, w, bias, wide_out = (
        random.standard_normal(shape).astype(dtype) for shape in ((n, depth + 3), (columns, depth), (columns,), (n, columns + 2))
    )
    x, out, beside = wide_x[:, 1:-2], wide_out[:, 1:-1], wide_out[:, [0, -1]].copy()
    products.project(x, w, bias, out)
    assert near(out, x.astype(float) @ w.T.astype(float) + bias, dtype, depth) and np.array_equal(wide_out[:, [0, -1]], beside)
    total = w.copy()
    products.add_outer(out, x, total)
    assert near(total, w + out.T.astype(float) @ x.astype(float), dtype, n)


def near(got, wanted, dtype, terms) -> bool:
    return np.abs(got - wanted).max() <= TOLERANCE[dtype] * np.sqrt(terms) * np.abs(wanted).max()


def test_no_rows():
    out = np.ones((4, 3), np.float32)
    products.project(np.empty((0, 3), np.float32), out, np.ones(4, np.float32), np.empty((0, 4), np.float32))
    products.add_outer(np.empty((0, 4), np.float32), np.empty((0, 3), np.float32), out)
    assert (out == 1).all()
