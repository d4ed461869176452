"""The model file: the same bits back, never half a file, and every damaged file refused."""

import json
import os
import signal
import struct
import time

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model.file import KEY
from fastrnn.model.stack import StackOptions, parse_activations, stack_model


def model(**options):
    o = StackOptions("lstm", 3, 5, **options)
    random = np.random.default_rng(0)
    return stack_model(o, {n: random.uniform(-0.3, 0.3, s).astype(np.float32) for n, s in o.shapes().items()}, "net")


@pytest.mark.parametrize("options", [
    {}, {"num_layers": 2, "bidirectional": True}, {"clip": 0.5, "peepholes": True, "input_forget": True, "proj_size": 2},
    {"activations": parse_activations("lstm", ("sigmoid", ("elu", {"alpha": 0.3}), ("scaledtanh", {"alpha": 0.5, "beta": 2.0})), False)}])
def test_round_trip_gives_the_same_bits_and_graph(tmp_path, options):
    before, path = model(**options), tmp_path / "m.safetensors"
    before.save(path)
    after = fr.load(path)
    assert repr(after) == repr(before) and after.states == before.states
    x = np.random.default_rng(1).standard_normal((7, 2, 3)).astype(np.float32)
    assert all(np.array_equal(a, b) for a, b in zip(fr.compile(before)(x), fr.compile(after)(x), strict=True))
    after.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_states_tell_their_dtype_and_shape():
    h, c = model(num_layers=2).states
    assert (h.name, h.source, h.dtype, h.shape) == ("h0", "h_n", "float32", (2, "B", 5)) and str(c) == "c0 float32 (2, B, 5) <- c_n"


def test_killed_while_saving_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "m.safetensors"
    old, new = model(), model(num_layers=3)
    old.save(path)
    whole = {path.read_bytes()}
    new.save(tmp_path / "n.safetensors")
    whole.add((tmp_path / "n.safetensors").read_bytes())
    random = np.random.default_rng(0)
    for _ in range(15):
        child = os.fork()
        if child == 0:
            while True:
                new.save(path)
                old.save(path)
        time.sleep(float(random.uniform(0.001, 0.03)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert path.read_bytes() in whole


def test_a_failed_save_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError):
        model().save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def refused(path, data):
    path.write_bytes(data)
    started = time.perf_counter()
    with pytest.raises((fr.InvalidModelError, fr.UnsupportedModelError)):
        fr.load(path)
    assert time.perf_counter() - started < 1.0


def test_every_truncation_and_flipped_header_bits(tmp_path):
    whole, path = tmp_path / "whole.safetensors", tmp_path / "m.safetensors"
    model().save(whole)
    data = whole.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for cut in [*range(0, header, 7), *range(header, len(data), 97), len(data) - 1]:
        refused(path, data[:cut])
    survivors = 0
    for bit in range(0, header * 8, 5):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        try:
            fr.compile(fr.load(path))
            survivors += 1  # a renamed value or another hidden spelling of the same graph is still a valid file
        except fr.FastRNNError:
            pass
    assert survivors < header * 8 / 5 / 50


def edited(data, change):
    """The file with its graph edited."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    graph = json.loads(header["__metadata__"][KEY])
    graph = change(graph) or graph
    header["__metadata__"][KEY] = json.dumps(graph)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length:]


HOSTILE = {
    "version": lambda g: g.update(version=1),
    "no_version": lambda g: g.pop("version"),
    "unknown_op": lambda g: g["nodes"][0].update(op="Evil"),
    "unknown_attribute": lambda g: g["nodes"][0]["attributes"].update(evil=1),
    "missing_weight": lambda g: g["nodes"][0]["inputs"].__setitem__(1, "nothing"),
    "cycle": lambda g: g["nodes"][0]["inputs"].__setitem__(0, "y"),
    "twice": lambda g: g["nodes"].append(g["nodes"][0]),
    "duplicate_input": lambda g: g["inputs"].append(g["inputs"][0]),
    "missing_output": lambda g: g["outputs"].append("nothing"),
    "bad_dim": lambda g: g["inputs"][0].update(shape=["T", -1, 3]),
    "huge_dim": lambda g: g["inputs"][0].update(shape=["T", "B", 1 << 62]),
    "bad_rank": lambda g: g["inputs"][0].update(shape=["T"]),
    "bad_hidden_size": lambda g: g["nodes"][0]["attributes"].update(hidden_size=1 << 40),
    "text_hidden_size": lambda g: g["nodes"][0]["attributes"].update(hidden_size="5"),
    "bad_direction": lambda g: g["nodes"][0]["attributes"].update(direction="sideways"),
    "bad_layout": lambda g: g["nodes"][0]["attributes"].update(layout=7),
    "bad_clip": lambda g: g["nodes"][0]["attributes"].update(clip="x"),
    "bad_activations": lambda g: g["nodes"][0]["attributes"].update(activations=["sigmoid", "swish", "tanh"]),
    "few_activations": lambda g: g["nodes"][0]["attributes"].update(activations=["sigmoid"]),
    "bad_dtype": lambda g: g["inputs"][0].update(dtype="complex64"),
    "bad_state": lambda g: g["states"].append(["x", "nothing", None]),
    "a_list": lambda g: [1, 2],
    "nodes_number": lambda g: g.update(nodes=5),
    "nodes_null": lambda g: g.update(nodes=None),
    "node_entry": lambda g: g["nodes"][0].update(domain="ai.evil"),
    "twice_out": lambda g: g["outputs"].append(g["outputs"][0]),
    "nodes_text": lambda g: g.update(nodes="abc"),
    "too_many_inputs": lambda g: g["nodes"][0]["inputs"].extend(["x"] * 9),
    "nested": lambda g: g.update(nodes=json.loads("[" * 300 + "]" * 300)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs_are_refused(tmp_path, name):
    path = tmp_path / "m.safetensors"
    model().save(path)
    refused(path, edited(path.read_bytes(), HOSTILE[name]))


def test_claims_larger_than_the_file(tmp_path):
    path = tmp_path / "m.safetensors"
    for length in (0, 1, 2, 1 << 20, 1 << 40, (1 << 64) - 1):
        refused(path, struct.pack("<Q", length) + b"{}")
    text = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    refused(path, struct.pack("<Q", len(text)) + text + b"\0" * 64)


@pytest.mark.parametrize("name,message", [("m.pt2", "from_torch"), ("m.pt", "from_state_dict"), ("m.bin", "unknown kind")])
def test_other_files_are_refused_with_advice(name, message):
    with pytest.raises(fr.UnsupportedModelError, match=message):
        fr.load(name)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    from fastrnn.model import Model, Value
    from fastrnn.model.file import MAX_TENSORS

    many = Model((Value("x", "float32", ("B",)),), ("x",), (), {f"w{k}": np.zeros(1, np.float32) for k in range(MAX_TENSORS + 1)})
    with pytest.raises(fr.UnsupportedModelError, match="4097"):
        many.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_state_dict_is_not_a_model(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(fr.InvalidModelError, match="from_state_dict"):
        fr.load(tmp_path / "w.safetensors")
