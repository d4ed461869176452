"""from_state_dict: key patterns, files, real checkpoints, and what must never be unpickled."""

import os
import pickle
import sys
import types
import warnings

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
        layers = fr.from_state_dict({**state, "head.weight": torch.zeros(3, 7)}, nonlinearity="tanh")
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
    assert list(fr.from_state_dict({"net": state}, prefix="net.a", nonlinearity="relu")) == [""]


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


@pytest.mark.parametrize(
    "state,error,message",
    [
        ({"head.weight": np.zeros((3, 3), np.float32)}, fr.InvalidModelError, "no recurrent layer"),
        ({"a.weight_ih_l0": np.zeros((12, 3), np.float32)}, fr.ShapeError, "'a': missing weight_hh_l0"),
        ({"weight_ih_l0": np.zeros((12, 3), np.float32), "weight_hh_l0": np.zeros((4, 12), np.float32)}, fr.ShapeError, "transposed"),
        ({"weight_ih_l0": np.zeros(12, np.float32), "weight_hh_l0": np.zeros((12, 4), np.float32)}, fr.ShapeError, "2 dimensions"),
        (
            {
                "e.weight_ih_l0": np.zeros((12, 3), np.float32),
                "e.weight_hh_l0": np.zeros((12, 4), np.float32),
                "e.bias_ih_l0": np.zeros(9, np.float32),
                "e.bias_hh_l0": np.zeros(12, np.float32),
            },
            fr.ShapeError,
            "'e'.*bias_ih_l0",
        ),
        (
            {"weight_ih_l0": torch.zeros(12, 3).double(), "weight_hh_l0": torch.zeros(12, 4)},
            fr.DTypeError,
            "weight_ih_l0 must be float32.*float64.*float()",
        ),
    ],
)
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


def training(state):
    """What a training loop saves: weights of a DataParallel, an optimiser's state, settings."""
    optimiser = {
        "state": {k: {"step": torch.tensor(3.0), "exp_avg": v.clone()} for k, v in enumerate(state.values())},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": list(range(len(state)))}],
    }
    return {
        "epoch": 3,
        "model_state_dict": {f"module.{k}": v for k, v in state.items()},
        "args": {"lr": 1e-3, "name": "x"},
        "rng": torch.get_rng_state(),
        "optimizer": optimiser,
    }


FORMS = {
    "as_it_is": (lambda state: state, ""),
    "data_parallel": (lambda state: {f"module.{k}": v for k, v in state.items()}, "module"),
    "compiled": (lambda state: {f"_orig_mod.{k}": v for k, v in state.items()}, "_orig_mod"),
    "both": (lambda state: {f"module._orig_mod.model.{k}": v for k, v in state.items()}, "module._orig_mod.model"),
    **{
        f"under_{key}": (lambda state, key=key: {"epoch": 7, key: state, "loss": 0.5}, key)
        for key in ("state_dict", "model", "model_state_dict", "net", "weights")
    },
    "training": (lambda state: training(state), "model_state_dict.module"),
    "deep": (lambda state: {"run": {"best": {"ckpt": [{"skip": 1}, {"state_dict": state}]}}}, "run.best.ckpt.1.state_dict"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["dict", "zip", "legacy"])
def test_found_wherever_it_lies_and_the_prefix_may_leave_wrappers_out(tmp_path, form, how):
    module = torch.nn.Module()
    module.encoder, module.head = torch.nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), torch.nn.Linear(4, 2)
    make, place = FORMS[form]
    source = make(module.state_dict())
    if how != "dict":
        torch.save(source, tmp_path / "c.pt", _use_new_zipfile_serialization=how == "zip")
        source = tmp_path / "c.pt"
    ((name, layer),) = fr.from_state_dict(source).items()
    assert name == f"{place}.encoder".lstrip(".")
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        assert np.abs(layer(x.numpy())[0] - module.encoder(x)[0].numpy()).max() <= TOLERANCES["engine"]
    if form != "deep":
        assert list(fr.from_state_dict(source, prefix="encoder")) == [""]
    assert list(fr.from_state_dict(source, prefix=place)) == ["encoder"]


def test_a_prefix_that_fits_two_places_is_refused():
    state = fr.GRU(2, 3).state_dict()
    both = {"state_dict": {"rnn": state}, "model": {"rnn": state}}
    with pytest.raises(fr.InvalidModelError, match="ambiguous.*'state_dict.rnn' and 'model.rnn'"):
        fr.from_state_dict(both, prefix="rnn")
    assert list(fr.from_state_dict(both, prefix="model")) == ["rnn"]
    with pytest.raises(fr.InvalidModelError, match="'a.weight_ih_l0' twice"):
        fr.from_state_dict({"a.weight_ih_l0": state["weight_ih_l0"], "a": state})


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_cells_become_layers_of_one(kind):
    cell = getattr(torch.nn, f"{kind}Cell")(3, 4)
    layer = fr.from_state_dict({"net": {"cells.0": cell.state_dict()}}, nonlinearity="tanh")["net.cells.0"]
    x = torch.randn(6, 2, 3)
    state = None
    with torch.no_grad():
        for step in x:
            state = cell(step, state)
    assert np.abs(layer(x.numpy())[0][-1] - (state[0] if kind == "LSTM" else state).numpy()).max() <= TOLERANCES["engine"]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_16_bits_are_widened_exactly_and_64_refused(tmp_path, suffix, dtype):
    from safetensors.torch import save_file

    state = {k: v.to(getattr(torch, dtype)) for k, v in torch.nn.LSTM(3, 4, 2).state_dict().items()}
    path = tmp_path / f"w{suffix}"
    if suffix == ".npz":
        if dtype == "bfloat16":
            pytest.skip("NumPy has no bfloat16 to save")
        np.savez(path, **{k: v.numpy() for k, v in state.items()})
    else:
        torch.save(state, path) if suffix == ".pt" else save_file(state, path)
    for source in (path, state):
        if dtype == "float64":
            with pytest.raises(fr.DTypeError, match="_l0.* must be float32.*(float64|F64)"):
                fr.from_state_dict(source)
        else:
            (layer,) = fr.from_state_dict(source).values()
            assert all(np.array_equal(a, state[k].float().numpy()) for k, a in layer.state_dict().items())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_in_either_order_of_bytes_and_axes(tmp_path, save):
    layer = fr.GRU(3, 4, num_layers=2, seed=0)
    state = {f"rnn.{k}": np.asfortranarray(v).astype(">f4") for k, v in layer.state_dict().items()}
    save(tmp_path / "w.npz", **state, head=np.ones(3), names=np.array(["a", "b"]))
    again = fr.from_state_dict(tmp_path / "w.npz", prefix="rnn")[""]
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    assert np.array_equal(again(x)[0], layer(x)[0])


def test_tanh_or_relu_is_to_be_said():
    with pytest.warns(UserWarning, match=r"layer 'a' \(RNN\).*tanh.*relu.*nonlinearity"):
        fr.from_state_dict({"a": fr.RNN(2, 3).state_dict()})
    for said in ("tanh", "relu"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fr.from_state_dict(fr.RNN(2, 3).state_dict(), nonlinearity=said)
            fr.from_state_dict(fr.GRU(2, 3).state_dict())


def test_gaps_are_named():
    state = fr.LSTM(3, 4, num_layers=3).state_dict()
    for number in ("0", "1"):
        gap = {f"e.{k}": v for k, v in state.items() if f"_l{number}" not in k}
        with pytest.raises(fr.ShapeError, match=f"'e'.*'e[.].*_l2', but nothing of layer {number}"):
            fr.from_state_dict(gap)
    normed = torch.nn.utils.parametrizations.weight_norm(torch.nn.GRU(2, 3), "weight_hh_l0").state_dict()
    with pytest.raises(fr.UnsupportedModelError, match="weight_hh_l0 is stored as 'parametrizations.weight_hh_l0.original[01]'"):
        fr.from_state_dict(normed)


def test_a_torchscript_archive_by_the_advice_it_is_refused_with(shared, tmp_path):
    """noaa: what each door says does it. Its state dict, saved as the message says, and an example beside it give the archive's own numbers."""
    path = shared / "models/noaa-lstm/sugar_creek_trained.pt"
    with pytest.raises(fr.UnsupportedModelError, match=r"TorchScript.*torch\.save\(torch\.jit\.load\(.*\)\.state_dict\(\)"):
        fr.from_state_dict(path)
    with pytest.raises(fr.UnsupportedModelError, match=r"from_torch\(torch\.jit\.load\(.*\), example_inputs\)"):
        fr.load(path)
    archive = torch.jit.load(path, map_location="cpu")
    example = (
        torch.randn(archive.seq_length, archive.batch_size, archive.input_size),
        torch.randn(1, archive.batch_size, 64),
        torch.randn(1, archive.batch_size, 64),
    )
    for got, other in zip(fr.compile(fr.from_torch(archive, example))(*(e.numpy() for e in example)), archive(*example)):
        np.testing.assert_allclose(got, other.detach().numpy(), atol=1e-6)
    scripted = torch.jit.load(path, map_location="cpu")
    torch.save(scripted.state_dict(), tmp_path / "weights.pt")
    lstm = fr.from_state_dict(tmp_path / "weights.pt")["lstm"]
    head = {k.removeprefix("head."): v.numpy() for k, v in scripted.state_dict().items() if k.startswith("head")}
    T, B, I = scripted.seq_length, scripted.batch_size, scripted.input_size
    h, c, state = torch.zeros(1, B, 64), torch.zeros(1, B, 64), None
    for x in torch.randn(30, T, B, I):
        with torch.no_grad():
            want, h, c = scripted(x, h, c)
        _, state = lstm(x.numpy(), state)
        for got, other in ((state[0] @ head["weight"].T + head["bias"], want), (state[0], h), (state[1], c)):
            assert np.abs(got - other.numpy()).max() <= TOLERANCES["engine"] * max(1.0, float(other.abs().max()))


def test_whole_modules_in_the_shared_models(shared):
    for name in ("rescue-xbt/rnn.pt", "pose-gru/gru_model_full.pth"):
        with pytest.raises(fr.UnsupportedModelError, match=r"not.*unpickled.*torch\.save\(model\.state_dict\(\)"):
            fr.from_state_dict(shared / "models" / name)


@pytest.mark.parametrize(
    "path,expected",
    [("beatnet/model_1_weights.pt", {"lstm": (torch.nn.LSTM, 150, 150, 2)}), ("pose-gru/gru_model.pth", {"gru": (torch.nn.GRU, 34, 64, 2)})],
)
def test_real_checkpoints_load_by_key_pattern_and_agree_with_torch(shared, path, expected):
    layers = fr.from_state_dict(shared / "models" / path)
    assert set(layers) == set(expected)
    state = torch.load(shared / "models" / path, weights_only=True, map_location="cpu")
    for name, (kind, I, H, depth) in expected.items():
        module = kind(I, H, depth)
        module.load_state_dict({k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(name + ".")})
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
    for state in (
        {"weight_ih_l0": w, "weight_hh_l0": w, "weight_ih_l30000000": w},
        {"weight_ih_l0": w, "weight_hh_l0": w, f"weight_ih_l{many}": w},
        {"weight_ih_l0": np.zeros((0, 10**10), np.float32), "weight_hh_l0": w},
        {"weight_ih_l0": w, "weight_hh_l0": np.zeros((0, 10**10), np.float32)},
    ):
        with pytest.raises(fr.ShapeError, match="layer"):
            fr.from_state_dict(state)


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_with_arrays_and_words_beside_the_weights(tmp_path, legacy):
    module = torch.nn.LSTM(3, 5)
    beside = {"vocabulary": {f"word {k}": k for k in range(140_000)}, "mean": np.arange(4, dtype="f8"), "best": np.float64(0.5), "counts": np.arange(6).reshape(2, 3),
              "fortran": np.asfortranarray(np.ones((2, 3), "f2")), "seen": np.array([True]), "step": np.int32(7), "none": np.zeros(0, "i8"), "complex": np.complex64(1j)}  # fmt: skip
    torch.save({"state_dict": module.state_dict(), **beside}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    (layer,) = fr.from_state_dict(tmp_path / "a.pt").values()
    assert all(np.array_equal(a, module.state_dict()[name].numpy()) for name, a in layer.state_dict().items())
    arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    torch.save(arrays, tmp_path / "b.pt")
    (layer,) = fr.from_state_dict(tmp_path / "b.pt").values()
    assert all(np.array_equal(a, arrays[name]) for name, a in layer.state_dict().items())


def test_what_is_shared_without_end_is_still_counted():
    nested = [torch.zeros(1)]
    for _ in range(14):
        nested = [nested] * 50
    with pytest.raises(fr.InvalidModelError, match="more than 131072 tensors"):
        fr.from_state_dict({"a": nested})


def test_the_classes_that_matter_are_named_first(tmp_path):
    import argparse
    import collections
    import pathlib

    made = type("Vocabulary", (), {"__module__": "their_project.text"})
    sys.modules["their_project"], sys.modules["their_project.text"] = types.ModuleType("their_project"), types.ModuleType("their_project.text")
    sys.modules["their_project.text"].Vocabulary = made
    try:
        path = tmp_path / "lightning.ckpt"
        torch.save(
            {
                "callbacks": collections.defaultdict(int),
                "args": argparse.Namespace(),
                "dir": pathlib.Path(),
                "a": np.random.default_rng(0),
                "vocab": made(),
            },
            path,
        )
    finally:
        del sys.modules["their_project"], sys.modules["their_project.text"]
    with pytest.raises(fr.UnsupportedModelError, match=r"whole objects \(their_project\.text\.Vocabulary, .*more\)"):
        fr.from_state_dict(path)


def test_a_folder_is_said_to_be_one(tmp_path):
    with pytest.raises(fr.UnsupportedModelError, match="a folder; give the file in it"):
        fr.from_state_dict(tmp_path)


def test_sources_of_the_wrong_kind():
    loop = {}
    loop["self"] = loop
    for source in (None, 3, [1], loop):
        with pytest.raises(fr.InvalidModelError):
            fr.from_state_dict(source)
    with pytest.raises(fr.DTypeError):
        fr.from_state_dict({"weight_ih_l0": [[1], [1, 2]], "weight_hh_l0": 3})
    with pytest.raises(fr.UnsupportedModelError, match="bias"):
        fr.from_state_dict(fr.GRU(2, 3).state_dict(), bias=True)
