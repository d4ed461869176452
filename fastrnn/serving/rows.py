"""What one request brings: a row of each input, and what all rows of a step share.

Rows wait as bytes. Joining bytes keeps Python's lock; numpy.concatenate gives it up at every row, and where a loop is at work the engine then waits
5 ms to have it back.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.errors import ShapeError
from fastrnn.runtime import checks
from fastrnn.runtime.pools.pool import Pool
from fastrnn.serving.callers import Request


class Answer(NamedTuple):
    """The outputs of a step, or of a chunk of so many steps, which of their rows, and the stream afterwards where that was asked for."""

    outputs: tuple[np.ndarray, ...]
    row: int
    exported: bytes | None = None
    steps: int | None = None


class Field:
    """An input of a step. shape: of a row, without the axis of rows; axis: where that stands, None where all rows share the array."""

    def __init__(self, name: str, dtype: np.dtype, shape: tuple[int, ...], axis: int | None, low: int | None, high: int | None):
        self.name, self.dtype, self.shape, self.axis, self.low, self.high = name, dtype, shape, axis, low, high
        self.whole = shape if axis is None else (*shape[:axis], 1, *shape[axis:])

    def read(self, value, steps: int | None = None) -> tuple[bytes, bool]:
        """The content, and whether the caller's array has the axis of rows. steps: of a chunk, in front. Raises ShapeError, also for integers out
        of range, or DTypeError."""
        a = value if type(value) is np.ndarray else checks.as_array(value, self.name)
        shape = a.shape if steps is None else a.shape[1:] if a.shape[:1] == (steps,) else None
        if a.dtype != self.dtype or shape != self.shape and shape != self.whole:
            checks.check_dtype(a, f"input {self.name!r}", self.dtype)
            front = () if steps is None else ("T",)
            allowed = " or ".join(f"({', '.join(map(str, (*front, *one)))})" for one in dict.fromkeys((self.shape, self.whole)))
            raise ShapeError(f"input {self.name!r} of one request must have shape {allowed}, got {a.shape}")
        if self.low is not None and a.size and not self.low <= a.min() <= a.max() <= self.high:
            raise checks.out_of_range(self.name, int(next(v for v in a.flat if not self.low <= v <= self.high)), self.low, self.high)
        return a.tobytes(), len(shape) == len(self.whole)

    def joined(self, rows: Sequence[bytes], steps: int | None) -> np.ndarray:
        """The array of a step, or of a chunk."""
        front = () if steps is None else (steps,)
        if self.axis is None:
            return np.frombuffer(rows[0], self.dtype).reshape((*front, *self.shape))
        a, axis = np.frombuffer(b"".join(rows), self.dtype).reshape(len(rows), *front, *self.shape), self.axis + len(front)
        return a if axis == 0 else np.moveaxis(a, 0, axis)


class Rows:
    """Reads requests, puts rows together, takes outputs apart. A model that leaves sizes open is planned by the first request's."""

    def __init__(self, pool: Pool):
        self._pool, self._lock = pool, threading.Lock()
        self._fields: list[Field] | None = None
        self.output_names = pool.output_names
        if pool.inputs is not None:
            self._learn()

    def read(self, x, steps: int | None = None) -> tuple[bytes | tuple[bytes, ...], tuple | None, bool]:
        """(content of each input, or of the only one; what must be equal in all requests of a step; whether the arrays have the axis of rows) of
        one request.

        x: an array, or a dict of several inputs. steps: of a chunk. Raises ShapeError or DTypeError.
        """
        if self._fields is None:
            self._plan(x if steps is None else _first_of(x))
        if self._only is not None and type(x) is not dict:
            content, whole = self._only.read(x, steps)
            return content, None if steps is None else (steps,), whole
        contents, key, wholes = [], [] if steps is None else [steps], set()
        x = self._by_name(x)
        for field in self._fields:
            content, whole = field.read(x[field.name], steps)
            contents.append(content)
            if field.axis is None:
                key.append(content)
            else:
                wholes.add(whole)
        if len(wholes) > 1:
            raise ShapeError("either all inputs of a request have the axis of rows, or none")
        return contents[0] if self._only is not None else tuple(contents), tuple(key) or None, wholes == {True}

    def gather(self, batch: Sequence[Request]):
        """What Pool.step takes, of requests with one key."""
        steps = batch[0].steps
        if self._only is not None:
            return self._only.joined([request.inputs for request in batch], steps)
        return {field.name: field.joined(rows, steps) for field, rows in zip(self._fields, zip(*(request.inputs for request in batch)))}

    def answers(self, outputs, exported: Sequence[bytes | None], steps: int | None) -> list[Answer]:
        """The answer of each row of what Pool.step, or Pool.push of so many steps, gave."""
        outputs, make = outputs if type(outputs) is tuple else (outputs,), tuple.__new__  # half the time of a NamedTuple's own
        return [make(Answer, (outputs, k, blob, steps)) for k, blob in enumerate(exported)]

    @property
    def fields(self) -> tuple[Field, ...] | None:
        """What a step takes of one caller; None before that is known."""
        return None if self._fields is None else tuple(self._fields)

    def in_front(self, x: Mapping[str, np.ndarray]) -> int | None:
        """The steps of a chunk, if these are one: inputs with the axis of rows and another in front of them; None: a step."""
        for name, rank in self._pool.row_ranks.items():
            if rank is not None and name in x and x[name].ndim == rank + 1:
                return x[name].shape[0]
        return None

    def steps_of(self, chunk) -> int:
        """Of a chunk: an array, or a dict of several inputs, that many entries in front. Raises ShapeError."""
        named = chunk if isinstance(chunk, dict) else {"x": chunk}
        return checks.common_steps({name: checks.as_array(value, name) for name, value in named.items()})

    def result(self, answer: Answer, whole: bool):
        """What a request's future holds: an array, or a tuple of several, in memory of their own; whole: with the axis of rows. Where the stream was
        asked for, that and its bytes."""
        found, k = [], answer.row
        if len(answer.outputs) == 1 and answer.steps is None and self._axes[0] == 0:  # as most are
            a = answer.outputs[0]
            y = a[k : k + 1].copy() if whole else a[k, ...].copy()
            return y if answer.exported is None else (y, answer.exported)
        for a, axis in zip(answer.outputs, self._axes_of(answer)):
            row = a[k, ...] if axis == 0 else a[(*(slice(None),) * axis, k)]
            found.append(np.expand_dims(row, axis).copy() if whole else row.copy())
        y = found[0] if len(found) == 1 else tuple(found)
        return y if answer.exported is None else (y, answer.exported)

    def kept(self, answer: Answer) -> Answer:
        """The answer without the rest of its step."""
        return answer._replace(outputs=tuple(a.take([answer.row], axis) for a, axis in zip(answer.outputs, self._axes_of(answer))), row=0)

    def _axes_of(self, answer: Answer) -> tuple[int, ...]:
        return self._axes if answer.steps is None else tuple(axis + 1 for axis in self._axes)

    def _by_name(self, x) -> dict:
        given = x if isinstance(x, dict) or len(self._names) != 1 else {self._names[0]: x}
        checks.same_names(checks.as_mapping(given, "a request of several inputs"), self._names)
        return given

    # What the pool was planned for.

    def _plan(self, x) -> None:
        """By the first request, where the model leaves sizes open or an input steers. Nothing has been stepped before it."""
        with self._lock:
            if self._fields is None:
                self._pool.prepare(x)
                self._learn()

    def _learn(self) -> None:
        fields = [Field(*described) for described in self._pool.inputs]
        self._axes, self._names = self._pool.output_axes, [field.name for field in fields]
        self._only = fields[0] if len(fields) == 1 and fields[0].axis is not None else None
        self._fields = fields


def _first_of(chunk):
    """The first step of a chunk, or one of its shape where it has none."""
    if isinstance(chunk, dict):
        return {name: _first_of(value) for name, value in chunk.items()}
    a = checks.as_array(chunk, "x")
    return a[0, ...] if len(a) else np.zeros(a.shape[1:], a.dtype)
