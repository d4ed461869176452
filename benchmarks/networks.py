"""Networks of common forms that no shared file has, with drawn weights: readers of captchas and of words in a scene, a detector of voice activity."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from cases import ModelCase
from torch import nn


def convolved(channels: int, units: int, size: int = 3, normed: bool = False) -> list[nn.Module]:
    """A convolution of size x size taps, padded to keep lines and columns where the size is odd; BatchNorm, if normed; ReLU."""
    return [nn.Conv2d(channels, units, size, padding=size // 2 if size % 2 else 0), *([nn.BatchNorm2d(units)] if normed else []), nn.ReLU()]


class Captcha(nn.Module):
    """Two convolutions with pooling, a dense layer over each column's features, two bidirectional LSTMs over the columns: the form of Keras' example."""

    shape = (1, 50, 200)

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.Sequential(*convolved(1, 32), nn.MaxPool2d(2), *convolved(32, 64), nn.MaxPool2d(2))
        self.dense, self.first, self.second, self.head = (
            nn.Linear(768, 64),
            nn.LSTM(64, 128, bidirectional=True),
            nn.LSTM(256, 64, bidirectional=True),
            nn.Linear(128, 21),
        )

    def forward(self, x):
        y = self.columns(x).permute(3, 0, 1, 2).flatten(2)
        return self.head(self.second(self.first(self.dense(y).relu())[0])[0]).softmax(2)


class Words(nn.Module):
    """CRNN: Shi, Bai and Yao (2015, arXiv:1507.05717, table 1)."""

    shape = (1, 32, 100)

    def __init__(self) -> None:
        super().__init__()
        lines = lambda: nn.MaxPool2d((2, 1))
        self.columns = nn.Sequential(
            *convolved(1, 64), nn.MaxPool2d(2), *convolved(64, 128), nn.MaxPool2d(2), *convolved(128, 256), *convolved(256, 256), lines(),
            *convolved(256, 512, normed=True), *convolved(512, 512, normed=True), lines(), *convolved(512, 512, 2),
        )  # fmt: skip
        self.layers, self.head = nn.LSTM(512, 256, 2, bidirectional=True), nn.Linear(512, 37)

    def forward(self, x):
        return self.head(self.layers(self.columns(x).squeeze(2).permute(2, 0, 1))[0]).log_softmax(2)


class Voice(nn.Module):
    """Separable convolutions over three frames of 41 features, their maximum over both by a pooling of volumes, two LSTMs of 64."""

    shape = (1, 3, 41)

    def __init__(self) -> None:
        super().__init__()
        separable = lambda channels, units: [nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, units, 1), nn.ReLU()]
        self.features, self.most = nn.Sequential(*separable(1, 32), *separable(32, 64)), nn.MaxPool3d((1, 3, 41))
        self.layers, self.head = nn.LSTM(64, 64, 2), nn.Linear(64, 1)

    def forward(self, x):
        return self.head(self.layers(self.most(self.features(x).unsqueeze(1)).flatten(2).transpose(0, 1))[0]).sigmoid()


NETWORKS = {
    "captcha 50 x 200": (Captcha, 1, True),
    "captchas 50 x 200, 8 of them": (Captcha, 8, False),
    "word 32 x 100": (Words, 1, False),
    "words 32 x 100, 4 of them": (Words, 4, False),
    "voice activity, a frame": (Voice, 1, True),
}
CASES = [ModelCase(name, "", quick=quick) for name, (_, _, quick) in NETWORKS.items()]


def written(name: str, folder: Path) -> str:
    """The file of one of them, for so many inputs at once."""
    make, batch, _ = NETWORKS[name]
    torch.manual_seed(0)
    network, path = make().eval(), folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(batch, *make.shape),), path, input_names=["x"], output_names=["y"], dynamo=False)
    return str(path)
