"""Fourier transforms of one axis, real and imaginary parts apart, not scaled."""

from __future__ import annotations

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.elementwise import FLOATS
from fastrnn.model.ops.registry import ANY_DIM, Spec, axis_of, meaning, op, require, same_dim, where


def _parts(node, inputs) -> tuple[Spec, int]:
    """The spec that both parts have, and the axis."""
    re = require(node, inputs[0], "the real part", FLOATS)
    if len(inputs) > 1:
        im = require(node, inputs[1], "the imaginary part", (re.dtype,))
        if im.rank != re.rank or not all(map(same_dim, re.shape, im.shape)):
            raise ShapeError(f"{where(node)}: real part {re.shape} and imaginary part {im.shape} differ")
    return re, axis_of(node, node.get("axis"), re.rank)


@op("FourierTransform", inputs=(1, 2), outputs=2, axis=-1, direction="forward", mode="full")
def fourier_transform(node, inputs):
    """Sums of x[k] exp(-2 pi i j k / n), or in direction "reverse" with +. mode "half": of real numbers, the n // 2 + 1 first, of which the others are the conjugates."""
    spec, axis = _parts(node, inputs)
    if node.get("direction") not in ("forward", "reverse") or node.get("mode") not in ("full", "half"):
        raise InvalidModelError(f"{where(node)}: direction {node.get('direction')!r} or mode {node.get('mode')!r} is unknown")
    if node.get("mode") == "half" and (len(inputs) > 1 or node.get("direction") == "reverse"):
        raise InvalidModelError(f"{where(node)}: mode half is of real numbers, forward")
    n = spec.shape[axis]
    if n == 0:
        raise ShapeError(f"{where(node)}: axis {axis} of {spec.shape} is empty")
    half = n if node.get("mode") == "full" else ANY_DIM if isinstance(n, str) else n // 2 + 1
    return [Spec(spec.dtype, (*spec.shape[:axis], half, *spec.shape[axis + 1 :]))] * 2


def _numbers(inputs) -> np.ndarray:
    return inputs[0].astype(np.float64) if len(inputs) < 2 else inputs[0].astype(np.float64) + 1j * inputs[1]


@meaning("FourierTransform")
def fourier_transform_meaning(node, inputs):
    """NumPy's, in float64."""
    x, axis = _numbers(inputs), node.get("axis")
    if node.get("mode") == "half":
        y = np.fft.rfft(x, axis=axis)
    else:
        y = np.fft.fft(x, axis=axis) if node.get("direction") == "forward" else np.fft.ifft(x, axis=axis, norm="forward")
    return [np.asarray(part, inputs[0].dtype) for part in (y.real, y.imag)]


@op("HermitianTransform", inputs=(2, 2), axis=-1, size=None)
def hermitian_transform(node, inputs):
    """The `size` real numbers of which mode "half" of a reverse transform, not scaled, is given: the imaginary parts of the first entry, and of n / 2, are passed over."""
    spec, axis = _parts(node, inputs)
    n = node.get("size")
    if n is None or n < 1:
        raise InvalidModelError(f"{where(node)}: size must be positive, got {n}")
    if not isinstance(spec.shape[axis], str) and not 1 <= spec.shape[axis]:
        raise ShapeError(f"{where(node)}: axis {axis} of {spec.shape} is empty")
    return [Spec(spec.dtype, (*spec.shape[:axis], n, *spec.shape[axis + 1 :]))]


@meaning("HermitianTransform")
def hermitian_transform_meaning(node, inputs):
    """NumPy's, in float64."""
    return [np.asarray(np.fft.irfft(_numbers(inputs), node.get("size"), axis=node.get("axis"), norm="forward"), inputs[0].dtype)]
