"""What a recurrent cell is: its gates, its states and its pointwise maths, independent of any backend.

    activations.py   the activation functions and their parameters
    spec.py          Gate and Cell: what a backend needs to know to run a cell
    builtin.py       RNN, LSTM and GRU declared with it, options closed over
    gate_order.py    THE table of gate orders: torch, ONNX, Keras, oneDNN

To add a cell: declare it in builtin.py as a function from options to a Cell. The reference backend runs it at
once; a compiled backend needs its pointwise part (see kernels/native/cell_*.h).
"""

from fastrnn.cells.activations import ACTIVATIONS, Activation, parse_activation
from fastrnn.cells.builtin import GATES, gru, lstm, rnn
from fastrnn.cells.spec import Cell, Gate

__all__ = ["ACTIVATIONS", "GATES", "Activation", "Cell", "Gate", "gru", "lstm", "parse_activation", "rnn"]
