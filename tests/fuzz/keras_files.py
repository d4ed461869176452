"""Small Keras files made by hand: both forms, Sequential and functional, with masks, states and merges. h5py writes HDF5, as Keras has it do."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from functools import cache

import mutations
import numpy as np


def layer(kind: str, name: str, calls=None, **config) -> dict:
    """A layer's config in Keras 3's form; calls: lists of (layer, tensor) that it is called on."""
    found = {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, "trainable": True, "dtype": "float32", **config},
        "registered_name": None,
    }
    if calls is not None:
        tensors = [
            [
                {"class_name": "__keras_tensor__", "config": {"shape": [None, None, 1], "dtype": "float32", "keras_history": [of, 0, k]}}
                for of, k in call
            ]
            for call in calls
        ]
        found |= {"name": name, "inbound_nodes": [{"args": [t if len(t) > 1 else t[0]], "kwargs": {}} for t in tensors]}
    return found


RNN = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True, "return_state": False, "go_backwards": False, "stateful": False, "unroll": False}  # fmt: skip
DENSE = {"units": 2, "activation": "softmax", "use_bias": True}


def inner(config: dict) -> dict:
    """A layer inside another."""
    return {"module": "keras.layers", "class_name": "GRU", "config": config, "registered_name": None}


def sequential() -> dict:
    """Masking, a bidirectional GRU, batch norm, a stateless LSTM, Dense."""
    gru = {"name": "gru", "trainable": True, "dtype": "float32", "units": 3, "return_sequences": True, "reset_after": True, **RNN}
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "net", "trainable": True, "layers": [
        layer("InputLayer", "input", batch_shape=[None, None, 3]), layer("Masking", "masking", mask_value=-1.0),
        layer("Bidirectional", "both", merge_mode="concat", layer=inner({**gru, "name": "forward_gru"}), backward_layer=inner({**gru, "name": "backward_gru", "go_backwards": True})),
        layer("BatchNormalization", "norm", axis=-1, epsilon=1e-3, scale=True, center=True), layer("LSTM", "lstm", units=4, return_sequences=False, **RNN), layer("Dense", "dense", **DENSE)]}}  # fmt: skip


def functional() -> dict:
    """An embedding, a convolution and an LSTM, added to what they were made of."""
    return {"module": "keras", "class_name": "Functional", "config": {"name": "net", "trainable": True, "layers": [
        layer("InputLayer", "ids", [], batch_shape=[None, 6]), layer("Embedding", "table", [[("ids", 0)]], input_dim=7, output_dim=4, mask_zero=False),
        layer("Conv1D", "conv", [[("table", 0)]], filters=4, kernel_size=[3], strides=[1], padding="causal", data_format="channels_last", dilation_rate=[1], groups=1, activation="relu", use_bias=True),
        layer("LSTM", "lstm", [[("conv", 0)]], units=4, return_sequences=True, **{**RNN, "return_state": True}), layer("Add", "add", [[("lstm", 0), ("table", 0)]]),
        layer("Flatten", "flat", [[("add", 0)]], data_format="channels_last"), layer("Dense", "dense", [[("flat", 0)]], **DENSE)],
        "input_layers": [["ids", 0, 0]], "output_layers": [["dense", 0, 0], ["lstm", 0, 2]]}}  # fmt: skip


GRU, LSTM_OF = {"cell": [(3, 9), (3, 9), (2, 9)]}, lambda n: {"cell": [(n, 16), (4, 16), (16,)]}
ARRAYS = {  # by path of attributes, as .keras has them
    "sequential": {
        "bidirectional/forward_layer": GRU,
        "bidirectional/backward_layer": GRU,
        "batch_normalization": {"": [(6,)] * 4},
        "lstm": LSTM_OF(6),
        "dense": {"": [(4, 2), (2,)]},
    },
    "functional": {"embedding": {"": [(7, 4)]}, "conv1d": {"": [(3, 4, 4), (4,)]}, "lstm": LSTM_OF(4), "dense": {"": [(24, 2), (2,)]}},
}
NAMES = {"sequential": {"bidirectional": "both", "batch_normalization": "norm"}, "functional": {"embedding": "table", "conv1d": "conv"}}
CONFIGS = {"sequential": sequential, "functional": functional}


def array(shape, seed: int) -> np.ndarray:
    """Random, positive."""
    return np.random.default_rng(seed).uniform(0.1, 0.5, shape).astype(np.float32)


def weights_h5(net: str, edit=None) -> bytes:
    """model.weights.h5 of a .keras file; edit: changes the open file."""
    import h5py

    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file.create_group("vars")
        for k, (path, places) in enumerate(ARRAYS[net].items()):
            for place, shapes in places.items():
                group = file.create_group("/".join(filter(None, ("layers", path, place, "vars"))))
                for j, shape in enumerate(shapes):
                    group.create_dataset(str(j), data=array(shape, 10 * k + j))
        if edit:
            edit(file)
    return data.getvalue()


def keras_zip(net: str = "sequential", config=None, edit=None, entries=None, weights: bytes | None = None) -> bytes:
    """A .keras file. config: changes the config in place, or gives another; entries: more of them, or None for fewer."""
    given = copy.deepcopy(CONFIGS[net]())
    result = config(given) if config else None
    content = {
        "metadata.json": json.dumps({"keras_version": "3.10.0"}).encode(),
        "config.json": (result if isinstance(result, str) else json.dumps(result or given)).encode(),
        "model.weights.h5": weights if weights is not None else weights_h5(net, edit),
        **(entries or {}),
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, part in content.items():
            if part is not None:
                archive.writestr(name, part)
    return data.getvalue()


def keras_h5(net: str = "sequential", config=None, edit=None) -> bytes:
    """An .h5 file; each layer's weights in one list."""
    import h5py

    given = copy.deepcopy(CONFIGS[net]())
    result = config(given) if config else None
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.11.0", b"tensorflow"
        file.attrs["model_config"] = result if isinstance(result, str) else json.dumps(result or given)
        group = file.create_group("model_weights")
        lists: dict[str, list] = {one["config"]["name"]: [] for one in CONFIGS[net]()["config"]["layers"]}
        for k, (path, places) in enumerate(ARRAYS[net].items()):
            name = NAMES[net].get(path.split("/")[0], path.split("/")[0])
            lists[name] += [array(shape, 10 * k + j) for shapes in places.values() for j, shape in enumerate(shapes)]
        group.attrs["layer_names"] = [name.encode() for name in lists]
        for name, arrays in lists.items():
            one = group.create_group(name)
            one.attrs["weight_names"] = [f"{name}/w{j}:0".encode() for j in range(len(arrays))]
            for j, a in enumerate(arrays):
                one.create_dataset(f"{name}/w{j}:0", data=a)
        if edit:
            edit(file)
    return data.getvalue()


@cache
def keras_seeds() -> dict[str, bytes]:
    """Zip archives."""
    return {net: keras_zip(net) for net in CONFIGS}


@cache
def h5_seeds() -> dict[str, bytes]:
    """HDF5 files."""
    return {net: keras_h5(net) for net in CONFIGS}


def damage_h5(random, data: bytes) -> bytes:
    """HDF5 changed where its structures lie: near a signature of a group, a heap or a header, or in the text of the config."""
    found = bytearray(data)
    marks = [at for mark in (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"\x89HDF") for at in range(len(data)) if data.startswith(mark, at)]
    for _ in range(int(random.integers(1, 5))):
        at = mutations.one(random, marks) + int(random.integers(0, 96)) if random.random() < 0.6 else int(random.integers(len(found)))
        if at < len(found):
            found[at] = int(random.choice([0, 1, 255, int(random.integers(256)), found[at] ^ 1 << int(random.integers(8))]))
    return bytes(found)


def mutate_keras(random, data: bytes) -> bytes:
    """An entry changed: the config as JSON, weights as HDF5."""

    def inside(name, content):
        return json.dumps(mutations.damage_json(random, json.loads(content))).encode() if name.endswith(".json") else damage_h5(random, content)

    return mutations.damage_zip(random, data, inside)


def mutate_h5(random, data: bytes) -> bytes:
    """The config changed as JSON within the space that it has, or the structures around it."""
    start = data.find(b'{"module"')
    if random.random() < 0.5 or start < 0:
        return damage_h5(random, data)
    end = data.find(b"\0", start)
    text = json.dumps(mutations.damage_json(random, json.loads(data[start:end]))).encode()
    room = end - start
    return data[:start] + text[:room].ljust(room) + data[end:]
