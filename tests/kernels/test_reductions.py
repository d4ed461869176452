"""Reductions along any axis: every row as it is alone, wherever its entries lie."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, Value

OPS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare", "ReduceL2")
SHAPES = [(2, 1, 16), (3, 5, 7), (1, 16, 33), (2, 17, 40), (1, 320, 64), (2, 131, 3)]  # fmt: skip  # rows of each length side by side: less than a vector, whole ones and a rest


def reduced(op: str, x: np.ndarray, axis: int) -> np.ndarray:
    node = Node(op, "y", ("x", "axes"), ("y",), {"keepdims": 0})
    return fr.compile(Model((Value("x", "float32", x.shape),), ("y",), (node,), {"axes": np.array([axis])})).run({"x": x})["y"]


@pytest.mark.parametrize("op", OPS)
def test_rows_across_the_memory_have_the_bits_of_rows_along_it(op, each_isa):
    random = np.random.default_rng(0)
    for shape in SHAPES:
        x = random.standard_normal(shape).astype(np.float32)
        for value in (np.nan, np.inf, -np.inf, -0.0, 1e-40):
            x[tuple(random.integers(n) for n in shape)] = value
        across, along = reduced(op, x, 1), reduced(op, np.ascontiguousarray(x.transpose(0, 2, 1)), 2)
        nan = np.isnan(along)
        assert np.array_equal(np.isnan(across), nan) and np.array_equal(across[~nan].view(np.uint32), along[~nan].view(np.uint32)), shape
        if op == "ReduceSum":
            with np.errstate(invalid="ignore"):
                want = x.astype(np.float64).sum(1)
            finite = np.isfinite(want)
            np.testing.assert_allclose(across[finite], want[finite], rtol=1e-5, atol=2e-5)
