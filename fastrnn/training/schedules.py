"""Learning-rate schedules: each sets an optimiser's lr when it is made and at every step()."""

from __future__ import annotations

import math

from fastrnn.errors import UnsupportedModelError
from fastrnn.training.base import number, positive
from fastrnn.training.optim import Optimiser, fraction


class Schedule:
    """lr as a function of how many steps were taken. base: the optimiser's lr when the schedule was made. Belongs to one thread at a time."""

    def __init__(self, optimiser: Optimiser):
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


class StepLR(Schedule):
    """base gamma^(count // step_size), as torch's StepLR."""

    def __init__(self, optimiser: Optimiser, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = positive(step_size, "step_size", "StepLR"), number(gamma, "gamma")
        super().__init__(optimiser)

    def rate(self, count):
        return self.base * self.gamma ** (count // self.step_size)


class CosineLR(Schedule):
    """From base to minimum over half a cosine of `steps` steps, then minimum (Loshchilov and Hutter 2017); as torch's CosineAnnealingLR up to there."""

    def __init__(self, optimiser: Optimiser, steps: int, minimum: float = 0.0):
        self.steps, self.minimum = positive(steps, "steps", "CosineLR"), number(minimum, "minimum")
        super().__init__(optimiser)

    def rate(self, count):
        return self.minimum + (self.base - self.minimum) * (1 + math.cos(math.pi * min(count, self.steps) / self.steps)) / 2


class WarmupLR(Schedule):
    """From start base to base in equal parts over `steps` steps, as torch's LinearLR; from there on what `then`, a schedule of the same optimiser, says.

    UnsupportedModelError where `then` belongs to another optimiser or waits for losses.
    """

    def __init__(self, optimiser: Optimiser, steps: int, start: float = 0.0, then: Schedule | None = None):
        self.steps, self.start, self.then = positive(steps, "steps", "WarmupLR"), number(start, "start"), then
        if then is not None and (not isinstance(then, Schedule) or then.optimiser is not optimiser or isinstance(then, ReduceOnPlateau)):
            raise UnsupportedModelError("WarmupLR: then must be a schedule of the same optimiser, and none that waits for losses")
        super().__init__(optimiser)
        if then is not None:
            self.base = then.base
            optimiser.lr = self.rate(0)

    def rate(self, count):
        if count >= self.steps and self.then is not None:
            return self.then.rate(count - self.steps)
        return self.base * (self.start + (1 - self.start) * min(count, self.steps) / self.steps)


class ReduceOnPlateau(Schedule):
    """lr *= factor once the loss has not come below best (1 - threshold) for more than `patience` steps, down to minimum; as torch's ReduceLROnPlateau.

    After a reduction, `cooldown` steps are not counted. step() must be given the loss.
    """

    def __init__(self, optimiser: Optimiser, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, cooldown: int = 0, minimum: float = 0.0):
        self.factor, self.threshold, self.minimum = fraction(factor, "factor"), fraction(threshold, "threshold"), number(minimum, "minimum")
        self.patience, self.cooldown = number(patience, "patience"), number(cooldown, "cooldown")
        self.best, self.bad, self.cooling = math.inf, 0, 0
        super().__init__(optimiser)

    def rate(self, count):
        return self.optimiser.lr

    def step(self, loss=None):
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
