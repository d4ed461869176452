"""Linear algebra on the matrices of the last two axes, by NumPy's LAPACK: determinants, inverses, systems, and factors. Each matrix by itself, so that it does not matter which others
there are. Where one has no answer (it is singular, not positive definite, or holds NaN) that is NaN, and the others are as they would be."""

from __future__ import annotations

import numpy as np

from fastrnn.errors import InvalidModelError, ShapeError
from fastrnn.model.ops.elementwise import FLOATS
from fastrnn.model.ops.registry import ANY_DIM, Spec, broadcast, meaning, op, require, same_dim, where

TERMS, SHORT = 18, 0.5  # of exp's series: past TERMS it adds 1e-23 for a matrix whose norm is SHORT


def _matrices(node, spec, what: str, square: bool = False) -> Spec:
    """Of floats; ShapeError where they are no matrices, or must be square and are not."""
    spec = require(node, spec, what, FLOATS)
    if spec.rank < 2 or square and not same_dim(*spec.shape[-2:]):
        raise ShapeError(f"{where(node)}: {what} must be {'square ' if square else ''}matrices (..., n, {'n' if square else 'm'}), got {spec.shape}")
    return spec


def _shorter(shape):
    """The smaller of the last two dimensions."""
    a, b = shape[-2:]
    return ANY_DIM if isinstance(a, str) or isinstance(b, str) else min(a, b)


def _each(function, *arrays: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The results of a function over matrices, broadcast; and int32, which leading minor of the first had none, 0 for none."""
    lead = np.broadcast_shapes(*(a.shape[:-2] for a in arrays))
    try:
        return function(*arrays), np.zeros(lead, np.int32)
    except np.linalg.LinAlgError:
        given, failed = [np.broadcast_to(a, (*lead, *a.shape[-2:])) for a in arrays], np.zeros(lead, np.int32)
        results = [np.full((*lead, *a.shape), np.nan, a.dtype) for a in function(*(np.eye(*a.shape[-2:], dtype=a.dtype) for a in arrays))]
        for at in np.ndindex(*lead):
            try:
                for result, found in zip(results, function(*(a[at] for a in given))):
                    result[at] = found
            except np.linalg.LinAlgError:
                failed[at] = _first_minor(given[0][at], function is _cholesky)
        return results, failed


def _first_minor(a: np.ndarray, positive: bool) -> int:
    """The order of the first leading minor of a matrix that is not positive definite; or the first column whose pivot is 0."""
    if not positive:
        return int(np.argmax(np.diagonal(_lu(a)[0]) == 0)) + 1
    for n in range(1, len(a)):
        try:
            np.linalg.cholesky(a[:n, :n])
        except np.linalg.LinAlgError:
            return n
    return len(a)


@op("Det")
@op("SlogDet", outputs=2)
def determinant(node, inputs):
    """One number a matrix; or its sign, and the logarithm of its size."""
    spec = _matrices(node, inputs[0], "the input", square=True)
    return [Spec(spec.dtype, spec.shape[:-2])] * (2 if node.op == "SlogDet" else 1)


@meaning("Det")
def determinant_meaning(node, inputs):
    """By its LU factors."""
    return [np.asarray(np.linalg.det(inputs[0]), inputs[0].dtype)]


@meaning("SlogDet")
def slog_determinant_meaning(node, inputs):
    """By its LU factors."""
    return [np.asarray(a, inputs[0].dtype) for a in np.linalg.slogdet(inputs[0])]


@op("Inverse", "Cholesky", outputs=2)
def of_a_square(node, inputs):
    """The inverse, or the lower L with L L^T = A, of which only the lower triangle is read; and int32, 0, or which leading minor had none."""
    spec = _matrices(node, inputs[0], "the input", square=True)
    return [Spec(spec.dtype, spec.shape), Spec("int32", spec.shape[:-2])]


@meaning("Inverse", "Cholesky")
def of_a_square_meaning(node, inputs):
    """NumPy's."""
    (y,), failed = _each(_inverse if node.op == "Inverse" else _cholesky, inputs[0])
    return [y, failed]


def _inverse(a):
    return [np.linalg.inv(a)]


def _cholesky(a):
    return [np.linalg.cholesky(a)]


@op("Solve", inputs=(2, 2), outputs=2)
def solve(node, inputs):
    """X of A X = B, leading axes broadcast; and int32, 0, or the column of A whose pivot is 0."""
    a, b = _matrices(node, inputs[0], "A", square=True), _matrices(node, inputs[1], "B")
    if a.dtype != b.dtype:
        raise InvalidModelError(f"{where(node)}: A is {a.dtype}, B {b.dtype}")
    if not same_dim(a.shape[-1], b.shape[-2]):
        raise ShapeError(f"{where(node)}: A {a.shape} and B {b.shape} do not fit")
    lead = broadcast(node, a.shape[:-2], b.shape[:-2])
    return [Spec(b.dtype, (*lead, *b.shape[-2:])), Spec("int32", lead)]


@meaning("Solve")
def solve_meaning(node, inputs):
    """NumPy's."""
    (x,), failed = _each(lambda a, b: [np.linalg.solve(a, b)], *inputs)
    return [x, failed]


@op("QR", outputs=2, mode="reduced")
def qr(node, inputs):
    """Q, whose columns are orthonormal, and the upper R; mode reduced, or complete: Q square."""
    spec = _matrices(node, inputs[0], "the input")
    *lead, m, n = spec.shape
    k = {"reduced": _shorter(spec.shape), "complete": m}.get(node.get("mode"))
    if k is None:
        raise InvalidModelError(f"{where(node)}: mode must be reduced or complete, got {node.get('mode')!r}")
    return [Spec(spec.dtype, (*lead, m, k)), Spec(spec.dtype, (*lead, k, n))]


@meaning("QR")
def qr_meaning(node, inputs):
    """By Householder's reflections."""
    return list(np.linalg.qr(inputs[0], node.get("mode")))


@op("SVD", outputs=3, mode="reduced")
def svd(node, inputs):
    """U, the singular values from the largest on, and V^T; mode reduced, or complete: U and V square."""
    spec = _matrices(node, inputs[0], "the input")
    *lead, m, n = spec.shape
    k = _shorter(spec.shape)
    if node.get("mode") not in ("reduced", "complete"):
        raise InvalidModelError(f"{where(node)}: mode must be reduced or complete, got {node.get('mode')!r}")
    u, v = (m, n) if node.get("mode") == "complete" else (k, k)
    return [Spec(spec.dtype, (*lead, m, u)), Spec(spec.dtype, (*lead, k)), Spec(spec.dtype, (*lead, v, n))]


@meaning("SVD")
def svd_meaning(node, inputs):
    """NumPy's."""
    return list(_each(lambda a: np.linalg.svd(a, full_matrices=node.get("mode") == "complete"), inputs[0])[0])


@op("Eigh", outputs=2, upper=0)
def eigh(node, inputs):
    """The eigenvalues of symmetric matrices, from the least on, and their vectors as columns; of the lower triangle, or the upper."""
    spec = _matrices(node, inputs[0], "the input", square=True)
    return [Spec(spec.dtype, spec.shape[:-1]), Spec(spec.dtype, spec.shape)]


@meaning("Eigh")
def eigh_meaning(node, inputs):
    """NumPy's."""
    return list(_each(lambda a: np.linalg.eigh(a, "U" if node.get("upper") else "L"), inputs[0])[0])


@op("LU", outputs=2)
def lu(node, inputs):
    """L, whose diagonal of ones is left out, and U in one matrix; and int32 (..., k), the row that each was exchanged with, counted from 1."""
    spec = _matrices(node, inputs[0], "the input")
    return [Spec(spec.dtype, spec.shape), Spec("int32", (*spec.shape[:-2], _shorter(spec.shape)))]


def _lu(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One column after the other, its largest entry as the pivot."""
    y, k = a.copy(), min(a.shape[-2:])
    pivots = np.zeros((*a.shape[:-2], k), np.int32)
    for j in range(k):
        at = j + np.argmax(np.abs(y[..., j:, j]), axis=-1)[..., None, None]
        pivots[..., j] = at[..., 0, 0] + 1
        row, chosen = y[..., j : j + 1, :].copy(), np.take_along_axis(y, at, -2)
        np.put_along_axis(y, np.broadcast_to(at, (*at.shape[:-1], y.shape[-1])), row, -2)
        y[..., j : j + 1, :] = chosen
        pivot = chosen[..., j : j + 1]
        y[..., j + 1 :, j : j + 1] /= np.where(pivot == 0, 1, pivot)
        y[..., j + 1 :, j + 1 :] -= y[..., j + 1 :, j : j + 1] * y[..., j : j + 1, j + 1 :]
    return y, pivots


@meaning("LU")
def lu_meaning(node, inputs):
    """By elimination."""
    return list(_lu(inputs[0]))


@op("PivotMatrix", inputs=(2, 2))
def pivot_matrix(node, inputs):
    """P (..., m, m) of A = P L U from the factors (..., m, n) and the exchanges (..., k) of LU."""
    spec, pivots = _matrices(node, inputs[0], "LU"), require(node, inputs[1], "pivots", ("int32",))
    if pivots.rank != spec.rank - 1:
        raise ShapeError(f"{where(node)}: LU {spec.shape} and pivots {pivots.shape} do not fit")
    return [Spec(spec.dtype, (*spec.shape[:-1], spec.shape[-2]))]


@meaning("PivotMatrix")
def pivot_matrix_meaning(node, inputs):
    """Rows exchanged one after the other."""
    (*lead, m, _), pivots = inputs[0].shape, inputs[1]
    order = np.broadcast_to(np.arange(m), (*lead, m)).copy()
    if pivots.size and (pivots.min() < 1 or pivots.max() > m):
        raise ShapeError(f"{where(node)}: a pivot lies outside of 1 to {m}")
    for j in range(pivots.shape[-1]):
        at = pivots[..., j : j + 1].astype(np.int64) - 1
        first, second = order[..., j : j + 1].copy(), np.take_along_axis(order, at, -1)
        np.put_along_axis(order, at, first, -1)
        order[..., j : j + 1] = second
    return [np.asarray(order[..., None, :] == np.arange(m)[:, None], inputs[0].dtype)]


@op("MatrixExp")
def matrix_exp(node, inputs):
    """The exponential series of square matrices."""
    spec = _matrices(node, inputs[0], "the input", square=True)
    return [Spec(spec.dtype, spec.shape)]


@meaning("MatrixExp")
def matrix_exp_meaning(node, inputs):
    """In float64: of a matrix halved until it is small, then squared as often (Higham 2008, Functions of Matrices, section 10.3)."""
    x = inputs[0].astype(np.float64)
    norm = np.abs(x).sum(-2).max(-1, initial=0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        halvings = np.where(np.isfinite(norm), np.ceil(np.log2(np.maximum(norm / SHORT, 1))), 0).astype(int)
        y = x * 0.5 ** halvings[..., None, None]
        total = np.broadcast_to(np.eye(x.shape[-1]), x.shape)
        for k in range(TERMS, 0, -1):  # by Horner's rule
            total = np.eye(x.shape[-1]) + y @ total / k
        for k in range(int(halvings.max(initial=0))):
            total = np.where((halvings > k)[..., None, None], total @ total, total)
    return [np.asarray(total, inputs[0].dtype)]


@op("HouseholderProduct", inputs=(2, 2))
def householder_product(node, inputs):
    """The first columns of a product of reflections I - tau v v^T: v (..., m, n) below a diagonal of ones, tau (..., k)."""
    spec, tau = _matrices(node, inputs[0], "v"), require(node, inputs[1], "tau", FLOATS)
    if (
        tau.rank != spec.rank - 1
        or tau.dtype != spec.dtype
        or not isinstance(tau.shape[-1], str)
        and isinstance(_shorter(spec.shape), int)
        and tau.shape[-1] > _shorter(spec.shape)
    ):
        raise ShapeError(f"{where(node)}: v {spec.dtype} {spec.shape} and tau {tau.dtype} {tau.shape} do not fit")
    return [Spec(spec.dtype, spec.shape)]


@meaning("HouseholderProduct")
def householder_product_meaning(node, inputs):
    """The last reflection first."""
    v, tau = inputs
    q = np.broadcast_to(np.eye(*v.shape[-2:], dtype=v.dtype), v.shape).copy()
    for j in reversed(range(tau.shape[-1])):
        column = v[..., j + 1 :, j : j + 1]
        column = np.concatenate([np.ones_like(v[..., :1, :1]), column], -2)
        q[..., j:, :] -= tau[..., j : j + 1, None] * column * (column * q[..., j:, :]).sum(-2, keepdims=True)
    return [q]
