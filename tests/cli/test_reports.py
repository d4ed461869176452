"""inspect, convert and verify as reports: states and their guesses, parameters, ops, what is suspect, and progress on a terminal."""

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from calling import CHARACTERS, ONNX, call, call_json

import fastrnn as fr
from fastrnn.model import Model, Node, Value

FASTRNN = [sys.executable, "-c", "import sys; from fastrnn.cli import main; sys.exit(main(sys.argv[1:]))"]


def on_a_terminal(*arguments):
    """Exit code, and all that a terminal is sent."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*FASTRNN, *map(str, arguments)], stdout=child, stderr=child, cwd="/", env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    )
    os.close(child)
    seen = b""
    while True:
        try:
            part = os.read(parent, 1 << 16)
        except OSError:  # Linux says so where nobody holds the other end any more
            break
        if not part:
            break
        seen += part
    os.close(parent)
    return process.wait(), ours(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode()))


def ours(text):
    """Without lines that ONNX Runtime logs, as of a home that it cannot write to."""
    return re.sub(r"^.*\[\w:onnxruntime:.*\n", "", text, flags=re.MULTILINE)


def test_inspect_says_which_states_are_guessed_and_what_to_write(capsys):
    code, data = call_json(capsys, "inspect", ONNX)
    assert code == 0 and data["states"] == [
        {
            "name": "h",
            "dtype": "float32",
            "shape": "1, B, 128",
            "next": "h_n",
            "from": "guessed",
            "why": "the graph: the last state of the layers that start from it",
        }
    ]
    assert data["states_to_write"] == "states={'h': 'h_n'}, --state h=h_n" and data["streams"] == "yes, along 'T'"
    code, out, _ = call(capsys, "inspect", ONNX)
    assert code == 0 and "guessed" in out and "--state h=h_n" in out
    code, data = call_json(capsys, "inspect", ONNX, "--state", "h=h_n")
    assert data["states"][0]["from"] == "--state" and "states_to_write" not in data
    code, data = call_json(capsys, "inspect", CHARACTERS / "char_gru.safetensors")
    assert [(s["from"], s["shape"]) for s in data["states"]] == [("inside", "1, 1, 128")]


def test_inspect_lists_parameters_and_ops(capsys):
    code, data = call_json(capsys, "inspect", ONNX)
    assert code == 0 and sum(w["numbers"] for w in data["weights"]) == data["parameters"] == 77_825
    model = fr.load(ONNX)
    assert {w["name"]: w["shape"] for w in data["weights"]} == {
        n: ", ".join(map(str, a.shape)) for n, a in model.weights.items() if a.dtype == np.float32
    }
    readers = {node.name for node in model.nodes}
    assert all(w["read_by"] in readers for w in data["weights"])
    assert [(o["op"], o["nodes"], o["compiled"], o["numpy"], o["neither"]) for o in data["ops"]] == [
        ("GRU", 1, 1, 0, 0),
        ("Gather", 1, 1, 0, 0),
        ("Gemm", 1, 1, 0, 0),
        ("Squeeze", 1, 0, 0, 1),
    ]


def test_inspect_says_why_an_op_is_left_to_numpy(capsys, tmp_path):
    Model((Value("x", "float64", ("B", 3)),), ("y",), (Node("Log", "log", ("x",), ("l",)), Node("Neg", "neg", ("l",), ("y",))), {}).save(
        tmp_path / "m.safetensors"
    )
    code, data = call_json(capsys, "inspect", tmp_path / "m.safetensors")
    (log, neg) = data["ops"]
    assert (
        code == 0
        and (log["op"], log["numpy"], neg["numpy"]) == ("Log", 1, 1)
        and log["why_numpy"] == "no kernel for float64"
        and data["nodes_left_to_numpy"] == 2
    )
    code, out, _ = call(capsys, "inspect", tmp_path / "m.safetensors")
    assert "no kernel for float64" in out


def ambiguous(path):
    nodes = (Node("Tanh", "a", ("x",), ("y",)), Node("Tanh", "b", ("state",), ("state_out",)), Node("Exp", "c", ("state",), ("next_state",)))
    Model((Value("x", "float32", ("B", 3)), Value("state", "float32", ("B", 4))), ("y", "state_out", "next_state"), nodes, {}).save(path)


def test_inspect_says_what_is_not_certain(capsys, tmp_path):
    ambiguous(tmp_path / "m.safetensors")
    code, data = call_json(capsys, "inspect", tmp_path / "m.safetensors")
    (state,) = data["states"]
    assert code == 0 and (state["name"], state["from"], state["why"]) == ("state", "not certain", "'state_out' and 'next_state' would do")
    assert data["streams"].startswith("no: which outputs feed the states is not certain")
    code, data = call_json(capsys, "verify", tmp_path / "m.safetensors")
    assert code == 0 and "not certain" in data["stream"]
    code, data = call_json(capsys, "verify", tmp_path / "m.safetensors", "--state", "state=state_out")
    assert code == 0 and data["stream"] == "50 steps, states state <- state_out"


def test_inspect_says_why_a_model_does_not_stream(capsys, tmp_path):
    net = fr.from_torch(pytest.importorskip("torch").nn.GRU(3, 4, bidirectional=True))
    net.save(tmp_path / "m.safetensors")
    code, data = call_json(capsys, "inspect", tmp_path / "m.safetensors")
    assert code == 0 and data["streams"].startswith("no: node 'gru'") and {s["from"] for s in data["states"]} == {"declared"}


def suspect(path, producer="pytorch", linear_before_reset=0):
    from onnx import TensorProto, helper, numpy_helper, save

    random = np.random.default_rng(0)
    weights = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in (("w", (1, 6, 3)), ("r", (1, 6, 2)))]
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "w", "r"], ["y"], name="gru", hidden_size=2, linear_before_reset=linear_before_reset)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8, producer_name=producer), path)
    return path


def test_a_suspect_gru_is_said_everywhere_and_read_as_written(capsys, tmp_path):
    path = suspect(tmp_path / "m.onnx")
    with pytest.warns(fr.SuspectModelWarning, match="'gru'.*linear_before_reset=0 in a file that PyTorch wrote"):
        model = fr.load(path)
    assert model.nodes[0].get("linear_before_reset") == 0
    for arguments in (("inspect", path), ("convert", path, "-o", tmp_path / "m.safetensors"), ("verify", path)):
        code, out, err = call(capsys, *arguments)
        assert code == 0 and "SUSPECT" in err and "'gru'" in err and "SUSPECT" not in out
        code, data = call_json(capsys, *arguments)
        assert code == 0 and len(data["suspect"]) == 1 and "linear_before_reset=0" in data["suspect"][0]


@pytest.mark.parametrize("producer,flag", [("tf2onnx", 0), ("", 0), ("pytorch", 1)])
def test_other_grus_are_not_suspect(capsys, tmp_path, producer, flag, recwarn):
    code, data = call_json(capsys, "verify", suspect(tmp_path / "m.onnx", producer, flag))
    assert code == 0 and data["suspect"] == [] and not [w for w in recwarn if issubclass(w.category, fr.SuspectModelWarning)]


def test_convert_names_guessed_states_and_keeps_the_file_as_it_is(capsys, tmp_path):
    code, data = call_json(capsys, "convert", ONNX, "-o", tmp_path / "c.safetensors")
    assert code == 0 and data["states"] == [] and data["guessed_states"] == "--state h=h_n"
    again = fr.load(tmp_path / "c.safetensors")
    assert not again.states and fr.guess_states(again).states == {"h": "h_n"}


def test_verify_takes_given_inputs(capsys, tmp_path):
    np.save(tmp_path / "t.npy", np.random.default_rng(0).integers(0, 97, (23, 4)))
    np.save(tmp_path / "bad.npy", np.full((5, 1), 97))
    code, data = call_json(capsys, "verify", ONNX, "--input", f"tokens={tmp_path / 't.npy'}")
    assert code == 0 and {d["case"] for d in data["outputs"]} == {"given inputs", "stream of 50 steps", "stream of 50 steps, state"}
    code, _, err = call(capsys, "verify", ONNX, "--input", f"tokens={tmp_path / 'bad.npy'}")
    assert code == 3 and "97" in err
    assert call(capsys, "verify", ONNX, "--input", "nothing=x.npy")[0] == call(capsys, "verify", ONNX, "--input", "tokens=x.wav")[0] == 2
    code, data = call_json(capsys, "verify", ONNX, "--length", "1,5", "--batch", "2")
    assert {d["case"] for d in data["outputs"]} >= {"batch 2, T = 1", "batch 2, T = 5"}


def test_the_same_seed_gives_the_same_report(capsys):
    first, second, other = (call_json(capsys, "verify", ONNX, "--seed", seed, "--steps", "5", "--batch", "1")[1]["outputs"] for seed in (3, 3, 4))
    assert first == second != other


@pytest.mark.parametrize("command", ["convert", "verify", "inspect"])
def test_progress_on_a_terminal_and_nowhere_else(command, tmp_path):
    arguments = [command, ONNX, *(["-o", tmp_path / "c.safetensors"] if command == "convert" else [])]
    code, seen = on_a_terminal(*arguments)
    assert code == 0 and f"{command}: " in seen and "%" in seen and "\r" in seen
    code, seen = on_a_terminal(*arguments, "--json")
    assert code == 0 and json.loads(seen) and f"{command}: " not in seen
    done = subprocess.run([*FASTRNN, *map(str, arguments)], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0 and not ours(done.stderr) and f"{command}: " not in done.stdout and "\r" not in done.stdout
