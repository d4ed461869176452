"""Small .tflite files made by hand, by the places that the public schema gives to fields; the flatbuffers package writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import mutations
import numpy as np
import pytest

from fastrnn.converters.tflite_import.schema import BUILTIN, DTYPES

flatbuffers = pytest.importorskip("flatbuffers", reason="the files are written with flatbuffers")

CODES, TYPES = {name: code for code, name in BUILTIN.items()}, {name: code for code, name in DTYPES.items()}
TYPES |= {"variant": 14, "string": 5}
# Kinds of options that LiteRT wants to see named, by operator: the schema's BuiltinOptions.
OPTIONS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 2, "MAX_POOL_2D": 5, "AVERAGE_POOL_2D": 5, "RNN": 7, "FULLY_CONNECTED": 8, "SOFTMAX": 9, "CONCATENATION": 10, "ADD": 11, "L2_NORMALIZATION": 12,
           "LSTM": 14, "RESHAPE": 17, "MUL": 21, "GATHER": 23, "MEAN": 27, "SUM": 27, "REDUCE_MAX": 27, "REDUCE_MIN": 27, "REDUCE_PROD": 27, "REDUCE_ANY": 27, "REDUCE_ALL": 27, "SUB": 28,
           "DIV": 29, "SQUEEZE": 30, "UNIDIRECTIONAL_SEQUENCE_RNN": 31, "STRIDED_SLICE": 32, "SPLIT": 35, "CAST": 37, "ARG_MAX": 40, "SHAPE": 55, "ARG_MIN": 57, "PACK": 59, "UNPACK": 64,
           "BIDIRECTIONAL_SEQUENCE_LSTM": 69, "UNIDIRECTIONAL_SEQUENCE_LSTM": 71, "LEAKY_RELU": 75, "MIRROR_PAD": 77, "SPLIT_V": 79, "IF": 92, "WHILE": 93, "BATCH_MATMUL": 101, "CUMSUM": 102, "GELU": 116}  # fmt: skip
VERSIONS = {"BROADCAST_TO": 2}  # of operators that LiteRT does not know in their first
FORMS = {"b": "Int8", "B": "Uint8", "i": "Int32", "I": "Uint32", "f": "Float32", "Q": "Uint64"}


@dataclass
class Writer:
    """A subgraph that grows. tensors: name, dtype, shape, array, quantization (scale, zero point, axis), variable, signature."""

    tensors: list = field(default_factory=list)
    operators: list = field(default_factory=list)
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)

    def tensor(self, dtype, shape, array=None, scale=None, zero=0, axis=0, variable=False, signature=None, name=""):
        """One more; returns its number."""
        self.tensors.append((name or f"t{len(self.tensors)}", dtype, tuple(shape), array, scale, zero, axis, variable, signature))
        return len(self.tensors) - 1

    def input(self, shape, dtype="float32", **more):
        """One that is given."""
        self.inputs.append(self.tensor(dtype, shape, **more))
        return self.inputs[-1]

    def constant(self, array, **more):
        """One that is stored."""
        array = np.asarray(array)
        return self.tensor(str(array.dtype), array.shape, array, **more)

    def add(self, kind, inputs, *results, options=None):
        """An operator; results: (shape, dtype) or (shape, dtype, options of tensor). options: {place: (form, value)}. Returns their numbers, or the only one."""
        made = [self.tensor(r[1] if len(r) > 1 else "float32", r[0], **(r[2] if len(r) > 2 else {})) for r in results]
        self.operators.append((kind, list(inputs), made, options))
        return made[0] if len(made) == 1 else made


def _vector(builder, array, size) -> int:
    array = np.ascontiguousarray(array)
    builder.StartVector(size, len(array), 16 if size == 1 else size)
    data = array.tobytes()
    builder.head = builder.head - len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return builder.EndVector()


def _offsets(builder, offsets) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _table(builder, fields: dict) -> int:
    """fields: {place: (form, value)}; form "o" for what was written before."""
    builder.StartObject(max(fields, default=-1) + 1)
    for place, (form, value) in fields.items():
        if form == "o":
            builder.PrependUOffsetTRelativeSlot(place, value, 0)
        else:  # also where it is the default, so that it is there to be damaged
            builder.Prep({"b": 1, "B": 1, "i": 4, "I": 4, "f": 4, "Q": 8}[form], 0)
            getattr(builder, f"Prepend{FORMS[form]}")(value)
            builder.Slot(place)
    return builder.EndObject()


def write(*graphs: Writer, names=True) -> bytes:
    """The file. names: whether it has a signature."""
    builder = flatbuffers.Builder(1024)
    buffers, kinds, made = [_table(builder, {})], [], []
    for graph in graphs:
        tensors, operators = [], []
        for name, dtype, shape, array, scale, zero, axis, variable, signature in graph.tensors:
            buffer = 0
            if array is not None:
                data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
                buffer = len(buffers)
                buffers.append(_table(builder, {0: ("o", _vector(builder, data, 1))}))
            fields = {
                0: ("o", _vector(builder, np.int32(shape), 4)),
                1: ("b", TYPES[dtype]),
                2: ("I", buffer),
                3: ("o", builder.CreateString(name)),
                5: ("B", int(variable)),
            }
            if scale is not None:
                scales = np.atleast_1d(np.float32(scale))
                zeros = np.broadcast_to(np.int64(zero), scales.shape)
                fields[4] = "o", _table(builder, {2: ("o", _vector(builder, scales, 4)), 3: ("o", _vector(builder, zeros, 8)), 6: ("i", axis)})
            if signature is not None:
                fields[7] = "o", _vector(builder, np.int32(signature), 4)
            tensors.append(_table(builder, fields))
        for kind, inputs, outputs, options in graph.operators:
            if kind not in kinds:
                kinds.append(kind)
            fields = {0: ("I", kinds.index(kind)), 1: ("o", _vector(builder, np.int32(inputs), 4)), 2: ("o", _vector(builder, np.int32(outputs), 4))}
            if options is not None:
                options = {k: ("o", _vector(builder, np.int32(v), 4)) if form == "v" else (form, v) for k, (form, v) in options.items()}
                fields |= {3: ("B", OPTIONS[kind]), 4: ("o", _table(builder, options))}
            operators.append(_table(builder, fields))
        made.append(
            _table(
                builder,
                {
                    0: ("o", _offsets(builder, tensors)),
                    1: ("o", _vector(builder, np.int32(graph.inputs), 4)),
                    2: ("o", _vector(builder, np.int32(graph.outputs), 4)),
                    3: ("o", _offsets(builder, operators)),
                    4: ("o", builder.CreateString("main")),
                },
            )
        )
    codes = []
    for kind in kinds:
        code = CODES.get(kind, CODES["CUSTOM"])
        fields = {0: ("b", min(code, 127)), 2: ("i", VERSIONS.get(kind, 1)), 3: ("i", code)}
        if code == CODES["CUSTOM"]:
            fields[1] = "o", builder.CreateString(kind)
        codes.append(_table(builder, fields))
    root = {0: ("I", 3), 1: ("o", _offsets(builder, codes)), 2: ("o", _offsets(builder, made)), 4: ("o", _offsets(builder, buffers))}
    if names:
        maps = [
            _offsets(builder, [_table(builder, {0: ("o", builder.CreateString(f"{what}{k}")), 1: ("I", index)}) for k, index in enumerate(ends)])
            for what, ends in (("x", graphs[0].inputs), ("y", graphs[0].outputs))
        ]
        root[7] = (
            "o",
            _offsets(
                builder, [_table(builder, {0: ("o", maps[0]), 1: ("o", maps[1]), 2: ("o", builder.CreateString("serving_default")), 4: ("I", 0)})]
            ),
        )
    builder.Finish(_table(builder, root), b"TFL3")
    return bytes(builder.Output())


def lstm(
    w: Writer,
    x,
    T,
    I,
    H,
    B=1,
    clip=0.0,
    P=0,
    coupled=False,
    peepholes=False,
    time_major=False,
    act=4,
    seed=0,
    kind="UNIDIRECTIONAL_SEQUENCE_LSTM",
    norm=False,
    projection_clip=0.0,
    projection_bias=False,
):
    """An LSTM of random weights over x; returns its output."""
    n, inputs = P or H, {0: x} | direction(w, I, H, B, P, coupled, peepholes, seed, projection_bias)
    if norm:
        r = np.random.default_rng(seed + 1)
        inputs |= {k: w.constant(r.uniform(0.5, 1.5, H).astype("f4")) for k in range(20 + coupled, 24)}
    sequence = kind != "LSTM"
    options = {0: ("b", act), 1: ("f", clip), 2: ("f", projection_clip), 3: ("B" if sequence else "b", int(time_major and sequence))}
    return w.add(kind, [inputs.get(k, -1) for k in range(24)], (((T, B, n) if time_major else (B, T, n)) if sequence else (B, n),), options=options)


def direction(w: Writer, I, H, B=1, P=0, coupled=False, peepholes=False, seed=0, projection_bias=False, start=1, states=(18, 19)):
    """The inputs of one direction of an LSTM, by place."""
    r, n = np.random.default_rng(seed), P or H

    def weight(*shape):
        return w.constant(r.uniform(-0.5, 0.5, shape).astype("f4"))

    shapes = [(H, I)] * 4 + [(H, n)] * 4 + [(H,)] * 7 + [(P, H), (P,)]
    left_out = {0, 4, 8, 11} if coupled else set()
    left_out |= set() if peepholes else {8, 9, 10}
    left_out |= set() if P else {15}
    left_out |= set() if P and projection_bias else {16}
    inputs = {start + k: weight(*shape) for k, shape in enumerate(shapes) if k not in left_out}
    return inputs | {states[0]: w.tensor("float32", (B, n), variable=True), states[1]: w.tensor("float32", (B, H), variable=True)}


def bidirectional(
    w: Writer, x, T, I, H, B=1, clip=0.0, P=0, coupled=False, peepholes=False, time_major=False, act=4, merge=True, projection_clip=0.0
):
    """Two directions of random weights over x; returns the output, or both."""
    given = (I, H, B, P, coupled, peepholes)
    inputs = {0: x} | direction(w, *given, seed=0, states=(35, 36)) | direction(w, *given, seed=1, start=18, states=(37, 38))
    options = {0: ("b", act), 1: ("f", clip), 2: ("f", projection_clip), 3: ("B", int(merge)), 4: ("B", int(time_major))}
    n = P or H
    shapes = [((T, B, m) if time_major else (B, T, m),) for m in ((2 * n,) if merge else (n, n))]
    return w.add("BIDIRECTIONAL_SEQUENCE_LSTM", [inputs.get(k, -1) for k in range(48)], *shapes, options=options)


def rnn_file(**options) -> bytes:
    """An LSTM, its last steps, a layer of softmax."""
    w = Writer()
    x = w.input((1, 5, 3))
    y = lstm(w, x, 5, 3, 4, **options)
    last = w.add(
        "STRIDED_SLICE",
        [y, *(w.constant(np.int32(v)) for v in ([0, -1, 0], [0, 0, 0], [1, 1, 1]))],
        ((1, 4),),
        options={0: ("i", 5), 1: ("i", 5), 2: ("i", 0), 3: ("i", 0), 4: ("i", 2)},
    )
    y = w.add(
        "FULLY_CONNECTED",
        [last, w.constant(np.linspace(-1, 1, 8, dtype="f4").reshape(2, 4)), w.constant(np.float32([0.1, 0.2]))],
        ((1, 2),),
        options={0: ("b", 0), 1: ("b", 0), 2: ("B", 0)},
    )
    w.outputs = [w.add("SOFTMAX", [y], ((1, 2),), options={0: ("f", 1.0)})]
    return write(w)


def while_file(T=5, I=3, H=4, lists=True, B=1, signature=None) -> bytes:
    """An RNN spelled out in a WHILE: counters, a list that grows or a last state, weights outside."""
    r = np.random.default_rng(3)
    main, condition, body = Writer(), Writer(), Writer()
    x = main.input((T, B, I), signature=signature)
    zero, size = main.constant(np.int32(0)), main.constant(np.int32(T))
    h = main.add("FILL", [main.constant(np.int32([B, H])), main.constant(np.float32(0))], ((B, H),))
    carried, shapes = [zero, h, x], [((), "int32"), ((B, H), "float32"), ((T, B, I), "float32")]
    if lists:
        carried.append(main.add("FlexTensorListReserve", [main.constant(np.int32([B, H])), size], ((), "variant")))
        shapes.append(((), "variant"))
    for w in (condition, body):
        for shape, dtype in shapes:
            w.input(shape, dtype)
    condition.outputs = [condition.add("LESS", [0, condition.constant(np.int32(T))], ((), "bool"))]
    entry = body.add("GATHER", [2, 0], ((B, I),), options={0: ("i", 0), 1: ("i", 0)})
    a = body.add(
        "FULLY_CONNECTED",
        [entry, body.constant(r.uniform(-0.7, 0.7, (H, I)).astype("f4")), body.constant(r.uniform(-0.7, 0.7, H).astype("f4"))],
        ((B, H),),
        options={0: ("b", 0)},
    )
    b = body.add("FULLY_CONNECTED", [1, body.constant(r.uniform(-0.7, 0.7, (H, H)).astype("f4")), -1], ((B, H),), options={0: ("b", 0)})
    new = body.add("TANH", [body.add("ADD", [a, b], ((B, H),), options={0: ("b", 0)})], ((B, H),))
    later = body.add("ADD", [0, body.constant(np.int32(1))], ((), "int32"), options={0: ("b", 0)})
    body.outputs = [later, new, 2]
    if lists:
        body.outputs.append(body.add("FlexTensorListSetItem", [3, 0, new], ((), "variant")))
    results = main.add("WHILE", carried, *((s, d) for s, d in shapes), options={0: ("i", 1), 1: ("i", 2)})
    main.outputs = [results[1]]
    if lists:
        main.outputs.append(main.add("FlexTensorListStack", [results[3], main.constant(np.int32([B, H]))], ((T, B, H),)))
    return write(main, condition, body)


def quantized_file() -> bytes:
    """Bytes in and out: a convolution with a scale for each channel, a pool, a dense layer, softmax."""
    r, w = np.random.default_rng(4), Writer()
    x = w.input((1, 6, 6, 2), "int8", scale=0.02, zero=3)
    kernel = w.constant(r.integers(-127, 128, (3, 3, 3, 2)).astype("i1"), scale=[0.01, 0.02, 0.015])
    bias = w.constant(r.integers(-500, 500, 3).astype("i4"), scale=[0.0002, 0.0004, 0.0003])
    y = w.add(
        "CONV_2D",
        [x, kernel, bias],
        ((1, 6, 6, 3), "int8", {"scale": 0.05, "zero": -10}),
        options={0: ("b", 0), 1: ("i", 1), 2: ("i", 1), 3: ("b", 1), 4: ("i", 1), 5: ("i", 1)},
    )
    y = w.add(
        "MAX_POOL_2D",
        [y],
        ((1, 3, 3, 3), "int8", {"scale": 0.05, "zero": -10}),
        options={0: ("b", 1), 1: ("i", 2), 2: ("i", 2), 3: ("i", 2), 4: ("i", 2), 5: ("b", 0)},
    )
    y = w.add("RESHAPE", [y, w.constant(np.int32([1, 27]))], ((1, 27), "int8", {"scale": 0.05, "zero": -10}))
    y = w.add(
        "FULLY_CONNECTED",
        [y, w.constant(r.integers(-127, 128, (4, 27)).astype("i1"), scale=0.01), w.constant(r.integers(-900, 900, 4).astype("i4"), scale=0.0005)],
        ((1, 4), "int8", {"scale": 0.1, "zero": 5}),
        options={0: ("b", 0), 1: ("b", 0), 2: ("B", 0)},
    )
    w.outputs = [w.add("SOFTMAX", [y], ((1, 4), "int8", {"scale": 1 / 256, "zero": -128}), options={0: ("f", 1.0)})]
    return write(w)


@cache
def tflite_seeds() -> dict[str, bytes]:
    """Whole files of each kind."""
    w = Writer()
    w.outputs = [w.add("ADD", [w.input((2, 3)), w.constant(np.float32([1, 2, 3]))], ((2, 3),), options={0: ("b", 1)})]
    return {"small": write(w, names=False), "lstm": rnn_file(), "projected": rnn_file_of_projection(), "both": both_file(), "while": while_file(), "quantized": quantized_file()}  # fmt: skip


def rnn_file_of_projection() -> bytes:
    """A time-major LSTM with peepholes and a projection, and an RNN behind."""
    w = Writer()
    x = w.input((5, 2, 3))
    y = lstm(w, x, 5, 3, 4, 2, P=2, peepholes=True, time_major=True)
    weights = [w.constant(np.random.default_rng(5).uniform(-0.5, 0.5, s).astype("f4")) for s in ((3, 2), (3, 3), (3,))]
    w.outputs = [w.add("UNIDIRECTIONAL_SEQUENCE_RNN", [y, *weights, w.tensor("float32", (2, 3), variable=True)], ((5, 2, 3),), options={0: ("B", 1), 1: ("b", 4), 2: ("B", 0)})]  # fmt: skip
    return write(w, names=False)


def both_file() -> bytes:
    """An LSTM of layer norms and a clipped projection, and one in both directions behind."""
    w = Writer()
    y = lstm(w, w.input((2, 5, 3)), 5, 3, 4, 2, P=2, peepholes=True, norm=True, projection_clip=0.5, projection_bias=True)
    w.outputs = [bidirectional(w, y, 5, 2, 3, 2, merge=False)[1]]
    return write(w, names=False)


def mutate_tflite(random, data: bytes) -> bytes:
    """A number of the file changed that looks like an offset, a count or a field, which weights do not."""
    data = bytearray(data)
    for _ in range(50):
        size = int(mutations.one(random, (1, 2, 2, 4, 4)))
        at = int(random.integers(0, len(data) - size + 1)) // size * size
        number = int.from_bytes(data[at : at + size], "little", signed=True)
        if 0 != abs(number) < len(data):
            break
    data[at : at + size] = (mutations.near(random, number) % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(data)


def condition_of(kind: str, index: int) -> tuple[Writer, ...]:
    """A WHILE or IF whose subgraphs are those of this number, the second of which calls it again."""
    graphs = [Writer(), Writer()]
    for w in graphs:
        inputs = [w.input((2,))] if kind == "WHILE" else [w.input((), "bool"), w.input((2,))]
        w.outputs = [w.add(kind, inputs, ((2,),), options={0: ("i", index), 1: ("i", index)})]
    if kind == "IF":
        graphs[1].inputs = graphs[1].inputs[1:]
    return tuple(graphs)
