"""What all recurrent layers that learn share: a stack of layers in one or two directions over packed rows, and backpropagation through time over it.

A direction projects all rows at once, runs its time loop forward in place, and backward in place again; weight gradients are then one product
over all rows. What differs from kind to kind is in recurrent.py (RNN, LSTM, GRU) and custom.py (any cell).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.errors import DTypeError, ShapeError, StateError
from fastrnn.model.stack import StackOptions
from fastrnn.training.base import Layer, Run
from fastrnn.training.layers import dropout_mask, probability

if TYPE_CHECKING:
    from fastrnn.typing import DTypeLike, Seed

ROWS = 1024  # of a block


@dataclass
class Direction:
    """What one direction keeps from forward to backward. gates (N, G H); c (S - 1, B + N, H): the states but h, B initial rows first; extra (N, H): see
    native/instance.h and native/cell.h. What a kind has no use for is None."""

    suffix: str
    pieces: np.ndarray
    previous: np.ndarray | slice
    gates: np.ndarray | None
    c: np.ndarray | None
    extra: np.ndarray | None


@dataclass
class Saved:
    """What one layer of a stack keeps. x (N, I); h (B + N, D P), B initial rows first; dropped: factors of the dropout before it; beside: what else a row has.

    Backward lets go of x and h; after it dh (N, D P) holds the whole gradient of each step's h if keep_dh is set.
    """

    x: np.ndarray | None
    h: np.ndarray | None
    directions: list[Direction]
    beside: np.ndarray | None = None
    dropped: np.ndarray | None = None
    d_beside: np.ndarray | None = None
    keep_dh: bool = False
    dh: np.ndarray | None = None


class RecurrentLayer(Layer):
    """A stack of recurrent layers over packed rows: what RNN, LSTM, GRU and Recurrent share.

    Parameters have torch's names, shapes and initial distribution; peepholes are weight_p{i,f,o}_l0 (H,). num_layers, bidirectional, bias, proj_size: as in
    torch.nn. reverse: the one direction runs from the end. dropout: between the layers of the stack, while training. dtype: float32 or float64.
    seed: of the initial parameters. Raises ShapeError, DTypeError or UnsupportedModelError naming the option.
    Passes are safe from many threads while nothing changes parameters; they release the GIL.
    Memory: forward keeps what Saved and Direction list; backward takes dx, and works in place in all else.
    """

    def __init__(self, options: StackOptions, *, dropout: float = 0.0, seed: Seed | None = None, dtype: DTypeLike = "float32") -> None:
        self.options, self.dropout, self.kind = options, probability(dropout, options.kind, "dropout"), options.kind
        self.takes, self.gives = options.input_size + len(options.scalars), options.output_size * options.directions
        super().__init__(options.shapes(), dtype, seed)

    @property
    def draws(self) -> bool:  # type: ignore[override]  # between the layers of the stack
        return self.dropout > 0

    def _draw(self, rng: np.random.Generator) -> None:
        bound = 1 / np.sqrt(self.options.hidden_size)
        for array in self.parameters().values():
            array[...] = rng.uniform(-bound, bound, array.shape)

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        """Rows (N, takes) to rows (N, D P). state: h, or a tuple (h, c) of all states, each (layers * D, B, P or H) in the batch's order; None: zeros.

        StateError, DTypeError or ShapeError for a state that does not fit.
        """
        o, saved, finals = self.options, [], {name: [] for name in self.options.states}
        states = self._states(state, run)
        x, beside = (x[:, : o.input_size], x[:, o.input_size :]) if o.scalars else (x, None)
        for layer in range(o.num_layers):
            dropped = dropout_mask(x.shape, self.dropout, run, x.dtype) if layer else None
            x = x if dropped is None else x * dropped
            one = Saved(x, np.empty((run.packing.B + len(x), self.gives), self.dtype), [], beside, dropped)
            self._layer(layer, one, run, states)
            for name, final in self._finals(one, run).items():
                finals[name] += final
            x = one.h[run.packing.B :]
            if keep:
                saved.append(one)
        ends = tuple(run.packing.ended(np.stack(found) if len(found) > 1 else found[0][None], self._reverse) for found in finals.values())
        return x, (run, saved) if keep else None, ends if len(ends) > 1 else ends[0]

    @property
    def _reverse(self) -> np.ndarray:
        """Bools (layers * D,): which directions run from the end."""
        return np.tile(np.arange(self.options.directions) == (0 if self.options.reverse else 1), self.options.num_layers)

    def _states(self, state: Any, run: Run) -> dict[str, np.ndarray]:
        """Initial states by name, (layers * D, B, n), in the packing's order."""
        o, B = self.options, run.packing.leading[1]
        shapes = {name: (o.num_layers * o.directions, B, o.hidden_size if k else o.output_size) for k, name in enumerate(o.states)}
        if state is None:
            return {name: np.zeros((shape[0], run.packing.B, shape[2]), self.dtype) for name, shape in shapes.items()}
        if len(o.states) > 1 and not (isinstance(state, tuple) and len(state) == len(o.states)):
            raise StateError(
                f"{self.kind}: a state is a tuple ({', '.join(o.states)}), got {type(state).__name__}"
                + (f" of {len(state)}" if isinstance(state, tuple) else "")
            )
        found = dict(zip(o.states, state if len(o.states) > 1 else (state,)))
        for name, array in found.items():
            if not isinstance(array, np.ndarray) or array.dtype != self.dtype:
                raise DTypeError(f"{self.kind}: initial {name} must be an array of {self.dtype}, got {getattr(array, 'dtype', type(array).__name__)}")
            if array.shape != shapes[name]:
                raise ShapeError(f"{self.kind}: initial {name} must have shape {shapes[name]}, got {array.shape}")
        return {name: run.packing.begun(array, self._reverse) for name, array in found.items()}

    def _layer(self, layer: int, saved: Saved, run: Run, states: dict[str, np.ndarray]) -> None:
        """Computes one layer's h, and adds what its directions keep."""
        raise NotImplementedError

    def _layer_back(self, saved: Saved, dy: np.ndarray, grads: dict[str, np.ndarray], run: Run, need_dx: bool) -> np.ndarray | None:
        """Adds one layer's gradients; that of its x if it is needed. What was saved is used up, and dy is written to."""
        raise NotImplementedError

    def _finals(self, saved: Saved, run: Run) -> dict[str, list[np.ndarray]]:
        """The states of each direction after its last step, in the packing's order."""
        o, found = self.options, {name: [] for name in self.options.states}
        for d, own in enumerate(saved.directions):
            last = run.packing.way(bool(d) or o.reverse).ends
            found[o.states[0]].append(saved.h[last, d * o.output_size : (d + 1) * o.output_size])
            for k, name in enumerate(o.states[1:]):
                found[name].append(own.c[k, last])
        return found

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        """As every layer's; what was saved is used up."""
        run, layers = saved
        while layers:
            one = layers.pop()
            dy = self._layer_back(one, np.ascontiguousarray(dy), grads, run, need_dx or bool(layers))
            if one.dropped is not None:
                dy *= one.dropped
        return dy if need_dx else None

    def _dx(self, saved: Saved, das: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """The gradient of x from those of the pre-activations over it and the matrices, direction by direction."""
        shape, saved.x, saved.h = saved.x.shape, None, None  # their memory can go before dx takes as much
        dx = np.empty(shape, self.dtype)
        for d, (da, w) in enumerate(das):
            for rows in blocks(len(dx)):
                if d:
                    dx[rows] += da[rows] @ w
                else:
                    np.matmul(da[rows], w, out=dx[rows])
        return dx


def blocks(n: int) -> Iterator[slice]:
    """Rows a piece at a time, so that what is gathered or added takes little memory; a product of so many runs as fast as a whole one."""
    return (slice(at, min(at + ROWS, n)) for at in range(0, n, ROWS))
