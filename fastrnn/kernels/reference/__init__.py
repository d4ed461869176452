"""NumPy kernels: any cell from its specification, in float64 or float32. Right before fast.

    recurrence.py   the naive time loop over a Cell: the meaning of RNN, GRU and LSTM
    evaluate.py     a whole model, op by op; the other ops' meanings stand beside their shapes, in fastrnn/model/ops

Outside the promise of equal bits: NumPy's matrix product may round differently from one shape to the next.
"""

from fastrnn.kernels.reference.evaluate import evaluate
from fastrnn.kernels.reference.recurrence import run

__all__ = ["evaluate", "run"]
