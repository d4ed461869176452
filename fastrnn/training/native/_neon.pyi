"""Time loops of training on one instruction set: see _train.pxi."""

import numpy as np

def run(kind: int, back: bool, pieces: np.ndarray, B: int, h: np.ndarray, w_h: np.ndarray, **arrays) -> None:
    """One direction of a layer, forward or backward, in place."""

def run_cell(back: bool, pieces: np.ndarray, B: int, pointwise, operand, gates: np.ndarray, h: np.ndarray, parameters: np.ndarray, first_h: int, w_h: np.ndarray,
             first_2: int, w_2: np.ndarray, *arrays, **gradients) -> None:
    """One direction of a layer of any cell."""

def project(x: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """All rows times a matrix, and a bias."""

def add_outer(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """The gradient of a matrix from all rows."""
