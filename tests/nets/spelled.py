"""Cells in loops, cells written by hand, encoders and decoders."""

import torch
from net import BATCH_FIRST, features, net, tokens
from torch import nn

FIXED = {0: "B"}  # a Python loop over the steps fixes how many there are


def class_of(cell, states: int):
    """A loop over a cell's steps."""

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = cell(), nn.Linear(7, 3)

        def forward(self, x):
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return self.head(state[0] if states == 2 else state)

    return Loop


@net(features(5), x=FIXED)
def LstmCellLoop():
    return class_of(lambda: nn.LSTMCell(5, 7), 2)()


@net(features(5), x=FIXED)
def GruCellLoop():
    return class_of(lambda: nn.GRUCell(5, 7, bias=False), 1)()


@net(features(5), x=FIXED)
def RnnCellLoop():
    return class_of(lambda: nn.RNNCell(5, 7, nonlinearity="relu"), 1)()


@net(features(4), x=FIXED)
class StackedCells(nn.Module):
    """Two cells a step, all outputs stacked."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.LSTMCell(4, 6), nn.GRUCell(6, 5)

    def forward(self, x):
        h, c, g, ys = x.new_zeros(x.shape[0], 6), x.new_zeros(x.shape[0], 6), torch.zeros(x.shape[0], 5), []
        for t in range(x.shape[1]):
            h, c = self.low(x[:, t], (h, c))
            g = self.high(h, g)
            ys.append(g)
        return torch.stack(ys, dim=1)


@net(features(4), x=FIXED)
class MinimalGatedUnit(nn.Module):
    """A cell written out by hand."""

    def __init__(self):
        super().__init__()
        self.x, self.f, self.n = nn.Linear(4, 12), nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)

    def forward(self, x):
        h, ys = torch.zeros(x.size(0), 6), []
        for step in self.x(x).unbind(dim=1):
            a, b = step.chunk(2, dim=-1)
            f = torch.sigmoid(a + self.f(h))
            h = torch.lerp(h, torch.tanh(b + self.n(f * h)), f)
            ys.append(h)
        return torch.stack(ys, 1), h


@net(features(5), x=FIXED)
class HandWrittenLstm(nn.Module):
    """Gates of one matrix product, split; the cell state clamped."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(11, 24) / 4), nn.Parameter(torch.randn(24))

    def forward(self, x):
        h = c = x.new_zeros((x.shape[0], 6))
        for t in range(x.shape[1]):
            i, f, g, o = (torch.cat((x[:, t, :], h), dim=1) @ self.weight + self.bias).split(6, dim=1)
            c = (torch.sigmoid(f + 1.0) * c + i.sigmoid() * g.tanh()).clamp(-2.0, 2.0)
            h = o.sigmoid() * torch.tanh(c)
        return h


@net(features(6), x=FIXED)
class LayerNormLstm(nn.Module):
    """Norms inside the cell."""

    def __init__(self):
        super().__init__()
        self.x, self.h, self.nx, self.nh, self.nc = (
            nn.Linear(6, 20, bias=False),
            nn.Linear(5, 20),
            nn.LayerNorm(20),
            nn.LayerNorm(20),
            nn.LayerNorm(5),
        )

    def forward(self, x):
        h, c = torch.zeros(x.shape[0], 5), torch.zeros(x.shape[0], 5)
        for t in range(x.shape[1]):
            i, f, g, o = torch.chunk(self.nx(self.x(x[:, t])) + self.nh(self.h(h)), 4, -1)
            c = f.sigmoid() * c + i.sigmoid() * torch.tanh(g)
            h = o.sigmoid() * self.nc(c).tanh()
        return h, c


@net(lambda b, t: {"x": torch.randint(0, 9, (b, 6)), "target": torch.randint(0, 7, (b, t))}, x=FIXED, target=BATCH_FIRST)
class TeacherForced(nn.Module):
    """Encoder, decoder fed with the target, the encoder's states handed over."""

    def __init__(self):
        super().__init__()
        self.source, self.target, self.out = nn.Embedding(9, 5), nn.Embedding(7, 5), nn.Linear(8, 7)
        self.encoder, self.decoder = nn.LSTM(5, 8, 2, batch_first=True), nn.LSTM(5, 8, 2, batch_first=True)

    def forward(self, x, target):
        _, state = self.encoder(self.source(x))
        return self.out(self.decoder(self.target(target), state)[0]).log_softmax(-1)


@net(tokens(9), x=FIXED)
class GreedyDecoder(nn.Module):
    """Five steps of greedy decoding after an encoder."""

    def __init__(self):
        super().__init__()
        self.embedding, self.encoder, self.cell, self.out = nn.Embedding(9, 5), nn.GRU(5, 8, batch_first=True), nn.GRUCell(5, 8), nn.Linear(8, 9)

    def forward(self, x):
        h, token, ys = self.encoder(self.embedding(x))[1][0], torch.zeros(x.shape[0], dtype=torch.int64), []
        for _ in range(5):
            h = self.cell(self.embedding(token), h)
            ys.append(self.out(h))
            token = ys[-1].argmax(dim=1)
        return torch.stack(ys, 1)


@net(features(5), x=BATCH_FIRST)
class BridgedDecoder(nn.Module):
    """Bidirectional encoder; its final states through a layer are the decoder's first."""

    def __init__(self):
        super().__init__()
        self.encoder, self.bridge = nn.GRU(5, 6, batch_first=True, bidirectional=True), nn.Linear(12, 7)
        self.decoder, self.out = nn.GRU(12, 7, batch_first=True), nn.Linear(7, 4)

    def forward(self, x):
        y, h = self.encoder(x)
        first = torch.tanh(self.bridge(h.permute(1, 0, 2).reshape(x.shape[0], -1)))
        return self.out(self.decoder(y, first[None])[0])


@net(features(6), x=BATCH_FIRST)
class AutoEncoder(nn.Module):
    """A sequence to its last state, repeated and decoded."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.out = nn.LSTM(6, 4, batch_first=True), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 6)

    def forward(self, x):
        code = self.encoder(x)[1][0][-1]
        y = self.out(self.decoder(code.unsqueeze(1).repeat(1, x.shape[1], 1))[0])
        return y, ((x - y) ** 2).mean(dim=(1, 2)).sqrt()


@net(features(6), x=BATCH_FIRST)
class HighwayGru(nn.Module):
    """Highway layers before a GRU."""

    def __init__(self):
        super().__init__()
        self.gates, self.parts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2)), nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.gru = nn.GRU(6, 7, batch_first=True)

    def forward(self, x):
        for gate, part in zip(self.gates, self.parts):
            g = torch.sigmoid(gate(x))
            x = g * nn.functional.relu(part(x)) + (1 - g) * x
        return self.gru(x)[0]


@net(features(8), x=BATCH_FIRST)
class PyramidSubsampling(nn.Module):
    """Steps joined in pairs between layers; an odd last one is cut."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.LSTM(8, 5, batch_first=True), nn.LSTM(10, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        y = self.first(x)[0]
        y = y[:, : y.shape[1] // 2 * 2]
        y = y.reshape(y.shape[0], y.shape[1] // 2, 10)
        return self.head(self.second(y)[0])


@net(features(6), oldest=13, x=BATCH_FIRST)
class Strided(nn.Module):
    """Every second step into the second layer, its outputs repeated and added."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.GRU(6, 5, batch_first=True), nn.GRU(5, 5, batch_first=True)

    def forward(self, x):
        y = self.first(x)[0]
        slow = self.second(y[:, ::2])[0]
        return y + slow.repeat_interleave(2, dim=1)[:, : y.shape[1]]
