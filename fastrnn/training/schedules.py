"""Learning-rate schedules: each sets an optimiser's lr when it is made and at every step()."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fastrnn.errors import ShapeError, UnsupportedModelError
from fastrnn.runtime.checks import as_mapping
from fastrnn.training.base import number, positive, same_names
from fastrnn.training.optim import Optimiser, fraction


class Schedule:
    """lr as a function of how many steps were taken. base: the optimiser's lr when the schedule was made. Belongs to one thread at a time."""

    def __init__(self, optimiser: Optimiser) -> None:
        if not isinstance(optimiser, Optimiser):
            raise UnsupportedModelError(f"{type(self).__name__}: pass the optimiser, got {type(optimiser).__name__}")
        self.optimiser, self.base, self.count = optimiser, optimiser.lr, 0
        optimiser.lr = self.rate(0)

    def rate(self, count: int) -> float:
        """The learning rate after this many steps."""
        raise NotImplementedError

    def step(self, loss: float | None = None) -> None:
        """Counts one epoch, or one batch, whichever the caller has chosen. loss: of validation; only ReduceOnPlateau looks at it."""
        self.count += 1
        self.optimiser.lr = self.rate(self.count)

    def state_dict(self) -> dict[str, np.ndarray]:
        """What a later run goes on from: how often it was stepped, the rate that it started from and the one that it has come to."""
        return {"count": np.array(self.count), "base": np.array(float(self.base)), "lr": np.array(float(self.optimiser.lr))}

    def load_state_dict(self, state_dict: Mapping[str, np.ndarray]) -> None:
        """Takes what state_dict gave, for a schedule made with the same arguments, and sets the optimiser's lr; before or after the optimiser's own state is
        loaded. ShapeError or UnsupportedModelError; nothing is changed then."""
        given = as_mapping(state_dict, "the schedule's state")
        same_names(given, self.state_dict(), f"the state of {type(self).__name__}")
        values = {name: np.asarray(value) for name, value in given.items()}
        for name, value in values.items():
            if value.shape:
                raise ShapeError(f"the schedule's {name!r} must be one number, got shape {value.shape}")
        self._load({name: value.item() for name, value in values.items()})

    def _load(self, values: Mapping[str, float]) -> None:
        """Of numbers, which are checked before the first is taken."""
        count, base, lr = (number(values[name], f"the schedule's {name!r}") for name in ("count", "base", "lr"))
        self.count, self.base, self.optimiser.lr = int(count), base, lr


class StepLR(Schedule):
    """base gamma^(count // step_size), as torch's StepLR."""

    def __init__(self, optimiser: Optimiser, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = positive(step_size, "step_size", "StepLR"), number(gamma, "gamma")
        super().__init__(optimiser)

    def rate(self, count: int) -> float:
        return self.base * self.gamma ** (count // self.step_size)


class CosineLR(Schedule):
    """From base to minimum over half a cosine of `steps` steps, then minimum (Loshchilov and Hutter 2017); as torch's CosineAnnealingLR up to there."""

    def __init__(self, optimiser: Optimiser, steps: int, minimum: float = 0.0) -> None:
        self.steps, self.minimum = positive(steps, "steps", "CosineLR"), number(minimum, "minimum")
        super().__init__(optimiser)

    def rate(self, count: int) -> float:
        return self.minimum + (self.base - self.minimum) * (1 + math.cos(math.pi * min(count, self.steps) / self.steps)) / 2


class WarmupLR(Schedule):
    """From start base to base in equal parts over `steps` steps, as torch's LinearLR; from there on what `then`, a schedule of the same optimiser, says.

    UnsupportedModelError where `then` belongs to another optimiser or waits for losses.
    """

    def __init__(self, optimiser: Optimiser, steps: int, start: float = 0.0, then: Schedule | None = None) -> None:
        self.steps, self.start, self.then = positive(steps, "steps", "WarmupLR"), number(start, "start"), then
        if then is not None and (not isinstance(then, Schedule) or then.optimiser is not optimiser or isinstance(then, ReduceOnPlateau)):
            raise UnsupportedModelError("WarmupLR: then must be a schedule of the same optimiser, and none that waits for losses")
        super().__init__(optimiser)
        if then is not None:
            self.base = then.base
            optimiser.lr = self.rate(0)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Its own, and that of `then` with "then." in front."""
        return super().state_dict() | ({} if self.then is None else {f"then.{name}": value for name, value in self.then.state_dict().items()})

    def _load(self, values: Mapping[str, float]) -> None:
        if self.then is not None:
            self.then._load({name.removeprefix("then."): value for name, value in values.items() if name.startswith("then.")})
        super()._load(values)

    def rate(self, count: int) -> float:
        if count >= self.steps and self.then is not None:
            return self.then.rate(count - self.steps)
        return self.base * (self.start + (1 - self.start) * min(count, self.steps) / self.steps)


class ReduceOnPlateau(Schedule):
    """lr *= factor once the loss has not come below best (1 - threshold) for more than `patience` steps, down to minimum; as torch's ReduceLROnPlateau.

    After a reduction, `cooldown` steps are not counted. step() must be given the loss.
    """

    def __init__(
        self, optimiser: Optimiser, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, cooldown: int = 0, minimum: float = 0.0
    ) -> None:
        self.factor, self.threshold, self.minimum = fraction(factor, "factor"), fraction(threshold, "threshold"), number(minimum, "minimum")
        self.patience, self.cooldown = number(patience, "patience"), number(cooldown, "cooldown")
        self.best, self.bad, self.cooling = math.inf, 0, 0.0
        super().__init__(optimiser)

    def state_dict(self) -> dict[str, np.ndarray]:
        """With the best loss, how many steps were no better, and how many are still not counted."""
        return super().state_dict() | {"best": np.array(float(self.best)), "bad": np.array(self.bad), "cooling": np.array(float(self.cooling))}

    def _load(self, values: Mapping[str, float]) -> None:
        bad, cooling = (number(values[name], f"the schedule's {name!r}") for name in ("bad", "cooling"))
        super()._load(values)
        self.best, self.bad, self.cooling = float(values["best"]), int(bad), cooling

    def rate(self, count: int) -> float:
        return self.optimiser.lr

    def step(self, loss: float | None = None) -> None:
        if loss is None:
            raise UnsupportedModelError("ReduceOnPlateau: step needs the loss; in fit, pass valid and step once an epoch")
        self.count += 1
        if loss < self.best * (1 - self.threshold):
            self.best, self.bad = loss, 0
        else:
            self.bad += 1
        if self.cooling > 0:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad > self.patience:
            lowered = max(self.optimiser.lr * self.factor, self.minimum)
            if self.optimiser.lr - lowered > 1e-8:  # torch's eps: smaller changes are none
                self.optimiser.lr = lowered
            self.cooling, self.bad = self.cooldown, 0
