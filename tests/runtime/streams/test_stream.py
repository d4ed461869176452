"""Stream: steps, chunks, states, refusals, and what a step must not do. Graphs as they come: test_stream_graphs.py."""

import gc
import threading
import tracemalloc
from itertools import repeat

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, State, Value
from fastrnn.model.stack import StackOptions, stack_model


def model(kind="lstm", I=4, H=6, **options):
    o = StackOptions(kind, I, H, **options)
    random = np.random.default_rng(0)
    return stack_model(o, {n: random.uniform(-0.3, 0.3, s).astype(np.float32) for n, s in o.shapes().items()}, kind)


def frames(T, B, I=4, seed=1):
    return np.random.default_rng(seed).standard_normal((T, B, I)).astype(np.float32)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_steps_chunks_and_whole_sequences_agree(kind, batch_first):
    session, x = fr.compile(model(kind, num_layers=2, batch_first=batch_first)), frames(30, 3)
    whole = session(np.moveaxis(x, 0, 1) if batch_first else x)
    y = np.moveaxis(whole[0], 0, 1) if batch_first else whole[0]
    stream = session.stream(3)
    assert np.array_equal(np.stack([stream.step(row) for row in x]), y)
    assert all(np.array_equal(a, b) for a, b in zip(stream.state.values(), whole[1:]))
    stream.reset()
    assert np.array_equal(np.concatenate([stream.push(x[:7]), stream.push(x[7:8]), stream.push(x[8:8]), stream.push(x[8:])]), y)


def test_out_is_written_in_place():
    stream, x, out = fr.compile(model()).stream(2), frames(3, 2), np.empty((2, 6), np.float32)
    assert stream.step(x[0], out=out) is out
    twin = fr.compile(model()).stream(2)
    assert np.array_equal(out, twin.step(x[0]))
    chunk = np.empty((2, 2, 6), np.float32)
    assert stream.push(x[1:], out=chunk) is chunk
    assert np.array_equal(chunk, twin.push(x[1:]))


def test_states_by_name_and_back():
    session, x = fr.compile(model()), frames(9, 2)
    stream = session.stream(2)
    stream.push(x[:4])
    kept = stream.state
    rest = stream.push(x[4:])
    other = session.stream(2)
    other.state = kept
    assert np.array_equal(other.push(x[4:]), rest)
    kept["h0"][...] = 9
    assert not np.array_equal(other.state["h0"], kept["h0"])


def test_reset_of_single_rows():
    session, x = fr.compile(model(num_layers=2)), frames(6, 3)
    stream, fresh = session.stream(3), session.stream(3)
    stream.push(x[:3])
    stream.reset(rows=[2, 0])
    y, zero = stream.push(x[3:]), fresh.push(x[3:])
    assert np.array_equal(y[:, [0, 2]], zero[:, [0, 2]]) and not np.array_equal(y[:, 1], zero[:, 1])


@pytest.mark.parametrize("rows", [[3], [-1], [0.5], ["a"]])
def test_reset_refuses_rows_that_are_not_there(rows):
    stream = fr.compile(model()).stream(3)
    stream.step(frames(1, 3)[0])
    before = stream.state
    with pytest.raises(fr.StateError):
        stream.reset(rows)
    assert all(np.array_equal(before[n], s) for n, s in stream.state.items())


BAD_STEPS = [
    (lambda x: x.astype(np.float64), None, fr.DTypeError, "'x' must be float32"),
    (lambda x: x.astype(">f4"), None, fr.DTypeError, "byte order"),
    (lambda x: x[:1], None, fr.ShapeError, r"'x' must have shape \(2, 4\), got \(1, 4\)"),
    (lambda x: x[None], None, fr.ShapeError, "'x'"),
    (lambda x: {"y": x}, None, fr.ShapeError, "'x' is missing"),
    (lambda x: None, None, fr.DTypeError, "'x'"),
    (None, lambda: np.empty((2, 6), np.float64), fr.DTypeError, "out for 'y' must be float32"),
    (None, lambda: np.empty((2, 7), np.float32), fr.ShapeError, "out for 'y' must have shape"),
    (None, lambda: np.empty((6, 2), np.float32).T, fr.ShapeError, "C-contiguous"),
    (None, lambda: [[0.0]], fr.DTypeError, "NumPy array"),
]


@pytest.mark.parametrize("change,out,error,message", BAD_STEPS, ids=[str(k) for k in range(len(BAD_STEPS))])
def test_a_refused_step_changes_nothing(change, out, error, message):
    stream, x = fr.compile(model()).stream(2), frames(2, 2)
    stream.step(x[0])
    before = stream.state
    with pytest.raises(error, match=message):
        stream.step(change(x[1]) if change else x[1], out=out() if out else None)
    assert all(np.array_equal(before[n], s) for n, s in stream.state.items())
    stream.step(x[1])


def test_read_only_and_overlapping_out():
    stream = fr.compile(model(I=6)).stream(2)
    x = frames(1, 2, 6)[0]
    with pytest.raises(fr.ShapeError, match="overlaps"):
        stream.step(x, out=x)
    fixed = np.empty((2, 6), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(fr.ShapeError, match="writable"):
        stream.step(x, out=fixed)
    buffer = np.zeros(30, np.float32)
    with pytest.raises(fr.ShapeError, match="overlaps"):
        stream.step(buffer[:12].reshape(2, 6), out=buffer[11:23].reshape(2, 6))


def test_strided_and_read_only_steps_are_accepted():
    session, x = fr.compile(model()), frames(2, 2)
    wide = np.zeros((2, 8), np.float32)
    wide[:, ::2] = x[0]
    expected = session.stream(2).step(x[0])
    assert np.array_equal(session.stream(2).step(wide[:, ::2]), expected)
    assert np.array_equal(session.stream(2).step({"x": x[0]}), expected)
    fixed = x[0].copy()
    fixed.flags.writeable = False
    assert np.array_equal(session.stream(2).step(fixed), expected)


@pytest.mark.parametrize(
    "values,message",
    [
        ({}, "states are"),
        ({"h0": 1, "c0": 2, "d0": 3}, "states are"),
        ({"h0": np.zeros((1, 2, 6), np.float32), "c0": np.zeros((1, 2, 5), np.float32)}, "'c0' must be float32 of shape"),
        ({"h0": np.zeros((1, 2, 6), np.float64), "c0": np.zeros((1, 2, 6), np.float32)}, "'h0' must be float32"),
    ],
)
def test_bad_states_change_nothing(values, message):
    stream = fr.compile(model()).stream(2)
    stream.step(frames(1, 2)[0])
    before = stream.state
    with pytest.raises(fr.StateError, match=message):
        stream.state = values
    assert all(np.array_equal(before[n], s) for n, s in stream.state.items())


def test_not_streamable_names_the_node():
    with pytest.raises(fr.NotStreamableError, match="'lstm.*direction='bidirectional'"):
        fr.compile(model(bidirectional=True)).stream()
    with pytest.raises(fr.NotStreamableError, match="'lstm.*direction='reverse'"):
        fr.compile(model(reverse=True)).stream()
    last = Model(
        (Value("x", "float32", ("T", "B", 4)),),
        ("h",),
        model().nodes[:0] + (Node("RNN", "encoder", ("x", "w", "r"), ("", "h"), {"hidden_size": 3}),),
        {"w": np.zeros((1, 3, 4), np.float32), "r": np.zeros((1, 3, 3), np.float32)},
    )
    with pytest.raises(fr.NotStreamableError, match="encoder.*'h' has no time axis"):
        fr.compile(last, states={}).stream()


@pytest.mark.parametrize("batch", [0, -1, 1.5, True])
def test_bad_batch(batch):
    with pytest.raises(fr.ShapeError, match="batch"):
        fr.compile(model()).stream(batch)


def test_a_second_thread_gets_busy_error():
    """Calls long enough to give up the GIL: the second thread is refused, the first one's answer is right."""
    session = fr.compile(model(I=64, H=512))
    stream, x = session.stream(8), frames(200, 8, 64)
    expected, results, refused, started = session.stream(8).push(x), [], [], threading.Event()

    def work():
        started.set()
        results.append(stream.push(x))

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    while thread.is_alive():
        try:
            stream.state  # noqa: B018
        except fr.BusyError as error:
            refused.append(error)
    thread.join()
    assert refused and np.array_equal(results[0], expected)


def test_a_million_steps_allocate_nothing():
    stream, x, out = fr.compile(model("gru", I=3, H=8)).stream(), frames(1, 1, 3)[0], np.empty((1, 8), np.float32)
    for _ in range(1_000):
        stream.step(x, out=out)
    gc.collect()
    step = stream.step

    def traced(n):
        """Bytes that n steps keep, and the most that they held meanwhile."""
        tracemalloc.reset_peak()
        start, _ = tracemalloc.get_traced_memory()
        for _ in repeat(None, n):
            step(x, out=out)
        end, peak = tracemalloc.get_traced_memory()
        return end - start, peak - start

    tracemalloc.start()
    traced(10)
    kept, most = min(traced(250_000) for _ in range(4))  # threads that other tests left may allocate meanwhile
    tracemalloc.stop()
    assert kept <= 100 and most <= 400, (kept, most)  # the frame and counters of the measurement itself


def test_states_of_another_dtype_or_shape_are_refused():
    x, y = Value("x", "float32", ("B", 2)), Node("Relu", "y", ("x",), ("y",))
    for state in (Value("s", "int64", ("B", 2)), Value("s", "float32", ("B", 3)), Value("s", "float32", (2,))):
        with pytest.raises(fr.InvalidModelError, match="'s' <- 'y'"):
            Model((x, state), ("y",), (y,), {}, (State("s", "y"),))
    for index in (7, "a", -1, True):
        with pytest.raises(fr.InvalidModelError, match="index"):
            fr.compile(model(num_layers=2), states={"h0": ("h_n", index)})


def test_streams_are_neither_copied_nor_made_by_hand():
    import copy
    import pickle

    stream = fr.compile(model()).stream()
    for attempt in (
        lambda: copy.copy(stream),
        lambda: copy.deepcopy(stream),
        lambda: pickle.dumps(stream),
        lambda: fr.Stream.__new__(fr.Stream).step(frames(1, 1)[0]),
    ):
        with pytest.raises(TypeError):
            attempt()


def test_chunk_outputs_must_lie_apart():
    graph = Model((Value("x", "float32", ("B", 2)),), ("y", "z"), (Node("Relu", "y", ("x",), ("y",)), Node("Tanh", "z", ("x",), ("z",))), {})
    stream, x, buffer = fr.compile(graph).stream(), np.ones((3, 1, 2), np.float32), np.zeros(20, np.float32)
    with pytest.raises(fr.ShapeError, match="overlaps"):
        stream.push(x, out=(buffer[:6].reshape(3, 1, 2), buffer[4:10].reshape(3, 1, 2)))
    for out in (5, (buffer[:6].reshape(3, 1, 2),)):
        with pytest.raises(fr.ShapeError, match="tuple of 2"):
            stream.push(x, out=out)
    y, z = stream.push(x)
    assert (y == 1).all() and np.allclose(z, np.tanh(1))


def test_a_constant_start_behind_a_slice():
    h0 = np.random.default_rng(0).uniform(-1, 1, (2, 3, 6)).astype(np.float32)
    inner = model("gru", num_layers=2)
    graph = Model(inner.inputs, ("y",), inner.nodes, inner.weights)
    session, x = fr.compile(graph, constants={"h0": h0}), frames(5, 3)
    stream = session.stream(3)
    assert np.array_equal(stream.push(x), fr.compile(inner).run({"x": x, "h0": h0})["y"])
    with pytest.raises(fr.ShapeError, match="initial_h must have shape"):
        session.stream(2)


def test_mappings_are_checked():
    session = fr.compile(model())
    stream = session.stream()
    for bad in (None, 5, ["h0", "c0"], {"h0": 1, 1: 2}):
        with pytest.raises(fr.StateError):
            stream.state = bad
    for bad in (None, 5, [1], {1: 2}):
        with pytest.raises(fr.ShapeError):
            session.run(bad)
    for bad in (5, [1], "h0"):
        with pytest.raises(fr.InvalidModelError):
            fr.compile(model(), states=bad)
        with pytest.raises(fr.InvalidModelError):
            fr.compile(model(), constants=bad)
    with pytest.raises(fr.InvalidModelError):
        fr.compile(model(), states={"h0": ("h_n", 0, 1)})
    with pytest.raises(fr.ShapeError, match="typo"):
        session.run({"x": frames(2, 1), "typo": None})


def test_a_state_with_a_time_axis_is_refused():
    with pytest.raises(fr.NotStreamableError, match="'h0' <- 'y' has a time axis"):
        fr.compile(model("rnn"), states={"h0": "y"}).stream()


def test_a_refused_chunk_plans_nothing():
    session = fr.compile(model())
    stream = session.stream(2)
    stream.push(frames(5, 2))
    before = {key: list(runners) for key, runners in session._forms_of(None).of(2)._programs.items()}
    for n in range(11, 19):
        with pytest.raises(fr.ShapeError, match="'x'"):
            stream.push(frames(n, 2)[..., :3])
    with pytest.raises(fr.ShapeError):
        stream.push(np.broadcast_to(np.float32(0), (10**12, 1)))
    assert session._forms_of(None).of(2)._programs == before
