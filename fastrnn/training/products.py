"""Products over all rows of a pass: what a matrix makes of them, and its gradient.

Ours put the bias in front and sum the gradient of the bias on the way, which takes NumPy passes of their own: 100 us for 1,600 rows of 64 by 64 instead of 140, and 100
instead of 160. Matrices that do not stay in a core's cache beside the rows are the BLAS library's, which cuts them up as well (512 by 1,536: 36 ms instead of 47).
"""

from __future__ import annotations

import numpy as np

from fastrnn.training.native import loops

OWN_BYTES = 1 << 20  # the largest matrix that is multiplied here


def project(x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out (N, C) = x (N, I) times w (C, I) transposed, and bias (C); the arrays may be columns of wider ones."""
    if w.nbytes <= OWN_BYTES:
        loops().project(x, w, bias, out)
    else:
        np.matmul(x, w.T, out=out)
        out += bias


def add_outer(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out (A, C) += a (N, A) transposed times b (N, C); out is whole, a and b may be columns of wider arrays."""
    if out.nbytes <= OWN_BYTES:
        loops().add_outer(a, b, out)
    else:
        out += a.T @ b
