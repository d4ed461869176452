"""Ops that rearrange, fetch and fill. What were attributes in older opsets become the inputs that they are now."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.onnx_import.registry import REQUIRED, Given, imports


@imports("Size", "Expand", "Tile", "Range")
def as_it_is(node: Given) -> None:
    """No attributes."""
    node.emit()


@imports("Reshape")
def reshape(node: Given) -> None:
    """allowzero since opset 14."""
    node.emit(**node.given("allowzero"))


@imports("Flatten", "Concat")
def along_axis(node: Given) -> None:
    """An axis."""
    node.emit(axis=node.attribute("axis", 1 if node.op == "Flatten" else REQUIRED))


@imports("Gather")
def gather(node: Given) -> None:
    """An axis, 0 if left out."""
    node.emit(axis=node.attribute("axis", 0))


@imports("Transpose")
def transpose(node: Given) -> None:
    """perm."""
    node.emit(**node.given("perm"))


@imports("Shape")
def shape(node: Given) -> None:
    """Since opset 15, of some axes only."""
    start, end = node.attribute("start", 0), node.attribute("end")
    if start == 0 and end is None:
        node.emit()
        return
    whole = node.value("whole")
    node.emit(outputs=[whole])
    bounds = [node.constant("start", [start], np.int64), node.constant("end", [np.iinfo(np.int64).max if end is None else end], np.int64)]
    node.emit("Slice", [whole, *bounds])


@imports("Squeeze", "Unsqueeze")
def squeeze(node: Given) -> None:
    """Axes were an attribute before opset 13."""
    if node.opset >= 13:
        node.emit()
        return
    axes = node.attribute("axes", REQUIRED if node.op == "Unsqueeze" else None)
    node.emit(inputs=[node.inputs[0], *([] if axes is None else [node.constant("axes", axes, np.int64)])])


@imports("Slice")
def slice_(node: Given) -> None:
    """Bounds were attributes before opset 10."""
    if node.opset >= 10:
        node.emit()
        return
    bounds = [node.constant(name, node.attribute(name, REQUIRED), np.int64) for name in ("starts", "ends")]
    axes = node.attribute("axes")
    node.emit(inputs=[node.inputs[0], *bounds, *([] if axes is None else [node.constant("axes", axes, np.int64)])])


@imports("Split")
def split(node: Given) -> None:
    """Sizes were an attribute before opset 13."""
    attributes = {"axis": node.attribute("axis", 0)}
    if node.opset >= 13:
        node.emit(**attributes, **node.given("num_outputs"))
        return
    sizes = node.attribute("split")
    node.emit(inputs=[node.inputs[0], *([] if sizes is None else [node.constant("split", sizes, np.int64)])], **attributes)


@imports("Pad")
def pad(node: Given) -> None:
    """Widths and value were attributes before opset 11."""
    mode = node.attribute("mode", "constant")
    if node.opset >= 11:
        node.emit(mode=mode)
        return
    widths, value = (
        node.constant("pads", node.attribute("pads", REQUIRED), np.int64),
        node.constant("value", node.attribute("value", 0.0), np.float32),
    )
    node.emit(inputs=[node.inputs[0], widths, value], mode=mode)


@imports("ConstantOfShape")
def constant_of_shape(node: Given) -> None:
    """The value is a tensor of one element, float32 0 if left out."""
    if not node.has("value"):
        node.emit(value=0.0, dtype="float32")
        return
    value = node.graph.tensor(node.attribute("value"), node.where)
    if value.size != 1:
        raise node.invalid(f"value must have one element, got {value.shape}")
    node.emit(value=value.reshape(()).astype(np.int64 if value.dtype == bool else value.dtype).item(), dtype=str(value.dtype))


@imports("ScatterND")
def scatter_nd(node: Given) -> None:
    """reduction since opset 16; any but none only the onnx package has."""
    reduction = node.attribute("reduction", "none")
    if reduction not in ("none", "add", "mul", "max", "min"):
        raise node.invalid(f"attribute 'reduction' = {str(reduction)[:200]!r} is unknown")
    if reduction != "none":
        node.foreign()
        return
    node.emit(reduction="none")
