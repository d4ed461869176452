"""The command line, called as a person does: exit codes, tables, JSON, arrays and audio."""

import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from calling import CHARACTERS, ONNX, STATE, call, call_json

import fastrnn as fr
from fastrnn.cli import main
from fastrnn.cli.audio import read_wav, wav_bytes
from fastrnn.cli.running import frames_of
from fastrnn.model import Node, Value


def test_convert_writes_a_file_that_runs_and_streams(capsys, tmp_path):
    path = tmp_path / "c.safetensors"
    code, data = call_json(capsys, "convert", ONNX, "-o", path, *STATE)
    assert code == 0 and data["states"] == ["h <- h_n"] and data["parameters"] == 77_825 and data["bytes"] == path.stat().st_size
    tokens = np.random.default_rng(0).integers(0, 97, (20, 2))
    native = fr.compile(fr.load(CHARACTERS / "char_gru.safetensors"))
    assert np.array_equal(fr.compile(fr.load(path)).stream(2).push(tokens), native(tokens))
    code, out, _ = call(capsys, "convert", ONNX, "-o", path)
    assert code == 0 and "parameters" in out and "77825" in out


def test_python_dash_m_is_the_same_command():
    done = subprocess.run([sys.executable, "-P", "-m", "fastrnn", "--version"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastrnn {fr.__version__}\n", "")
    done = subprocess.run([sys.executable, "-P", "-m", "fastrnn", "convert"], check=False, capture_output=True, text=True)
    assert done.returncode == 2 and "usage: fastrnn convert" in done.stderr


def test_inspect_shows_what_runs(capsys):
    code, out, _ = call(capsys, "inspect", ONNX, *STATE)
    assert code == 0 and all(word in out for word in ("tokens", "T, B", "h_n", "gru", "native", "a view"))
    code, data = call_json(capsys, "inspect", ONNX, *STATE)
    assert code == 0 and data["nodes_left_to_numpy"] == 0 and data["graph_nodes"] == 5 and data["nodes_after_folding"] == 4
    assert {v["name"]: v["state"] for v in data["values"]} == {"tokens": None, "h": "h_n", "logits": None, "h_n": None}
    assert [n["kernel"] for n in data["nodes"]] == ["take32", "gru", "-", "dense"]


def test_verify_passes_and_fails_by_its_exit_code(capsys, tmp_path):
    code, data = call_json(capsys, "verify", ONNX, *STATE, "--batch", "1,2", "--steps", "30")
    assert code == 0 and data["verified"] and data["engine"] == "onnxruntime"
    whole = {f"batch {b}, T = {t}" for b in (1, 2) for t in (16, 37)}
    assert {d["case"] for d in data["outputs"]} == whole | {"stream of 30 steps", "stream of 30 steps, state"} and "h <- h_n" in data["stream"]
    assert all(0 < d["relative"] < 2e-5 for d in data["outputs"])
    code, data = call_json(capsys, "verify", ONNX, "--tolerance", "1e-9")
    assert code == 1 and not data["verified"]
    code, out, _ = call(capsys, "verify", ONNX, "--tolerance", "1e-9")
    assert code == 1 and "False" in out
    path = tmp_path / "c.safetensors"
    call(capsys, "convert", ONNX, "-o", path, *STATE)
    code, data = call_json(capsys, "verify", path)
    assert code == 0 and data["engine"] == "reference" and len(data["outputs"]) == 2 * 2 * 2 + 2


def test_verify_finds_a_model_that_differs(capsys, tmp_path, monkeypatch):
    """An engine that answers something else is told apart, for whole calls and streams."""
    from fastrnn.converters.engines.reference_engine import ReferenceEngine

    right = ReferenceEngine.__call__
    monkeypatch.setattr(ReferenceEngine, "__call__", lambda self, inputs: {name: a * 1.001 for name, a in right(self, inputs).items()})
    code, data = call_json(capsys, "verify", ONNX, *STATE, "--against", "reference")
    assert code == 1 and not any(d["ok"] for d in data["outputs"])


def test_run_on_arrays(capsys, tmp_path):
    tokens = np.random.default_rng(1).integers(0, 97, (15, 2))
    np.save(tmp_path / "t.npy", tokens)
    np.save(tmp_path / "h.npy", np.zeros((1, 2, 128), np.float32))
    native = fr.compile(fr.load(CHARACTERS / "char_gru.safetensors"))
    code, data = call_json(
        capsys,
        "run",
        ONNX,
        "--input",
        f"tokens={tmp_path / 't.npy'}",
        "--input",
        f"h={tmp_path / 'h.npy'}",
        "--output",
        f"logits={tmp_path / 'y.npy'}",
    )
    assert code == 0 and np.array_equal(np.load(tmp_path / "y.npy"), native(tokens))
    assert {o["name"]: o["shape"] for o in data["outputs"]} == {"logits": [15, 2, 97], "h_n": [1, 2, 128]}
    np.save(tmp_path / "t.npy", tokens[:, :1])
    code, data = call_json(
        capsys, "run", ONNX, *STATE, "--stream", "--input", f"tokens={tmp_path / 't.npy'}", "--output", f"logits={tmp_path / 's.npy'}"
    )
    assert code == 0 and data["steps"] == 15 and np.array_equal(np.load(tmp_path / "s.npy"), native(tokens[:, :1]))


def envelope(tmp_path, batch_first=False):
    """A model that eats audio: 8 samples and the state of a small LSTM."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.LSTM(8, 4, batch_first=batch_first), torch.nn.Linear(4, 8), torch.nn.Tanh())
    path = tmp_path / "audio.safetensors"
    fr.from_torch(module).save(path)
    return path, module


@pytest.mark.parametrize("width,rate", [(1, 8_000), (2, 16_000), (3, 44_100), (4, 48_000)])
def test_run_on_a_wav(capsys, tmp_path, width, rate):
    """Frames of 8 samples, the last one filled up; the answer as samples again, and as an array."""
    path, module = envelope(tmp_path)
    samples = np.sin(np.arange(83) / 5) * 0.5
    levels = np.round(samples * 2 ** (8 * width - 1)).astype(np.int64) + (128 if width == 1 else 0)
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in levels))
    heard, heard_rate = read_wav(tmp_path / "in.wav")
    assert heard_rate == rate and np.abs(heard - samples).max() <= 2.0 ** (1 - 8 * width) + 2.0**-24  # of the samples, and of float32
    code, data = call_json(capsys, "run", path, "--input", f"x={tmp_path / 'in.wav'}", "--output", f"y={tmp_path / 'out.wav'}")
    assert code == 0 and data["steps"] == 11 and data["outputs"][0]["shape"] == [11, 1, 8]
    frames = np.concatenate([heard, np.zeros(5, np.float32)]).reshape(11, 1, 8)
    want = fr.compile(fr.from_torch(module))(frames).reshape(-1)
    out, out_rate = read_wav(tmp_path / "out.wav")
    assert out_rate == rate and np.abs(out - want).max() <= 2.0**-15


def test_audio_helpers(tmp_path):
    frames = frames_of(np.arange(1, 6, dtype=np.float32), 2, 1)
    assert frames.tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 0]]
    assert frames_of(np.zeros(0, np.float32), 4, 2).shape == (0, 6)
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.float32([0, 0.5, -1, 2]), 16_000))
    assert read_wav(tmp_path / "a.wav")[0].tolist() == [0, 0.5, -1, 1 - 2.0**-15]
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.array([[16384, 0], [0, -16384]], "<i2").tobytes())
    assert read_wav(tmp_path / "s.wav")[0].tolist() == [0.25, -0.25]


def test_silero_from_the_command_line(capsys, tmp_path, shared):
    """Speech probabilities of a recording, 512 samples and 64 of context a frame."""
    model, recording = shared / "models/silero-vad/silero_vad_16k_op15.onnx", shared / "models/gtcrn/mix.wav"
    code, data = call_json(
        capsys,
        "run",
        model,
        "--state",
        "state=stateN",
        "--constant",
        "sr=16000",
        "--frame",
        512,
        "--context",
        64,
        "--input",
        f"input={recording}",
        "--output",
        f"output={tmp_path / 'p.npy'}",
    )
    assert code == 0 and data["steps"] == 306
    p = np.load(tmp_path / "p.npy")
    assert p.shape == (306, 1, 1) and p.max() > 0.9 and p.min() < 0.1
    code, data = call_json(capsys, "verify", model, "--state", "state=stateN", "--constant", "sr=16000", "--size", "sequence=576", "--steps", 200)
    assert code == 0 and data["verified"]
    code, data = call_json(capsys, "verify", model, "--state", "state=stateN", "--size", "sequence=576")
    assert code == 0 and data["verified"]
    code, _, err = call(capsys, "verify", model)
    assert code == 3 and "input (1, 16)" in err and "--size" in err


def test_info_measures_the_machine(capsys):
    code, data = call_json(capsys, "info")
    assert code == 0 and data["fastrnn"] == fr.__version__ and data["isa"] in data["isas_supported"] and "native" in data["backends"]
    limits = data["roofline_one_core"]
    assert limits["fma_gflops"] > 0.1 and limits["read_gbytes"]["DRAM"] > 0.1 and data["packages"]["numpy"] == np.__version__
    code, out, _ = call(capsys, "info")
    assert code == 0 and "roofline one core" in out and "fma_gflops" in out


REFUSED = [  # exit code, arguments, message
    (3, ["inspect", "nothing.onnx"], "nothing.onnx"),
    (3, ["inspect", "model.bin"], "unknown kind of file"),
    (3, ["convert", ONNX, "-o", "m.onnx"], "safetensors"),
    (3, ["convert", ONNX, "-o", "m.safetensors", "--precision", "int4"], "'int4' is unknown"),
    (3, ["inspect", ONNX, "--state", "h=nothing"], "nothing"),
    (2, ["inspect", ONNX, "--state", "h"], "NAME=VALUE"),
    (2, ["inspect", ONNX, "--state", "h=h_n", "--state", "h=logits"], "twice"),
    (2, ["inspect", ONNX, "--constant", "sr=1"], "'sr' is not an input"),
    (2, ["inspect", ONNX, "--constant", "h=words"], "'words'"),
    (2, ["inspect", ONNX, "--constant", 'h={"a": 1}'], "no number"),
    (3, ["inspect", ONNX, "--constant", "h=1"], "'h' must have shape"),
    (2, ["verify", ONNX, "--size", "T=x"], "--size T"),
    (2, ["verify", ONNX, "--size", "T=0"], "--size T"),
    (2, ["verify", ONNX, "--size", "Q=3"], "no input has that dimension; there are B, T"),
    (3, ["verify", str(CHARACTERS / "char_gru.safetensors"), "--against", "onnxruntime"], "reads .onnx"),
    (2, ["run", ONNX, "--input", "nothing=x.npy"], "'nothing' is not an input"),
    (2, ["run", ONNX, "--input", "tokens=x.txt"], ".npy or .wav"),
    (2, ["run", ONNX, "--input", "tokens=x.npy", "--output", "logits=y.txt"], "y.txt"),
    (2, ["run", ONNX, "--input", "tokens=x.npy", "--frame", "5"], "--frame"),
    (2, ["run", ONNX, *STATE, "--stream", "--input", "tokens=x.npy", "--output", "h_n=y.npy"], "'h_n' is a state"),
    (3, ["run", ONNX, "--input", "tokens=" + __file__ + ".npy"], "No such file"),
    (2, ["run", ONNX, "--input", "tokens=x.npy", "--output", "nothing=y.npy"], "'nothing' is not an output"),
]


@pytest.mark.parametrize("code,arguments,message", REFUSED, ids=[" ".join(a[:1] + a[2:])[:40] for _, a, _ in REFUSED])
def test_what_cannot_be_used_says_why(capsys, tmp_path, monkeypatch, code, arguments, message):
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsys, *arguments)
    assert got == code and message in err and not out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", ONNX, "--batch", "0"],
        ["verify", ONNX, "--batch", "1,"],
        ["verify", ONNX, "--steps", "-3"],
        ["verify", ONNX, "--tolerance", "nan"],
        ["verify", ONNX, "--tolerance", "-1"],
        ["verify", ONNX, "--seed", "-1"],
        ["verify", ONNX, "--against", "abacus"],
        ["verify"],
        ["inspect", ONNX, "--backend", "foo"],
        ["run", ONNX, "--input", "x=y.wav", "--frame", "0"],
        [],
    ],
    ids=str,
)
def test_wrong_usage_exits_2(arguments):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2


def test_what_the_other_engine_cannot_run_is_no_traceback(capsys, tmp_path):
    """ONNX Runtime lacks layout=1; fastrnn has it."""
    from onnx import TensorProto, helper, numpy_helper, save

    random = np.random.default_rng(0)
    weights = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in (("w", (1, 6, 3)), ("r", (1, 6, 2)))]
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=2, layout=1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), tmp_path / "m.onnx")
    code, _, err = call(capsys, "verify", tmp_path / "m.onnx")
    assert code == 3 and "onnxruntime" in err
    code, data = call_json(capsys, "verify", tmp_path / "m.onnx", "--against", "reference")
    assert code == 0 and data["verified"]


def test_json_stays_json_where_results_are_not_numbers(capsys, tmp_path):
    path = tmp_path / "log.safetensors"
    fr.Model((Value("x", "float32", ("B",)),), ("y",), (Node("Log", "log", ("x",), ("y",)),), {}).save(path)
    np.save(tmp_path / "x.npy", np.float32([-1, 2]))
    code, data = call_json(capsys, "run", path, "--input", f"x={tmp_path / 'x.npy'}")
    assert code == 0 and data["outputs"][0]["smallest"] is None
    code, _, err = call(capsys, "run", path, "--input", f"x={tmp_path / 'x.npy'}", "--output", f"y={tmp_path / 'y.wav'}")
    assert code == 3 and "NaN" in err and not (tmp_path / "y.wav").exists()


def test_a_stream_takes_its_batch_from_the_array(capsys, tmp_path):
    path, module = envelope(tmp_path)
    x = np.random.default_rng(0).standard_normal((6, 2, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    code, data = call_json(capsys, "run", path, "--stream", "--input", f"x={tmp_path / 'x.npy'}", "--output", f"y={tmp_path / 'y.npy'}")
    assert code == 0 and data["steps"] == 6 and np.array_equal(np.load(tmp_path / "y.npy"), fr.compile(fr.from_torch(module))(x))


def test_verify_counts_nan_as_an_error():
    from fastrnn.converters.verify import compare

    nan, number, infinity = np.float32([np.nan]), np.float32([1.0]), np.float32([np.inf])
    for want, got, within in (
        (number, nan, False),
        (nan, number, False),
        (0 * number, nan, False),
        (nan, nan, True),
        (0 * number, 0 * number, True),
        (infinity, infinity, True),
        (infinity, -infinity, False),
    ):
        assert compare("c", {"y": want}, {"y": got}, 2e-5)[0].within == within
    with pytest.raises(fr.ShapeError):
        compare("c", {"y": number}, {"y": np.array([1])}, 2e-5)


def test_damaged_data_exits_3(capsys, tmp_path):
    path, _ = envelope(tmp_path)
    (tmp_path / "x.npy").write_bytes(b"not an array")
    (tmp_path / "x.wav").write_bytes(b"RIFF not audio")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "zip.npy").write_bytes(b"PK\3\4" + b"x" * 60)
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "huge.npy", np.zeros((1, 4), np.float32))
    data = (tmp_path / "huge.npy").read_bytes()
    (tmp_path / "huge.npy").write_bytes(data.replace(b"(1, 4)", b"(9999999999, 4)".ljust(6))[: len(data)])
    with wave.open(str(tmp_path / "wide.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(80))
    wide = bytearray((tmp_path / "wide.wav").read_bytes())
    wide[32], wide[34] = 5, 40
    (tmp_path / "wide.wav").write_bytes(bytes(wide))
    for name in ("x.npy", "x.wav", "o.npy", "empty.npy", "zip.npy", "huge.npy", "wide.wav"):
        code, _, err = call(capsys, "run", path, "--input", f"x={tmp_path / name}")
        assert code == 3 and name in err


def test_a_missing_package_exits_4():
    code = "import sys; sys.modules['onnxruntime'] = None; from fastrnn.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "verify", ONNX, "--json"], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 4 and "fastrnn[cli]" in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", code.replace("onnxruntime", "rich"), "inspect", ONNX], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 4 and "fastrnn[cli]" in done.stderr


def test_an_interrupt_is_no_traceback(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastrnn.cli.options.load", interrupted)
    assert call(capsys, "inspect", ONNX) == (130, "", "fastrnn: interrupted\n")


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from fastrnn.cli import main; sys.stdin.read(); sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", code, "inspect", ONNX], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    ) as process:
        process.stdout.close()  # before the command starts to write
        process.stdin.close()
        assert process.wait() == 141 and not process.stderr.read()


def test_the_installed_command(tmp_path):
    """The script that pip installs; a pipe gets no progress."""
    script = Path(sys.executable).parent / "fastrnn"
    done = subprocess.run([script, "convert", ONNX, "-o", tmp_path / "c.safetensors"], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0 and not done.stderr and (tmp_path / "c.safetensors").exists()
    assert "exit codes" in subprocess.run([script, "--help"], capture_output=True, text=True, check=False, cwd="/").stdout
