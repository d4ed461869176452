"""Reductions and normalisations."""

from __future__ import annotations

import numpy as np
from fastrnn.converters.torch_export.registry import Size, Tensor, converts
from fastrnn.converters.torch_export.site import Site


@converts("aten.softmax.int", "aten.log_softmax.int", "aten._softmax.default", "aten._log_softmax.default", "aten._safe_softmax.default")
def softmax(g: Site, x, dim):
    """Along one axis."""
    return g.emit("LogSoftmax" if "log" in g.target else "Softmax", g.cast(x, g.dtype), axis=x.axis(dim))


def _axes(x: Tensor, dim) -> list[int]:
    """The axes that a reduction is over; none said, all."""
    dims = [dim] if isinstance(dim, int) else dim or range(x.rank)
    return [x.axis(d) for d in dims]


def _reduce(g: Site, op: str, x: str, axes: list[int], keepdim: bool) -> str:
    return g.emit(op, x, g.ints(*axes), keepdims=int(keepdim)) if axes else g.emit("Identity", x)


REDUCTIONS = {"sum": "ReduceSum", "mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin", "prod": "ReduceProd", "max": "ReduceMax",
              "min": "ReduceMin"}


@converts("aten.sum.default", "aten.sum.dim_IntList", "aten.mean.default", "aten.mean.dim", "aten.amax.default", "aten.amin.default",
          "aten.prod.default",
          "aten.prod.dim_int", "aten.max.default", "aten.min.default")
def reduce(g: Site, x, dim=None, keepdim=False):
    """In the result's dtype."""
    return _reduce(g, REDUCTIONS[g.target.split(".")[1]], g.cast(x, g.dtype), _axes(x, dim), keepdim)


@converts("aten.max.dim", "aten.min.dim")
def extreme(g: Site, x, dim, keepdim=False):
    """The entry, and where it stands."""
    kind = "Max" if "max" in g.target else "Min"
    at = g.emit(f"Arg{kind}", x, axis=x.axis(dim), keepdims=int(keepdim)) if g.uses(1) else None
    return [_reduce(g, f"Reduce{kind}", x.name, [x.axis(dim)], keepdim), at]


@converts("aten.argmax.default", "aten.argmin.default")
def arg(g: Site, x, dim=None, keepdim=False):
    """Where the largest or least entry stands; without dim, among all."""
    op = "ArgMax" if "max" in g.target else "ArgMin"
    if dim is None:
        if keepdim:
            raise g.refuse("keepdim without dim is not supported")
        return g.emit(op, g.emit("Reshape", x, g.ints(-1)), axis=0, keepdims=0)
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


@converts("aten.var.correction", "aten.std.correction", "aten.var.dim", "aten.std.dim", "aten.var.default", "aten.std.default",
          "aten.var_mean.correction")
def variance(g: Site, x, dim=None, correction=1, unbiased=True, keepdim=False):
    """Or its root."""
    correction = 1 if correction is None else correction
    var, mean = _variance(g, x, _axes(x, dim), correction if unbiased else 0, keepdim)
    if "var_mean" in g.target:
        return [var, mean if keepdim else _reduce(g, "ReduceMean", x.name, _axes(x, dim), False)]
    return g.emit("Sqrt", var) if "std" in g.target else var


@converts("aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim", "aten.norm.Scalar")
def norm(g: Site, x, ord=None, p=2, dim=None, keepdim=False):  # the schema's names
    """Of order 1 or 2, or the largest magnitude."""
    order = p if ord is None else ord
    if order == 2:
        return _reduce(g, "ReduceL2", x.name, _axes(x, dim), keepdim)
    if order in (1, float("inf")):
        return _reduce(g, "ReduceSum" if order == 1 else "ReduceMax", g.emit("Abs", x), _axes(x, dim), keepdim)
    raise g.refuse(f"of order {order} is not supported, only 1, 2 and inf")


@converts("aten.logsumexp.default")
def logsumexp(g: Site, x, dim, keepdim=False):
    """Shifted by the largest entry."""
    axes = _axes(x, dim)
    most, zero = _reduce(g, "ReduceMax", x.name, axes, True), g.constant(0, g.dtype)
    most = g.emit("Where", g.emit("Equal", g.emit("Abs", most), g.constant(np.inf, g.dtype)), zero, most)  # inf - inf is none
    total = g.emit("Add", g.emit("Log", _reduce(g, "ReduceSum", g.emit("Exp", g.emit("Sub", x, most)), axes, True)), most)
    return total if keepdim else g.emit("Squeeze", total, g.ints(*axes))


@converts("aten.cumsum.default")
def cumsum(g: Site, x, dim):
    """Sums so far."""
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
    return [y, None, None] if "native" in g.target else y


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
    """The same."""
    return [_grouped(g, x, group, weight, bias, eps), None, None]


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
    """With the stored statistics."""
    if training or running_mean is None:
        raise g.refuse("it takes statistics of the batch; fastrnn converts batch norm in eval mode, with stored ones")
    y = _batch(g, x, weight, bias, running_mean, running_var, eps)
    return [y, None, None] if "native" in g.target else y


@converts("aten.rms_norm.default")
def rms_norm(g: Site, x, normalized_shape, weight=None, eps=None):
    """x / sqrt(mean of squares + eps)."""
    eps = float(np.finfo(g.dtype).eps) if eps is None else eps
    mean = g.emit("ReduceMean", g.emit("Mul", x, x), g.ints(*range(x.rank - len(normalized_shape), x.rank)), keepdims=1)
    y = g.emit("Div", x, g.emit("Sqrt", g.emit("Add", mean, g.constant(eps, g.dtype))))
    return y if weight is None else g.emit("Mul", y, weight)
