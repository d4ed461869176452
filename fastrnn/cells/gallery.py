"""Cells from the literature, each a few lines: to use, and to write one's own after. Importing this registers them.

    from fastrnn.cells import gallery
    layer = fr.Recurrent(gallery.mgu, input_size, hidden_size)

Each says where it comes from; a bar over a letter there is the pre-activation here, which holds W x + R h + b already.
"""

from __future__ import annotations

from fastrnn.cells.custom import cell
from fastrnn.cells.maths import exp, maximum, minimum, relu, sigmoid, tanh
from fastrnn.cells.spec import Gate


@cell(gates=("f", Gate("n", second=True)), operand=lambda f, h: sigmoid(f) * h)
def mgu(f, n, h):
    """Minimal gated unit: one gate forgets and resets. n sees f h instead of h. Zhou et al. 2016, "Minimal gated unit for recurrent neural networks"."""
    return h + sigmoid(f) * (tanh(n) - h)


@cell(gates=("z", "n"))
def ligru(z, n, h):
    """Light GRU: no reset gate, a ReLU candidate. Ravanelli et al. 2018, "Light gated recurrent units for speech recognition", batch
    normalisation folded into the weights over x."""
    n = relu(n)
    return n + sigmoid(z) * (h - n)


@cell(gates=("f", "n"))
def janet(f, n, h):
    """An LSTM with the forget gate only; what is let in is held back by 1. Van der Westhuizen and Lasenby 2018, "The unreasonable effectiveness of the
    forget gate"."""
    return sigmoid(f) * h + (1 - sigmoid(f - 1.0)) * tanh(n)


@cell(gates=("g", "n"))
def ugrnn(g, n, h):
    """Update gate RNN. Collins et al. 2017, "Capacity and trainability in recurrent neural networks"."""
    n = tanh(n)
    return n + sigmoid(g) * (h - n)


@cell(gates=(Gate("a", sees="x"),), parameters=("u",))
def indrnn(a, h, u):
    """Independently recurrent: each unit sees itself alone, by a weight u. Li et al. 2018, "Independently recurrent neural network"."""
    return relu(a + u * h)


@cell(gates=(Gate("n", sees="x", bias=False), Gate("f", sees="x"), Gate("r", sees="x")), states=("h", "c"), parameters=("vf", "vr"))
def sru(n, f, r, c, vf, vr, x):
    """Simple recurrent unit: no matrix over the state, and x itself carried past it (I = H). Lei et al. 2018, "Simple recurrent units for highly
    parallelizable recurrence"."""
    f, r = sigmoid(f + vf * c), sigmoid(r + vr * c)
    c = n + f * (c - n)
    return x + r * (c - x), c


@cell(gates=("i", "g", "o"), states=("h", "c"), parameters=("pi", "po"))
def coupled_lstm(i, g, o, c, pi, po):
    """LSTM with peepholes whose forget gate is 1 - i. Greff et al. 2017, "LSTM: a search space odyssey" (the CIFG and peephole variants together)."""
    i = sigmoid(i + pi * c)
    c = c + i * (tanh(g) - c)
    return sigmoid(o + po * c) * tanh(c), c


@cell(gates=("i", "f", "g", "o"), states=("h", "c"), parameters=("rate", "offset"), scalars=("dt",))
def decay_lstm(i, f, g, o, c, rate, offset, dt):
    """LSTM whose memory decays over the time since the step before: c exp(-max(0, rate dt + offset)), a rate and an offset a unit. The decay of
    Che et al. 2018, "Recurrent neural networks for multivariate time series with missing values" (GRU-D), on an LSTM's c."""
    c = sigmoid(f) * (c * exp(-maximum(0.0, rate * dt + offset))) + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


@cell(gates=("i", "f", "g", "o"), states=("h", "c"), parameters=("limit",))
def clipped_lstm(i, f, g, o, c, limit):
    """LSTM whose memory stays between -limit and limit, by unit. The cell clip of Sak et al. 2014, "Long short-term memory recurrent neural network
    architectures for large scale acoustic modeling", and of TensorFlow Lite's LSTM."""
    c = maximum(minimum(sigmoid(f) * c + sigmoid(i) * tanh(g), limit), -limit)
    return sigmoid(o) * tanh(c), c


@cell(gates=("a",), parameters=("leak",))
def leaky(a, h, leak):
    """Leaky integrator: a unit keeps 1 - leak of what it was. Jaeger et al. 2007, "Optimization and applications of echo state networks with leaky-integrator
    neurons"."""
    return h + leak * (tanh(a) - h)


CELLS = (mgu, ligru, janet, ugrnn, indrnn, sru, coupled_lstm, decay_lstm, clipped_lstm, leaky)
