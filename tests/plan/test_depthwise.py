"""Depthwise convolutions: an output has the same bits whatever lies beside it, on every instruction set, whichever taps are read together."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.model import Model, Node, Value

CASES = {  # channels, kernel, strides, dilations, lines and columns of x
    "3 x 3": (64, (3, 3), (1, 1), (1, 1), (5, 31)),
    "5 x 5": (48, (5, 5), (1, 1), (1, 1), (7, 45)),
    "3 x 5": (33, (3, 5), (1, 1), (1, 1), (6, 29)),
    "5 x 3, some lines only": (24, (5, 3), (2, 1), (1, 1), (11, 18)),
    "every second column": (40, (3, 3), (1, 2), (1, 1), (5, 40)),
    "taps apart": (16, (3, 3), (1, 1), (1, 2), (5, 33)),
    "both apart": (16, (3, 3), (1, 2), (1, 2), (5, 61)),  # a tap of a row is the next one's again
    "4 x 7": (17, (4, 7), (1, 1), (1, 1), (6, 30)),
    "a line": (80, (1, 5), (1, 1), (1, 1), (1, 300)),
    "narrow": (64, (3, 3), (1, 1), (1, 1), (9, 6)),
}


def run(x: np.ndarray, w: np.ndarray, bias: np.ndarray, strides, dilations) -> np.ndarray:
    attributes = {"group": len(w), "strides": list(strides), "dilations": list(dilations)}
    nodes = (Node("Conv", "conv", ("x", "w", "b"), ("y",), attributes),)
    session = fr.compile(Model((Value("x", "float32", x.shape),), ("y",), nodes, {"w": w, "b": bias}))
    assert "depthwise" in session.explain()
    return session.run({"x": x})["y"]


@pytest.mark.parametrize("case", CASES)
def test_an_output_is_its_own(case, monkeypatch):
    channels, kernel, strides, dilations, size = CASES[case]
    random = np.random.default_rng(1)
    x, w = (random.standard_normal(shape).astype(np.float32) for shape in ((2, channels, *size), (channels, 1, *kernel)))
    bias, whole = random.standard_normal(channels).astype(np.float32), None
    for name in isa.supported():
        monkeypatch.setenv("FASTRNN_ISA", name)
        y = run(x, w, bias, strides, dilations)
        whole = y if whole is None else whole
        assert y.tobytes() == whole.tobytes(), name
        for columns in (1, 4, 13):  # fewer beside one another
            needed = (columns - 1) * strides[1] + (kernel[1] - 1) * dilations[1] + 1
            if needed <= size[1]:
                assert run(x[..., :needed], w, bias, strides, dilations).tobytes() == np.ascontiguousarray(whole[..., :columns]).tobytes(), (
                    name,
                    columns,
                )
        assert run(x[1:], w, bias, strides, dilations).tobytes() == whole[1:].tobytes(), name
    want = bias[None, :, None, None].astype(np.float64)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            at = x[:, :, i * dilations[0] :, j * dilations[1] :][:, :, :: strides[0], :: strides[1]]
            want = want + at[:, :, : whole.shape[2], : whole.shape[3]].astype(np.float64) * w[:, 0, i, j][None, :, None, None]
    np.testing.assert_allclose(whole, want, rtol=1e-5, atol=1e-5)
