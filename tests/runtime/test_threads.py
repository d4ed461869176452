"""Several threads: the same bits, however work is shared; nothing left running; limits obeyed."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import isa, registry
from fastrnn.kernels.contract import Kernel, Key
from fastrnn.model.stack import stack_model
from fastrnn.plan import build_program
from fastrnn.plan.lowering import parallel
from fastrnn.runtime.executor.threads import announce, set_thread_limit, thread_limit
from fastrnn.testing import LAYERS, draw_case


@pytest.fixture
def four_threads():
    """As if the machine had four processors: more threads than this may have, which has to work too."""
    before = thread_limit()
    set_thread_limit(4)
    yield
    set_thread_limit(before)


@pytest.fixture
def share_everything(monkeypatch):
    """Splits what would not be worth it."""
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    monkeypatch.setattr(parallel, "STEP_WORTH_NS", 0.0)


def bits(results):
    return [np.asarray(r).view(np.uint32) for r in results]


def program_of(layer, T, B, threads, lengths=False):
    session = fr.compile(stack_model(layer.options, layer.state_dict(), layer.options.kind), threads=threads)
    I = layer.options.input_size
    shapes = {"x": (T, B, I)} | ({"lengths": (B,)} if lengths else {})
    return build_program(session.plan, session.plan.specialised(shapes))


@pytest.mark.parametrize("least_rows", [1, 4])
@pytest.mark.parametrize("seed", range(6))
def test_same_bits_on_any_number_of_threads(seed, least_rows, share_everything, four_threads, monkeypatch):
    monkeypatch.setattr(parallel, "LEAST_ROWS", least_rows)
    random = np.random.default_rng(seed)
    for _ in range(30):
        case = draw_case(random)
        one = case.layer()
        expected = bits(case.run(one))
        for threads in (2, 3, 4):
            many = case.layer(threads=threads)
            for again in range(2):
                assert all(np.array_equal(a, b) for a, b in zip(expected, bits(case.run(many)), strict=True)), (
                    f"{case}: {threads} threads, call {again}"
                )


@pytest.mark.parametrize("name", isa.supported())
@pytest.mark.parametrize(
    "kind, options",
    [
        *[("lstm", {}), ("lstm", {"proj_size": 9}), ("gru", {}), ("gru", {"reset_after": False}), ("rnn", {}), ("lstm", {"bidirectional": True})],
        *[("lstm", {"peepholes": True}), ("gru", {"clip": 1.0}), ("gru", {"reset_after": False, "clip": 1.0}), ("rnn", {"nonlinearity": "relu"})],
    ],
)
def test_units_in_parts_on_every_isa(kind, options, name, share_everything, four_threads, monkeypatch):
    monkeypatch.setenv("FASTRNN_ISA", name)
    random = np.random.default_rng(0)
    for H, B, T in ((40, 1, 37), (72, 2, 9), (33, 3, 1), (100, 1, 20), (64, 7, 60)):
        x = random.standard_normal((T, B, 24)).astype(np.float32)
        threads = 4 if "bidirectional" in options else 3
        one, many = (LAYERS[kind](24, H, seed=1, threads=n, **options) for n in (1, threads))
        assert all(np.array_equal(a, b) for a, b in zip(bits([one(x)[0]]), bits([many(x)[0]])))
        steps = program_of(one, T, B, threads).steps
        assert max(int(s.args["parts"]) for s in steps) > 1


def test_what_is_split_how(share_everything):
    def calls(layer, T, B, threads, **more):
        return [s for s in program_of(layer, T, B, threads, **more).steps if "w_h" in s.pointers]

    lstm = fr.LSTM(16, 64, seed=0)
    assert [int(s.args["B"]) for s in calls(lstm, 10, 9, 2)] == [5, 4] and calls(lstm, 10, 9, 2)[0].together == 2
    assert [int(s.args["parts"]) for s in calls(lstm, 10, 1, 2)] == [2]
    both = calls(fr.LSTM(16, 64, bidirectional=True, seed=0), 10, 1, 2)
    assert [int(s.args["parts"]) for s in both] == [1, 1] and both[0].together == 2
    assert [int(s.args["parts"]) for s in calls(fr.LSTM(16, 64, bidirectional=True, seed=0), 10, 1, 4)] == [2, 2]


def test_layers_run_as_a_wavefront(monkeypatch, four_threads):
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)  # a step is too short for its units to be split
    stack = fr.GRU(20, 24, num_layers=3, seed=0)
    steps = [s for s in program_of(stack, 50, 2, 3).steps if "w_h" in s.pointers]
    assert steps[0].together == 3 and [s.follows for s in steps] == [False, True, True]
    x = np.random.default_rng(0).standard_normal((50, 2, 20)).astype(np.float32)
    for lengths in (None, [50, 17], [0, 31]):
        expected = bits(stack(x, lengths=lengths))
        for threads in (2, 3, 4):
            many = fr.GRU(20, 24, num_layers=3, seed=0, threads=threads)
            for _ in range(5):
                assert all(np.array_equal(a, b) for a, b in zip(expected, bits(many(x, lengths=lengths))))


@pytest.mark.parametrize("state", ["final", "step of y", "step of turned y"])
def test_a_layer_that_starts_where_another_ends_waits_for_it(state, monkeypatch, four_threads):
    """A decoder's initial state is the encoder's final one, or a step of its output: no wavefront, though it reads that output too."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    random, H = np.random.default_rng(0), 24
    weights = {f"{n}{k}": random.standard_normal((1, 3 * H, H)).astype(np.float32) / 5 for n in "WR" for k in (0, 1)}
    nodes = [
        helper.make_node("GRU", ["x", "W0", "R0"], ["y0", "h0"], hidden_size=H),
        helper.make_node("Squeeze", ["y0", "one"], ["x1"]),
        helper.make_node("GRU", ["x1", "W1", "R1", "", "", "h0"], ["y1", ""], hidden_size=H),
    ]
    constants = weights | {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1]), "least": np.array([-1000])}
    if state != "final":
        nodes[0].output[1] = ""
        turned = [helper.make_node("Slice", ["y0", "minus", "least", "zero", "minus"], ["turned"])] if "turned" in state else []
        steps = [
            helper.make_node("Slice", ["turned", "zero", "one", "zero"] if turned else ["y0", "minus", "big", "zero"], ["last"]),
            helper.make_node("Squeeze", ["last", "zero"], ["h0"]),
        ]
        nodes[2:2], constants = turned + steps, constants | {"big": np.array([1000])}
    info = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", H])],
        [helper.make_tensor_value_info("y1", TensorProto.FLOAT, ["T", 1, "B", H])],
    )
    graph = helper.make_graph(nodes, "g", *info, [numpy_helper.from_array(a, n) for n, a in constants.items()])
    model = fr.from_onnx(onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    session = fr.compile(model, threads=2)
    assert not any(s.follows for s in build_program(session.plan, session.plan.specialised({"x": (40, 1, H)})).steps)
    x = random.standard_normal((40, 1, H)).astype(np.float32)
    assert np.array_equal(session(x), fr.compile(model)(x))


def test_kernels_of_other_backends_make_no_wavefront(monkeypatch):
    """They need not count their steps, nor wait for another's."""
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    native = registry.find(Key("recurrent", "gru"), "native", isa.chosen())
    foreign = Kernel(native.key, "jit", isa.chosen(), native.lanes, native.run, native.work_bytes)
    registry.register(foreign)
    try:
        layer = fr.GRU(20, 24, num_layers=3, seed=0, backend="jit")
        session = fr.compile(stack_model(layer.options, layer.state_dict(), "gru"), "jit", threads=3)
        steps = build_program(session.plan, session.plan.specialised({"x": (50, 2, 20)})).steps
        assert not any(s.follows for s in steps)
    finally:
        registry.unregister(foreign)


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_fewer_threads_than_parts(limit, share_everything, four_threads):
    set_thread_limit(limit)
    x = np.random.default_rng(0).standard_normal((30, 1, 24)).astype(np.float32)
    for options in ({}, {"proj_size": 20}, {"bidirectional": True}, {"num_layers": 3}):
        one, many = (fr.LSTM(24, 100, seed=0, threads=n, **options) for n in (1, 8))
        for _ in range(3):
            assert all(np.array_equal(a, b) for a, b in zip(bits([one(x)[0], *one(x)[1]]), bits([many(x)[0], *many(x)[1]]), strict=True))


def test_ragged_rows_are_dealt_out_evenly(share_everything, four_threads):
    layer, random = fr.LSTM(8, 16, seed=0), np.random.default_rng(0)
    lengths = random.integers(0, 30, 13)
    many = fr.LSTM(8, 16, seed=0, threads=3)
    x = random.standard_normal((30, 13, 8)).astype(np.float32)
    assert all(np.array_equal(a, b) for a, b in zip(bits(layer(x, lengths=lengths)[:1]), bits(many(x, lengths=lengths)[:1])))


def test_small_work_stays_on_one_thread():
    steps = program_of(fr.LSTM(16, 16, seed=0), 20, 1, 2).steps
    assert all(s.together == 0 and s.args["parts"] <= 1 for s in steps)


def test_explain_says_what_runs_at_once():
    def explained(layer, T, B, threads=2):
        session = fr.compile(stack_model(layer.options, layer.state_dict(), layer.options.kind), threads=threads)
        assert "by the shapes in use" in session.explain()
        states = {v.name: tuple(B if d == "B" else d for d in v.shape) for v in session.model.inputs if v.name in ("h0", "c0")}
        return session.explain({"x": (T, B, layer.options.input_size), **states})

    assert "one thread: 0 us of work" in explained(fr.LSTM(8, 8, seed=0), 5, 1)
    text = explained(fr.LSTM(256, 256, seed=0), 50, 1)
    assert "units on 2 threads" in text and "2 threads: lstm in parts" in text
    text = explained(fr.LSTM(256, 256, seed=0), 50, 16)
    assert "rows on 2 threads" in text and "2 threads: lstm at once" in text
    text = explained(fr.GRU(64, 64, num_layers=2, seed=0), 500, 1)
    assert "us a step" in text and "one following the other" in text


def test_products_are_split_by_rows(share_everything, four_threads):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Conv1d(12, 40, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(40 * 50, 70), torch.nn.Sigmoid()
    )
    model, x = fr.from_torch(module.eval()), np.random.default_rng(0).standard_normal((9, 12, 50)).astype(np.float32)
    expected = fr.compile(model)(x)
    for threads in (2, 3, 4):
        session = fr.compile(model, threads=threads)
        assert np.array_equal(session(x).view(np.uint32), expected.view(np.uint32))
    steps = build_program(session.plan, session.plan.specialised({v.name: x.shape for v in model.inputs})).steps
    assert max(s.together for s in steps) > 1


def test_streams_on_several_threads(share_everything, four_threads):
    layer = fr.LSTM(32, 64, num_layers=2, seed=0)
    model = stack_model(layer.options, layer.state_dict(), "lstm")
    one, many = fr.compile(model).stream(), fr.compile(model, threads=3).stream()
    x = np.random.default_rng(0).standard_normal((70, 1, 32)).astype(np.float32)
    expected = one.push(x)
    got = np.concatenate([many.push(x[:33]), *(many.step(row)[None] for row in x[33:37]), many.push(x[37:])])
    assert np.array_equal(expected.view(np.uint32), got.view(np.uint32))
    assert all(np.array_equal(one.state[name], many.state[name]) for name in one.state)


def busy_layer():
    return fr.LSTM(256, 256, seed=0, threads=2), np.random.default_rng(0).standard_normal((40, 2, 256)).astype(np.float32)


def test_several_sessions_at_once(four_threads):
    layer, x = busy_layer()
    expected, wrong = layer(x)[0], []

    def work():
        mine = fr.LSTM(256, 256, seed=0, threads=2)
        wrong.extend(k for k in range(10) if not np.array_equal(mine(x)[0], expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_works_after_a_fork():
    layer, x = busy_layer()
    expected = layer(x)[0]
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(layer(x)[0], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(layer(x)[0], expected)


def test_threadpoolctl_limits_it():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    announce()
    before = thread_limit()
    with threadpoolctl.threadpool_limits(1):
        assert thread_limit() == 1
        layer, x = busy_layer()
        layer(x)
    assert thread_limit() == before
    with threadpoolctl.threadpool_limits({"fastrnn": 3}):
        assert thread_limit() == 3
    assert [info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "fastrnn"] == [before]


def test_threadpoolctl_knows_what_is_imported_after_it():
    pytest.importorskip("threadpoolctl")
    code = "import threadpoolctl, fastrnn; print([info['user_api'] for info in threadpoolctl.threadpool_info()].count('fastrnn'))"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True).stdout == "1\n"


def test_layers_are_known_to_threadpoolctl_too():
    pytest.importorskip("threadpoolctl")
    code = (
        "import fastrnn as fr, threadpoolctl, numpy as np; fr.LSTM(8, 8, threads=2)(np.ones((3, 1, 8), np.float32));"
        "print([info['user_api'] for info in threadpoolctl.threadpool_info()].count('fastrnn'))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize("threads", [10**6, 2**70])
def test_more_threads_than_there_can_be(threads):
    x = np.random.default_rng(0).standard_normal((50, 1, 256)).astype(np.float32)
    assert np.array_equal(fr.LSTM(256, 256, seed=0, threads=threads)(x)[0], fr.LSTM(256, 256, seed=0)(x)[0])


def test_workers_sleep_when_there_is_nothing_to_do(four_threads):
    layer, x = busy_layer()
    layer(x)
    time.sleep(0.05)
    started = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - started < 0.1


def test_a_limit_of_one_starts_no_thread():
    code = (
        "import numpy as np, os, fastrnn as fr; from fastrnn.runtime.executor.threads import set_thread_limit; set_thread_limit(1);"
        "fr.LSTM(256, 256, threads=4)(np.ones((50, 2, 256), np.float32)); print(len(os.listdir('/proc/self/task')))"
    )
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("threads are counted in /proc")
    alone = subprocess.run(
        [sys.executable, "-P", "-c", "import os; import numpy; print(len(os.listdir('/proc/self/task')))"], capture_output=True, text=True, check=True
    )
    limited = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert limited.stdout == alone.stdout
