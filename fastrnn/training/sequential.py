"""Layers one after the other: the network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastrnn.errors import DTypeError, ShapeError, StateError, UnsupportedModelError
from fastrnn.model import Model
from fastrnn.model.show import aligned, notebook, parameters
from fastrnn.runtime.checks import as_array, check_dtype
from fastrnn.training.base import Layer, Run, State, as_dtype, carried
from fastrnn.training.packing import Packing

if TYPE_CHECKING:
    from fastrnn.training.data import Columns
    from fastrnn.typing import ArrayLike, DTypeLike, Seed


class Sequential(Layer):
    """Layers in a row: what one gives, the next takes. layers: the list, not to be changed.

    Parameters are keyed "0.weight_ih_l0": the layer's place, a dot, its own name, as in torch.nn.Sequential (which counts activations and Dropout too).
    seed: draws all parameters from one generator, each layer in turn; None: the layers keep what they were made with. All layers that have a dtype have one.
    A Sequential may be a layer of another. Raises ShapeError or DTypeError naming the layer where sizes or dtypes do not fit.
    Passes are safe from many threads while nothing changes parameters.
    """

    kind = "sequential"

    def __init__(self, *layers: Layer, seed: Seed | None = None) -> None:
        if not layers:
            raise UnsupportedModelError("sequential: at least one layer is needed")
        for k, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise UnsupportedModelError(f"sequential: layer '{k}' must be a layer of fastrnn.training, got {type(layer).__name__}")
        self.layers = list(layers)
        self._bind()
        if seed is not None:
            self.reset_parameters(seed)

    def _bind(self) -> None:
        """Checks that the layers fit, and takes their sizes and dtype."""
        typed = [(k, layer) for k, layer in enumerate(self.layers) if layer.dtype is not None]
        self.dtype = typed[0][1].dtype if typed else None
        for k, layer in typed:
            if layer.dtype != self.dtype:
                raise DTypeError(
                    f"layer '{k}' ({layer.kind}) is {layer.dtype}, layer '{typed[0][0]}' ({typed[0][1].kind}) is {self.dtype}; all must be one"
                )
        self.integers, self.takes, size = self.layers[0].integers, None, None
        for k, layer in enumerate(self.layers):
            if k and layer.integers:
                raise ShapeError(f"layer '{k}' ({layer.kind}) reads indices, so it can only be the first")
            if size is not None and layer.takes is not None and layer.takes != size:
                raise ShapeError(
                    f"layer '{k}' ({layer.kind}) takes {layer.takes} features, but layer '{k - 1}' ({self.layers[k - 1].kind}) gives {size}"
                )
            if size is None and not self.integers and self.takes is None:
                self.takes = layer.takes
            size = layer.gives if layer.gives is not None else layer.takes if layer.takes is not None else size
        self.gives = size
        if len({id(leaf) for _, leaf in self.leaves()}) != sum(1 for _ in self.leaves()):
            raise UnsupportedModelError("sequential: a layer stands in more than one place; shared parameters are not supported")

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """The layers that are no Sequential, each with its place: "0", or "1.0" inside another."""
        for k, layer in enumerate(self.layers):
            if isinstance(layer, Sequential):
                yield from layer.leaves(f"{prefix}{k}.")
            else:
                yield f"{prefix}{k}", layer

    @property
    def draws(self) -> bool:  # type: ignore[override]  # of its layers
        return any(layer.draws for layer in self.layers)

    @property
    def per_sequence(self) -> bool:
        """Whether it gives one row a sequence: a Last is among its layers."""
        return self.run_after(Run(Packing.of(0, 0))).per_sequence

    def reset_parameters(self, seed: Seed | None = None) -> None:
        rng = np.random.default_rng(seed)
        for layer in self.layers:
            layer.reset_parameters(rng)

    def parameters(self) -> dict[str, np.ndarray]:
        return {f"{k}.{name}": array for k, layer in enumerate(self.layers) for name, array in layer.parameters().items()}

    def astype(self, dtype: DTypeLike) -> Self:
        other = copy.copy(self)
        other.layers = [layer.astype(as_dtype(dtype, self.kind)) for layer in self.layers]
        other._bind()
        return other

    def run_after(self, run: Run) -> Run:
        for layer in self.layers:
            run = layer.run_after(run)
        return run

    def forward(self, x: np.ndarray, run: Run, state: Any = None, keep: bool = True) -> tuple[np.ndarray, Any, Any]:
        """As every layer's; state: a tuple, saved: a list with one entry a layer."""
        saved, finals = [], []
        given = (None,) * len(self.layers) if state is None else state
        if not isinstance(given, tuple) or len(given) != len(self.layers):
            raise StateError(f"{self.kind}: a state is a tuple with one entry for each of its {len(self.layers)} layers, got {type(given).__name__}")
        for k, (layer, initial) in enumerate(zip(self.layers, given)):
            x, kept, final = layer.forward(x, run, initial, keep)
            if initial is not None and final is None:
                raise StateError(f"layer '{k}' ({layer.kind}) carries no state, but is given a {type(initial).__name__}")
            run = layer.run_after(run)
            saved.append(kept)
            finals.append(final)
        return x, saved if keep else None, tuple(finals)

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        """As every layer's; what was saved is let go of on the way."""
        while saved:
            k = len(saved) - 1
            prefix = f"{k}."
            own = {name[len(prefix) :]: array for name, array in grads.items() if name.startswith(prefix)}
            dy = self.layers[k].backward(dy, saved.pop(), own, need_dx or k > 0)
        return dy

    def __call__(
        self,
        x: ArrayLike,
        lengths: ArrayLike | None = None,
        state: State | None = None,
        batch_first: bool = False,
        *,
        resets: ArrayLike | None = None,
    ) -> np.ndarray:
        """The network's output, with nothing dropped.

        x: (T, B, I) of the network's dtype, or integers (T, B) if an Embedding is first; (B, T, ...) with batch_first. lengths: integers (B,)
        in 0..T, any order; None: all T. state: a State, which is read and given the final states; None: zeros. resets: bools (T, B), T first with
        batch_first too, as fr.LSTM takes them: where recurrent layers start a sequence afresh, at zeros, before that step.
        Returns (T, B, F), zero past the ends, (B, T, F) with batch_first, or (B, F) behind a Last; a new array.
        Raises ShapeError, DTypeError or StateError. Safe from many threads with states of their own.
        """
        rows, run = self.enter(x, lengths, batch_first, resets=resets)
        y, _, final = self.forward(rows, run, carried(state), keep=False)
        if state is not None:
            state.value = final
        after = self.run_after(run)
        y = after.unpack(y.copy() if np.may_share_memory(y, rows) else y)
        return y.swapaxes(0, 1) if batch_first and not after.per_sequence else y

    def predict(self, xs: Columns, batch_size: int = 64) -> np.ndarray | list[np.ndarray]:
        """What the network says of sequences, a batch at a time, with nothing dropped: of those that fit takes as xs.

        xs: arrays (T_i, I) of the network's dtype, or integers (T_i,); or one array (T, n, ...) that holds n sequences. batch_size: of a pass; work space is as large as
        that. Returns a list of arrays (T_i, F) in the order of xs, of one array one (T, n, F), and behind a Last an array (n, F). Raises ShapeError or
        DTypeError. Safe from many threads.
        """
        from fastrnn.training.predict import predict

        return predict(self, xs, batch_size)

    def save(self, path: str | PathLike[str], lengths: bool = False) -> None:
        """Writes the network as it is now as a model, which fr.load reads and fr.compile runs: to_model(lengths=lengths).save(path). For training that shall go on, keep
        state_dict, or a History's. Raises as to_model and Model.save do."""
        self.to_model(Path(path).stem, lengths).save(path)

    def to_model(self, name: str = "model", lengths: bool = False) -> Model:
        """The network as it is now, for fr.compile: input x (T, B, F) float32, or (T, B) int64 where an Embedding is first, output y as a call gives it.

        lengths: whether the model has an optional input "lengths" int64 (B,) too; recurrent layers then stop there, and y past them is what the
        layers behind make of zeros. Dropout vanishes; a Last takes the last of all T steps. Recurrent layers start from zeros, and a Stream carries
        their states. Weights are copies. DTypeError for a float64 network, UnsupportedModelError naming a layer without nodes, and for a Last with lengths.
        """
        from fastrnn.training.export import to_model  # export knows all layers, this module among them

        return to_model(self, name, lengths)

    def enter(
        self,
        given: ArrayLike,
        lengths: ArrayLike | None = None,
        batch_first: bool = False,
        training: bool = False,
        rng: np.random.Generator | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[np.ndarray, Run]:
        """A batch, checked, as rows, and the run that they belong to. Arguments and errors as in a call."""
        x = as_array(given, "x")
        if self.integers:
            if x.dtype.kind not in "iu":
                raise DTypeError(f"layer '0' ({self.layers[0].kind}): input 'x' must be integers, got {x.dtype}")
            wanted, ndim = "(T, B)", 2
        else:
            check_dtype(x, f"layer '0' ({self.layers[0].kind}): input 'x'", as_dtype(x.dtype, "input 'x'") if self.dtype is None else self.dtype)
            wanted, ndim = f"(T, B, {'F' if self.takes is None else self.takes})", 3
        if x.ndim != ndim or ndim == 3 and self.takes not in (None, x.shape[2]):
            wanted = wanted.replace("T, B", "B, T") if batch_first else wanted
            raise ShapeError(f"layer '0' ({self.layers[0].kind}): input 'x' must have shape {wanted}, got {x.shape}")
        if batch_first:
            x = x.swapaxes(0, 1)
        run = Run(Packing.of(x.shape[0], x.shape[1], lengths, resets), training, rng)
        rows = np.ascontiguousarray(run.pack(x))
        if self.integers:
            first: Any = next(leaf for _, leaf in self.leaves())  # an Embedding
            if rows.size and not 0 <= rows.min() <= rows.max() < first.num_embeddings:
                raise ShapeError(f"layer '0' (embedding): indices must be from 0 to {first.num_embeddings - 1}, got {rows.min()} to {rows.max()}")
        return rows, run

    def __repr__(self) -> str:
        return "Sequential(" + ", ".join(map(repr, self.layers)) + ")"

    def _repr_html_(self) -> str:
        lines = aligned((place, layer, f"{sum(a.size for a in layer.parameters().values()):,}") for place, layer in self.leaves())
        return notebook(f"Sequential\n{lines}", parameters(self.parameters()), "parameters")
