"""Layers that see each row alone, and Last, which picks rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.errors import ShapeError, UnsupportedModelError
from fastrnn.training.base import Layer, Run, number, positive

if TYPE_CHECKING:
    from fastrnn.typing import DTypeLike, Seed


class Embedding(Layer):
    """A row of weight (num_embeddings, embedding_dim) for each index; as torch.nn.Embedding, drawn from N(0, 1).

    Reads indices (N,), any integer dtype, from 0 to num_embeddings - 1; gives (N, embedding_dim). ShapeError for sizes that are none.
    """

    kind = "embedding"
    draws = False
    integers = True

    def __init__(self, num_embeddings: int, embedding_dim: int, *, seed: Seed | None = None, dtype: DTypeLike = "float32") -> None:
        self.num_embeddings, self.gives = positive(num_embeddings, "num_embeddings", self.kind), positive(embedding_dim, "embedding_dim", self.kind)
        super().__init__({"weight": (self.num_embeddings, self.gives)}, dtype, seed)

    def _draw(self, rng: np.random.Generator) -> None:
        weight = self._parameters["weight"]
        weight[...] = rng.standard_normal(weight.shape)

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings} -> {self.gives}, {self.dtype})"

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        return self._parameters["weight"][x], x if keep else None, None

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        order = np.argsort(saved, kind="stable")
        found, starts = np.unique(saved[order], return_index=True)
        if found.size:
            grads["weight"][found] += np.add.reduceat(dy[order], starts, axis=0)
        return None


class Linear(Layer):
    """y = x W^T + b with weight (out_features, in_features) and bias (out_features,), both drawn from U(-1/sqrt(in), 1/sqrt(in)), as torch.nn.Linear.

    Rows (N, in_features) to (N, out_features). ShapeError for sizes that are none.
    """

    kind = "linear"
    draws = False

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, seed: Seed | None = None, dtype: DTypeLike = "float32") -> None:
        self.takes, self.gives = positive(in_features, "in_features", self.kind), positive(out_features, "out_features", self.kind)
        super().__init__({"weight": (self.gives, self.takes)} | ({"bias": (self.gives,)} if bias else {}), dtype, seed)

    def _draw(self, rng: np.random.Generator) -> None:
        bound = 1 / np.sqrt(self._parameters["weight"].shape[1])
        for array in self._parameters.values():
            array[...] = rng.uniform(-bound, bound, array.shape)

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        y = x @ self._parameters["weight"].T
        if "bias" in self._parameters:
            y += self._parameters["bias"]
        return y, x if keep else None, None

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        grads["weight"] += dy.T @ saved
        if "bias" in grads:
            grads["bias"] += dy.sum(0)
        return dy @ self._parameters["weight"] if need_dx else None


class LayerNorm(Layer):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the features of a row (Ba, Kiros and Hinton 2016), as torch.nn.LayerNorm.

    weight, bias (normalized_shape,), ones and zeros at first; bias=False leaves the bias out. normalized_shape: the features, an int or a tuple of one.
    """

    kind = "layernorm"
    draws = False

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, *, bias: bool = True, dtype: DTypeLike = "float32") -> None:
        given = normalized_shape[0] if isinstance(normalized_shape, (tuple, list)) and len(normalized_shape) == 1 else normalized_shape
        self.takes = self.gives = size = positive(given, "normalized_shape", self.kind)
        self.eps = number(eps, f"{self.kind}: eps")
        super().__init__({"weight": (size,)} | ({"bias": (size,)} if bias else {}), dtype)

    def _draw(self, rng: np.random.Generator) -> None:
        for name, array in self._parameters.items():
            array[...] = name == "weight"

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        unit = x - x.mean(1, keepdims=True)
        scale = 1 / np.sqrt(np.einsum("nf,nf->n", unit, unit)[:, None] / self.takes + x.dtype.type(self.eps))
        unit *= scale
        y = unit * self._parameters["weight"]
        if "bias" in self._parameters:
            y += self._parameters["bias"]
        return y, (unit, scale) if keep else None, None

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        unit, scale = saved
        grads["weight"] += np.einsum("nf,nf->f", dy, unit)
        if "bias" in grads:
            grads["bias"] += dy.sum(0)
        if not need_dx:
            return None
        dx = np.multiply(dy, self._parameters["weight"], out=dy)
        along = np.einsum("nf,nf->n", dx, unit)[:, None] / self.takes
        dx -= dx.mean(1, keepdims=True)
        dx -= np.multiply(unit, along, out=unit)
        dx *= scale
        return dx


class Dropout(Layer):
    """While training, zeroes each number with probability p and multiplies the others by 1 / (1 - p); else passes rows on.

    UnsupportedModelError for p outside 0..1.
    """

    kind = "dropout"

    def __init__(self, p: float = 0.5, *, dtype: DTypeLike | None = None) -> None:
        self.p = probability(p, self.kind)
        super().__init__({}, dtype)

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        mask = dropout_mask(x.shape, self.p, run, x.dtype)
        return x if mask is None else x * mask, mask if keep else None, None

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        return dy if saved is None else np.multiply(dy, saved, out=dy)


def probability(p: float, where: str, name: str = "p") -> float:
    """p as a float; UnsupportedModelError outside 0..1."""
    if isinstance(p, bool) or not isinstance(p, (int, float, np.number)) or not 0 <= p <= 1:
        raise UnsupportedModelError(f"{where}: {name} must be a probability from 0 to 1, got {p!r}")
    return float(p)


def dropout_mask(shape: tuple[int, ...], p: float, run: Run, dtype: np.dtype[Any]) -> np.ndarray | None:
    """What rows are multiplied by, 0 or 1 / (1 - p); None where nothing is dropped. Drawn from the run's generator, p in steps of 2^-24."""
    if not run.training or p == 0:
        return None
    assert run.rng is not None, "a run that trains draws"
    kept = run.rng.random(shape, np.float32) >= p
    return np.multiply(kept, 1 / (1 - p) if p < 1 else 0, dtype=dtype)


class _Activation(Layer):
    """A function of each number alone, whose derivative follows from its value."""

    _function: Callable[[np.ndarray], np.ndarray]
    _derivative: Callable[[np.ndarray], np.ndarray]  # from y

    draws = False

    def __init__(self, *, dtype: DTypeLike | None = None) -> None:
        super().__init__({}, dtype)

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        y = self._function(x)
        return y, y if keep else None, None

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        return np.multiply(dy, self._derivative(saved), out=dy) if need_dx else None


class Tanh(_Activation):
    """tanh of each number."""

    kind = "tanh"

    @staticmethod
    def _function(x: np.ndarray) -> np.ndarray:
        return np.tanh(x)

    @staticmethod
    def _derivative(y: np.ndarray) -> np.ndarray:
        return 1 - y * y


class ReLU(_Activation):
    """max(x, 0); its derivative at 0 is 0, as torch has it."""

    kind = "relu"

    @staticmethod
    def _function(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    @staticmethod
    def _derivative(y: np.ndarray) -> np.ndarray:
        return y > 0


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)), as exp(min(x, 0)) / (1 + exp(-|x|)): right to a few ulp where it nears 0, and nothing overflows."""

    kind = "sigmoid"

    @staticmethod
    def _function(x: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))

    @staticmethod
    def _derivative(y: np.ndarray) -> np.ndarray:
        return y * (1 - y)


class Last(Layer):
    """The last valid step of each sequence: rows (N, F) to (B, F), in the batch's order. For networks with one answer a sequence.

    ShapeError where a sequence has length 0, or rows are sequences already.
    """

    kind = "last"
    draws = False

    def __init__(self, *, dtype: DTypeLike | None = None) -> None:
        super().__init__({}, dtype)

    def run_after(self, run: Run) -> Run:
        return run.last()

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        if run.per_sequence:
            raise ShapeError(f"{self.kind}: rows are one a sequence already; a network has one Last")
        rows = run.packing.last()
        return x[rows], (rows, x.shape) if keep else None, None

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        if not need_dx:
            return None
        rows, shape = saved
        dx = np.zeros(shape, dy.dtype)
        dx[rows] = dy
        return dx
