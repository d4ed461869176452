"""What a network says of sequences of any lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastrnn.errors import ShapeError
from fastrnn.training.base import positive
from fastrnn.training.data import columns, padded

if TYPE_CHECKING:
    from fastrnn.training.data import Columns
    from fastrnn.training.sequential import Sequential


def predict(net: Sequential, xs: Columns, batch_size: int) -> np.ndarray | list[np.ndarray]:
    """Sequential.predict. Sequences of like lengths are run together, which wastes less padding."""
    size, sequences = positive(batch_size, "batch_size", "predict"), columns(xs, "xs")
    if not sequences:
        raise ShapeError("predict: there is no sequence")
    for k, x in enumerate(sequences):
        if not x.ndim or x.shape[1:] != sequences[0].shape[1:]:
            raise ShapeError(f"sequence {k} has shape {x.shape}, sequence 0 {sequences[0].shape}; only their lengths may differ")
    found: list[np.ndarray] = [sequences[0]] * len(sequences)  # each is replaced
    order = np.argsort([-len(x) for x in sequences], kind="stable")
    for at in range(0, len(order), size):
        chosen = order[at : at + size]
        lengths = [len(sequences[k]) for k in chosen]
        whole = lengths[0] == lengths[-1]
        y = net(padded([sequences[k] for k in chosen], whole), None if whole else lengths)
        for b, (k, n) in enumerate(zip(chosen, lengths)):
            found[k] = y[b] if net.per_sequence else y[:n, b].copy()
    if net.per_sequence:
        return np.stack(found)
    one = (hasattr(xs, "__array__") or hasattr(xs, "__dlpack__")) and getattr(xs, "dtype", None) != np.object_
    return np.stack(found, axis=1) if one else found
