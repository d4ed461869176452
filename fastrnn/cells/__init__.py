"""What a recurrent cell is: its gates, its states and its pointwise maths, independent of any backend.

    activations.py   the activation functions and their parameters
    maths.py         the functions that cells are written with
    trace.py         what a cell's function computes, as instructions to be compiled
    adjoint.py       the gradients of that, as instructions too
    spec.py          Gate and Cell: what a backend needs to know to run a cell
    custom.py        @cell: cells of one's own, by name
    builtin.py       RNN, LSTM and GRU declared with it, options closed over; gallery.py: more cells, from the literature
    gate_order.py    THE table of gate orders: torch, ONNX, Keras, oneDNN

RNN, LSTM and GRU are cells like any other; what sets them apart is that native kernels know them (kernels/native/cells/cell_*.h).
"""

from fastrnn.cells.activations import ACTIVATIONS, Activation, parse_activation
from fastrnn.cells.builtin import GATES, gru, lstm, rnn
from fastrnn.cells.custom import cell, find_cell, registered_cell
from fastrnn.cells.spec import Cell, Gate

__all__ = ["ACTIVATIONS", "GATES", "Activation", "Cell", "Gate", "cell", "find_cell", "gru", "lstm", "parse_activation", "registered_cell", "rnn"]
