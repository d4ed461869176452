"""What torch.export cannot follow, kept whole: recurrent layers of any length, and packed sequences.

torch.export unrolls a recurrent layer to find its shapes, which fixes the number of steps; and the sizes of a packed sequence depend on
data. So while a module is captured, a mode of this thread stands between its calls and torch:

    torch.lstm, gru, rnn_tanh, rnn_relu     -> fastrnn::recurrent, one op with a shape function, lengths among its inputs
    _pack_padded_sequence, _pad_packed_...  -> views: packed data is (T * B, features), time first, every row at full length; fastrnn::longest marks where
                                               torch would cut at the longest row
    sort, index_select inside packing       -> nothing: rows stay in their order, which fastrnn's lengths allow

A module to be kept as one leaf can be had in the same way: an op with a shape function, called in place of its forward.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.modules import transformer
from torch.nn.utils.rnn import pack_padded_sequence
from torch.overrides import TorchFunctionMode

from fastrnn.errors import UnsupportedModelError

KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@torch.library.custom_op("fastrnn::recurrent", mutates_args=())
def recurrent(
    x: torch.Tensor,
    states: list[torch.Tensor],
    weights: list[torch.Tensor],
    lengths: torch.Tensor | None,
    kind: str,
    bias: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> list[torch.Tensor]:
    """A stack of recurrent layers over x (T, B, I) or (B, T, I): its outputs and final states. For tracing; it computes nothing."""
    raise UnsupportedModelError("fastrnn::recurrent stands in an exported program for fastrnn.from_torch to read; torch cannot run it")


@recurrent.register_fake
def _(x, states, weights, lengths, kind, bias, num_layers, bidirectional, batch_first):
    if x.shape[-1] != weights[0].shape[1]:
        raise RuntimeError(f"{kind}: the input has {x.shape[-1]} features, its weights {weights[0].shape[1]}")
    directions, batch = 2 if bidirectional else 1, x.shape[0 if batch_first else 1]
    for state, units in zip(states, (weights[1].shape[1], weights[1].shape[0] // 4)):  # of weight_hh: h, projected or not, and an LSTM's c
        for axis, size in enumerate(
            (num_layers * directions, batch, units)
        ):  # torch does not look at those of packed rows; said here, sizes move together
            torch._check(
                state.shape[axis] == size,
                lambda units=units: f"{kind}: states must be (layers * directions, B, H) = ({num_layers * directions}, B, {units})",
            )
    if lengths is not None:
        torch._check(lengths.shape[0] == batch, lambda: f"{kind}: there must be a length for every row")
    size = states[0].shape[-1] * directions
    return [x.new_empty(*x.shape[:-1], size), *(torch.empty_like(s) for s in states)]


@torch.library.custom_op("fastrnn::flat", mutates_args=())
def flat(x: torch.Tensor) -> torch.Tensor:
    """(T, B, ...) as (T * B, ...). torch's own reshape would make conditions of how open sizes lie in memory."""
    return x.flatten(0, 1).clone()


@flat.register_fake
def _(x):
    return x.new_empty(x.shape[0] * x.shape[1], *x.shape[2:])


@torch.library.custom_op("fastrnn::unflat", mutates_args=())
def unflat(data: torch.Tensor, steps: int, batch: int) -> torch.Tensor:
    """(T * B, ...) as (T, B, ...)."""
    return data.reshape(steps, batch, *data.shape[1:]).clone()


@unflat.register_fake
def _(data, steps, batch):
    return data.new_empty(steps, batch, *data.shape[1:])


@torch.library.custom_op("fastrnn::longest", mutates_args=())
def longest(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """The lengths, of rows that are padded again to so many steps, where torch stops at the longest."""
    return lengths.clone()


@longest.register_fake
def _(lengths, steps):
    return torch.empty_like(lengths)


@contextmanager
def batches_left_open(module: torch.nn.Module) -> Iterator[None]:
    """torch's layers turn a packed batch's size into a plain number to check their states, which would fix it; here they compare sizes."""
    layers = [part for part in module.modules() if isinstance(part, torch.nn.RNNBase)]
    checks = ("get_expected_hidden_size", "get_expected_cell_size")

    def left_open(layer, name):
        original = getattr(layer, name)

        def expected(x, batch_sizes):
            batch = None if batch_sizes is None else batch_sizes[0]
            if not isinstance(batch, torch.SymInt):
                return original(x, batch_sizes)
            hidden = layer.proj_size if layer.proj_size and name == checks[0] else layer.hidden_size
            return layer.num_layers * (2 if layer.bidirectional else 1), batch, hidden

        return expected

    try:
        for layer in layers:
            for name in checks:
                if hasattr(layer, name):
                    object.__setattr__(layer, name, left_open(layer, name))
        yield
    finally:
        for layer in layers:
            for name in checks:
                layer.__dict__.pop(name, None)


@dataclass
class Packed:
    """What stands behind the batch_sizes of a packed sequence: rows in their own order. order: of the sort that was left out."""

    lengths: torch.Tensor
    batch: int
    order: torch.Tensor | None


def _torch_packs() -> bool:
    """Whether pack_padded_sequence is what called: it takes rows back out of their order itself. Who sorts them by hand may leave them sorted."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not pack_padded_sequence.__code__:
        frame = frame.f_back
    return frame is not None


class KeepRecurrent(TorchFunctionMode):
    """The mode. It knows tensors by identity, and keeps them alive for as long."""

    def __init__(self):
        super().__init__()
        self._marks: dict[int, tuple[torch.Tensor, str, object]] = {}
        self._handlers = {"lstm": self._layer, "gru": self._layer, "rnn_tanh": self._layer, "rnn_relu": self._layer, "sort": self._sort,
                          "index_select": self._index_select, "scatter_": self._scatter, "_pack_padded_sequence": self._pack,
                          "_pad_packed_sequence": self._pad, "__getitem__": self._getitem, "cpu": self._cpu, "to": self._cpu,
                          "__bool__": self._truth}  # fmt: skip

    def __torch_function__(self, func, types, args=(), kwargs=None):
        handler = self._handlers.get(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {})) if handler is None else handler(func, args, kwargs or {})

    def _truth(self, func, args, kwargs):
        """Transformers ask whether a mask is the causal one, as a hint to their kernels: no, so that the mask itself counts, whatever is in it."""
        frame = sys._getframe(2)
        while frame.f_code.co_name == "__torch_function__" and frame.f_back is not None:  # of torch's own modes
            frame = frame.f_back
        return False if frame.f_code is transformer._detect_is_causal_mask.__code__ else func(*args, **kwargs)

    def _mark(self, tensor: torch.Tensor, what: str, value) -> torch.Tensor:
        self._marks[id(tensor)] = (tensor, what, value)
        return tensor

    def _marked(self, tensor, what: str):
        """What is known of a tensor, None if nothing of this kind is."""
        found = self._marks.get(id(tensor))
        return found[2] if found is not None and found[1] == what else None

    def _layer(self, func, args, kwargs):
        """torch.lstm and its like, on padded (x, states, weights, ...) or packed (data, batch_sizes, states, weights, ...) input."""
        if kwargs or len(args) != 9:
            return func(*args, **kwargs)
        packed = self._marked(args[1], "batch_sizes") if isinstance(args[1], torch.Tensor) else None
        if packed is None:
            if isinstance(args[3], bool):  # (x, states, weights, bias, num_layers, dropout, train, bidirectional, batch_first)
                x, states, weights, bias, num_layers, dropout, train, bidirectional, batch_first = args
                return self._call(func.__name__, x, states, weights, None, bias, num_layers, dropout * train, bidirectional, batch_first)
            return func(*args, **kwargs)
        data, sizes, states, weights, bias, num_layers, dropout, train, bidirectional = args
        x = torch.ops.fastrnn.unflat(data, sizes.shape[0], packed.batch)
        states = states if isinstance(states, (tuple, list)) else (states,)
        states = [s if (found := self._marked(s, "reordered")) is None or found[1] is not packed.order else found[0] for s in states]
        y, *final = self._call(
            func.__name__,
            x,
            states if func.__name__ == "lstm" else states[0],
            weights,
            packed.lengths,
            bias,
            num_layers,
            dropout * train,
            bidirectional,
            False,
        )
        final = [self._mark(s, "kept", packed.order) if packed.order is not None else s for s in final]
        return (torch.ops.fastrnn.flat(y), *final)

    def _call(self, kind, x, states, weights, lengths, bias, num_layers, dropout, bidirectional, batch_first):
        if dropout:
            raise UnsupportedModelError(f"{kind}: dropout {dropout} is on; fastrnn converts modules in eval mode")
        if torch.is_autocast_enabled("cpu"):
            raise UnsupportedModelError(
                f"{kind}: forward has torch.autocast on, so torch computes it in {torch.get_autocast_dtype('cpu')}; fastrnn computes in float32: leave it out"
            )
        states = list(states) if isinstance(states, (tuple, list)) else [states]
        return tuple(torch.ops.fastrnn.recurrent(x, states, list(weights), lengths, kind, bias, num_layers, bidirectional, batch_first))

    def _sort(self, func, args, kwargs):
        result = func(*args, **kwargs)
        if args[0].dim() == 1 and kwargs.get("descending") and _torch_packs():
            self._mark(result[0], "sorted", (args[0], result[1]))
            self._mark(result[1], "order", result[1])
        return result

    def _index_select(self, func, args, kwargs):
        tensor, dim, index = [*args, *(kwargs[n] for n in ("dim", "index") if n in kwargs)]
        inverse = self._marked(index, "inverse")
        if inverse is not None and self._marked(tensor, "kept") is inverse:
            return tensor  # back into the order that it never left
        order = self._marked(index, "order")
        result = func(*args, **kwargs)
        return result if order is None else self._mark(result, "reordered", (tensor, order, dim))

    def _scatter(self, func, args, kwargs):
        result = func(*args, **kwargs)
        index = args[2] if len(args) > 2 else None
        return result if (order := self._marked(index, "order")) is None else self._mark(result, "inverse", order)

    def _cpu(self, func, args, kwargs):
        result = func(*args, **kwargs)
        inverse = self._marked(args[0], "inverse")
        return result if inverse is None else self._mark(result, "inverse", inverse)

    def _pack(self, func, args, kwargs):
        x, lengths, batch_first = args
        order, found, source = None, self._marked(x, "reordered"), self._marked(lengths, "sorted")
        if found is not None and source is not None and found[1] is source[1]:
            (x, order, _), lengths = found, source[0]
        x = x.transpose(0, 1) if batch_first else x
        sizes = torch.zeros(x.shape[0], dtype=torch.int64)
        self._mark(sizes, "batch_sizes", Packed(lengths, x.shape[1], order))
        return torch.ops.fastrnn.flat(x), sizes

    def _getitem(self, func, args, kwargs):
        packed = self._marked(args[0], "batch_sizes")
        if packed is not None and isinstance(args[1], int) and args[1] == 0:
            return packed.batch
        inverse = self._marked(args[1], "inverse") if isinstance(args[1], torch.Tensor) else None
        if inverse is not None and self._marked(args[0], "kept") is inverse:
            return args[0]
        return func(*args, **kwargs)

    def _pad(self, func, args, kwargs):
        data, sizes, batch_first, value, total = args
        packed = self._marked(sizes, "batch_sizes")
        if packed is None:
            return func(*args, **kwargs)
        steps = sizes.shape[0]
        y = torch.ops.fastrnn.unflat(data, steps, packed.batch)
        there = torch.arange(steps)[:, None] < torch.ops.fastrnn.longest(packed.lengths, steps)[None]
        y = torch.where(there.reshape(steps, packed.batch, *(1,) * (y.dim() - 2)), y, torch.full((), value, dtype=y.dtype))
        if total is not steps and total != steps:
            y = torch.cat([y, torch.full((total - steps, *y.shape[1:]), value, dtype=y.dtype)])
        y, lengths = y.transpose(0, 1) if batch_first else y, packed.lengths.to(torch.int64)
        if packed.order is None:
            return y, lengths
        return self._mark(y, "kept", packed.order), self._mark(lengths, "kept", packed.order)
