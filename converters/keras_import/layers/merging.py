"""Layers of several inputs."""

from __future__ import annotations

from fastrnn.converters.keras_import.registry import DROP, OWN, layer
from fastrnn.converters.keras_import.site import Site, Tensor

ELEMENTWISE = {"Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Average": "Mean", "Maximum": "Max", "Minimum": "Min"}


def _tensors(g: Site, xs, least: int = 2) -> list[Tensor]:
    if not isinstance(xs, list) or len(xs) < least or not all(isinstance(x, Tensor) for x in xs):
        raise g.invalid(f"it takes a list of at least {least} tensors")
    return xs


def joined_mask(g: Site, xs: list[Tensor]) -> Tensor | None:
    """Of inputs that are merged: in Keras 2 where all masks hold, in Keras 3 where one does; one that has none counts in neither."""
    masks = [x.mask for x in xs if x.mask is not None]
    if not masks or g.graph.version[0] >= 3 and len(masks) < len(xs):
        return None
    result = masks[0]
    for mask in masks[1:]:
        if mask.name != result.name:
            result = g.emit("Or" if g.graph.version[0] >= 3 else "And", result, mask)
    return result


@layer(*ELEMENTWISE, masks=OWN)
def merge(g: Site, xs) -> Tensor:
    """Entry by entry; those of fewer axes get axes behind the batch."""
    xs = _tensors(g, xs)
    if g.layer.kind == "Subtract" and len(xs) != 2:
        raise g.invalid(f"it takes 2 tensors, got {len(xs)}")
    if g.layer.kind in MASKED and g.graph.version[0] >= 3 and any(x.mask is not None for x in xs):
        if any(x.mask is not None and x.rank != x.mask.rank + 1 for x in xs) or len({x.rank for x in xs}) > 1:
            raise g.refuse(f"tensors {[x.shape for x in xs]} with masks are not supported, only of axes (B, T, features)")
        return MASKED[g.layer.kind](g, xs)
    rank, spread = max(x.rank for x in xs), []
    for x in xs:
        spread.append(x if x.rank == rank else g.emit("Unsqueeze", x, g.ints(*range(1, 1 + rank - x.rank))))
    if ELEMENTWISE[g.layer.kind] in ("Mean", "Max", "Min"):
        y = g.emit(ELEMENTWISE[g.layer.kind], *spread)
    else:
        y = spread[0]
        for x in spread[1:]:
            y = g.emit(ELEMENTWISE[g.layer.kind], y, x)
    return y.masked(joined_mask(g, xs))


def _kept(g: Site, mask: Tensor, x: Tensor, other: Tensor | str) -> Tensor:
    """x (B, T, F) at steps that a mask keeps, else another."""
    return g.emit("Where", g.emit("Unsqueeze", mask, g.ints(mask.rank)), x, other)


def _masked_product(g: Site, xs: list[Tensor]) -> Tensor:
    """A step that a factor's mask leaves out counts as 1 there, and is 0 where all masks do."""
    factors = [x if x.mask is None else _kept(g, x.mask, x, g.floats(1)) for x in xs]
    y = factors[0]
    for x in factors[1:]:
        y = g.emit("Mul", y, x)
    mask = joined_mask(g, xs)
    return y.masked(None) if mask is None else _kept(g, mask, y, g.floats(0)).masked(mask)


def _masked_extreme(g: Site, xs: list[Tensor]) -> Tensor:
    """A step that a mask leaves out takes no part; where both of two do, the first stays."""
    y = xs[0]
    for x in xs[1:]:
        other = x if x.mask is None else _kept(g, x.mask, x, y)
        mine = y if y.mask is None else _kept(g, y.mask, y, other)
        mask = joined_mask(g, [y, x])
        y = g.emit(ELEMENTWISE[g.layer.kind], mine, other).masked(mask)
    return y


MASKED = {"Multiply": _masked_product, "Maximum": _masked_extreme, "Minimum": _masked_extreme}  # whose results Keras 3 has follow their masks


@layer("Concatenate", masks=OWN)
def concatenate(g: Site, xs) -> Tensor:
    """Along an axis, features if none is given."""
    xs, axis = _tensors(g, xs, 1), g.option("axis", -1)
    if isinstance(axis, bool) or not isinstance(axis, int) or not -xs[0].rank <= axis < xs[0].rank:
        raise g.invalid(f"axis={axis!r} does not fit {xs[0].shape}")
    y = g.emit("Concat", *xs, axis=axis % xs[0].rank) if len(xs) > 1 else xs[0]
    if all(x.mask is None for x in xs):
        return y.masked(None)
    if axis % xs[0].rank != xs[0].rank - 1:
        if any(x.mask is None for x in xs) or axis % xs[0].rank != 1:
            raise g.refuse(f"along axis {axis}, tensors with masks beside others are not supported")
        return y.masked(g.emit("Concat", *(x.mask for x in xs), axis=1))
    if any(x.mask is None for x in xs) and g.graph.version[0] >= 3:
        return y.masked(None)  # what has no mask counts as kept, and one kept tensor keeps the step
    return y.masked(joined_mask(g, xs))


@layer("Dot", masks=DROP)
def dot(g: Site, xs) -> Tensor:
    """Sums of products over one axis of each, row by row of the batch."""
    a, b = _tensors(g, xs)
    axes = g.option("axes")
    axes = [axes, axes] if isinstance(axes, int) and not isinstance(axes, bool) else axes
    if (
        len(xs) != 2
        or not isinstance(axes, list)
        or len(axes) != 2
        or any(isinstance(k, bool) or not isinstance(k, int) or not -x.rank <= k < x.rank for k, x in zip(axes, xs))
    ):
        raise g.invalid(f"axes={axes!r} does not fit {[x.shape for x in xs]}")
    axes = [k % x.rank for k, x in zip(axes, xs)]
    if 0 in axes:
        raise g.refuse("over the batch is not supported")
    if g.flag("normalize"):
        a, b = (_normalised(g, x, k) for x, k in zip((a, b), axes))
    letters = iter("cdefghij")
    terms = [["b", *(("z" if k == axis else next(letters)) for k in range(1, x.rank))] for x, axis in zip((a, b), axes)]
    result = "b" + "".join(k for term in terms for k in term[1:] if k != "z")
    y = g.emit("Einsum", a, b, equation=f"{''.join(terms[0])},{''.join(terms[1])}->{result}")
    return y if y.rank > 1 else g.emit("Unsqueeze", y, g.ints(1))


def _normalised(g: Site, x: Tensor, axis: int) -> Tensor:
    """By its L2 norm along an axis; squares that sum to less than 1e-12 count as that."""
    total = g.emit("ReduceSumSquare", x, g.ints(axis), keepdims=1)
    return g.emit("Div", x, g.emit("Sqrt", g.emit("Max", total, g.floats(1e-12))))
