"""Time loops of training on one instruction set: see _train.pxi."""

import numpy as np

def run(kind: int, back: bool, pieces: np.ndarray, B: int, h: np.ndarray, w_h: np.ndarray, **arrays) -> None:
    """One direction of a layer, forward or backward, in place."""
