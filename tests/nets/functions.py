"""Modules made of a function, and whether a model gives what a module gives."""

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

import fastrnn as fr

TOLERANCE = 5e-6  # of an output's largest entry: a layer or two in float32


class Of(nn.Module):
    """A function of parts and inputs as a module."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleDict(parts)

    def forward(self, *inputs):
        return self.function(self.parts, *inputs)


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def agree(model, module, *inputs):
    """What the model gives for these inputs is what the module gives, shapes and values."""
    with torch.no_grad():
        want = pytree.tree_leaves(module.eval()(*inputs))
    got = fr.compile(model).run(dict(zip(model.input_names, (t.numpy() for t in pytree.tree_leaves(inputs)), strict=True)))
    for mine, theirs in zip(got.values(), want, strict=True):
        assert mine.shape == tuple(theirs.shape) and np.abs(mine - theirs.numpy()).max() <= TOLERANCE * max(1.0, theirs.abs().max())
