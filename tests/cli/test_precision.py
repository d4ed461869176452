"""--precision: what convert writes, what verify and bench say of it, and what inspect shows."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from calling import ONNX, STATE, call, call_json

import fastrnn as fr
from fastrnn.cli import bench, precision
from fastrnn.cli.options import precision_of, precisions_of
from fastrnn.cli.timing import Race
from fastrnn.converters.verify import SMALL_TOLERANCES, TOLERANCE, tolerance_of
from fastrnn.model import Model, Node, Value


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A moment of timing for each case."""
    for module in (bench, precision):
        monkeypatch.setattr(module, "SECONDS", 0.01)
        monkeypatch.setattr(module, "ROUNDS", (2, 2))
        monkeypatch.setattr(module, "Race", lambda runs: Race(runs, block=20, turn_seconds=1e-3))


def same(a, b) -> bool:
    return all(np.array_equal(x.view(np.uint32), y.view(np.uint32)) for x, y in zip(a, b, strict=True))


def drawn(rows: int, steps: int = 20):
    random = np.random.default_rng(0)
    return {"tokens": random.integers(0, 97, (steps, rows)), "h": random.uniform(-1, 1, (1, rows, 128)).astype(np.float32)}


@pytest.mark.parametrize("given", [["int8"], ["bfloat16"], ["int8", "/head/MatMul=float32"], ["/gru/GRU=int8"]], ids=" ".join)
def test_convert_writes_small_weights_that_compile_to_the_same_bits(capsys, tmp_path, given):
    path, options = tmp_path / "c.safetensors", [text for one in given for text in ("--precision", one)]
    code, data = call_json(capsys, "convert", ONNX, "-o", path, *STATE, *options)
    assert code == 0 and data["parameters"] == 77_825 and data["states"] == ["h <- h_n"]
    model = fr.load(ONNX)
    wanted, read = fr.compile(model, precision=precision_of(given), states={"h": "h_n"}), fr.load(path)
    assert same(wanted.run(drawn(3)).values(), fr.compile(read).run(drawn(3)).values())
    tokens = drawn(2)["tokens"]
    assert np.array_equal(wanted.stream(2).push(tokens), fr.compile(read).stream(2).push(tokens))
    small = [a for a in read.weights.values() if a.dtype in (np.int8, np.uint16)]
    assert len(small) == (3 if len(given) == 1 and "=" not in given[0] else 2)
    floats = sum(a.nbytes for a in model.weights.values())
    assert data["bytes"] < floats - (3 if "int8" in given[0] else 2) * sum(a.size for a in small) + 8_000  # scales, and a header
    code, again = call_json(capsys, "verify", path, "--against", "reference", "--tolerance", "1e-4")  # a small model is a model
    assert code == 0 and again["verified"]


def test_verify_shows_the_error_the_floor_and_the_speed(capsys):
    code, data = call_json(capsys, "verify", ONNX, *STATE, "--precision", "int8", "--batch", "1,2", "--steps", "30")
    assert (
        code == 0
        and data["verified"]
        and data["precision"] == "int8"
        and data["tolerance"] == SMALL_TOLERANCES["int8"]
        and data["small_matrices"] == 3
    )
    whole = {f"batch {b}, T = {t}" for b in (1, 2) for t in (16, 37)}
    assert {d["case"] for d in data["outputs"]} == whole | {"stream of 30 steps", "stream of 30 steps, state"}
    for d in data["outputs"]:
        assert 1e-3 < d["floor"] < d["relative"] * 2 and d["relative"] < 0.1 and d["of_floor"] == pytest.approx(d["relative"] / d["floor"], abs=0.01)
    assert {s["case"] for s in data["speed"]} == whole | {"a step of the stream, batch 1"}
    assert all(s["ratio"] == pytest.approx(s["float32_us"] / s["us"], abs=0.01) and s["us"] > 0 for s in data["speed"])
    assert data["weight_bytes"]["int8"] < 0.35 * data["weight_bytes"]["float32"]
    code, data = call_json(capsys, "verify", ONNX, *STATE, "--precision", "bfloat16", "--batch", "1")
    assert code == 0 and all(d["of_floor"] == 1 for d in data["outputs"])  # a product over the rounded weights, to the bit
    code, out, _ = call(capsys, "verify", ONNX, "--precision", "int8", "--tolerance", "1e-4", "--batch", "1")
    assert code == 1 and "float32_us" in out and "floor" in out and "False" in out


def test_verify_measures_by_another_engine_where_asked(capsys):
    code, data = call_json(capsys, "verify", ONNX, "--precision", "bfloat16", "--against", "onnxruntime", "--batch", "2", "--length", "9")
    assert code == 0 and data["engine"] == "onnxruntime" and all(1e-4 < d["relative"] < 3e-2 for d in data["outputs"])


def test_verify_of_a_model_that_keeps_its_states_inside(capsys, tmp_path):
    """A time axis, no states among the inputs; and one whose batch is fixed."""
    path, layer = tmp_path / "m.safetensors", fr.GRU(40, 96, seed=0, reset_after=False)
    model = layer.to_model()
    fr.Model(
        tuple(v for v in model.inputs if v.name == "x"), ("y",), model.nodes, dict(model.weights) | {"h0": np.zeros((1, 1, 96), np.float32)}, name="m"
    ).save(path)
    code, data = call_json(capsys, "verify", path, "--precision", "int8", "--steps", "10", "--batch", "1")
    assert code == 0 and any("stream" in d["case"] for d in data["outputs"]) and any("step" in s["case"] for s in data["speed"])


def test_a_precision_that_reaches_no_node_is_said(capsys, tmp_path):
    path = tmp_path / "m.safetensors"
    fr.GRU(5, 6, seed=0).to_model().save(path)
    code, _, err = call(capsys, "verify", path, "--precision", "int8", "--json")
    assert code == 0 and "int8 reaches no node" in err
    code, data = call_json(capsys, "inspect", path, "--precision", "int8")
    assert code == 0 and any("198 weights are too few" in n["why"] for n in data["nodes"])


def test_inspect_shows_what_runs(capsys):
    code, data = call_json(capsys, "inspect", ONNX, *STATE, "--precision", "int8", "--precision", "/head/MatMul=float32")
    assert code == 0 and data["precision"] == "int8 /head/MatMul=float32" and data["parameters"] == 77_825
    assert [n["kernel"] for n in data["nodes"]] == ["take32", "gru_int8", "-", "dense"]
    assert {w["dtype"] for w in data["weights"]} == {"float32", "int8"} and sum(w["numbers"] for w in data["weights"]) == 77_825


def test_run_computes_with_them(capsys, tmp_path):
    for name, a in drawn(2).items():
        np.save(tmp_path / f"{name}.npy", a)
    code, _ = call_json(
        capsys,
        "run",
        ONNX,
        "--precision",
        "int8",
        "--input",
        f"tokens={tmp_path / 'tokens.npy'}",
        "--input",
        f"h={tmp_path / 'h.npy'}",
        "--output",
        f"logits={tmp_path / 'y.npy'}",
    )
    assert code == 0 and np.array_equal(np.load(tmp_path / "y.npy"), fr.compile(fr.load(ONNX), precision="int8").run(drawn(2))["logits"])


def test_bench_has_a_row_for_each_precision(capsys, tmp_path):
    code, out, err = call(
        capsys,
        "bench",
        ONNX,
        *STATE,
        "--precision",
        "float32,bfloat16,int8",
        "--batch",
        "1,2",
        "--steps",
        "4",
        "--plot",
        tmp_path / "p.svg",
        "--json",
        tmp_path / "b.json",
    )
    data = json.loads((tmp_path / "b.json").read_text())
    assert (
        code == 0 and "DIFFER" not in err and "fastrnn int8" in out and data["tolerance_of_small"] == {"fastrnn bfloat16": 0.1, "fastrnn int8": 0.2}
    )
    assert [row["engine"] for row in data["results"]] == ["fastrnn", "fastrnn bfloat16", "fastrnn int8", "onnxruntime"] * 2
    for row in data["results"]:
        assert row["us"] > 0
        if row["engine"].startswith("fastrnn "):
            assert 1e-3 < row["error"] < data["tolerance_of_small"][row["engine"]] and row["bound_us"] is None
    assert "fastrnn bfloat16" in "".join(ElementTree.parse(tmp_path / "p.svg").getroot().itertext())


def test_bench_of_streams_times_what_is_past_tolerance(capsys, tmp_path):
    """A step whose states are inputs and outputs; the error of small weights is a price, and said, not a reason to leave them out."""
    model = fr.LSTM(40, 96, seed=0).to_model()
    values = tuple(Value(v.name, v.dtype, (1, "B", v.shape[-1])) for v in model.inputs if v.name != "lengths")
    fr.Model(values, model.output_names, model.nodes, model.weights, name="step").save(tmp_path / "s.safetensors")
    code, out, err = call(
        capsys,
        "bench",
        tmp_path / "s.safetensors",
        "--state",
        "h0=h_n",
        "--state",
        "c0=c_n",
        "--precision",
        "int8",
        "--steps",
        "20",
        "--batch",
        "2",
        "--tolerance",
        "1e-5",
        "--json",
    )
    rows = json.loads(out)["results"]
    assert code == 1 and "DIFFER" in err and "fastrnn int8" in err and [r["engine"] for r in rows] == ["fastrnn", "fastrnn int8"]
    assert rows[1]["us"] > 0 and 1e-5 < rows[1]["error"] < 5e-2 and "past 1e-05" in rows[1]["note"]


def test_options_as_compile_takes_them():
    assert precision_of([]) == "float32" and precision_of(["int8"]) == "int8"
    assert precision_of(["int8", "head=float32"]) == {"default": "int8", "head": "float32"} and precision_of(["a=b=int8"]) == {"a=b": "int8"}
    assert precisions_of(["float32,int8", "head=bfloat16"]) == {"float32": "float32", "int8": {"default": "int8", "head": "bfloat16"}}
    assert precisions_of(["head=int8"]) == {"head=int8": {"head": "int8"}} and precisions_of([]) == {}
    assert tolerance_of({"head": "bfloat16"}) == SMALL_TOLERANCES["bfloat16"] and tolerance_of("float32") == TOLERANCE
    assert tolerance_of({"default": "bfloat16", "head": "int8"}) == SMALL_TOLERANCES["int8"]


@pytest.mark.parametrize(
    "code,arguments,message",
    [
        (3, ["inspect", ONNX, "--precision", "int4"], "'int4' is unknown"),
        (3, ["verify", ONNX, "--precision", "int8", "--precision", "nothing=float32"], "no node 'nothing'"),
        (3, ["verify", ONNX, "--precision", "/embedding/Gather=int9"], "of node '/embedding/Gather' is unknown"),
        (2, ["convert", ONNX, "-o", "m.safetensors", "--precision", "int8", "--precision", "bfloat16"], "given twice"),
        (2, ["inspect", ONNX, "--precision", "head="], "NODE=NAME"),
        (2, ["bench", ONNX, "--precision", "int8,int8"], "int8 is given twice"),
        (3, ["bench", ONNX, "--precision", "float32,int5"], "'int5' is unknown"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_had_says_why(capsys, tmp_path, monkeypatch, code, arguments, message):
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsys, *arguments)
    assert got == code and message in err and not out and not list(tmp_path.iterdir())


def test_a_small_file_cannot_be_had_of_what_cannot_be_small(capsys, tmp_path):
    """Asked for by name, a node that the precision does not reach is refused with the reason."""
    path, random = tmp_path / "m.safetensors", np.random.default_rng(0)
    nodes = (Node("ConvTranspose", "up", ("x", "w"), ("y",), {}),)
    Model((Value("x", "float32", ("B", 64, "T")),), ("y",), nodes, {"w": random.standard_normal((64, 64, 4)).astype(np.float32)}).save(path)
    code, _, err = call(capsys, "convert", path, "-o", tmp_path / "c.safetensors", "--precision", "up=int8")
    assert code == 3 and "node 'up' (ConvTranspose)" in err and not (tmp_path / "c.safetensors").exists()
    code, data = call_json(capsys, "convert", path, "-o", tmp_path / "c.safetensors", "--precision", "up=bfloat16")
    assert code == 0 and data["bytes"] < 2.2 * 64 * 64 * 4
