"""Batcher: each caller gets the bits of a stream of its own, in order, whoever else asks, from models of every kind."""

import asyncio
import time
from concurrent.futures import wait

import numpy as np
import pytest
from served import Gate, H, I, alone, frames, same

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.serving import Batcher

CELLS = {
    "lstm": lambda: fr.LSTM(I, H, num_layers=2, seed=1),
    "gru after": lambda: fr.GRU(I, H, seed=2),
    "gru before": lambda: fr.GRU(I, H, reset_after=False, seed=3),
    "rnn": lambda: fr.RNN(I, H, seed=4),
    "projected": lambda: fr.LSTM(I, H, proj_size=3, seed=5),
}


@pytest.mark.parametrize("name", CELLS)
def test_every_caller_gets_the_bits_of_its_own_stream(name):
    session, xs = fr.compile(CELLS[name]()), frames(20, 12)
    with Batcher(session, 20, max_batch=7) as batcher:
        futures = [[batcher.submit(c, xs[c, t], start=t == 0, end=t == 11) for c in range(20)] for t in range(12)]
        for c in range(20):
            assert same([futures[t][c].result(20) for t in range(12)], alone(session, xs[c]))
        assert len(batcher) == 0


def test_callers_on_an_event_loop(session):
    xs = frames(30, 10)

    async def caller(batcher, c):
        return [await batcher.step(c, x, start=t == 0) for t, x in enumerate(xs[c])]

    async def main():
        async with Batcher(session) as batcher:
            got = await asyncio.gather(*(caller(batcher, c) for c in range(30)))
            return got, batcher.metrics()

    got, metrics = asyncio.run(main())
    assert all(same(got[c], alone(session, xs[c])) for c in range(30))
    assert metrics["answers"] == 300 and metrics["steps"] == 10 and metrics["batch_rows"]["sum"] == 300  # a round of the loop is one step


def test_rows_with_their_axis_and_without(session):
    xs = frames(1, 2)[0]
    with Batcher(session) as batcher:
        y = batcher.submit("a", xs[:1], start=True).result()
        assert y.shape == (1, H) and same([y[0]], alone(session, xs[:1]))
        assert batcher.submit("a", xs[1]).result().shape == (H,)


def test_a_request_is_copied_and_so_is_its_answer(session):
    xs = frames(1, 3)[0]
    wanted = alone(session, xs)
    with Batcher(session) as batcher:
        x = xs[0].copy()
        first = batcher.submit("a", x, start=True, step=0)
        x[:] = np.nan
        first.result()[:] = np.nan
        assert same([batcher.submit("a", xs[0], step=0, start=True).result()], wanted[:1])
        y = batcher.submit("a", xs[1], step=1).result()
        assert y.base is None and same([y, batcher.submit("a", xs[2], step=2).result()], wanted[1:])


def test_one_callers_requests_stay_in_order(held, session):
    batcher, gate = held
    xs = frames(3, 20)
    futures = [[batcher.submit(c, xs[c, t], start=t == 0) for t in range(20)] for c in range(3)]
    gate.release()
    assert all(same([f.result(20) for f in futures[c]], alone(session, xs[c])) for c in range(3))
    assert [len(step) for step in gate.steps[1:]] == [3] * 20


def test_a_busy_engine_takes_all_that_is_ready_and_no_more_than_max_batch(session, monkeypatch):
    with Batcher(session, 64, max_batch=8) as batcher:
        gate = Gate(batcher, monkeypatch)
        gate.hold(batcher)
        futures = [batcher.submit(c, x, start=True) for c, x in enumerate(frames(20, 1)[:, 0])]
        assert batcher.metrics()["waiting"] == 20
        gate.release()
        wait(futures, 20)
        assert [len(step) for step in gate.steps] == [1, 8, 8, 4]
        assert batcher.metrics()["batch_rows"]["counts"][3] == 2


def test_an_idle_engine_waits_for_no_timer(session):
    with Batcher(session, max_wait_us=10_000_000) as batcher:
        for c in range(3):
            started = time.monotonic()
            batcher.submit(c, frames(1, 1)[0, 0], start=True).result(20)
            assert time.monotonic() - started < 5
            time.sleep(0.05)  # the worker, too, finds that nothing is left


def test_a_busy_engine_waits_for_rows_but_not_beyond_max_wait(session, monkeypatch):
    x = frames(1, 1)[0, 0]
    with Batcher(session, 64, max_wait_us=300_000) as batcher:
        gate = Gate(batcher, monkeypatch)
        for c in range(3):
            batcher.submit(c, x, start=True).result(20)
        del gate.steps[:]
        gate.hold(batcher)
        first = batcher.submit(0, x)
        gate.release()  # three others might still come
        second, third, fourth = batcher.submit(1, x), batcher.submit(2, x), batcher.submit("holder", x)
        wait([first, second, third, fourth], 20)
        assert [len(step) for step in gate.steps] == [1, 4]
        gate.entered.clear(), gate.open.clear()
        gate.held = True
        one = batcher.submit(0, x)
        gate.entered.wait(20)
        gate.held = False
        late = batcher.submit(1, x)
        started = time.monotonic()
        gate.open.set()
        wait([one, late], 20)
        assert time.monotonic() - started < 5


def test_inputs_by_name_and_values_that_all_rows_share(shared):
    session = fr.compile(fr.load(shared / "models/silero-vad/silero_vad_16k_op15.onnx"))
    fixed = fr.compile(session.model, constants={"sr": np.array(16000)})
    xs = (np.random.default_rng(0).standard_normal((6, 3, 576)) / 8).astype(np.float32)
    with Batcher(session, 8) as batcher:
        futures = [[batcher.submit(c, {"input": xs[c, t], "sr": np.array(16000)}, start=t == 0) for c in range(6)] for t in range(3)]
        for c in range(6):
            stream = fixed.stream()
            assert same([futures[t][c].result(20) for t in range(3)], [stream.step(x[None])[0] for x in xs[c]])
        with pytest.raises(fr.ShapeError, match="'sr' is missing"):
            batcher.submit(0, {"input": xs[0, 0]})
    context = {"input": 64}
    with Batcher(fixed, 8, context=context, sizes=None) as batcher:
        stream = fixed.stream(context=context)
        assert same([batcher.submit("a", x[64:], start=t == 0).result() for t, x in enumerate(xs[0])], [stream.step(x[None, 64:])[0] for x in xs[0]])


def test_requests_of_different_values_go_to_different_steps(monkeypatch):
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    nodes = [h.make_node("Mul", ["x", "gain"], ["g"]), h.make_node("Add", ["s", "g"], ["n"])]
    value = h.make_tensor_value_info
    graph = h.make_graph(
        nodes, "gained", [value("x", 1, ["B", 2]), value("gain", 1, []), value("s", 1, ["B", 2])], [value("n", 1, ["B", 2]), value("g", 1, ["B", 2])]
    )
    session = fr.compile(fr.from_onnx(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)), states={"s": "n"})
    xs, gains = np.random.default_rng(0).standard_normal((10, 4, 2)).astype(np.float32), np.array([1, 2, 3], np.float32)
    with Batcher(session, 16) as batcher:
        gate = Gate(batcher, monkeypatch)
        gate.held = True
        gate.holder = batcher.submit("holder", {"x": xs[0, 0], "gain": gains[0]}, start=True)
        gate.entered.wait(20)
        gate.held = False
        futures = [[batcher.submit(c, {"x": xs[c, t], "gain": gains[(c + t) % 3]}, start=t == 0) for t in range(4)] for c in range(10)]
        gate.release()
        for c in range(10):
            stream = session.stream()
            wanted = [stream.step({"x": x[None], "gain": gains[(c + t) % 3]})[0] for t, x in enumerate(xs[c])]
            assert same([f.result(20) for f in futures[c]], wanted)
        assert len(gate.steps) > 5 and len(gate.steps[1]) < 10  # a value's callers together, not all


def test_reset_export_and_restore_come_in_order(held, session):
    batcher, gate = held
    xs = frames(1, 6)[0]
    a = [batcher.submit("a", xs[0], start=True), batcher.submit("a", xs[1])]
    saved = batcher.export("a")
    a.append(batcher.submit("a", xs[2]))
    reset = batcher.reset("a")
    a.append(batcher.submit("a", xs[3]))
    with pytest.raises(fr.StateError):
        batcher.restore("a", b"")
    with pytest.raises(fr.UnknownStreamError):
        batcher.export("b")
    gate.release()
    wanted = alone(session, xs)
    assert same([f.result(20) for f in a], [*wanted[:3], alone(session, xs[3:4])[0]]) and reset.result() is None
    restored = batcher.restore("b", saved.result())
    b = batcher.submit("b", xs[2])
    assert restored.result() is None and same([b.result()], wanted[2:3])
    damaged, behind = batcher.restore("c", saved.result()[:-1]), None
    with pytest.raises(fr.StateError):
        damaged.result(20)
    assert "c" not in batcher and behind is None


@pytest.mark.parametrize(
    "x, error",
    [
        (np.zeros(I + 1, np.float32), fr.ShapeError),
        (np.zeros((2, I), np.float32), fr.ShapeError),
        (np.zeros(I), fr.DTypeError),
        (np.zeros(I, ">f4"), fr.DTypeError),
        (None, fr.DTypeError),
        ({"y": np.zeros(I, np.float32)}, fr.ShapeError),
        (np.float32(1), fr.ShapeError),
    ],
)
def test_a_wrong_input_is_its_callers_own_affair(session, x, error):
    good = frames(1, 2)[0]
    with Batcher(session) as batcher:
        first = batcher.submit("a", good[0], start=True)
        with pytest.raises(error):
            batcher.submit("a", x)
        with pytest.raises(error):
            batcher.submit("b", x, start=True)
        assert same([first.result(), batcher.submit("a", good[1]).result()], alone(session, good)) and len(batcher) == 1


def test_an_index_out_of_range_is_refused_before_it_is_queued():
    session = fr.compile(tr.Sequential(tr.Embedding(11, 3), tr.GRU(3, 4), tr.Linear(4, 2), seed=0).to_model())
    tokens = np.array([3, 10, 0])
    with Batcher(session) as batcher:
        got = [batcher.submit("a", tokens[0], start=True).result()]
        for wrong in (11, -12):
            with pytest.raises(fr.ShapeError, match=str(wrong)):
                batcher.submit("a", np.array(wrong))
        assert same(got + [batcher.submit("a", token).result() for token in tokens[1:]], alone(session, tokens))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_batch": 0}, "max_batch"),
        ({"max_batch": 1.5}, "max_batch"),
        ({"max_wait_us": -1}, "max_wait_us"),
        ({"max_queue": 0}, "max_queue"),
        ({"idle_timeout_s": float("nan")}, "idle_timeout_s"),
        ({"capacity": 0}, "capacity"),
        ({"sizes": {"z": 3}}, "sizes"),
    ],
)
def test_options_are_checked(session, options, message):
    with pytest.raises(fr.ShapeError, match=message):
        Batcher(session, **options)
