"""What an engine is: inputs are bound once, then run again and again with nothing around the engine's own call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Model, State


@dataclass(frozen=True)
class Bound:
    """An engine with inputs in its own form: run() gives the outputs, in its own form, in the model's order; feed(name, output) takes one as
    an input of the next run."""

    run: Callable[[], Sequence]
    feed: Callable[[str, Any], None]


class Engine(ABC):
    """A model in another engine; calling it gives outputs by name. Inputs that the model fixed by constants are for the caller to add."""

    name: ClassVar[str]
    failures: tuple[type[Exception], ...] = ()  # what the engine raises for inputs that it cannot run

    def __init__(self, model: Model):
        self.output_names = model.output_names

    @abstractmethod
    def bind(self, inputs: Mapping[str, np.ndarray]) -> Bound:
        """Inputs made ready."""

    def array(self, output) -> np.ndarray:
        """An output as an array of its own."""
        return np.array(output)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs = self.bind(inputs).run()
            return {name: self.array(outputs[k]) for k, name in enumerate(self.output_names)}
        except self.failures as error:
            shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in inputs.items())
            raise UnsupportedModelError(f"{self.name} cannot run inputs of shapes {shapes}: {error}") from error

    def stepper(self, inputs: Mapping[str, np.ndarray], states: Iterable[State]) -> Callable[[], Sequence]:
        """A call that takes its states from the call before, the way a user of the engine writes it. inputs: first states included."""
        bound = self.bind(inputs)
        ties = [(state.input, self.output_names.index(state.output), state, inputs[state.input].ndim) for state in states]

        def step() -> Sequence:
            outputs = bound.run()
            for name, k, state, rank in ties:
                bound.feed(name, state.part(outputs[k], rank))
            return outputs

        return step
