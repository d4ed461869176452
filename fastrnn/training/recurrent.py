"""RNN, LSTM and GRU that learn: torch's parameters, backpropagation through time in compiled loops.

A direction projects all rows at once, runs its time loop forward in place, and backward in place again; weight gradients are then one product
over all rows. Saved for backward: activated gates, h, and c or what the reset gate meets; the gradients of pre-activations take the gates' place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastrnn.errors import DTypeError, ShapeError, StateError, UnsupportedModelError
from fastrnn.model.stack import PEEPHOLES, StackOptions
from fastrnn.training.base import Layer, Run
from fastrnn.training.layers import dropout_mask, probability
from fastrnn.training.native import GATES, loops

ROWS = 1024  # of a block
KINDS = ("rnn", "lstm", "gru", "gru_before")  # as native/instance.h numbers them


@dataclass
class Direction:
    """What one direction keeps from forward to backward. gates (N, G H); c (B + N, H): B initial rows first; extra (N, H): see native/instance.h."""

    suffix: str
    pieces: np.ndarray
    previous: np.ndarray | slice
    gates: np.ndarray | None
    c: np.ndarray | None
    extra: np.ndarray | None


@dataclass
class Saved:
    """What one layer of a stack keeps. x (N, I); h (B + N, D P), B initial rows first; dropped: factors of the dropout before it.

    Backward lets go of x and h; after it dh (N, D P) holds the whole gradient of each step's h if keep_dh is set.
    """

    x: np.ndarray | None
    h: np.ndarray | None
    directions: list[Direction]
    dropped: np.ndarray | None = None
    keep_dh: bool = False
    dh: np.ndarray | None = None


class Recurrent(Layer):
    """A stack of recurrent layers over packed rows: what RNN, LSTM and GRU share.

    Parameters have torch's names, shapes and initial distribution; peepholes are weight_p{i,f,o}_l0 (H,). num_layers, bidirectional, bias, proj_size: as in
    torch.nn. reverse: the one direction runs from the end. dropout: between the layers of the stack, while training. dtype: float32 or float64.
    seed: of the initial parameters. Raises ShapeError, DTypeError or UnsupportedModelError naming the option.
    Passes are safe from many threads while nothing changes parameters; they release the GIL.
    Memory: forward keeps what Saved and Direction list; backward takes dx, and works in place in all else.
    """

    def __init__(self, options: StackOptions, *, relu: bool = False, dropout: float = 0.0, seed=None, dtype="float32"):
        self.options, self.relu, self.dropout, self.kind = options, relu, probability(dropout, options.kind, "dropout"), options.kind
        self.takes, self.gives = options.input_size, options.output_size * options.directions
        self._loop = KINDS.index("gru_before" if options.kind == "gru" and not options.reset_after else options.kind)
        super().__init__(options.shapes(), dtype, seed)

    def _draw(self, rng: np.random.Generator) -> None:
        bound = 1 / np.sqrt(self.options.hidden_size)
        for array in self.parameters().values():
            array[...] = rng.uniform(-bound, bound, array.shape)

    def forward(self, x, run: Run, state=None, keep=True):
        """Rows (N, I) to rows (N, D P). state: h, or (h, c) of an LSTM, each (layers * D, B, P or H) in the batch's order; None: zeros.

        StateError, DTypeError or ShapeError for a state that does not fit.
        """
        o, saved, finals = self.options, [], {name: [] for name in self.options.states}
        states = self._states(state, run)
        for layer in range(o.num_layers):
            dropped = dropout_mask(x.shape, self.dropout, run, x.dtype) if layer else None
            x = x if dropped is None else x * dropped
            one = self._layer(layer, x, run, states)
            one.dropped = dropped
            for name, final in self._finals(one, run).items():
                finals[name] += final
            x = one.h[run.packing.B :]
            if keep:
                saved.append(one)
        ends = tuple(np.stack(finals[name])[:, run.packing.places()] for name in o.states)
        return x, (run, saved) if keep else None, ends if len(ends) > 1 else ends[0]

    def _states(self, state, run: Run) -> dict[str, np.ndarray]:
        """Initial states by name, (layers * D, B, n), in the packing's order."""
        o, B = self.options, run.packing.B
        shapes = {"h": (o.num_layers * o.directions, B, o.output_size), "c": (o.num_layers * o.directions, B, o.hidden_size)}
        if state is None:
            return {name: np.zeros(shapes[name], self.dtype) for name in o.states}
        if len(o.states) > 1 and not (isinstance(state, tuple) and len(state) == len(o.states)):
            raise StateError(f"{self.kind}: a state is a tuple ({', '.join(o.states)}), got {type(state).__name__}"
                             + (f" of {len(state)}" if isinstance(state, tuple) else ""))
        found = dict(zip(o.states, state if len(o.states) > 1 else (state,)))
        for name, array in found.items():
            if not isinstance(array, np.ndarray) or array.dtype != self.dtype:
                raise DTypeError(f"{self.kind}: initial {name} must be an array of {self.dtype}, got {getattr(array, 'dtype', type(array).__name__)}")
            if array.shape != shapes[name]:
                raise ShapeError(f"{self.kind}: initial {name} must have shape {shapes[name]}, got {array.shape}")
        return found if run.packing.order is None else {name: array[:, run.packing.order] for name, array in found.items()}

    def _layer(self, layer: int, x: np.ndarray, run: Run, states: dict[str, np.ndarray]) -> Saved:
        o, p, B = self.options, self.parameters(), run.packing.B
        D, P, H, N = o.directions, o.output_size, o.hidden_size, len(x)
        h = np.empty((B + N, D * P), self.dtype)
        saved = Saved(x, h, [])
        for d, suffix in enumerate(o.suffixes(layer)):
            reverse, k = bool(d) or o.reverse, layer * D + d
            own, pieces = h[:, d * P : (d + 1) * P], run.packing.pieces(reverse)
            own[:B] = states["h"][k]
            gates = None if self.kind == "rnn" else np.empty((N, GATES[self._loop] * H), self.dtype)
            pre = own[B:] if gates is None else gates
            np.matmul(x, p[f"weight_ih_{suffix}"].T, out=pre)
            c = extra = None
            if self.kind == "lstm":
                c = np.empty((B + N, H), self.dtype)
                c[:B] = states["c"][k]
            if self.kind == "gru" or o.proj_size:
                extra = np.empty((N, H), self.dtype)
            if o.bias:
                bias = p[f"bias_ih_{suffix}"] + p[f"bias_hh_{suffix}"]
                if o.kind == "gru" and o.reset_after:
                    bias[2 * H :] = p[f"bias_ih_{suffix}"][2 * H :]  # R_n h has its bias to itself
                pre += bias
            saved.directions.append(Direction(suffix, pieces, run.packing.previous(reverse), gates, c, extra))
            self._run(False, saved, d, run)
        return saved

    def _run(self, back: bool, saved: Saved, d: int, run: Run, **gradients) -> None:
        """One direction's time loop."""
        o, p, own = self.options, self.parameters(), saved.directions[d]
        P, H, suffix = o.output_size, o.hidden_size, own.suffix
        peepholes = np.stack([p[f"weight_p{gate}_{suffix}"] for gate in PEEPHOLES]) if o.peepholes else None
        loops().run(self._loop, back, own.pieces, run.packing.B, saved.h[:, d * P : (d + 1) * P], p[f"weight_hh_{suffix}"], gates=own.gates, c=own.c,
                    extra=own.extra, w_p=p.get(f"weight_hr_{suffix}"), peepholes=peepholes, relu=self.relu, coupled=o.input_forget,
                    b_n=p[f"bias_hh_{suffix}"][2 * H :] if o.bias and self.kind == "gru" and o.reset_after else None, **gradients)

    def _finals(self, saved: Saved, run: Run) -> dict[str, list[np.ndarray]]:
        """The states of each direction after its last step, in the packing's order."""
        o, found = self.options, {name: [] for name in self.options.states}
        for d, own in enumerate(saved.directions):
            last = run.packing.ends(bool(d) or o.reverse)
            found["h"].append(saved.h[last, d * o.output_size : (d + 1) * o.output_size])
            if own.c is not None:
                found["c"].append(own.c[last])
        return found

    def backward(self, dy, saved, grads, need_dx=True):
        """As every layer's; what was saved is used up."""
        run, layers = saved
        while layers:
            one = layers.pop()
            dy = self._layer_back(one, np.ascontiguousarray(dy), grads, run, need_dx or bool(layers))
            if one.dropped is not None:
                dy *= one.dropped
        return dy if need_dx else None

    def _layer_back(self, saved: Saved, dy: np.ndarray, grads, run: Run, need_dx: bool) -> np.ndarray | None:
        o, p, B, P, H = self.options, self.parameters(), run.packing.B, self.options.output_size, self.options.hidden_size
        dh0, das = np.zeros((B, dy.shape[1]), self.dtype), []
        da_rows = (np.empty_like(dy) if saved.keep_dh else dy) if self.kind == "rnn" else None
        for d, own in enumerate(saved.directions):
            part, s = slice(d * P, (d + 1) * P), own.suffix
            d_peepholes = np.zeros((3, H), self.dtype) if o.peepholes else None
            da = own.gates if da_rows is None else da_rows[:, part]
            self._run(True, saved, d, run, dh=dy[:, part], dh0=dh0[:, part], dc=np.zeros((B, H), self.dtype) if own.c is not None else None,
                      da=da if own.gates is None else None, d_peepholes=d_peepholes)
            grads[f"weight_ih_{s}"] += da.T @ saved.x
            self._hidden_back(grads, da, saved.h[:, part], own)
            if o.proj_size:
                grads[f"weight_hr_{s}"] += dy[:, part].T @ own.extra
            for k, gate in enumerate(PEEPHOLES if o.peepholes else ()):
                grads[f"weight_p{gate}_{s}"] += d_peepholes[k]
            das.append((da, p[f"weight_ih_{s}"]))
            own.c = own.extra = None
        saved.dh = dy if saved.keep_dh else None
        if not need_dx:
            return None
        shape, saved.x, saved.h = saved.x.shape, None, None  # their memory can go before dx takes as much
        dx = np.empty(shape, self.dtype)
        for d, (da, w) in enumerate(das):
            for rows in blocks(len(dx)):
                if d:
                    dx[rows] += da[rows] @ w
                else:
                    np.matmul(da[rows], w, out=dx[rows])
        return dx

    def _hidden_back(self, grads, da: np.ndarray, h: np.ndarray, own: Direction) -> None:
        """Of the recurrent matrix and the biases. A GRU's candidate has an operand, or a gradient, of its own."""
        o, H, s = self.options, self.options.hidden_size, own.suffix
        w = grads[f"weight_hh_{s}"]
        for rows in blocks(len(da)):
            before = h[rows if isinstance(own.previous, slice) else own.previous[rows]]
            if self.kind != "gru":
                w += da[rows].T @ before
                continue
            d_n, operand = (own.extra[rows], before) if o.reset_after else (da[rows, 2 * H :], own.extra[rows])
            w[: 2 * H] += da[rows, : 2 * H].T @ before
            w[2 * H :] += d_n.T @ operand
        if o.bias:
            db = da.sum(0)
            grads[f"bias_ih_{s}"] += db
            if self.kind == "gru" and o.reset_after:
                db[2 * H :] = own.extra.sum(0)
            grads[f"bias_hh_{s}"] += db


def blocks(n: int) -> Iterator[slice]:
    """Rows a piece at a time, so that what is gathered or added takes little memory; a product of so many runs as fast as a whole one."""
    return (slice(at, min(at + ROWS, n)) for at in range(0, n, ROWS))


class RNN(Recurrent):
    """Elman's network as torch.nn.RNN: h' = tanh(W x + R h + b), or relu."""

    def __init__(self, input_size, hidden_size, num_layers=1, bidirectional=False, *, nonlinearity="tanh", bias=True, dropout=0.0, reverse=False, seed=None,
                 dtype="float32"):
        if nonlinearity not in ("tanh", "relu"):
            raise UnsupportedModelError(f"rnn: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(StackOptions("rnn", input_size, hidden_size, num_layers, bias, bidirectional=bidirectional, reverse=reverse), relu=nonlinearity == "relu",
                         dropout=dropout, seed=seed, dtype=dtype)


class LSTM(Recurrent):
    """Long short-term memory as torch.nn.LSTM, with a projection, peepholes (Gers et al. 2000) and a coupled gate (f = 1 - i; Greff et al. 2017) on request."""

    def __init__(self, input_size, hidden_size, num_layers=1, bidirectional=False, *, bias=True, proj_size=0, peepholes=False, input_forget=False, dropout=0.0,
                 reverse=False, seed=None, dtype="float32"):
        super().__init__(StackOptions("lstm", input_size, hidden_size, num_layers, bias, bidirectional=bidirectional, proj_size=proj_size, peepholes=peepholes,
                                      input_forget=input_forget, reverse=reverse), dropout=dropout, seed=seed, dtype=dtype)


class GRU(Recurrent):
    """Gated recurrent unit. reset_after: as torch.nn.GRU, n = tanh(W x + r (R h + b)); else Cho et al. 2014, n = tanh(W x + R (r h) + b)."""

    def __init__(self, input_size, hidden_size, num_layers=1, bidirectional=False, *, bias=True, reset_after=True, dropout=0.0, reverse=False, seed=None,
                 dtype="float32"):
        super().__init__(StackOptions("gru", input_size, hidden_size, num_layers, bias, bidirectional=bidirectional, reset_after=reset_after, reverse=reverse),
                         dropout=dropout, seed=seed, dtype=dtype)
