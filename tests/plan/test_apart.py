"""Ops that choose entries, and ops taken apart into others: their meaning in NumPy, or the onnx package's, at the edges too, and nothing of them left to NumPy."""

import numpy as np
import pytest
from row import Row, agree, outputs_of, rand

import fastrnn as fr

TOLERANCE = 2e-6  # of an output's largest entry: sums in another order
NAN, INF = np.nan, np.inf
TIED = np.random.default_rng(3).integers(-3, 4, (5, 37, 4)).astype(np.float32)
HOLED = np.where(np.random.default_rng(4).random((5, 37, 4)) < 0.2, np.float32(NAN), TIED)
ENDS = np.where(np.random.default_rng(5).random((5, 37, 4)) < 0.2, np.float32(-INF), TIED)
WHOLE = np.random.default_rng(6).integers(-(2**31), 2**31, (4, 9)).astype(np.int64)


def compiled(model, feed):
    """That all of the model is compiled, and its outputs."""
    rows = fr.compile(model).plan.rows({name: np.shape(a) for name, a in feed.items()})
    assert not [row for row in rows if "numpy" in " ".join(row).lower() or "onnx package" in " ".join(row)], rows
    return outputs_of(model, feed)


CHOSEN = [
    *(Row(op, [x], {"axis": axis, "select_last_index": last, "keepdims": keep}, 13) for op in ("ArgMax", "ArgMin") for x in (TIED, HOLED, ENDS, TIED.astype(np.int32), TIED.astype(np.int64))
      for axis, last, keep in ((1, 0, 1), (0, 1, 0), (-1, 1, 1))),
    *(Row("TopK", [x, np.array([k])], {"axis": axis, "largest": largest}, 11, 2, (1,)) for x in (TIED, HOLED, ENDS, TIED.astype(np.int32), TIED.astype(np.int64))
      for axis, k, largest in ((1, 37, 1), (1, 5, 0), (0, 2, 1), (-1, 1, 0), (1, 0, 1))),
    *(Row("CumSum", [x, np.array(axis)], {"exclusive": exclusive, "reverse": backwards}, 14, constant=(1,)) for x in (TIED, HOLED, WHOLE, WHOLE.astype(np.int32))
      for axis, exclusive, backwards in ((0, 0, 0), (1, 1, 0), (-1, 0, 1), (1, 1, 1))),
    *(Row("GatherElements", [x, np.random.default_rng(7).integers(-x.shape[axis], x.shape[axis], shape)], {"axis": axis}, 13)
      for x, axis, shape in ((TIED, 1, (5, 9, 4)), (TIED, 0, (2, 37, 3)), (WHOLE, -1, (4, 20)), (WHOLE, 0, (0, 9)))),
    *(Row("GatherND", [x, index], opset=13) for x, index in ((TIED, np.array([[4, -1], [0, 3]])), (TIED, np.array([[[2]], [[-5]]])), (WHOLE, np.array([[[0, 0], [3, -9]]])), (WHOLE, np.zeros((0, 2), np.int64)))),
]  # fmt: skip


@pytest.mark.parametrize("row", CHOSEN, ids=str)
def test_entries_are_chosen_as_numpy_chooses_them(row, each_isa):
    model = fr.from_onnx(row.model())
    agree(compiled(model, row.feed()), outputs_of(model, row.feed(), backend="reference"), 0)


APART = [
    *(Row(op, [x], {"axes": [axis], "keepdims": keep}, 13) for op in ("ReduceL1", "ReduceLogSum", "ReduceLogSumExp") for x in (np.abs(rand(3, 40, 5)) + 1,)
      for axis, keep in ((1, 1), (0, 0), (-1, 0))),
    *(Row("ReduceLogSumExp", [x], {"axes": [1], "keepdims": 0}, 13) for x in (ENDS, np.full((2, 3), -INF, np.float32), np.float32([[INF, 1], [-INF, -INF], [NAN, 0]]), 100 * TIED)),
    Row("ReduceLogSumExp", [rand(3, 1, 4)], {"keepdims": 0, "noop_with_empty_axes": 1}, 18),
    Row("ReduceL1", [HOLED], {}, 13), Row("ReduceLogSumExp", [rand(3, 4)], {"keepdims": 0}, 13),
    *(Row("LpNormalization", [x], {"axis": axis, "p": p}, 22) for x in (TIED, np.zeros((2, 3), np.float32)) for axis, p in ((-1, 1), (1, 2), (0, 2))),
    *(Row("RMSNormalization", [rand(3, 5, 8), rand(*shape)], {"axis": axis}, 23) for axis, shape in ((-1, (8,)), (1, (5, 8)))),
    Row("IsNaN", [HOLED], opset=13),
    *(Row("OneHot", [np.array([[0, 2, -1], [9, -4, -9]], dtype), np.array(4), values], {"axis": axis}, 11, constant=(1, 2)) for dtype in (np.int64, np.int32)
      for values in (np.float32([0.5, 3]), np.array([7, -1])) for axis in (-1, 0, 1)),
]  # fmt: skip


@pytest.mark.parametrize("row", APART, ids=str)
def test_ops_taken_apart(row, each_isa):
    model = fr.from_onnx(row.model())
    agree(compiled(model, row.feed()), outputs_of(model, row.feed(), backend="reference"), TOLERANCE)


SIZES = [[1, 2, 9, 14], [1, 2, 3, 5], [1, 2, 6, 1], [1, 2, 12, 7]]
RESIZED = [
    Row(
        "Resize",
        [rand(1, 2, 6, 7), np.zeros(0, np.float32), np.zeros(0, np.float32), np.array(sizes)],
        {"mode": mode, "coordinate_transformation_mode": where, **({"nearest_mode": rounding} if mode == "nearest" else {})},
        13,
        constant=(1, 2, 3),
    )
    for sizes in SIZES
    for mode, rounding in (("linear", ""), *(("nearest", r) for r in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")))
    for where in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
]
SCALED = [
    Row("Resize", [rand(1, 2, 6, 7), np.zeros(0, np.float32), np.float32([1, 1, *scales])], {"mode": mode}, 13, constant=(1, 2))
    for scales in ((2, 1.5), (0.6, 3), (1, 2.3))
    for mode in ("linear", "nearest")
]
SCALED += [
    Row(
        "Resize",
        [rand(1, 2, 6, 7), np.zeros(0, np.float32), np.float32([1, 1, 0.6, 2.3])],
        {"mode": mode, "coordinate_transformation_mode": where},
        13,
        constant=(1, 2),
    )
    for mode in ("linear", "nearest")
    for where in ("align_corners", "pytorch_half_pixel", "asymmetric")
]


@pytest.mark.parametrize("row", [*RESIZED, *SCALED], ids=str)
def test_resize(row):
    model = fr.from_onnx(row.model())
    agree(compiled(model, row.feed()), outputs_of(model, row.feed(), backend="reference"), TOLERANCE)


ATTENTION = [
    *(
        Row("Attention", [rand(2, 5, 12), rand(2, 7, 12, seed=1), rand(2, 7, 18, seed=2), *mask], {"q_num_heads": 3, "kv_num_heads": 3, **scale}, 23)
        for mask in ((), (rand(5, 7, seed=3),), (rand(2, 1, 5, 7, seed=3),))
        for scale in ({}, {"scale": 0.3})
    ),
    Row("Attention", [rand(2, 3, 5, 4), rand(2, 3, 7, 4, seed=1), rand(2, 3, 7, 6, seed=2)], {}, 23),
    Row("Attention", [rand(2, 6, 5, 4), rand(2, 3, 7, 4, seed=1), rand(2, 3, 7, 6, seed=2)], {}, 23),
    Row("Attention", [rand(2, 5, 24), rand(2, 7, 12, seed=1), rand(2, 7, 12, seed=2)], {"q_num_heads": 4, "kv_num_heads": 2}, 23),
]


@pytest.mark.parametrize("row", ATTENTION, ids=str)
def test_attention(row):
    model = fr.from_onnx(row.model())
    agree(compiled(model, row.feed()), outputs_of(model, row.feed(), backend="reference"), TOLERANCE)


def test_where_an_index_lies_outside_it_is_named():
    model = fr.from_onnx(Row("GatherElements", [WHOLE, np.full((4, 2), 9)], {"axis": 1}, 13).model())
    with pytest.raises((fr.ShapeError, IndexError, ValueError), match="9"):
        fr.compile(model)(WHOLE, np.full((4, 2), 9))
    with pytest.raises(fr.ShapeError, match="do not lie within"):
        fr.compile(model)(WHOLE, np.zeros((5, 2), np.int64))
