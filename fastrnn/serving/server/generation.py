"""A model as it was loaded once: what it takes and gives, its callers, and calls without a state."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fastrnn.errors import NotStreamableError, OverloadedError, UnsupportedModelError
from fastrnn.model import Value
from fastrnn.plan.streams.streaming import batch_symbol
from fastrnn.runtime.session import Session
from fastrnn.serving.batcher import Batcher
from fastrnn.serving.ragged import Ragged
from fastrnn.serving.server.datatypes import NAMES
from fastrnn.serving.server.refusals import Refused


@dataclass(frozen=True)
class Options:
    """How callers of a model are gathered; see Batcher. most_calls: without a state, at once."""

    capacity: int = 4096
    max_batch: int = 256
    max_wait_us: float = 0
    max_queue: int | None = 16384
    idle_timeout_s: float | None = 60
    context: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    most_calls: int = 64


class Generation:
    """A session and its Batcher. unstreamable: why it has none, and is served without sequences."""

    def __init__(self, version: int, session: Session, options: Options, executor: Executor):
        self.version, self.session, self._executor = version, session, executor
        self.batcher: Batcher | None = None
        self.unstreamable: str | None = None
        self._empty_since: float | None = None
        for v in (*session.model.inputs, *session.model.outputs):
            if v.dtype not in NAMES:
                raise UnsupportedModelError(f"{v.name!r} is {v.dtype}, for which the Open Inference Protocol has no datatype")
        self._calls, self._most_calls, self._context = 0, options.most_calls, options.context
        try:
            self.batcher = Batcher(
                session,
                options.capacity,
                options.max_batch,
                options.max_wait_us,
                options.max_queue,
                options.idle_timeout_s,
                context=options.context or None,
                sizes=options.sizes or None,
            )
        except NotStreamableError as error:
            if options.context:
                raise
            self.unstreamable = str(error)
        tied = () if self.batcher is None else session.states
        states, outputs = {s.input for s in tied}, {s.output for s in tied}
        self.inputs = [self._described(v, options) for v in session.model.inputs if v.name not in states]
        self.outputs = [{"name": v.name, "datatype": NAMES[v.dtype], "shape": _open(v.shape)} for v in session.model.outputs if v.name not in outputs]
        self.output_names = [one["name"] for one in self.outputs]
        self._state_values = [v for v in session.model.inputs if v.name in states]

    @staticmethod
    def _described(value: Value, options: Options) -> dict:
        shape = _open(options.sizes.get(d, d) if isinstance(d, str) else d for d in value.shape)
        if value.shape and isinstance(value.shape[-1], int):
            shape[-1] -= options.context.get(value.name, 0)
        return {"name": value.name, "datatype": NAMES[value.dtype], "shape": shape}

    def empty_for_s(self) -> float:
        """How long there has been no caller, by when this was asked."""
        if self.batcher is not None and len(self.batcher):
            self._empty_since = None
            return 0.0
        if self._empty_since is None:
            self._empty_since = time.monotonic()
        return time.monotonic() - self._empty_since

    def read(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs that all rows share, such as a sampling rate, given as [1], as the scalars that they are."""
        for value in self.session.model.inputs:
            if value.shape == () and value.name in inputs and inputs[value.name].shape == (1,):
                inputs[value.name] = inputs[value.name].reshape(())
        return inputs

    # Without a state.

    async def call(self, inputs: dict[str, np.ndarray], outputs: list[str] | None) -> dict[str, np.ndarray]:
        """Outputs by name, of the whole graph in one call, states that are left out at their first values. With lengths (B,), int64: every row
        alone, as long as that says, and zeros behind it."""
        if self._context:
            raise Refused("invalid", "this model's frames overlap (--context), so there is no call of it without a sequence_id")
        if self._calls >= self._most_calls:
            raise OverloadedError(f"{self._calls} calls without a state run, and no more may")
        names = self.output_names if outputs is None else outputs
        if unknown := next((name for name in names if name not in self.session.model.output_names), None):
            raise Refused("invalid", f"output {unknown!r} is none of {', '.join(self.session.model.output_names)}")
        self._calls += 1
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, self.read(inputs))
        finally:
            self._calls -= 1
        return {name: result[name] for name in names}

    def _run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        lengths = inputs.pop("lengths") if "lengths" in inputs and "lengths" not in self.session.model.input_names else None
        inputs = {**self._first_states(inputs), **inputs}
        return self.session.run(inputs) if lengths is None else self._ragged.run(inputs, lengths)

    @cached_property
    def _ragged(self) -> Ragged:
        return Ragged(self.session)

    def _first_states(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of those inputs that are states, must be there and were left out."""
        missing = [v for v in self._state_values if v.name not in inputs and not v.optional]
        if not missing:
            return {}
        rows, batch = batch_symbol(self.session.model), 1
        for value in self.session.model.inputs:
            if rows in value.shape and value.name in inputs and inputs[value.name].ndim == len(value.shape):
                batch = inputs[value.name].shape[value.shape.index(rows)]
        state = self.session.stream(batch).state
        return {v.name: state[v.name] for v in missing}


def _open(shape) -> list[int]:
    return [d if isinstance(d, int) else -1 for d in shape]
