"""The caller's module as something to compare with: run on copies of inputs, put back as it was after every run."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from fastrnn.converters.torch_export.kept import Kept
from fastrnn.errors import FastRNNError, UnsupportedModelError

KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, KeyError)  # of a size, by a module
DOUBLE = {torch.float32: torch.float64, torch.complex64: torch.complex128}
MOST_BLAMED = 8  # attributes that changed, of which each is tried alone


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """The module in eval mode, without gradients and the caller's autocast, all as before afterwards."""
    training = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in training:
            part.training = False
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for part, was in training:
            part.training = was


class CheckStates(TorchFunctionMode):
    """Refuses, in front of torch's packed recurrent layers, states that do not fit: torch reads past the end of those of an LSTM."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if (
            getattr(func, "__name__", "") in KINDS and len(args) == 9 and not isinstance(args[3], bool)
        ):  # (data, batch_sizes, states, weights, bias, ...)
            _, batch_sizes, states, weights, bias, num_layers, _, _, bidirectional = args
            layers, batch = num_layers * (2 if bidirectional else 1), int(batch_sizes[0])
            states = list(states) if isinstance(states, (tuple, list)) else [states]
            for state, size in zip(states, (weights[1].shape[1], weights[1].shape[0] // 4)):  # of weight_hh: h, projected or not, and an LSTM's c
                if tuple(state.shape) != (layers, batch, size):
                    raise RuntimeError(f"{func.__name__}: states must be {(layers, batch, size)}, got {tuple(state.shape)}")
        return func(*args, **(kwargs or {}))


def separate(tree):
    """The same inputs in memory of their own: what one tensor stands for twice becomes two."""
    return pytree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf, tree)


class Subject:
    """A module to call. Random numbers are the same in every call, and so is what the module holds."""

    def __init__(self, module: torch.nn.Module):
        self.module, self.name, self._kept = module, type(module).__name__, Kept(module)

    def __call__(self, *args, **kwargs):
        try:
            return self._run(args, kwargs)
        finally:
            self.restore()

    def restore(self) -> None:
        """The module as it was given."""
        self._kept.restore()

    @contextmanager
    def left_as_called(self, args: tuple, kwargs: Mapping) -> Iterator[None]:
        """With the module as a call leaves it, whether or not it takes the inputs; as it was given afterwards."""
        try:
            with suppress(Exception):  # whatever a caller's module raises; a later call will say so
                self._run(args, kwargs)
            yield
        finally:
            self.restore()

    def _run(self, args: tuple, kwargs: Mapping):
        args, kwargs = separate((args, dict(kwargs)))
        with torch.no_grad(), torch.random.fork_rng(devices=[]), CheckStates():
            torch.manual_seed(0)
            return separate(self.module(*args, **kwargs))

    def refuse_memory(self, args: tuple, kwargs: Mapping) -> None:
        """Raises UnsupportedModelError where the module does not take the example, and where a second call gives something else than the first, naming the attributes that it
        is because of."""
        try:
            first = self(*args, **kwargs)
        except FastRNNError:
            raise
        except Exception as error:  # whatever a caller's module raises
            raise UnsupportedModelError(f"{self.name}: the module does not take the example inputs: {type(error).__name__}: {error}") from error
        try:
            if self._same_again(args, kwargs, first, None):
                self._warn_of_counts(args, kwargs)
                return
            self._run(args, kwargs)
            changed = self._kept.changed()
            self.restore()
            blamed = [name for name in changed[:MOST_BLAMED] if not self._same_again(args, kwargs, first, name)] or changed
        finally:
            self.restore()
        if not blamed:
            raise UnsupportedModelError(
                f"{self.name}: a second call on the same inputs gives something else, though no attribute of the module has changed; "
                "what it keeps elsewhere cannot be converted"
            )
        raise UnsupportedModelError(
            f"{self.name}: forward keeps {', '.join(map(repr, blamed))} from one call to the next, and what it returns depends on it; pass it in "
            "as an input and return its new value, and tie the two as a state, or set it anew in every call"
        )

    def _warn_of_counts(self, args: tuple, kwargs: Mapping) -> None:
        """Numbers that every call changes may yet decide something, after so many calls."""
        self._run(args, kwargs)
        counts = self._kept.numbers()
        if counts:
            warnings.warn(
                f"{self.name}: forward changes {', '.join(map(repr, counts))}; three calls gave the same, and what may depend on it later is not in the model",
                stacklevel=5,
            )

    def _same_again(self, args: tuple, kwargs: Mapping, first, name: str | None) -> bool:
        """Whether a call after two others gives the same, where they left only this attribute as they made it; None: everything."""
        for _ in range(2):
            self._run(args, kwargs)
            if name is not None:
                self._kept.restore(but=name)
        try:
            return _equal(first, self._run(args, kwargs))
        except REFUSALS:
            return False
        finally:
            self.restore()

    def in_double(self) -> Subject | None:
        """A copy that computes in float64; None where the module cannot be copied."""
        try:
            return _Double(copy.deepcopy(self.module)._apply(lambda t: t.to(DOUBLE.get(t.dtype, t.dtype))))
        except Exception:  # whatever copying a caller's objects raises
            return None


class _Double(Subject):
    """With double for torch's default, so that tensors that forward makes are."""

    def _run(self, args: tuple, kwargs: Mapping):
        args, kwargs = pytree.tree_map(
            lambda leaf: leaf.to(DOUBLE.get(leaf.dtype)) if isinstance(leaf, torch.Tensor) and leaf.dtype in DOUBLE else leaf, (args, dict(kwargs))
        )
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return super()._run(args, kwargs)
        finally:
            torch.set_default_dtype(before)


def _equal(a, b) -> bool:
    """Whether two results are the same, NaNs among them."""
    one, other = pytree.tree_leaves(a), pytree.tree_leaves(b)
    return len(one) == len(other) and all(map(_equal_leaves, one, other))


def _equal_leaves(a, b) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return a is b or bool(a == b)
    return a.dtype == b.dtype and a.shape == b.shape and bool((torch.eq(a, b) | torch.isnan(a) & torch.isnan(b)).all())
