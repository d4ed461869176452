"""ONNX's ops that fastrnn has no meaning of its own for: "onnx." and ONNX's name, with the meaning that the onnx package gives.

The runtime knows nothing of that package: fastrnn.converters provides shapes and results, and imports it when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastrnn.errors import MissingDependencyError
from fastrnn.model.ops.registry import MANY, Spec, meaning, op
from fastrnn.model.sizes import has_sizes

PREFIX = "onnx."
# Held against ONNX's own cases and ONNX Runtime in tests/converters/onnx/test_suite.py and test_foreign.py. Left out: what draws random numbers, what holds text, sequences or optional
# values, and what gives as many entries as its data say.
NAMES = (
    "AffineGrid", "Attention", "BitCast", "BlackmanWindow", "CausalConvWithState", "CenterCropPad", "Col2Im", "CumProd", "DFT",
    "DeformConv", "EyeLike", "GridSample", "HammingWindow", "HannWindow", "Hardmax", "LayerNormalization", "LinearAttention",
    "LpPool", "MaxUnpool", "MeanVarianceNormalization", "MelWeightMatrix", "NegativeLogLikelihoodLoss", "Resize",
    "RoiAlign", "RotaryEmbedding", "STFT", "ScatterND", "Shrink", "SoftmaxCrossEntropyLoss", "SwiGLU", "TensorScatter", "TfIdfVectorizer",
    "Upsample",
)  # fmt: skip
_PROVIDED: list[tuple[Callable, Callable]] = []


def provide(infer: Callable, evaluate: Callable) -> None:
    """Sets what gives such an op its shapes, (node, specs) -> specs, and its results, (node, arrays) -> arrays."""
    _PROVIDED[:] = [(infer, evaluate)]


def _provided() -> tuple[Callable, Callable]:
    if not _PROVIDED:
        raise MissingDependencyError("fastrnn.converters and onnx", "onnx", "an op that only the onnx package has")
    return _PROVIDED[0]


@op(*(PREFIX + name for name in NAMES), inputs=(0, MANY), outputs=MANY, opset=None, options="{}")
def foreign(node, inputs):
    """opset: of ONNX's default domain. options: its attributes as JSON. The onnx package knows numbers alone, so Sizes are tied."""
    return _provided()[0](node, [None if s is None else _numbers(s) for s in inputs])


def _numbers(spec: Spec) -> Spec:
    """The spec with a number for each Size."""
    shape = None if spec.shape is None else tuple(d if isinstance(d, str) else int(d) for d in spec.shape)
    value = (
        spec.value
        if spec.value is None or not has_sizes(spec.value)
        else np.array([int(v) for v in spec.value.ravel()], spec.dtype).reshape(spec.value.shape)
    )
    return Spec(spec.dtype, shape, value)


@meaning(*(PREFIX + name for name in NAMES))
def foreign_meaning(node, inputs):
    """onnx.reference."""
    return _provided()[1](node, inputs)
