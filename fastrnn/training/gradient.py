"""Loss and gradients of a network over a batch: backpropagation through time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.errors import DTypeError, ShapeError, UnsupportedModelError
from fastrnn.runtime.checks import as_array
from fastrnn.training.base import Run, State, carried
from fastrnn.training.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from fastrnn.training.sequential import Sequential

if TYPE_CHECKING:
    from fastrnn.typing import ArrayLike, Loss, Metric, Seed

    Score = Callable[[np.ndarray], tuple[float, np.ndarray]]

OWN = (cross_entropy, binary_cross_entropy, mean_squared_error)  # their gradients are arrays of their own


def value_and_grad(
    net: Sequential,
    loss: Loss,
    x: ArrayLike,
    target: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    state: State | None = None,
    training: bool = True,
    rng: Seed | None = None,
    batch_first: bool = False,
    resets: ArrayLike | None = None,
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss of a batch and its gradient by every parameter.

    x: (T, B, I) of the network's dtype, or integers (T, B); lengths: integers (B,), None: all T. resets: bools (T, B), T first with batch_first too: where
    recurrent layers start a sequence afresh before that step; no gradient passes such a place.
    loss: cross_entropy or its like, or a function of one's own, called as loss(rows, target) or loss(rows, target, mask=mask) with rows (N, F) of the
    steps within lengths, that returns its value and its gradient by the rows. It is given arrays that cannot be written to.
    target: (T, B, ...), or (B, ...) behind a Last; mask: bools (T, B) or (B,), what counts in addition to lengths.
    state: a State, read and given the final states. training: whether Dropout drops; rng: what it draws from, a Generator or a seed, None: anew.
    batch_first: x, target and mask are (B, T, ...).
    Returns the loss as a float and new arrays keyed like net.parameters(). Raises ShapeError, DTypeError or StateError, and then changes nothing.
    Memory: what the layers keep for the way back, and the gradients. Safe from many threads with states of their own while no parameters change.
    """
    source = (
        np.random.default_rng(rng) if training and (network(net).draws or rng is not None) else None
    )  # made from nothing it is a tenth of a short pass
    rows, run = network(net).enter(x, lengths, batch_first, training, source, resets)
    after = net.run_after(run)
    score = loss_of_rows(loss, after, target, mask, batch_first)
    y, saved, final = net.forward(rows, run, carried(state))
    loss_value, *dy = _scored(loss, score, y)
    del y
    grads = {name: np.zeros(array.shape, array.dtype) for name, array in net.parameters().items()}
    net.backward(dy.pop(), saved, grads, need_dx=False)  # whose memory can then go as soon as it is used
    if state is not None:
        state.value = final
    return loss_value, grads


def value(
    net: Sequential,
    loss: Loss | Metric,
    x: ArrayLike,
    target: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    state: State | None = None,
    batch_first: bool = False,
    resets: ArrayLike | None = None,
) -> float:
    """The loss alone, with nothing dropped and nothing kept for the way back; arguments and errors as value_and_grad's. Takes a measure, too, such as
    accuracy: called as a loss is, it returns its value alone."""
    return values(net, (loss,), x, target, lengths=lengths, mask=mask, state=state, batch_first=batch_first, resets=resets)[0]


def values(
    net: Sequential,
    losses: Sequence[Loss | Metric],
    x: ArrayLike,
    target: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    state: State | None = None,
    batch_first: bool = False,
    resets: ArrayLike | None = None,
) -> list[float]:
    """value of several losses and measures, from one pass."""
    rows, run = network(net).enter(x, lengths, batch_first, resets=resets)
    scores = [loss_of_rows(loss, net.run_after(run), target, mask, batch_first, alone=True) for loss in losses]
    y, _, final = net.forward(rows, run, carried(state), keep=False)
    found = [score(y)[0] for score in scores]
    if state is not None:
        state.value = final
    return found


def network(net: Any) -> Sequential:
    """The network; UnsupportedModelError for a layer that stands in none."""
    if not isinstance(net, Sequential):
        raise UnsupportedModelError(f"a network is a Sequential, got {type(net).__name__}; put layers into Sequential(...)")
    return net


def _scored(loss: Loss, score: Score, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss and its gradient by y, in an array that the way back may write to: that of another's loss may be anything, so it is copied."""
    value, dy = score(y)
    if getattr(loss, "func", loss) in OWN:
        return value, dy
    if not isinstance(dy, np.ndarray) or dy.dtype != y.dtype:
        raise DTypeError(f"loss: the gradient must be an array of {y.dtype}, got {getattr(dy, 'dtype', type(dy).__name__)}")
    if dy.shape != y.shape:
        raise ShapeError(f"loss: the gradient must have the shape of the prediction {y.shape}, got {dy.shape}")
    return value, dy.copy()


def loss_of_rows(loss: Loss | Metric, run: Run, target: ArrayLike, mask: ArrayLike | None, batch_first: bool, alone: bool = False) -> Score:
    """The loss as a function of the network's rows alone. alone: it may be a measure, which returns its value without a gradient."""
    if not callable(loss):
        raise UnsupportedModelError(f"a loss is a function, got {loss!r}")
    packed = {}
    for name, given in (("target", target), ("mask", mask)):
        if given is None and name == "mask":
            continue
        a = as_array(given, name)
        if batch_first and not run.per_sequence and a.ndim > 1:
            a = a.swapaxes(0, 1)
        if a.shape[: len(run.leading)] != run.leading:
            axes = "(B, ...)" if run.per_sequence else "(B, T, ...)" if batch_first else "(T, B, ...)"
            raise ShapeError(f"{name!r} must have shape {axes} with leading axes {run.leading}, got {a.shape}")
        packed[name] = _frozen(run.pack(a))
    wanted, optional = packed["target"], {name: a for name, a in packed.items() if name == "mask"}

    def score(rows: np.ndarray) -> tuple[float, np.ndarray]:
        found = loss(_frozen(rows), wanted, **optional)
        if alone and isinstance(found, (float, np.floating)):
            return float(found), rows[:0]  # of a measure nobody asks for it
        if not isinstance(found, tuple) or len(found) != 2:
            raise DTypeError(f"loss: it must return its value and its gradient, got {type(found).__name__}")
        return float(found[0]), found[1]

    return score


def _frozen(a: np.ndarray) -> np.ndarray:
    """The same numbers, not to be written to: layers, and the caller, still need them."""
    view = a.view()
    view.flags.writeable = False
    return view
