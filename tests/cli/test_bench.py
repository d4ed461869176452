"""bench: what it times, what it refuses, and what it says where results differ."""

import json
import sys
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from calling import ONNX, STATE, call
from onnx import TensorProto, helper, numpy_helper

import fastrnn as fr
from fastrnn.cli import bench, main, timing
from fastrnn.cli.timing import Race
from fastrnn.testing import FakeClock


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A moment of timing for each combination."""
    monkeypatch.setattr(bench, "SECONDS", 0.01)
    monkeypatch.setattr(bench, "ROUNDS", (2, 2))
    monkeypatch.setattr(bench, "Race", lambda runs: Race(runs, block=20, turn_seconds=1e-3))


def rows(data, **where):
    return [row for row in data["results"] if all(row[k] == v for k, v in where.items())]


@pytest.mark.usefixtures("needs_torch")
def test_every_engine_and_combination_has_its_row(capsys):
    code, out, err = call(capsys, "bench", ONNX, *STATE, "--against", "onnxruntime,torch,openvino", "--batch", "1,2", "--steps", "1,10", "--json")
    data = json.loads(out)
    assert code == 0 and "DIFFER" not in err and data["same_results"] and data["roofline"]["fma_gflops"] > 0
    assert len(data["results"]) == 2 * 2 * 4
    for row in data["results"]:
        assert 0 < row["us"] <= row["p99"] * 1.001 and row["bound_us"] > 0 and row["note"] is None
        assert row["error"] is None if row["engine"] == "fastrnn" else row["error"] < 2e-5
        assert (row["ratio"] == 1) == (row["engine"] == "fastrnn") or row["ratio"] > 0
    assert rows(data, batch=2, steps=10)[0]["bound_us"] > rows(data, batch=1, steps=1)[0]["bound_us"]


def test_a_person_gets_a_table_a_plot_and_a_file(capsys, tmp_path):
    code, out, err = call(capsys, "bench", ONNX, *STATE, "--steps", 4, "--plot", tmp_path / "p.svg", "--json", tmp_path / "b.json")
    assert code == 0 and "DIFFER" not in err and "onnxruntime" in out and "bound_us" in out and "length of 'T'" in out
    data = json.loads((tmp_path / "b.json").read_text())
    assert [row["engine"] for row in data["results"]] == ["fastrnn", "onnxruntime"] and data["threads"] == 1
    svg = ElementTree.parse(tmp_path / "p.svg").getroot()
    text = "".join(svg.itertext())
    assert svg.tag.endswith("svg") and "batch 1, 4 steps" in text and "onnxruntime" in text and "roofline" in text


def test_a_plot_may_be_a_png_and_needs_an_extra(capsys, tmp_path, monkeypatch):
    code, _, err = call(capsys, "bench", ONNX, *STATE, "--against", "onnxruntime", "--steps", 2, "--plot", tmp_path / "p.png", "--json")
    content = (tmp_path / "p.png").read_bytes()
    assert code == 0 and content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 5_000
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = call(capsys, "bench", ONNX, "--plot", tmp_path / "q.png")
    assert code == 4 and "bench --plot needs matplotlib: pip install 'fastrnn[plot]'" in err and not out


def exposed(tmp_path, batch="B"):
    """A step of a small LSTM whose states are inputs and outputs: x (1, B, 5), h and c (1, B, 6)."""
    from fastrnn.model.stack import StackOptions, stack_model

    model = stack_model(StackOptions("lstm", 5, 6), fr.LSTM(5, 6, seed=0).state_dict(), "step")
    values = tuple(fr.model.Value(v.name, v.dtype, (1, batch, v.shape[2])) for v in model.inputs)
    path = tmp_path / "step.safetensors"
    fr.Model(values, model.output_names, model.nodes, model.weights, name="step").save(path)
    return path


@pytest.mark.usefixtures("needs_torch")
def test_a_model_with_states_is_called_step_by_step(capsys, tmp_path):
    path, ties = exposed(tmp_path), ["--state", "h0=h_n", "--state", "c0=c_n"]
    code, out, _ = call(capsys, "bench", path, *ties, "--against", "torch,reference,onnxruntime", "--batch", "1,3", "--steps", "1,7", "--json")
    data = json.loads(out)
    assert code == 0 and data["same_results"]
    assert all("reads .onnx files only" in row["note"] and row["us"] is None for row in rows(data, engine="onnxruntime"))
    for engine in ("fastrnn", "torch", "reference"):
        one, seven = (rows(data, engine=engine, batch=3, steps=n)[0]["us"] for n in (1, 7))
        assert seven > 2 * one
    code, out, _ = call(capsys, "bench", exposed(tmp_path, 2), *ties, "--batch", "1,2", "--json")
    data = json.loads(out)
    assert code == 0 and "declared shapes fix the batch at 2" in rows(data, batch=1)[0]["note"] and rows(data, batch=2)[0]["us"] > 0
    code, out, err = call(capsys, "bench", exposed(tmp_path, 2), *ties, "--batch", "1")
    assert code == 3 and "nothing can be run" in err and "fix the batch at 2" in err and not out


def test_lengths_need_a_time_axis_or_states(capsys, tmp_path):
    code, out, _ = call(capsys, "bench", exposed(tmp_path), "--steps", "1,2", "--json")
    data = json.loads(out)
    assert code == 0 and rows(data, steps=1)[0]["us"] > 0 and "neither a symbolic time axis nor states" in rows(data, steps=2)[0]["note"]


def test_a_difference_is_said_loudly(capsys, monkeypatch):
    from fastrnn.converters.engines.onnxruntime_engine import OnnxRuntimeEngine

    right = OnnxRuntimeEngine.__call__
    monkeypatch.setattr(OnnxRuntimeEngine, "__call__", lambda self, inputs: {name: a * 1.001 for name, a in right(self, inputs).items()})
    code, out, err = call(capsys, "bench", ONNX, "--steps", 2, "--json")
    data = json.loads(out)
    assert code == 1 and "RESULTS DIFFER" in err and not data["same_results"]
    row = rows(data, engine="onnxruntime")[0]
    assert row["us"] is None and row["error"] == pytest.approx(1e-3, rel=0.1) and "RESULTS DIFFER" in row["note"]


@pytest.mark.parametrize(
    "code,arguments,message",
    [
        (2, [ONNX, "--against", "abacus"], "'abacus' is unknown"),
        (2, [ONNX, "--against", ""], "'' is unknown"),
        (2, [ONNX, "--plot", "p.bmp"], ".svg and .png"),
        (2, [ONNX, "--plot", "nowhere/p.svg"], "no folder 'nowhere'"),
        (2, [ONNX, "--json", "nowhere/b.json"], "no folder 'nowhere'"),
        (2, [ONNX, "--size", "Q=3"], "no input has that dimension"),
        (3, ["nothing.onnx"], "nothing.onnx"),
        (3, [ONNX, "--size", "B=2", "--batch", "1"], "--size B=2 fixes the batch"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_benched_says_why(capsys, code, arguments, message):
    got, out, err = call(capsys, "bench", *arguments)
    assert got == code and message in err and not out


def open_graph(folder):
    """x (N, K) times a (4, 3) matrix: K is symbolic and nothing but 4 fits."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ("N", "K")), ("y", ("N", 3))))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "a"], ["y"])], "g", [x], [y], [numpy_helper.from_array(np.ones((4, 3), "f4"), "a")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), folder / "open.onnx")
    return folder / "open.onnx"


def test_sizes_that_nobody_gave_are_named(capsys, tmp_path):
    path = open_graph(tmp_path)
    for command in (["bench", path], ["verify", path, "--against", "reference"]):
        code, _, err = call(capsys, *command)
        assert code == 3 and "K=16 taken: --size K=N for others" in err
    code, out, _ = call(capsys, "bench", path, "--size", "K=4", "--json")
    assert code == 0 and "sizes" not in json.loads(out)


def test_sizes_that_were_taken_are_among_the_facts(capsys, tmp_path):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", "K")) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), tmp_path / "tanh.onnx")
    code, out, _ = call(capsys, "bench", tmp_path / "tanh.onnx", "--json")
    assert code == 0 and json.loads(out)["sizes"] == "K=16 taken: --size K=N for others"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", ONNX],
        [ONNX, "--json", "b.txt"],
        [ONNX, "--batch", "0"],
        [ONNX, "--steps", "x"],
        [ONNX, "--threads", "0"],
        [ONNX, "--threads", "65"],
    ],
    ids=str,
)
def test_wrong_usage_exits_2(arguments):
    with pytest.raises(SystemExit) as error:
        main(["bench", *arguments])
    assert error.value.code == 2


def test_races_are_fair(monkeypatch):
    monkeypatch.setattr(timing, "WARM_CALLS", 2)
    order = []
    race = Race({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, block=3)
    order.clear()
    race.round()
    race.calls(20, turns=2)
    assert order == list("aaaaabbbbb") + (list("a" * 12) + list("b" * 12)) * 2  # the first two of a turn do not count
    assert len(race.singles["a"]) == 20
    summary = race.summary()
    assert 0 < race.share <= 1
    assert summary["a"]["samples"] == 1 and summary["b"]["p50_call"] <= summary["b"]["p99_call"]
    assert 2 <= race.rounds_within(0.0, 2, 5) <= 5 and not race.us["a"]


@pytest.mark.parametrize("call_seconds", [1e-6, 3e-4])
def test_an_interruption_changes_no_sizes(monkeypatch, call_seconds):
    """Wherever it falls, blocks, calls of a turn and rounds are those of an undisturbed race."""

    def sizes(interrupted):
        clock = FakeClock(interrupted)
        monkeypatch.setattr(timing, "time", clock)
        race = Race({"a": lambda: clock.work(call_seconds)}, block=100)
        return race._sizes, race._calls, race._warm, race.rounds_within(1.0, 1, 10_000), round(clock.now, 3)

    *undisturbed, took = sizes({})
    for piece in (0, 1, 2, 30, int(took / call_seconds) - 50):
        *found, _ = sizes({piece: 0.02})
        assert found[:3] == undisturbed[:3] and found[3] == pytest.approx(undisturbed[3], rel=0.01)


@pytest.mark.usefixtures("needs_torch")
def test_silero_is_benched(capsys, shared):
    model = shared / "models/silero-vad/silero_vad_16k_op15.onnx"
    code, out, _ = call(
        capsys,
        "bench",
        model,
        "--state",
        "state=stateN",
        "--constant",
        "sr=16000",
        "--size",
        "sequence=576",
        "--against",
        "onnxruntime,torch,openvino",
        "--batch",
        "1,2",
        "--json",
    )
    data = json.loads(out)
    assert code == 0 and data["same_results"] and all(row["us"] > 0 for row in data["results"] if row["engine"] != "openvino")
    assert all(row["us"] or "does not load" in row["note"] for row in rows(data, engine="openvino"))  # as its version may
    assert np.isfinite([row["bound_us"] for row in rows(data, engine="fastrnn")]).all()
