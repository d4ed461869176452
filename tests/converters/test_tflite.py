"""TensorFlow Lite's files: each operator, LSTMs in all forms, WHILE and IF, integers with a scale; against LiteRT where it is installed, and real files."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from litert import CONV, DEPTH, agree, ints, litert, load
from tflite_files import BUILTIN, Writer, bidirectional, lstm, rnn_file, while_file, write

import fastrnn as fr
from fastrnn.converters.tflite_import.registry import OPERATORS

R = np.random.default_rng(0)
X, Y = (R.standard_normal((2, 3, 4)).astype("f4") for _ in range(2))
IMAGE, UP = R.standard_normal((1, 6, 5, 3)).astype("f4"), np.abs(X) + np.float32(0.2)
IDS, MANY = np.int32([[0, 2], [1, 2]]), np.int32([[7, -5, 3], [-8, 4, 9]])


def draw(*shape, seed=1):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype("f4")


@dataclass
class Op:
    """An operator over inputs, of which `free` are given and the others stored; gives: dtypes of its results; shape: as the file has it, which few operators read."""

    kind: str
    inputs: list
    options: dict | None = None
    gives: tuple = ("float32",)
    free: tuple = (0,)
    shape: tuple = (1,)

    def __str__(self):
        return f"{self.kind}-{'_'.join('x'.join(map(str, np.shape(a))) or 'scalar' for a in self.inputs)}-{'_'.join(str(v) for _, v in (self.options or {}).values())}"

    def file(self):
        w = Writer()
        inputs = [w.input(a.shape, str(a.dtype)) if k in self.free else -1 if a is None else w.constant(a) for k, a in enumerate(self.inputs)]
        made = w.add(self.kind, inputs, *((self.shape, dtype) for dtype in self.gives), options=self.options)
        w.outputs = made if isinstance(made, list) else [made]
        return write(w)

    @property
    def feed(self):
        return [self.inputs[k] for k in self.free]


FUSED = [{0: ("b", code)} for code in (0, 1, 2, 3)]
SLICED = dict.fromkeys(range(5), ("i", 0))
OPS = [
    *(Op(kind, [X, Y], options, free=(0, 1)) for kind in ("ADD", "SUB", "MUL", "DIV") for options in FUSED), Op("ADD", [X, Y[0, 0]], FUSED[0]),
    *(Op(kind, [MANY, ints(2, 3, -2)], FUSED[0], ("int32",)) for kind in ("ADD", "SUB", "MUL")), Op("DIV", [MANY, ints(2, 3, -2)], FUSED[0], ("int32",)),
    *(Op(kind, [X, Y], free=(0, 1)) for kind in ("MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")), Op("POW", [UP, np.float32(1.7)]), Op("PRELU", [X, draw(4)]),
    *(Op(kind, [X, UP]) for kind in ("FLOOR_DIV", "FLOOR_MOD")), *(Op(kind, [MANY, ints(2, 3, -2)], None, ("int32",)) for kind in ("FLOOR_DIV", "FLOOR_MOD")),
    *(Op(kind, [X, Y], None, ("bool",)) for kind in ("LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL", "NOT_EQUAL")),
    *(Op(kind, [X > 0, Y > 0], None, ("bool",)) for kind in ("LOGICAL_OR", "LOGICAL_AND")), Op("LOGICAL_NOT", [X > 0], None, ("bool",)),
    Op("ADD_N", [X, Y, X], free=(0, 1)),
    *(Op(kind, [X]) for kind in ("LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "EXP", "ABS", "NEG", "SIN", "COS", "FLOOR", "CEIL", "ROUND", "SIGN", "ELU", "SQUARE",
                                 "HARD_SWISH", "LOG_SOFTMAX")), *(Op(kind, [UP]) for kind in ("LOG", "SQRT", "RSQRT")),
    *(Op("GELU", [X], {0: ("B", k)}) for k in (0, 1)), Op("LEAKY_RELU", [X], {0: ("f", 0.3)}), *(Op("SOFTMAX", [X], {0: ("f", beta)}) for beta in (1.0, 0.5)),
    Op("L2_NORMALIZATION", [X[0]], {0: ("b", 0)}),
    *(Op(kind, [X, ints(0, 2)], {0: ("B", keep)}) for kind in ("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN") for keep in (0, 1)),
    *(Op(kind, [X > 0, ints(1)], {0: ("B", 0)}, ("bool",)) for kind in ("REDUCE_ANY", "REDUCE_ALL")),
    *(Op(kind, [X, ints(-1)], {0: ("b", 2)}, ("int32",)) for kind in ("ARG_MAX", "ARG_MIN")), *(Op("CUMSUM", [X, ints(1)], {0: ("B", e), 1: ("B", r)}) for e, r in ((0, 0), (1, 1))),
    Op("CAST", [X * 5], {0: ("b", 0), 1: ("b", 2)}, ("int32",)), Op("SELECT", [X > 0, X, Y], None, free=(0, 1, 2)), Op("SELECT_V2", [X > 0, X, np.float32(3)], None, free=(0, 1)),
    Op("SELECT", [np.array([True, False]), X, Y], None, free=(0, 1, 2)),
    Op("RESHAPE", [X, ints(4, -1)]), Op("RESHAPE", [X], {0: ("v", [6, 4])}), Op("TRANSPOSE", [X, ints(2, 0, 1)]), Op("SQUEEZE", [X[:1]], {0: ("v", [0])}), Op("SQUEEZE", [X[:1, :, :1]], {0: ("v", [])}),
    Op("EXPAND_DIMS", [X, ints(-1)]), Op("SHAPE", [X], {0: ("b", 2)}, ("int32",)), Op("RANK", [X], None, ("int32",)), Op("FILL", [ints(2, 3), np.float32(1.5)], None, free=(1,)),
    Op("ZEROS_LIKE", [X]), Op("BROADCAST_TO", [X, ints(5, 2, 3, 4)]), Op("RANGE", [ints(1), ints(9), ints(3)], None, ("int32",), free=()),
    Op("CONCATENATION", [X, Y], {0: ("i", -1), 1: ("b", 0)}, free=(0, 1)), *(Op("PACK", [X, Y], {0: ("i", 2), 1: ("i", axis)}, free=(0, 1)) for axis in (0, 2)),
    Op("UNPACK", [X], {0: ("i", 3), 1: ("i", 1)}, ("float32",) * 3), Op("SPLIT", [ints(2), X], {0: ("i", 2)}, ("float32",) * 2, free=(1,)),
    Op("SPLIT_V", [X, ints(1, -1), ints(2)], {0: ("i", 2)}, ("float32",) * 2), Op("GATHER", [X, ints(2, 0, 1)], {0: ("i", 1), 1: ("i", 0)}), Op("GATHER", [X, IDS], {0: ("i", 2), 1: ("i", 0)}, free=(0, 1)),
    Op("EMBEDDING_LOOKUP", [ints(2, 0, 1, 1), draw(3, 4)]), Op("TILE", [X, ints(1, 2, 3)]), Op("REVERSE_V2", [X, ints(1).reshape(1)]),
    Op("PAD", [X, ints(1, 0, 0, 2, 3, 1).reshape(3, 2)]), Op("PADV2", [X, ints(1, 0, 0, 2, 3, 1).reshape(3, 2), np.float32(2.5)]), Op("MIRROR_PAD", [X, ints(1, 0, 0, 2, 2, 1).reshape(3, 2)], {0: ("b", 0)}),
    Op("SLICE", [X, ints(0, 1, 2), ints(-1, 2, 1)], shape=(2, 2, 1)), Op("STRIDED_SLICE", [X, ints(0, 1, 3), ints(2, 3, 0), ints(1, 1, -2)], SLICED),
    Op("STRIDED_SLICE", [X, ints(0, -1, 0), ints(0, 0, 3), ints(1, 1, 1)], {**SLICED, 0: ("i", 5), 1: ("i", 1), 4: ("i", 2)}),
    Op("STRIDED_SLICE", [X, ints(0, 0, 1), ints(0, 0, 3), ints(1, 1, 1)], {**SLICED, 2: ("i", 1), 3: ("i", 2)}),
    Op("STRIDED_SLICE", [X, ints(1, 0, 0), ints(0, 0, 2), ints(1, 1, 2)], {**SLICED, 2: ("i", 2), 4: ("i", 1)}),
    *(Op("FULLY_CONNECTED", [X, draw(5, 4), draw(5)], {0: ("b", act), 1: ("b", 0), 2: ("B", keep)}) for act, keep in ((0, 0), (1, 1))), Op("FULLY_CONNECTED", [X[0], draw(5, 4), None], {0: ("b", 0)}),
    Op("FULLY_CONNECTED", [X[0], draw(5, 4)], {0: ("b", 0)}, free=(0, 1)),
    *(Op("BATCH_MATMUL", [X, np.ascontiguousarray(Y.swapaxes(1, 2)) if not adj else Y], {0: ("B", 0), 1: ("B", adj)}, free=(0, 1)) for adj in (0, 1)),
    Op("CONV_2D", [IMAGE, draw(4, 3, 2, 3), draw(4)], CONV), Op("CONV_2D", [IMAGE, draw(4, 3, 3, 3), draw(4)], {**CONV, 0: ("b", 0), 1: ("i", 1), 4: ("i", 2), 5: ("i", 2)}),
    Op("DEPTHWISE_CONV_2D", [IMAGE, draw(1, 3, 2, 6), draw(6)], {**DEPTH, 1: ("i", 2)}),
    *(Op(kind, [IMAGE], {0: ("b", padding), 1: ("i", 2), 2: ("i", 1), 3: ("i", 3), 4: ("i", 2), 5: ("b", 0)}) for kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D") for padding in (0, 1)),
]  # fmt: skip
ELSEWHERE = {"BIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "RNN", "WHILE", "IF", "QUANTIZE", "DEQUANTIZE"}  # fmt: skip


def test_every_converter_has_a_case():
    names = {name for name in OPERATORS if "TensorList" not in name}
    assert {op.kind for op in OPS} | ELSEWHERE == names <= set(BUILTIN.values())


@pytest.mark.parametrize("op", OPS, ids=str)
def test_operators_agree_with_litert(op, tmp_path):
    data = op.file()
    model = load(data, tmp_path)
    got = list(fr.compile(model).run(dict(zip(model.input_names, op.feed))).values())
    for have, want in zip(got, litert(data, op.feed, len(got)), strict=True):
        agree(have, want)


LSTMS = [
    {"clip": c, "P": p, "coupled": k, "peepholes": e, "time_major": t, "act": a}
    for c, p, k, e, t, a in itertools.product((0.0, 0.3), (0, 2), (False, True), (False, True), (False, True), (4, 1))
]
LSTMS += [
    {
        "clip": c,
        "P": p,
        "coupled": k,
        "peepholes": e,
        "time_major": t,
        "act": 4,
        "norm": n,
        "projection_clip": 0.2 * bool(p),
        "projection_bias": bool(p),
    }
    for c, p, k, e, t, n in itertools.product((0.0, 0.3), (0, 2), (False, True), (False, True), (False, True), (False, True))
    if p or n
]


def started(model, given):
    """The inputs with zeros for states that must be given."""
    return given | {
        v.name: np.zeros([2 if isinstance(d, str) else d for d in v.shape], v.dtype) for v in model.inputs if v.name not in given and not v.optional
    }


def run_twice(data, x, tmp_path, oracle=None):
    """What a model of the file gives for x from its start, and then from the states that it ended with; each held against LiteRT, whose variables stay from call to call.
    oracle: a file of LiteRT's for the same, its outputs side by side."""
    session = fr.compile(load(data, tmp_path))
    got = session.run(started(session.model, {"x0": x}))
    again = session.run({"x0": x} | {s.input: got[s.output] for s in session.model.states})
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(model_content=oracle or data)
    interpreter.allocate_tensors()
    for have in (got, again):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        wanted = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
        for k, want in enumerate([np.concatenate(wanted, -1)] if oracle else wanted):
            agree(have[f"y{k}"], want)


@pytest.mark.parametrize("kind", ["UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM"])
@pytest.mark.parametrize("options", LSTMS, ids=lambda o: "_".join(str(v) for v in o.values()))
def test_lstms_agree_with_litert_whole_and_streamed(options, kind, tmp_path):
    T, B, step = 6, 2, kind == "LSTM"
    if step and options["time_major"]:
        pytest.skip("one step has no time")
    w = Writer()
    shape = (B, 3) if step else (T, B, 3) if options["time_major"] else (B, T, 3)
    w.outputs = [lstm(w, w.input(shape), T, 3, 5, B, kind=kind, **options)]
    run_twice(write(w), 2 * draw(*shape, seed=7), tmp_path)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("options", [o for o in LSTMS if "norm" not in o], ids=lambda o: "_".join(str(v) for v in o.values()))
def test_both_directions_agree_with_litert(options, merge, tmp_path):
    """Merged and batch-major, LiteRT leaves parts of its output unwritten; there it is asked for two outputs."""
    T, B = 6, 2
    shape = (T, B, 3) if options["time_major"] else (B, T, 3)

    def file(merge):
        w = Writer()
        made = bidirectional(w, w.input(shape), T, 3, 5, B, merge=merge, **options)
        w.outputs = [made] if merge else made
        return write(w)

    run_twice(file(merge), 2 * draw(*shape, seed=7), tmp_path, file(False) if merge and not options["time_major"] else None)


@pytest.mark.parametrize("step", [False, True])
def test_rnns_agree_with_litert(step, tmp_path):
    w = Writer()
    shape = (2, 3) if step else (2, 5, 3)
    x = w.input(shape)
    weights = [w.constant(draw(*s)) for s in ((4, 3), (4, 4), (4,))]
    options = {0: ("b", 4)} if step else {0: ("B", 0), 1: ("b", 4), 2: ("B", 0)}
    w.outputs = [w.add("RNN" if step else "UNIDIRECTIONAL_SEQUENCE_RNN", [x, *weights, w.tensor("float32", (2, 4), variable=True)], ((*shape[:-1], 4),), options=options)]  # fmt: skip
    data, given = write(w), draw(*shape, seed=3)
    agree(fr.compile(load(data, tmp_path)).run({"x0": given})["y0"], litert(data, [given], 1)[0])


def spelled(weights, x):
    """What while_file computes: (T, B, H)."""
    w, b, r = weights
    h, found = np.zeros((x.shape[1], len(b)), np.float32), []
    for step in x:
        h = np.tanh(step @ w.T + b + h @ r.T)
        found.append(h)
    return np.stack(found)


@pytest.mark.parametrize("B", [1, 3])
def test_an_rnn_in_a_while_becomes_a_layer(B, tmp_path):
    r = np.random.default_rng(3)
    weights = [r.uniform(-0.7, 0.7, s).astype("f4") for s in ((4, 3), 4, (4, 4))]
    x = draw(5, B, 3, seed=9)
    session = fr.compile(load(while_file(B=B), tmp_path))
    got = session.run({"x0": x})
    agree(got["y1"], spelled(weights, x))
    agree(got["y0"], spelled(weights, x)[-1])
    assert any(node.op == "RNN" for node in session.plan.model.nodes)
    data = while_file(lists=False, B=B)
    agree(fr.compile(load(data, tmp_path)).run({"x0": x})["y0"], litert(data, [x], 1)[0])


def condition_file():
    """x doubled where its sum is above 0, else x minus 1."""
    main, yes, no = Writer(), Writer(), Writer()
    x = main.input((2, 3))
    total = main.add("SUM", [x, main.constant(np.int32([0, 1]))], ((),), options={0: ("B", 0)})
    main.outputs = [
        main.add("IF", [main.add("GREATER", [total, main.constant(np.float32(0))], ((), "bool")), x], ((2, 3),), options={0: ("i", 1), 1: ("i", 2)})
    ]
    for w, kind, number in ((yes, "MUL", 2), (no, "SUB", 1)):
        w.outputs = [w.add(kind, [w.input((2, 3)), w.constant(np.float32(number))], ((2, 3),), options={0: ("b", 0)})]
    return write(main, yes, no)


def test_an_if_by_data(tmp_path):
    session = fr.compile(load(condition_file(), tmp_path))
    for x in (UP[0, :2, :3], -UP[0, :2, :3]):
        agree(session.run({"x0": x})["y0"], litert(condition_file(), [x], 1)[0])


def test_open_sizes_are_symbols(tmp_path):
    w = Writer()
    x = w.input((1, 1, 4), signature=[-1, -1, 4])
    w.outputs = [
        w.add("FULLY_CONNECTED", [x, w.constant(draw(5, 4)), w.constant(draw(5))], ((1, 1, 5),), options={0: ("b", 3), 1: ("b", 0), 2: ("B", 1)})
    ]
    data = write(w)
    model = load(data, tmp_path)
    assert model.inputs[0].shape == ("B", "x0_1", 4)
    for shape in ((1, 1, 4), (3, 7, 4)):
        given = draw(*shape)
        agree(fr.compile(model).run({"x0": given})["y0"], litert(data, [given], 1)[0])


def test_weights_of_16_bits_and_of_8_with_floats(tmp_path):
    """float16 through DEQUANTIZE is exact; of a product of floats with int8 weights LiteRT rounds the floats, too."""
    w = Writer()
    x, half = w.input((2, 4)), draw(5, 4).astype("f2")
    y = w.add("FULLY_CONNECTED", [x, w.add("DEQUANTIZE", [w.constant(half)], ((5, 4),)), -1], ((2, 5),), options={0: ("b", 0)})
    w.outputs = [y]
    given = draw(2, 4, seed=3)
    agree(fr.compile(load(write(w), tmp_path)).run({"x0": given})["y0"], litert(write(w), [given], 1)[0])
    w = Writer()
    stored = np.random.default_rng(2).integers(-127, 128, (5, 4)).astype("i1")
    w.outputs = [w.add("FULLY_CONNECTED", [w.input((2, 4)), w.constant(stored, scale=0.01), -1], ((2, 5),), options={0: ("b", 0)})]
    got = fr.compile(load(write(w), tmp_path)).run({"x0": given})["y0"]
    agree(got, given @ (stored.astype("f4") * np.float32(0.01)).T)
    agree(got, litert(write(w), [given], 1)[0], tolerance=1e-2)


def test_a_file_travels_as_fastrnns_own(tmp_path):
    model = load(rnn_file(clip=0.3), tmp_path)
    model.save(tmp_path / "m.safetensors")
    x = draw(1, 5, 3)
    assert np.array_equal(fr.compile(fr.load(tmp_path / "m.safetensors")).run({"x0": x})["y0"], fr.compile(model).run({"x0": x})["y0"])


def with_lstm(change):
    w = Writer()
    w.outputs = [lstm(w, w.input((1, 5, 3)), 5, 3, 4)]
    change(w)
    return write(w)


def changed(place, index):
    def change(w):
        w.operators[0][1][place] = index

    return change


def test_what_is_refused_by_name(tmp_path):
    def option(place, form, value):
        return lambda w: w.operators[0][3].update({place: (form, value)})

    def state(w):
        w.operators[0][1][18] = w.constant(draw(1, 4))

    for change, message in (
        (option(2, "f", -1.5), "proj_clip = -1.5"),
        (option(0, "b", 3), "fused activation 3"),
        (option(5, "B", 1), "diagonal"),
        (state, "no variable"),
        (changed(2, 0), "must be constants"),
    ):
        with pytest.raises((fr.UnsupportedModelError, fr.InvalidModelError), match=message):
            load(with_lstm(change), tmp_path)
    w = Writer()
    w.outputs = [bidirectional(w, w.input((1, 5, 3)), 5, 3, 4)]
    w.operators[0][1][39] = 0
    with pytest.raises(fr.UnsupportedModelError, match="second input"):
        load(write(w), tmp_path)
    for kind, message in (
        ("BIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN"),
        ("SVDF", "SVDF"),
        ("VAR_HANDLE", "variables"),
        ("RANDOM_UNIFORM", "random"),
        ("FlexErf", "FlexErf"),
        ("FlexTensorListStack", "no WHILE has filled"),
    ):
        with pytest.raises(fr.UnsupportedModelError, match=message):
            load(Op(kind, [X]).file(), tmp_path)


@pytest.mark.parametrize("name,steps", [("trained_lstm", 0), ("trained_lstm_int8", 1)])
def test_tflite_micros_digits_agree_with_litert(shared, name, steps, tmp_path):
    path = shared / f"models/tflm-mnist/{name}.tflite"
    session, r, seen = fr.compile(fr.load(path)), np.random.default_rng(6), set()
    for k in range(60):
        x = np.zeros((28, 28), np.float32)  # strokes, as digits are made of
        for _ in range(4):
            a, b = r.integers(3, 24, 2)
            if k % 2:
                x[a : a + 2, 4 : 4 + b] = r.uniform(0.5, 1)
            else:
                x[4 : 4 + b, a : a + 2] = r.uniform(0.5, 1)
        x = x[None] if not steps else np.round(x[None] * 255 - 128).astype("i1")
        got, want = session.run({"fixed_input": x})["sequential"], litert(path.read_bytes(), [x], 1)[0]
        agree(got, want, 2e-6, steps)
        seen.add(int(got.argmax()))
    assert len(seen) > 3


def test_earthpulse_as_lists_and_loops_is_its_onnx_file(shared):
    """LiteRT lacks TensorFlow's lists; the weights have 16 bits."""
    folder = shared / "models/earthpulse"
    session, other = fr.compile(fr.load(folder / "lstm_model_quantized.tflite")), fr.compile(fr.load(folder / "lstm_model.onnx"))
    x = np.random.default_rng(8).standard_normal((9, 18, 1)).astype("f4")
    np.testing.assert_allclose(session(x), other(x), rtol=0, atol=1e-3)
    assert sum(node.op == "LSTM" for node in session.plan.model.nodes) == 2
