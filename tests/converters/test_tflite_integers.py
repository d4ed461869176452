"""TensorFlow Lite's operators on integers with a scale: one step from LiteRT's at most."""

import numpy as np
import pytest
from litert import CONV, DEPTH, agree, ints, litert, load
from tflite_files import Writer, quantized_file, write

import fastrnn as fr

R = np.random.default_rng(0)


def draw(*shape, seed=1):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype("f4")


def test_integers_with_a_scale_are_one_step_off_at_most(tmp_path):
    session, r = fr.compile(load(quantized_file(), tmp_path)), np.random.default_rng(5)
    for _ in range(30):
        x = r.integers(-128, 128, (1, 6, 6, 2)).astype("i1")
        agree(session.run({"x0": x})["y0"], litert(quantized_file(), [x], 1)[0], steps=1)


def whole(*shape, dtype="i1", seed=6):
    """Drawn numbers of all of a dtype's range."""
    ends = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(max(ends.min, -(1 << 20)) + 1, min(ends.max, 1 << 20), shape).astype(dtype)


POOL = {0: ("b", 1), 1: ("i", 2), 2: ("i", 2), 3: ("i", 2), 4: ("i", 2), 5: ("b", 0)}
WEIGHED = [  # kind, x's shape, weights, axis of their scales, result, options
    ("FULLY_CONNECTED", (3, 7), whole(5, 7), 0, (3, 5), {0: ("b", 0)}),
    ("FULLY_CONNECTED", (3, 7), whole(5, 7), 0, (3, 5), {0: ("b", 1)}),
    ("CONV_2D", (1, 6, 5, 2), whole(4, 3, 2, 2), 0, (1, 3, 4, 4), CONV),
    ("DEPTHWISE_CONV_2D", (1, 6, 5, 2), whole(1, 3, 2, 2), 3, (1, 3, 2, 2), {**DEPTH, 3: ("i", 1)}),
]
PLAIN = [  # kind, how many inputs of one shape, other inputs, x's shape, result, options, the result's scale and zero point where it must be these
    *((kind, 2, (), (2, 5), (2, 5), {0: ("b", act)}, None) for kind in ("ADD", "SUB", "MUL") for act in (0, 1)),
    ("MAXIMUM", 2, (), (2, 5), (2, 5), None, "same"),
    ("LOGISTIC", 1, (), (2, 5), (2, 5), None, (1 / 256, -128)),
    ("TANH", 1, (), (2, 5), (2, 5), None, (1 / 128, 0)),
    ("SOFTMAX", 1, (), (2, 5), (2, 5), {0: ("f", 1.0)}, (1 / 256, -128)),
    ("RELU", 1, (), (2, 5), (2, 5), None, None),
    ("LEAKY_RELU", 1, (), (2, 5), (2, 5), {0: ("f", 0.3)}, None),
    ("HARD_SWISH", 1, (), (2, 5), (2, 5), None, None),
    ("MEAN", 1, (ints(1).reshape(1),), (2, 5), (2,), {0: ("B", 0)}, None),
    ("SUM", 1, (ints(1).reshape(1),), (2, 5), (2,), {0: ("B", 0)}, None),
    ("MAX_POOL_2D", 1, (), (1, 4, 6, 2), (1, 2, 3, 2), POOL, "same"),
    ("AVERAGE_POOL_2D", 1, (), (1, 4, 6, 2), (1, 2, 3, 2), POOL, "same"),
    ("TRANSPOSE", 1, (ints(1, 0),), (2, 5), (5, 2), None, "same"),
    ("CONCATENATION", 2, (), (2, 5), (2, 10), {0: ("i", -1), 1: ("b", 0)}, "same"),
    ("RESHAPE", 1, (ints(5, 2),), (2, 5), (5, 2), None, "same"),
    ("PAD", 1, (ints(1, 0, 0, 2).reshape(2, 2),), (2, 5), (3, 7), None, "same"),
    ("BATCH_MATMUL", 2, (), (2, 5, 5), (2, 5, 5), {0: ("B", 0), 1: ("B", 0)}, None),
]


def one_step(w, shape, count, dtype, tmp_path):
    """The file gives LiteRT's integers, one of them apart at most."""
    data = write(w)
    session, feed = fr.compile(load(data, tmp_path)), [whole(*shape, dtype=dtype, seed=k) for k in range(count)]
    agree(session.run({f"x{k}": a for k, a in enumerate(feed)})["y0"], litert(data, feed, 1)[0], steps=1)


@pytest.mark.parametrize("apart", [False, True], ids=["one scale", "by channel"])
@pytest.mark.parametrize("dtype,bias", [("int8", "i4"), ("int16", "i8")])
@pytest.mark.parametrize("kind,x,weights,axis,y,options", WEIGHED, ids=lambda v: v if isinstance(v, str) else "")
def test_products_of_integers(kind, x, weights, axis, y, options, dtype, bias, apart, tmp_path):
    w, steps = Writer(), 0.02 if dtype == "int8" else 1e-4
    n = weights.shape[axis]
    scales = np.linspace(0.005, 0.02, n) if apart else np.full(1, 0.01)
    stored = w.constant(weights, scale=[float(v) for v in scales], axis=axis)
    b = w.constant(whole(n, dtype=bias) // 400, scale=[float(v * steps) for v in scales])
    w.outputs = [w.add(kind, [w.input(x, dtype, scale=steps, zero=3 * (dtype == "int8")), stored, b], (y, dtype, {"scale": 4 * steps, "zero": -10 * (dtype == "int8")}), options=options)]  # fmt: skip
    one_step(w, x, 1, dtype, tmp_path)


@pytest.mark.parametrize("kind,count,others,x,y,options,result", PLAIN, ids=lambda v: v if isinstance(v, str) else "")
def test_other_operators_on_integers(kind, count, others, x, y, options, result, tmp_path):
    w, own = Writer(), (0.03, 3)
    scales = [own, own if result == "same" else (0.05, -7)][:count]
    scale, zero = own if result == "same" else result or (0.06, 9)
    given = [w.input(x, "int8", scale=s, zero=z) for s, z in scales]
    w.outputs = [w.add(kind, [*given, *map(w.constant, others)], (y, "int8", {"scale": scale, "zero": zero}), options=options)]
    one_step(w, x, count, "int8", tmp_path)


@pytest.mark.parametrize("dtype,zero", [("int8", 3), ("uint8", 130), ("int16", 0)])
def test_quantize_and_back(dtype, zero, tmp_path):
    w = Writer()
    x = w.input((2, 5))
    q = w.add("QUANTIZE", [x], ((2, 5), dtype, {"scale": 0.03, "zero": zero}))
    w.outputs = [q, w.add("DEQUANTIZE", [q], ((2, 5),))]
    data, given = write(w), 9 * draw(2, 5)
    for have, want in zip(fr.compile(load(data, tmp_path)).run({"x0": given}).values(), litert(data, [given], 2)):
        agree(have, want)
