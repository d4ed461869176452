"""Ops that choose or place entries."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.onnx_import.registry import REQUIRED, Given, imports


@imports(
    "ArgMax",
    "ArgMin",
    "GatherElements",
    "GatherND",
    "ScatterElements",
    "OneHot",
    "Trilu",
    "CumSum",
    "ReverseSequence",
    "DepthToSpace",
    "SpaceToDepth",
)
def with_attributes(node: Given) -> None:
    """Attributes by the same names."""
    node.emit(
        **node.given(
            "axis",
            "keepdims",
            "select_last_index",
            "batch_dims",
            "reduction",
            "upper",
            "exclusive",
            "reverse",
            "batch_axis",
            "time_axis",
            "blocksize",
            "mode",
        )
    )


@imports("Scatter")
def scatter(node: Given) -> None:
    """What ScatterElements was called before opset 11."""
    node.emit("ScatterElements", **node.given("axis"))


@imports("TopK")
def top_k(node: Given) -> None:
    """k was an attribute before opset 10."""
    attributes = node.given("axis", "largest", "sorted")
    if node.opset >= 10:
        node.emit(**attributes)
    else:
        node.emit(inputs=[node.inputs[0], node.constant("k", [node.attribute("k", REQUIRED)], np.int64)], **attributes)


@imports("GridSample")
def grid_sample(node: Given) -> None:
    """Modes have other names since opset 20."""
    mode = node.attribute("mode", "linear")
    node.foreign(20, mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))
