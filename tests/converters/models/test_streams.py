"""The real ONNX files without a word about their states: guessed, streamed, and verified by the command line."""

import json

import numpy as np
import onnxruntime
import pytest

import fastrnn as fr
from fastrnn.cli import main

FILES = {
    "silero": "silero-vad/silero_vad_16k_op15.onnx",
    "dtln_p1": "dtln-pytorch/model_p1.onnx",
    "dtln_p2": "dtln-pytorch/model_p2.onnx",
    "dtln_keras": "dtln/model_1.onnx",
    "gtcrn": "gtcrn/gtcrn_simple.onnx",
    "pose": "pose-gru/gru_model.onnx",
    "splitter": "tract-bidi-lstm/model.onnx",
    "cmapss": "cmapss-lstm/lstm_model.onnx",
}
LETTERS = ("h1_in", "c1_in", "h2_in", "c2_in")
GUESSED = {
    "silero": {"state": "stateN"},
    "dtln_keras": {"input_3": "tf_op_layer_stack_2"},
    "gtcrn": {f"{n}_cache": f"{n}_cache_out" for n in ("conv", "tra", "inter")},
    "dtln_p1": {name: ("out_state1", k) for k, name in enumerate(LETTERS)},
    "dtln_p2": {name: ("out_state2", k) for k, name in enumerate(LETTERS)},
    "pose": {},
    "splitter": {},
    "cmapss": {},
}
OPTIONS = {"silero": ["--size", "sequence=576", "--constant", "sr=16000"]}


@pytest.fixture
def path(shared):
    return lambda name: shared / "models" / FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_states_are_guessed_exactly(path, name):
    guess = fr.guess_states(fr.load(path(name)))
    assert guess.states == GUESSED[name] and not guess.open
    kinds = {"dtln_p1": "the graph", "dtln_p2": "the graph", "dtln_keras": "the graph", "silero": "names", "gtcrn": "names"}
    assert all(why.startswith(kinds[name]) for why in guess.why.values())


@pytest.mark.parametrize("name", FILES)
def test_the_command_line_verifies_every_file(path, name, capsys):
    """Whole calls at batch 1 and 3 and several lengths where the shapes allow, and a stream of 60 steps where there are states."""
    code = main(["verify", str(path(name)), "--steps", "60", "--json", *OPTIONS.get(name, [])])
    data = json.loads(capsys.readouterr().out)
    assert code == 0 and data["verified"] and data["engine"] == "onnxruntime"
    assert all(0 < d["scale"] and d["relative"] <= 2e-5 for d in data["outputs"])
    cases = {d["case"] for d in data["outputs"]}
    batches = (
        {"batch 1", "batch 3"}
        if name in ("silero", "cmapss")
        else {f"batch {b}, {dim} = {n}" for b in (1, 3) for n in (16, 37)}
        if (dim := {"pose": "sequence_length", "splitter": "length"}.get(name))
        else {"whole"}
    )
    assert cases == batches | ({"stream of 60 steps", "stream of 60 steps, state"} if GUESSED[name] else set())
    assert ("(guessed)" in data["stream"]) == bool(GUESSED[name])


@pytest.mark.parametrize("name", [name for name, states in GUESSED.items() if states])
def test_streams_from_guessed_states_have_the_bits_of_declared_ones(path, name):
    model, constants = fr.load(path(name)), {"sr": np.array(16_000)} if name == "silero" else None
    guessed, declared = fr.compile(model, constants=constants).stream(), fr.compile(model, states=GUESSED[name], constants=constants).stream()
    assert guessed.state.keys() == declared.state.keys() == GUESSED[name].keys()
    shape = tuple(576 if d == "sequence" else d for d in guessed.step_shapes()[next(iter(guessed.step_shapes()))])
    x = np.abs(np.random.default_rng(0).standard_normal((30, *shape)) * 0.2).astype(np.float32)
    assert np.array_equal(guessed.push(x), declared.push(x))
    assert all(np.array_equal(a, declared.state[n]) and np.any(a) for n, a in guessed.state.items())


@pytest.mark.parametrize(
    "name,dim,lengths", [("silero", "sequence", (400, 576, 700)), ("pose", "sequence_length", (1, 2, 100)), ("splitter", "length", (1, 2, 130))]
)
def test_other_lengths_at_batch_1_and_3(path, name, dim, lengths):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    model, other = fr.load(path(name)), onnxruntime.InferenceSession(str(path(name)), options, providers=["CPUExecutionProvider"])
    session, random = fr.compile(model), np.random.default_rng(1)
    for batch in (1, 3):
        for length in lengths:
            inputs = {}
            for v in model.inputs:
                shape = tuple(length if d == dim else batch if isinstance(d, str) else d for d in v.shape)
                inputs[v.name] = (
                    np.array(16_000)
                    if v.name == "sr"
                    else random.integers(0, 256, shape).astype(v.dtype)
                    if v.dtype == "uint8"
                    else (random.standard_normal(shape) * 0.3).astype(np.float32)
                )
            for got, want in zip(session.run(inputs).values(), other.run(None, inputs), strict=True):
                assert got.shape == want.shape and np.abs(got - want).max() <= 2e-5 * np.abs(want).max()


def test_audio_runs_without_a_word_about_states(path, shared, capsys, tmp_path):
    """A recording through silero on the command line: the probabilities that declared states give."""
    common = ["run", str(path("silero")), "--constant", "sr=16000", "--frame", "512", "--context", "64", "--input", f"input={shared / 'models/gtcrn/mix.wav'}"]  # fmt: skip
    for name, said in (("guessed", []), ("declared", ["--state", "state=stateN"])):
        assert main([*common, "--output", f"output={tmp_path / name}.npy", *said, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == 306
    guessed, declared = (np.load(tmp_path / f"{name}.npy") for name in ("guessed", "declared"))
    assert np.array_equal(guessed, declared) and guessed.max() > 0.9 and guessed.min() < 0.1
