"""Training small recurrent networks on the CPU, in float32 or float64, without another framework.

    net = Sequential(Embedding(...), LSTM(...), Linear(...))    parameters are NumPy arrays under torch's names
    value_and_grad(net, cross_entropy, x, target)               forward, loss, backpropagation through time
    Adam(net).step(grads)                                       torch's formulas
    fit(net, ...)                                               all of it, with validation and early stopping
    net.predict(xs)                                             what it says of sequences
    net.to_model(), net.save("net.safetensors")                 into fr.compile, fr.load
    diagnostics.hidden_gradients(net, ...)                      how far back a loss reaches; spectral radii, saturated gates

    data.py         sequences of any length, batches of them
    packing.py      a batch as rows (N, F), time step after time step, longest first
    sequential.py   layers one behind the other; base.py: what a layer is
    layers.py       layers without time
    stacks.py       what layers with time share; recurrent.py: RNN, LSTM, GRU; custom.py: any cell; native/: their time loops
    cellcode.py     a cell's instructions and those of its gradients, as the native loop runs them; kept.py: what a pass leaves for the way back; products.py: products over all rows
    losses.py       losses and their gradients; gradient.py: value_and_grad
    optim.py        optimisers, clipping; schedules.py: learning rates over time
    fit.py          epochs, validation, early stopping; resume.py: what a run goes on from
    export.py       a network as a Model; predict.py: what it says of sequences
    diagnostics.py  what one pass keeps, looked at

Inside a network a batch is rows (N, F) without padding (packing.py), so no layer or loss sees what lies past the end of a sequence.
To add a layer: a subclass of Layer with forward and backward (base.py), its nodes in export.py, its row in tests/training/test_layers.py.
"""

from fastrnn.training.base import Layer, Run, State
from fastrnn.training.custom import Recurrent
from fastrnn.training.data import Batch, Sequences
from fastrnn.training.fit import History, evaluate, fit
from fastrnn.training.gradient import value, value_and_grad
from fastrnn.training.layers import Dropout, Embedding, Last, LayerNorm, Linear, ReLU, Sigmoid, Tanh
from fastrnn.training.losses import accuracy, binary_cross_entropy, cross_entropy, mean_squared_error
from fastrnn.training.optim import SGD, Adam, AdamW, Optimiser, RMSProp, clip_grad_norm, clip_grad_value
from fastrnn.training.packing import Packing
from fastrnn.training.recurrent import GRU, LSTM, RNN
from fastrnn.training.schedules import CosineLR, ReduceOnPlateau, Schedule, StepLR, WarmupLR
from fastrnn.training.sequential import Sequential

__all__ = [
    "GRU", "LSTM", "RNN", "SGD", "Adam", "AdamW", "Batch", "CosineLR", "Dropout", "Embedding", "History", "Last", "Layer", "LayerNorm", "Linear",
    "Optimiser", "Packing", "RMSProp", "ReLU", "Recurrent", "ReduceOnPlateau", "Run", "Schedule", "Sequences", "Sequential", "Sigmoid", "State", "StepLR",
    "Tanh", "WarmupLR", "accuracy", "binary_cross_entropy", "clip_grad_norm", "clip_grad_value", "cross_entropy", "evaluate", "fit", "mean_squared_error",
    "value", "value_and_grad",
]  # fmt: skip
