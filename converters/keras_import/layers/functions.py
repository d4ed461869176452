"""Operations of keras.ops that stand in a functional model of Keras 3 like layers: arithmetic, masks that Keras makes, and indexing."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.keras_import.registry import function
from fastrnn.converters.keras_import.site import LAST, Site, Tensor

TWO = {"Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Divide": "Div", "TrueDivide": "Div", "Maximum": "Max", "Minimum": "Min", "Power": "Pow"}
COMPARED = {"Equal": "Equal", "Less": "Less", "LessEqual": "LessOrEqual", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "LogicalAnd": "And", "LogicalOr": "Or"}  # fmt: skip
ONE = {"Exp": "Exp", "Log": "Log", "Sqrt": "Sqrt", "Tanh": "Tanh", "Sigmoid": "Sigmoid", "Relu": "Relu", "Abs": "Abs", "Absolute": "Abs", "Negative": "Neg", "Sin": "Sin", "Cos": "Cos",
       "LogicalNot": "Not", "Floor": "Floor", "Ceil": "Ceil", "Softplus": "Softplus", "Silu": "Silu"}  # fmt: skip
REDUCED = {"Mean": "ReduceMean", "Sum": "ReduceSum", "Max": "ReduceMax", "Min": "ReduceMin"}


def _operands(g: Site, a, b) -> list[Tensor | str]:
    """Both with the dtype of the tensor among them."""
    like = next((x for x in (a, b) if isinstance(x, Tensor)), None)
    if like is None:
        raise g.invalid("it is called on no tensor")
    result = []
    for x in (a, b):
        if not isinstance(x, (Tensor, bool, int, float, np.ndarray)):
            raise g.refuse(f"an operand {x!r} is not supported")
        if isinstance(x, Tensor) and x.spec.dtype != like.spec.dtype:
            raise g.refuse(f"operands of {like.spec.dtype} and {x.spec.dtype} are not supported")
        if not isinstance(x, Tensor) and like.spec.dtype.startswith("int") and np.asarray(x).dtype.kind == "f" and (np.asarray(x) % 1).any():
            raise g.refuse(f"{x!r} beside integers is not supported")
        result.append(x if isinstance(x, Tensor) else g.constant(x, like.spec.dtype))
    return result


@function(*TWO, *COMPARED)
def two(g: Site, x1, x2) -> Tensor:
    """Broadcast."""
    return g.emit({**TWO, **COMPARED}[g.layer.kind], *_operands(g, x1, x2))


@function("NotEqual")
def not_equal(g: Site, x1, x2) -> Tensor:
    """As Masking and Embedding make masks."""
    return g.emit("Not", g.emit("Equal", *_operands(g, x1, x2)))


@function(*ONE)
def one(g: Site, x: Tensor) -> Tensor:
    """Entry by entry."""
    return g.emit(ONE[g.layer.kind], x)


def _axes(g: Site, x: Tensor, axis) -> list[int]:
    axes = list(range(x.rank)) if axis is None else [axis] if isinstance(axis, int) else axis
    if not isinstance(axes, list) or any(isinstance(a, bool) or not isinstance(a, int) or not -x.rank <= a < x.rank for a in axes):
        raise g.invalid(f"axis={axis!r} does not fit {x.shape}")
    return [a % x.rank for a in axes]


@function("Any", "All")
def truth(g: Site, x: Tensor, axis=None, keepdims=False) -> Tensor:
    """Whether one holds, or all do."""
    y = g.reduce("ReduceMax" if g.layer.kind == "Any" else "ReduceMin", g.cast(g.cast(x, "bool"), "float32"), _axes(g, x, axis), keepdims)
    return g.emit("Greater", y, g.floats(0.5))


@function(*REDUCED)
def reduced(g: Site, x: Tensor, axis=None, keepdims=False) -> Tensor:
    """Over axes."""
    return g.reduce(REDUCED[g.layer.kind], x, _axes(g, x, axis), keepdims)


@function("ExpandDims", "Squeeze")
def dims(g: Site, x: Tensor, axis=None) -> Tensor:
    """Axes of 1 more or less."""
    if axis is None:
        raise g.refuse("without an axis it is not supported")
    rank = x.rank + (g.layer.kind == "ExpandDims")
    axes = [axis] if isinstance(axis, int) else axis
    if not isinstance(axes, list) or not all(isinstance(a, int) and -rank <= a < rank for a in axes):
        raise g.invalid(f"axis={axis!r} does not fit {x.shape}")
    return g.emit("Unsqueeze" if g.layer.kind == "ExpandDims" else "Squeeze", x, g.ints(*(a % rank for a in axes)))


@function("Reshape")
def reshape(g: Site, x: Tensor, newshape=None) -> Tensor:
    """Sizes with at most one -1; None is that too."""
    target = [-1 if d is None else d for d in newshape] if isinstance(newshape, list) else [None]
    if any(isinstance(d, bool) or not isinstance(d, int) for d in target):
        raise g.refuse(f"newshape={newshape!r} is not supported")
    return g.reshape(x, *target)


@function("Transpose")
def transpose(g: Site, x: Tensor, axes=None) -> Tensor:
    """Axes in another order."""
    return g.transpose(x, *(_axes(g, x, axes) if axes is not None else reversed(range(x.rank))))


@function("Concatenate")
def concatenate(g: Site, xs, axis=-1) -> Tensor:
    """Along an axis."""
    if not isinstance(xs, list) or not xs or not all(isinstance(x, Tensor) for x in xs) or not isinstance(axis, int):
        raise g.invalid("it takes a list of tensors and an axis")
    return g.emit("Concat", *xs, axis=axis % xs[0].rank)


@function("Softmax")
def softmax(g: Site, x: Tensor, axis=-1) -> Tensor:
    """Along an axis."""
    if not isinstance(axis, int):
        raise g.refuse(f"axis={axis!r} is not supported")
    return g.emit("Softmax", x, axis=axis)


@function("Cast")
def cast(g: Site, x: Tensor, dtype="float32") -> Tensor:
    """As another dtype."""
    if dtype not in ("float32", "int32", "int64", "bool"):
        raise g.refuse(f"to {dtype!r} is not supported")
    return g.cast(x, dtype)


@function("ConvertToTensor")
def convert(g: Site, x: Tensor, dtype=None, sparse=None) -> Tensor:
    """What is a tensor already."""
    return cast(g, x, dtype) if dtype is not None else x


@function("ZerosLike", "OnesLike")
def filled(g: Site, x: Tensor, dtype=None) -> Tensor:
    """One number everywhere."""
    y = g.emit("ConstantOfShape", g.emit("Shape", x), value=float(g.layer.kind == "OnesLike"))
    return cast(g, y, dtype or x.spec.dtype)


@function("GetItem")
def get_item(g: Site, x: Tensor, key=None) -> Tensor:
    """Whole numbers, slices, an ellipsis and new axes."""
    keys = list(key) if isinstance(key, (list, tuple)) else [key]
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if keys.count(Ellipsis) > 1 or used > x.rank:
        raise g.invalid(f"{key!r} does not fit {x.shape}")
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None, None, None)] * (x.rank - used)
    axis = 0
    for k in keys:
        if k is None:
            x = g.emit("Unsqueeze", x, g.ints(axis))
            axis += 1
        elif isinstance(k, int) and not isinstance(k, bool):
            x = g.take(x, axis, k)
        elif isinstance(k, slice) and all(part is None or isinstance(part, int) for part in (k.start, k.stop, k.step)):
            step = 1 if k.step is None else k.step
            ends = (0, LAST) if step > 0 else (-1, -LAST)
            if (k.start, k.stop, k.step) != (None, None, None):
                x = g.cut(x, axis, ends[0] if k.start is None else k.start, ends[1] if k.stop is None else k.stop, step)
            axis += 1
        else:
            raise g.refuse(f"{k!r} in {key!r} is not supported")
    return x
