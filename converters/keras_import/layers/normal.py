"""Normalisations, with stored statistics where there are any."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.converters.keras_import.registry import Variable, layer
from fastrnn.converters.keras_import.site import Site, Tensor


def _affine(config: Mapping) -> list[Variable]:
    return [Variable(name) for name, said in (("gamma", "scale"), ("beta", "center")) if config.get(said, True)]


def _axes(g: Site, x: Tensor, default=-1) -> list[int]:
    given = g.option("axis", default)
    given = [given] if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(given, list) or any(isinstance(a, bool) or not isinstance(a, int) or not -x.rank <= a < x.rank for a in given):
        raise g.invalid(f"axis={given!r} does not fit {x.shape}")
    return [a % x.rank for a in given]


def _scaled(g: Site, x: Tensor, scale: np.ndarray, shift: np.ndarray, axis: int) -> Tensor:
    """x scale + shift along one axis."""
    shape = (-1, *(1,) * (x.rank - 1 - axis))
    y = g.emit("Mul", x, g.stored("scale", scale.astype(np.float32).reshape(shape)))
    return g.emit("Add", y, g.stored("shift", shift.astype(np.float32).reshape(shape)))


@layer(
    "BatchNormalization",
    "SyncBatchNormalization",
    variables=lambda config: [*_affine(config), Variable("moving_mean", False), Variable("moving_variance", False)],
)
def batch_normalization(g: Site, x: Tensor) -> Tensor:
    """With the moving statistics."""
    axes = _axes(g, x)
    if len(axes) != 1 or g.option("renorm"):
        raise g.refuse("over several axes, or with renorm, is not supported")
    n = g.known(x, axes[0])
    mean, variance = (g.array(name, (n,)).astype(np.float64) for name in ("moving_mean", "moving_variance"))
    scale = 1 / np.sqrt(variance + g.number("epsilon", 1e-3))
    if g.flag("scale", True):
        scale = scale * g.array("gamma", (n,))
    shift = -mean * scale
    if g.flag("center", True):
        shift = shift + g.array("beta", (n,))
    return _scaled(g, x, scale, shift, axes[0])


@layer("LayerNormalization", variables=_affine)
def layer_normalization(g: Site, x: Tensor) -> Tensor:
    """Over the last axes."""
    axes = sorted(_axes(g, x))
    if axes != list(range(x.rank - len(axes), x.rank)):
        raise g.refuse(f"over axes {axes} of {x.shape}, which are not the last, is not supported")
    if g.option("rms_scaling"):
        raise g.refuse("rms_scaling is not supported")
    shape = tuple(g.known(x, a) for a in axes)
    gamma = g.weight("gamma", shape) if g.flag("scale", True) else g.floats(np.ones(shape))
    beta = g.weight("beta", shape) if g.flag("center", True) else None
    return g.emit("LayerNormalization", x, gamma, beta, axis=axes[0] - x.rank, epsilon=g.number("epsilon", 1e-3))


@layer("UnitNormalization")
def unit_normalization(g: Site, x: Tensor) -> Tensor:
    """By the L2 norm; squares that sum to less than 1e-12 count as that."""
    total = g.emit("ReduceSumSquare", x, g.ints(*_axes(g, x)), keepdims=1)
    return g.emit("Div", x, g.emit("Sqrt", g.emit("Max", total, g.floats(1e-12))))


def _statistics(config: Mapping) -> list[Variable]:
    return [] if config.get("mean") is not None else [Variable("mean", False), Variable("variance", False), Variable("count", False)]


@layer("Normalization", variables=_statistics)
def normalization(g: Site, x: Tensor) -> Tensor:
    """By the mean and variance that it was adapted to, or was given."""
    axes = _axes(g, x) if g.option("axis", -1) is not None else []
    if len(axes) > 1 or g.option("invert"):
        raise g.refuse("over several axes, or inverted, is not supported")
    n = g.known(x, axes[0]) if axes else 1
    if g.option("mean") is not None:
        try:
            mean, variance = (np.broadcast_to(np.array(g.option(name), np.float64).reshape(-1), (n,)) for name in ("mean", "variance"))
        except (TypeError, ValueError) as error:
            raise g.invalid(f"its mean and variance do not fit: {error}") from error
    else:
        g.option("variance")
        mean, variance = (g.array(name).astype(np.float64).reshape(-1) for name in ("mean", "variance"))
        if {mean.size, variance.size} != {n}:
            raise g.invalid(f"its mean and variance must have {n} entries, they have {mean.size} and {variance.size}")
    scale = 1 / np.maximum(np.sqrt(variance), 1e-7)
    return _scaled(g, g.cast(x, "float32"), scale, -mean * scale, axes[0] if axes else x.rank - 1)
