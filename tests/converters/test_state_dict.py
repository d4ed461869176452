"""from_state_dict: key patterns, files, real checkpoints, and what must never be unpickled."""

import os
import pickle

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.testing import LAYERS, TOLERANCES

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("prefix", ["", "encoder", "module.encoder.rnn"])
def test_recognised_by_keys_and_shapes(kind, prefix):
    for options in ({}, {"num_layers": 3, "bidirectional": True}, {"bias": False}, {"num_layers": 2, "bidirectional": True, "bias": False}):
        module = getattr(torch.nn, kind)(5, 7, **options)
        state = {f"{prefix}.{name}" if prefix else name: tensor for name, tensor in module.state_dict().items()}
        layers = fr.from_state_dict({**state, "head.weight": torch.zeros(3, 7)})
        assert list(layers) == [prefix] and type(layers[prefix]) is LAYERS[kind.lower()]
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(layers[prefix].state_dict().values(), module.state_dict().values(), strict=True))


def test_projection_and_peepholes():
    module = torch.nn.LSTM(5, 7, 2, proj_size=3, bidirectional=True)
    (layer,) = fr.from_state_dict(module.state_dict()).values()
    assert layer.options.proj_size == 3 and layer.options.hidden_size == 7
    peephole = fr.LSTM(5, 7, peepholes=True)
    (layer,) = fr.from_state_dict(peephole.state_dict()).values()
    assert layer.options.peepholes


def test_options_reach_the_layers_they_belong_to():
    state = {f"a.{k}": v for k, v in fr.RNN(2, 3).state_dict().items()} | {f"b.{k}": v for k, v in fr.GRU(2, 3).state_dict().items()}
    layers = fr.from_state_dict(state, nonlinearity="relu", reset_after=False, batch_first=True)
    assert str(layers["a"].options.activations[0][0]) == "relu" and not layers["b"].options.reset_after
    assert all(layer.options.batch_first for layer in layers.values())
    assert list(fr.from_state_dict({"net": state}, prefix="net.a")) == [""]


def test_files(tmp_path):
    from safetensors.numpy import save_file

    module = torch.nn.GRU(4, 5)
    torch.save({"epoch": 3, "model": module.state_dict()}, tmp_path / "checkpoint.pt")
    torch.save(module.state_dict(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file({f"rnn.{n}": t.numpy() for n, t in module.state_dict().items()}, tmp_path / "w.safetensors")
    for name, key in (("checkpoint.pt", "model"), ("legacy.pth", ""), ("w.safetensors", "rnn")):
        layers = fr.from_state_dict(tmp_path / name)
        assert list(layers) == [key]
        assert np.array_equal(layers[key].state_dict()["weight_hh_l0"], module.weight_hh_l0.detach().numpy())


@pytest.mark.parametrize("state,error,message", [
    ({"head.weight": np.zeros((3, 3), np.float32)}, fr.InvalidModelError, "no recurrent layer"),
    ({"a.weight_ih_l0": np.zeros((12, 3), np.float32)}, fr.ShapeError, "'a': missing weight_hh_l0"),
    ({"weight_ih_l0": np.zeros((12, 3), np.float32), "weight_hh_l0": np.zeros((4, 12), np.float32)}, fr.ShapeError, "transposed"),
    ({"weight_ih_l0": np.zeros(12, np.float32), "weight_hh_l0": np.zeros((12, 4), np.float32)}, fr.ShapeError, "2 dimensions"),
    ({"e.weight_ih_l0": np.zeros((12, 3), np.float32), "e.weight_hh_l0": np.zeros((12, 4), np.float32), "e.bias_ih_l0": np.zeros(9, np.float32),
      "e.bias_hh_l0": np.zeros(12, np.float32)}, fr.ShapeError, "'e'.*bias_ih_l0"),
    ({"weight_ih_l0": torch.zeros(12, 3).double(), "weight_hh_l0": torch.zeros(12, 4)}, fr.DTypeError, "weight_ih_l0 must be float32.*float64.*float()"),
])
def test_what_does_not_fit_is_named(state, error, message):
    with pytest.raises(error, match=message):
        fr.from_state_dict(state)


class Explosive:
    """Unpickling this would create a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_is_ever_unpickled(tmp_path, protocol):
    trap = tmp_path / "sprung"
    for name, data in (("raw.pt", pickle.dumps({"weight_ih_l0": Explosive(trap)}, protocol)),):
        (tmp_path / name).write_bytes(data)
    torch.save({"weight_ih_l0": Explosive(trap)}, tmp_path / "zip.pt")
    torch.save({"weight_ih_l0": Explosive(trap)}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in ("raw.pt", "zip.pt", "legacy.pt"):
        with pytest.raises(fr.UnsupportedModelError, match="not.*unpickled.*state_dict"):
            fr.from_state_dict(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_files(tmp_path, suffix):
    from safetensors.torch import save_file

    whole = tmp_path / f"whole{suffix}"
    state = torch.nn.RNN(2, 3).state_dict()
    torch.save(state, whole) if suffix == ".pt" else save_file(state, whole)
    data = whole.read_bytes()
    for cut in range(0, len(data), max(1, len(data) // 60)):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(data[:cut])
        with pytest.raises((fr.InvalidModelError, fr.UnsupportedModelError), match="cut"):
            fr.from_state_dict(path)


def test_whole_modules_and_archives_in_the_shared_models(shared):
    for name in ("rescue-xbt/rnn.pt", "pose-gru/gru_model_full.pth"):
        with pytest.raises(fr.UnsupportedModelError, match=r"not.*unpickled.*torch\.save\(model\.state_dict\(\)"):
            fr.from_state_dict(shared / "models" / name)
    with pytest.raises(fr.UnsupportedModelError, match=r"TorchScript.*torch\.jit\.load"):
        fr.from_state_dict(shared / "models/noaa-lstm/sugar_creek_trained.pt")


@pytest.mark.parametrize("path,expected", [("beatnet/model_1_weights.pt", {"lstm": (torch.nn.LSTM, 150, 150, 2)}),
                                           ("pose-gru/gru_model.pth", {"gru": (torch.nn.GRU, 34, 64, 2)})])
def test_real_checkpoints_load_by_key_pattern_and_agree_with_torch(shared, path, expected):
    layers = fr.from_state_dict(shared / "models" / path)
    assert set(layers) == set(expected)
    state = torch.load(shared / "models" / path, weights_only=True, map_location="cpu")
    for name, (kind, I, H, depth) in expected.items():
        module = kind(I, H, depth)
        module.load_state_dict({k[len(name) + 1:]: v for k, v in state.items() if k.startswith(name + ".")})
        x = torch.randn(20, 3, I)
        with torch.no_grad():
            y = module(x)[0].numpy()
        assert np.abs(layers[name](x.numpy())[0] - y).max() <= TOLERANCES["engine"] * max(1.0, np.abs(y).max())


def test_g2pm_scores_exactly_as_published(shared):
    """Polyphones through ragged bidirectional batches: 9,978 of 10,254 right."""
    folder = shared / "models/g2pm"
    state, data = np.load(folder / "state_dict.npz"), np.load(folder / "test.npz")
    lstm = fr.from_state_dict(dict(state))["lstm"]
    right = 0
    for start in range(0, len(data["tokens"]), 512):
        part = slice(start, start + 512)
        tokens, lengths, target = data["tokens"][part], data["lengths"][part], data["target"][part]
        y, _ = lstm(np.ascontiguousarray(state["embedding.weight"][tokens].swapaxes(0, 1)), lengths=lengths)
        hidden = np.maximum(y[target, np.arange(len(target))] @ state["logit_layer.0.weight"].T + state["logit_layer.0.bias"], 0)
        logits = hidden @ state["logit_layer.2.weight"].T + state["logit_layer.2.bias"]
        right += int((logits.argmax(axis=1) == data["label"][part]).sum())
    assert right == 9_978


def test_sizes_are_checked_before_anything_is_allocated():
    w, many = np.zeros((12, 4), np.float32), "9" * 5_000
    for state in ({"weight_ih_l0": w, "weight_hh_l0": w, "weight_ih_l30000000": w}, {"weight_ih_l0": w, "weight_hh_l0": w, f"weight_ih_l{many}": w},
                  {"weight_ih_l0": np.zeros((0, 10**10), np.float32), "weight_hh_l0": w}, {"weight_ih_l0": w, "weight_hh_l0": np.zeros((0, 10**10), np.float32)}):
        with pytest.raises(fr.ShapeError, match="layer"):
            fr.from_state_dict(state)


def test_sources_of_the_wrong_kind():
    loop = {}
    loop["self"] = loop
    for source in (None, 3, [1], loop):
        with pytest.raises(fr.InvalidModelError):
            fr.from_state_dict(source)
    with pytest.raises(fr.DTypeError):
        fr.from_state_dict({"weight_ih_l0": [[1], [1, 2]], "weight_hh_l0": 3})
    with pytest.raises(fr.UnsupportedModelError, match="bias"):
        fr.from_state_dict(fr.RNN(2, 3).state_dict(), bias=True)
