"""Modules made of a function."""

from torch import nn


class Of(nn.Module):
    """A function of parts and inputs as a module."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleDict(parts)

    def forward(self, *inputs):
        return self.function(self.parts, *inputs)
