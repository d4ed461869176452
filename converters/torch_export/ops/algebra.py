"""Linear algebra: determinants, inverses, systems and factors of matrices."""

from __future__ import annotations

import numpy as np

from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import Site


def _turned(g: Site, y: str, rank: int) -> str:
    """Each matrix transposed."""
    return g.transpose(y, rank - 2, rank - 1, rank)


@converts("aten._linalg_det.default", "aten._linalg_slogdet.default")
def det(g: Site, A):
    """The factors beside it are for gradients."""
    if "slogdet" in g.target:
        return [*g.emit("SlogDet", A, outputs=2), None, None]
    return [g.emit("Det", A), None, None]


@converts("aten.linalg_inv_ex.default", "aten.linalg_inv.default")
def inverse(g: Site, A, check_errors=False):
    """NaN where torch raises, and in the place of check_errors; then what torch says of which column."""
    found = g.emit("Inverse", A, outputs=2)
    return found if "_ex" in g.target else found[0]


@converts("aten.linalg_tensorinv.default")
def tensor_inverse(g: Site, x, ind=2):
    """The inverse of a matrix whose rows are the first axes, its columns the others."""
    sizes = [g.size(x, k) for k in range(x.rank)]
    flat = g.emit("Inverse", g.emit("Reshape", x, g.sizes([g.product(sizes[:ind]), g.product(sizes[ind:])])))
    return g.emit("Reshape", flat, g.sizes([*sizes[ind:], *sizes[:ind]]))


@converts("aten.linalg_cholesky_ex.default", "aten.linalg_cholesky.default", "aten.cholesky.default")
def cholesky(g: Site, x, upper=False, check_errors=False):
    """NaN where torch raises. The upper one is that of the upper triangle."""
    lower, failed = g.emit("Cholesky", _turned(g, x.name, x.rank) if upper else x, outputs=2)
    factor = _turned(g, lower, x.rank) if upper else lower
    return [factor, failed] if "_ex" in g.target else factor


@converts("aten.cholesky_solve.default", "aten.cholesky_inverse.default")
def by_cholesky(g: Site, x, input2=None, upper=False):
    """The solution, or the inverse, from a factor, of which one triangle is read."""
    factor = x if input2 is None else input2
    kept = g.emit("Trilu", factor, upper=int(upper))
    first, second = (_turned(g, kept, factor.rank), kept) if upper else (kept, _turned(g, kept, factor.rank))
    if input2 is None:
        n = g.size(x, -1)
        if not isinstance(n, int):
            raise g.refuse("of a matrix whose size varies", x.fake.shape[-1])
        x = g.graph.constant(np.eye(n, dtype=g.dtype))
    return g.emit("Solve", second, g.emit("Solve", first, x))


def _solution(g: Site, a: str, a_rank: int, b: str, b_rank: int, left: bool) -> str:
    """Of A X = B, or X A = B."""
    if left:
        return g.emit("Solve", a, b)
    return _turned(g, g.emit("Solve", _turned(g, a, a_rank), _turned(g, b, b_rank)), max(a_rank, b_rank))


@converts("aten._linalg_solve_ex.default", "aten.linalg_solve_ex.default", "aten.linalg_solve.default")
def solve(g: Site, A, B, left=True, check_errors=False):
    """B of vectors where it has one axis, or the shape of A but for its last. NaN where torch raises."""
    vectors = B.rank == 1 or A.rank - 1 == B.rank and list(map(str, B.fake.shape)) == list(map(str, A.fake.shape[:-1]))
    b, rank = (g.emit("Unsqueeze", B, g.ints(B.rank)), B.rank + 1) if vectors else (B.name, B.rank)
    if left or vectors:
        y, failed = g.emit("Solve", A, b, outputs=2)
    else:
        y, failed = g.emit("Solve", _turned(g, A.name, A.rank), _turned(g, b, rank), outputs=2)
        y = _turned(g, y, max(A.rank, rank))
    y = g.emit("Squeeze", y, g.ints(-1)) if vectors else y
    if g.target == "aten.linalg_solve.default":
        return y
    return [y, failed] if "._" not in g.target else [y, None, None, failed]


def _triangle(g: Site, a: Tensor, upper: bool, unit: bool) -> str:
    """One triangle; its diagonal of ones where they go without saying."""
    kept = g.emit("Trilu", a, *([g.constant(1 if upper else -1, "int64")] if unit else []), upper=int(upper))
    if not unit:
        return kept
    if a.shape[-1] is None:
        raise g.refuse("of a matrix whose size varies", a.fake.shape[-1])
    return g.emit("Add", kept, g.graph.constant(np.eye(a.shape[-1], dtype=g.dtype)))


@converts("aten.linalg_solve_triangular.default")
def solve_triangular(g: Site, x, B, upper, left=True, unitriangular=False):
    """As any other system: the factors of a triangle are itself."""
    return _solution(g, _triangle(g, x, upper, unitriangular), x.rank, B.name, B.rank, left)


@converts("aten.triangular_solve.default")
def triangular_solve(g: Site, x, A, upper=True, transpose=False, unitriangular=False):
    """With A itself as the second result."""
    a = _triangle(g, A, upper, unitriangular)
    return [g.emit("Solve", _turned(g, a, A.rank) if transpose else a, x), A.name]


@converts("aten.linalg_qr.default")
def qr(g: Site, A, mode="reduced"):
    """R alone, of the reduced ones, where Q is empty."""
    q, r = g.emit("QR", A, outputs=2, mode="complete" if mode == "complete" else "reduced")
    return [g.constant([], g.dtype), r] if mode == "r" else [q, r]


@converts("aten._linalg_svd.default")
def svd(g: Site, A, full_matrices=False, compute_uv=True, driver=None):
    """Vectors are those of LAPACK, as in torch: their signs are not settled by what they are, so the module and its model are compared."""
    found = g.emit("SVD", A, outputs=3, mode="complete" if full_matrices else "reduced")
    return found if compute_uv else [g.constant([], g.dtype), found[1], g.constant([], g.dtype)]


@converts("aten._linalg_eigh.default")
def eigh(g: Site, A, UPLO="L", compute_v=True):
    """The same of its vectors."""
    found = g.emit("Eigh", A, outputs=2, upper=int(UPLO.upper() == "U"))
    return found if compute_v else [found[0], g.constant([], g.dtype)]


@converts("aten.linalg_pinv.atol_rtol_tensor", "aten.linalg_pinv.atol_rtol_float")
def pinv(g: Site, x, atol=None, rtol=None, hermitian=False):
    """By singular values, without those up to max(atol, rtol times the largest); of a symmetric matrix too. rtol: eps times the longer side, or 0 where atol is given."""
    if hermitian:  # of the lower triangle
        x = g.graph.described(
            g.emit("Add", g.emit("Trilu", x, upper=0), _turned(g, g.emit("Trilu", x, g.constant(-1, "int64"), upper=0), x.rank)), x.fake
        )
    u, s, v = g.emit("SVD", x, outputs=3)
    if rtol is None:
        if None in x.shape[-2:]:
            raise g.refuse("of matrices whose sizes vary", *x.fake.shape[-2:])
        rtol = 0.0 if isinstance(atol, float) and atol > 0 else float(np.finfo(g.dtype).eps) * max(x.shape[-2:])
    bounds = [g.cast(v, g.dtype) for v in (0.0 if atol is None else atol, rtol)]
    for k, (given, bound) in enumerate(zip((atol, rtol), bounds)):
        bounds[k] = g.emit("Unsqueeze", bound, g.ints(-1)) if isinstance(given, Tensor) and given.rank else bound
    largest = g.emit("ReduceMax", s, g.ints(-1), keepdims=1)
    kept = g.emit("Greater", s, g.emit("Max", bounds[0], g.emit("Mul", bounds[1], largest)))
    one = g.constant(1, g.dtype)
    inverted = g.emit("Where", kept, g.emit("Reciprocal", g.emit("Where", kept, s, one)), g.constant(0, g.dtype))
    return g.emit("MatMul", g.emit("Mul", _turned(g, v, x.rank), g.emit("Unsqueeze", inverted, g.ints(-2))), _turned(g, u, x.rank))


@converts("aten.linalg_lu_factor.default", "aten.linalg_lu_factor_ex.default", "aten.linalg_lu.default")
def lu_factor(g: Site, A, pivot=True, check_errors=False):
    """Both factors in one matrix, or apart with the rows' order as a matrix."""
    if not pivot:
        raise g.refuse("pivot=False is not supported")
    both, pivots = g.emit("LU", A, outputs=2)
    if g.target == "aten.linalg_lu.default":
        return [g.emit("PivotMatrix", both, pivots), *_halves(g, both, A)]
    if "_ex" not in g.target:
        return [both, pivots]
    k = min(A.shape[-2:]) if None not in A.shape[-2:] else None
    if k is None:
        raise g.refuse("of matrices whose sizes vary", *A.fake.shape[-2:])
    diagonal = g.emit("ReduceSum", g.emit("Mul", _corner(g, both, k, k), g.graph.constant(np.eye(k, dtype=g.dtype))), g.ints(-1), keepdims=0)
    zero = g.emit("Equal", diagonal, g.constant(0, g.dtype))
    numbered = g.emit("Where", zero, g.graph.constant(np.arange(1, k + 1, dtype=np.int32)), g.constant(k + 1, "int32"))
    first = g.emit("ReduceMin", numbered, g.ints(-1), keepdims=0)
    return [both, pivots, g.emit("Where", g.emit("Equal", first, g.constant(k + 1, "int32")), g.constant(0, "int32"), first)]


def _corner(g: Site, y: str, rows: int, columns: int) -> str:
    return g.emit("Slice", y, g.ints(0, 0), g.ints(rows, columns), g.ints(-2, -1))


def _halves(g: Site, both: str, a: Tensor) -> tuple[str, str]:
    """L (..., m, k) with its ones, and U (..., k, n)."""
    if None in a.shape[-2:]:
        raise g.refuse("of matrices whose sizes vary", *a.fake.shape[-2:])
    m, n = a.shape[-2:]
    k = min(m, n)
    lower = g.emit("Trilu", _corner(g, both, m, k), g.constant(-1, "int64"), upper=0)
    return g.emit("Add", lower, g.graph.constant(np.eye(m, k, dtype=g.dtype))), g.emit("Trilu", _corner(g, both, k, n), upper=1)


@converts("aten.lu_unpack.default")
def lu_unpack(g: Site, LU_data, LU_pivots, unpack_data=True, unpack_pivots=True):
    """P, L and U; what is not asked for is empty."""
    empty = g.constant([], g.dtype)
    halves = _halves(g, LU_data.name, LU_data) if unpack_data else (empty, empty)
    return [g.emit("PivotMatrix", LU_data, LU_pivots) if unpack_pivots else empty, *halves]


@converts("aten.linalg_lu_solve.default")
def lu_solve(g: Site, LU, pivots, B, left=True, adjoint=False):
    """With the matrix of these factors, multiplied out triangle by triangle."""
    lower, upper = _halves(g, LU.name, LU)
    order, rank, result = g.emit("PivotMatrix", LU, pivots), LU.rank, max(LU.rank, B.rank)
    b = B.name if left else _turned(g, B.name, B.rank)  # X A = B is A^T X^T = B^T
    if left != adjoint:
        y = g.emit("Solve", upper, g.emit("Solve", lower, g.emit("MatMul", _turned(g, order, rank), b)))
    else:
        y = g.emit("MatMul", order, g.emit("Solve", _turned(g, lower, rank), g.emit("Solve", _turned(g, upper, rank), b)))
    return y if left else _turned(g, y, result)


@converts("aten.linalg_matrix_exp.default")
def matrix_exp(g: Site, x):
    """MatrixExp."""
    return g.emit("MatrixExp", x)


@converts("aten.linalg_householder_product.default")
def householder_product(g: Site, x, tau):
    """HouseholderProduct."""
    return g.emit("HouseholderProduct", x, tau)


@converts("aten.ormqr.default")
def ormqr(g: Site, x, input2, input3, left=True, transpose=False):
    """Times the square Q of reflections, whose columns are filled up with zeros."""
    m, n = x.shape[-2:]
    if m is None or n is None:
        raise g.refuse("of matrices whose sizes vary", *x.fake.shape[-2:])
    pads = [0] * (2 * x.rank)
    pads[2 * x.rank - 1] = m - n
    q = g.emit("HouseholderProduct", g.emit("Pad", x, g.ints(*pads)) if m > n else x, input2)
    q = _turned(g, q, x.rank) if transpose else q
    return g.emit("MatMul", q, input3) if left else g.emit("MatMul", input3, q)
