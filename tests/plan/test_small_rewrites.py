"""What is joined with a node whose weights are small gives what both give one after the other."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Model, Node, Value
from fastrnn.plan.graph import narrow

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    """Layers of any size are quantized."""
    monkeypatch.setattr(narrow, "LEAST_WEIGHTS", 0)


def behind(first: Node, weights, shape, precision: str, then: Node, more):
    """A node that was narrowed alone, with another behind it that nobody saw before; and the first one's result."""
    alone = narrow.narrowed(Model((Value("x", "float32", shape),), (first.outputs[0],), (first,), weights), precision)
    return alone, Model(alone.inputs, ("y",), (*alone.nodes, then), {**alone.weights, **more})


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_sum_becomes_the_bias(precision):
    k, x = RANDOM.standard_normal(32).astype(np.float32), RANDOM.standard_normal((3, 64)).astype(np.float32)
    w = RANDOM.standard_normal((64, 32)).astype(np.float32)
    alone, both = behind(
        Node("MatMul", "dense", ("x", "w"), ("c",)), {"w": w}, ("B", 64), precision, Node("Add", "sum", ("c", "k"), ("y",)), {"k": k}
    )
    assert np.allclose(fr.compile(both).run({"x": x})["y"], fr.compile(alone).run({"x": x})["c"] + k, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_norm_stays_behind_a_convolution(precision):
    """Multiplied into bits or integers it would be nonsense."""
    w, x = RANDOM.standard_normal((8, 16, 3)).astype(np.float32), RANDOM.standard_normal((2, 16, 9)).astype(np.float32)
    numbers = {name: RANDOM.uniform(0.5, 1.5, 8).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    norm = Node("BatchNormalization", "norm", ("c", *numbers), ("y",), {"epsilon": 1e-5})
    alone, both = behind(Node("Conv", "conv", ("x", "w"), ("c",), {}), {"w": w}, ("B", 16, "T"), precision, norm, numbers)
    c, (scale, shift, mean, variance) = evaluate(alone, {"x": x}, np.float32)["c"], (a[:, None].astype(np.float64) for a in numbers.values())
    want = (c - mean) / np.sqrt(variance + 1e-5) * scale + shift
    assert np.abs(evaluate(narrow.prepared(both), {"x": x}, np.float32)["y"] - want).max() < 1e-5 * np.abs(want).max()
