"""Time loops of training, as the module of each instruction set has them: see _train.pxi."""

import numpy as np

GATES: tuple[int, ...]

def run(
    kind: int,
    back: bool,
    pieces: np.ndarray,
    B: int,
    h: np.ndarray,
    w_h: np.ndarray,
    gates: np.ndarray | None = None,
    c: np.ndarray | None = None,
    extra: np.ndarray | None = None,
    dh: np.ndarray | None = None,
    dh0: np.ndarray | None = None,
    dc: np.ndarray | None = None,
    da: np.ndarray | None = None,
    w_p: np.ndarray | None = None,
    peepholes: np.ndarray | None = None,
    b_n: np.ndarray | None = None,
    d_peepholes: np.ndarray | None = None,
    relu: bool = False,
    coupled: bool = False,
) -> None:
    """One direction of a layer, forward or backward, in place."""

def run_cell(
    back: bool,
    pieces: np.ndarray,
    B: int,
    pointwise: object,
    operand: object,
    gates: np.ndarray,
    h: np.ndarray,
    parameters: np.ndarray,
    first_h: int,
    w_h: np.ndarray,
    first_2: int,
    w_2: np.ndarray,
    w_p: np.ndarray | None = None,
    c: np.ndarray | None = None,
    extra: np.ndarray | None = None,
    x: np.ndarray | None = None,
    s: np.ndarray | None = None,
    dh: np.ndarray | None = None,
    dh0: np.ndarray | None = None,
    dc: np.ndarray | None = None,
    dx: np.ndarray | None = None,
    ds: np.ndarray | None = None,
    d_parameters: np.ndarray | None = None,
) -> None:
    """One direction of a layer of any cell."""

def project(x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """All rows times a matrix, and a bias."""

def add_outer(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """The gradient of a matrix from all rows."""
