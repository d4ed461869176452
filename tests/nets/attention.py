"""Attention over recurrent layers."""

import math

import torch
from net import BATCH_FIRST, features, net, tokens
from torch import nn
from torch.nn import functional as F


@net(features(6), x=BATCH_FIRST)
class Bahdanau(nn.Module):
    """Additive attention of the final state over all steps."""

    def __init__(self):
        super().__init__()
        self.lstm, self.key, self.query, self.score = nn.LSTM(6, 7, batch_first=True), nn.Linear(7, 5), nn.Linear(7, 5, bias=False), nn.Linear(5, 1)

    def forward(self, x):
        y, (h, _) = self.lstm(x)
        weights = torch.softmax(self.score(torch.tanh(self.key(y) + self.query(h[-1]).unsqueeze(1))), dim=1)
        return (weights * y).sum(dim=1), weights.squeeze(2)


@net(lambda b, t: {"x": torch.randn(b, t, 6), "target": torch.randn(b, 5, 4)}, x=BATCH_FIRST, target={0: "B"})
class Luong(nn.Module):
    """Multiplicative attention of a decoder over its encoder."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.general, self.out = (
            nn.GRU(6, 8, batch_first=True),
            nn.GRU(4, 8, batch_first=True),
            nn.Linear(8, 8, bias=False),
            nn.Linear(16, 5),
        )

    def forward(self, x, target):
        keys, h = self.encoder(x)
        queries, _ = self.decoder(target, h)
        weights = F.softmax(torch.bmm(self.general(queries), keys.transpose(1, 2)), dim=-1)
        return torch.tanh(self.out(torch.cat((queries, weights @ keys), dim=-1)))


@net(features(8), oldest=13, fixed_in_onnx=True, x=BATCH_FIRST)
class MultiHead(nn.Module):
    """nn.MultiheadAttention over an LSTM, its weights an output."""

    def __init__(self):
        super().__init__()
        self.lstm, self.attention, self.norm = nn.LSTM(8, 8, batch_first=True), nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

    def forward(self, x):
        y = self.lstm(x)[0]
        z, weights = self.attention(y, y, y)
        return self.norm(y + z), weights


@net(
    lambda b, t: {"x": torch.randn(b, t, 8), "padding": torch.arange(t)[None] >= torch.randint(1, t + 1, (b, 1))},
    oldest=17,
    fixed_in_onnx=True,
    x=BATCH_FIRST,
    padding=BATCH_FIRST,
)
class MaskedMultiHead(nn.Module):
    """Keys that are padding are left out."""

    def __init__(self):
        super().__init__()
        self.gru, self.attention = nn.GRU(8, 8, batch_first=True), nn.MultiheadAttention(8, 4, batch_first=True)

    def forward(self, x, padding):
        y = self.gru(x)[0]
        return self.attention(y, y, y, key_padding_mask=padding, need_weights=False)[0]


@net(features(8), oldest=17, x=BATCH_FIRST)
class CausalAttention(nn.Module):
    """scaled_dot_product_attention, causal, beside a GRU."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out, self.gru = nn.Linear(8, 24), nn.Linear(8, 8), nn.GRU(8, 8, batch_first=True)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (part.view(b, t, 2, d // 2).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.gru(x + self.out(y.transpose(1, 2).reshape(b, t, d)))[0]


@net(features(8), oldest=17, fixed_in_onnx=True, x=BATCH_FIRST)
class EncoderLayerThenGru(nn.Module):
    """nn.TransformerEncoderLayer before a GRU."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
        self.gru = nn.GRU(8, 5, batch_first=True)

    def forward(self, x):
        return self.gru(self.layer(x))[0]


@net(features(6), oldest=13, x=BATCH_FIRST)
class EinsumHeads(nn.Module):
    """Heads by einsum, learned queries pooling the steps."""

    def __init__(self):
        super().__init__()
        self.gru, self.queries, self.mix = nn.GRU(6, 8, batch_first=True), nn.Parameter(torch.randn(3, 8)), nn.Parameter(torch.randn(3, 8, 4))

    def forward(self, x):
        y = self.gru(x)[0]
        weights = torch.einsum("qd,btd->bqt", self.queries, y).div(math.sqrt(8)).softmax(-1)
        return torch.einsum("bqt,btd,qde->bqe", weights, y, self.mix)


@net(features(5), x=BATCH_FIRST)
class SelfAttentivePooling(nn.Module):
    """Several weights for each step, and the statistics under them."""

    def __init__(self):
        super().__init__()
        self.lstm, self.a, self.b = nn.LSTM(5, 6, bidirectional=True, batch_first=True), nn.Linear(12, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = self.lstm(x)[0]
        w = F.softmax(self.b(torch.tanh(self.a(y))), dim=1).transpose(1, 2)
        mean = torch.matmul(w, y)
        spread = torch.sqrt(torch.clamp(torch.matmul(w, y * y) - mean**2, min=1e-4))
        return torch.cat([mean, spread], -1).flatten(1)


@net(tokens(12), x=BATCH_FIRST)
class PositionalEncoding(nn.Module):
    """Sines as a buffer, cut to the length, added to embeddings."""

    def __init__(self):
        super().__init__()
        angle = torch.arange(40.0)[:, None] / torch.tensor([1.0, 4.0, 20.0, 100.0])
        self.register_buffer("table", torch.cat([angle.sin(), angle.cos()], 1), persistent=False)
        self.embedding, self.gru, self.head = nn.Embedding(12, 8), nn.GRU(8, 7, batch_first=True), nn.Linear(7, 2)

    def forward(self, x):
        y = self.embedding(x) * math.sqrt(8) + self.table[: x.size(1)]
        return self.head(self.gru(y)[0].amax(dim=1))


@net(lambda b, t: {"x": torch.randn(b, t, 6), "target": torch.randn(b, 4, 5)}, oldest=13, x=BATCH_FIRST, target={0: "B"})
class AttentiveCellDecoder(nn.Module):
    """A cell that looks at the encoder at each of its steps."""

    def __init__(self):
        super().__init__()
        self.encoder, self.cell, self.key, self.out = nn.GRU(6, 7, batch_first=True), nn.LSTMCell(12, 7), nn.Linear(7, 7), nn.Linear(14, 3)

    def forward(self, x, target):
        keys, h = self.encoder(x)
        h, c, ys = h[0], torch.zeros_like(h[0]), []
        for step in target.unbind(1):
            weights = torch.softmax((self.key(keys) * h.unsqueeze(1)).sum(-1), dim=-1)
            context = torch.einsum("bt,bth->bh", weights, keys)
            h, c = self.cell(torch.cat([step, context], 1), (h, c))
            ys.append(self.out(torch.cat([h, context], dim=-1)))
        return torch.stack(ys, dim=1)
