"""Pooling over windows and over all."""

from __future__ import annotations

from fastrnn.converters.keras_import.layers.convolution import channels_back, channels_first, padding_of, spatial_axes
from fastrnn.converters.keras_import.registry import DROP, layer
from fastrnn.converters.keras_import.site import Site, Tensor


@layer("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D", masks=DROP)
def pool(g: Site, x: Tensor) -> Tensor:
    """Strides are the window's size where none are given; means leave padding out."""
    n, average = spatial_axes(g), "Average" in g.layer.kind
    sizes = g.wholes("pool_size", n, 2)
    strides = g.wholes("strides", n, list(sizes)) if g.option("strides") is not None else sizes
    x, last = channels_first(g, x)
    padding = padding_of(g, x, sizes, strides, (1,) * n, ("valid", "same"))
    y = g.emit("AveragePool" if average else "MaxPool", x, kernel_shape=list(sizes), strides=list(strides), **padding)
    return channels_back(g, y, last)


@layer("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", masks=DROP)
def global_pool(g: Site, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Over all places; a mean leaves out masked steps."""
    n, keep = spatial_axes(g), g.flag("keepdims")
    last = g.choice("data_format", "channels_last", None, "channels_last", "channels_first") != "channels_first"
    axes = [k + (1 if last else 2) for k in range(n)]
    mask = mask or x.mask
    if "Max" in g.layer.kind or mask is None or n > 1:
        return g.reduce("ReduceMax" if "Max" in g.layer.kind else "ReduceMean", x, axes, keep)
    kept = g.emit("Unsqueeze", mask, g.ints(2 if last else 1))
    total = g.reduce("ReduceSum", g.emit("Where", kept, x, g.floats(0)), axes, keep)
    return g.emit("Div", total, g.reduce("ReduceSum", g.cast(kept, "float32"), axes, keep))
