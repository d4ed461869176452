"""Keras models drawn at random from the layers that fastrnn reads, their weights random too, and what they compute. Keras runs on torch."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="needs keras (pip install keras)")
h5py = pytest.importorskip("h5py")
L = keras.layers

ACTIVATIONS = ("relu", "sigmoid", "tanh", "linear", "elu", "selu", "gelu", "silu", "softplus", "softsign", "exponential", "hard_sigmoid", "mish", "leaky_relu", "relu6", "softmax",
               "log_softmax", "hard_silu", "celu", "hard_tanh", "log_sigmoid", "tanh_shrink", "soft_shrink", "hard_shrink", "squareplus", "sparse_plus")  # fmt: skip
GATES = ("sigmoid", "hard_sigmoid", "tanh", "relu", "linear", "softsign", "gelu", "softmax")
CANDIDATES = ("tanh", "relu", "sigmoid", "linear", "elu", "softsign", "gelu", "selu")


class Draw:
    """A model and one batch for it. masked: whether steps of its input are left out."""

    def __init__(self, seed: int, keras2: bool = False):
        keras.backend.clear_session()
        self.r = r = np.random.default_rng(seed)
        self.keras2, self.masked, self.kinds = keras2, False, []
        self.T, self.B = int(r.integers(3, 9)), int(r.integers(1, 4))
        self.fixed = bool(r.random() < 0.4)
        steps = self.T if self.fixed else None
        if r.random() < 0.25:
            given = keras.Input((steps,), dtype="int32", name="ids")
            self.masked = bool(r.random() < 0.5)
            x = L.Embedding(7, int(r.integers(2, 6)), mask_zero=self.masked)(given)
            self.inputs = r.integers(0 if self.masked else 1, 7, (self.B, self.T)).astype(np.int32)
        else:
            F = int(r.integers(1, 6))
            given = keras.Input((steps, F), name="x")
            self.inputs, x = r.standard_normal((self.B, self.T, F)).astype(np.float32), given
            if r.random() < 0.35:
                self.masked = True
                x = L.Masking(mask_value=float(r.choice([0.0, -1.0])))(x)
                value = x._keras_history.operation.mask_value
                for row in range(self.B):
                    self.inputs[row, r.integers(0, self.T + 1) :] = value  # behind
                    self.inputs[row, r.random(self.T) < 0.2] = value  # and anywhere
        for _ in range(int(r.integers(1, 4))):
            x = self.sequence_layer(x)
        x = self.end(x)
        self.model = keras.Model(given, x)
        for w in self.model.weights:
            shape = tuple(w.shape)
            if w.dtype.startswith("float"):
                values = (
                    r.uniform(0.5, 1.5, shape)
                    if "variance" in w.path
                    else r.standard_normal(shape) * (0.5 / np.sqrt(max(shape[0], 1)) if len(shape) > 1 else 0.3)
                )
                w.assign(values.astype(np.float32))

    def pick(self, *choices):
        return choices[int(self.r.integers(len(choices)))]

    def flag(self, p: float = 0.5) -> bool:
        return bool(self.r.random() < p)

    def activation(self) -> str:
        usual = ("relu", "tanh", "sigmoid", "linear")
        return self.pick(*(usual if self.flag() else [a for a in ACTIVATIONS if not (self.keras2 and a == "hard_sigmoid")]))

    def cell_options(self, gru: bool, gated: bool = True) -> dict:
        usual = self.flag(0.6)
        options = {"activation": "tanh" if usual else self.pick(*CANDIDATES), "use_bias": self.flag(0.8)}
        if gated:
            options["recurrent_activation"] = self.pick("sigmoid", "tanh") if usual or self.keras2 else self.pick(*GATES)
        return options | ({"reset_after": self.flag()} if gru else {})

    def rnn(self, sequences: bool):
        kind = self.pick("LSTM", "GRU", "SimpleRNN", "RNN")
        self.kinds.append(kind)
        units = int(self.r.integers(1, 7))
        general = {
            "return_sequences": sequences,
            "go_backwards": self.flag(0.2),
            "unroll": False,
            "zero_output_for_mask": self.flag(0.2) and not self.keras2,
        }
        if kind == "RNN":
            cells = [
                self.pick(
                    lambda: L.LSTMCell(int(self.r.integers(1, 5)), **self.cell_options(False)),
                    lambda: L.GRUCell(int(self.r.integers(1, 5)), **self.cell_options(True)),
                    lambda: L.SimpleRNNCell(int(self.r.integers(1, 5)), **self.cell_options(False, False)),
                )()
                for _ in range(int(self.r.integers(1, 4)))
            ]
            return L.RNN(L.StackedRNNCells(cells) if len(cells) > 1 else cells[0], **general)
        return getattr(L, kind)(units, **self.cell_options(kind == "GRU", kind != "SimpleRNN"), **general)

    def recurrent(self, x, sequences: bool):
        layer = self.rnn(sequences)
        if self.flag(0.35) and not (self.keras2 and layer.__class__.__name__ == "RNN"):
            layer.go_backwards = False
            layer = L.Bidirectional(layer, merge_mode=self.pick("concat", "sum", "ave", "mul"))
            self.kinds.append("Bidirectional")
        return layer(x)

    def sequence_layer(self, x):
        """A layer from a sequence to a sequence of the same length, or nearly."""
        r, width = self.r, x.shape[-1]
        choice = self.pick(
            "recurrent",
            "recurrent",
            "recurrent",
            "dense",
            "conv",
            "separable",
            "depthwise",
            "norm",
            "activation",
            "dropout",
            "distributed",
            "residual",
            "attention",
            "heads",
            "nested",
            "pool",
            "concat",
            "pad",
        )
        if self.keras2 and choice in ("heads", "attention", "nested", "residual", "concat"):
            choice = "recurrent"
        self.kinds.append(choice)
        size = int(r.integers(1, 4))
        if choice == "recurrent":
            return self.recurrent(x, True)
        if choice == "dense":
            return L.Dense(int(r.integers(1, 6)), activation=self.activation(), use_bias=self.flag())(x)
        if choice == "conv":
            group = 2 if width % 2 == 0 and self.flag(0.3) else 1
            return L.Conv1D(
                2 * int(r.integers(1, 4)),
                size,
                padding=self.pick("same", "causal"),
                dilation_rate=self.pick(1, 2),
                groups=group,
                activation=self.activation(),
            )(x)
        if choice == "separable":
            return L.SeparableConv1D(int(r.integers(1, 5)), size, padding="same", depth_multiplier=self.pick(1, 2), activation=self.activation())(x)
        if choice == "depthwise":
            return L.DepthwiseConv1D(size, padding="same", depth_multiplier=self.pick(1, 2), activation=self.activation())(x)
        if choice == "norm":
            return self.pick(
                L.BatchNormalization(epsilon=1e-3, scale=self.flag(), center=self.flag()),
                L.LayerNormalization(scale=self.flag(), center=self.flag()),
                L.BatchNormalization(),
            )(x)
        if choice == "activation":
            slope = 0.2 if self.keras2 else float(r.uniform(0, 0.5))
            return self.pick(
                L.Activation(self.activation()),
                L.LeakyReLU(negative_slope=slope),
                L.ELU(0.7),
                L.PReLU(shared_axes=[1]),
                L.ReLU(max_value=1.5, negative_slope=0.1),
            )(x)
        if choice == "dropout":
            return self.pick(L.Dropout(0.3), L.SpatialDropout1D(0.3), L.GaussianNoise(0.1), L.GaussianDropout(0.2))(x)
        if choice == "distributed":
            return L.TimeDistributed(L.Dense(int(r.integers(1, 5)), activation=self.activation()))(x)
        if choice == "residual":
            return self.pick(L.Add(), L.Multiply(), L.Average(), L.Maximum(), L.Subtract())([x, L.Dense(width)(x)])
        if choice == "concat":
            return L.Concatenate()([x, L.Dense(2, activation="tanh")(x)])
        if choice == "attention":
            return self.pick(L.Attention(use_scale=self.flag()), L.AdditiveAttention(), L.Attention(score_mode="concat"))([x, x])
        if choice == "heads":
            if self.masked:  # what rows without any open score give depends on Keras's backend
                return x
            return L.MultiHeadAttention(int(r.integers(1, 3)), int(r.integers(1, 4)), use_bias=self.flag())(x, x, use_causal_mask=self.flag())
        if choice == "nested":
            inner = keras.Sequential([keras.Input((None, width)), L.Dense(3, activation="tanh"), L.BatchNormalization(), L.GRU(int(r.integers(1, 5)), return_sequences=True)])  # fmt: skip
            return inner(x)
        if choice == "pad":
            return L.Cropping1D((1, 0))(L.ZeroPadding1D((1, 2))(x))
        if self.masked or x.shape[1] is not None and x.shape[1] < 4:
            return x
        return self.pick(L.MaxPooling1D, L.AveragePooling1D)(2, strides=1, padding="same")(x)

    def end(self, x):
        choice = self.pick("sequence", "recurrent", "flatten", "pool", "repeat")
        self.kinds.append(choice)
        if choice == "recurrent":
            x = self.recurrent(x, False)
        elif choice == "flatten" and x.shape[1] is not None:
            x = L.Flatten()(x)
        elif choice == "pool":
            x = self.pick(L.GlobalMaxPooling1D(), L.GlobalAveragePooling1D() if not self.masked else L.GlobalMaxPooling1D())(x)
        elif choice == "repeat":
            x = L.GRU(3, return_sequences=True)(L.RepeatVector(3)(self.recurrent(x, False)))
        return L.Dense(int(self.r.integers(1, 4)), activation=self.pick("softmax", "sigmoid", "linear"))(x)

    def wanted(self) -> np.ndarray:
        """What Keras gives."""
        return evaluated(self.model, self.inputs)


def evaluated(model, inputs):
    """Keras's outputs as arrays."""
    import torch

    with torch.no_grad():
        made = model(inputs, training=False)
    flat = keras.tree.map_structure(lambda t: t.detach().cpu().numpy(), made)
    return keras.tree.flatten(flat) if isinstance(flat, (list, tuple)) else flat


# The form in which Keras 2 saves: another config, and names with ":0".


def keras2_layer(given: dict, inbound: bool) -> dict:
    """A layer's config as Keras 2 writes it."""
    config = {k: v for k, v in given["config"].items() if k not in ("quantization_config", "optional", "seed")}
    config["dtype"] = config["dtype"] if isinstance(config.get("dtype"), str) else "float32"
    if "batch_shape" in config:
        config["batch_input_shape"] = config.pop("batch_shape")
    if given["class_name"] in ("LSTM", "GRU", "SimpleRNN", "RNN"):
        config |= {"time_major": False, "implementation": 2}
        config.pop("zero_output_for_mask")
    if given["class_name"] == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    for name in ("layer", "backward_layer", "cell"):
        if isinstance(config.get(name), dict):
            config[name] = keras2_layer(config[name], False)
    if isinstance(config.get("cells"), list):
        config["cells"] = [keras2_layer(c, False) for c in config["cells"]]
    if given["class_name"] == "Bidirectional":
        config.pop("backward_layer")
    result = {"class_name": given["class_name"], "config": config}
    if inbound:
        calls = []
        for node in given["inbound_nodes"]:
            tensors = node["args"][0] if isinstance(node["args"][0], list) else [node["args"][0]]
            states = node["kwargs"].get("initial_state") or []  # which a layer of Keras 2 has behind its sequence
            tensors = [*tensors, *(states if isinstance(states, list) else [states])]
            calls.append([[*t["config"]["keras_history"], {}] for t in tensors])
        result |= {"name": config["name"], "inbound_nodes": calls}
    return result


def save_keras2(model, path, version: str = "2.11.0") -> None:
    """A model without operations, as Keras 2 saves .h5."""
    config = json.loads(model.to_json())["config"]
    masks = {"NotEqual", "Any", "LogicalOr"}
    layers = [keras2_layer(one, True) for one in config["layers"] if one["class_name"] not in masks]
    ends = {k: [config[k]] if isinstance(config[k][0], str) else config[k] for k in ("input_layers", "output_layers")}
    text = json.dumps({"class_name": "Functional", "config": {"name": config["name"], "layers": layers, **ends}})
    save_h5(
        path,
        text,
        {
            layer.name: [
                (w.path.split("/", 1)[-1] + ":0", w.value.detach().numpy()) for w in (*layer.trainable_weights, *layer.non_trainable_weights)
            ]
            for layer in model.layers
        },
        version,
    )


def save_h5(path, config: str, weights: dict, version: str = "2.11.0") -> None:
    """An .h5 file of Keras 2 by its config and its layers' weights."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"], file.attrs["model_config"] = version.encode(), b"tensorflow", config.encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            one = group.create_group(name)
            one.attrs["weight_names"] = [f"{name}/{k}/{w}".encode() for k, (w, _) in enumerate(arrays)]
            for k, (w, array) in enumerate(arrays):
                one.create_dataset(f"{name}/{k}/{w}", data=array)


def save_keras212(model, path, source) -> None:
    """A .keras file with its weights where tf.keras 2.12 has them."""
    import io

    with zipfile.ZipFile(source) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    data = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(data, "r+") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "model.weights.h5": data.getvalue()}.items():
            archive.writestr(name, content)
