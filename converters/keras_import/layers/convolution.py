"""Convolutions. Keras's kernels are (size..., in, out), its tensors channels last unless told otherwise; fastrnn's are (out, in, size...) and channels first."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.keras_import.layers.activations import activate
from fastrnn.converters.keras_import.registry import DROP, layer, named
from fastrnn.converters.keras_import.site import Site, Tensor


def spatial_axes(g: Site) -> int:
    """1 or 2, by the class's name."""
    return 2 if "2D" in g.layer.kind else 1


def channels_first(g: Site, x: Tensor) -> tuple[Tensor, bool]:
    """x with channels on axis 1, and whether they were last."""
    n = spatial_axes(g)
    if x.rank != n + 2:
        raise g.invalid(f"its input must have {n + 2} axes, got {x.shape}")
    last = g.choice("data_format", "channels_last", None, "channels_last", "channels_first") != "channels_first"
    return (g.transpose(x, 0, n + 1, *range(1, n + 1)) if last else x), last


def channels_back(g: Site, y: Tensor, last: bool) -> Tensor:
    """Channels where they were."""
    return g.transpose(y, 0, *range(2, y.rank), 1) if last else y


def padding_of(g: Site, x: Tensor, sizes, strides, dilations, allowed=("valid", "same", "causal")) -> dict:
    """Attributes for `same`, which puts the odd entry behind, and for `causal`, all in front."""
    said = g.option("padding", "valid")
    if said not in allowed:
        raise g.refuse(f"padding={said!r} is not supported, only {', '.join(allowed)}")
    reach = [d * (k - 1) for k, d in zip(sizes, dilations)]
    if said == "causal":
        return {"pads": [*reach, *(0,) * len(reach)]}
    if said == "valid":
        return {}
    if all(s == 1 for s in strides):
        return {"pads": [*(r // 2 for r in reach), *(r - r // 2 for r in reach)]}
    if any(isinstance(d, str) for d in x.shape[2:]):
        raise g.refuse("padding='same' with strides, over an axis of open size, is not supported")
    return {"auto_pad": "SAME_UPPER"}


def _convolve(g: Site, x: Tensor, name: str, kernel: np.ndarray, bias: str | None, group: int, strides, dilations, padding: dict) -> Tensor:
    return g.emit("Conv", x, g.stored(name, kernel), bias, strides=list(strides), dilations=list(dilations), group=group, **padding)


@layer("Conv1D", "Conv2D", "Convolution1D", "Convolution2D", variables=named("kernel", "bias"), masks=DROP)
def conv(g: Site, x: Tensor) -> Tensor:
    """Windows, strides, dilation, groups."""
    n, filters, group = spatial_axes(g), g.whole("filters"), g.whole("groups", 1)
    sizes, strides, dilations = (g.wholes(name, n, default) for name, default in (("kernel_size", None), ("strides", 1), ("dilation_rate", 1)))
    x, last = channels_first(g, x)
    channels = g.known(x, 1)
    if channels % group or filters % group:
        raise g.invalid(f"groups={group} does not divide {channels} channels and {filters} filters")
    kernel = g.array("kernel", (*sizes, channels // group, filters))
    bias = g.weight("bias", (filters,)) if g.flag("use_bias", True) else None
    y = _convolve(
        g, x, "kernel", np.moveaxis(kernel, (-1, -2), (0, 1)).copy(), bias, group, strides, dilations, padding_of(g, x, sizes, strides, dilations)
    )
    return activate(g, channels_back(g, y, last), g.option("activation"))


def _depthwise(g: Site, x: Tensor, name: str, bias: str | None, allowed) -> Tensor:
    """A kernel for each channel: (size..., in, multiplier)."""
    n, many = spatial_axes(g), g.whole("depth_multiplier", 1)
    sizes, strides, dilations = (g.wholes(key, n, default) for key, default in (("kernel_size", None), ("strides", 1), ("dilation_rate", 1)))
    channels = g.known(x, 1)
    kernel = np.moveaxis(g.array(name, (*sizes, channels, many)), (-2, -1), (0, 1)).reshape(channels * many, 1, *sizes)
    return _convolve(g, x, name, kernel.copy(), bias, channels, strides, dilations, padding_of(g, x, sizes, strides, dilations, allowed))


@layer("DepthwiseConv1D", "DepthwiseConv2D", variables=named("kernel", "bias"), masks=DROP)
def depthwise_conv(g: Site, x: Tensor) -> Tensor:
    """Each channel by itself."""
    for name in ("filters", "groups"):
        g.option(name)
    x, last = channels_first(g, x)
    bias = g.weight("bias", (g.known(x, 1) * g.whole("depth_multiplier", 1),)) if g.flag("use_bias", True) else None
    return activate(g, channels_back(g, _depthwise(g, x, "kernel", bias, ("valid", "same")), last), g.option("activation"))


@layer("SeparableConv1D", "SeparableConv2D", variables=named("depthwise_kernel", "pointwise_kernel", "bias"), masks=DROP)
def separable_conv(g: Site, x: Tensor) -> Tensor:
    """Each channel by itself, then a matrix over channels."""
    n, filters = spatial_axes(g), g.whole("filters")
    g.option("groups")
    x, last = channels_first(g, x)
    inner = _depthwise(g, x, "depthwise_kernel", None, ("valid", "same", "causal") if n == 1 else ("valid", "same"))
    kernel = g.array("pointwise_kernel", (*(1,) * n, g.known(inner, 1), filters))
    bias = g.weight("bias", (filters,)) if g.flag("use_bias", True) else None
    y = _convolve(g, inner, "pointwise_kernel", np.moveaxis(kernel, (-1, -2), (0, 1)).copy(), bias, 1, (1,) * n, (1,) * n, {})
    return activate(g, channels_back(g, y, last), g.option("activation"))
