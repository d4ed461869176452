"""Convolutions of 3 x 3 taps, computed four neighbouring outputs at a time: as exact as taps one by one, and the same bits whatever is computed beside them. What networks of
them are pooled by."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.model import Model, Node, Value
from fastrnn.plan.weights.packed import LEAST_CHANNELS

random = np.random.default_rng(7)
SIZES = {  # lines and columns of y, channels, units
    "even": ((8, 12), 16, 32),
    "odd lines": ((7, 10), 32, 16),
    "odd columns": ((6, 13), 24, 40),
    "odd": ((5, 9), 33, 70),
    "one": ((1, 1), 17, 19),
    "a line": ((1, 30), 16, 64),
    "a column": ((31, 1), 20, 129),
    "wider than what is done at once": ((3, 161), 16, 16),
    "many channels": ((4, 6), 260, 48),
    "lines that share a share": ((17, 5), 48, 96),
}


def draw(*shape) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def model_of(x, w, bias=None, pads=(0, 0, 0, 0), behind=(), more=None, shape=None, **others) -> Model:
    """A convolution, then nodes (op, inputs, output, attributes), the last of which makes y."""
    weights = {"w": w, **({} if bias is None else {"b": bias})}
    nodes = [Node("Conv", "conv", ("x", *weights), ("p" if behind else "y",), {"pads": list(pads)})]
    nodes += [Node(op, f"after {k}", tuple(given), (made,), attributes) for k, (op, given, made, attributes) in enumerate(behind)]
    inputs = {"x": shape or x.shape, **{name: a.shape for name, a in (more or {}).items()}}
    return Model(tuple(Value(name, "float32", size) for name, size in inputs.items()), ("y",), tuple(nodes), {**weights, **others})


def exact(x, w, bias=None) -> np.ndarray:
    """In float64, of an x inside its padding."""
    lines, columns = x.shape[2] - 2, x.shape[3] - 2
    y = np.zeros((len(x), len(w), lines, columns)) + (0 if bias is None else bias.astype(np.float64)[:, None, None])
    for i in range(3):
        for j in range(3):
            y += np.einsum("oc,nchw->nohw", w[:, :, i, j].astype(np.float64), x[:, :, i : i + lines, j : j + columns].astype(np.float64))
    return y


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("case", SIZES)
def test_as_exact_as_taps_one_by_one_and_each_output_its_own(case, biased, images, monkeypatch):
    """Every image, line and column by itself, on every instruction set, on threads."""
    (lines, columns), channels, units = SIZES[case]
    x, w, bias = draw(images, channels, lines + 2, columns + 2), draw(units, channels, 3, 3), draw(units) if biased else None
    want, mass = exact(x, w, bias), exact(abs(x), abs(w), None if bias is None else abs(bias))
    whole = None
    for name in isa.supported():
        monkeypatch.setenv("FASTRNN_ISA", name)
        session = fr.compile(model_of(x, w, bias))
        assert "winograd" in session.explain()
        y = session.run({"x": x})["y"]
        assert (abs(y - want) <= 2.0**-22 * mass).all(), (name, (abs(y - want) / mass).max())
        whole = y if whole is None else whole
        assert y.tobytes() == whole.tobytes(), name
        assert fr.compile(model_of(x, w, bias), threads=2).run({"x": x})["y"].tobytes() == whole.tobytes(), name
        for k in range(images):
            one = x[k : k + 1]
            assert fr.compile(model_of(one, w, bias)).run({"x": one})["y"].tobytes() == whole[k : k + 1].tobytes(), name
        for less in ((lines + 1) // 2, lines - 1):  # the first lines alone
            if less:
                part = np.ascontiguousarray(x[:, :, : less + 2])
                assert fr.compile(model_of(part, w, bias)).run({"x": part})["y"].tobytes() == np.ascontiguousarray(whole[:, :, :less]).tobytes(), name


def test_an_output_takes_from_what_its_taps_meet_alone(each_isa):
    """A NaN and an infinity anywhere change no bit of the others."""
    x, w = draw(2, 16, 9, 10), draw(17, 16, 3, 3)
    session = fr.compile(model_of(x, w))
    clean = session.run({"x": x})["y"]
    for value in (np.nan, np.inf, -np.inf):
        for _ in range(12):
            image, channel, line, column = (int(random.integers(n)) for n in x.shape)
            touched = x.copy()
            touched[image, channel, line, column] = value
            y = session.run({"x": touched})["y"]
            met = np.zeros(y.shape, bool)
            met[image, :, max(0, line - 2) : line + 1, max(0, column - 2) : column + 1] = True
            assert np.array_equal(y[~met], clean[~met]) and not np.isfinite(y[met]).any()


BEHIND = {
    "silu": ([("Sigmoid", ["p"], "s", {}), ("Mul", ["p", "s"], "y", {})], False),
    "residual": ([("Add", ["p", "r"], "a", {}), ("Relu", ["a"], "y", {})], True),
    "pooled": ([("MaxPool", ["p"], "y", {"kernel_shape": [2, 2], "strides": [2, 2]})], False),
    "pooled by lines": ([("Relu", ["p"], "q", {}), ("AveragePool", ["q"], "y", {"kernel_shape": [2, 1], "strides": [2, 1]})], False),
    "pooled by four lines": ([("Add", ["p", "r"], "q", {}), ("MaxPool", ["q"], "y", {"kernel_shape": [4, 3], "strides": [4, 3]})], True),
    "pooled by three lines": ([("MaxPool", ["p"], "y", {"kernel_shape": [3, 3], "strides": [3, 3]})], False),
    "pooled by columns": ([("MaxPool", ["p"], "y", {"kernel_shape": [1, 2], "strides": [1, 2]})], False),
    "pooled with an overlap": ([("MaxPool", ["p"], "y", {"kernel_shape": [3, 3], "strides": [2, 2]})], False),
}


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (2, 0, 1, 2)])
@pytest.mark.parametrize("what", BEHIND)
def test_what_follows(what, pads, images, each_isa):
    behind, residual = BEHIND[what]
    x, w, bias = draw(images, 18, 13, 14), draw(35, 18, 3, 3) / 10, draw(35)
    more = {"r": draw(images, 35, 11 + pads[0] + pads[2], 12 + pads[1] + pads[3])} if residual else {}
    model = model_of(x, w, bias, pads, behind, more)
    session, given = fr.compile(model), {"x": x, **more}
    y = session.run(given)["y"]
    np.testing.assert_allclose(y, fr.compile(model, backend="reference").run(given)["y"], rtol=1e-5, atol=1e-5)
    assert fr.compile(model, threads=3).run(given)["y"].tobytes() == y.tobytes()
    apart = "pool_" in session.explain({name: a.shape for name, a in given.items()})
    assert apart == (what in ("pooled by three lines", "pooled by columns", "pooled with an overlap"))


def test_any_size_at_once(each_isa):
    """One program for all batches and sizes."""
    w, bias = draw(32, 16, 3, 3) / 10, draw(32)
    second = draw(16, 32, 3, 3) / 10
    behind = [("Relu", ["p"], "q", {}), ("Conv", ["q", "v"], "y", {"pads": [1, 1, 1, 1]})]
    session = fr.compile(model_of(None, w, bias, (1, 1, 1, 1), behind, shape=("N", 16, "H", "W"), v=second))
    for n, h, w_ in ((2, 9, 14), (3, 8, 7), (5, 4, 30), (2, 21, 6)):
        x = draw(n, 16, h, w_)
        y = session.run({"x": x})["y"]
        alone = [session.run({"x": x[k : k + 1]})["y"] for k in range(n)]
        assert y.tobytes() == np.concatenate(alone).tobytes()
        inside = np.maximum(exact(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), w, bias), 0)
        np.testing.assert_allclose(y, exact(np.pad(inside, ((0, 0), (0, 0), (1, 1), (1, 1))), second), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("what", ["stride", "dilation", "groups", "few channels", "few units", "5 x 3", "bfloat16"])
def test_others_are_computed_as_before(what):
    w = {"few channels": draw(32, LEAST_CHANNELS - 1, 3, 3), "few units": draw(LEAST_CHANNELS - 1, 32, 3, 3), "5 x 3": draw(32, 32, 5, 3), "groups": draw(32, 16, 3, 3)}.get(what, draw(32, 32, 3, 3))  # fmt: skip
    x = draw(2, w.shape[1] * (2 if what == "groups" else 1), 9, 11)
    attributes = {"stride": {"strides": [1, 2]}, "dilation": {"dilations": [2, 1]}, "groups": {"group": 2}}.get(what, {})
    model = Model((Value("x", "float32", x.shape),), ("y",), (Node("Conv", "conv", ("x", "w"), ("y",), attributes),), {"w": w})
    session = fr.compile(model, precision="bfloat16" if what == "bfloat16" else "float32")
    assert "winograd" not in session.explain() and "dense" in session.explain()
    want = fr.compile(model, backend="reference").run({"x": x})["y"]
    np.testing.assert_allclose(session.run({"x": x})["y"], want, rtol=0.05 if what == "bfloat16" else 1e-5, atol=0.5 if what == "bfloat16" else 1e-4)


def test_not_where_a_stream_may_begin_between_its_outputs(each_isa):
    """A model that streams along one of the axes has the same bits in pieces of any length as at once."""
    w = draw(16, 16, 3, 3) / 10
    nodes = (
        Node("Conv", "conv", ("x", "w"), ("p",), {"pads": [2, 1, 0, 1]}),  # (N, C, time, frequency), causal
        Node("Relu", "relu", ("p",), ("y",)),
    )
    session = fr.compile(Model((Value("x", "float32", (1, 16, "T", 8)),), ("y",), nodes, {"w": w}))
    assert "winograd" not in session.explain()
    x = draw(1, 16, 11, 8)
    whole, stream, at = session.run({"x": x})["y"], session.stream(), 0
    for n in (1, 3, 2, 5):
        y = stream.push(np.ascontiguousarray(np.moveaxis(x[:, :, at : at + n], 2, 0)))
        assert y.tobytes() == np.ascontiguousarray(np.moveaxis(whole[:, :, at : at + n], 2, 0)).tobytes()
        at += n


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [1, 2, 3], "strides": [1, 2, 3]},
        {"kernel_shape": [1, 3, 3], "pads": [0, 1, 1, 0, 1, 1], "strides": [1, 2, 1]},
        {"kernel_shape": [1, 3, 2], "ceil_mode": 1, "strides": [1, 2, 2]},
        {"kernel_shape": [2, 3, 2]},
    ],
)
def test_volumes_of_one_channel_are_pooled_as_images_of_many(op, window):
    x = draw(2, 1, 6, 7, 9)
    model = Model((Value("x", "float32", x.shape),), ("y",), (Node(op, "pool", ("x",), ("y",), window),), {})
    session = fr.compile(model)
    assert ("Reshape" in session.explain()) == (window["kernel_shape"][0] == 1)
    np.testing.assert_allclose(session.run({"x": x})["y"], fr.compile(model, backend="reference").run({"x": x})["y"], rtol=1e-6, atol=1e-6)
