"""NumPy kernels: any cell from its specification, in float64 or float32. Right before fast.

    recurrence.py   the naive time loop over a Cell
    ops.py          every op of the vocabulary, whole arrays at a time
    evaluate.py     a whole model, op by op

Outside the promise of equal bits: NumPy's matrix product may round differently from one shape to the next.
"""

from fastrnn.kernels.reference.evaluate import evaluate
from fastrnn.kernels.reference.ops import EVAL
from fastrnn.kernels.reference.recurrence import run

__all__ = ["EVAL", "evaluate", "run"]
