"""What torch.export cannot follow because torch itself looks into tensors, spelled out: a mode of this thread stands between a module's calls and torch.

gaussian_nll_loss     torch raises where a variance is negative      -> fastrnn::require, which does when the model runs
cov, corrcoef         torch warns where there is one observation     -> their definitions
ctc_loss              torch sizes its result by the longest target   -> its definition over fastrnn::alignments
linear_cross_entropy  options say in which pieces to compute         -> in one piece
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.overrides import TorchFunctionMode

from fastrnn.errors import UnsupportedModelError


@torch.library.custom_op("fastrnn::require", mutates_args=())
def require(x: torch.Tensor, condition: torch.Tensor, message: str) -> torch.Tensor:
    """x; an error with the message where the condition, a bool, does not hold."""
    return x.clone()


@require.register_fake
def _(x, condition, message):
    return torch.empty_like(x)


@torch.library.custom_op("fastrnn::alignments", mutates_args=())
def alignments(emissions: torch.Tensor, skips: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """For each row and state (B, S) the logarithm of the sum over all ways through emissions (T, B, S), logarithms too, that end there with step steps (B,) - 1. A way starts in
    state 0 or 1; a step stays, goes on by one, or by two where skips (B, S) says so. For tracing; it computes nothing."""
    raise UnsupportedModelError("fastrnn::alignments stands in an exported program for fastrnn.from_torch to read; torch cannot run it")


@alignments.register_fake
def _(emissions, skips, steps):
    return torch.empty_like(emissions[0])


def _reduced(losses: torch.Tensor, reduction: str) -> torch.Tensor:
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def _gaussian_nll_loss(func, input, target, var, full=False, eps=1e-6, reduction="mean"):
    """(log v + (x - t)^2 / v) / 2 with v = max(var, eps); full: and log(2 pi) / 2."""
    if not isinstance(var, torch.Tensor):
        var = torch.full((), var, dtype=input.dtype)
    elif input.dim() == var.dim() + 1:  # one for each row
        var = var.unsqueeze(-1)
    var = torch.ops.fastrnn.require(var, (var >= 0).all(), "gaussian_nll_loss: var has a negative entry").clamp(min=eps)
    losses = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    return _reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


def _cov(func, input, correction=1, fweights=None, aweights=None):
    """The mean product of deviations from the means of variables, which are rows."""
    if fweights is not None or aweights is not None:
        return func(input, correction=correction, fweights=fweights, aweights=aweights)
    x = input.reshape(1, -1) if input.dim() < 2 else input
    x = x - x.mean(1, keepdim=True)
    return (x @ x.mH / max(x.shape[1] - correction, 0)).squeeze()


def _corrcoef(func, input):
    """Covariances over both deviations, within -1 and 1."""
    c = _cov(torch.cov, input)
    if c.dim() == 0:
        return c / c
    deviations = c.diagonal().real.sqrt()
    c = c / deviations[:, None] / deviations[None]
    return torch.complex(c.real.clamp(-1, 1), c.imag.clamp(-1, 1)) if c.is_complex() else c.clamp(-1, 1)


def _whole(numbers: torch.Tensor | Sequence[int]) -> torch.Tensor:
    return numbers.to(torch.int64).reshape(-1) if isinstance(numbers, torch.Tensor) else torch.tensor(numbers, dtype=torch.int64)


def _ctc_loss(func, log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False):
    """Connectionist temporal classification (Graves et al. 2006): the alignments of each row's labels with blanks around them."""
    if isinstance(reduction, int):  # torch's own numbers of them
        reduction = ("none", "mean", "sum")[reduction]
    alone = log_probs.dim() == 2
    rows = log_probs.unsqueeze(1) if alone else log_probs
    steps, labels = _whole(input_lengths), _whole(target_lengths)
    if targets.dim() == 1:  # one row behind the other
        longest = targets.shape[0] if isinstance(target_lengths, torch.Tensor) else max(target_lengths)
        starts = (labels.cumsum(0) - labels)[:, None]
        targets = targets[(starts + torch.arange(longest)[None]).clamp(max=targets.shape[0] - 1)]
    targets = torch.where(torch.arange(targets.shape[1])[None] < labels[:, None], targets, blank)
    blanks = torch.full_like(targets, blank)
    states = torch.cat([torch.stack([blanks, targets], -1).flatten(1), torch.full_like(labels, blank)[:, None]], 1)
    before = torch.cat([torch.full_like(states[:, :1], blank).expand(-1, 2), states], 1)[:, :-2]
    ways = torch.ops.fastrnn.alignments(rows.gather(2, states[None].expand(rows.shape[0], -1, -1)), (states != blank) & (states != before), steps)
    last = ways.gather(1, torch.stack([2 * labels, (2 * labels - 1).clamp(min=0)], 1))  # the last blank, and the label before
    last = torch.where(torch.stack([labels >= 0, labels > 0], 1), last, -torch.inf)
    losses = -torch.logsumexp(last, 1)
    if zero_infinity:
        losses = torch.where(losses == torch.inf, torch.zeros(()), losses)
    if reduction == "mean":
        return (losses / labels.clamp(min=1)).mean()
    return losses[0] if reduction == "none" and alone else _reduced(losses, reduction)


def _linear_cross_entropy(func, *args, options=None, **kwargs):
    return func(*args, **kwargs)


HANDLERS = {
    "gaussian_nll_loss": _gaussian_nll_loss,
    "cov": _cov,
    "corrcoef": _corrcoef,
    "ctc_loss": _ctc_loss,
    "linear_cross_entropy": _linear_cross_entropy,
}


class SpellOut(TorchFunctionMode):
    """The mode."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        handler = HANDLERS.get(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {})) if handler is None else handler(func, *args, **(kwargs or {}))
