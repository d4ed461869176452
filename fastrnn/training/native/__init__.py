"""Time loops of training in C, forward and backward, float and double; a module for each instruction set.

train.h -> instance.h (loops) -> real.h (vectors of reals), product.h (packed products), cells.h (equations and their gradients), cell.h (any cell)
_train.pxi is the module that _avx512.pyx, _avx2.pyx, _neon.pyx and _baseline.pyx are
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from fastrnn.kernels import isa

GATES = (1, 4, 3, 3)  # of RNN, LSTM, GRU and GRU with the reset before the matrix


def loops() -> ModuleType:
    """The module for the instruction set in use; FASTRNN_ISA pins it."""
    return _load(isa.chosen())


@cache
def _load(name: str) -> ModuleType:
    return importlib.import_module(f"fastrnn.training.native._{name}")
