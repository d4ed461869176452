"""fastrnn's ops in torch: for each op, (node, model) -> a function of its inputs as tensors, None where omitted.

Shapes are numbers by now, and so are axes, sizes and bounds, which are read here once; a computed one is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model, Node
from fastrnn.model.ops.indexing import pad_widths
from fastrnn.model.ops.linear import transposed_padding, window_of
from fastrnn.model.ops.normal import reduced_axes
from fastrnn.model.ops.shaping import permutation, slices
from fastrnn.model.recurrent import RECURRENT, RecurrentNode

FUNCTIONS: dict[str, Callable] = {
    "Identity": lambda x: x, "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softsign": F.softsign, "Softplus": F.softplus, "Exp": torch.exp,
    "Sqrt": torch.sqrt, "Log": torch.log, "Reciprocal": torch.reciprocal, "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos, "Floor": torch.floor,
    "Ceil": torch.ceil, "Round": torch.round, "Neg": torch.neg, "Abs": torch.abs, "Sign": torch.sign, "Not": torch.logical_not, "Silu": F.silu,
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Pow": torch.pow, "MatMul": torch.matmul, "Where": torch.where,
    "Div": lambda a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"), "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Equal": torch.eq, "Less": torch.lt, "LessOrEqual": torch.le, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "And": torch.logical_and, "Or": torch.logical_or,
    "Xor": torch.logical_xor, "Clip": lambda x, low=None, high=None: x if low is None and high is None else torch.clamp(x, low, high),
    "Min": lambda *a: reduce(torch.minimum, a), "Max": lambda *a: reduce(torch.maximum, a), "Sum": lambda *a: reduce(torch.add, a), "Mean": lambda *a: reduce(torch.add, a) / len(a),
}  # fmt: skip
FORMS: dict[str, Callable[[Node, Model], Callable]] = {
    "LeakyRelu": lambda node, model: lambda x: F.leaky_relu(x, node.get("alpha")),
    "Elu": lambda node, model: lambda x: F.elu(x, node.get("alpha")),
    "ThresholdedRelu": lambda node, model: lambda x: F.threshold(x, node.get("alpha"), 0.0),
    "HardSigmoid": lambda node, model: lambda x: torch.clamp(x * node.get("alpha") + node.get("beta"), 0, 1),
    "Gelu": lambda node, model: lambda x: F.gelu(x, approximate=node.get("approximate")),
    "Mod": lambda node, model: torch.fmod if node.get("fmod") else torch.remainder,
    "Cast": lambda node, model: lambda x: x.to(getattr(torch, node.get("to"))),
    "Softmax": lambda node, model: lambda x: F.softmax(x, node.get("axis")),
    "LogSoftmax": lambda node, model: lambda x: F.log_softmax(x, node.get("axis")),
    "Concat": lambda node, model: lambda *parts: torch.cat(parts, node.get("axis")),
    "Expand": lambda node, model: lambda x, _: x.expand(_shape(model, node.outputs[0])),
    "BatchNormalization": lambda node, model: lambda x, scale, b, mean, var: F.batch_norm(x, mean, var, scale, b, eps=node.get("epsilon")),
}
REDUCTIONS: dict[str, Callable] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceSumSquare": lambda x, axes, keep: torch.sum(x * x, axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.sqrt(torch.sum(x * x, axes, keep)),
}


def function_of(node: Node, model: Model) -> Callable:
    """The node as a function of tensors; raises UnsupportedModelError naming what torch has no form for here."""
    if node.op in FUNCTIONS:
        return FUNCTIONS[node.op]
    if node.op not in FORMS:
        raise UnsupportedModelError(f"torch: node {node.name!r} ({node.op}): this op has no form in torch here")
    return FORMS[node.op](node, model)


def form(*ops: str):
    """Registers a maker of functions."""

    def register(maker):
        FORMS.update(dict.fromkeys(ops, maker))
        return maker

    return register


def _refuse(node: Node, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"torch: node {node.name!r} ({node.op}): {why}")


def _shape(model: Model, name: str) -> tuple[int, ...]:
    return model.specs[name].shape


def _constant(node: Node, model: Model, k: int) -> np.ndarray | None:
    """Input k, which has to be a constant; None where omitted."""
    if not node.input(k):
        return None
    if node.input(k) not in model.weights:
        raise _refuse(node, f"input {node.input(k)!r} is computed")
    return model.weights[node.input(k)]


@form("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(node, model):
    shape = _shape(model, node.outputs[0])
    return lambda x, *_: x.reshape(shape)


@form("Transpose")
def _transpose(node, model):
    order = permutation(node, len(_shape(model, node.inputs[0])))
    return lambda x: x.permute(order)


@form("Slice")
def _slice(node, model):
    cuts = slices(node, _shape(model, node.inputs[0]), *(_constant(node, model, k) for k in range(1, len(node.inputs))))

    def run(x, *_):
        for axis, start, step, n in cuts:  # torch has no negative steps
            x = x.narrow(axis, start, n) if step == 1 else x.index_select(axis, torch.arange(start, start + step * n, step))
        return x

    return run


@form("Split")
def _split(node, model):
    sizes = [_shape(model, name)[node.get("axis")] for name in node.outputs]
    return lambda x, *_: torch.split(x, sizes, node.get("axis"))


@form("Gather")
def _gather(node, model):
    shape, axis = _shape(model, node.inputs[0]), node.get("axis") % len(_shape(model, node.inputs[0]))
    result = _shape(model, node.outputs[0])
    index = model.weights.get(node.inputs[1])
    if index is not None and index.ndim == 0:
        return lambda x, _: x.select(axis, int(index))
    return lambda x, at: x.index_select(axis, torch.where(at < 0, at + shape[axis], at).reshape(-1)).reshape(result)


@form("ScatterND")
def _scatter(node, model):
    return lambda x, at, updates: x.index_put(tuple(at.unbind(-1)), updates)


@form("Pad")
def _pad(node, model):
    mode, value, shape = node.get("mode"), _constant(node, model, 2), _shape(model, node.inputs[0])
    widths = pad_widths(node, len(shape), _constant(node, model, 1), _constant(node, model, 3))
    pads = [w for pair in reversed(widths) for w in pair]
    if mode == "constant":
        return lambda x, *_: F.pad(x, pads, value=0.0 if value is None else value.item())
    if mode == "wrap" or len(shape) not in (2, 3) or any(pads[2:]) or min(pads) < 0:
        raise _refuse(node, f"mode {mode!r} of {shape} by {widths}")
    return lambda x, *_: F.pad(x, pads[:2], "replicate" if mode == "edge" else mode)


@form(*REDUCTIONS)
def _reduction(node, model):
    axes = reduced_axes(node, len(_shape(model, node.inputs[0])), _constant(node, model, 1))
    if not axes:
        raise _refuse(node, "a reduction over no axes")
    return lambda x, *_: REDUCTIONS[node.op](x, axes, bool(node.get("keepdims")))


@form("LayerNormalization")
def _layer_norm(node, model):
    shape = _shape(model, node.inputs[0])
    normal = shape[node.get("axis") % len(shape) :]
    if all(_shape(model, name) == normal for name in node.inputs[1:] if name):
        return lambda x, scale, b=None: F.layer_norm(x, normal, scale, b, node.get("epsilon"))
    return lambda x, scale, b=0.0: F.layer_norm(x, normal, eps=node.get("epsilon")) * scale + b


@form("Gemm")
def _gemm(node, model):
    alpha, beta, left, right = (node.get(name) for name in ("alpha", "beta", "transA", "transB"))
    if alpha == beta == 1 and right and not left and len(_shape(model, node.input(2)) if node.input(2) else (0,)) == 1:
        return F.linear
    return lambda a, b, c=0.0: alpha * ((a.T if left else a) @ (b.T if right else b)) + beta * c


@form("Conv")
def _conv(node, model):
    x, w = (_shape(model, name) for name in node.inputs[:2])
    n, window = len(w) - 2, window_of(node, w[2:], x[2:])
    run = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    options = {"stride": window.strides, "dilation": window.dilations, "groups": node.get("group")}
    if window.before == window.after:
        return lambda x, w, b=None: run(x, w, b, padding=window.before, **options)
    pads = [p for pair in reversed(list(zip(window.before, window.after))) for p in pair]
    return lambda x, w, b=None: run(F.pad(x, pads), w, b, **options)


@form("ConvTranspose")
def _conv_transpose(node, model):
    x, w, y = (_shape(model, name) for name in (*node.inputs[:2], node.outputs[0]))
    n, window = len(w) - 2, window_of(node, w[2:], x[2:])
    run, before = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1], transposed_padding(node, window, x[2:])[0]
    whole = [(size - 1) * window.strides[k] + window.span(k) for k, size in enumerate(x[2:])]
    pads = [p for b, size, full in reversed(list(zip(before, y[2:], whole))) for p in (-b, size + b - full)]  # cuts, or grows where nothing reaches

    def apply(x, w, b=None):
        result = F.pad(run(x, w, stride=window.strides, dilation=window.dilations, groups=node.get("group")), pads)
        return result if b is None else result + b.reshape(-1, *(1,) * n)

    return apply


@form(*RECURRENT)
def _recurrent(node, model):
    layer = RecurrentNode(node, model.weights.get)
    for which in ("sequence_lens", "P", "keep"):
        if layer.name(which):
            raise _refuse(node, f"{which} has no form in torch.nn.{node.op}")
    names = {a.kind for cell in layer.cells for a in cell.activations}
    relu = node.op == "RNN" and names == {"relu"} and node.get("clip") is None
    if any(cell.name != layer.kind or not cell.default for cell in layer.cells) and not relu:
        raise _refuse(node, f"activations, clip, input_forget or linear_before_reset=0 have no form in torch.nn.{node.op}")
    w = [layer.weights(d) for d in range(layer.directions)]
    reverse, unfolded, D = node.get("direction") == "reverse", not layer.torch_form, layer.directions
    options = {"proj_size": w[0].w_h[0].shape[1]} if w[0].w_p is not None else {"nonlinearity": "relu"} if relu else {}
    module = getattr(torch.nn, node.op)(w[0].w_x[0].shape[1], w[0].hidden_size, batch_first=layer.batch_first, bidirectional=D == 2, **options).eval()
    arrays = {
        f"{name}_l0{'_reverse' if d else ''}": torch.from_numpy(np.array(a))
        for d, each in enumerate(w)
        for name, a in (
            ("weight_ih", np.concatenate(each.w_x)),
            ("weight_hh", np.concatenate(each.w_h)),
            ("bias_ih", np.concatenate(each.b_x)),
            ("bias_hh", np.concatenate(each.b_h)),
            ("weight_hr", each.w_p),
        )
        if a is not None
    }
    module.load_state_dict(arrays)
    time, states_turned = int(layer.batch_first), layer.batch_first and unfolded
    n_states = 2 if node.op == "LSTM" else 1

    def run(x, _w, _r, _b=None, _lengths=None, h=None, c=None, *_):
        given = [h, c][:n_states]
        if any(s is not None for s in given):
            given = [s.transpose(0, 1).contiguous() if s is not None and states_turned else s for s in given]
            sizes = (module.proj_size or module.hidden_size, module.hidden_size)
            given = [x.new_zeros(D, x.shape[1 - time], n) if s is None else s for s, n in zip(given, sizes)]
            y, final = module(x.flip(time) if reverse else x, tuple(given) if n_states == 2 else given[0])
        else:
            y, final = module(x.flip(time) if reverse else x)
        y = y.flip(time) if reverse else y
        if unfolded:
            y = y.reshape(*y.shape[:2], D, -1)
            y = y if time else y.transpose(1, 2)
        final = final if n_states == 2 else (final,)
        return (y, *(s.transpose(0, 1) if states_turned else s for s in final))

    return run
