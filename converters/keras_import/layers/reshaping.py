"""Layers that move entries."""

from __future__ import annotations

import math

from fastrnn.converters.keras_import.registry import DROP, layer
from fastrnn.converters.keras_import.site import LAST, Site, Tensor


def _last(g: Site) -> bool:
    """Whether channels come last."""
    return g.choice("data_format", "channels_last", None, "channels_last", "channels_first") != "channels_first"


@layer("Flatten", masks=DROP)
def flatten(g: Site, x: Tensor) -> Tensor:
    """All axes but the batch in one."""
    if not _last(g) and x.rank > 2:
        x = g.transpose(x, 0, *range(2, x.rank), 1)
    if x.rank == 1:
        return g.emit("Unsqueeze", x, g.ints(1))
    return g.reshape(x, 0, math.prod(g.known(x, k) for k in range(1, x.rank))) if x.rank > 2 else x


@layer("Reshape", masks=DROP)
def reshape(g: Site, x: Tensor) -> Tensor:
    """To target_shape behind the batch."""
    target = g.option("target_shape")
    if not isinstance(target, list) or any(isinstance(d, bool) or not isinstance(d, int) or d < -1 for d in target) or target.count(-1) > 1:
        raise g.invalid(f"target_shape cannot be {target!r}")
    return g.reshape(x, 0, *target)


@layer("Permute", masks=DROP)
def permute(g: Site, x: Tensor) -> Tensor:
    """Axes in another order, counted from 1."""
    dims = g.option("dims")
    if not isinstance(dims, list) or sorted(map(str, dims)) != sorted(map(str, range(1, x.rank))):
        raise g.invalid(f"dims={dims!r} does not fit {x.shape}")
    return g.transpose(x, 0, *dims)


@layer("RepeatVector", masks=DROP)
def repeat_vector(g: Site, x: Tensor) -> Tensor:
    """(B, F) n times: (B, n, F)."""
    if x.rank != 2:
        raise g.invalid(f"it takes (B, F), got {x.shape}")
    return g.emit("Expand", g.emit("Unsqueeze", x, g.ints(1)), g.ints(1, g.whole("n"), 1))


def _pairs(g: Site, name: str, n: int) -> list[tuple[int, int]]:
    """An option of (before, after) for n axes, or one number for all or each."""
    given = g.option(name, 1)
    given = [given] * n if isinstance(given, int) else given
    if n == 1 and isinstance(given, list) and len(given) == 2:
        given = [given]
    pairs = (
        [(p, p) if isinstance(p, int) else tuple(p) for p in given]
        if isinstance(given, list) and all(isinstance(p, (int, list)) for p in given)
        else []
    )
    if len(pairs) != n or any(len(p) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < 2**31 for v in p) for p in pairs):
        raise g.invalid(f"{name} cannot be {given!r}")
    return pairs


@layer("ZeroPadding1D", "ZeroPadding2D", masks=DROP)
def zero_padding(g: Site, x: Tensor) -> Tensor:
    """Zeros around."""
    pairs = _pairs(g, "padding", 1 if "1D" in g.layer.kind else 2)
    first = 1 if _last(g) else 2
    before, after = [0] * x.rank, [0] * x.rank
    for k, (a, b) in enumerate(pairs):
        before[first + k], after[first + k] = a, b
    return g.emit("Pad", x, g.ints(*before, *after))


@layer("Cropping1D", "Cropping2D", masks=DROP)
def cropping(g: Site, x: Tensor) -> Tensor:
    """Entries cut off."""
    pairs = _pairs(g, "cropping", 1 if "1D" in g.layer.kind else 2)
    first = 1 if _last(g) else 2
    for k, (a, b) in enumerate(pairs):
        if a or b:
            x = g.cut(x, first + k, a, -b if b else LAST)
    return x


@layer("UpSampling1D", masks=DROP)
def up_sampling(g: Site, x: Tensor) -> Tensor:
    """Each step several times."""
    size = g.whole("size", 2)
    width = g.known(x, 2)
    wide = g.emit("Expand", g.emit("Unsqueeze", x, g.ints(2)), g.ints(1, 1, size, 1))
    leading = g.emit("Slice", g.emit("Shape", x), g.ints(0), g.ints(1), g.ints(0))
    return g.emit("Reshape", wide, g.emit("Concat", leading, g.ints(-1, width), axis=0))
