"""Small weights: what a matrix becomes in bfloat16 and int8, and what is multiplied by it. Every kernel over small weights gives these numbers.

bfloat16  w rounded to the nearest, ties to even, kept as its bits (uint16). A product is that of float32 over the rounded weights.
int8      each row of a matrix (all that one unit multiplies) is q s with s = max|w| / 127, q = rint(w / s). What it multiplies is rounded row by row: of 8 bits, for
          what its cell keeps within 1, to rint(x 127 / m) with m = max(1, max|x|); of 14 bits, for what has no bound, to rint(x 8191 / m) with m = max|x|. The sum of
          products of integers is exact, K_BLOCK of them at a time, and joins the bias in float32: fma(float(sum), s_x s_w, bias). A row with a NaN or an infinity gives NaN.

Recurrent layers of quantized ONNX files (DynamicQuantizeLSTM) round what they multiply to bytes with a zero point instead, as DynamicQuantizeLinear does: x over all of a call and h over
all rows of a step, which couples the rows of a batch; in streams and pools each row and step by itself. Their weights may have zero points too.

The dtype of a node's weights says which it is: float32, uint16 (bfloat16) or int8, then with their scales as further inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastrnn.typing import ArrayLike

PRECISIONS = ("float32", "bfloat16", "int8")
DTYPE_OF = {"float32": "float32", "bfloat16": "uint16", "int8": "int8"}  # of weights, by precision
PRECISION_OF = {dtype: precision for precision, dtype in DTYPE_OF.items()}
BOUNDED, UNBOUNDED = 8, 14  # bits of what int8 weights multiply
BYTES_OF_ALL, BYTES_OF_ROW = 0, 1  # or bytes with a zero point, over all rows or over each
TOP = {BOUNDED: np.float32(127), UNBOUNDED: np.float32(8191)}
TINY = np.float32(2.0**-100)  # rows of nothing larger are zeros
K_BLOCK = 2048  # 8191 * 127 * 2048 < 2^31


def to_bfloat16(w: np.ndarray) -> np.ndarray:
    """The bits of float32 numbers in bfloat16, uint16; a NaN stays one."""
    bits = np.ascontiguousarray(w, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(w), bits >> 16 | 0x40, rounded).astype(np.uint16)


def of_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 numbers from their bits, exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def quantized(w: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(q int8 of w's shape, s float32 of its first `rows` axes): each row is what the other axes hold. A row of zeros has s = 1; one with a NaN or an infinity, s = NaN."""
    flat = np.ascontiguousarray(w, np.float32).reshape(*w.shape[:rows], -1)
    most = np.abs(flat).max(axis=-1, initial=0)
    finite, none = np.isfinite(most), most < TINY
    with np.errstate(all="ignore"):
        s = np.where(none, np.float32(1), most / TOP[BOUNDED]).astype(np.float32)
        q = np.where((finite & ~none)[..., None], np.rint(flat / s[..., None]), 0)
    return q.astype(np.int8).reshape(w.shape), np.where(finite, s, np.float32(np.nan))


def restored(w: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """The float32 numbers that weights of any precision stand for; scale: of int8, one for each entry of the first axes."""
    if w.dtype == np.uint16:
        return of_bfloat16(w)
    return w if scale is None else w.astype(np.float32) * scale.reshape(*scale.shape, *(1,) * (w.ndim - scale.ndim))


def rounded(x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (..., K) as (q int32, s float32 (...)), see above."""
    x, top = x.astype(np.float32, copy=False), TOP[bits]
    most = np.abs(x).max(axis=-1, initial=0)
    finite = np.isfinite(most)
    m = np.where(finite, np.maximum(most, np.float32(1)) if bits == BOUNDED else np.where(most < TINY, top, most), top)
    q = np.where(finite[..., None], np.rint(x * (top / m)[..., None]), 0)
    return q.astype(np.int32), np.where(finite, m / top, np.float32(np.nan))


def range_of(x: np.ndarray) -> tuple[np.float32, np.float32]:
    """What numbers lie within, and 0."""
    return np.minimum(x.min(initial=0), 0).astype(np.float32), np.maximum(x.max(initial=0), 0).astype(np.float32)


def as_bytes(x: np.ndarray, within: tuple[np.float32, np.float32]) -> tuple[np.ndarray, np.floating]:
    """(q less its zero point, int32, s) of rows, as DynamicQuantizeLinear rounds numbers within such a range; NaN where that has one."""
    x, (low, high) = x.astype(np.float32, copy=False), within
    s = (high - low) / np.float32(255)
    if not np.isfinite(s):
        return np.zeros(x.shape, np.int32), np.float32(np.nan)
    s = s if s else np.float32(1)
    zero = np.clip(np.rint(-low / s), 0, 255)
    return (np.clip(np.rint(x / s) + zero, 0, 255) - zero).astype(np.int32), s


def fma(a: np.ndarray, b: np.ndarray, c: ArrayLike) -> np.ndarray:
    """a b + c of float32 numbers, rounded once: the sum in float64 is rounded to odd, after which rounding to float32 is as if it were the only one (Boldo and Melquiond 2008)."""
    p, c = a.astype(np.float64) * b, np.asarray(c, np.float64)
    total = np.asarray(p + c)
    t = total - p
    error = (p - (total - t)) + (c - t)
    bits = total.view(np.int64)
    away = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where((error != 0) & np.isfinite(total) & (bits & 1 == 0), bits + away, bits)
    return odd.view(np.float64).astype(np.float32)


def product(
    x: np.ndarray,
    w: np.ndarray,
    scale: np.ndarray | None,
    bits: int,
    start: Any,
    zero: np.ndarray | None = None,
    within: tuple[np.float32, np.float32] | None = None,
) -> np.ndarray:
    """start + x w^T, x (..., K) and w (N, K) of any precision, in the dtype of x; start broadcasts to (..., N). zero: zero points (N,) of int8 weights; within: the range of
    bytes over more rows than these."""
    if scale is None:
        return x @ restored(w).T.astype(x.dtype, copy=False) + start
    if bits == BYTES_OF_ROW:
        parts = [as_bytes(row, range_of(row)) for row in x.reshape(-1, x.shape[-1])]
        q, s = np.reshape([q for q, _ in parts], x.shape), np.reshape([s for _, s in parts], x.shape[:-1]).astype(np.float32)
    elif bits == BYTES_OF_ALL:
        q, one = as_bytes(x, range_of(x) if within is None else within)
        s = np.full(x.shape[:-1], one, np.float32)
    else:
        q, s = rounded(x, bits)
    w = w if zero is None else w.astype(np.int32) - zero.astype(np.int32)[:, None]
    total, both, block = start, s[..., None] * scale, K_BLOCK if bits >= BOUNDED else max(1, x.shape[-1])
    for k in range(0, max(1, x.shape[-1]), block):
        whole = (q[..., k : k + block].astype(np.float64) @ w[:, k : k + block].T.astype(np.float64)).astype(np.float32)  # exact: below 2^53
        total = fma(whole, both, total) if x.dtype == np.float32 else total + whole.astype(x.dtype) * both
    return total
