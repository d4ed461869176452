"""The real ONNX files: against ONNX Runtime on random and real inputs, streamed with their states, and against what their authors stored."""

import wave

import numpy as np
import onnxruntime
import pytest

import fastrnn as fr

TOLERANCE = 2e-5  # of an output's largest entry
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
STATES = {
    "silero": {"state": "stateN"},
    "dtln_keras": {"input_3": "tf_op_layer_stack_2"},
    "dtln_p1": {name: ("out_state1", k) for k, name in enumerate(("h1_in", "c1_in", "h2_in", "c2_in"))},
    "dtln_p2": {name: ("out_state2", k) for k, name in enumerate(("h1_in", "c1_in", "h2_in", "c2_in"))},
    "gtcrn": {name: f"{name}_out" for name in ("conv_cache", "tra_cache", "inter_cache")},
}


@pytest.fixture
def path(shared):
    return lambda name: shared / "models" / FILES[name]


def engine(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def agree(got, want, tolerance=TOLERANCE):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def draw(model, random, **sizes):
    """Random inputs; bytes, magnitudes and a rate of 16 kHz where those are meant: on magnitudes below zero dtln amplifies any rounding, and
    ONNX Runtime itself is 5e-5 from float64."""
    inputs = {}
    for value in model.inputs:
        shape = tuple(sizes.get(d, d) for d in value.shape)
        inputs[value.name] = (
            np.array(16_000)
            if value.name == "sr"
            else random.integers(0, 256, shape).astype(value.dtype)
            if value.dtype == "uint8"
            else (random.standard_normal(shape) * 0.3).astype(np.float32)
        )
    return {name: np.abs(a) if name in ("mag", "input_2") else a for name, a in inputs.items()}


@pytest.mark.parametrize("name", FILES)
def test_random_inputs_at_batch_1_and_3(path, name):
    model, other, random = fr.from_onnx(path(name)), engine(path(name)), np.random.default_rng(0)
    session = fr.compile(model)
    batches = (1, 3) if any(isinstance(d, str) for v in model.inputs for d in v.shape) else (1,)
    for batch in batches:
        for length in (17, 40) if name in ("pose", "splitter") else (0,):
            inputs = draw(model, random, batch=batch, batch_size=batch, unk__130=batch, sequence=576, sequence_length=length, length=length)
            for got, want in zip(session.run(inputs).values(), other.run(None, inputs), strict=True):
                agree(got, want)


@pytest.mark.parametrize("name,fixed", [*((name, False) for name in STATES), ("silero", True)])
def test_streams_of_200_steps_carry_their_states(path, name, fixed):
    """fixed: silero with its rate as a constant."""
    model, other, random = fr.from_onnx(path(name)), engine(path(name)), np.random.default_rng(1)
    session = fr.compile(model, states=STATES[name], constants={"sr": np.array(16_000)} if fixed else None)
    stream = session.stream()
    states = {name: np.zeros(a.shape, np.float32) for name, a in stream.state.items()}
    rows = []
    for _ in range(200):
        inputs = {k: v for k, v in draw(model, random, batch=1, sequence=576).items() if k not in states}
        theirs = dict(zip(model.output_names, other.run(None, {**inputs, **states})))
        given = {k: v for k, v in inputs.items() if not (fixed and k == "sr")}
        mine = stream.step(given if len(given) > 1 else next(iter(given.values())))
        rows.append((mine, theirs[stream.output_names[0]]))
        states = {i: theirs[o] if isinstance(o, str) else theirs[o[0]][o[1] : o[1] + 1] for i, o in STATES[name].items()}
    agree(np.stack([a for a, _ in rows]), np.stack([b for _, b in rows]))
    for key, value in stream.state.items():
        agree(value, states[key])


def test_a_stream_is_bit_equal_to_calls_and_to_chunks(path):
    """silero: steps, a chunk, and calls of the session with the state passed by hand."""
    session = fr.compile(fr.from_onnx(path("silero")), states=STATES["silero"], constants={"sr": np.array(16_000)})
    x = (np.random.default_rng(2).standard_normal((12, 3, 576)) * 0.1).astype(np.float32)
    stream, state, by_hand = session.stream(3), np.zeros((2, 3, 128), np.float32), []
    steps = np.stack([stream.step(frame) for frame in x])
    for frame in x:
        out = session.run({"input": frame, "state": state})
        state = out["stateN"]
        by_hand.append(out["output"])
    assert np.array_equal(steps, np.stack(by_hand)) and np.array_equal(stream.state["state"], state)
    stream.reset()
    assert np.array_equal(stream.push(x), steps)
    alone = session.stream(1)
    assert np.array_equal(alone.push(np.ascontiguousarray(x[:, 1:2])), steps[:, 1:2])


def test_the_first_step_fixes_the_frame_and_later_ones_must_match(path):
    stream = fr.compile(fr.from_onnx(path("silero")), states=STATES["silero"], constants={"sr": np.array(16_000)}).stream()
    with pytest.raises(fr.ShapeError, match="'input'"):
        stream.step(np.zeros(576, np.float32))
    before = stream.step(np.zeros((1, 576), np.float32))
    with pytest.raises(fr.ShapeError, match="576"):
        stream.step(np.zeros((1, 512), np.float32))
    stream.reset()
    assert np.array_equal(stream.step(np.zeros((1, 576), np.float32)), before)


def read(path):
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 2**15


def test_gtcrn_enhances_its_own_recording(path, shared):
    """mix.wav through STFT 512 / 256 with square-root Hann windows, the stream, and back: enh.wav within 2 steps of int16."""
    mix, enhanced = read(shared / "models/gtcrn/mix.wav"), read(shared / "models/gtcrn/enh.wav")
    window = np.sqrt(np.hanning(513)[:512])
    padded = np.pad(mix.astype(np.float64), 256, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[::256] * window
    spectra = np.fft.rfft(frames, axis=1)
    x = np.stack([spectra.real, spectra.imag], axis=-1).astype(np.float32)[:, None, :, None, :]
    stream = fr.compile(fr.from_onnx(path("gtcrn")), states=STATES["gtcrn"]).stream()
    y = stream.push(np.ascontiguousarray(x))[:, 0, :, 0]
    pieces = np.fft.irfft(y[..., 0] + 1j * y[..., 1], axis=1) * window
    out = np.zeros(256 * len(pieces) + 256)
    for k, piece in enumerate(pieces):
        out[256 * k : 256 * k + 512] += piece
    out = out[256 : 256 + len(enhanced)]
    assert np.abs(np.round(out * 2**15) - np.round(enhanced * 2**15)).max() <= 2


def test_silero_on_a_real_recording(path, shared):
    """mix.wav holds speech: both engines say so in the same frames."""
    mix, other = read(shared / "models/gtcrn/mix.wav"), engine(path("silero"))
    frames = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.zeros(64, np.float32), mix]), 576)[::512]
    stream = fr.compile(fr.from_onnx(path("silero")), states=STATES["silero"], constants={"sr": np.array(16_000)}).stream()
    mine, state, theirs = stream.push(np.ascontiguousarray(frames[:, None])), np.zeros((2, 1, 128), np.float32), []
    for frame in frames:
        y, state = other.run(None, {"input": frame[None], "state": state, "sr": np.array(16_000)})
        theirs.append(y)
    agree(mine, np.stack(theirs))
    assert mine.max() > 0.9 and mine.min() < 0.1


def test_the_sentence_splitter_gives_its_stored_answers(path, shared):
    stored = np.load(shared / "models/tract-bidi-lstm/io.npz")
    x, want = stored["input"], stored["Add_26"]
    np.testing.assert_allclose(fr.compile(fr.from_onnx(path("splitter")))(x), want, rtol=0, atol=1e-5)


def test_pose_gru_on_its_key_points(path, shared):
    x = np.load(shared / "models/pose-gru/keypoints_sequences.npy").astype(np.float32)
    x = x.reshape(len(x), -1, 34)
    (want,) = engine(path("pose")).run(None, {"input": x})
    agree(fr.compile(fr.from_onnx(path("pose")))(x), want)


def test_dtln_from_every_source_agrees(path, shared):
    """The checkpoint's layers, the ONNX halves of the same weights, and the Keras export: one answer for the first half."""
    torch = pytest.importorskip("torch")
    checkpoint = torch.load(shared / "models/dtln-pytorch/model.pth", weights_only=True)
    layers = fr.from_state_dict(shared / "models/dtln-pytorch/model.pth")
    first = [layers[name] for name in sorted(n for n in layers if n.startswith("sep1"))]
    dense = {k.split(".")[-1]: v.numpy() for k, v in checkpoint.items() if k.startswith("sep1.dense")}
    p1 = fr.compile(fr.from_onnx(path("dtln_p1")), states=STATES["dtln_p1"]).stream()
    keras = fr.compile(fr.from_onnx(path("dtln_keras")), states=STATES["dtln_keras"]).stream()
    frames = np.abs(np.random.default_rng(3).standard_normal((40, 1, 257))).astype(np.float32)
    h = frames
    for layer in first:
        h = layer(h)[0]
    mask = 1 / (1 + np.exp(-(h @ dense["weight"].T + dense["bias"])))
    halves = p1.push(np.ascontiguousarray(frames[:, None]))[:, 0]
    exported = keras.push(np.ascontiguousarray(frames[:, None]))[:, 0]
    agree(exported, mask.astype(np.float32))
    agree(halves, (mask * frames).astype(np.float32))
    second = [layers[name] for name in sorted(n for n in layers if n.startswith("sep2"))]
    assert len(first) == len(second) == 2
    recurrent = [n for n in fr.from_onnx(path("dtln_p2")).nodes if n.op == "LSTM"]
    weights = fr.from_onnx(path("dtln_p2")).weights
    for node, layer in zip(recurrent, second, strict=True):
        i, o, f, c = np.split(weights[node.inputs[1]][0], 4)
        assert np.array_equal(np.concatenate([i, f, c, o]), layer.state_dict()["weight_ih_l0"])


def test_the_second_half_of_dtln_against_torch(path, shared):
    """Its frames encoded, normalised, masked and decoded by plain torch from the checkpoint."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    w = torch.load(shared / "models/dtln-pytorch/model.pth", weights_only=True)
    stream, random = fr.compile(fr.from_onnx(path("dtln_p2")), states=STATES["dtln_p2"]).stream(), np.random.default_rng(4)
    frames = (random.standard_normal((20, 1, 512, 1)) * 0.1).astype(np.float32)
    mine = stream.push(frames)[:, 0, :, 0]
    encoded = F.conv1d(torch.from_numpy(frames[:, 0]), w["encoder_conv1.weight"]).transpose(1, 2)[:, 0]
    centred = encoded - encoded.mean(dim=-1, keepdim=True)
    normal = centred / torch.sqrt((centred * centred).mean(dim=-1, keepdim=True) + 1e-7) * w["encoder_norm1.gamma"].reshape(-1) + w[
        "encoder_norm1.beta"
    ].reshape(-1)
    layers = fr.from_state_dict(shared / "models/dtln-pytorch/model.pth")
    h = normal[:, None].numpy()
    for name in sorted(n for n in layers if n.startswith("sep2")):
        h = layers[name](h)[0]
    mask = torch.sigmoid(torch.from_numpy(np.ascontiguousarray(h[:, 0])) @ w["sep2.dense.weight"].T + w["sep2.dense.bias"])
    decoded = F.conv1d((mask * encoded)[:, :, None], w["decoder_conv1.weight"])[:, :, 0]
    agree(mine, decoded.numpy())


@pytest.mark.parametrize("name", FILES)
def test_saved_and_loaded_models_give_the_same_bits(path, name, tmp_path):
    model = fr.from_onnx(path(name))
    model.save(tmp_path / "m.safetensors")
    again = fr.load(tmp_path / "m.safetensors")
    assert str(again.graph) == str(model.graph) and again.outputs == model.outputs
    inputs = draw(model, np.random.default_rng(5), batch=2, batch_size=2, unk__130=2, sequence=576, sequence_length=9, length=9)
    for a, b in zip(fr.compile(model).run(inputs).values(), fr.compile(again).run(inputs).values(), strict=True):
        assert np.array_equal(a, b)


def test_models_that_need_the_whole_sequence_say_which_node(path):
    for name, message in (("splitter", "direction='bidirectional'"), ("cmapss", "fixed at 30"), ("pose", "time")):
        with pytest.raises(fr.NotStreamableError, match=message):
            fr.compile(fr.from_onnx(path(name))).stream()
    with pytest.raises(fr.NotStreamableError, match="state"):
        fr.compile(
            fr.from_onnx(path("dtln_p1")), states={}, constants={k: np.zeros((1, 1, 128), np.float32) for k in ("h1_in", "c1_in", "h2_in", "c2_in")}
        ).stream()


def test_what_is_left_to_numpy_is_marked(path):
    explained = {name: fr.compile(fr.from_onnx(path(name))).explain() for name in FILES}
    assert "NumPy" not in explained["dtln_p1"] and "NumPy" not in explained["dtln_p2"] and "NumPy" not in explained["cmapss"]
    assert all("NumPy" not in explained[name] for name in ("gtcrn", "pose", "splitter", "dtln_keras"))  # all of them runs compiled
    silero = fr.compile(fr.from_onnx(path("silero")), constants={"sr": np.array(16_000)})
    assert all(word not in silero.explain({"input": (1, 576), "state": (2, 1, 128)}) for word in ("NumPy", "If ", "Shape"))
    assert "lstm" in explained["silero"] and "decided for the shapes in use" in explained["silero"]
