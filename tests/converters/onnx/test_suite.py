"""ONNX's backend suite as a table of counts: a case that stops passing, or that comes to be computed in another way, changes it.

The bounds below are what the onnx package at hand gives; a newer one has more cases. To see the table: pytest tests/converters/onnx/test_suite.py -s
"""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_suite
import pytest
from onnx import TensorProto, helper

import fastrnn as fr

# Passes at least so many, of 2,024 in onnx 1.23: by compiled kernels alone, with ops in NumPy, with ops by onnx's reference.
LEAST = {"compiled": 1138, "NumPy": 306, "reference": 352}
# Why cases are refused: a part of the message, and why that is so.
REASONS = {
    r"dtype (STRING|COMPLEX\w*)": "neither text nor complex numbers",
    r"dtype (U?INT[24]|FLOAT8\w*|FLOAT4\w*)": "no results in floats of 8 bits, and none of fewer bits",
    r"is of (U?INT[24]|FLOAT8\w*|FLOAT4\w*), which only": "nor anything computed in them",
    r"only tensors are supported|output that is no tensor|split must be a constant": "no sequences at the ends, nor of members that data decide; no optional values",
    r"op '\w+' is not supported: it (draws random numbers|works on)": "random numbers, text, sequences, optional values",
    r"op '\w+' is not supported: the size of its output depends on data": "shapes are decided before anything runs",
    r"shape depends on data|depends on data, and with it|depends on data": "shapes are decided before anything runs: give what decides them as constants=",
    r"'ImageDecoder' is not supported": "not of a network",
    r"none of the default domain|domain 'ai.onnx[\w.]+' is not supported": "other domains",
    r"version converter does not bring it": "an op of an old opset that onnx itself does not convert",
    r"Dropout\): training_mode must|'training_mode' = 1": "training",
}


@pytest.mark.filterwarnings("ignore")
def test_every_case_passes_or_is_refused_by_name():
    found = onnx_suite.outcomes(onnx_suite.cases())
    counts = onnx_suite.counted(found)
    print(f"\n{len(found)} cases:", ", ".join(f"{how} {n}" for how, n in counts.most_common()))
    faults = [f"{o.name}: {o.how}: {o.why}" for o in found if o.how not in (*LEAST, "refused")]
    assert not faults, "\n".join(faults)
    unlisted = [f"{o.name}: {o.why}" for o in found if o.how == "refused" and not any(re.search(reason, o.why) for reason in REASONS)]
    assert not unlisted, "\n".join(unlisted)
    assert all(counts[how] >= n for how, n in LEAST.items()), counts
    recurrent = [o for o in found if re.match(r"test_(simple_)?(lstm|gru|rnn)_", o.name)]
    assert len(recurrent) >= 18 and {o.how for o in recurrent} == {"compiled"}, recurrent


def small(nodes, inputs, outputs, opset: int = 17):
    """A model of float32 values."""
    values = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in pairs] for pairs in (inputs, outputs)]
    return helper.make_model(helper.make_graph(nodes, "g", *values), opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_an_output_may_stand_twice():
    """As torch's older exporter writes `return h, h, c`."""
    model = fr.from_onnx(small([helper.make_node("Tanh", ["x"], ["h"])], [("x", [2, "T"])], [("h", [2, "T"]), ("h", [2, "T"]), ("x", [2, "T"])]))
    x = np.random.default_rng(0).standard_normal((2, 3)).astype("f4")
    first, second, third = fr.compile(model)(x)
    assert np.array_equal(first, second) and np.array_equal(third, x) and len(set(model.output_names)) == 3


def test_an_infinite_clip_is_none():
    r = np.random.default_rng(1)
    w, b = (r.standard_normal(s).astype("f4") for s in ((1, 16, 3), (1, 16, 4)))
    x, results = r.standard_normal((5, 2, 3)).astype("f4"), []
    for attributes in ({}, {"clip": float("inf")}):
        proto = small(
            [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4, **attributes)], [("x", ["T", "B", 3])], [("y", ["T", 1, "B", 4])]
        )
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for a, name in ((w, "w"), (b, "r")))
        results.append(fr.compile(fr.from_onnx(proto))(x))
    assert np.array_equal(*results)


@pytest.mark.parametrize("opset", range(1, 7))
def test_old_opsets_are_brought_up(opset):
    """Of an op whose form changed at 7: Add with broadcast as an attribute."""
    node = helper.make_node("Add", ["x", "y"], ["z"], **({"broadcast": 1, "axis": 0} if opset < 7 else {}))
    model = fr.from_onnx(small([node], [("x", [2, 3]), ("y", [2])], [("z", [2, 3])], opset))
    r = np.random.default_rng(2)
    x, y = r.standard_normal((2, 3)).astype("f4"), r.standard_normal(2).astype("f4")
    assert np.array_equal(fr.compile(model)(x, y), x + y[:, None])


def test_a_float_mod_has_the_sign_of_the_divisor():
    x, y = np.array([-4.3, 7.2, 5.0, 4.3, -7.2, 8.0], "f4"), np.array([2.1, -3.4, 8.0, -2.1, 3.4, 5.0], "f4")
    model = fr.from_onnx(small([helper.make_node("Mod", ["x", "y"], ["z"])], [("x", [6]), ("y", [6])], [("z", [6])], 27))
    assert np.array_equal(fr.compile(model)(x, y), np.mod(x, y))


def test_a_mask_that_lets_everything_through():
    nodes = [
        helper.make_node("Dropout", ["x"], ["d", "m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["d", "f"], ["y"]),
    ]
    x = np.random.default_rng(3).standard_normal((2, 3)).astype("f4")
    assert np.array_equal(fr.compile(fr.from_onnx(small(nodes, [("x", [2, "T"])], [("y", [2, "T"])])))(x), x + 1)


def test_what_an_input_holds_is_told_to_explain():
    """Sizes that an input of integers, or of floats where an op takes them as sizes, decides."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("Resize", ["r", "", "scales"], ["y"], "resize", mode="nearest")]
    model = small(nodes, [("x", ["N"]), ("scales", [2])], [("y", [None, None])])
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    session = fr.compile(fr.from_onnx(model))
    feed = {"x": np.arange(6, dtype="f4"), "scales": np.float32([1, 2]), "shape": np.array([2, 3])}
    assert np.array_equal(session.run(feed)["y"], np.arange(6, dtype="f4").reshape(2, 3).repeat(2, axis=1))
    assert session.run(feed | {"scales": np.float32([2, 1]), "shape": np.array([3, -1])})["y"].shape == (6, 2)
    assert "resize" in session.explain(feed)
    with pytest.raises(fr.UnsupportedModelError, match="depends on data"):
        session.explain({name: a.shape for name, a in feed.items()})
