"""Keras files and live models: what they compute, against Keras 3 on torch; the form of Keras 2 is written here."""

from __future__ import annotations

import json
import warnings

import keras_nets as nets
import numpy as np
import pytest

import fastrnn as fr

keras, L = nets.keras, nets.L
SCALE = 2e-5  # of the largest entry, at least 1: sums in another order, through up to six layers
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def close(got, want, scale=SCALE):
    """Within the tolerance of the largest entry."""
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= scale * max(1, np.abs(want).max(initial=0))


def saved(model, path, form):
    """A model through a file, or live."""
    if form == "live":
        return fr.from_keras(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path / f"model.{form}")
    return fr.load(path / f"model.{form}")


def check_drawn(seed, tmp_path):
    draw = nets.Draw(seed)
    want = draw.wanted()
    for form in ("keras", "h5", "live"):
        close(fr.compile(saved(draw.model, tmp_path, form))(draw.inputs), want)


@pytest.mark.parametrize("seed", range(24))
def test_drawn_models(seed, tmp_path):
    check_drawn(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24, 324))
def test_drawn_models_more(seed, tmp_path):
    check_drawn(seed, tmp_path)


def check_keras2(seed, tmp_path):
    draw = nets.Draw(seed, keras2=True)
    nets.save_keras2(draw.model, tmp_path / "old.h5")
    close(fr.compile(fr.load(tmp_path / "old.h5"))(draw.inputs), draw.wanted())


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_keras_2_form(seed, tmp_path):
    check_keras2(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1012, 1062))
def test_keras_2_form_more(seed, tmp_path):
    check_keras2(seed, tmp_path)


def randomise(model, seed=0):
    """Random weights, biases too."""
    r = np.random.default_rng(seed)
    model.set_weights(
        [
            r.uniform(0.5, 1.5, w.shape).astype("f4") if "variance" in v.path else (r.standard_normal(w.shape) * 0.4).astype("f4")
            for v, w in zip(model.weights, model.get_weights())
        ]
    )
    return model


@pytest.mark.parametrize("form", ["keras", "h5", "live"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "GRU-before", "SimpleRNN"])
def test_causal_models_stream(cell, form, tmp_path):
    kind, options = cell.partition("-")[0], {"reset_after": False} if cell.endswith("before") else {}
    layer = getattr(L, kind)
    model = randomise(
        keras.Sequential(
            [
                keras.Input((None, 3)),
                L.Conv1D(4, 3, padding="causal", activation="relu"),
                layer(5, return_sequences=True, **options),
                L.LayerNormalization(),
                L.Dropout(0.2),
                layer(4, return_sequences=True, **options),
                L.BatchNormalization(),
                L.TimeDistributed(L.Dense(2, activation="softmax")),
            ]
        )
    )
    x = np.random.default_rng(1).standard_normal((2, 9, 3)).astype("f4")
    session = fr.compile(saved(model, tmp_path, form))
    whole = session(x)
    close(whole, nets.evaluated(model, x))
    stream = session.stream(batch=2)
    first, second = stream.push(x.swapaxes(0, 1)[:4]), [stream.step(x[:, t]) for t in range(4, 9)]
    assert np.array_equal(np.concatenate([first, second]).swapaxes(0, 1), whole)


@pytest.mark.parametrize("form", ["keras", "h5"])
def test_stateful_models_carry_their_states(form, tmp_path):
    model = randomise(
        keras.Sequential(
            [
                keras.Input(batch_shape=(2, None, 3)),
                L.LSTM(4, stateful=True, return_sequences=True),
                L.GRU(3, stateful=True, return_sequences=True),
                L.Dense(2),
            ]
        )
    )
    x = np.random.default_rng(2).standard_normal((2, 8, 3)).astype("f4")
    converted = saved(model, tmp_path, form)
    assert [s.input for s in converted.states] == [f"{model.layers[0].name}.h0", f"{model.layers[0].name}.c0", f"{model.layers[1].name}.h0"]
    want = np.concatenate([nets.evaluated(model, x[:, :3]), nets.evaluated(model, x[:, 3:])], 1)  # Keras keeps the states between the two
    stream = fr.compile(converted).stream(batch=2)
    close(np.concatenate([stream.push(x.swapaxes(0, 1)[:3]), stream.push(x.swapaxes(0, 1)[3:])]).swapaxes(0, 1), want)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1, 3), (3, 2, 3)])
def test_stateful_model_of_fixed_sizes(shape, tmp_path):
    model = randomise(keras.Sequential([keras.Input(batch_shape=shape), L.LSTM(4, stateful=True, return_sequences=True), L.GRU(2, stateful=True)]))
    x = np.random.default_rng(3).standard_normal((6, *shape)).astype("f4")
    session = fr.compile(saved(model, tmp_path, "keras"))
    stream, same = session.stream(shape[0]), session.stream()
    assert stream.batch == same.batch == shape[0]
    for t in range(6):
        close(y := stream.step(x[t]), nets.evaluated(model, x[t]))
        assert np.array_equal(same.step(x[t]), y)
    stream.reset(rows=[0])
    assert all(not a[:, 0].any() and a[:, 1:].any() == (shape[0] > 1) for a in stream.state.values())
    with pytest.raises(fr.ShapeError, match=f"fixed at {shape[0]}"):
        session.stream(2)


MASKS = {
    "behind": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
    "in front": [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]],
    "holes": [[1, 0, 1, 0, 1], [0, 1, 0, 0, 1]],
    "none kept": [[0] * 5, [1, 1, 0, 1, 0]],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.LSTM(4, return_sequences=True),
        lambda: L.GRU(4),
        lambda: L.GRU(4, return_sequences=True, reset_after=False, go_backwards=True),
        lambda: L.SimpleRNN(3, go_backwards=True),
        lambda: L.LSTM(3, return_sequences=True, zero_output_for_mask=True),
        lambda: L.LSTM(3, zero_output_for_mask=True),
        lambda: L.Bidirectional(L.LSTM(3, return_sequences=True)),
        lambda: L.Bidirectional(L.GRU(3), merge_mode="sum"),
        lambda: L.LSTM(3, return_state=True, return_sequences=True),
        lambda: L.Bidirectional(L.LSTM(2, return_state=True)),
        lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True, return_state=True),
        lambda: L.LSTM(3, activation="gelu", return_sequences=True),
        lambda: L.GRU(3, recurrent_activation="softmax", go_backwards=True, return_sequences=True),
    ],
)
def test_masks(layer, mask, tmp_path):
    given = keras.Input((None, 3), name="x")
    model = keras.Model(given, layer()(L.Masking(0.0)(given)))
    randomise(model)
    x = np.random.default_rng(4).standard_normal((2, 5, 3)).astype("f4") * np.array(MASKS[mask], "f4")[:, :, None]
    want = nets.evaluated(model, x)
    got = fr.compile(saved(model, tmp_path, "keras"))(x)
    for a, b in zip(got if isinstance(got, tuple) else [got], want if isinstance(want, list) else [want], strict=True):
        close(a, b)


@pytest.mark.parametrize("layer", [L.Add, L.Multiply, L.Subtract, L.Average, L.Maximum, L.Minimum, L.Concatenate])
def test_merged_masks(layer, tmp_path):
    """Of one mask, of two, and of one beside none: what stands at masked steps too, and how far a GRU behind them looks."""
    a, b = keras.Input((5, 3), name="a"), keras.Input((5, 3), name="b")
    x, y = L.Masking(0.0)(a), L.Masking(0.0)(b)
    merged = [
        layer()([x, L.Dense(3)(x)]),
        layer()([x, y]),
        layer()([x, L.Dense(3)(b)]),
        *([] if layer is L.Subtract else [layer()([y, x, L.Dense(3)(y)])]),
    ]
    model = randomise(keras.Model([a, b], [*merged, *(L.GRU(2)(m) for m in merged)]))
    r = np.random.default_rng(11)
    given = [r.standard_normal((2, 5, 3)).astype("f4") * np.array(MASKS[mask], "f4")[:, :, None] for mask in ("behind", "holes")]
    for form in ("keras", "live"):
        for got, want in zip(fr.compile(saved(model, tmp_path, form))(*given), nets.evaluated(model, given), strict=True):
            close(got, want)


def test_initial_states_and_shared_layers(tmp_path):
    """An encoder's states start a decoder; one Dense is called twice."""
    source, target = keras.Input((None, 3), name="source"), keras.Input((None, 2), name="target")
    _, h, c = L.LSTM(4, return_state=True)(source)
    y = L.LSTM(4, return_sequences=True)(target, initial_state=[h, c])
    f = L.Bidirectional(L.GRU(2))(target, initial_state=[L.Dense(2)(h), L.Dense(2)(c)])
    dense = L.Dense(3)
    model = randomise(keras.Model([source, target], {"y": dense(y), "c": dense(c), "f": f}))
    r = np.random.default_rng(5)
    x = {"source": r.standard_normal((2, 4, 3)).astype("f4"), "target": r.standard_normal((2, 6, 2)).astype("f4")}
    want = model(x, training=False)
    for form in ("keras", "live"):
        got = fr.compile(saved(model, tmp_path, form)).run(x)
        for value, name in zip(got.values(), model._outputs_struct):
            close(value, want[name].detach().numpy())


LAYERS = {
    "Conv2D": lambda: (L.Conv2D(4, (3, 2), strides=(2, 1), padding="same"), (6, 5, 3)), "SeparableConv2D": lambda: (L.SeparableConv2D(4, 2, depth_multiplier=2), (6, 5, 3)),
    "DepthwiseConv2D": lambda: (L.DepthwiseConv2D(3, padding="same"), (6, 5, 2)), "MaxPooling2D": lambda: (L.MaxPooling2D(2, padding="same"), (5, 4, 2)),
    "AveragePooling2D": lambda: (L.AveragePooling2D(2, strides=1, padding="same"), (5, 4, 2)), "GlobalAveragePooling2D": lambda: (L.GlobalAveragePooling2D(), (5, 4, 2)),
    "Conv1D strides": lambda: (L.Conv1D(3, 3, strides=2, padding="same"), (7, 2)), "Conv1D valid": lambda: (L.Conv1D(3, 3, dilation_rate=2), (7, 2)),
    "SeparableConv1D": lambda: (L.SeparableConv1D(5, 3, depth_multiplier=2), (7, 3)), "DepthwiseConv1D": lambda: (L.DepthwiseConv1D(3, depth_multiplier=2), (7, 3)),
    "Permute": lambda: (L.Permute((2, 1)), (4, 3)), "Reshape": lambda: (L.Reshape((2, -1)), (4, 3)), "Flatten": lambda: (L.Flatten(), (4, 3)), "UpSampling1D": lambda: (L.UpSampling1D(3), (4, 3)),
    "RepeatVector": lambda: (L.RepeatVector(3), (4,)), "ZeroPadding2D": lambda: (L.ZeroPadding2D(((1, 2), (0, 3))), (4, 3, 2)), "Cropping2D": lambda: (L.Cropping2D(((1, 1), (0, 2))), (4, 3, 2)),
    "PReLU": lambda: (L.PReLU(), (4, 3)), "Softmax": lambda: (L.Softmax(axis=1), (4, 3)), "ReLU threshold": lambda: (L.ReLU(1.0, 0.2, 0.3), (4, 3)), "UnitNormalization": lambda: (L.UnitNormalization(), (4, 3)),
    "Normalization": lambda: (L.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 0.5]), (4, 3)), "Rescaling": lambda: (L.Rescaling(0.5, 1.0), (4, 3)),
    "LayerNormalization of two": lambda: (L.LayerNormalization(axis=[1, 2]), (4, 3)), "BatchNormalization axis 1": lambda: (L.BatchNormalization(axis=1), (4, 3)),
    "EinsumDense": lambda: (L.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d"), (4, 3)), "TimeDistributed Conv2D": lambda: (L.TimeDistributed(L.Conv2D(2, 2)), (3, 4, 4, 1)),
    "TimeDistributed LSTM": lambda: (L.TimeDistributed(L.LSTM(3)), (3, 4, 2)), "GRU unroll": lambda: (L.GRU(3, unroll=True, return_sequences=True), (4, 3)),
    "Bidirectional RNN": lambda: (L.Bidirectional(L.RNN([L.GRUCell(2), L.GRUCell(3)], return_sequences=True), merge_mode="mul"), (4, 3)),
    "Bidirectional None": lambda: (L.Bidirectional(L.LSTM(2, return_sequences=True), merge_mode=None), (4, 3)),
    "Bidirectional of two": lambda: (L.Bidirectional(L.LSTM(2, return_sequences=True), backward_layer=L.GRU(3, return_sequences=True, go_backwards=True)), (4, 3)),
    **{f"Activation {name}": lambda name=name: (L.Activation(name), (4, 3)) for name in nets.ACTIVATIONS},
    **{f"LSTM {name}": lambda name=name: (L.LSTM(3, activation=name, recurrent_activation=name, return_sequences=True), (4, 3)) for name in ("gelu", "selu", "hard_sigmoid", "silu", "linear", "softmax")},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, tmp_path):
    layer, shape = LAYERS[name]()
    given = keras.Input(shape)
    model = randomise(keras.Model(given, layer(given)))
    x = np.random.default_rng(6).standard_normal((3, *shape)).astype("f4")
    want = nets.evaluated(model, x)
    for form in ("keras", "h5"):
        got = fr.compile(saved(model, tmp_path, form))(x)
        for a, b in zip(got if isinstance(got, tuple) else [got], want if isinstance(want, list) else [want], strict=True):
            close(a, b)


def test_two_inputs(tmp_path):
    a, b = keras.Input((4, 3), name="a"), keras.Input((4, 2), name="b")
    y = L.Dot(axes=1)([a, b])
    z = L.Dot(axes=(1, 1), normalize=True)([L.Flatten()(L.Dense(2)(a)), L.Flatten()(b)])
    model = randomise(keras.Model([a, b], [y, z, L.Add()([L.Dense(2)(a), L.GlobalMaxPooling1D()(b)]), (a[:, -1] * 2.0 + 1.0)[..., :2]]))
    r = np.random.default_rng(7)
    x = [r.standard_normal((3, 4, n)).astype("f4") for n in (3, 2)]
    got = fr.compile(saved(model, tmp_path, "keras"))(*x)
    for one, want in zip(got, nets.evaluated(model, x), strict=True):
        close(one, want)


def test_old_gru_and_hard_sigmoid(tmp_path):
    """A config without reset_after is Cho's GRU, and hard_sigmoid of Keras 2 is clip(0.2 x + 0.5)."""
    r = np.random.default_rng(8)
    kernel, recurrent, bias, x = (r.standard_normal(s).astype("f4") for s in ((3, 12), (4, 12), (12,), (2, 5, 3)))
    config = {"class_name": "Sequential", "config": [{"class_name": "GRU", "config": {
        "name": "gru", "batch_input_shape": [None, None, 3], "units": 4, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True, "return_sequences": True,
        "go_backwards": False, "stateful": False, "unroll": False, "implementation": 1, "dropout": 0.0}}]}  # fmt: skip
    nets.save_h5(
        tmp_path / "old.h5", json.dumps(config), {"gru": [("kernel:0", kernel), ("recurrent_kernel:0", recurrent), ("bias:0", bias)]}, "2.1.6"
    )
    h, want = np.zeros((2, 4)), []
    for t in range(5):
        z, r_, n = np.split(x[:, t] @ kernel + bias, 3, axis=1)
        uz, ur, un = np.split(recurrent, 3, axis=1)
        z, r_ = (np.clip(0.2 * v + 0.5, 0, 1) for v in (z + h @ uz, r_ + h @ ur))
        h = z * h + (1 - z) * np.tanh(n + (r_ * h) @ un)
        want.append(h)
    close(fr.compile(fr.load(tmp_path / "old.h5"))(x), np.stack(want, 1).astype("f4"))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_cudnn_layers(kind, tmp_path):
    """CuDNNLSTM and CuDNNGRU: matrices as cuDNN reads them, input and recurrent biases apart."""
    n = 4 if kind == "LSTM" else 3
    r = np.random.default_rng(9)
    kernel, recurrent, bias, x = (r.standard_normal(s).astype("f4") * 0.5 for s in ((3, n * 5), (5, n * 5), (2, n * 5), (2, 6, 3)))
    model = keras.Sequential([keras.Input((None, 3)), getattr(L, kind)(5, return_sequences=True)])
    model.set_weights([kernel, recurrent, bias.sum(0) if kind == "LSTM" else bias])
    kept = np.concatenate([np.ascontiguousarray(part.T).reshape(3, 5) for part in np.split(kernel, n, 1)], 1)
    turned = np.concatenate([part.T for part in np.split(recurrent, n, 1)], 1)
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [{"class_name": f"CuDNN{kind}", "config": {
        "name": "cell", "batch_input_shape": [None, None, 3], "units": 5, "return_sequences": True, "return_state": False, "go_backwards": False, "stateful": False}}]}}  # fmt: skip
    nets.save_h5(
        tmp_path / "cudnn.h5", json.dumps(config), {"cell": [("kernel:0", kept), ("recurrent_kernel:0", turned), ("bias:0", bias.ravel())]}, "2.2.4"
    )
    close(fr.compile(fr.load(tmp_path / "cudnn.h5"))(x), nets.evaluated(model, x))


def test_weights_where_keras_2_12_has_them(tmp_path):
    draw = nets.Draw(3)
    draw.model.save(tmp_path / "new.keras")
    nets.save_keras212(draw.model, tmp_path / "old.keras", tmp_path / "new.keras")
    close(fr.compile(fr.load(tmp_path / "old.keras"))(draw.inputs), draw.wanted())


class Own(keras.layers.Layer):
    """A layer of one's own."""

    def call(self, x):
        return x


REFUSED = {
    "Lambda": (lambda x: L.Lambda(lambda t: t * 2)(x), "Lambda"),
    "own": (lambda x: Own()(x), "its own"),
    "ConvLSTM1D": (lambda x: L.ConvLSTM1D(2, 2)(L.Reshape((5, 3, 1))(x)), "ConvLSTM1D"),
    "float16": (lambda x: L.Dense(2, dtype="mixed_float16")(x), "mixed_float16"),
    "training": (lambda x: L.Dropout(0.5)(x, training=True), "training=True"),
    "rms": (lambda x: L.GroupNormalization(1)(x), "GroupNormalization"),
    "sort": (lambda x: keras.ops.sort(x), "Sort"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name, tmp_path):
    make, message = REFUSED[name]
    given = keras.Input((5, 3))
    keras.Model(given, make(given)).save(tmp_path / "model.keras")
    with pytest.raises(fr.UnsupportedModelError, match=message):
        fr.load(tmp_path / "model.keras")


def test_weights_alone_are_refused_by_name(tmp_path):
    model = keras.Sequential([keras.Input((4, 3)), L.LSTM(2)])
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(fr.UnsupportedModelError, match="weights alone"):
        fr.load(tmp_path / "model.weights.h5")
    nets.save_h5(tmp_path / "old.h5", "{}", {"lstm": []})
    with nets.h5py.File(tmp_path / "old.h5", "r+") as file:
        del file.attrs["model_config"]
        file.attrs["layer_names"] = [b"lstm"]
    with pytest.raises(fr.UnsupportedModelError, match="weights alone"):
        fr.load(tmp_path / "old.h5")


def test_swapped_weights_are_noticed(tmp_path):
    model = keras.Sequential([keras.Input((4, 3)), L.LSTM(3)])
    kernel, recurrent, bias = model.get_weights()
    config = json.loads(model.to_json())["config"]
    layers = [nets.keras2_layer(one, False) for one in config["layers"]]
    text = json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": layers}})
    nets.save_h5(tmp_path / "swapped.h5", text, {model.layers[0].name: [("recurrent_kernel:0", recurrent), ("kernel:0", kernel), ("bias:0", bias)]})
    with pytest.raises(fr.InvalidModelError, match="recurrent_kernel"):
        fr.load(tmp_path / "swapped.h5")


def test_shared_models(shared):
    r = np.random.default_rng(10)
    x = r.standard_normal((4, 1, 18)).astype("f4")
    path = shared / "models" / "earthpulse" / "lstm_model.h5"
    with nets.h5py.File(path) as file:
        text = json.loads(file.attrs["model_config"])
        layers = [getattr(L, one["class_name"]) for one in text["config"]["layers"]]
        made = keras.Sequential([keras.Input((1, 18)), *(kind.from_config({k: v for k, v in one["config"].items() if k not in ("batch_input_shape", "time_major", "implementation", "dtype")
                                                                           and not k.endswith(("regularizer", "initializer"))})
                                                         for kind, one in zip(layers, text["config"]["layers"]) if one["class_name"] != "InputLayer")])  # fmt: skip
        group = file["model_weights"]
        made.set_weights([group[name][weight][()] for name in group.attrs["layer_names"] for weight in group[name].attrs["weight_names"]])
    close(fr.compile(fr.load(path))(x), nets.evaluated(made, x))
    for path in sorted((shared / "models" / "sleepecg").glob("*.keras")):
        model, x = keras.models.load_model(path, compile=False), r.standard_normal((3, 40, 36)).astype("f4")
        x[0, 25:], x[1, 3:9] = -1, -1
        close(fr.compile(fr.load(path))(x), nets.evaluated(model, x))


def test_verify_compares_with_keras(tmp_path, capsys):
    from fastrnn.cli.main import main

    model = randomise(keras.Sequential([keras.Input((None, 3)), L.GRU(4, return_sequences=True), L.Dense(2)]))
    model.save(tmp_path / "model.keras")
    assert main(["verify", str(tmp_path / "model.keras")]) == 0
    assert "keras" in capsys.readouterr().out
