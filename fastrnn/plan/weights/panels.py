"""Weights to panels ``[unit block][k][gate][lane]``, the layout that native/products/affine.h streams front to back; with its last of four gates apart, where it says so."""

from __future__ import annotations

import numpy as np

from fastrnn.cells import Cell
from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels import isa, registry
from fastrnn.kernels.contract import ARGS, Kernel
from fastrnn.kernels.native import _invoke
from fastrnn.model.recurrent import DirectionWeights
from fastrnn.model.small import K_BLOCK

ALIGNMENT = 64


def aligned_zeros(shape, dtype=np.float32) -> np.ndarray:
    """Zeros on a cache-line boundary, so that a vector load never crosses two lines.

    From 4 MiB on NumPy asks the system for huge pages (LSTM H = 1024, a step: 0.7 of the time); smaller panels gain nothing by them.
    """
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.zeros(count * np.dtype(dtype).itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def panel(
    gates: list[np.ndarray], lanes: int, scales: list[np.ndarray] | None = None, zeros: list[np.ndarray] | None = None, together: int = 0
) -> np.ndarray:
    """A panel of G matrices (H, K) of any precision (model/small.py), flat. float32: [block][k][gate][lane], and of a narrow last block [k][pair of gates][lane];
    units past H are zero. together: gates that lie so, if not all: each of the others is [k][lane] behind them in its block. scales: of int8, of each gate's rows; zeros: their zero
    points, for rows of bytes that have them too."""
    if gates[0].dtype != np.float32 and gates[0].dtype.kind in "iu":
        return _small_panel(gates, lanes, scales, zeros)
    (H, K), G = gates[0].shape, len(gates)
    packed = aligned_zeros((H // lanes * K * G * lanes + (H % lanes > 0) * K * (-(-G // 2) if is_narrow(H, lanes) else G) * lanes,))
    kernel, args = _packer(lanes), np.zeros(1, ARGS)
    for g, gate in enumerate(gates):
        rows = gate if gate.dtype == np.float32 and gate.strides[1] == 4 and gate.strides[0] % 4 == 0 else np.ascontiguousarray(gate, np.float32)
        for name, value in (
            ("T", together or G),
            ("I", K),
            ("H", H),
            ("P", G),
            ("x", rows.ctypes.data),
            ("x_b", rows.strides[0] // 4),
            ("y", packed.ctypes.data),
            ("y_t", g),
        ):
            args[name] = value
        _invoke.run(kernel.run, args)
    return packed


def _small_panel(gates: list[np.ndarray], lanes: int, scales: list[np.ndarray] | None, zeros: list[np.ndarray] | None) -> np.ndarray:
    """As native/products/product_bfloat16.h and product_int8.h have it: [block][k / 2][gate][lane][2] or, behind scales, sums and zero points, [block][k / 4][gate][lane][4]."""
    (H, K), G, each = gates[0].shape, len(gates), 2 if scales is None else 4
    blocks, groups = -(-H // lanes), -(-K // each)
    whole = np.zeros((G, blocks * lanes, groups * each), gates[0].dtype)
    whole[:, :H, :K] = gates
    numbers = whole.reshape(G, blocks, lanes, groups, each).transpose(1, 3, 0, 2, 4)
    if scales is None:
        packed = aligned_zeros((whole.nbytes,), np.uint8)
        packed.view(np.uint16).reshape(numbers.shape)[:] = numbers
        return packed
    starts = range(0, max(1, K), K_BLOCK) if zeros is None else (0,)
    sums = np.stack([(whole[..., k : k + K_BLOCK] if zeros is None else whole).sum(axis=-1, dtype=np.int32) for k in starts])
    head = np.zeros((1 + len(starts) + (zeros is not None), blocks, G, lanes), np.int32)
    head[0].view(np.float32)[:] = vectors([s.astype(np.float32) for s in scales], lanes)
    head[1 : 1 + len(starts)] = sums.reshape(len(starts), G, blocks, lanes).transpose(0, 2, 1, 3)
    if zeros is not None:
        head[-1] = vectors([z.astype(np.float32) for z in zeros], lanes)
    packed = aligned_zeros((head.nbytes + whole.nbytes,), np.uint8)
    packed[: head.nbytes] = head.view(np.uint8).reshape(-1)
    packed[head.nbytes :].view(np.int8).reshape(numbers.shape)[:] = numbers
    return packed


def _packer(lanes: int) -> Kernel:
    """The kernel that lays out panels of so many lanes: of the ISA in use, or, for another backend's kernels, of one that has as many."""
    for name in dict.fromkeys((isa.chosen(), *isa.supported())):
        kernel = registry.find("pack", "native", name)
        if kernel.lanes == lanes:
            return kernel
    raise UnsupportedModelError(f"no instruction set here has panels of {lanes} lanes")


def gates_together(kernel: Kernel, n_gates: int, far: bool) -> int:
    """How many of a recurrent kernel's gates lie together in a panel of float32, the others each by itself: TOGETHER of native/products/affine.h, or of far weights one."""
    return 1 if far else 3 if kernel.backend == "native" and kernel.lanes == 8 and n_gates == 4 else n_gates


def is_narrow(units: int, lanes: int) -> bool:
    """Whether the last block of so many units has two gates in a vector."""
    return 0 < units % lanes <= lanes // 2


def vectors(vectors: list[np.ndarray], lanes: int) -> np.ndarray:
    """(blocks, G, lanes) from G vectors (H,)."""
    packed = aligned_zeros((-(-len(vectors[0]) // lanes), len(vectors), lanes))
    for g, vector in enumerate(vectors):
        for block, start in enumerate(range(0, len(vector), lanes)):
            packed[block, g, : len(vector) - start] = vector[start : start + lanes]
    return packed


def _starts(cell: Cell, biases: list[np.ndarray], lanes: int, precision: str) -> np.ndarray:
    """Where the chains of each accumulator start; in a narrow block, which float32 alone has, the first of two that share a vector holds both."""
    packed = vectors(biases, lanes)
    if precision == "float32" and is_narrow(len(biases[0]), lanes):
        both = [g for g, x, h in zip(range(len(biases)), cell.x_gates, cell.first_gates) if x == h == cell.gates[g].name]
        for g in both[1::2]:
            packed[-1, g - 1, lanes // 2 :] = packed[-1, g, : lanes // 2]
    return packed


def pack_recurrent(cell: Cell, w: DirectionWeights, kernel: Kernel, far: bool) -> dict[str, np.ndarray]:
    """The contract's weight fields for one direction of a layer. The two biases of a gate that sees x and h become one."""
    lanes, over_x, over_h = kernel.lanes, dict(zip(cell.x_gates, w.w_x, strict=True)), dict(zip(cell.h_gates, w.w_h, strict=True))
    bias_x, bias_h = dict(zip(cell.x_gates, w.b_x, strict=True)), dict(zip(cell.h_gates, w.b_h, strict=True))
    biases = [bias_x[g.name] + bias_h[g.name] if g.sees == "xh" else bias_x.get(g.name, bias_h.get(g.name)) for g in cell.gates]
    packed = {"bias": _starts(cell, biases, lanes, w.precision)}
    scale_x, scale_h = dict(zip(cell.x_gates, w.s_x or ())), dict(zip(cell.h_gates, w.s_h or ()))
    zero_x, zero_h = dict(zip(cell.x_gates, w.z_x or ())), dict(zip(cell.h_gates, w.z_h or ()))
    for name, *of_gates, gates in (
        ("w_x", over_x, scale_x, zero_x, cell.x_gates),
        ("w_h", over_h, scale_h, zero_h, cell.first_gates),
        ("w_u", over_h, scale_h, zero_h, cell.second_gates),
    ):
        if gates:
            matrices, scales, zeros = ([a[g] for g in gates] if a else None for a in of_gates)
            packed[name] = panel(matrices, lanes, scales, zeros, gates_together(kernel, len(gates), far))
    if w.w_p is not None:
        packed["w_p"] = panel([w.w_p], lanes, None if w.s_p is None else [w.s_p])
    if w.parameters:
        by_block = vectors(list(w.parameters), lanes)
        packed["peephole"] = aligned_zeros((by_block.shape[1], by_block.shape[0], lanes))
        packed["peephole"][:] = by_block.transpose(1, 0, 2)
    return packed


def pack_dense(w: np.ndarray, b: np.ndarray | None, lanes: int, scale: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The contract's weight fields of a dense layer, w (N, K) of any precision, b (N,), scale (N,) of int8."""
    packed = {"w_x": panel([w], lanes, None if scale is None else [scale])}
    if b is not None:
        packed["bias"] = vectors([b], lanes)
    return packed


def pack_bytes(w: np.ndarray, zeros: np.ndarray, bias: np.ndarray | None, lanes: int) -> dict[str, np.ndarray]:
    """The contract's weight fields of a product of bytes, w (N, K) int8 or uint8, zeros (N,), bias (N,) int32."""
    if w.dtype == np.uint8:
        w, zeros = (w ^ 128).view(np.int8), zeros.astype(np.int32) - 128
    packed = {"w_x": panel([np.ascontiguousarray(w)], lanes, [np.ones(len(w), np.float32)], [zeros])}
    if bias is not None:
        whole = aligned_zeros((-(-len(bias) // lanes) * lanes,), np.int32)
        whole[: len(bias)] = bias
        packed["bias"] = whole
    return packed


def joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Panels of one form, one behind the other."""
    if len(arrays) == 1:
        return arrays[0]
    whole = aligned_zeros((sum(len(a) for a in arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    return np.concatenate(arrays, out=whole)
