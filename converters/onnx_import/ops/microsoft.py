"""Ops that ONNX Runtime's optimiser and quantizer write (domain com.microsoft): taken apart into what they were made of."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.onnx_import.ops.linear import WINDOW
from fastrnn.converters.onnx_import.registry import MICROSOFT, Given, imports


def _finish(node: Given, value: str) -> None:
    """value through the activation that a fused op carries, to the node's output."""
    kind = node.attribute("activation", "")
    given = node.attribute("activation_params")
    names = (*(("activation_alpha",) if given is None else ()), "activation_beta")
    given = [*(given or []), *(node.attribute(name) for name in names if node.has(name))]
    if kind in ("", "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign"):
        node.emit(kind or "Identity", [value])
    elif kind in ("LeakyRelu", "Elu", "ThresholdedRelu", "HardSigmoid") and len(given) <= 2:
        node.emit(kind, [value], **dict(zip(("alpha", "beta"), given)))
    elif kind == "Clip" and len(given) == 2:
        node.emit("Clip", [value, *(node.constant(what, v, np.float32) for what, v in zip(("min", "max"), given))])
    else:
        raise node.refuse(f"activation {kind!r} is not supported")


@imports(MICROSOFT + "FusedConv")
def fused_conv(node: Given) -> None:
    """Conv, a sum, an activation."""
    value = node.emit("Conv", node.inputs[:3], [node.value("conv")], **node.given(*WINDOW))
    if node.input(3):
        value = node.emit("Add", [value, node.inputs[3]], [node.value("sum")])
    _finish(node, value)


@imports(MICROSOFT + "FusedGemm")
def fused_gemm(node: Given) -> None:
    """Gemm, an activation."""
    _finish(node, node.emit("Gemm", outputs=[node.value("gemm")], **node.given("alpha", "beta", "transA", "transB")))


@imports(MICROSOFT + "FusedMatMul", MICROSOFT + "TransposeMatMul")
def fused_matmul(node: Given) -> None:
    """alpha A B, the last two axes of either turned around."""
    node.only("transBatchA", 0)
    node.only("transBatchB", 0)
    a, b = (node.attribute(name, 0) for name in ("transA", "transB"))
    alpha = node.attribute("alpha", 1.0)
    outputs = node.outputs if alpha == 1 else [node.value("product")]
    if a or b:
        node.emit("Einsum", outputs=outputs, equation=f"...{'ki' if a else 'ik'},...{'jk' if b else 'kj'}->...ij")
    else:
        node.emit("MatMul", outputs=outputs)
    if alpha != 1:
        node.emit("Mul", [outputs[0], node.constant("alpha", alpha, np.float32)])


@imports(MICROSOFT + "BiasGelu", MICROSOFT + "FastGelu", MICROSOFT + "Gelu")
def gelu(node: Given) -> None:
    """Of a sum with a bias; FastGelu through tanh."""
    value = node.emit("Add", [node.inputs[0], node.inputs[1]], [node.value("sum")]) if node.input(1) else node.inputs[0]
    node.emit("Gelu", [value], approximate="tanh" if node.op == "FastGelu" else "none")


@imports(MICROSOFT + "QuickGelu")
def quick_gelu(node: Given) -> None:
    """x sigmoid(alpha x)."""
    node.emit("Swish", alpha=node.attribute("alpha", 1.702))


@imports(MICROSOFT + "SkipLayerNormalization", MICROSOFT + "SkipSimplifiedLayerNormalization")
def skip_layer_normalization(node: Given) -> None:
    """Of a sum, which is the fourth output; the third kind of input is gamma, then beta (not the simplified one), then a bias."""
    simplified = node.op == "SkipSimplifiedLayerNormalization"
    if any(node.outputs[1:3]):
        raise node.refuse("mean and inverse deviation as outputs are not supported")
    bias, wanted = node.input(3 if simplified else 4), node.outputs[3] if len(node.outputs) > 3 else ""
    total = wanted or node.value("sum")
    value = node.emit("Add", node.inputs[:2], [node.value("partial") if bias else total])
    if bias:
        node.emit("Add", [value, bias], [total])
    node.emit(
        "RMSNormalization" if simplified else "LayerNormalization",
        [total, node.inputs[2], *([] if simplified else [node.input(3)])],
        node.outputs[:1],
        axis=-1,
        epsilon=node.attribute("epsilon", 1e-12),
    )
