"""Any cell that learns: its gradients follow from its instructions (cells/adjoint.py), which a compiled loop goes through step by step.

Saved for backward: pre-activations, whose place their gradients take, the states, and the operand of a second phase or what goes into a projection. What the cell makes
of them is computed once more on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastrnn.cells import Cell, find_cell
from fastrnn.errors import UnsupportedModelError
from fastrnn.model.stack import StackOptions
from fastrnn.training.base import Run
from fastrnn.training.cellcode import cell_code
from fastrnn.training.native import loops
from fastrnn.training.products import add_outer, project
from fastrnn.training.stacks import Direction, RecurrentLayer, Saved, blocks

if TYPE_CHECKING:
    from fastrnn.typing import DTypeLike, Seed


Index = slice | np.ndarray


@dataclass(frozen=True)
class Part:
    """Gates that see the same: the columns of gates where they lie, and the rows of a stacked matrix that make them, in that order."""

    span: Index
    rows: Index


@dataclass(frozen=True)
class Layout:
    """Where parameters go among the gates (N, G H) of a cell. biases: by side, "ih" and "hh", the column of each of a bias's entries."""

    x: Part
    first: Part
    second: Part
    biases: dict[str, Index]

    @classmethod
    def of(cls, cell: Cell, columns: tuple[str, ...], H: int) -> Layout:
        def places(names: Sequence[str], among: tuple[str, ...]) -> np.ndarray:
            return np.concatenate([among.index(name) * H + np.arange(H) for name in names]) if names else np.arange(0)

        def part(gates: tuple[str, ...], stacked: tuple[str, ...]) -> Part:
            names = [name for name in columns if name in gates]
            return Part(as_slice(places(names, columns)), as_slice(places(names, stacked)))

        return cls(
            part(cell.x_gates, cell.x_gates),
            part(cell.first_gates, cell.h_gates),
            part(cell.second_gates, cell.h_gates),
            {side: as_slice(places(names, columns)) for side, names in (("ih", cell.biased("x")), ("hh", cell.biased("h"))) if names},
        )


def as_slice(places: np.ndarray) -> Index:
    """Places that follow one another as a slice, which copies nothing; others as they are."""
    start = int(places[0]) if len(places) else 0
    return slice(start, start + len(places)) if np.array_equal(places, start + np.arange(len(places))) else places


class Recurrent(RecurrentLayer):
    """Layers of a cell of one's own (fastrnn.cell) that learn; torch's options as LSTM has them, and the names and shapes of fr.Recurrent's parameters.

    cell: a Cell, or the name of a registered one; what it computes now is what the layer computes. A cell's scalars are the last features of a row, in declared
    order: rows (N, input_size + scalars), and their gradients go on to what made them. proj_size: for cells that do not read h unit for unit.
    """

    def __init__(
        self,
        cell: Cell | str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        *,
        bias: bool = True,
        proj_size: int = 0,
        dropout: float = 0.0,
        reverse: bool = False,
        seed: Seed | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        found = cell if isinstance(cell, Cell) else find_cell(cell) if isinstance(cell, str) else None
        if found is None or not found.custom:
            raise UnsupportedModelError(f"Recurrent: a cell made with @fastrnn.cell, or its name, is expected, got {cell!r}")
        super().__init__(
            StackOptions(
                "recurrent", input_size, hidden_size, num_layers, bias, bidirectional=bidirectional, proj_size=proj_size, reverse=reverse, cell=found
            ),
            dropout=dropout,
            seed=seed,
            dtype=dtype,
        )
        self.code = cell_code(found, self.dtype)
        self.layout = Layout.of(found, self.code.columns, hidden_size)

    def astype(self, dtype: DTypeLike) -> Self:
        other = super().astype(dtype)
        other.code = cell_code(self.cell, other.dtype)
        return other

    @property
    def cell(self) -> Cell:
        """What the layers are made of."""
        assert self.options.cell is not None, "given when it was made"
        return self.options.cell

    def _vectors(self, suffix: str) -> np.ndarray:
        """The cell's parameters (K, H)."""
        return np.array([self._parameters[f"weight_{name}_{suffix}"] for name in self.options.vectors], self.dtype).reshape(
            -1, self.options.hidden_size
        )

    def _matrix(self, side: str, suffix: str, part: Part) -> np.ndarray:
        """The rows of weight_ih or weight_hh that make the columns of a part."""
        whole = self._parameters.get(f"weight_{side}_{suffix}")
        return np.empty((0, self.options.output_size), self.dtype) if whole is None else whole[part.rows]

    def _bias(self, suffix: str) -> np.ndarray:
        """What every row of the gates starts from."""
        total = np.zeros(len(self.cell.gates) * self.options.hidden_size, self.dtype)
        for side, columns in self.layout.biases.items():
            if (bias := self._parameters.get(f"bias_{side}_{suffix}")) is not None:
                total[columns] += bias
        return total

    def _layer(self, layer: int, saved: Saved, run: Run, states: dict[str, np.ndarray]) -> None:
        o, cell, B, N = self.options, self.cell, run.packing.B, len(saved.x)
        P, H, over_x = o.output_size, o.hidden_size, self.layout.x
        for d, suffix in enumerate(o.suffixes(layer)):
            reverse, k = bool(d) or o.reverse, layer * o.directions + d
            saved.h[:B, d * P : (d + 1) * P] = states[o.states[0]][k]
            gates, bias = np.empty((N, len(cell.gates) * H), self.dtype), self._bias(suffix)
            for others in (slice(over_x.span.start), slice(over_x.span.stop, None)):
                gates[:, others] = bias[others]
            if cell.x_gates:
                project(saved.x, self._matrix("ih", suffix, over_x), bias[over_x.span], gates[:, over_x.span])
            c = np.empty((len(o.states) - 1, B + N, H), self.dtype)
            for j, name in enumerate(o.states[1:]):
                c[j, :B] = states[name][k]
            extra = np.empty((N, H), self.dtype) if cell.operand or o.proj_size else None
            saved.directions.append(Direction(suffix, run.packing.way(reverse).pieces, run.packing.way(reverse).previous, gates, c, extra))
            self._run(False, saved, d, run)

    def _run(self, back: bool, saved: Saved, d: int, run: Run, **gradients: Any) -> None:
        """One direction's time loop."""
        cell, code, own, P = self.cell, self.code, saved.directions[d], self.options.output_size
        first, second, H = self.layout.first, self.layout.second, self.options.hidden_size
        loops().run_cell(
            back,
            own.pieces,
            run.packing.B,
            code.pointwise_back if back else code.pointwise,
            code.operand_back if back else code.operand,
            own.gates,
            saved.h[:, d * P : (d + 1) * P],
            self._vectors(own.suffix),
            first.span.start // H,
            self._matrix("hh", own.suffix, first),
            second.span.start // H,
            self._matrix("hh", own.suffix, second),
            self._parameters.get(f"weight_hr_{own.suffix}"),
            own.c,
            own.extra,
            saved.x if cell.uses_input else None,
            saved.beside,
            **gradients,
        )

    def backward(self, dy: np.ndarray, saved: Any, grads: dict[str, np.ndarray], need_dx: bool = True) -> np.ndarray | None:
        """As every layer's; what was saved is used up."""
        beside = saved[1][0].beside
        if beside is None:
            return super().backward(dy, saved, grads, need_dx)
        d_beside = np.zeros(beside.shape, self.dtype)
        for one in saved[1]:
            one.d_beside = d_beside
        dx = super().backward(dy, saved, grads, need_dx)
        return np.concatenate([dx, d_beside], 1) if need_dx else None

    def _layer_back(self, saved: Saved, dy: np.ndarray, grads: dict[str, np.ndarray], run: Run, need_dx: bool) -> np.ndarray | None:
        o, cell, B, P, H = self.options, self.cell, run.packing.B, self.options.output_size, self.options.hidden_size
        dh0, das = np.zeros((B, dy.shape[1]), self.dtype), []
        passed = np.zeros(saved.x.shape, self.dtype) if cell.uses_input else None  # what of x goes past the matrices
        for d, own in enumerate(saved.directions):
            part = slice(d * P, (d + 1) * P)
            d_vectors = np.zeros((len(o.vectors), H), self.dtype)
            self._run(
                True,
                saved,
                d,
                run,
                dh=dy[:, part],
                dh0=dh0[:, part],
                dc=np.zeros((len(o.states) - 1, B, H), self.dtype),
                dx=passed,
                ds=saved.d_beside,
                d_parameters=d_vectors,
            )
            for name, gradient in zip(o.vectors, d_vectors):
                grads[f"weight_{name}_{own.suffix}"] += gradient
            if o.proj_size:
                grads[f"weight_hr_{own.suffix}"] += dy[:, part].T @ own.extra
            self._matrices_back(grads, saved, own, saved.h[:, part])
            das.append((own.gates[:, self.layout.x.span], self._matrix("ih", own.suffix, self.layout.x) if cell.x_gates else None))
            own.c = own.extra = None
        saved.dh = dy if saved.keep_dh else None
        if not need_dx:
            return None
        if not cell.x_gates:
            return np.zeros(saved.x.shape, self.dtype) if passed is None else passed
        dx = self._dx(saved, das)
        return dx if passed is None else np.add(dx, passed, out=dx)

    def _matrices_back(self, grads: dict[str, np.ndarray], saved: Saved, own: Direction, h: np.ndarray) -> None:
        """Of weight_ih, weight_hh and the biases of a direction, from the gradients of its pre-activations."""
        layout, suffix, previous = self.layout, own.suffix, own.previous
        for side, part, operand in (("ih", layout.x, saved.x), ("hh", layout.first, h), ("hh", layout.second, own.extra)):
            if part.span.start == part.span.stop:
                continue
            total, da = np.zeros((part.span.stop - part.span.start, operand.shape[1]), self.dtype), own.gates[:, part.span]
            if operand is not h:
                add_outer(da, operand, total)
            elif isinstance(previous, slice):
                add_outer(da, h[previous], total)
            else:
                for rows in blocks(len(da)):
                    add_outer(da[rows], h[previous[rows]], total)
            grads[f"weight_{side}_{suffix}"][part.rows] += total
        if self.options.bias and layout.biases:
            db = np.ones(len(own.gates), self.dtype) @ own.gates  # a third of the time of sum(0)
            for side, columns in layout.biases.items():
                grads[f"bias_{side}_{suffix}"] += db[columns]
