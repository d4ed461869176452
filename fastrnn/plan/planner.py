"""The Plan: kernels chosen and weights packed once, programs built from it for the shapes in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels import isa
from fastrnn.kernels.contract import Kernel
from fastrnn.kernels.reference.ops import UNARY_KINDS
from fastrnn.model import Model, Node
from fastrnn.model.recurrent import RecurrentNode
from fastrnn.plan import policy
from fastrnn.plan.memory import View, c_strides
from fastrnn.plan.packing import pack_dense, pack_recurrent

RECURRENT = ("RNN", "GRU", "LSTM")
ALIASES = ("Identity", "Slice", "Squeeze", "Unsqueeze")  # name part of their input's memory
VIEWS = (*ALIASES, "Concat")  # and what its inputs may be written into directly


def weight_view(array: np.ndarray) -> View:
    """A view of an array that the plan owns."""
    array = np.require(array, requirements="C")
    return View("weight", array.shape, c_strides(array.shape), array.dtype, array=array)


@dataclass(frozen=True)
class Packed:
    """A node's (or one direction's) kernel, its weights in that kernel's layout, and why it was chosen."""

    kernel: Kernel | None
    why: str
    arrays: Mapping[str, np.ndarray]
    units: int = 0

    @property
    def views(self) -> dict[str, View]:
        """The contract's weight fields."""
        return {name: weight_view(a) for name, a in self.arrays.items()}

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights that a call reads."""
        return sum(a.nbytes for a in self.arrays.values())


@dataclass(frozen=True)
class Plan:
    """A model with its kernels chosen and weights packed. Immutable; shared between threads."""

    model: Model
    backend: str
    isa: str
    precision: str
    threads: int
    packed: Mapping[tuple[str, int], Packed]

    def explain(self) -> str:
        """A line for each op: kernel, backend, ISA, packed bytes and why. Ops left to NumPy are marked."""
        rows = [("op", "node", "kernel", "backend", "isa", "packed", "why")]
        for node in self.model.nodes:
            if node.op in VIEWS:
                rows.append((node.op, node.name, "-", "-", "-", "-", "a view: nothing to compute"))
                continue
            layer = RecurrentNode(node, self.model.weights.get) if node.op in RECURRENT else None
            for d in range(layer.directions if layer else 1):
                packed, label = self.packed[node.name, d], node.name + (("", " (reverse)")[layer.reverse(d)] if layer else "")
                if packed.kernel is None:
                    rows.append((node.op, label, "NumPy", "reference", "-", "-", f"{packed.why}; outside the promise of equal bits"))
                else:
                    kernel = packed.kernel
                    rows.append((node.op, label, kernel.name, kernel.backend, kernel.isa, f"{packed.weight_bytes:,} B", packed.why))
        widths = [max(len(row[k]) for row in rows) for k in range(7)]
        head = f"{self.model.name}: backend {self.backend}, ISA {self.isa}, {self.precision}, {self.threads} thread"
        return "\n".join([head, *("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)])


def _pack(model: Model, node: Node, backend: str) -> dict[tuple[str, int], Packed]:
    def weight(position: int) -> np.ndarray:
        name = node.inputs[position]
        if name not in model.weights:
            raise UnsupportedModelError(f"node {node.name!r} ({node.op}): {name!r} must be a constant weight")
        return model.weights[name]

    if node.op in RECURRENT:
        for position in (1, 2, 3, 7, 8):
            if node.input(position):
                weight(position)
        layer, result = RecurrentNode(node, lambda name: model.weights.get(name)), {}
        for d, cell in enumerate(layer.cells):
            choice, weights = policy.pick_cell(cell, backend), layer.weights(d)
            arrays = pack_recurrent(cell, weights, choice.kernel.lanes) if choice.kernel else {}
            result[node.name, d] = Packed(choice.kernel, choice.why, arrays, weights.hidden_size)
        return result
    kernel_name = {"Gemm": "dense", "Gather": "gather"}.get(node.op, "activate" if node.op in UNARY_KINDS else node.op.lower())
    choice, arrays = policy.pick(kernel_name, backend), {}
    if choice.kernel and node.op == "Gemm":
        arrays = pack_dense(weight(1), weight(2) if node.input(2) else None, choice.kernel.lanes)
    elif choice.kernel and node.op == "Gather":
        arrays = {"w_x": np.array(weight(0), order="C")}
    return {(node.name, 0): Packed(choice.kernel, choice.why, arrays)}


def compile_plan(model: Model, backend: str = "auto", precision: str = "float32", threads: int = 1) -> Plan:
    """Chooses kernels and packs weights. Raises UnsupportedModelError for what cannot be honoured, by name."""
    if precision not in ("float32", "bfloat16", "int8"):
        raise UnsupportedModelError(f"precision {precision!r} is unknown")
    if precision != "float32":
        raise UnsupportedModelError(f"precision {precision!r} is not supported yet; use 'float32'")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UnsupportedModelError(f"threads must be a positive integer, got {threads!r}")
    if threads != 1:
        raise UnsupportedModelError(f"threads={threads} is not supported yet; use threads=1")
    backend = policy.resolve_backend(backend)
    for node in model.nodes:
        index = node.input(4) if node.op in RECURRENT else node.input(1) if node.op == "Gather" else ""
        if index in model.weights:
            raise UnsupportedModelError(f"node {node.name!r} ({node.op}): {index!r} must be an input of the model, not a constant")
    packed = {}
    for node in model.nodes:
        if node.op not in VIEWS:
            packed |= _pack(model, node, backend)
    return Plan(model, backend, isa.chosen() if backend != "reference" else "-", precision, threads, packed)
