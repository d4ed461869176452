"""Fourier transforms of one axis, real and imaginary parts apart, not scaled; and complex numbers at a model's ends, which are pairs inside."""

from __future__ import annotations

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.elementwise import FLOATS
from fastrnn.model.ops.registry import ANY_DIM, COMPLEX, Spec, always, axis_of, meaning, op, require, rows, same_dim, where


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


@op("AsComplex", apart=rows)
def as_complex(node, inputs):
    """Complex numbers whose parts lie along the last axis of two, which goes: the same memory."""
    pairs = require(node, inputs[0], "the input", tuple(COMPLEX))
    if not pairs.rank or not same_dim(pairs.shape[-1], 2):
        raise ShapeError(f"{where(node)}: the last axis must hold two parts, got {pairs.shape}")
    return [Spec(COMPLEX[pairs.dtype], pairs.shape[:-1])]


@meaning("AsComplex")
def as_complex_meaning(node, inputs):
    """Both parts of a number lie side by side."""
    return [np.ascontiguousarray(inputs[0]).view(COMPLEX[inputs[0].dtype.name])[..., 0]]


@op("AsReal", apart=always)
def as_real(node, inputs):
    """The parts of complex numbers along a new last axis: the same memory."""
    numbers = require(node, inputs[0], "the input", tuple(COMPLEX.values()))
    return [Spec(next(real for real, dtype in COMPLEX.items() if dtype == numbers.dtype), (*numbers.shape, 2))]


@meaning("AsReal")
def as_real_meaning(node, inputs):
    """Both parts of a number lie side by side."""
    return [np.stack([inputs[0].real, inputs[0].imag], -1)]
