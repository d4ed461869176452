"""Stacks of recurrent layers with heads, norms, skips, states and ragged batches."""

import torch
from net import BATCH_FIRST, TIME_FIRST, features, lengths, net, tokens
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

SEQUENCES = "it writes SplitToSequence for an RNN's steps, which fastrnn refuses by name"


@net(features(6), x=BATCH_FIRST)
class LstmLast(nn.Module):
    """The last step's output through a head."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 11, 2, batch_first=True), nn.Linear(11, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@net(features(6, time_first=True), x=TIME_FIRST)
class GruTimeFirst(nn.Module):
    """Time first; the final state of both directions joined."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(6, 9, bidirectional=True), nn.Linear(18, 4)

    def forward(self, x):
        y, h = self.gru(x)
        return torch.softmax(self.head(y), -1), torch.cat([h[0], h[1]], dim=-1)


@net(features(5), not_newest=SEQUENCES, x=BATCH_FIRST)
class ReluRnn(nn.Module):
    """An RNN with relu, two layers, no bias."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.RNN(5, 7, 2, nonlinearity="relu", bias=False, batch_first=True), nn.Linear(7, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0]).sigmoid()


@net(features(5), not_newest=SEQUENCES, x=BATCH_FIRST)
class TanhRnnPools(nn.Module):
    """Mean and maximum over time."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.RNN(5, 7, bidirectional=True, batch_first=True), nn.Linear(28, 2)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(torch.cat([y.mean(dim=1), y.max(dim=1).values], 1))


@net(features(7), "torch's older exporter writes no projections, and its newer one takes them for biases", x=BATCH_FIRST)
class Projected(nn.Module):
    """LSTM with a projection, bidirectional and stacked."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(7, 12, 2, batch_first=True, bidirectional=True, proj_size=5), nn.Linear(10, 3)

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        return {"logits": self.head(y), "hidden": h, "cell": c}


@net(features(8), x=BATCH_FIRST)
class ResidualStack(nn.Module):
    """Residual blocks of norm, GRU and linear."""

    def __init__(self):
        super().__init__()
        self.norms, self.grus = nn.ModuleList(nn.LayerNorm(8) for _ in range(3)), nn.ModuleList(nn.GRU(8, 8, batch_first=True) for _ in range(3))
        self.mix = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        for norm, gru, mix in zip(self.norms, self.grus, self.mix):
            x = x + nn.functional.gelu(mix(gru(norm(x))[0]))
        return x


@net(tokens(13), x=BATCH_FIRST)
class TiedLanguageModel(nn.Module):
    """The embedding is the output layer's weight."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm, self.out = nn.Embedding(13, 8, padding_idx=0), nn.LSTM(8, 8, 2, dropout=0.3, batch_first=True), nn.Linear(8, 13)
        self.out.weight = self.embedding.weight

    def forward(self, x):
        return torch.log_softmax(self.out(self.lstm(self.embedding(x))[0]), dim=-1)


@net(lambda b, t: {"x": torch.randn(b, t, 4), "state": (torch.randn(2, b, 6), torch.randn(2, b, 6))}, x=BATCH_FIRST, state=({1: "B"}, {1: "B"}))
class StatesAsTuple(nn.Module):
    """States in and out, as a tuple."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x, state):
        y, state = self.lstm(x, state)
        return self.head(y), state


@net(lambda b, t: {"frame": torch.randn(b, 10), "h": torch.randn(b, 7), "mean": torch.rand(b, 10)}, frame={0: "B"}, h={0: "B"}, mean={0: "B"})
class StreamingFrame(nn.Module):
    """One frame a call: a running mean and a GRU cell's state handed out again."""

    def __init__(self):
        super().__init__()
        self.cell, self.mask = nn.GRUCell(10, 7), nn.Linear(7, 10)
        self.register_buffer("decay", torch.tensor(0.9))

    def forward(self, frame, h, mean):
        mean = self.decay * mean + (1 - self.decay) * frame.abs()
        h = self.cell(frame / (mean + 1e-2), h)
        return frame * self.mask(h).sigmoid(), h, mean


PACKING = "torch's exporters trace no packed sequences with varying sizes"


@net(lambda b, t: {"x": torch.randn(b, t, 5), "lengths": lengths(b, t)}, PACKING, x=BATCH_FIRST, lengths={0: "B"})
class PackedSorted(nn.Module):
    """A ragged batch, longest first."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True), nn.Linear(14, 3)

    def forward(self, x, lengths):
        packed, (h, _) = self.lstm(pack_padded_sequence(x, lengths, batch_first=True))
        y, n = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return self.head(y), h, n


@net(lambda b, t: {"x": torch.randn(t, b, 5), "lengths": lengths(b, t, ordered=False)}, PACKING, x=TIME_FIRST, lengths={0: "B"})
class PackedAnyOrder(nn.Module):
    """A ragged batch in any order, time first, states given, a layer on the packed data; padding marked by -1."""

    def __init__(self):
        super().__init__()
        self.gru, self.rnn, self.h0 = nn.GRU(5, 6, 2), nn.RNN(6, 4), nn.Parameter(torch.randn(2, 1, 6))

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        packed, h = self.gru(packed, self.h0.expand(-1, x.shape[1], -1).contiguous())
        packed, last = self.rnn(packed)
        return pad_packed_sequence(packed, padding_value=-1.0)[0], h, last


@net(lambda b, t: {"x": torch.randint(1, 11, (b, t)), "lengths": lengths(b, t, ordered=False)}, x=BATCH_FIRST, lengths={0: "B"})
class MaskedMean(nn.Module):
    """Padding masked after the recurrence; the mean over what is there."""

    def __init__(self):
        super().__init__()
        self.embedding, self.gru, self.head = nn.Embedding(11, 6), nn.GRU(6, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x, lengths):
        y = self.gru(self.embedding(x))[0]
        mask = torch.arange(x.size(1))[None, :] < lengths[:, None]
        y = y.masked_fill(~mask.unsqueeze(-1), 0.0)
        return self.head(y.sum(1) / lengths.unsqueeze(1).to(y.dtype))


@net(lambda b, t: {"x": torch.randn(b, t, 6), "lengths": lengths(b, t, ordered=False)}, x=BATCH_FIRST, lengths={0: "B"})
class LastValidStep(nn.Module):
    """The output at each row's last valid step, by gather."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 7, batch_first=True), nn.Linear(7, 2)

    def forward(self, x, lengths):
        y = self.lstm(x)[0]
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, y.size(2))
        return self.head(y.gather(1, last).squeeze(1))


@net(features(9), x=BATCH_FIRST)
class LayerNormStack(nn.Module):
    """Norms of several kinds around LSTMs."""

    def __init__(self):
        super().__init__()
        self.first, self.lstm1, self.second, self.lstm2 = (
            nn.LayerNorm(9),
            nn.LSTM(9, 8, batch_first=True),
            nn.LayerNorm(8, bias=False),
            nn.LSTM(8, 6, batch_first=True),
        )
        self.third = nn.LayerNorm(6, elementwise_affine=False)

    def forward(self, x):
        return torch.tanh(self.third(self.lstm2(self.second(self.lstm1(self.first(x))[0]))[0]))


@net(features(6), x=BATCH_FIRST)
class ManyOutputs(nn.Module):
    """A dict with a nested tuple, and a count of steps made of shapes."""

    def __init__(self):
        super().__init__()
        self.gru, self.a, self.b = nn.GRU(6, 7, batch_first=True), nn.Linear(7, 2), nn.Linear(7, 5)

    def forward(self, x):
        y, h = self.gru(x)
        return {"classes": (self.a(y), self.b(y).argmax(-1)), "state": h.squeeze(0), "total": y.sum((1, 2)) / x.shape[1]}


@net(features(5), x=BATCH_FIRST)
class WeightNormed(nn.Module):
    """Parametrised layers: weight norm on a Linear and a convolution."""

    def __init__(self):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.conv, self.gru, self.head = norm(nn.Conv1d(5, 6, 3, padding=1)), nn.GRU(6, 7, batch_first=True), norm(nn.Linear(7, 3))

    def forward(self, x):
        y = torch.relu(self.conv(x.transpose(1, 2)))
        return self.head(self.gru(y.transpose(1, 2))[0])


@net(features(6), x=BATCH_FIRST)
class Backwards(nn.Module):
    """A second layer over the reversed sequence, flipped back."""

    def __init__(self):
        super().__init__()
        self.forwards, self.backwards, self.head = nn.LSTM(6, 5, batch_first=True), nn.LSTM(6, 4, batch_first=True), nn.Linear(9, 3)

    def forward(self, x):
        return self.head(torch.cat((self.forwards(x)[0], self.backwards(x.flip(1))[0].flip(1)), dim=2))


@net(lambda b, t: {"x": torch.randn(b, t, 6)}, x=BATCH_FIRST)
class LearnedStart(nn.Module):
    """Initial states that are parameters, repeated for each row."""

    def __init__(self):
        super().__init__()
        self.lstm, self.h0, self.c0 = nn.LSTM(6, 5, 2, batch_first=True), nn.Parameter(torch.randn(2, 1, 5)), nn.Parameter(torch.randn(2, 1, 5))

    def forward(self, x):
        b = x.size(0)
        y, (h, _) = self.lstm(x, (self.h0.repeat(1, b, 1), self.c0.expand(2, b, 5).contiguous()))
        return y, h[-1]


@net(lambda b, t: {"series": torch.randn(b, t, 3), "profile": torch.randn(b, 4)}, series=BATCH_FIRST, profile={0: "B"})
class TwoInputs(nn.Module):
    """A series, and a vector repeated at each of its steps."""

    def __init__(self):
        super().__init__()
        self.embed, self.gru, self.head = nn.Linear(4, 5), nn.GRU(8, 9, batch_first=True), nn.Linear(9, 1)

    def forward(self, series, profile):
        around = nn.functional.elu(self.embed(profile)).unsqueeze(1).expand(-1, series.shape[1], -1)
        return self.head(self.gru(torch.cat([series, around], -1))[0]).squeeze(-1)
