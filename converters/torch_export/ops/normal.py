"""Reductions and normalisations."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.torch_export.registry import Size, Tensor, converts
from fastrnn.converters.torch_export.site import Site


@converts("aten.softmax.int", "aten.log_softmax.int", "aten._softmax.default", "aten._log_softmax.default", "aten._safe_softmax.default")
def softmax(g: Site, x, dim):
    """Along one axis; of a number, as of an axis of 1. The safe one gives 0 where all entries are -inf."""
    op, y = "LogSoftmax" if "log" in g.target else "Softmax", g.cast(x, g.dtype)
    if not x.rank:
        return g.emit("Reshape", g.emit(op, g.emit("Reshape", y, g.ints(1)), axis=0), g.ints())
    weights = g.emit(op, y, axis=x.axis(dim))
    if "safe" not in g.target:
        return weights
    empty = g.emit("Equal", g.emit("ReduceMax", y, g.ints(x.axis(dim)), keepdims=1), g.constant(-np.inf, g.dtype))
    return g.emit("Where", empty, g.constant(0, g.dtype), weights)


def _axes(x: Tensor, dim) -> list[int]:
    """The axes that a reduction is over; none said, all; a number has none."""
    if not x.rank:
        return []
    dims = [dim] if isinstance(dim, int) else dim or range(x.rank)
    return [x.axis(d) for d in dims]


def _reduce(g: Site, op: str, x: str, axes: list[int], keepdim: bool) -> str:
    return g.emit(op, x, g.ints(*axes), keepdims=int(keepdim)) if axes else g.emit("Identity", x)


REDUCTIONS = {"sum": "ReduceSum", "mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin", "prod": "ReduceProd", "max": "ReduceMax",
              "min": "ReduceMin"}  # fmt: skip


@converts(
    "aten.sum.default",
    "aten.sum.dim_IntList",
    "aten.mean.default",
    "aten.mean.dim",
    "aten.amax.default",
    "aten.amin.default",
    "aten.prod.default",
    "aten.prod.dim_int",
    "aten.max.default",
    "aten.min.default",
)
def reduce(g: Site, x, dim=None, keepdim=False):
    """In the result's dtype."""
    return _reduce(g, REDUCTIONS[g.target.split(".")[1]], g.cast(x, g.dtype), _axes(x, dim), keepdim)


@converts("aten.max.dim", "aten.min.dim")
def extreme(g: Site, x, dim, keepdim=False):
    """The entry, and where it stands."""
    if not x.rank:
        return [g.emit("Identity", x), g.constant(0, "int64")]
    kind = "Max" if "max" in g.target else "Min"
    at = g.emit(f"Arg{kind}", x, axis=x.axis(dim), keepdims=int(keepdim)) if g.uses(1) else None
    return [_reduce(g, f"Reduce{kind}", x.name, [x.axis(dim)], keepdim), at]


@converts("aten.argmax.default", "aten.argmin.default")
def arg(g: Site, x, dim=None, keepdim=False):
    """Where the largest or least entry stands; without dim, among all."""
    op = "ArgMax" if "max" in g.target else "ArgMin"
    if dim is None or not x.rank:
        at = g.emit(op, g.emit("Reshape", x, g.ints(-1)), axis=0, keepdims=0)
        return g.emit("Reshape", at, g.ints(*(1,) * x.rank)) if keepdim else at
    return g.emit(op, x, axis=x.axis(dim), keepdims=int(keepdim))


@converts("aten.any.default", "aten.any.dim", "aten.any.dims", "aten.all.default", "aten.all.dim", "aten.all.dims")
def any_(g: Site, x, dim=None, keepdim=False):
    """Whether any is, or none is not: counted, so that of no entries it is as torch has it."""
    truth, zero = g.cast(x, "bool"), g.constant(0, "int64")
    counted = truth if "any" in g.target else g.emit("Not", truth)
    some = g.emit("Greater", _reduce(g, "ReduceSum", g.emit("Cast", counted, to="int64"), _axes(x, dim), keepdim), zero)
    return g.cast(some if "any" in g.target else g.emit("Not", some), g.dtype, "bool")


def _variance(g: Site, x: Tensor, axes: list[int], correction, keepdim: bool) -> tuple[str, str]:
    """(variance, mean), from centred squares."""
    mean = g.emit("ReduceMean", x, g.ints(*axes), keepdims=1)
    centred = g.emit("Sub", x, mean)
    total = _reduce(g, "ReduceSum", g.emit("Mul", centred, centred), axes, keepdim)
    n = g.product([g.size(x, a) for a in axes])
    if isinstance(n, Size):
        left = g.emit("Max", g.emit("Sub", g.cast(n, g.dtype), g.constant(correction, g.dtype)), g.constant(0, g.dtype))
        return g.emit("Div", total, left), mean
    return g.emit("Div", total, g.constant(max(0, n - correction), g.dtype)), mean


@converts(
    "aten.var.correction", "aten.std.correction", "aten.var.dim", "aten.std.dim", "aten.var.default", "aten.std.default", "aten.var_mean.correction"
)
def variance(g: Site, x, dim=None, correction=1, unbiased=True, keepdim=False):
    """Or its root."""
    correction = 1 if correction is None else correction
    var, mean = _variance(g, x, _axes(x, dim), correction if unbiased else 0, keepdim)
    if "var_mean" in g.target:
        return [var, mean if keepdim else _reduce(g, "ReduceMean", x.name, _axes(x, dim), False)]
    return g.emit("Sqrt", var) if "std" in g.target else var


@converts("aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim", "aten.norm.Scalar")
def norm(g: Site, x, ord=None, p=2, dim=None, keepdim=False):  # the schema's names
    """Of any order."""
    return magnitude(g, g.cast(x, g.dtype), p if ord is None else ord, _axes(x, dim), keepdim)


def magnitude(g: Site, y: str, order: float, axes: list[int], keepdim: bool = False) -> str:
    """The root of the sum of powers; the largest or smallest magnitude; of order 0, how many are not 0."""
    if order == 2 and axes:
        return _reduce(g, "ReduceL2", y, axes, keepdim)
    sizes = g.emit("Abs", y)
    if abs(order) == float("inf"):
        return _reduce(g, "ReduceMax" if order > 0 else "ReduceMin", sizes, axes, keepdim)
    if order == 0:
        return _reduce(g, "ReduceSum", g.emit("Cast", g.emit("Not", g.emit("Equal", y, g.constant(0, g.dtype))), to=g.dtype), axes, keepdim)
    if order == 1 or not axes:
        return _reduce(g, "ReduceSum", sizes, axes, keepdim)
    total = _reduce(g, "ReduceSum", g.emit("Pow", sizes, g.constant(order, g.dtype)), axes, keepdim)
    return g.emit("Pow", total, g.constant(1 / order, g.dtype))


@converts("aten.dist.default", "aten._cdist_forward.default", "aten._pdist_forward.default")
def distance(g: Site, x=None, other=None, x1=None, x2=None, p=2, compute_mode=None):
    """The norm of a difference: of two tensors, of each row of one and each of another, or of the pairs of rows of one. compute_mode is about speed."""
    if other is not None:
        a, b = g.cast(x, g.dtype), g.cast(other, g.dtype)
        return magnitude(g, g.emit("Sub", a, b), p, list(range(max(x.rank, other.rank))))
    if x1 is not None:
        difference = g.emit("Sub", g.emit("Unsqueeze", x1, g.ints(x1.rank - 1)), g.emit("Unsqueeze", x2, g.ints(x2.rank - 2)))
        return magnitude(g, difference, p, [max(x1.rank, x2.rank)])
    if x.shape[0] is None:
        raise g.refuse("of rows whose number varies", x.fake.shape[0])
    first, second = (g.ints(*k.tolist()) for k in np.triu_indices(x.shape[0], 1))
    return magnitude(g, g.emit("Sub", g.emit("Gather", x, first, axis=0), g.emit("Gather", x, second, axis=0)), p, [1])


@converts("aten.logsumexp.default")
def logsumexp(g: Site, x, dim, keepdim=False):
    """Shifted by the largest entry."""
    axes = _axes(x, dim)
    most, zero = _reduce(g, "ReduceMax", x.name, axes, True), g.constant(0, g.dtype)
    most = g.emit("Where", g.emit("Equal", g.emit("Abs", most), g.constant(np.inf, g.dtype)), zero, most)  # inf - inf is none
    total = g.emit("Add", g.emit("Log", _reduce(g, "ReduceSum", g.emit("Exp", g.emit("Sub", x, most)), axes, True)), most)
    return total if keepdim or not axes else g.emit("Squeeze", total, g.ints(*axes))


@converts("aten.cumsum.default")
def cumsum(g: Site, x, dim):
    """Sums so far."""
    if not x.rank:
        return g.cast(x, g.dtype)
    return g.emit("CumSum", g.cast(x, g.dtype), g.constant(x.axis(dim), "int64"))


def _channels(g: Site, y: str, rank: int, weight, bias) -> str:
    """Times weight plus bias, by the channel on axis 1."""
    for op, given in (("Mul", weight), ("Add", bias)):
        if given is not None:
            y = g.emit(op, y, g.emit("Reshape", given, g.ints(-1, *(1,) * (rank - 2))))
    return y


@converts("aten.layer_norm.default", "aten.native_layer_norm.default")
def layer_norm(g: Site, x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Over the last axes."""
    scale = g.constant([1], g.dtype) if weight is None else weight
    y = g.emit("LayerNormalization", x, scale, bias, axis=-len(normalized_shape), epsilon=float(eps))
    if "native" not in g.target:
        return y
    return [y, *_mean_and_scale(g, x.name, list(range(x.rank - len(normalized_shape), x.rank)), eps)]


def _mean_and_scale(g: Site, x: str, axes: list[int], eps: float) -> tuple[str | None, str | None]:
    """What else a native norm gives, where it is read: the mean, and 1 / sqrt(variance + eps), each axis kept."""
    if not (g.uses(1) or g.uses(2)):
        return None, None
    mean = g.emit("ReduceMean", x, g.ints(*axes), keepdims=1)
    centred = g.emit("Sub", x, mean)
    variance = g.emit("ReduceMean", g.emit("Mul", centred, centred), g.ints(*axes), keepdims=1)
    return mean, g.emit("Reciprocal", g.emit("Sqrt", g.emit("Add", variance, g.constant(eps, g.dtype))))


def _grouped(g: Site, x: Tensor, groups: int | Size, weight, bias, eps: float) -> str:
    """Each group of channels as one row of a layer norm."""
    rows = g.emit("Reshape", x, g.sizes([g.size(x, 0), groups, -1]))
    y = g.emit("Reshape", g.emit("LayerNormalization", rows, g.constant([1], g.dtype), axis=-1, epsilon=float(eps)), g.emit("Shape", x))
    return _channels(g, y, x.rank, weight, bias)


@converts("aten.group_norm.default")
def group_norm(g: Site, x, num_groups, weight=None, bias=None, eps=1e-5):
    """Over groups of channels."""
    return _grouped(g, x, num_groups, weight, bias, eps)


@converts("aten.native_group_norm.default")
def native_group_norm(g: Site, x, weight, bias, N, C, HxW, group, eps):
    """The same, with the mean and scale (N, groups) of each group."""
    rows = g.emit("Reshape", x, g.sizes([g.size(x, 0), group, -1]))
    beside = [v and g.emit("Squeeze", v, g.ints(2)) for v in _mean_and_scale(g, rows, [2], eps)]
    return [_grouped(g, x, group, weight, bias, eps), *beside]


@converts("aten.instance_norm.default")
def instance_norm(g: Site, x, weight, bias, running_mean, running_var, use_input_stats, eps):
    """Each channel by itself, or with stored statistics."""
    if not use_input_stats:
        return _batch(g, x, weight, bias, running_mean, running_var, eps)
    return _grouped(g, x, g.size(x, 1), weight, bias, eps)


def _batch(g: Site, x: Tensor, weight, bias, mean, var, eps: float) -> str:
    n = x.shape[1]
    scale, shift = (given or g.constant(np.full(n, k), g.dtype) for given, k in ((weight, 1), (bias, 0)))
    return g.emit("BatchNormalization", x, scale, shift, mean, var, epsilon=float(eps))


@converts("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default", "aten.native_batch_norm.default")
def batch_norm(g: Site, x, weight, bias, running_mean, running_var, training=False, eps=1e-5):
    """With the stored statistics, or, where there are none, the batch's own. Stored ones that the call would change are refused."""
    if training and running_mean is not None:
        raise g.refuse("it changes the statistics that it keeps; fastrnn converts batch norm in eval mode")
    if running_mean is not None:
        y, beside = _batch(g, x, weight, bias, running_mean, running_var, eps), (None, None)
    else:
        y, *beside = _own_statistics(g, x, weight, bias, eps)
    return [y, *beside] if "native" in g.target else y


@converts(
    "aten._native_batch_norm_legit.no_stats", "aten._native_batch_norm_legit_functional.default", "aten._batch_norm_with_update_functional.default"
)
def batch_norm_of_batches(g: Site, x, weight, bias, training=True, momentum=0.1, eps=1e-5, running_mean=None, running_var=None):
    """With the batch's statistics; where it keeps some, also those after the call."""
    if not training and "update" not in g.target:
        return [_batch(g, x, weight, bias, running_mean, running_var, eps), None, None, running_mean.name, running_var.name]
    y, mean, scale = _own_statistics(g, x, weight, bias, eps)
    if running_mean is None:
        return [y, mean, scale]
    axes = [k for k in range(x.rank) if k != 1]
    n = g.product([g.size(x, k) for k in axes])
    centred = g.emit("Sub", x, g.emit("ReduceMean", x, g.ints(*axes), keepdims=1))
    count = g.cast(n, g.dtype)
    variance = g.emit(
        "Div", g.emit("ReduceSum", g.emit("Mul", centred, centred), g.ints(*axes), keepdims=0), g.emit("Sub", count, g.constant(1, g.dtype))
    )
    after = [
        g.emit("Add", g.emit("Mul", old, g.constant(1 - momentum, g.dtype)), g.emit("Mul", new, g.constant(momentum, g.dtype)))
        for old, new in ((running_mean, mean), (running_var, variance))
    ]
    return [y, mean, scale, g.constant([], "uint8"), *after] if "update" in g.target else [y, mean, scale, *after]


def _own_statistics(g: Site, x: Tensor, weight, bias, eps: float) -> tuple[str, str, str]:
    """A batch norm by the batch, the mean of each channel (C,), and 1 / sqrt(variance + eps)."""
    axes = [k for k in range(x.rank) if k != 1]
    mean = g.emit("ReduceMean", x, g.ints(*axes), keepdims=1)
    centred = g.emit("Sub", x, mean)
    variance = g.emit("ReduceMean", g.emit("Mul", centred, centred), g.ints(*axes), keepdims=1)
    scale = g.emit("Reciprocal", g.emit("Sqrt", g.emit("Add", variance, g.constant(eps, g.dtype))))
    y = _channels(g, g.emit("Mul", centred, scale), x.rank, weight, bias)
    return y, g.emit("Squeeze", mean, g.ints(*axes)), g.emit("Squeeze", scale, g.ints(*axes))


@converts("aten.rms_norm.default")
def rms_norm(g: Site, x, normalized_shape, weight=None, eps=None):
    """x / sqrt(mean of squares + eps)."""
    eps = float(np.finfo(g.dtype).eps) if eps is None else eps
    mean = g.emit("ReduceMean", g.emit("Mul", x, x), g.ints(*range(x.rank - len(normalized_shape), x.rank)), keepdims=1)
    y = g.emit("Div", x, g.emit("Sqrt", g.emit("Add", mean, g.constant(eps, g.dtype))))
    return y if weight is None else g.emit("Mul", y, weight)
