"""The model file: the same bits back, and never half a file. Damaged ones are in tests/damage."""

import os
import signal
import time

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model.stack import StackOptions, parse_activations, stack_model


def model(**options):
    o = StackOptions("lstm", 3, 5, **options)
    random = np.random.default_rng(0)
    return stack_model(o, {n: random.uniform(-0.3, 0.3, s).astype(np.float32) for n, s in o.shapes().items()}, "net")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True},
        {"clip": 0.5, "peepholes": True, "input_forget": True, "proj_size": 2},
        {"activations": parse_activations("lstm", ("sigmoid", ("elu", {"alpha": 0.3}), ("scaledtanh", {"alpha": 0.5, "beta": 2.0})), False)},
    ],
)
def test_round_trip_gives_the_same_bits_and_graph(tmp_path, options):
    before, path = model(**options), tmp_path / "m.safetensors"
    before.save(path)
    after = fr.load(path)
    assert str(after.graph) == str(before.graph) and after.states == before.states
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


@pytest.mark.parametrize(
    "name,data,error,message",
    [
        ("m.pt", "weights", fr.UnsupportedModelError, "from_state_dict"),
        ("m.pth", "module", fr.UnsupportedModelError, "pickle of whole objects"),
        ("m.pt", b"garbage", fr.InvalidModelError, r"m\.pt: neither a torch zip archive nor"),
        ("m.jit", None, FileNotFoundError, "m.jit"),
        ("m.bin", b"", fr.UnsupportedModelError, "unknown kind"),
    ],
)
def test_other_files_are_refused_with_advice(name, data, error, message, tmp_path):
    if isinstance(data, str):
        torch = pytest.importorskip("torch")
        module = torch.nn.Linear(2, 3)
        torch.save(module.state_dict() if data == "weights" else module, tmp_path / name)
    elif data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=message):
        fr.load(tmp_path / name)


@pytest.mark.parametrize("name", ["m.onnx", "m"])
def test_files_that_load_would_not_know_are_not_written(name, tmp_path):
    with pytest.raises(fr.UnsupportedModelError, match=f"{name}: models are written as .safetensors"):
        model().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    from fastrnn.model import Model, Value
    from fastrnn.model.file import MAX_TENSORS

    many = Model((Value("x", "float32", ("B",)),), ("x",), (), {f"w{k}": np.zeros(1, np.float32) for k in range(MAX_TENSORS + 1)})
    with pytest.raises(fr.UnsupportedModelError, match="4097"):
        many.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
