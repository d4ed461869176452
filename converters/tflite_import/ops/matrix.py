"""Products, convolutions and pooling. TFLite's images are (N, H, W, C)."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.converters.keras_import.site import Tensor
from fastrnn.converters.tflite_import.call import Call
from fastrnn.converters.tflite_import.registry import operator

PADDINGS = {0: "SAME_UPPER", 1: "VALID"}
MOST_PADDED, SMALL = 16, 1 << 16  # by how much padding may enlarge an image; one of so many entries at least may


def _weights(call: Call, k: int, *perm: int) -> Tensor:
    """A matrix or kernel, its axes in another order: beforehand where it is a constant."""
    array = call.network.build.weights.get((w := call.real(k)).name)
    return call.transpose(w, *perm) if array is None else call.network.named_constant(f"{w.name}.turned", np.ascontiguousarray(array.transpose(perm)))


@operator("FULLY_CONNECTED")
def fully_connected(call: Call) -> None:
    """Rows of K times W (N, K), plus a bias; leading axes become one unless they are kept."""
    if call.option(1, "b"):
        raise call.refuse("shuffled weights are not supported")
    x, rows = call.real(0), call.real(1).shape
    if len(rows) != 2 or isinstance(rows[1], str):
        raise call.invalid(f"weights must be (N, K), got {rows}")
    if not call.flag(2) and (x.rank != 2 or x.shape[-1] != rows[1]):
        x = call.emit("Reshape", x, call.ints(-1, rows[1]))
    y = call.emit("MatMul", x, _weights(call, 1, 1, 0))
    y = call.emit("Add", y, call.real(2)) if call.has(2) else y
    call.give(call.activated(y, call.option(0, "b")))


@operator("BATCH_MATMUL")
def batch_matmul(call: Call) -> None:
    """The last two axes, turned where it says so."""
    a, b = (call.real(k) for k in range(2))
    a, b = (call.transpose(x, *range(x.rank - 2), x.rank - 1, x.rank - 2) if call.flag(k) else x for k, x in enumerate((a, b)))
    call.give(call.emit("MatMul", a, b))


def _padding(call: Call) -> str:
    code = call.option(0, "b")
    if code not in PADDINGS:
        raise call.invalid(f"padding {code} is unknown")
    return PADDINGS[code]


def _image(call: Call, k: int = 0) -> Tensor:
    """(N, C, H, W)."""
    x = call.real(k)
    if x.rank != 4:
        raise call.invalid(f"it takes (N, H, W, C), got {x.shape}")
    return call.transpose(x, 0, 3, 1, 2)


def _check_spans(call: Call, x: Tensor, kernel: tuple[int, ...], dilations: tuple[int, ...]) -> None:
    """Raises where padding would make a small image a large one: a window of a size that no model has."""
    own = [n if isinstance(n, int) else 1 for n in x.shape[1:]]
    padded = [own[0], *(n + k * d for n, k, d in zip(own[1:], kernel, dilations))]
    if min(*kernel, *dilations) < 1 or math.prod(padded) > MOST_PADDED * max(SMALL, math.prod(own)):
        raise call.refuse(f"windows of {kernel} with dilations {dilations} over {x.shape} are not supported")


@operator("CONV_2D", "DEPTHWISE_CONV_2D")
def conv(call: Call) -> None:
    """W (O, H, W, I), or (1, H, W, O) where each channel stands alone; its groups follow from the channels."""
    x, apart = _image(call), call.kind == "DEPTHWISE_CONV_2D"
    channels, act, dilations = x.shape[1], *((4, (6, 5)) if apart else (3, (5, 4)))
    w = _weights(call, 1, *((3, 0, 1, 2) if apart else (0, 3, 1, 2)))
    if isinstance(channels, str) or any(isinstance(d, str) for d in w.shape) or not w.shape[1] or channels % w.shape[1]:
        raise call.invalid(f"{channels} channels and weights {w.shape} do not fit")
    dilations = tuple(call.option(k, "i", 1) for k in dilations)
    _check_spans(call, x, w.shape[2:], dilations)
    y = call.emit(
        "Conv",
        x,
        w,
        call.real(2) if call.has(2) else None,
        strides=[call.option(2), call.option(1)],
        dilations=dilations,
        group=channels // w.shape[1],
        auto_pad=_padding(call),
    )
    call.give(call.activated(call.transpose(y, 0, 2, 3, 1), call.option(act, "b")))


@operator("MAX_POOL_2D", "AVERAGE_POOL_2D")
def pool(call: Call) -> None:
    """Over windows, padding left out of averages."""
    options = {"kernel_shape": [call.option(4), call.option(3)], "strides": [call.option(2), call.option(1)], "auto_pad": _padding(call)}
    x = _image(call)
    _check_spans(call, x, options["kernel_shape"], (1, 1))
    y = call.emit_all("MaxPool", 1, x, **options)[0] if call.kind == "MAX_POOL_2D" else call.emit("AveragePool", x, **options)
    call.give(call.activated(call.transpose(y, 0, 2, 3, 1), call.option(5, "b")))
