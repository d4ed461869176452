"""Optimisers with torch.optim's formulas, and clipping. All parameters are one flat vector to them, so a step costs a dozen NumPy calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn.errors import DivergedError, DTypeError, ShapeError, UnsupportedModelError
from fastrnn.runtime.checks import as_mapping
from fastrnn.training.base import Layer, number, same_names


class Optimiser:
    """Changes a network's parameters in place by their gradients. lr: the learning rate, writable between steps. Belongs to one thread at a time."""

    slots: tuple[str, ...] = ()  # names of the flat vectors that it keeps

    def __init__(self, net: Layer, lr: float, weight_decay: float = 0.0) -> None:
        if not isinstance(net, Layer):
            raise UnsupportedModelError(f"{type(self).__name__}: pass the network itself, got {type(net).__name__}")
        self.parameters, self.dtype = net.parameters(), net.dtype
        self.lr, self.weight_decay, self.steps = number(lr, "lr"), number(weight_decay, "weight_decay"), 0
        size = sum(array.size for array in self.parameters.values())
        for slot in self.slots:
            setattr(self, slot, np.zeros(size, self.dtype))
        self._flat, self._grad = np.empty(size, self.dtype), np.empty(size, self.dtype)

    def step(self, grads: Mapping[str, np.ndarray]) -> None:
        """One step down; grads as value_and_grad gives them, not written to. ShapeError or DTypeError naming the parameter; nothing is changed then.

        Allocates nothing of the parameters' size that lasts.
        """
        self._check(grads)
        if not self.parameters:
            return
        np.concatenate([grads[name].reshape(-1) for name in self.parameters], out=self._grad)
        np.concatenate([array.reshape(-1) for array in self.parameters.values()], out=self._flat)
        self.steps += 1
        self._update(self._flat, self._grad)
        start = 0
        for array in self.parameters.values():
            array[...] = self._flat[start : start + array.size].reshape(array.shape)
            start += array.size

    def _update(self, p: np.ndarray, g: np.ndarray) -> None:
        """Changes p; may overwrite g."""
        raise NotImplementedError

    def _decay(self, p: np.ndarray, g: np.ndarray) -> None:
        """Adds the gradient of an L2 penalty."""
        if self.weight_decay:
            g += self.weight_decay * p

    def _check(self, grads: Mapping[str, np.ndarray]) -> None:
        same_names(as_mapping(grads, "gradients"), self.parameters, "gradients")
        for name, array in self.parameters.items():
            if not isinstance(grads[name], np.ndarray) or grads[name].dtype != self.dtype:
                raise DTypeError(
                    f"gradient {name!r} must be an array of {self.dtype}, got {getattr(grads[name], 'dtype', type(grads[name]).__name__)}"
                )
            if grads[name].shape != array.shape:
                raise ShapeError(f"gradient {name!r} must have shape {array.shape}, got {grads[name].shape}")

    def state_dict(self) -> dict[str, np.ndarray]:
        """What a later run goes on from: copies of the vectors, the number of steps and the learning rate."""
        return {"steps": np.array(self.steps), "lr": np.array(float(self.lr))} | {slot: getattr(self, slot).copy() for slot in self.slots}

    def load_state_dict(self, state_dict: Mapping[str, np.ndarray]) -> None:
        """Takes what state_dict gave, for the same kind of optimiser over the same parameters. ShapeError, DTypeError or UnsupportedModelError; nothing is
        changed then.
        """
        own = self.state_dict()
        same_names(as_mapping(state_dict, "the optimiser's state"), own, f"the state of {type(self).__name__}")
        given = {name: np.asarray(array) for name, array in state_dict.items()}
        for name, array in own.items():
            if given[name].shape != array.shape:
                raise ShapeError(f"the optimiser's {name!r} must have shape {array.shape}, got {given[name].shape}")
            if given[name].dtype != array.dtype:
                raise DTypeError(f"the optimiser's {name!r} must be {array.dtype}, got {given[name].dtype}")
        if given["steps"] < 0:
            raise UnsupportedModelError(f"the optimiser's 'steps' must not be negative, got {given['steps']}")
        self.lr, self.steps = number(float(given["lr"]), "the optimiser's 'lr'"), int(given["steps"])
        for slot in self.slots:
            getattr(self, slot)[...] = given[slot]


class SGD(Optimiser):
    """p -= lr v with v = momentum v + g, the first v being g; nesterov: p -= lr (g + momentum v). momentum=0: p -= lr g.

    weight_decay adds weight_decay p to g. Formulas: torch.optim.SGD, without dampening. UnsupportedModelError for numbers out of range.
    """

    slots: tuple[str, ...] = ("velocity",)
    velocity: np.ndarray

    def __init__(self, net: Layer, lr: float, momentum: float = 0.0, *, nesterov: bool = False, weight_decay: float = 0.0) -> None:
        if not isinstance(nesterov, bool):
            raise UnsupportedModelError(f"SGD: nesterov must be True or False, got {nesterov!r}")
        self.momentum, self.nesterov = number(momentum, "momentum"), nesterov
        self.slots = ("velocity",) if self.momentum else ()
        if self.nesterov and not self.momentum:
            raise UnsupportedModelError("SGD: nesterov needs a momentum")
        super().__init__(net, lr, weight_decay)

    def _update(self, p: np.ndarray, g: np.ndarray) -> None:
        self._decay(p, g)
        if self.momentum:
            self.velocity *= self.momentum
            self.velocity += g
            if self.nesterov:
                g += self.momentum * self.velocity
            else:
                np.copyto(g, self.velocity)
        g *= self.lr
        p -= g


class RMSProp(Optimiser):
    """s = alpha s + (1 - alpha) g^2; p -= lr g / (sqrt(s) + eps); with momentum, that quotient goes through b = momentum b + quotient, p -= lr b.

    Formulas: torch.optim.RMSprop, not centred (Tieleman and Hinton 2012, lecture 6.5).
    """

    square: np.ndarray
    buffer: np.ndarray

    def __init__(
        self, net: Layer, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, *, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        self.alpha, self.eps, self.momentum = fraction(alpha, "alpha"), number(eps, "eps"), number(momentum, "momentum")
        self.slots = ("square", "buffer") if self.momentum else ("square",)
        super().__init__(net, lr, weight_decay)

    def _update(self, p: np.ndarray, g: np.ndarray) -> None:
        self._decay(p, g)
        self.square *= self.alpha
        self.square += (1 - self.alpha) * (g * g)
        root = np.sqrt(self.square)
        root += self.eps
        g /= root
        if self.momentum:
            self.buffer *= self.momentum
            self.buffer += g
            np.copyto(g, self.buffer)
        g *= self.lr
        p -= g


class Adam(Optimiser):
    """m = b1 m + (1 - b1) g; s = b2 s + (1 - b2) g^2; p -= lr m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps) (Kingma and Ba 2015).

    weight_decay adds weight_decay p to g. Formulas: torch.optim.Adam, without amsgrad.
    """

    slots = ("mean", "square")
    mean: np.ndarray
    square: np.ndarray

    def __init__(self, net: Layer, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise UnsupportedModelError(f"betas must be two numbers, got {betas!r}")
        self.betas, self.eps = tuple(fraction(b, "betas") for b in betas), number(eps, "eps")
        super().__init__(net, lr, weight_decay)

    def _update(self, p: np.ndarray, g: np.ndarray) -> None:
        self._decay(p, g)
        self._adapt(p, g)

    def _adapt(self, p: np.ndarray, g: np.ndarray) -> None:
        (b1, b2), t = self.betas, self.steps
        self.square *= b2
        self.square += (1 - b2) * (g * g)
        self.mean *= b1
        g *= 1 - b1
        self.mean += g
        root = np.sqrt(self.square, out=g)
        root /= math.sqrt(1 - b2**t)
        root += self.eps
        np.divide(self.mean, root, out=root)
        root *= self.lr / (1 - b1**t)
        p -= root


class AdamW(Adam):
    """Adam on the loss alone, and p -= lr weight_decay p beside it (Loshchilov and Hutter 2019). Formulas: torch.optim.AdamW."""

    def __init__(
        self, net: Layer, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2
    ) -> None:
        super().__init__(net, lr, betas, eps, weight_decay)

    def _update(self, p: np.ndarray, g: np.ndarray) -> None:
        p *= 1 - self.lr * self.weight_decay
        self._adapt(p, g)


def clip_grad_norm(grads: Mapping[str, np.ndarray], max_norm: float) -> float:
    """Scales all gradients, in place, so that their common Euclidean norm is at most max_norm (Pascanu et al. 2013); returns the norm before.

    The factor is max_norm / (norm + 1e-6), as torch has it; the norm is taken in float64. DivergedError, with nothing changed, where it is not finite.
    """
    max_norm, norm = number(max_norm, "max_norm"), grad_norm(grads)
    factor = max_norm / (norm + 1e-6)
    if factor < 1:
        for g in grads.values():
            g *= factor
    return norm


def grad_norm(grads: Mapping[str, np.ndarray]) -> float:
    """The common Euclidean norm of all gradients, in float64; DivergedError, naming those to blame, where it is not finite."""
    with np.errstate(over="ignore"):
        norm = math.sqrt(sum(_squares(g) for g in as_mapping(grads, "gradients").values()))
    if not math.isfinite(norm):
        broken = [name for name, g in grads.items() if not np.isfinite(g).all()]
        raise DivergedError(f"the norm of the gradients is {norm}" + (f"; not finite: {', '.join(broken)}" if broken else ""))
    return norm


def clip_grad_value(grads: Mapping[str, np.ndarray], max_value: float) -> None:
    """Brings every number of the gradients, in place, between -max_value and max_value; NaN stays."""
    max_value = number(max_value, "max_value")
    for g in as_mapping(grads, "gradients").values():
        np.clip(g, -max_value, max_value, out=g)


def _squares(g: np.ndarray) -> float:
    """The sum of squares; in float64 where float32 cannot hold it to its precision."""
    found = float(np.vdot(g, g))
    return found if g.dtype == np.float64 or 1e-20 < found < 1e38 else float(np.square(g, dtype=np.float64).sum())


def fraction(value: Any, name: str) -> float:
    """As number, below 1."""
    if number(value, name) >= 1:
        raise UnsupportedModelError(f"{name} must be below 1, got {value!r}")
    return float(value)
