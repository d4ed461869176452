"""Reductions and normalisations."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.onnx_import.registry import Given, imports


@imports(
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"
)
def reduce(node: Given) -> None:
    """Axes were an attribute before opset 18, for ReduceSum before 13."""
    kept = node.given("keepdims")
    if node.opset < (13 if node.op == "ReduceSum" else 18):
        axes = node.attribute("axes")
        node.emit(inputs=[node.inputs[0], *([] if axes is None else [node.constant("axes", axes, np.int64)])], **kept)
    else:
        node.emit(**kept, **node.given("noop_with_empty_axes"))


@imports("Softmax", "LogSoftmax")
def softmax(node: Given) -> None:
    """Before opset 13, over everything from `axis` (1) on, as one axis."""
    if node.opset >= 13:
        node.emit(axis=node.attribute("axis", -1))
        return
    axis = node.attribute("axis", 1)
    if axis == -1:
        node.emit(axis=-1)
        return
    flat, done, shape = node.value("flat"), node.value("flat.done"), node.value("shape")
    node.emit("Flatten", outputs=[flat], axis=axis)
    node.emit(inputs=[flat], outputs=[done], axis=-1)
    node.emit("Shape", outputs=[shape])
    node.emit("Reshape", [done, shape])


@imports("BatchNormalization")
def batch_normalization(node: Given) -> None:
    """With the stored statistics."""
    node.ignore("momentum")
    node.only("training_mode", 0)
    node.only("spatial", 1)
    if any(node.outputs[1:]):
        raise node.refuse("outputs beside Y are for training")
    node.emit(outputs=node.outputs[:1], **node.given("epsilon"))


@imports("LayerNormalization")
def layer_normalization(node: Given) -> None:
    """In one dtype throughout; mean and inverse deviation, further outputs, only the onnx package gives."""
    if any(node.outputs[1:]):
        node.foreign()
        return
    node.only("stash_type", 1)
    node.emit(outputs=node.outputs[:1], **node.given("axis", "epsilon"))


@imports("InstanceNormalization", "LpNormalization", "RMSNormalization", "GroupNormalization")
def normalization(node: Given) -> None:
    """In one dtype throughout."""
    node.only("stash_type", 1)
    node.emit(**node.given("axis", "epsilon", "num_groups", "p"))


@imports("LRN")
def lrn(node: Given) -> None:
    """As it is."""
    node.emit(**node.given("alpha", "beta", "bias", "size"))
