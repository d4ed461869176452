"""Any cell that learns: its gradients follow from its instructions (cells/adjoint.py), which a compiled loop goes through step by step.

Saved for backward: pre-activations, whose place their gradients take, the states, and the operand of a second phase or what goes into a projection. What the cell makes
of them is computed once more on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrnn.cells import Cell, find_cell
from fastrnn.errors import UnsupportedModelError
from fastrnn.model.stack import StackOptions
from fastrnn.training.base import Run
from fastrnn.training.cellcode import cell_code
from fastrnn.training.native import loops
from fastrnn.training.stacks import Direction, RecurrentLayer, Saved, blocks


class Recurrent(RecurrentLayer):
    """Layers of a cell of one's own (fastrnn.cell) that learn; torch's options as LSTM has them, and the names and shapes of fr.Recurrent's parameters.

    cell: a Cell, or the name of a registered one; what it computes now is what the layer computes. A cell's scalars are the last features of a row, in declared
    order: rows (N, input_size + scalars), and their gradients go on to what made them. proj_size: for cells that do not read h unit for unit.
    """

    def __init__(self, cell, input_size, hidden_size, num_layers=1, bidirectional=False, *, bias=True, proj_size=0, dropout=0.0, reverse=False, seed=None,
                 dtype="float32"):
        found = cell if isinstance(cell, Cell) else find_cell(cell) if isinstance(cell, str) else None
        if found is None or not found.custom:
            raise UnsupportedModelError(f"Recurrent: a cell made with @fastrnn.cell, or its name, is expected, got {cell!r}")
        super().__init__(StackOptions("recurrent", input_size, hidden_size, num_layers, bias, bidirectional=bidirectional, proj_size=proj_size, reverse=reverse, cell=found),
                         dropout=dropout, seed=seed, dtype=dtype)
        self.code = cell_code(found, self.dtype)

    def astype(self, dtype) -> Recurrent:
        other = super().astype(dtype)
        other.code = cell_code(self.cell, other.dtype)
        return other

    @property
    def cell(self) -> Cell:
        """What the layers are made of."""
        return self.options.cell

    def _span(self, gates: Sequence[str]) -> slice:
        """The columns of gates that lie side by side."""
        at, H = [self.code.columns.index(gate) for gate in gates], self.options.hidden_size
        return slice(min(at) * H, (max(at) + 1) * H) if at else slice(0, 0)

    def _gates(self, stacked: np.ndarray | None, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The parts of a matrix or bias (G H, ...), or of its gradient, by gate; views."""
        H = self.options.hidden_size
        return {} if stacked is None else {name: stacked[k * H:(k + 1) * H] for k, name in enumerate(names)}

    def _matrix(self, suffix: str, side: str, gates: Sequence[str]) -> np.ndarray:
        """The rows of weight_ih or weight_hh that belong to some of the gates, in the order of columns."""
        stacked = self._parameters.get(f"weight_{side}_{suffix}")
        own = self._gates(stacked, self.cell.x_gates if side == "ih" else self.cell.h_gates)
        parts = [own[name] for name in self.code.columns if name in gates]
        return np.concatenate(parts) if parts else np.empty((0, self.options.output_size), self.dtype)

    def _bias(self, suffix: str) -> np.ndarray:
        """What every row of the gates starts from."""
        total = dict.fromkeys(self.code.columns, np.zeros(self.options.hidden_size, self.dtype))
        for side, name in (("x", "ih"), ("h", "hh")):
            for gate, part in self._gates(self._parameters.get(f"bias_{name}_{suffix}"), self.cell.biased(side)).items():
                total[gate] = total[gate] + part
        return np.concatenate(list(total.values()))

    def _vectors(self, suffix: str) -> np.ndarray:
        """The cell's parameters (K, H)."""
        return np.array([self._parameters[f"weight_{name}_{suffix}"] for name in self.options.vectors], self.dtype).reshape(-1, self.options.hidden_size)

    def _layer(self, layer: int, saved: Saved, run: Run, states: dict[str, np.ndarray]) -> None:
        o, cell, B, N = self.options, self.cell, run.packing.B, len(saved.x)
        P, H, x_gates = o.output_size, o.hidden_size, self._span(cell.x_gates)
        for d, suffix in enumerate(o.suffixes(layer)):
            reverse, k = bool(d) or o.reverse, layer * o.directions + d
            saved.h[:B, d * P:(d + 1) * P] = states[o.states[0]][k]
            gates = np.empty((N, len(cell.gates) * H), self.dtype)
            gates[:, : x_gates.start], gates[:, x_gates.stop :] = 0, 0
            if cell.x_gates:
                np.matmul(saved.x, self._matrix(suffix, "ih", cell.x_gates).T, out=gates[:, x_gates])
            gates += self._bias(suffix)
            c = np.empty((len(o.states) - 1, B + N, H), self.dtype)
            for j, name in enumerate(o.states[1:]):
                c[j, :B] = states[name][k]
            extra = np.empty((N, H), self.dtype) if cell.operand or o.proj_size else None
            saved.directions.append(Direction(suffix, run.packing.pieces(reverse), run.packing.previous(reverse), gates, c, extra))
            self._run(False, saved, d, run)

    def _run(self, back: bool, saved: Saved, d: int, run: Run, **gradients) -> None:
        """One direction's time loop."""
        cell, code, own, P = self.cell, self.code, saved.directions[d], self.options.output_size
        loops().run_cell(back, own.pieces, run.packing.B, code.pointwise_back if back else code.pointwise, code.operand_back if back else code.operand, own.gates,
                         saved.h[:, d * P:(d + 1) * P], self._vectors(own.suffix), self._span(cell.first_gates).start // self.options.hidden_size,
                         self._matrix(own.suffix, "hh", cell.first_gates), self._span(cell.second_gates).start // self.options.hidden_size,
                         self._matrix(own.suffix, "hh", cell.second_gates), self._parameters.get(f"weight_hr_{own.suffix}"), own.c, own.extra,
                         saved.x if cell.uses_input else None, saved.beside, **gradients)

    def backward(self, dy, saved, grads, need_dx=True):
        """As every layer's; what was saved is used up."""
        beside = saved[1][0].beside
        if beside is None:
            return super().backward(dy, saved, grads, need_dx)
        d_beside = np.zeros(beside.shape, self.dtype)
        for one in saved[1]:
            one.d_beside = d_beside
        dx = super().backward(dy, saved, grads, need_dx)
        return np.concatenate([dx, d_beside], 1) if need_dx else None

    def _layer_back(self, saved: Saved, dy: np.ndarray, grads, run: Run, need_dx: bool) -> np.ndarray | None:
        o, cell, B, P, H = self.options, self.cell, run.packing.B, self.options.output_size, self.options.hidden_size
        dh0, das = np.zeros((B, dy.shape[1]), self.dtype), []
        passed = np.zeros(saved.x.shape, self.dtype) if cell.uses_input else None  # what of x goes past the matrices
        for d, own in enumerate(saved.directions):
            part = slice(d * P, (d + 1) * P)
            d_vectors = np.zeros((len(o.vectors), H), self.dtype)
            self._run(True, saved, d, run, dh=dy[:, part], dh0=dh0[:, part], dc=np.zeros((len(o.states) - 1, B, H), self.dtype), dx=passed, ds=saved.d_beside,
                      d_parameters=d_vectors)
            for name, gradient in zip(o.vectors, d_vectors):
                grads[f"weight_{name}_{own.suffix}"] += gradient
            if o.proj_size:
                grads[f"weight_hr_{own.suffix}"] += dy[:, part].T @ own.extra
            self._matrices_back(grads, saved, own, saved.h[:, part])
            das.append((own.gates[:, self._span(cell.x_gates)], self._matrix(own.suffix, "ih", cell.x_gates) if cell.x_gates else None))
            own.c = own.extra = None
        saved.dh = dy if saved.keep_dh else None
        if not need_dx:
            return None
        if not cell.x_gates:
            return np.zeros(saved.x.shape, self.dtype) if passed is None else passed
        dx = self._dx(saved, das)
        return dx if passed is None else np.add(dx, passed, out=dx)

    def _matrices_back(self, grads, saved: Saved, own: Direction, h: np.ndarray) -> None:
        """Of weight_ih, weight_hh and the biases of a direction, from the gradients of its pre-activations."""
        cell, H, suffix = self.cell, self.options.hidden_size, own.suffix

        def add(side: str, names: Sequence[str], gates: Sequence[str], total: np.ndarray) -> None:
            to = self._gates(grads.get(f"{side}_{suffix}"), names)
            for name, part in self._gates(total, [c for c in self.code.columns if c in gates]).items():
                if name in to:
                    to[name] += part

        if cell.x_gates:
            add("weight_ih", cell.x_gates, cell.x_gates, own.gates[:, self._span(cell.x_gates)].T @ saved.x)
        for gates, operand in ((cell.first_gates, h), (cell.second_gates, own.extra)):
            if not gates:
                continue
            span, total = self._span(gates), np.zeros((len(gates) * H, operand.shape[1]), self.dtype)
            for rows in blocks(len(own.gates)):
                before = operand[rows] if operand is own.extra else operand[rows if isinstance(own.previous, slice) else own.previous[rows]]
                total += own.gates[rows, span].T @ before
            add("weight_hh", cell.h_gates, gates, total)
        if self.options.bias:
            total = own.gates.sum(0)
            for side, name in (("x", "bias_ih"), ("h", "bias_hh")):
                add(name, cell.biased(side), self.code.columns, total)
