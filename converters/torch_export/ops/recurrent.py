"""Recurrent layers and cells: nn.RNN, GRU and LSTM by fastrnn::recurrent, or as torch.export keeps them."""

from __future__ import annotations

from fastrnn.cells import GATES
from fastrnn.cells.activations import Activation
from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import ASSUMED, Site
from fastrnn.model.stack import StackOptions, add_stack


def _options(kind: str, weights, **options) -> StackOptions:
    """Sizes are read off the weights."""
    op = kind[:3] if kind != "lstm" else kind
    rows, units = weights[0].shape[0] // GATES[op], weights[1].shape[1]
    directions = 2 if options.get("bidirectional") else 1
    return StackOptions(
        op,
        weights[0].shape[1],
        rows,
        proj_size=units if units != rows else 0,
        activations=((Activation("relu"),),) * directions if kind == "rnn_relu" else (),
        **options,
    )


def _stack(g: Site, o: StackOptions, x: str, states: list[str], weights: list[Tensor], lengths: str, used: list[bool]) -> list[str | None]:
    """The layers; states that are zeros are left to the op, and so to a Stream."""
    arrays = [g.array(w, f"weight {name!r}") for w, name in zip(weights, o.shapes(), strict=True)]
    parameters = o.check(dict(zip(o.shapes(), arrays)), g.where)
    name, y, finals = g.value(), g.value(), {letter: g.value() if wanted else None for letter, wanted in zip(o.states, used)}
    given = {letter: s for letter, s in zip(o.states, states) if s not in g.graph.zeros}
    add_stack(g.graph.build, name, o, parameters, x, y, given, {letter: final for letter, final in finals.items() if final}, lengths)
    return [y, *finals.values()]


@converts("fastrnn.recurrent.default")
def recurrent(g: Site, x, states, weights, lengths, kind, bias, num_layers, bidirectional, batch_first):
    """A stack, whole."""
    o = _options(kind, weights, num_layers=num_layers, bias=bias, bidirectional=bidirectional, batch_first=batch_first)
    if any(s.shape[0] != num_layers * o.directions for s in states):
        raise g.refuse(f"initial states must have {num_layers * o.directions} on axis 0 = layers * directions, got {[s.shape for s in states]}")
    return _stack(
        g,
        o,
        x.name,
        [s.name for s in states],
        weights,
        "" if lengths is None else g.cast(lengths, "int64"),
        [g.uses(k + 1) for k in range(len(states))],
    )


@converts("fastrnn.flat.default")
def flat(g: Site, x):
    """The rows of all steps, one after the other."""
    return g.emit("Reshape", x, g.sizes([g.product([g.size(x, 0), g.size(x, 1)]), *(g.size(x, k) for k in range(2, x.rank))]))


@converts("fastrnn.unflat.default")
def unflat(g: Site, data, steps, batch):
    """And back."""
    return g.emit("Reshape", data, g.sizes([steps, batch, *(g.size(data, k) for k in range(1, data.rank))]))


@converts("fastrnn.longest.default")
def longest(g: Site, lengths, steps):
    """Checked in each call, where the rest of the module would see more steps than torch leaves it."""
    if not g.graph.longest:
        return lengths.name
    most = g.emit("ReduceMax", g.cast(lengths, "int64"), keepdims=1)
    return g.emit(
        "Require",
        lengths,
        g.emit("Equal", most, g.sizes([steps])),
        message=f"{ASSUMED} one row as long as the input: torch cuts what it pads at the longest row, and the rest of the module depends on how much is left; "
        "cut the input at the longest row, or give pad_packed_sequence its total_length",
    )


@converts("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
def layer(g: Site, x, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first):
    """As torch.export keeps it, its length fixed."""
    if dropout and train:
        raise g.refuse(f"dropout={dropout} with train=True; export the module in eval mode")
    kind = g.target.split(".")[1]
    return recurrent(g, x, hx if kind == "lstm" else [hx], params, None, kind, has_biases, num_layers, bidirectional, batch_first)


@converts(
    "aten.lstm.data",
    "aten.gru.data",
    "aten.rnn_tanh.data",
    "aten.rnn_relu.data",
    "aten._pack_padded_sequence.default",
    "aten._pad_packed_sequence.default",
)
def packed(g: Site, **rest):
    """torch.export fixes the sizes of a packed sequence."""
    raise g.refuse(
        "packed sequences of a program that torch.export made by itself are not supported; give the module to fastrnn.from_torch, which keeps them"
    )


@converts("aten.lstm_cell.default", "aten.gru_cell.default", "aten.rnn_tanh_cell.default", "aten.rnn_relu_cell.default")
def cell(g: Site, x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    """A layer of one step."""
    kind = g.target.split(".")[1].removesuffix("_cell")
    states, weights = list(hx) if kind == "lstm" else [hx], [w for w in (w_ih, w_hh, b_ih, b_hh) if w is not None]
    if len(weights) == 3:
        raise g.refuse("one bias without the other")
    o, first = _options(kind, weights, bias=len(weights) == 4), g.ints(0)
    wanted = [True, g.uses(1)] if kind == "lstm" else [True]
    inner = [s.name if s.name in g.graph.zeros else g.emit("Unsqueeze", s, first) for s in states]
    _, *finals = _stack(g, o, g.emit("Unsqueeze", x, first), inner, weights, "", wanted)
    made = [None if name is None else g.emit("Squeeze", name, first) for name in finals]
    return made if kind == "lstm" else made[0]
