"""Weights that a call brings, as inputs or computed: the bits of the same weights as constants, by the same kernels."""

import threading
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fastrnn as fr
from fastrnn.cells import gallery
from fastrnn.model import Value
from fastrnn.model.recurrent import RECURRENT, WEIGHT_INPUTS
from fastrnn.testing import OPTIONS, TRAP_SHAPES, Case

SHAPES = ("tail", "I_ne_H", "whole")
FEW = ("default", "before", "all", "bidirectional")  # of the options, on every instruction set and backend


def freed(model):
    """The model with the weights of its recurrent nodes as inputs, and those."""
    names = dict.fromkeys(node.input(k) for node in model.nodes if node.op in RECURRENT for k in WEIGHT_INPUTS if node.input(k))
    given = {name: model.weights[name] for name in names}
    inputs = *model.inputs, *(Value(name, "float32", a.shape) for name, a in given.items())
    return replace(model, inputs=inputs, weights={n: a for n, a in model.weights.items() if n not in given}), given


def same(got, want):
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[name], want[name]) for name in want)


def as_constants(kind, option, shape):
    """A layer gives what it gives with stored weights; with others; and with those of before again."""
    case = Case(kind, TRAP_SHAPES[shape], OPTIONS[kind][option])
    model = case.layer("reference").to_model()
    free, weights = freed(model)
    feed = {model.input_names[0]: case.x} | {f"{n}0": s for n, s in zip("hc", case.states)}
    session = fr.compile(free)
    same(session.run(feed | weights), fr.compile(model).run(feed))
    others = {name: a + np.float32(0.5) for name, a in weights.items()}
    changed = replace(model, weights={**model.weights, **others})
    same(session.run(feed | others), fr.compile(changed).run(feed))
    same(session.run(feed | weights), fr.compile(free, constants=weights).run(feed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", OPTIONS)
def test_every_option_of_a_layer(kind, shape):
    for option in OPTIONS[kind]:
        as_constants(kind, option, shape)


def test_every_backend(each_backend):
    for kind, options in OPTIONS.items():
        for option in sorted(options.keys() & set(FEW)):
            as_constants(kind, option, "tail")


def test_a_cell_of_ones_own():
    model = fr.Recurrent(gallery.mgu, 5, 21, bidirectional=True).to_model()
    free, weights = freed(model)
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    same(fr.compile(free).run({"x": x} | weights), fr.compile(model).run({"x": x}))


def test_other_sizes_of_one_session():
    """H is tied to what a program was made for; T and B are not."""
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], "lstm")
    shapes = {"x": ["T", "B", "I"], "w": [1, "G", "I"], "r": [1, "G", "H"], "b": [1, "N"]}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 1, "B", "H"])])
    model = fr.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    session, r = fr.compile(model), np.random.default_rng(1)
    for T, B, I, H in ((3, 2, 5, 7), (6, 4, 5, 7), (3, 2, 4, 16), (1, 1, 2, 1), (6, 4, 5, 7)):
        feed = {n: r.standard_normal(s).astype("f4") for n, s in (("x", (T, B, I)), ("w", (1, 4 * H, I)), ("r", (1, 4 * H, H)), ("b", (1, 8 * H)))}
        weights = {n: a for n, a in feed.items() if n != "x"}
        same(session.run(feed), fr.compile(model, constants=weights).run({"x": feed["x"]}))
    with pytest.raises(fr.ShapeError, match="'lstm'.*B must have shape"):
        session.run({**feed, "b": feed["b"][:, :-1]})


def convolution(op, w_shape, **attributes):
    """A model whose weights are half of an input, and the same with them stored."""

    def made(stored):
        nodes = [] if stored is not None else [helper.make_node("Mul", ["v", "half"], ["w"])]
        nodes += [helper.make_node(op, ["x", "w", "b"], ["c"], "conv", **attributes), helper.make_node("Relu", ["c"], ["y"], "relu")]
        rank = len(w_shape)
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [f"x{k}" for k in range(rank)])]
        inputs += [helper.make_tensor_value_info("v", TensorProto.FLOAT, w_shape)] if stored is None else []
        units = w_shape[0] if op == "Conv" else w_shape[1] * attributes.get("group", 1)
        tensors = {"half": np.float32(0.5), "b": np.linspace(-1, 1, units, dtype=np.float32)} | ({} if stored is None else {"w": stored})
        graph = helper.make_graph(
            nodes,
            "g",
            inputs,
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
            [onnx.numpy_helper.from_array(a, n) for n, a in tensors.items()],
        )
        return fr.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))

    return made


@pytest.mark.parametrize(
    "op,w_shape,channels,attributes",
    [
        ("Conv", (6, 4, 3), 4, {}),
        ("Conv", (6, 2, 3, 3), 4, {"group": 2, "pads": [1, 0, 1, 2]}),
        ("Conv", (4, 1, 3, 2), 4, {"group": 4, "strides": [2, 1]}),
        ("Conv", (5, 3, 2, 2), 3, {"dilations": [2, 1], "auto_pad": "SAME_UPPER"}),
        ("ConvTranspose", (4, 5, 3), 4, {}),
        ("ConvTranspose", (4, 3, 3, 3), 4, {"group": 2, "strides": [2, 3]}),
        ("ConvTranspose", (3, 2, 4), 3, {"dilations": [2]}),
    ],
)
def test_convolutions(op, w_shape, channels, attributes):
    r, made = np.random.default_rng(2), convolution(op, w_shape, **attributes)
    x, v = (r.standard_normal(s).astype("f4") for s in ((2, channels, *(9,) * (len(w_shape) - 2)), w_shape))
    session = fr.compile(made(None))
    want = fr.compile(made(np.float32(0.5) * v)).run({"x": x})
    for _ in range(2):
        same(session.run({"x": x, "v": v}), want)
    assert "NumPy" not in session.explain({"x": x.shape, "v": v.shape}) and "packed while it runs" in session.explain()


def test_what_a_call_computes_from_its_data():
    """A layer whose weights follow from its input, called by several threads at once."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one"], ["first"]),
        helper.make_node("ReduceMean", ["first"], ["m"], axes=[0, 1, 2], keepdims=0),
        helper.make_node("Mul", ["w0", "m"], ["w"]),
        helper.make_node("Mul", ["r0", "m"], ["r"]),
        helper.make_node("GRU", ["x", "w", "r"], ["y"], "gru", hidden_size=6, linear_before_reset=1),
    ]

    r = np.random.default_rng(3)
    tensors = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "w0": r.standard_normal((1, 18, 4)).astype("f4"),
        "r0": r.standard_normal((1, 18, 6)).astype("f4"),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 1, "B", 6])],
        [onnx.numpy_helper.from_array(a, n) for n, a in tensors.items()],
    )
    model = fr.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    session, oracle = fr.compile(model), fr.compile(model, backend="reference")
    feeds = [{"x": r.standard_normal((3 + k % 2, 2, 4)).astype("f4")} for k in range(6)]
    alone = [session.run(feed)["y"] for feed in feeds]
    for feed, y in zip(feeds, alone):
        np.testing.assert_allclose(y, oracle.run(feed)["y"], rtol=0, atol=1e-5)
    wrong = []

    def call(k):
        for j in range(40):
            at = (j + k) % len(feeds)
            wrong.extend([at] if not np.array_equal(session.run(feeds[at])["y"], alone[at]) else [])

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_explain_names_the_kernel_and_no_numpy():
    model, weights = freed(fr.LSTM(4, 5, 2).to_model())
    for threads in (1, 2):
        session = fr.compile(model, threads=threads)
        text = session.explain({"x": (7, 3, 4)} | {name: a.shape for name, a in weights.items()})
        assert "NumPy" not in text and text.count("packed while it runs") == text.count("  lstm  ") == 2, text
