"""Loop and Scan in ONNX files, against ONNX Runtime and the evaluation in float64: run again and again, or laid out."""

import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from written_loops import CASES, FLOAT, INT, graph, loop_body, model, node, rand, scan, value

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.kernels.reference import evaluate
from fastrnn.plan import build_program
from fastrnn.plan.program import JumpStep
from fastrnn.testing import kernels_called, kernels_said

BACKENDS = ["native", "reference"]


def ort(proto, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


def agree(got, want):
    for have, wanted in zip(got, want, strict=True):
        assert have.dtype.kind == wanted.dtype.kind and (
            have.shape == wanted.shape or have.size == wanted.size == 0
        )  # of no runs, ONNX Runtime knows no rank
        np.testing.assert_allclose(have.reshape(wanted.shape), wanted, rtol=0, atol=3e-6 * max(1e-30, np.abs(wanted).max(initial=0)))


@pytest.mark.parametrize("name", CASES)
def test_against_onnxruntime_and_float64(name, tmp_path):
    proto, feed = CASES[name]
    wanted = ort(proto, feed)
    imported = fr.from_onnx(proto)
    agree(evaluate(imported, feed).values(), wanted)
    imported.save(tmp_path / "m.safetensors")
    for backend in BACKENDS:
        for again in (imported, fr.load(tmp_path / "m.safetensors")):
            session = fr.compile(again, backend=backend)
            agree(session.run(feed).values(), wanted)
            agree(session.run(feed).values(), wanted)
            shapes = {n: a.shape for n, a in feed.items()}
            assert session.explain() and kernels_said(session, shapes) == kernels_called(session, shapes)


def test_a_loop_runs_in_the_program_or_is_laid_out():
    """What keeps its shapes is run again and again by jumps, in compiled code; what grows is laid out."""
    for name, jumps in (("constant", True), ("axis0_0_0_0", True), ("data", True), ("growing", False), ("windows", False)):
        proto, feed = CASES[name]
        session = fr.compile(fr.from_onnx(proto))
        steps = build_program(session.plan, session.plan.specialised({n: a.shape for n, a in feed.items()})).steps
        assert any(isinstance(step, JumpStep) for step in steps) == jumps
        assert "NumPy" not in session.explain({n: a.shape for n, a in feed.items()})


def test_the_same_session_at_other_lengths_and_bits_of_a_row():
    proto, _ = CASES["axis1_1_0_0"]
    session, x = fr.compile(fr.from_onnx(proto)), rand(4, 9, 3)
    whole = session.run({"s0": np.zeros((2, 3), np.float32), "xs": x[:2]})
    agree(whole.values(), ort(proto, {"s0": np.zeros((2, 3), np.float32), "xs": x[:2]}))
    again = session.run({"s0": np.zeros((2, 3), np.float32), "xs": x[[0, 3]]})
    assert all(
        np.array_equal(a[..., 0, :] if a.ndim > 2 else a[0], b[..., 0, :] if b.ndim > 2 else b[0]) for a, b in zip(whole.values(), again.values())
    )


def test_the_same_bits_on_every_instruction_set(monkeypatch):
    for proto, feed in CASES.values():
        results = []
        for name in isa.supported():
            monkeypatch.setenv("FASTRNN_ISA", name)
            results.append([np.asarray(a).tobytes() for a in fr.compile(fr.from_onnx(proto)).run(feed).values()])
        assert all(r == results[0] for r in results)


def test_a_model_that_exposes_its_states_streams_although_it_loops_inside():
    body = loop_body([node("Mul", "s half", "m"), node("Add", "m x", "s_out")], ["s"], [], {"half": np.float32(0.5)})
    proto = model(
        [node("Loop", "n go0 s0", "s1", body=body), node("Tanh", "s1", "y")],
        [value("x", shape=["B", 3]), value("s0", shape=["B", 3])],
        [value("y", shape=["B", 3]), value("s1", shape=["B", 3])],
        {"n": np.array(3), "go0": np.array(True)},
    )
    session = fr.compile(fr.from_onnx(proto), states={"s0": "s1"})
    stream, state, xs = session.stream(batch=2), np.zeros((2, 3), np.float32), rand(5, 2, 3)
    for x in xs:
        y = stream.step(x)
        want, state = ort(proto, {"x": x, "s0": state})
        agree([y], [want])


def test_threads_change_no_bit_of_a_loop():
    for name in ("nested", "data", "two", "axis1_1_0_0"):
        proto, feed = CASES[name]
        one, two = (fr.compile(fr.from_onnx(proto), threads=n).run(feed).values() for n in (1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(one, two))


def test_flipped_bits_are_refused_or_leave_a_model_that_compiles():
    for name in ("axis1_1_0_0", "until1.5", "nested"):
        data = CASES[name][0].SerializeToString()
        for bit in range(0, len(data) * 8, 29):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            started = time.process_time()
            try:
                fr.compile(fr.from_onnx(bytes(damaged)))
            except fr.FastRNNError:
                pass
            assert time.process_time() - started < 1.0


def loop_of(trips, body, start):
    return model(
        [node("Loop", "n go0 s0", "s1 ys", body=body)],
        [value("x", shape=["B"])],
        [value("s1"), value("ys")],
        {"n": np.array(trips), "go0": np.array(True), "s0": start},
    )


def deep(depth):
    """Loops inside loops; the innermost doubles what it is handed."""
    body = loop_body([node("Add", "s s", "s_out"), node("Identity", "s", "y")], ["s"], ["y"])
    for k in range(depth):
        inner = onnx.GraphProto()
        inner.CopyFrom(body)
        for v in (*inner.input, *inner.output):
            v.name += f"_{k}"
        for n in inner.node:
            n.input[:] = [f"{i}_{k}" if i in ("s", "go", "i") or i.startswith(("s_", "y")) else i for i in n.input]
            n.output[:] = [f"{o}_{k}" for o in n.output]
        body = loop_body([node("Loop", "n go s", "s_out ys", body=inner), node("Identity", "s", "y")], ["s"], ["y"])
    return loop_of(1000, body, np.zeros(2, np.float32))


BODY = loop_body([node("Identity", "s", "s_out"), node("Identity", "s", "y")], ["s"], ["y"])
REFUSED = {
    "deep": (lambda: deep(6), "nested more than 4"),
    "endless": (lambda: model([helper.make_node("Loop", ["", "", "s0"], ["s1", "ys"], body=BODY)], [value("x", shape=["B"])], [value("s1")], {"s0": np.zeros(2, np.float32)}), "neither a trip"),
    "no_body": (lambda: model([node("Loop", "n go0 s0", "s1")], [value("x", shape=["B"])], [value("s1")], {"n": np.array(1), "go0": np.array(True), "s0": np.zeros(2, np.float32)}), "body"),
    "huge": (lambda: loop_of(1 << 50, BODY, np.zeros(2, np.float32)), "elements"),
    "too_many_results": (lambda: model([node("Loop", "n go0 s0", "a b c d", body=BODY)], [value("x", shape=["B"])], [value("a")],
                                       {"n": np.array(1), "go0": np.array(True), "s0": np.zeros(2, np.float32)}), "do not fit"),
    "another_dtype": (lambda: loop_of(3, loop_body([node("Greater", "s s", "s_out"), node("Identity", "s", "y")], ["s"], ["y"]), np.zeros(2, np.float32)), "handed on as bool"),
    "sequence": (lambda: loop_of(3, helper.make_graph(list(BODY.node), "g", [*BODY.input[:2], helper.make_tensor_sequence_value_info("s", FLOAT, None)], list(BODY.output)), np.zeros(2, np.float32)),
                 "only tensors"),
    "scan_of_nothing": (lambda: model([node("Scan", "s0", "s1", **scan([node("Neg", "s", "s_out")], ["s"], [], []))], [value("s0", shape=[2])], [value("s1")]), "num_scan_inputs=0"),
    "two_lengths": (lambda: model([node("Scan", "a b", "ys", **scan([node("Add", "x z", "y")], [], ["x", "z"], ["y"]))], [value("a", shape=[3]), value("b", shape=[4])], [value("ys")]), "3, 4 entries"),
    "direction": (lambda: model([node("Scan", "a", "ys", **scan([node("Neg", "x", "y")], [], ["x"], ["y"], scan_input_directions=[2]))], [value("a", shape=[3])], [value("ys")]), "must be 0 or 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_and_in_time(name):
    make, message = REFUSED[name]
    started = time.process_time()
    with pytest.raises((fr.InvalidModelError, fr.UnsupportedModelError), match=message):
        fr.from_onnx(make())
    assert time.process_time() - started < 1.0


def test_results_of_as_many_runs_as_data_say_are_refused():
    until = loop_body(
        [node("ReduceMax", "s", "top", keepdims=0), node("Less", "top limit", "more"), node("Add", "s s", "s_out"), node("Identity", "s", "y")],
        ["s"],
        ["y"],
        go_on="more",
    )
    proto = model(
        [node("Loop", "n go0 s0", "s1 ys", body=until)],
        [value("s0", shape=["B"])],
        [value("s1"), value("ys")],
        {"n": np.array(9), "go0": np.array(True), "limit": np.float32(5)},
    )
    with pytest.raises(fr.UnsupportedModelError, match="Loop.*depends on data"):
        fr.compile(fr.from_onnx(proto)).run({"s0": np.ones(3, np.float32)})


@pytest.mark.parametrize("trips", ["data", "length"])
def test_a_trip_count_that_is_not_known_yet_ends_a_loop_before_its_condition(trips):
    """The condition alone, known beforehand, would say four runs."""
    body = loop_body([node("Less", "i most", "more"), node("Tanh", "s", "t"), node("Add", "t one", "s_out"), *([node("Identity", "s_out", "y")] if trips == "length" else [])],
                     ["s"], ["y"] if trips == "length" else [], {"most": np.array(3), "one": np.float32(1)}, go_on="more")  # fmt: skip
    nodes = [node("Shape", "x", "shape"), node("Gather", "shape zero", "n")] if trips == "length" else []
    given, results = (value("x", shape=["T", 2]), "s1 ys") if nodes else (value("n", INT, []), "s1")
    proto = model(
        [*nodes, node("Loop", "n go0 s0", results, body=body)],
        [given, value("s0", shape=["B", 2])],
        [value(r) for r in results.split()],
        {"go0": np.array(True), "zero": np.array(0)},
    )
    for backend in BACKENDS:
        session = fr.compile(fr.from_onnx(proto), backend=backend)
        for n in (1, 3, 2, 7):
            feed = {"s0": rand(3, 2), **({"x": rand(n, 2)} if nodes else {"n": np.array(n)})}
            agree(session.run(feed).values(), ort(proto, feed))


@pytest.mark.parametrize("outer", ["Loop", "If"])
def test_what_was_laid_out_is_read_two_bodies_deep(outer):
    """The result of a Loop that is laid out, or of an If that is decided, in a Scan in a Loop."""
    made = node("Loop", "two go0 s0", "first", body=loop_body([node("Less", "i one", "more"), node("Tanh", "s", "s_out")], ["s"], [], go_on="more"))
    if outer == "If":
        branches = {f"{k}_branch": graph([node(op, "s0", f"{k}_out")], [], [value(f"{k}_out")]) for k, op in (("then", "Tanh"), ("else", "Neg"))}
        made = node("If", "go0", "first", **branches)
    inner = node("Scan", "x", "ys", **scan([node("Add", "x_t first", "y")], [], ["x_t"], ["y"]))
    body = loop_body([inner, node("ReduceSum", "ys zero", "sum", keepdims=0), node("Add", "r sum", "r_out")], ["r"], [])
    proto = model(
        [made, node("Loop", "n go0 s0", "result", body=body)],
        [value("x", shape=["T", "B", 2]), value("s0", shape=["B", 2]), value("n", INT, [])],
        [value("result")],
        {"go0": np.array(True), "zero": np.array([0]), "one": np.array(1), "two": np.array(2)},
    )
    feed = {"x": rand(4, 3, 2), "s0": rand(3, 2), "n": np.array(3)}
    first = np.tanh(feed["s0"]) if outer == "If" else np.tanh(np.tanh(feed["s0"]))
    for backend in BACKENDS:
        agree(fr.compile(fr.from_onnx(proto), backend=backend).run(feed).values(), [feed["s0"] + 3 * (feed["x"].sum(0) + 4 * first)])


def test_laying_out_has_an_end():
    """Four levels of a thousand runs each, of which nothing keeps its shape: refused, or left to run, in little time."""
    grow = loop_body([node("Concat", "s one", "s_out", axis=0), node("Identity", "s", "y")], ["s"], ["y"])
    proto = loop_of(100_000, grow, np.zeros(1, np.float32))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    started = time.process_time()
    with pytest.raises((fr.InvalidModelError, fr.UnsupportedModelError)):
        fr.compile(fr.from_onnx(proto)).run({"x": np.zeros(2, np.float32)})
    assert time.process_time() - started < 1.0
    started = time.process_time()
    fr.compile(fr.from_onnx(deep(3)))
    assert time.process_time() - started < 2.0
