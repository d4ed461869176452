"""Upsampling and interpolation, one axis after another: entries fetched by index, two of them weighted where the mode is linear.

Where the entries of an axis lie is computed by nodes from its size, in float as torch computes it; a size that is fixed makes them constants.
Axes that keep their size are left alone, so they may be open.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from fastrnn.converters.torch_export.registry import Size, Tensor, converts
from fastrnn.converters.torch_export.site import Site

MOST_PARTS, MOST_ENTRIES = 10_000, 1 << 20  # of a factor as a quotient, and of an axis up to which it is tried


def _resized_axes(g: Site, x: Tensor, output_size, scale_factors) -> list[tuple[int, int | Size, float | None]]:
    """(axis, new size, what torch multiplies places by, where a factor is given) of each axis that changes."""
    before, after = x.fake.shape, g.node.meta["val"].shape
    axes = []
    for k, axis in enumerate(range(2, x.rank)):
        factor = scale_factors[k] if scale_factors else None
        if factor is None and isinstance(before[axis] == after[axis], bool) and str(before[axis]) == str(after[axis]):
            continue
        if output_size is not None:
            size = output_size[k]
        elif isinstance(after[axis], int):
            size = after[axis]
        elif (quotient := _quotient(factor)) is not None:
            size = g.product([g.size(x, axis), quotient.numerator])
            size = size if quotient.denominator == 1 else Size(g.emit("Div", size, g.ints(quotient.denominator)))
        else:
            raise g.refuse(f"by {factor} is only supported where the size of axis {axis} is fixed", before[axis])
        axes.append((axis, size, None if factor is None else 1 / factor))
    return axes


def _quotient(factor: float) -> Fraction | None:
    """The quotient by which whole numbers give the sizes that torch computes in float64, floor(n factor); None where there is none."""
    quotient, n = Fraction(factor).limit_denominator(MOST_PARTS), np.arange(1, MOST_ENTRIES)
    return quotient if np.array_equal(n * quotient.numerator // quotient.denominator, np.floor(n * float(factor)).astype(np.int64)) else None


def _float(g: Site, size: int | Size) -> str:
    return g.cast(size, "float32")


def _places(g: Site, size: int | Size) -> str:
    """0, 1, ... as floats."""
    return g.emit("Cast", g.emit("Range", *(g.cast(v, "int64") for v in (0, size, 1))), to="float32")


def _last(g: Site, n: int | Size) -> str:
    return g.emit("Sub", g.cast(n, "int64"), g.constant(1, "int64"))


@converts(*(f"aten.upsample_nearest{n}d.vec" for n in (1, 2, 3)), *(f"aten._upsample_nearest_exact{n}d.vec" for n in (1, 2, 3)))
def nearest(g: Site, x, output_size=None, scale_factors=None):
    """The entry at floor(place * ratio), or in the exact form at floor((place + 0.5) * ratio)."""
    y = x.name
    for axis, size, ratio in _resized_axes(g, x, output_size, scale_factors):
        n = g.size(x, axis)
        scale = g.constant(ratio, "float32") if ratio is not None else g.emit("Div", _float(g, n), _float(g, size))
        places = _places(g, size)
        if "exact" in g.target:
            places = g.emit("Add", places, g.constant(0.5, "float32"))
        index = g.emit("Cast", g.emit("Floor", g.emit("Mul", places, scale)), to="int64")
        y = g.emit("Gather", y, g.emit("Min", index, _last(g, n)), axis=axis)
    return g.emit("Identity", y) if y == x.name else y


@converts("aten.upsample_linear1d.vec", "aten.upsample_bilinear2d.vec", "aten.upsample_trilinear3d.vec")
def linear(g: Site, x, align_corners, output_size=None, scale_factors=None):
    """Between two neighbours, by how near each is."""
    y = x.name
    for axis, size, ratio in _resized_axes(g, x, output_size, scale_factors):
        n, places = g.size(x, axis), _places(g, size)
        if align_corners:
            gaps = g.emit("Max", g.emit("Sub", _float(g, size), g.constant(1, "float32")), g.constant(1, "float32"))
            scale = g.emit("Div", g.emit("Sub", _float(g, n), g.constant(1, "float32")), gaps)
            where = g.emit("Mul", places, scale)
        else:
            half = g.constant(0.5, "float32")
            scale = g.constant(ratio, "float32") if ratio is not None else g.emit("Div", _float(g, n), _float(g, size))
            where = g.emit("Max", g.emit("Sub", g.emit("Mul", g.emit("Add", places, half), scale), half), g.constant(0, "float32"))
        below = g.emit("Min", g.emit("Cast", where, to="int64"), _last(g, n))
        above = g.emit("Min", g.emit("Add", below, g.constant(1, "int64")), _last(g, n))
        share = g.emit("Unsqueeze", g.emit("Sub", where, g.emit("Cast", below, to="float32")), g.ints(*range(1, x.rank - axis)))
        rest = g.emit("Sub", g.constant(1, "float32"), share)
        y = g.emit("Add", g.emit("Mul", g.emit("Gather", y, below, axis=axis), rest), g.emit("Mul", g.emit("Gather", y, above, axis=axis), share))
    return g.emit("Identity", y) if y == x.name else y


# Of antialiasing (aten/src/ATen/native/UpSample.h): how many entries wide a filter is, and its weight at a distance.
FILTERS = {"bilinear": (1, lambda d: np.maximum(1 - np.abs(d), 0)),
           "bicubic": (2, lambda d: np.where(np.abs(d) < 1, (1.5 * np.abs(d) - 2.5) * d * d + 1, np.where(np.abs(d) < 2, ((-0.5 * np.abs(d) + 2.5) * np.abs(d) - 4) * np.abs(d) + 2, 0)))}  # fmt: skip


@converts(*(f"aten._upsample_{kind}2d_aa.{form}" for kind in FILTERS for form in ("default", "vec")))
def antialiased(g: Site, x, align_corners, output_size=None, scale_factors=None, scales_h=None, scales_w=None):
    """A matrix for each axis, whose rows weigh the entries that a filter, as wide as a step in them, reaches."""
    before, after = x.shape[2:], g.node.meta["val"].shape[2:]
    if None in before or not all(isinstance(n, int) for n in after):
        raise g.refuse("is only supported for fixed sizes", *x.fake.shape[2:])
    width, weigh = FILTERS["bicubic" if "bicubic" in g.target else "bilinear"]
    matrices = []
    for n, size, factor in zip(before, after, scale_factors or (scales_h, scales_w)):
        step = (n - 1) / max(size - 1, 1) if align_corners else n / size if factor is None else 1 / factor
        reach, centre = width * max(step, 1), step * (np.arange(size)[:, None] + 0.5)
        first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
        last = np.minimum((centre + reach + 0.5).astype(np.int64), n)
        at = np.arange(n)
        weights = weigh((at - centre + 0.5) / max(step, 1)) * ((at >= first) & (at < last))
        matrices.append(g.graph.constant((weights / weights.sum(1, keepdims=True)).astype(g.dtype)))
    rows, columns = matrices
    return g.emit("MatMul", rows, g.emit("MatMul", x, g.emit("Transpose", columns, perm=[1, 0])))
