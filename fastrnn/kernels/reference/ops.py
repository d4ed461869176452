"""What each op means, in NumPy: the reference backend, and the fallback of ops without a compiled kernel."""

from __future__ import annotations

import math

import numpy as np

from fastrnn.cells import Activation
from fastrnn.kernels.reference.recurrence import run
from fastrnn.model.graph import Node
from fastrnn.model.ops import OPS
from fastrnn.model.recurrent import RecurrentNode

EVAL = {}


def meaning(*names: str):
    """Registers (node, inputs) -> outputs under op names; omitted inputs are None."""

    def register(function):
        for name in names:
            EVAL[name] = function
        return function

    return register


@meaning("RNN", "GRU", "LSTM")
def recurrent(node: Node, inputs: list):
    """All directions of one layer; computes in the dtype of X."""
    weights = dict(zip(node.inputs, inputs))
    layer = RecurrentNode(node, lambda name: weights[name])
    x, lengths = inputs[0], layer.array("sequence_lens")
    states = [layer.array("initial_h"), layer.array("initial_c")][:len(layer.cells[0].states)]
    if layer.batch_first:
        x = np.swapaxes(x, 0, 1)
    states = [s if s is None else np.moveaxis(s, layer.direction_axis, 0) for s in states]
    done = [run(cell, layer.weights(d), x, [None if s is None else s[d] for s in states], lengths, layer.reverse(d))
            for d, cell in enumerate(layer.cells)]
    y, finals = np.stack([y for y, _ in done], axis=1), [np.stack(s) for s in zip(*(s for _, s in done))]
    T, D, B, P = y.shape
    if layer.torch_form:
        y = y.transpose(0, 2, 1, 3).reshape(T, B, D * P)
        y = np.swapaxes(y, 0, 1) if layer.batch_first else y
    elif layer.batch_first:
        y = y.transpose(2, 0, 1, 3)
    return [y, *(np.moveaxis(s, 0, layer.direction_axis) for s in finals)]


@meaning("Gemm")
def gemm(node, inputs):
    """Rows times B transposed, plus C."""
    a, b, c = [*inputs, None][:3]
    y = a @ b.T.astype(a.dtype)
    return [y if c is None else y + c]


@meaning("Gather")
def gather(node, inputs):
    """Rows of a table; the caller checked the range."""
    return [inputs[0][inputs[1]]]


UNARY_KINDS = {"Identity": "identity", "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softsign": "softsign", "LeakyRelu": "leakyrelu",
               "Elu": "elu", "ThresholdedRelu": "thresholdedrelu", "HardSigmoid": "hardsigmoid", "Softplus": "softplus"}


def unary_activation(node: Node) -> Activation:
    """The activation that an elementwise node applies."""
    parameters = {k: node.get(k) for k in ("alpha", "beta") if k in OPS[node.op].attributes}
    return Activation(UNARY_KINDS[node.op], **parameters)


@meaning(*UNARY_KINDS)
def unary(node, inputs):
    """One of the recurrent ops' activations, elementwise."""
    return [inputs[0] if node.op == "Identity" else unary_activation(node)(inputs[0])]


@meaning("Silu")
def silu(node, inputs):
    """x sigmoid(x)."""
    return [inputs[0] * Activation("sigmoid")(inputs[0])]


@meaning("Gelu")
def gelu(node, inputs):
    """x Phi(x), the exact form."""
    x = inputs[0]
    phi = np.frompyfunc(lambda v: 0.5 * (1.0 + math.erf(v / math.sqrt(2.0))), 1, 1)(x.astype(np.float64))
    return [x * np.asarray(phi, dtype=np.float64).astype(x.dtype)]


@meaning("Clip")
def clip(node, inputs):
    """Between min and max, either of which may be None."""
    return [np.clip(inputs[0], node.get("min"), node.get("max"))]


@meaning("Softmax", "LogSoftmax")
def softmax(node, inputs):
    """Along the last axis."""
    shifted = inputs[0] - inputs[0].max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True)
    return [shifted - np.log(total) if node.op == "LogSoftmax" else np.exp(shifted) / total]


@meaning("Slice")
def slice_(node, inputs):
    """Of axis 0."""
    return [None if inputs[0] is None else inputs[0][node.get("start"):node.get("stop")]]


@meaning("Concat")
def concat(node, inputs):
    """Along axis 0."""
    return [np.concatenate(inputs)]


@meaning("Unsqueeze")
def unsqueeze(node, inputs):
    """A new axis 0."""
    return [None if inputs[0] is None else inputs[0][None]]


@meaning("Squeeze")
def squeeze(node, inputs):
    """Axis 0 removed."""
    return [inputs[0][0]]
