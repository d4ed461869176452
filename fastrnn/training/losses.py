"""Losses: (prediction, target, mask=None) -> (value, gradient by the prediction). Means over the leading axes, as torch's reduction="mean".

A loss of one's own is any function of that form; value_and_grad passes it rows (N, ...), and a mask only where one was given. accuracy is a measure: as a
loss, but it returns its value alone.
"""

from __future__ import annotations

import math

import numpy as np

from fastrnn.errors import DTypeError, ShapeError, UnsupportedModelError
from fastrnn.runtime.checks import as_array
from fastrnn.training.base import DTYPES

BLOCK = (
    1 << 14
)  # numbers of a piece that stays in cache: in float64 a third of the time, and no arrays of the batch's size beside logits and gradient


def cross_entropy(logits: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """-log softmax(logits)[target], the mean over entries.

    logits (..., C) float32 or float64; target (...) integers from 0 to C - 1; mask (...) bools, True where an entry counts; what targets hold
    elsewhere does not matter. Returns the mean, summed in float64, and its gradient (..., C). Safe from many threads; allocates the gradient.
    Raises ShapeError or DTypeError, also for a class that there is not and where no entry counts.
    """
    logits, target, mask, count = _taken("cross_entropy", logits, target, mask, classes=True)
    if mask is not None:
        target = np.where(mask, target, 0)
    if target.min() < 0 or target.max() >= logits.shape[-1]:
        raise ShapeError(f"cross_entropy: targets must be classes from 0 to {logits.shape[-1] - 1}, got {target.min()} to {target.max()}")
    where = target[..., None].astype(np.int64, copy=False)
    shifted = logits - logits.max(-1, keepdims=True)
    of_target = np.take_along_axis(shifted, where, -1)[..., 0]
    gradient = np.exp(shifted, out=shifted)
    total = gradient.sum(-1, keepdims=True)
    losses = np.log(total[..., 0]) - of_target
    gradient *= 1 / (total * count)
    np.put_along_axis(gradient, where, np.take_along_axis(gradient, where, -1) - gradient.dtype.type(1 / count), -1)
    return _mean(losses, gradient, mask, count)


def binary_cross_entropy(logits: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None, over: str = "elements") -> tuple[float, np.ndarray]:
    """-(t log p + (1 - t) log(1 - p)) for p = sigmoid(logit), computed from the logits as max(x, 0) - x t + log(1 + exp(-|x|)).

    logits (..., K); target of the same shape, bool or the logits' dtype, from 0 to 1; mask (...) without the last axis. over="elements": the mean over
    all numbers; over="steps": summed over the last axis, the mean over the others (as polyphonic music is scored).
    Returns, raises and threads as cross_entropy. UnsupportedModelError for another `over`.
    """
    if over not in ("elements", "steps"):
        raise UnsupportedModelError(f"binary_cross_entropy: over must be 'elements' or 'steps', got {over!r}")
    logits, target, mask, count = _taken("binary_cross_entropy", logits, target, mask)
    count *= logits.shape[-1] if over == "elements" else 1
    K, leading = logits.shape[-1], logits.shape[:-1]
    losses, gradient, size = np.empty(leading, logits.dtype), np.empty_like(logits, order="C"), max(1, BLOCK // K)
    xs, targets, gradients = (a.reshape(-1, K) for a in (logits, target, gradient))
    for k in range(0, len(xs), size):
        part = slice(k, k + size)
        losses.reshape(-1)[part] = _binary_rows(xs[part], targets[part], gradients[part], 1 / count)
    return _mean(losses, gradient, mask, count)


def _binary_rows(x: np.ndarray, target: np.ndarray, gradient: np.ndarray, weight: float) -> np.ndarray:
    """The loss of each row (n, K), summed; writes the gradient.

    sigmoid(x) = exp(min(x, 0)) / (1 + exp(-|x|)): nothing overflows, and no number takes a branch of its own.
    """
    small = np.abs(x)
    np.exp(np.negative(small, out=small), out=small)
    np.minimum(x, 0, out=gradient)
    losses, part = np.maximum(x, 0), np.multiply(x, target)
    losses -= part  # 0 where the prediction is right, so that the logarithm, however small, stays
    losses += np.log1p(small, out=part)
    np.exp(gradient, out=gradient)
    small += 1
    gradient /= small
    gradient -= target
    gradient *= weight
    return losses.sum(-1)


def mean_squared_error(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """(prediction - target)^2, the mean over all numbers.

    prediction (..., K) and target of the same shape, bool or the same dtype; nothing is broadcast; mask (...) without the last axis.
    Returns, raises and threads as cross_entropy.
    """
    prediction, target, mask, count = _taken("mean_squared_error", prediction, target, mask)
    count *= prediction.shape[-1]
    difference = prediction - target
    squares = np.einsum("...k,...k->...", difference, difference)
    difference *= 2 / count
    return _mean(squares, difference, mask, count)


def accuracy(logits: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The share of entries that are right, for value, evaluate and fit(metric=): no loss, for it has no gradient.

    Targets that are integers (...): the class of the largest of logits (..., C), the first of equals. Bools or floats of the logits' shape (..., K), as
    binary_cross_entropy takes them: whether logit > 0 says what target > 0.5 says, the mean over all numbers. mask (...), True where an entry counts.
    Raises and threads as cross_entropy.
    """
    classes = as_array(target, "target").dtype.kind in "iu"
    logits, target, mask, _ = _taken("accuracy", logits, target, mask, classes=classes)
    right = logits.argmax(-1) == target if classes else (logits > 0) == (target > 0.5)
    return float(np.mean(right if mask is None else right[mask]))


def _taken(
    loss: str, prediction: np.ndarray, target: np.ndarray, mask: np.ndarray | None, classes: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """What a loss was given, as arrays that fit, the mask None where all entries count, and how many count. classes: targets are integers, one an entry."""
    prediction, target = as_array(prediction, "prediction"), as_array(target, "target")
    leading = prediction.shape[:-1]
    shape = leading if classes else prediction.shape
    if prediction.dtype not in DTYPES:
        raise DTypeError(f"{loss}: predictions must be float32 or float64, got {prediction.dtype}")
    if target.dtype.kind not in "iu" if classes else target.dtype not in (prediction.dtype, np.bool_):
        raise DTypeError(f"{loss}: targets must be {'integers' if classes else prediction.dtype}, got {target.dtype}")
    if not prediction.ndim or not prediction.shape[-1]:
        raise ShapeError(f"{loss}: predictions must have a last axis with at least one number, got {prediction.shape}")
    if target.shape != shape:
        raise ShapeError(f"{loss}: targets for predictions {prediction.shape} must have shape {shape}, got {target.shape}")
    if mask is not None:
        mask = as_array(mask, "mask")
        if mask.dtype != np.bool_:
            raise DTypeError(f"{loss}: a mask must be bool, got {mask.dtype}")
        if mask.shape != leading:
            raise ShapeError(f"{loss}: the mask must have shape {leading}, got {mask.shape}")
    count = math.prod(leading) if mask is None else int(np.count_nonzero(mask))
    if not count:
        raise ShapeError(f"{loss}: no entry counts, so there is no mean")
    return prediction, target, mask, count


def _mean(losses: np.ndarray, gradient: np.ndarray, mask: np.ndarray | None, count: int) -> tuple[float, np.ndarray]:
    """The mean in float64; entries that do not count get gradient 0, whatever they hold."""
    if mask is None:
        return float(losses.sum(dtype=np.float64)) / count, gradient
    gradient[~mask] = 0
    return float(losses[mask].sum(dtype=np.float64)) / count, gradient
