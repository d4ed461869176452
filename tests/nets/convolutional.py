"""Convolutions before, after and between recurrent layers."""

import torch
from net import BATCH_FIRST, features, net
from torch import nn
from torch.nn import functional as F


@net(features(20), not_newest="it cannot decompose an LSTM of computed length", x=BATCH_FIRST)
class CtcHead(nn.Module):
    """Convolutions that halve the frames, LSTMs, log probabilities time first."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(20, 8, 3, stride=2, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.lstm, self.head = nn.LSTM(8, 7, 2, bidirectional=True), nn.Linear(14, 6)

    def forward(self, x):
        y = self.conv(x.transpose(1, 2)).permute(2, 0, 1)
        return F.log_softmax(self.head(self.lstm(y)[0]), dim=2)


@net(lambda b, t: {"image": torch.randn(b, 1, 8, 2 * t)}, image={0: "B"}, example=(2, 8), others=((3, 8), (1, 8)))
class Crnn(nn.Module):
    """Conv2d with pooling, columns as steps of a bidirectional GRU."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.MaxPool2d((2, 1)),
        )
        self.gru, self.head = nn.GRU(12, 7, bidirectional=True), nn.Linear(14, 5)

    def forward(self, image):
        y = self.cnn(image)
        b, c, h, w = y.shape
        y = y.reshape(b, c * h, w).permute(2, 0, 1)
        return self.head(self.gru(y)[0]).log_softmax(2)


@net(features(5), x=BATCH_FIRST)
class DilatedTcnLstm(nn.Module):
    """Causal dilated convolutions with residuals, then an LSTM."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(5 if k == 0 else 6, 6, 3, dilation=2**k) for k in range(3))
        self.lstm = nn.LSTM(6, 4, batch_first=True)

    def forward(self, x):
        y = x.transpose(1, 2)
        for k, conv in enumerate(self.convs):
            z = F.relu(conv(F.pad(y, (2 * 2**k, 0))))
            y = z if z.shape[1] != y.shape[1] else y + z
        return self.lstm(y.transpose(1, 2))[0]


@net(features(6), x=BATCH_FIRST)
class GatedConv(nn.Module):
    """Gated linear units over convolutions, a GRU behind."""

    def __init__(self):
        super().__init__()
        self.conv, self.depthwise, self.gru = nn.Conv1d(6, 12, 3, padding=1), nn.Conv1d(6, 6, 5, padding=2, groups=6), nn.GRU(6, 5, batch_first=True)

    def forward(self, x):
        y = F.glu(self.conv(x.transpose(1, 2)), dim=1)
        return self.gru(F.silu(self.depthwise(y)).transpose(1, 2))[0]


@net(lambda b, t: {"x": torch.randn(b, 2, 2 * t)}, x={0: "B", 2: "T"})
class WaveUnet(nn.Module):
    """Down, an LSTM in the middle, up by a transposed convolution, the skip joined."""

    def __init__(self):
        super().__init__()
        self.inner, self.down, self.lstm = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(4, 6, 4, stride=2, padding=1), nn.LSTM(6, 6, batch_first=True)
        self.up, self.out = nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1), nn.Conv1d(8, 1, 1)

    def forward(self, x):
        skip = F.leaky_relu(self.inner(x), 0.2)
        y = self.lstm(F.elu(self.down(skip)).transpose(1, 2))[0].transpose(1, 2)
        return self.out(torch.cat([self.up(y)[..., : skip.shape[-1]], skip], dim=1)).tanh()


@net(lambda b, t: {"x": torch.randn(b, 4, 5, t)}, x={0: "B", 3: "T"})
class DualPath(nn.Module):
    """DPRNN: along the chunks, then across them, group norms and residuals."""

    def __init__(self):
        super().__init__()
        self.intra, self.inter = nn.LSTM(4, 6, batch_first=True, bidirectional=True), nn.LSTM(4, 6, batch_first=True)
        self.intra_out, self.inter_out, self.norm1, self.norm2 = nn.Linear(12, 4), nn.Linear(6, 4), nn.GroupNorm(1, 4), nn.GroupNorm(2, 4)

    def forward(self, x):
        b, n, k, s = x.shape
        y = self.intra_out(self.intra(x.permute(0, 3, 2, 1).reshape(b * s, k, n))[0]).view(b, s, k, n)
        x = x + self.norm1(y.permute(0, 3, 2, 1))
        y = self.inter_out(self.inter(x.permute(0, 2, 3, 1).reshape(b * k, s, n))[0]).view(b, k, s, n)
        return x + self.norm2(y.permute(0, 3, 1, 2))


@net(lambda b, t: {"x": torch.randn(b, 2, t, 8)}, x={0: "B", 2: "T"})
class SpectrogramMask(nn.Module):
    """A denoiser: convolutions over frequency, a GRU over time, a mask by transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.encode, self.norm, self.prelu = nn.Conv2d(2, 4, (1, 3), stride=(1, 2), padding=(0, 1)), nn.BatchNorm2d(4), nn.PReLU(4)
        self.gru, self.back = nn.GRU(16, 12, batch_first=True), nn.Linear(12, 16)
        self.decode = nn.ConvTranspose2d(4, 2, (1, 3), stride=(1, 2), padding=(0, 1), output_padding=(0, 1))

    def forward(self, x):
        y = self.prelu(self.norm(self.encode(x)))
        b, c, t, f = y.shape
        z = self.back(self.gru(y.permute(0, 2, 1, 3).reshape(b, t, c * f))[0])
        y = y * z.view(b, t, c, f).permute(0, 2, 1, 3).sigmoid()
        return x * torch.tanh(self.decode(y))


@net(features(6), x=BATCH_FIRST)
class InstanceNormed(nn.Module):
    """Instance norm over time, average pooling, and a head on the pooled steps."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv, self.gru, self.head = (
            nn.InstanceNorm1d(6, affine=True),
            nn.Conv1d(6, 5, 2),
            nn.GRU(5, 4, batch_first=True),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        y = F.avg_pool1d(F.hardswish(self.conv(self.norm(x.transpose(1, 2)))), 2, stride=1)
        return self.head(F.adaptive_avg_pool1d(self.gru(y.transpose(1, 2))[0].transpose(1, 2), 1).squeeze(-1))


@net(features(8), "older opsets have no RMS norm, and the exporters write none", x=BATCH_FIRST)
class RmsNormed(nn.Module):
    """RMS norm and a gated layer around a GRU."""

    def __init__(self):
        super().__init__()
        self.norm, self.gru, self.up, self.down = nn.RMSNorm(8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 24), nn.Linear(12, 8)

    def forward(self, x):
        y = x + self.gru(self.norm(x))[0]
        gate, up = self.up(self.norm(y)).chunk(2, -1)
        return y + self.down(F.silu(gate) * up)


@net(features(6), x=BATCH_FIRST)
class Conformerish(nn.Module):
    """Half-step feed forward, depthwise convolution, GRU, in the manner of a conformer."""

    def __init__(self):
        super().__init__()
        self.norm, self.ff = nn.LayerNorm(6), nn.Sequential(nn.Linear(6, 12), nn.SiLU(), nn.Dropout(0.1), nn.Linear(12, 6))
        self.point, self.depth, self.batch_norm, self.gru = (
            nn.Conv1d(6, 12, 1),
            nn.Conv1d(6, 6, 3, padding="same", groups=6),
            nn.BatchNorm1d(6),
            nn.GRU(6, 6, batch_first=True),
        )

    def forward(self, x):
        x = x + 0.5 * self.ff(self.norm(x))
        y = self.batch_norm(self.depth(F.glu(self.point(x.transpose(1, 2)), 1)))
        return self.gru(x + y.transpose(1, 2))[0]
