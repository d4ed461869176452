"""RNN, LSTM and GRU. Each function closes over a layer's options and returns the Cell that they make.

Sources: Hochreiter and Schmidhuber 1997 and Gers et al. 2000 (LSTM, peepholes), Greff et al. 2017 (coupled gate),
Cho et al. 2014 (GRU), ONNX's operator texts (clip: the input of every activation, so c is clipped only on its way to the output).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastrnn.cells import maths
from fastrnn.cells.activations import Activation, parse_activation
from fastrnn.cells.spec import Cell, Gate

SIGMOID, TANH = Activation("sigmoid"), Activation("tanh")
# Default activations in ONNX's order (f; f, g; f, g, h), and how many gates weight_ih stacks.
DEFAULT_ACTIVATIONS = {"rnn": (TANH,), "gru": (SIGMOID, TANH), "lstm": (SIGMOID, TANH, TANH)}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def _clipper(clip: float | None) -> Callable[[Any], Any]:
    if clip is None:
        return lambda x: x
    return lambda x: maths.maximum(maths.minimum(x, clip), -clip)


def _chosen(kind: str, activations: Iterable[Any] | None) -> tuple[Activation, ...]:
    return DEFAULT_ACTIVATIONS[kind] if activations is None else tuple(parse_activation(a) for a in activations)


def rnn(activations: Iterable[Any] | None = None, clip: float | None = None) -> Cell:
    """Elman's cell: h' = f(W x + R h + b)."""
    chosen, bound = _chosen("rnn", activations), _clipper(clip)
    (f,) = chosen

    def pointwise(a):
        return f(bound(a))

    return Cell("rnn", (Gate("a"),), ("h",), pointwise, activations=chosen, clip=clip, default=clip is None and chosen == DEFAULT_ACTIVATIONS["rnn"])


def lstm(activations: Iterable[Any] | None = None, clip: float | None = None, peepholes: bool = False, input_forget: bool = False) -> Cell:
    """c' = f c + i g, h' = o act_h(c'); peepholes add p_i c, p_f c and p_o c' to the gates; coupled: f = 1 - i."""
    chosen, bound = _chosen("lstm", activations), _clipper(clip)
    act_f, act_g, act_h = chosen

    def pointwise(i, f, g, o, c, pi=None, pf=None, po=None):
        if peepholes:
            i, f = i + pi * c, f + pf * c
        i = act_f(bound(i))
        f = 1 - i if input_forget else act_f(bound(f))
        c = f * c + i * act_g(bound(g))
        if peepholes:
            o = o + po * c
        return act_f(bound(o)) * act_h(bound(c)), c

    return Cell("lstm", tuple(map(Gate, "ifgo")), ("h", "c"), pointwise, parameters=("pi", "pf", "po") if peepholes else (),
                activations=chosen, clip=clip, input_forget=input_forget,
                default=clip is None and not peepholes and not input_forget and chosen == DEFAULT_ACTIVATIONS["lstm"])  # fmt: skip


def gru(activations: Iterable[Any] | None = None, clip: float | None = None, reset_after: bool = True) -> Cell:
    """h' = n + z (h - n), with n = g(Wn x + r (Rn h + b)) after the matrix, or g(Wn x + Rn (r h) + b) before it."""
    chosen, bound = _chosen("gru", activations), _clipper(clip)
    act_f, act_g = chosen

    def after(r, z, n, m, h):
        n = act_g(bound(n + act_f(bound(r)) * m))
        return n + act_f(bound(z)) * (h - n)

    def before(z, n, h):
        n = act_g(bound(n))
        return n + act_f(bound(z)) * (h - n)

    def operand(r, h):
        return act_f(bound(r)) * h

    default = clip is None and chosen == DEFAULT_ACTIVATIONS["gru"]
    if reset_after:
        gates = Gate("r"), Gate("z"), Gate("n", sees="x"), Gate("m", sees="h")
        return Cell("gru", gates, ("h",), after, activations=chosen, clip=clip, default=default)
    gates_before = Gate("r"), Gate("z"), Gate("n", second=True)
    return Cell("gru_before", gates_before, ("h",), before, operand, activations=chosen, clip=clip, default=default)
