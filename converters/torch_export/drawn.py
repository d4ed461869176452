"""Inputs like an example's, of any sizes, in which no two entries mean the same: an example's zeros, ones and copies prove nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.utils import _pytree as pytree

from fastrnn.converters.samples import index_ranges
from fastrnn.model import Model

JITTER = 0.05  # of an entry, so that none stands there twice: what sorts or picks the largest leaves the order of equals open
MORE = 8  # times that equal entries are drawn again, which there are among thousands of floats
FEW = 8  # different values in an example, below which others are drawn than its own


def drawn(
    model: Model, args: tuple, kwargs: dict, sizes: Mapping[str, int], seed: int, order: str = "any", short: bool = False
) -> tuple[tuple, dict]:
    """Inputs of these sizes, each drawn for itself. Floats are like the example's own entries, or normal ones of its size where it has few;
    indices lie within their tables, lengths within the steps, one row of them whole, in any order, falling, or all the same; bools are both; other integers
    lie within the example's. short: no row reaches the last step."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    random, values = torch.Generator().manual_seed(seed), iter(model.inputs)
    ranges, lengths = index_ranges(model), index_ranges(model, lengths_only=True)

    def one(leaf: torch.Tensor) -> torch.Tensor:
        value = next(values)
        shape = [sizes.get(d, n) if isinstance(d, str) else d for d, n in zip(value.shape, leaf.shape)]
        if leaf.is_floating_point():
            return _floats(leaf, shape, random)
        if leaf.is_complex():
            return torch.complex(*(_floats(part, shape, random) for part in (leaf.real, leaf.imag)))
        if leaf.dtype == torch.bool:
            return torch.rand(shape, generator=random) < 0.5
        if value.name in lengths and len(shape) == 1:
            steps = lengths[value.name]
            most = sizes.get(steps, 1) if isinstance(steps, str) else steps - 1
            return _lengths(most - short, shape, random, order).to(leaf.dtype)
        low, high = _bounds(leaf)
        known = ranges.get(value.name)
        low, high = (0, known) if isinstance(known, int) else (low, high)
        return torch.randint(low, max(high, low + 1), shape, generator=random).to(leaf.dtype)

    return pytree.tree_unflatten([one(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec)


def _floats(leaf: torch.Tensor, shape: list[int], random: torch.Generator) -> torch.Tensor:
    known = leaf.detach().cpu()[torch.isfinite(leaf.detach().cpu())]
    size = float(known.abs().max()) if len(known) else 0.0

    def entries() -> torch.Tensor:
        if len(torch.unique(known)) > FEW:
            return (known[torch.randint(len(known), shape, generator=random)] * (1 + JITTER * torch.randn(shape, generator=random))).to(leaf.dtype)
        made = torch.randn(shape, generator=random, dtype=torch.float64) * (size or 0.5)
        return (made.abs() if len(known) and size and float(known.min()) >= 0 else made).to(leaf.dtype)

    made, zeros = entries(), int((known == 0).sum()) > 1  # which mean something, as padding does
    for _ in range(MORE):
        order = made.flatten().sort(stable=True)
        twice = torch.zeros(made.numel(), dtype=torch.bool)
        twice[order.indices[1:]] = (order.values[1:] == order.values[:-1]) & ~(zeros & (order.values[1:] == 0))
        if not twice.any():
            break
        made = torch.where(twice.reshape(made.shape), entries(), made)
    return made


def _lengths(steps: int, shape: list[int], random: torch.Generator, order: str) -> torch.Tensor:
    lengths = torch.randint(1, max(steps, 1) + 1, shape, generator=random)
    if len(lengths):
        lengths[slice(None) if order == "same" else len(lengths) // 2] = max(steps, 1)
    return lengths.sort(descending=True).values if order == "falling" else lengths


def _bounds(leaf: torch.Tensor) -> tuple[int, int]:
    """Of integers whose meaning is not known: from the smallest there is, at most 0 or 1, to the largest."""
    if not leaf.numel():
        return 0, 1
    low, high = int(leaf.min()), int(leaf.max())
    return min(low, 1), high + 1
