"""The doors that files come through: for each, files that are right, the mutations that fit its format, and what a caller would do with it."""

import io
import json
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mutations
import numpy as np
from keras_files import h5_seeds, keras_seeds, mutate_h5, mutate_keras
from tflite_files import mutate_tflite, tflite_seeds

import fastrnn as fr
from fastrnn.model.file import KEY
from fastrnn.model.stack import StackOptions, stack_model


@dataclass(frozen=True)
class Loader:
    """suffix of its files; seeds: whole files by name; mutate: (random, data) -> data, knowing the format; load: path -> nothing."""

    suffix: str
    seeds: Callable[[], dict[str, bytes]]
    mutate: Callable[[np.random.Generator, bytes], bytes]
    load: Callable[[Path], None]

    def damaged(self, random) -> bytes:
        """A damaged file: of one to three mutations, one in five of bytes."""
        seeds = self.seeds()
        data = seeds[mutations.one(random, sorted(seeds))]
        for _ in range(int(random.integers(1, 4))):
            try:
                data = mutations.damage_bytes(random, data) if random.random() < 0.2 else self.mutate(random, data)
            except Exception:  # noqa: BLE001  (what an earlier mutation broke cannot be taken apart)
                data = mutations.damage_bytes(random, data)
        return data


def run(model) -> None:
    """Compiles a model and calls it with small inputs, as its user would."""
    session = fr.compile(model)
    shapes = {v.name: tuple(d if isinstance(d, int) else 2 for d in v.shape) for v in session.model.inputs}
    if sum(float(np.prod(shape, dtype=np.float64)) for shape in shapes.values()) > 1e5:
        return  # an input that a caller would have to make
    specs = session.model.infer(shapes).values()
    if any(s.shape and float(np.prod([d for d in s.shape if isinstance(d, int)], dtype=np.float64)) > 1e6 for s in specs):
        return  # a model that is right and makes that much of a small input
    session.run({v.name: np.ones(shapes[v.name], v.dtype) for v in session.model.inputs})


def layers(path) -> None:
    """Reads a state dict and calls what is in it."""
    for layer in fr.from_state_dict(path).values():
        layer(np.ones((2, 1, layer.options.input_size), np.float32))


def states() -> dict[str, np.ndarray]:
    """Two modules' parameters under torch's names."""
    random = np.random.default_rng(0)
    shapes = StackOptions("lstm", 3, 4, 2, bidirectional=True, proj_size=2).shapes()
    cell = {"weight_ih": (9, 2), "weight_hh": (9, 3), "bias_ih": (9,), "bias_hh": (9,)}
    return {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in {
            **{f"encoder.{k}": v for k, v in shapes.items()},
            **{f"cell.{k}": v for k, v in cell.items()},
            "head.weight": (2, 3),
        }.items()
    }


@cache
def onnx_seeds() -> dict[str, bytes]:
    """Small models that between them have most kinds of fields."""
    from onnx_graphs import GOOD

    return {name: make().SerializeToString() for name, make in GOOD.items()}


def mutate_onnx(random, data: bytes) -> bytes:
    """One field of the message changed."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    mutations.damage_message(random, model)
    return model.SerializeToString()


@cache
def model_seeds() -> dict[str, bytes]:
    """fastrnn's own files: a stack, and whole graphs."""
    import tempfile

    o = StackOptions("lstm", 3, 5, 2, bidirectional=True, clip=0.5)
    random = np.random.default_rng(0)
    stack = stack_model(o, {n: random.uniform(-0.3, 0.3, s).astype(np.float32) for n, s in o.shapes().items()}, "net", with_lengths=True)
    found = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, model in {"stack": stack, **{name: fr.from_onnx(data) for name, data in onnx_seeds().items()}}.items():
            model.save(Path(folder) / "m.safetensors")
            found[name] = (Path(folder) / "m.safetensors").read_bytes()
    return found


def split_header(data: bytes) -> tuple[dict, bytes]:
    """A safetensors header, and what follows it."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_header(header, rest: bytes) -> bytes:
    """The file again."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def mutate_model(random, data: bytes) -> bytes:
    """One place of the graph changed, or of the header."""
    header, rest = split_header(data)
    if random.random() < 0.85:
        header["__metadata__"][KEY] = json.dumps(mutations.damage_json(random, json.loads(header["__metadata__"][KEY])))
    else:
        header = mutations.damage_json(random, header)
    return join_header(header, rest)


def mutate_safetensors(random, data: bytes) -> bytes:
    """One place of the header changed."""
    header, rest = split_header(data)
    return join_header(mutations.damage_json(random, header), rest)


@cache
def safetensors_seeds() -> dict[str, bytes]:
    """Float32, and float16 widened."""
    from safetensors.numpy import save

    return {"float32": save(states(), {"format": "pt"}), "float16": save({k: v.astype(np.float16) for k, v in states().items()})}


@cache
def npz_seeds() -> dict[str, bytes]:
    """Stored and compressed."""
    found = {}
    for name, save in (("stored", np.savez), ("compressed", np.savez_compressed)):
        file = io.BytesIO()
        save(file, **states())
        found[name] = file.getvalue()
    return found


@cache
def checkpoint_seeds() -> dict[str, bytes]:
    """Today's and the older format, a training checkpoint, 16-bit weights."""
    import torch

    tensors = {name: torch.from_numpy(a) for name, a in states().items()}
    training = {
        "epoch": 3,
        "state_dict": {f"module.{k}": v for k, v in tensors.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]},
    }
    module = torch.nn.Sequential(torch.nn.GRU(3, 4), torch.nn.Linear(4, 2)).bfloat16()
    found = {}
    for name, content, modern in (
        ("plain", tensors, True),
        ("legacy", tensors, False),
        ("training", training, True),
        ("bfloat16", module.state_dict(), True),
    ):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=modern)
        found[name] = file.getvalue()
    return found


def mutate_checkpoint(random, data: bytes) -> bytes:
    """A zip entry changed, the pickle at its opcodes."""
    inside = lambda name, content: mutations.damage_pickle(random, content) if name.endswith(".pkl") else mutations.damage_bytes(random, content)
    if data[:2] != b"PK":
        return mutations.damage_pickle(random, data)
    if random.random() < 0.6:  # the pickle, all else as it was
        return mutations.damage_zip(PickleOnly(random), data, inside)
    return mutations.damage_zip(random, data, inside)


class PickleOnly:
    """A generator whose first two choices are the first entry, data.pkl, and its content."""

    def __init__(self, random):
        self.random, self.forced = random, [0, 7]

    def integers(self, *arguments):
        """A forced choice, or the generator's."""
        return self.forced.pop(0) if self.forced else self.random.integers(*arguments)

    def __getattr__(self, name):
        return getattr(self.random, name)


def mutate_npz(random, data: bytes) -> bytes:
    """A zip entry changed, an array at its header."""
    return mutations.damage_zip(random, data, lambda name, content: mutations.damage_npy(random, content))


@cache
def program_seeds() -> dict[str, bytes]:
    """A GRU before a linear layer, and a decision on shapes."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = torch.nn.GRU(3, 4, batch_first=True), torch.nn.Linear(4, 2)

        def forward(self, x):
            return torch.softmax(self.head(self.gru(x)[0][:, -1]), dim=-1)

    found, x = {}, torch.zeros(2, 5, 3)
    for name, axes in (("fixed", None), ("dynamic", ({0: torch.export.Dim("B")},))):
        file = io.BytesIO()
        torch.export.save(torch.export.export(Network().eval(), (x,), dynamic_shapes=axes), file)
        found[name] = file.getvalue()
    return found


def mutate_program(random, data: bytes) -> bytes:
    """An entry changed: a description as JSON, example inputs as what torch.save wrote."""

    def inside(name, content):
        if name.endswith(".json"):
            return json.dumps(mutations.damage_json(random, json.loads(content))).encode()
        return mutate_checkpoint(random, content) if content[:2] == b"PK" else mutations.damage_bytes(random, content)

    return mutations.damage_zip(random, data, inside)


LOADERS = {
    "onnx": Loader(".onnx", onnx_seeds, mutate_onnx, lambda path: run(fr.load(path))),
    "model": Loader(".safetensors", model_seeds, mutate_model, lambda path: run(fr.load(path))),
    "checkpoint": Loader(".pt", checkpoint_seeds, mutate_checkpoint, layers),
    "safetensors": Loader(".safetensors", safetensors_seeds, mutate_safetensors, layers),
    "program": Loader(".pt2", program_seeds, mutate_program, lambda path: run(fr.load(path))),
    "keras": Loader(".keras", keras_seeds, mutate_keras, lambda path: run(fr.load(path))),
    "h5": Loader(".h5", h5_seeds, mutate_h5, lambda path: run(fr.load(path))),
    "tflite": Loader(".tflite", tflite_seeds, mutate_tflite, lambda path: run(fr.load(path))),
    "npz": Loader(".npz", npz_seeds, mutate_npz, layers),
}
