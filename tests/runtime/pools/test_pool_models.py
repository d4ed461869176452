"""Pools of models that mix rows, look things up, raise, or are steered by what they get."""

import numpy as np
import pytest
from pooled import KINDS, Beside

import fastrnn as fr
from fastrnn.model import Model, Node, State, Value


def mixing():
    """A mean over the batch: rows of a call are not apart."""
    nodes = (
        Node("ReduceMean", "mean", ("x", "zero"), ("mean",), {"keepdims": 1}),
        Node("Sub", "centred", ("x", "mean"), ("centred",)),
        Node("Add", "sum", ("centred", "x"), ("sum",)),
        Node("Add", "y", ("sum", "a"), ("y",)),
        Node("Identity", "next", ("y",), ("a_next",)),
    )
    model = Model(
        (Value("x", "float32", ("B", 3)), Value("a", "float32", ("B", 3))), ("y", "a_next"), nodes, {"zero": np.array([0])}, (State("a", "a_next"),)
    )
    return fr.compile(model), (3,)


def branching():
    """A branch that the sum of all of x decides."""
    from fastrnn.model.graph import Graph

    yes = Graph((Node("Relu", "relu", ("x",), ("up",)),), ("up",))
    no = Graph((Node("Neg", "neg", ("x",), ("down",)),), ("down",))
    nodes = (
        Node("ReduceSum", "total", ("x",), ("total",), {"keepdims": 0}),
        Node("Greater", "positive", ("total", "zero"), ("positive",)),
        Node("If", "which", ("positive",), ("chosen",), {"then_branch": yes, "else_branch": no}),
        Node("Add", "y", ("chosen", "a"), ("y",)),
        Node("Identity", "next", ("y",), ("a_next",)),
    )
    model = Model(
        (Value("x", "float32", ("B", 3)), Value("a", "float32", ("B", 3))), ("y", "a_next"), nodes, {"zero": np.float32(0)}, (State("a", "a_next"),)
    )
    return fr.compile(model), (3,)


@pytest.mark.parametrize("make", [mixing, branching])
def test_rows_that_a_model_mixes_are_stepped_one_by_one(make):
    beside = Beside(*make(), capacity=20)
    beside.open(20)
    assert beside.pool._tiles.most == 1
    for n in (1, 5, 20):
        beside.step(n)
    beside.push(7, 4, True, True)


def test_indices_are_checked_before_anything_moves():
    weights = {"table": np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)}
    model = Model((Value("ids", "int64", ("B",)), Value("a", "float32", ("B", 4))), ("y", "a_next"),
                  (Node("Gather", "words", ("table", "ids"), ("words",), {"axis": 0}), Node("Add", "y", ("words", "a"), ("y",)), Node("Identity", "n", ("y",), ("a_next",))),
                  weights, (State("a", "a_next"),))  # fmt: skip
    session = fr.compile(model)
    pool, alone = session.pool(80), session.stream(80)
    handles = [pool.open() for _ in range(80)]
    ids = np.random.default_rng(1).integers(-9, 9, 80)
    assert pool._tiles.most > 1 and pool.step(handles, ids).tobytes() == alone.step(ids).tobytes()
    before = pool.block.copy()
    for bad in (9, -10):
        ids[79] = bad
        for call in (lambda: pool.step(handles, ids), lambda: pool.push(handles, ids[None])):
            with pytest.raises(fr.ShapeError, match=f"'ids': {bad} is outside"):
                call()
    assert np.array_equal(pool.block, before)
    chunk = np.random.default_rng(2).integers(0, 9, (4, 80))
    lengths = np.arange(80) % 5
    chunk[np.arange(4)[:, None] >= lengths] = 77  # padding is no index
    pool.push(handles, chunk, lengths)


def test_a_step_that_raises_moves_no_stream(monkeypatch):
    """A node left to NumPy that fails in the last tile."""
    session, shape = KINDS["numpy"]()
    beside = Beside(session, shape, capacity=8)
    handles = beside.open(8)
    beside.step(8)
    calls = []

    def failing(node, arrays, real=__import__("fastrnn.plan.lowering.build", fromlist=["evaluate"]).evaluate):
        calls.append(node)
        if len(calls) == 6:
            raise fr.FastRNNError("a fault")
        return real(node, arrays)

    monkeypatch.setattr("fastrnn.plan.lowering.build.evaluate", failing)
    x = beside.draw(8)
    with pytest.raises(fr.FastRNNError, match="a fault"):
        beside.pool.step(handles, x)
    assert len(calls) == 6
    beside.states_agree()
    calls.extend([None] * 10)
    beside.step(8)


def test_steering_inputs_and_open_dimensions():
    """Frames of any size, fixed by the first step or by sizes=; a network chosen by an integer, row by row of calls."""
    from fastrnn.model.graph import Graph

    def branch(scale):
        name = f"by{scale}"
        return Graph(
            (
                Node("Mul", name, ("x", f"s{scale}"), (f"{name}.y",)),
                Node("Slice", f"{name}.cut", (f"{name}.y", "zero", f"n{scale}", "one"), (f"{name}.z",)),
            ),
            (f"{name}.z",),
        )

    weights = {"s2": np.float32(2), "s3": np.float32(3), "zero": np.array([0]), "one": np.array([1]), "n2": np.array([2]), "n3": np.array([3]), "wanted": np.array(16)}  # fmt: skip
    nodes = (
        Node("Equal", "is16", ("rate", "wanted"), ("is16",)),
        Node("If", "which", ("is16",), ("z",), {"then_branch": branch(2), "else_branch": branch(3)}),
        Node("ReduceSum", "sum", ("z", "one"), ("total",), {"keepdims": 1}),
        Node("Add", "y", ("total", "a"), ("y",)),
        Node("Identity", "next", ("y",), ("a_next",)),
    )
    model = Model(
        (Value("x", "float32", ("B", "N")), Value("rate", "int64", ()), Value("a", "float32", ("B", 1))),
        ("y", "a_next"),
        nodes,
        weights,
        (State("a", "a_next"),),
    )
    session = fr.compile(model)
    for options in ({}, {"sizes": {"N": 5}}):
        pool, alone = session.pool(40, **options), session.stream(40)
        handles = [pool.open() for _ in range(40)]
        for k in range(4):
            x = {"x": np.random.default_rng(k).standard_normal((40, 5)).astype(np.float32), "rate": np.array(16 if k % 2 else 8)}
            assert pool.step(handles, x).tobytes() == alone.step(x).tobytes()
        with pytest.raises(fr.ShapeError, match=r"\(40, 5\)"):
            pool.step(handles, {"x": np.zeros((40, 6), np.float32), "rate": np.array(16)})
        chunk = {"x": np.random.default_rng(9).standard_normal((3, 40, 5)).astype(np.float32), "rate": np.array([16] * 3)}
        assert pool.push(handles, chunk).tobytes() == alone.push(chunk).tobytes()
    for sizes, message in (({"M": 3}, "'M'"), ({"N": -1}, "whole"), ({"N": 2.5}, "whole"), (3, "dict")):
        with pytest.raises(fr.ShapeError, match=message):
            session.pool(3, sizes=sizes)
