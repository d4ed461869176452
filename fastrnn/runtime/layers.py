"""fr.LSTM, fr.GRU and fr.RNN: drop-ins for torch.nn on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from fastrnn.cells import Cell, find_cell
from fastrnn.cells.activations import Activation
from fastrnn.errors import DTypeError, ShapeError, UnsupportedModelError
from fastrnn.model import Model
from fastrnn.model.show import notebook, parameters
from fastrnn.model.stack import StackOptions, parse_activations, stack_model
from fastrnn.plan import compile_plan
from fastrnn.plan.graph.narrow import narrowed
from fastrnn.runtime import checks
from fastrnn.runtime.session import Session

if TYPE_CHECKING:
    from fastrnn.typing import Activations, ArrayLike, Float32, Given, Precision, StateDict

Final = TypeVar("Final")  # what a call returns as the final state


class RecurrentLayer(Generic[Final]):
    """What fr.LSTM, GRU, RNN and Recurrent share. Parameters are float32; load_state_dict repacks them and must not run during calls.

    Can be pickled and copied: compiled again where it arrives, for the instruction set there, to the same bits.
    """

    _MADE = ("_session",)  # by _set

    def __init__(self, options: StackOptions, seed: int | None, backend: str, precision: Precision, threads: int) -> None:
        self.options = options
        self._compile = (backend, precision, threads)
        bound = 1.0 / np.sqrt(options.hidden_size)
        random = np.random.default_rng(seed)
        self._set({name: random.uniform(-bound, bound, shape).astype(np.float32) for name, shape in options.shapes().items()})

    def _set(self, parameters: dict[str, Float32]) -> None:
        model = narrowed(stack_model(self.options, parameters, self.options.kind, with_lengths=True, with_keep=True), self._compile[1])
        session = Session(compile_plan(model, *self._compile), model)
        self._parameters, self._session = parameters, session

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Takes parameters under torch's names (float32 arrays or tensors) and packs them; copies, keeps nothing of the caller's.

        Raises ShapeError or DTypeError naming the parameter; the layer then keeps what it had. Not safe during calls.
        """
        arrays = {name: checks.as_array(value, name) for name, value in checks.as_mapping(state_dict, "the state dict").items()}
        self._set(self.options.check(arrays, f"layer {self.options.kind!r}"))

    def state_dict(self) -> dict[str, Float32]:
        """Copies of the parameters under torch's names; peepholes as weight_p{i,f,o}_l0 (H,)."""
        return {name: array.copy() for name, array in self._parameters.items()}

    def __getstate__(self) -> dict[str, object]:
        """Everything but what is made of the parameters, which holds addresses of this process; custom cells go by name."""
        return {name: value for name, value in self.__dict__.items() if name not in self._MADE}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._set(self._parameters)

    def to_model(self, lengths: bool = False) -> Model:
        """The layer as a Model that compiles, streams and saves, with copies of its parameters.

        Inputs are x, a custom cell's scalars, h0 (and c0, or a custom cell's states), outputs y, h_n (c_n), the states tied, as from_torch names those of
        a bare layer; lengths: an input of that name too. Initial states and lengths may be left out of a call.
        """
        o = self.options
        return stack_model(o, self.state_dict(), o.cell.name if o.cell else o.kind, with_lengths=lengths)

    def explain(self) -> str:
        """What was chosen for each layer, and why."""
        return self._session.explain()

    def __call__(
        self, x: ArrayLike, state: Given | None = None, lengths: ArrayLike | None = None, *, resets: ArrayLike | None = None, **scalars: ArrayLike
    ) -> tuple[Float32, Final]:
        """y and the final state, as torch.nn returns them.

        x       : (T, B, I), (B, T, I) with batch_first, or unbatched (T, I); float32
        state   : h0 (layers * D, B, P), or for an LSTM (h0, c0) with c0 (layers * D, B, H); zeros if None; unbatched without B
        lengths : integers in 0..T, one a row, any order; outputs past a row's length are zero and its final state is the one
                  at its last valid step; None: all T
        resets  : (T, B) bool, or (T,) unbatched, T first with batch_first too: where it is true the row goes, before that step, to the state that it has
                  when none is given, never to `state` (episodes in reinforcement learning). A direction that runs from the end does so behind that step
        scalars : for a custom cell that declares them, by name: a number for each step and row, x's shape without its last axis

        Returns y (T, B, D * P) or as x, and h_n, or (h_n, c_n); new arrays. Safe from many threads. Raises ShapeError or DTypeError.
        """
        if lengths is None and resets is None and not scalars:  # as most calls are, straight to a program that was run before
            given = (x,) if state is None else (x, *state) if type(state) is tuple else (x, state)
            if (result := self._session.listed(given)) is not None:
                return result[0], result[1] if len(result) == 2 else result[1:]  # type: ignore[return-value]  # as many states as the cell has
        return self._checked(x, state, lengths, resets, scalars)

    def _checked(
        self, x: ArrayLike, state: Given | None, lengths: ArrayLike | None, resets: ArrayLike | None, scalars: Mapping[str, ArrayLike]
    ) -> tuple[Float32, Final]:
        """A call whose arguments are looked at one by one, and brought to the model's shapes."""
        o, x = self.options, checks.as_array(x, "x")
        checks.check_dtype(x, "input 'x'", np.dtype(np.float32))
        unbatched, axis = x.ndim == 2, 0 if o.batch_first else 1
        states = self._states(state)
        if unbatched:
            x, states = np.expand_dims(x, axis), {n: s if s is None else self._unbatched_state(n, s) for n, s in states.items()}
        if x.ndim != 3:
            raise ShapeError(f"input 'x' must have 3 dimensions, or 2 unbatched, got shape {x.shape}")
        each = None if lengths is None else self._lengths(lengths, x.shape[axis])
        keep = None if resets is None else self._keep(resets, x.shape, unbatched, axis)
        timed = {"x": x, **self._scalars(scalars, x.shape[:2], unbatched, axis)}
        y, *final = self._session.run({**timed, **states, "lengths": each, "keep": keep}).values()
        if unbatched:
            y, final = y.squeeze(axis), [s.squeeze(1) for s in final]
        return y, tuple(final) if len(final) > 1 else final[0]  # type: ignore[return-value]  # as many states as the cell has

    @staticmethod
    def _keep(resets: ArrayLike, shape: tuple[int, ...], unbatched: bool, axis: int) -> Float32:
        """What states are multiplied by on their way into each step, as x has its first two axes."""
        mask = checks.as_array(resets, "resets")
        mask = checks.as_resets(mask[:, None] if unbatched and mask.ndim == 1 else mask, shape[1 - axis], shape[axis])
        return np.ascontiguousarray(np.moveaxis(~mask, 0, 1 - axis), np.float32)

    def _states(self, state: Given | None) -> dict[str, np.ndarray | None]:
        names = [f"{s}0" for s in self.options.states]
        if state is None:
            return dict.fromkeys(names)
        given = (state,) if len(names) == 1 else state
        if not isinstance(given, (tuple, list)) or len(given) != len(names):
            raise ShapeError(f"the state must be {'a pair' if len(names) == 2 else 'a tuple'} ({', '.join(names)})")
        return {name: checks.as_array(s, name) for name, s in zip(names, given)}

    def _scalars(self, given: Mapping[str, ArrayLike], shape: tuple[int, ...], unbatched: bool, axis: int) -> dict[str, np.ndarray]:
        if set(given) != set(self.options.scalars):
            raise ShapeError(f"the scalars {', '.join(self.options.scalars) or '(none)'} are expected by name, got {', '.join(given) or 'none'}")
        arrays = {name: checks.as_array(value, name) for name, value in given.items()}
        for name, array in arrays.items():
            expected = shape[:axis] + shape[axis + 1 :] if unbatched else shape
            if array.shape != expected:
                raise ShapeError(f"input {name!r} must have shape {expected}, a number for each step and row, got {array.shape}")
        return {name: np.expand_dims(array, axis) if unbatched else array for name, array in arrays.items()}

    @staticmethod
    def _unbatched_state(name: str, state: np.ndarray) -> np.ndarray:
        if state.ndim != 2:
            raise ShapeError(f"input {name!r} must have shape (layers * directions, size) beside an unbatched x, got {state.shape}")
        return state[:, None, :]

    @staticmethod
    def _lengths(lengths: ArrayLike, batch: int) -> np.ndarray:
        array = checks.as_array(lengths, "lengths")
        if array.dtype.kind not in "iu" and not (array.size == 0 and isinstance(lengths, (list, tuple))):
            raise DTypeError(f"lengths must be integers, got {array.dtype.str}")
        if array.shape != (batch,):
            raise ShapeError(f"lengths must have shape ({batch},), one a row, got {array.shape}")
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise ShapeError(f"lengths: {array.max()} is out of range")
        return array.astype(np.int64)

    def __repr__(self) -> str:
        o = self.options
        first = [o.cell.name] if o.cell else []
        changed = [
            f"{n}={getattr(o, n)!r}"
            for n, f in o.__dataclass_fields__.items()
            if n not in ("kind", "cell", "input_size", "hidden_size") and getattr(o, n) != f.default
        ]
        return f"{type(self).__name__}({', '.join([*first, str(o.input_size), str(o.hidden_size), *changed])})"

    def _repr_html_(self) -> str:
        return notebook(repr(self), f"{parameters(self._parameters)}\n\n{self.explain()}", "its parameters, and what runs it")


class LSTM(RecurrentLayer["tuple[Float32, Float32]"]):
    """Long short-term memory, as torch.nn.LSTM on NumPy arrays; every option runs compiled.

    input_size I, hidden_size H, num_layers, bias, batch_first, bidirectional, proj_size: as in torch.
    peepholes: i and f also see c, o sees the new c (weight_pi, _pf, _po). input_forget: f = 1 - i. clip: bound on the input of
    every activation. activations: three names (f, g, h) as ONNX lists them, or (name, {"alpha": a, "beta": b}), or a pair of
    such tuples for two directions. reverse: runs from the end. seed: repeats the initial U(-1/sqrt(H), 1/sqrt(H)) parameters.
    backend, precision, threads: see fastrnn.compile. Safe to call from many threads.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peepholes: bool = False,
        input_forget: bool = False,
        clip: float | None = None,
        activations: Activations | None = None,
        reverse: bool = False,
        seed: int | None = None,
        backend: str = "auto",
        precision: Precision = "float32",
        threads: int = 1,
    ) -> None:
        super().__init__(
            StackOptions(
                "lstm",
                input_size,
                hidden_size,
                num_layers,
                bias,
                batch_first,
                bidirectional,
                proj_size,
                peepholes=peepholes,
                input_forget=input_forget,
                clip=clip,
                activations=parse_activations("lstm", activations, bidirectional),
                reverse=reverse,
            ),
            seed,
            backend,
            precision,
            threads,
        )


class GRU(RecurrentLayer["Float32"]):
    """Gated recurrent unit, as torch.nn.GRU on NumPy arrays; every option runs compiled.

    reset_after: True as torch, cuDNN and ONNX linear_before_reset=1; False as Cho et al. 2014 and ONNX 0: the reset gate
    multiplies h before the matrix. activations: two names (f, g). The other options: see LSTM.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        clip: float | None = None,
        activations: Activations | None = None,
        reverse: bool = False,
        seed: int | None = None,
        backend: str = "auto",
        precision: Precision = "float32",
        threads: int = 1,
    ) -> None:
        super().__init__(
            StackOptions(
                "gru",
                input_size,
                hidden_size,
                num_layers,
                bias,
                batch_first,
                bidirectional,
                reset_after=reset_after,
                clip=clip,
                activations=parse_activations("gru", activations, bidirectional),
                reverse=reverse,
            ),
            seed,
            backend,
            precision,
            threads,
        )


class RNN(RecurrentLayer["Float32"]):
    """Elman's network, as torch.nn.RNN on NumPy arrays; every option runs compiled.

    nonlinearity: "tanh" or "relu"; activations: one name, instead of it. A state dict does not tell tanh from relu. The other
    options: see LSTM.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        *,
        clip: float | None = None,
        activations: Activations | None = None,
        reverse: bool = False,
        seed: int | None = None,
        backend: str = "auto",
        precision: Precision = "float32",
        threads: int = 1,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise UnsupportedModelError(f"rnn: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        if nonlinearity == "relu":
            if activations is not None:
                raise UnsupportedModelError("rnn: give nonlinearity='relu' or activations, not both")
            activations = (Activation("relu"),)
        super().__init__(
            StackOptions(
                "rnn",
                input_size,
                hidden_size,
                num_layers,
                bias,
                batch_first,
                bidirectional,
                clip=clip,
                activations=parse_activations("rnn", activations, bidirectional),
                reverse=reverse,
            ),
            seed,
            backend,
            precision,
            threads,
        )


class Recurrent(RecurrentLayer["Float32 | tuple[Float32, ...]"]):
    """Layers of a cell of one's own (fastrnn.cell), called as fr.LSTM is, compiled, and as fast.

    cell: a Cell, or the name of a registered one. The state dict stacks the gates in declared order under torch's names: weight_ih_l0 those that see
    x, weight_hh_l0 those that see h, bias_ih_l0 and bias_hh_l0 those of them with a bias, weight_NAME_l0 (H,) each parameter. States are passed and
    returned in declared order, a cell's scalars by name: layer(x, dt=gaps). proj_size: for cells that do not read h unit for unit. The other
    options: see LSTM. backend: "auto", "native" and "jit" all compile the cell with the jit backend; "reference" runs its function on NumPy arrays.
    Safe to call from many threads.
    """

    def __init__(
        self,
        cell: Cell | str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        reverse: bool = False,
        seed: int | None = None,
        backend: str = "auto",
        precision: Precision = "float32",
        threads: int = 1,
    ) -> None:
        found = cell if isinstance(cell, Cell) else find_cell(cell) if isinstance(cell, str) else None
        if found is None or not found.custom:
            raise UnsupportedModelError(f"Recurrent: a cell made with @fastrnn.cell, or its name, is expected, got {cell!r}")
        super().__init__(
            StackOptions("recurrent", input_size, hidden_size, num_layers, bias, batch_first, bidirectional, proj_size, reverse=reverse, cell=found),
            seed,
            backend,
            precision,
            threads,
        )
