"""Operators taken apart into others that torch itself leaves whole, as functions over tensors."""

from __future__ import annotations

import itertools

import torch


def _reflected(at: torch.Tensor, low: float, span: float) -> torch.Tensor:
    """Places mirrored at low and low + span until they lie between."""
    away = (at - low).abs()
    rest = torch.fmod(away, 2 * span)
    return low + torch.minimum(rest, 2 * span - rest)


def _places(at: torch.Tensor, size: int, padding_mode: int, align_corners: bool) -> torch.Tensor:
    """Coordinates of -1 to 1 as places along an axis: the middles of its first and last entry, or with align_corners=False their outer edges. padding_mode: 0 zeros, 1 the border's
    entry, 2 mirrored."""
    at = at * ((size - 1) / 2 if align_corners else size / 2) + (size - 1) / 2
    if padding_mode == 2 and not (align_corners and size == 1):
        at = _reflected(at, 0.0, size - 1) if align_corners else _reflected(at, -0.5, size)
    return at if padding_mode == 0 else at.clamp(0, size - 1)


def grid_sampler_3d(x: torch.Tensor, grid: torch.Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> torch.Tensor:
    """Entries of x (N, C, D, H, W) around the places of grid (N, d, h, w, 3), whose last axis counts W, H, D: the nearest, or the eight around weighted by their nearness."""
    sizes = x.shape[2:]
    at = [_places(grid[..., 2 - k], size, padding_mode, align_corners) for k, size in enumerate(sizes)]
    firsts = [a.round() if interpolation_mode == 1 else a.floor() for a in at]
    rows, channels = torch.arange(x.shape[0]).view(-1, 1, 1, 1, 1), torch.arange(x.shape[1]).view(1, -1, 1, 1, 1)
    result = None
    for corner in [(0, 0, 0)] if interpolation_mode == 1 else itertools.product((0, 1), repeat=3):
        places = [first + step for first, step in zip(firsts, corner)]
        weight, inside = torch.ones_like(at[0]), torch.ones_like(at[0], dtype=torch.bool)
        for a, place, size in zip(at, places, sizes):
            inside = inside & (place >= 0) & (place < size)
            weight = weight if interpolation_mode == 1 else weight * (1 - (a - place).abs())
        index = [place.clamp(0, size - 1).to(torch.int64).unsqueeze(1) for place, size in zip(places, sizes)]
        part = x[(rows, channels, *index)] * torch.where(inside, weight, 0).unsqueeze(1)
        result = part if result is None else result + part
    return result


APART = {torch.ops.aten.grid_sampler_3d.default: grid_sampler_3d}
