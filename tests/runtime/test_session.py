"""Session: shapes, threads, memory, refusals."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import fastrnn as fr
from fastrnn.model.stack import StackOptions, stack_model
from fastrnn.serving import Batcher


def model(kind="lstm", I=4, H=6, **options):
    o = StackOptions(kind, I, H, **options)
    random = np.random.default_rng(0)
    return stack_model(o, {n: random.uniform(-0.3, 0.3, s).astype(np.float32) for n, s in o.shapes().items()}, kind)


def test_run_and_call_agree():
    session, x = fr.compile(model()), np.ones((5, 2, 4), np.float32)
    by_name, by_position = session.run({"x": x}), session(x)
    assert list(by_name) == ["y", "h_n", "c_n"]
    assert all(np.array_equal(a, b) for a, b in zip(by_name.values(), by_position, strict=True))


def test_states_chain_by_name_not_by_order():
    session, x = fr.compile(model()), np.random.default_rng(1).standard_normal((8, 2, 4)).astype(np.float32)
    whole = session.run({"x": x})
    first = session.run({"x": x[:3]})
    second = session.run({"c0": first["c_n"], "x": x[3:], "h0": first["h_n"]})
    assert np.array_equal(np.concatenate([first["y"], second["y"]]), whole["y"])
    assert np.array_equal(second["c_n"], whole["c_n"])


def test_a_second_run_gives_the_same_bits():
    session, x = fr.compile(model(H=17)), np.random.default_rng(1).standard_normal((9, 3, 4)).astype(np.float32)
    first = session(x)[0]
    session(np.full((9, 3, 4), np.nan, np.float32))
    assert np.array_equal(session(x)[0], first)


def test_concurrent_calls_of_one_session():
    session, random = fr.compile(model(I=8, H=40)), np.random.default_rng(2)
    inputs = [random.standard_normal((int(random.integers(1, 40)), int(random.integers(1, 5)), 8)).astype(np.float32) for _ in range(24)]
    expected, wrong = [session(x)[0] for x in inputs], []

    def work(seed):
        order = np.random.default_rng(seed).permutation(24)
        for k in [*order, *order]:
            if not np.array_equal(session(inputs[k])[0], expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_does_not_grow_with_shapes():
    session, random = fr.compile(model(I=16, H=64)), np.random.default_rng(3)
    shapes = [(int(random.integers(1, 60)), int(random.integers(1, 20))) for _ in range(100)]

    def sweep(n):
        for k in range(n):
            T, B = shapes[k % 100]
            session(np.ones((T, B, 16), np.float32))
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = sweep(200)
    assert sweep(1_000) <= before * 1.05
    assert len(session._runners) <= 6  # of one row, two or three, more; and of a step, few, more


def test_after_fork():
    session, x = fr.compile(model()), np.ones((3, 1, 4), np.float32)
    expected = session(x)[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(session(x)[0], expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    "inputs,error,message",
    [
        ({}, fr.ShapeError, "'x' is missing"),
        ({"x": np.zeros((2, 1, 4), np.float32), "z": np.zeros(1, np.float32)}, fr.ShapeError, "unknown input 'z'"),
        ({"x": np.zeros((2, 1, 4), np.int64)}, fr.DTypeError, "'x' must be float32"),
        ({"x": object()}, fr.DTypeError, "'x'"),
    ],
)
def test_refusals(inputs, error, message):
    with pytest.raises(error, match=message):
        fr.compile(model()).run(inputs)


def test_constants_fix_an_input():
    h0 = np.full((1, 2, 6), 0.25, np.float32)
    session, fixed = fr.compile(model()), fr.compile(model(), constants={"h0": h0}, states={"c0": "c_n"})
    x = np.ones((3, 2, 4), np.float32)
    assert np.array_equal(session.run({"x": x, "h0": h0})["y"], fixed.run({"x": x})["y"])
    with pytest.raises(fr.InvalidModelError, match="nothing"):
        fr.compile(model(), constants={"nothing": h0})


def test_options_that_mean_nothing_are_refused_by_name():
    for threads in (0, -1, True, 1.5, "2"):
        with pytest.raises(fr.UnsupportedModelError, match="threads must be a positive integer"):
            fr.compile(model(), threads=threads)
    with pytest.raises(fr.InvalidModelError, match="takes a fastrnn Model"):
        fr.compile("model.onnx")


def test_the_answers_do_not_depend_on_what_ran_before():
    """One program serves many sizes, and its work space what ran there before."""
    session, random = fr.compile(fr.from_torch(torch.nn.Sequential(torch.nn.LSTM(3, 8), torch.nn.Linear(8, 2)))), np.random.default_rng(0)
    inputs = [random.standard_normal((T, B, 3)).astype(np.float32) for T, B in ((2, 1), (30, 5), (3, 2), (50, 7), (1, 1))]
    first = [session(x) for x in inputs]
    assert all(np.array_equal(session(x), y) for x, y in zip(reversed(inputs), reversed(first)))


def test_what_is_no_input_is_refused_by_name():
    layer = fr.GRU(3, 4)
    session, x = fr.compile(layer), np.zeros((2, 1, 3), np.float32)
    with pytest.raises(fr.ShapeError, match="there are 2 inputs, 'x', 'h0'; got 3 arrays"):
        session(x, x, x)
    with pytest.raises(fr.ShapeError, match="'foo'"):
        session.explain({"foo": (1, 2)})
    with pytest.raises(fr.ShapeError, match="shapes must be a dict by name, got str"):
        session.explain("x")
    with pytest.raises(fr.InvalidModelError, match="a Batcher takes a Session, which fastrnn.compile makes, got GRU"):
        Batcher(layer)
    with pytest.raises(fr.InvalidModelError, match=r"guess_states takes a fastrnn Model, got GRU; to_model\(\)"):
        fr.guess_states(layer)
