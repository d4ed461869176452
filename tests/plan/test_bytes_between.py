"""What stands between DequantizeLinear and QuantizeLinear of one scale chooses among bytes; pooling of bytes against NumPy's meaning."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Model, Node, Value

CONSTANTS = {"s": np.float32(0.037), "other": np.float32(0.038), "z": np.uint8(113), "zi": np.int8(-7), "shape": np.array([0, -1]), "axes": np.array([3])}  # fmt: skip
POOL = {"kernel_shape": (2, 3), "strides": (2, 1), "pads": (1, 0, 0, 2)}


def between(op, dtype, scale="s", **attributes):
    """Bytes to floats, an op, and back."""
    zero, further = ("z" if dtype == "uint8" else "zi"), {"Reshape": ("shape",), "Unsqueeze": ("axes",)}.get(op, ())
    nodes = (Node("DequantizeLinear", "from", ("x", "s", zero), ("f",)), Node(op, "op", ("f", *further), ("g",), attributes), Node("QuantizeLinear", "to", ("g", scale, zero), ("y",)))  # fmt: skip
    return Model((Value("x", dtype, ("B", 21, 6, "T")),), ("y",), nodes, {n: CONSTANTS[n] for n in {"s", scale, zero, *further}})


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("op", "attributes"), [("MaxPool", POOL), ("MaxPool", POOL | {"ceil_mode": 1}), ("Transpose", {"perm": (3, 0, 2, 1)}), ("Reshape", {}), ("Unsqueeze", {})])  # fmt: skip
def test_bytes_stay_bytes(op, attributes, dtype, monkeypatch):
    model = between(op, dtype, **attributes)
    x = np.random.default_rng(0).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (3, 21, 6, 9), endpoint=True).astype(dtype)
    expected = evaluate(model, {"x": x}, np.float32)["y"]
    for name in isa.supported():
        monkeypatch.setenv("FASTRNN_ISA", name)
        session = fr.compile(model)
        assert [row[0] for row in session.plan.rows({"x": x.shape})] == [op] and not any("reference" in row for row in session.plan.rows())
        assert np.array_equal(session(x), expected)


@pytest.mark.parametrize("channels", [1, 21, 32, 75])
def test_pools_of_any_number_of_channels(channels):
    x = np.random.default_rng(0).integers(-128, 128, (2, channels, 7, 5)).astype(np.int8)
    model = Model((Value("x", "int8", ("B", channels, "H", "W")),), ("y",), (Node("MaxPool", "pool", ("x",), ("y",), POOL),), {})
    assert np.array_equal(fr.compile(model)(x), evaluate(model, {"x": x}, np.float32)["y"])


def test_another_scale_is_another_rounding():
    model = between("Transpose", "uint8", "other", perm=(0, 1, 3, 2))
    x = np.random.default_rng(0).integers(0, 256, (3, 21, 6, 9)).astype(np.uint8)
    session = fr.compile(model)
    assert len(session.plan.rows()) == 3 and np.array_equal(session(x), evaluate(model, {"x": x}, np.float32)["y"])
