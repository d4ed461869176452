"""Modules drawn at random, with an example each, as their authors might give it; and what such a module takes at other sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


@dataclass
class Choice:
    """One module. packing: of rows with lengths; states: how the first layer gets its own; ending: what is made of its outputs; memory: attributes; total: whether
    padding goes on to the last step, or torch cuts it at the longest row; touch: what is done to the layer's outputs."""

    kind: str
    layers: int
    bidirectional: bool
    batch_first: bool
    projected: bool
    bias: bool
    front: str
    packing: str
    states: str
    ending: str
    memory: str
    siamese: str
    units: int
    batch: int
    steps: int
    total: bool
    touch: str

    @property
    def remembers(self) -> bool:
        """Whether its second call gives something else, so that it must be refused."""
        return self.memory in ("lazy", "dict") or self.memory == "counter" and self.ending != "final"


def draw(random: np.random.Generator) -> Choice:
    """A choice of everything. A packed or siamese module and one with states of its own are combined where that makes sense."""

    def one(*values):
        return values[random.integers(len(values))]

    kind = one(*LAYERS)
    memory = one("none", "none", "none", "none", "noted", "lazy", "dict", "counter")
    packing = one("none", "none", "sorted", "unsorted")
    states = one("none", "none", "given", "given_zero", "made") if memory not in ("lazy", "dict") else "none"
    return Choice(
        kind,
        one(1, 1, 2),
        one(False, True),
        one(False, True),
        kind == "lstm" and one(False, False, True),
        one(True, True, False),
        one("none", "linear", "conv", "embedding", "norm"),
        packing if memory not in ("lazy", "dict") else "none",
        states,
        one("sequence", "last", "head", "squeeze", "squeeze", "mean", "final", "residual"),
        memory,
        one("no", "no", "no", "same", "view", "apart") if packing == "none" and states == "none" and memory in ("none", "noted") else "no",
        int(one(1, 4, 5)),
        int(one(1, 1, 2, 4)),
        int(one(1, 1, 2, 7)),
        one(True, False),
        one("none", "none", "in place", "parts", "turned"),
    )


class Drawn(nn.Module):
    """The module of a choice."""

    def __init__(self, c: Choice):
        super().__init__()
        self.c, H = c, c.units
        P = max(H - 2, 1) if c.projected and H > 1 else 0
        self.width, self.directions = P or H, 1 + c.bidirectional
        self.front = {
            "linear": lambda: nn.Linear(3, 4),
            "conv": lambda: nn.Conv1d(3, 4, 3, padding=1),
            "embedding": lambda: nn.Embedding(11, 4),
            "norm": lambda: nn.LayerNorm(3),
            "none": nn.Identity,
        }[c.front]()
        size = {"norm": 3, "none": 3}.get(c.front, 4)
        extra = {"proj_size": P} if P else {}
        self.layer = LAYERS[c.kind](size, H, c.layers, bias=c.bias, batch_first=c.batch_first, bidirectional=c.bidirectional, **extra)
        self.head, self.hidden, self.kept, self.calls = nn.Linear(self.width * self.directions, 1), None, {"h": None}, 0
        self.residual = nn.Linear(size, self.width * self.directions)

    def forward(self, x, *rest):
        if self.c.siamese != "no":
            one, other = self.once(x, ()), self.once(rest[0], ())
            return one[0] - 2 * other[0] if isinstance(one, tuple) else one - 2 * other
        return self.once(x, rest)

    def once(self, x, rest):
        """One sequence through everything."""
        c = self.c
        if c.front == "conv":
            x = x if c.batch_first else x.transpose(0, 1)
            x = self.front(x.transpose(1, 2)).transpose(1, 2)
            x = x if c.batch_first else x.transpose(0, 1)
        else:
            x = self.front(x)
        rest = list(rest)
        n = rest.pop(0) if c.packing != "none" else None
        batch = x.shape[0 if c.batch_first else 1]
        given = self.initial(batch, rest)
        packed = x if n is None else pack_padded_sequence(x, n, batch_first=c.batch_first, enforce_sorted=c.packing == "sorted")
        y, final = self.layer(packed, given)
        if n is not None:
            y, _ = pad_packed_sequence(y, batch_first=c.batch_first, total_length=x.shape[1 if c.batch_first else 0] if c.total else None)
            x = x[:, : y.shape[1]] if c.batch_first else x[: y.shape[0]]
        y = self.touched(y)
        if c.memory == "noted":
            self.hidden, self.calls = final, self.calls + 1
        if c.memory == "counter":
            self.calls += 1
            y = y * self.calls
        if c.memory == "lazy":
            self.hidden = final
        if c.memory == "dict":
            self.kept["h"] = final
        return self.end(x, y, final)

    def touched(self, y):
        """The layer's outputs, a step further."""
        if self.c.touch == "in place":
            y = y * 1
            y[..., :1] += 1
            y[(0,) * y.dim()].mul_(2)  # a view of it
        if self.c.touch == "parts":
            parts = y.chunk(2, -1)
            return torch.cat([parts[-1], *parts[:-1]], -1)
        return y.flip(1 if self.c.batch_first else 0) if self.c.touch == "turned" else y

    def initial(self, batch: int, rest: list):
        """The first states, or None."""
        c = self.c
        if c.memory == "lazy":
            states = self.hidden
            held = states[0] if isinstance(states, tuple) else states
            return None if held is None or held.shape[1] != batch else states
        if c.memory == "dict":
            states = self.kept["h"]
            held = states[0] if isinstance(states, tuple) else states
            return None if held is None or held.shape[1] != batch else states
        if c.states == "none":
            return None
        if c.states == "made":
            rest = [torch.ones(c.layers * self.directions, batch, n) / 2 for n in (self.width, c.units)[: 1 + (c.kind == "lstm")]]
        return tuple(rest) if c.kind == "lstm" else rest[0]

    def end(self, x, y, final):
        """What is returned."""
        c, h = self.c, final[0] if isinstance(final, tuple) else final
        if c.ending == "last":
            return y[:, -1] if c.batch_first else y[-1]
        if c.ending == "head":
            return self.head(y), h
        if c.ending == "squeeze":
            return self.head(y).squeeze()
        if c.ending == "mean":
            return y.mean(1 if c.batch_first else 0)
        if c.ending == "final":
            return h[-1]
        if c.ending == "residual":
            return torch.tanh(self.residual(x) + y), *(final if isinstance(final, tuple) else (final,))
        return y


def inputs(c: Choice, batch: int, steps: int, random: torch.Generator, example: bool = False) -> tuple:
    """Of these sizes. example: as an author might give it, states of zeros and one tensor for two inputs among it."""
    shape = (batch, steps) if c.batch_first else (steps, batch)
    x = torch.randint(0, 11, shape, generator=random) if c.front == "embedding" else torch.randn(*shape, 3, generator=random)
    if c.siamese != "no":
        other = torch.randint(0, 11, shape, generator=random) if c.front == "embedding" else torch.randn(*shape, 3, generator=random)
        return (x, {"same": x, "view": x[:], "apart": other}[c.siamese]) if example else (x, other)
    given: list = [x]
    if c.packing != "none":
        n = torch.randint(1, steps + 1, (batch,), generator=random)
        n[0] = steps
        if not example and not c.total and steps > 2 and torch.rand((), generator=random) < 0.3:
            n[:] = n.clamp(2, steps - 1)  # torch cuts
        given.append(n.sort(descending=True).values if c.packing == "sorted" else n[torch.randperm(batch, generator=random)])
    if c.states.startswith("given"):
        width = max(c.units - 2, 1) if c.projected and c.units > 1 else c.units
        sizes = [(c.layers * (1 + c.bidirectional), batch, n) for n in (width, c.units)[: 1 + (c.kind == "lstm")]]
        made = [torch.randn(*size, generator=random) for size in sizes]
        if example and c.states == "given_zero":
            zero = torch.zeros(*sizes[0])
            made = [zero if size == sizes[0] else torch.zeros(*size) for size in sizes]
        given += made
    return tuple(given)
