"""RNN, LSTM and GRU that learn: torch's parameters, and a compiled time loop for each.

Saved for backward: activated gates, h, and c or what the reset gate meets; the gradients of pre-activations take the gates' place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.model.stack import PEEPHOLES, StackOptions
from fastrnn.training.base import Run
from fastrnn.training.native import GATES, loops
from fastrnn.training.stacks import Direction, RecurrentLayer, Saved, blocks

if TYPE_CHECKING:
    from fastrnn.typing import DTypeLike, Seed

KINDS = ("rnn", "lstm", "gru", "gru_before")  # as native/instance.h numbers them


class BuiltIn(RecurrentLayer):
    """What RNN, LSTM and GRU share."""

    relu = False

    @property
    def _loop(self) -> int:
        """Which of the native loops."""
        return KINDS.index("gru_before" if self.kind == "gru" and not self.options.reset_after else self.kind)

    def _layer(self, layer: int, saved: Saved, run: Run, states: dict[str, np.ndarray]) -> None:
        o, p, B = self.options, self.parameters(), run.packing.B
        D, P, H, x, h = o.directions, o.output_size, o.hidden_size, saved.x, saved.h
        N = len(x)
        for d, suffix in enumerate(o.suffixes(layer)):
            reverse, k = bool(d) or o.reverse, layer * D + d
            own, pieces = h[:, d * P : (d + 1) * P], run.packing.way(reverse).pieces
            own[:B] = states["h"][k]
            gates = None if self.kind == "rnn" else np.empty((N, GATES[self._loop] * H), self.dtype)
            pre = own[B:] if gates is None else gates
            np.matmul(x, p[f"weight_ih_{suffix}"].T, out=pre)
            c = extra = None
            if self.kind == "lstm":
                c = np.empty((1, B + N, H), self.dtype)
                c[0, :B] = states["c"][k]
            if self.kind == "gru" or o.proj_size:
                extra = np.empty((N, H), self.dtype)
            if o.bias:
                bias = p[f"bias_ih_{suffix}"] + p[f"bias_hh_{suffix}"]
                if o.kind == "gru" and o.reset_after:
                    bias[2 * H :] = p[f"bias_ih_{suffix}"][2 * H :]  # R_n h has its bias to itself
                pre += bias
            saved.directions.append(Direction(suffix, pieces, run.packing.way(reverse).previous, gates, c, extra))
            self._run(False, saved, d, run)

    def _run(self, back: bool, saved: Saved, d: int, run: Run, **gradients: Any) -> None:
        """One direction's time loop."""
        o, p, own = self.options, self.parameters(), saved.directions[d]
        P, H, suffix = o.output_size, o.hidden_size, own.suffix
        peepholes = np.stack([p[f"weight_p{gate}_{suffix}"] for gate in PEEPHOLES]) if o.peepholes else None
        loops().run(
            self._loop,
            back,
            own.pieces,
            run.packing.B,
            saved.h[:, d * P : (d + 1) * P],
            p[f"weight_hh_{suffix}"],
            gates=own.gates,
            c=own.c,
            extra=own.extra,
            w_p=p.get(f"weight_hr_{suffix}"),
            peepholes=peepholes,
            relu=self.relu,
            coupled=o.input_forget,
            b_n=p[f"bias_hh_{suffix}"][2 * H :] if o.bias and self.kind == "gru" and o.reset_after else None,
            **gradients,
        )

    def _layer_back(self, saved: Saved, dy: np.ndarray, grads: dict[str, np.ndarray], run: Run, need_dx: bool) -> np.ndarray | None:
        o, p, B, P, H = self.options, self.parameters(), run.packing.B, self.options.output_size, self.options.hidden_size
        dh0, das = np.zeros((B, dy.shape[1]), self.dtype), []
        da_rows = (np.empty_like(dy) if saved.keep_dh else dy) if self.kind == "rnn" else None
        for d, own in enumerate(saved.directions):
            part, s = slice(d * P, (d + 1) * P), own.suffix
            d_peepholes = np.zeros((3, H), self.dtype) if o.peepholes else None
            da = own.gates if da_rows is None else da_rows[:, part]
            self._run(
                True,
                saved,
                d,
                run,
                dh=dy[:, part],
                dh0=dh0[:, part],
                dc=np.zeros((B, H), self.dtype) if own.c is not None else None,
                da=da if own.gates is None else None,
                d_peepholes=d_peepholes,
            )
            grads[f"weight_ih_{s}"] += da.T @ saved.x
            self._hidden_back(grads, da, saved.h[:, part], own)
            if o.proj_size:
                grads[f"weight_hr_{s}"] += dy[:, part].T @ own.extra
            for k, gate in enumerate(PEEPHOLES if o.peepholes else ()):
                grads[f"weight_p{gate}_{s}"] += d_peepholes[k]
            das.append((da, p[f"weight_ih_{s}"]))
            own.c = own.extra = None
        saved.dh = dy if saved.keep_dh else None
        return self._dx(saved, das) if need_dx else None

    def _hidden_back(self, grads: dict[str, np.ndarray], da: np.ndarray, h: np.ndarray, own: Direction) -> None:
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


class RNN(BuiltIn):
    """Elman's network as torch.nn.RNN: h' = tanh(W x + R h + b), or relu."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        reverse: bool = False,
        seed: Seed | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise UnsupportedModelError(f"rnn: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        self.relu = nonlinearity == "relu"
        super().__init__(
            StackOptions("rnn", input_size, hidden_size, num_layers, bias, bidirectional=bidirectional, reverse=reverse),
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )


class LSTM(BuiltIn):
    """Long short-term memory as torch.nn.LSTM, with a projection, peepholes (Gers et al. 2000) and a coupled gate (f = 1 - i; Greff et al. 2017) on request."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        *,
        bias: bool = True,
        proj_size: int = 0,
        peepholes: bool = False,
        input_forget: bool = False,
        dropout: float = 0.0,
        reverse: bool = False,
        seed: Seed | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        super().__init__(
            StackOptions(
                "lstm",
                input_size,
                hidden_size,
                num_layers,
                bias,
                bidirectional=bidirectional,
                proj_size=proj_size,
                peepholes=peepholes,
                input_forget=input_forget,
                reverse=reverse,
            ),
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )


class GRU(BuiltIn):
    """Gated recurrent unit. reset_after: as torch.nn.GRU, n = tanh(W x + r (R h + b)); else Cho et al. 2014, n = tanh(W x + R (r h) + b)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        *,
        bias: bool = True,
        reset_after: bool = True,
        dropout: float = 0.0,
        reverse: bool = False,
        seed: Seed | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        super().__init__(
            StackOptions("gru", input_size, hidden_size, num_layers, bias, bidirectional=bidirectional, reset_after=reset_after, reverse=reverse),
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )
