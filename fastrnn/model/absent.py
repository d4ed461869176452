"""Weights whose numbers a session gave up once they were packed, so that it does not hold them twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastrnn.errors import StateError

if TYPE_CHECKING:
    from fastrnn.model.graph import Model


class Absent(np.ndarray):
    """Stands for such a weight: its dtype and shape, one element of memory."""


def absent_like(array: np.ndarray) -> Absent:
    """A stand-in for `array`."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape).view(Absent)


def refuse_absent(model: Model, action: str) -> None:
    """Raises StateError where a model lacks numbers, as Session.model does. action: what to do with the other one, as an imperative."""
    for name, array in model.weights.items():
        if isinstance(array, Absent):
            raise StateError(f"weight {name!r}: a session keeps it packed only; {action} the model that was given to compile")
