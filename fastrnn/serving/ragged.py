"""Whole sequences of different lengths through a session: each runs alone, as long as it is, so what it gives is Session.run's by construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.errors import ShapeError
from fastrnn.plan.streams.streaming import batch_symbol, time_symbol
from fastrnn.runtime import checks
from fastrnn.runtime.session import Session

if TYPE_CHECKING:
    from fastrnn.model import Value
    from fastrnn.typing import ArrayLike


class Ragged:
    """A session whose inputs leave rows, and maybe time, open. Safe from many threads."""

    def __init__(self, session: Session) -> None:
        self._session, model = session, session.model
        self._rows = batch_symbol(model)
        self._time = time_symbol(session.plan.specialised({v.name: tuple(v.shape) for v in model.inputs if not v.optional}))
        self._inputs, self._outputs = {v.name: v for v in model.inputs}, {v.name: v for v in model.outputs}

    def run(self, inputs: Mapping[str, np.ndarray], lengths: ArrayLike) -> dict[str, np.ndarray]:
        """Outputs by name of a padded batch, lengths (B,) of its rows along the time axis; zeros where outputs go on past a row's length.

        Raises ShapeError where the model leaves rows or time not open, for lengths that do not fit, and for an output without an axis of rows.
        """
        if self._rows is None or self._time is None:
            raise ShapeError("lengths: this model leaves no rows and time open")
        lengths = checks.as_array(lengths, "lengths")
        bound = checks.bind_shapes(self._inputs.values(), inputs)
        n, steps = (self._size(bound, symbol) for symbol in (self._rows, self._time))
        if lengths.dtype.kind != "i" or lengths.shape != (n,) or n and not 0 <= lengths.min() <= lengths.max() <= steps:
            raise ShapeError(f"lengths must be integers ({n},) in 0..{steps}, got {lengths.dtype} {lengths.shape}")
        found = [self._session.run({name: self._cut(name, a, r, int(lengths[r])) for name, a in inputs.items()}) for r in range(n)]
        return {name: self._joined(value, [one[name] for one in found], steps) for name, value in self._outputs.items()}

    def each(self, rows: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """Outputs by name of each sequence, inputs and outputs without the axis of rows. Raises ShapeError."""
        found = []
        for row in rows:
            given = {
                name: np.expand_dims(checks.as_array(a, name), self._axis(self._inputs.get(name), name)) if self._rows else a
                for name, a in row.items()
            }
            done = self._session.run(given)
            found.append({name: np.take(a, 0, self._axis(self._outputs[name], name)) if self._rows else a for name, a in done.items()})
        return found

    def _axis(self, value: Value | None, name: str) -> int:
        if value is None or self._rows not in value.shape:
            raise ShapeError(f"{name!r} has no axis of rows")
        return value.shape.index(self._rows)

    def _size(self, bound: Mapping[str, tuple[int, ...]], symbol: str) -> int:
        return next(bound[name][v.shape.index(symbol)] for name, v in self._inputs.items() if name in bound and symbol in v.shape)

    def _cut(self, name: str, a: np.ndarray, row: int, length: int) -> np.ndarray:
        """One row of an input, as long as it is; what has neither axis is everybody's."""
        shape = self._inputs[name].shape
        if self._rows in shape:
            a = a.take([row], shape.index(self._rows))
        return a.take(range(length), shape.index(self._time)) if self._time in shape else a

    def _joined(self, value: Value, parts: list[np.ndarray], steps: int) -> np.ndarray:
        rows = self._axis(value, value.name)
        shape = [
            steps if d == self._time else max((part.shape[k] for part in parts), default=d if isinstance(d, int) else 0)
            for k, d in enumerate(value.shape)
        ]
        shape[rows] = len(parts)
        whole = np.zeros(shape, np.dtype(value.dtype))
        for r, part in enumerate(parts):
            whole[tuple(slice(r, r + 1) if k == rows else slice(n) for k, n in enumerate(part.shape))] = part
        return whole
