"""Time loops of training on one instruction set: see _train.pxi."""

import numpy as np

def run(kind: int, back: bool, pieces: np.ndarray, B: int, h: np.ndarray, w_h: np.ndarray, **arrays) -> None:
    """One direction of a layer, forward or backward, in place."""

def run_cell(back: bool, pieces: np.ndarray, B: int, pointwise, operand, gates: np.ndarray, h: np.ndarray, parameters: np.ndarray, first_h: int, w_h: np.ndarray,
             first_2: int, w_2: np.ndarray, *arrays, **gradients) -> None:
    """One direction of a layer of any cell."""
