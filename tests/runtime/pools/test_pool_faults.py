"""Pool: what once went wrong, or could: integers late in a chunk, rows mixed where drawn values do not show it, calls inside calls, forks."""

import os
import sys
import threading
import time

import numpy as np
import pytest
from pooled import KINDS, Beside

import fastrnn as fr
from fastrnn.model import Model, Node, State, Value
from fastrnn.runtime.pools import tiling


def embedded():
    """Words, then a GRU: a chunk of integers along time."""
    random = np.random.default_rng(0)
    weights = {
        "table": random.standard_normal((9, 4)).astype(np.float32),
        "w": random.standard_normal((1, 15, 4)).astype(np.float32),
        "r": random.standard_normal((1, 15, 5)).astype(np.float32),
    }
    nodes = (Node("Gather", "words", ("table", "ids"), ("x",), {"axis": 0}), Node("GRU", "gru", ("x", "w", "r"), ("y",), {"torch_form": 1}))
    return fr.compile(Model((Value("ids", "int64", ("T", "B")),), ("y",), nodes, weights))


@pytest.mark.parametrize("bad", [9, -10, 1 << 40])
def test_indices_of_every_step_of_a_chunk_are_checked(bad):
    pool = embedded().pool(9)
    handles, ids = [pool.open(), pool.open()], np.zeros((4, 2), np.int64)
    ids[3, 1], resets = bad, np.zeros((4, 2), bool)
    resets[2, 0] = True
    before = pool.block.copy()
    for options in ({}, {"lengths": [1, 4]}, {"resets": resets}, {"lengths": [4, 4], "resets": resets}):
        with pytest.raises(fr.ShapeError, match=f"'ids': {bad} is outside"):
            pool.push(handles, ids, **options)
        assert np.array_equal(pool.block, before) and pool.steps(handles[0]) == 0
    pool.push(handles, ids, [4, 3])  # behind a row's end


def masked_mean(scale):
    """A mean over the batch that drawn values do not show: behind a threshold, or times zero."""
    bound = (
        [Node("Sub", "far", ("mean", "eight"), ("far",)), Node("Relu", "cut", ("far",), ("part",))]
        if scale
        else [Node("Mul", "none", ("mean", "nothing"), ("part",))]
    )
    nodes = (
        Node("ReduceMean", "mean", ("x", "zero"), ("mean",), {"keepdims": 1}),
        *bound,
        Node("Add", "sum", ("part", "x"), ("sum",)),
        Node("Add", "y", ("sum", "a"), ("y",)),
        Node("Identity", "next", ("y",), ("a_next",)),
    )
    weights = {"zero": np.array([0]), "eight": np.float32(8), "nothing": np.float32(0)}
    return fr.compile(
        Model((Value("x", "float32", ("B", 3)), Value("a", "float32", ("B", 3))), ("y", "a_next"), nodes, weights, (State("a", "a_next"),))
    )


@pytest.mark.parametrize("scale", [100, 0])
def test_mixing_that_values_hide_is_found(scale):
    beside = Beside(masked_mean(scale), (3,), capacity=20)
    handles, x = beside.open(20), beside.draw(20) * np.float32(scale or 1)
    x[3] = x[3] if scale else np.nan
    y = beside.pool.step(handles, x)
    for row, handle in enumerate(handles):
        assert beside.alone[handle].step(x[row : row + 1]).tobytes() == y[row : row + 1].tobytes()


def test_models_that_keep_rows_apart_share_a_call(shared):
    silero = fr.from_onnx(shared / "models/silero-vad/silero_vad_16k_op15.onnx")
    for session, sizes in (
        (fr.compile(silero, states={"state": "stateN"}, constants={"sr": np.array(16_000)}), {"sequence": 576}),
        (fr.compile(fr.from_onnx(shared / "models/dtln-pytorch/model_p1.onnx")), None),
    ):
        assert session.pool(4, sizes=sizes)._tiles.most in (1, tiling.NEAR_ROWS)
    assert (
        fr.compile(silero, states={"state": "stateN"}, constants={"sr": np.array(16_000)}).pool(4, sizes={"sequence": 576})._tiles.most
        == tiling.NEAR_ROWS
    )


@pytest.mark.parametrize("kind", ["gru_after", "numpy"])
def test_chunks_of_several_rows_have_the_bits_of_chunks_alone(kind):
    beside = Beside(*KINDS[kind]())
    handles, x = beside.open(3), beside.draw(5, 3)
    y = beside.pool.push(handles, x)
    for row, handle in enumerate(handles):
        assert beside.alone[handle].push(x[:, row : row + 1]).tobytes() == y[:, row : row + 1].tobytes()


def test_a_list_that_changes_while_it_is_read():
    pool = KINDS["lstm"]()[0].pool(64)
    handles = [pool.open() for _ in range(64)]

    class Clearing(int):
        def __gt__(self, other):
            handles.clear()
            return super().__gt__(other)

        __lt__ = __le__ = __ge__ = __gt__

    handles[0] = Clearing(handles[0])
    with pytest.raises((fr.FastRNNError, TypeError)):
        pool.step(handles, np.zeros((3, 4), np.float32))
    assert len(pool) == 64


def test_a_call_inside_a_call_of_its_own_thread_is_refused():
    pool, errors = KINDS["lstm"]()[0].pool(4, lock=True), []
    handle = pool.open()

    class Inside:
        def __array__(self, *args, **kwargs):
            with pytest.raises(fr.BusyError):
                pool.close(handle)
            errors.append(1)
            return np.zeros((2, 1, 4), np.float32)

    pool.push([handle], Inside())
    assert errors and handle in pool


def test_a_refused_first_step_leaves_sizes_open():
    model = Model((Value("x", "float32", ("B", "W")), Value("a", "float32", ("B", 1))), ("y", "a_next"),
                  (Node("ReduceSum", "total", ("x", "one"), ("total",), {"keepdims": 1}), Node("Add", "y", ("total", "a"), ("y",)), Node("Identity", "n", ("y",), ("a_next",))),
                  {"one": np.array([1])}, (State("a", "a_next"),))  # fmt: skip
    pool = fr.compile(model).pool(4)
    handle = pool.open()
    for x in (np.zeros((2, 5), np.float32), np.zeros((1, 5))):
        with pytest.raises(fr.FastRNNError):
            pool.step([handle], x)
    with pytest.raises(fr.ShapeError):
        pool.push([handle], np.zeros((3, 2, 7), np.float32))
    assert pool.step([], np.zeros((0, 7), np.float32)).shape == (0, 1)
    assert pool.step([handle], np.ones((1, 4), np.float32)).tolist() == [[4]]
    with pytest.raises(fr.ShapeError, match=r"\(1, 4\)"):
        pool.step([handle], np.ones((1, 5), np.float32))


def test_a_mask_that_an_output_lies_over():
    beside = Beside(*KINDS["lstm"]())
    handles, x, memory = beside.open(2), beside.draw(3, 2), np.zeros(36, np.float32)
    mask = memory.view(bool)[:6].reshape(3, 2)
    mask[1, 0] = True
    wanted = mask.copy()
    y = beside.pool.push(handles, x, resets=mask, out=memory.reshape(3, 2, 6))
    for row, handle in enumerate(handles):
        assert beside.alone[handle].push(x[:, row : row + 1], resets=wanted[:, row : row + 1]).tobytes() == y[:, row : row + 1].tobytes()
    assert [beside.pool.steps(h) for h in handles] == [2, 3]


def test_other_kinds_of_handles():
    pool = KINDS["lstm"]()[0].pool(4)
    a, b = pool.open(), pool.open()
    x = np.zeros((2, 4), np.float32)
    assert np.int64(a) in pool and 0 not in pool and "a" not in pool and np.timedelta64(3, "s") not in pool
    for handles in ({a, b}, iter([a, b]), "ab", np.ma.masked_array([a, b]), [np.timedelta64(1 << 24, "s"), a], {a: 1, b: 2}):
        with pytest.raises(TypeError):
            pool.step(handles, x)
    assert (
        pool.step([np.int64(a), np.uint32(0) + np.int64(b)], x).shape == pool.step(np.array([a, b]), x).shape == pool.step((a, b), x).shape == (2, 6)
    )


def test_more_memory_than_there_is():
    session = fr.compile(fr.LSTM(4, 600, num_layers=3))
    try:
        session.pool(1 << 24)
    except fr.OutOfMemoryError:
        pass
    for context in ({"x": [1]}, {"x": np.array(3)}):
        with pytest.raises(fr.ShapeError, match="entry"):
            KINDS["exposed"]()[0].pool(3, context=context)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("lock", [False, True])
def test_a_forked_child_goes_on(lock):
    session = fr.compile(fr.LSTM(64, 256, seed=0))
    pool = session.pool(256, lock=lock)
    handles, x, stop = [pool.open() for _ in range(256)], np.zeros((256, 64), np.float32), threading.Event()

    def work():
        while not stop.is_set():
            pool.step(handles, x)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            child = os.fork()
            if not child:
                pool.step(handles, x)
                os._exit(0)
            deadline = time.monotonic() + 20
            while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
                time.sleep(0.01)
            if not ended[0]:
                os.kill(child, 9)
                os.waitpid(child, 0)
            assert ended == (child, 0)
    finally:
        stop.set()
        thread.join()


def test_a_thread_that_has_done_its_kernels_is_given_pythons_lock():
    """Though whoever has it would keep it for long."""
    pool = fr.compile(fr.LSTM(64, 128, seed=0)).pool(256)
    handles, x = [pool.open() for _ in range(256)], np.zeros((100, 256, 64), np.float32)
    pool.push(handles, x)
    assert not pool.waiting
    pool.give_way()  # to nobody
    interval, seen = sys.getswitchinterval(), False
    sys.setswitchinterval(60)
    try:
        for _ in range(20):  # on a busy machine the chunk may be over before this thread looks
            done = threading.Event()
            worker = threading.Thread(target=lambda done=done: [pool.push(handles, x), done.set()])
            worker.start()
            time.sleep(0.001)
            while not pool.waiting and not done.is_set():  # this thread keeps the lock
                pass
            seen, until = seen or bool(pool.waiting), time.monotonic() + 30
            while not done.is_set() and time.monotonic() < until:  # it may wait more than once
                pool.give_way()
            assert done.is_set() and not pool.waiting
            worker.join()
            if seen:
                return
    finally:
        sys.setswitchinterval(interval)
    assert seen
