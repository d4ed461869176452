"""LiteRT as an oracle: what it makes of a file, and how near fastrnn is."""

import warnings

import numpy as np
import pytest

import fastrnn as fr

# Options of a convolution and a depthwise one, by field.
CONV = {0: ("b", 1), 1: ("i", 2), 2: ("i", 1), 3: ("b", 1), 4: ("i", 1), 5: ("i", 1)}
DEPTH = {0: ("b", 0), 1: ("i", 1), 2: ("i", 2), 3: ("i", 2), 4: ("b", 3), 5: ("i", 1), 6: ("i", 1)}


def ints(*values):
    return np.array(values if len(values) != 1 else values[0], np.int32)


def litert(data, feed, outputs):
    """LiteRT's outputs in order."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        it = interpreter.Interpreter(model_content=data)
    details = it.get_input_details()
    for detail, array in zip(details, feed):
        it.resize_tensor_input(detail["index"], array.shape)
    it.allocate_tensors()
    it.reset_all_variables()
    for detail, array in zip(details, feed):
        it.set_tensor(detail["index"], array)
    it.invoke()
    found = [it.get_tensor(detail["index"]) for detail in it.get_output_details()]
    assert len(found) == outputs
    return found


def load(data, tmp_path):
    (tmp_path / "m.tflite").write_bytes(data)
    return fr.load(tmp_path / "m.tflite")


def agree(got, want, tolerance=3e-6, steps=0):
    assert got.shape == want.shape and got.dtype == want.dtype
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, float(np.abs(want).max(initial=0))))
    else:
        assert np.abs(got.astype(np.int64) - want.astype(np.int64)).max(initial=0) <= steps
