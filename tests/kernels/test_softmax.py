"""Softmax and LogSoftmax against float64, rows of any length and stride, with what is no number in them; the same bits on every instruction set."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.model import Model, Node, Value

SIZES = (1, 2, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 129, 200, 515)
EXP_ULP = 2.5e-7  # of an exponential (1.1e-7), the sum (n / 16 + 4 roundings, of random signs), its reciprocal and the product


def session(op, axis):
    return fr.compile(Model((Value("x", "float32", ("B", "N", "C")),), ("y",), (Node(op, "s", ("x",), ("y",), {"axis": axis}),), {}))


def exact(op, x, axis):
    x = (x - x.max(axis, keepdims=True)).astype(np.float64)  # a difference in float32, as ONNX has it: of 60 it is 4e-6 off
    log = x - np.log(np.exp(x).sum(axis, keepdims=True))
    return log if op == "LogSoftmax" else np.exp(log)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_against_float64_on_every_instruction_set(op, axis, monkeypatch):
    random, results = np.random.default_rng(3), {}
    for name in isa.supported():
        monkeypatch.setenv("FASTRNN_ISA", name)
        results[name] = session(op, axis)
    for n in SIZES:
        x = (random.standard_normal((3, n, 5) if axis == 1 else (3, 5, n)) * random.choice([0.1, 3, 40])).astype(np.float32)
        got, want = {name: s(x) for name, s in results.items()}, exact(op, x, axis)
        assert len({y.tobytes() for y in got.values()}) == 1
        np.testing.assert_allclose(next(iter(got.values())), want, rtol=4 * EXP_ULP, atol=4 * EXP_ULP if op == "LogSoftmax" else 1.2e-38)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_rows_with_infinities_and_nan(op, each_isa):
    x = np.random.default_rng(4).standard_normal((7, 1, 37)).astype(np.float32)
    x[1, 0, 35], x[2, 0, 0], x[3], x[4, 0, 30:], x[5, 0, 20], x[6, 0, 36] = np.nan, np.inf, -np.inf, -np.inf, -3e38, 3e38
    y = session(op, 2)(x)
    assert np.isnan(y[1:4]).all()  # inf - inf is none, as in NumPy and torch
    with np.errstate(divide="ignore", over="ignore"):
        np.testing.assert_allclose(y[[0, 4, 5, 6]], exact(op, x[[0, 4, 5, 6]], 2), rtol=1e-6, atol=1e-6)
    if op == "Softmax":
        assert not y[4, 0, 30:].any() and y[6, 0, 36] == 1


def test_tails_that_underflow_are_zero_and_no_row_is_touched_by_another(each_isa):
    x = np.zeros((4, 1, 21), np.float32)
    x[:, 0] = -np.linspace(80, 110, 21)
    x[:, 0, 0] = 0
    y = session("Softmax", 2)(x)
    want = exact("Softmax", x, 2)
    assert np.array_equal(y == 0, np.broadcast_to(want < np.finfo(np.float32).tiny, y.shape))
    np.testing.assert_allclose(y[y > 0], want[y > 0], rtol=1e-6)
    x[1, 0, 4] = np.nan
    again = session("Softmax", 2)(x)
    assert np.isnan(again[1]).all() and again[[0, 2, 3]].tobytes() == y[[0, 2, 3]].tobytes()
