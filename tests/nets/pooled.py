"""Sessions whose streams a pool holds, and a pool beside streams that do the same alone."""

import numpy as np

import fastrnn as fr
from fastrnn.model import Model, Node, Value
from fastrnn.testing import CAUSAL as STYLES
from fastrnn.testing import Net


@fr.cell(gates=("f", "n"), name="pool_test_cell")
def leaky(f, n, h):
    keep = fr.sigmoid(f)
    return keep * h + (1 - keep) * fr.tanh(n)


def convolutional(style):
    net = Net(6)
    model = net.model(net.recurrent(net.causal(net.causal("x", style, 3, 2, units=7), style, 2)))
    return fr.compile(model), (model.inputs[0].shape[1],)


def layer(make, **options):
    threads = options.pop("threads", 1)
    made = make(4, 6, seed=1, **options)
    return fr.compile(made, threads=threads), (4,)


def exposed(number=None):
    """A graph that is called once a step, states outside, one of them a slice of an output."""
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((3, 5)).astype(np.float32) * 0.5, "first": np.array([0])}
    nodes = (
        Node("MatMul", "m", ("x", "w"), ("mixed",)),
        Node("Add", "sum", ("mixed", "a"), ("sum",)),
        Node("Tanh", "y", ("sum",), ("y",)),
        Node("Unsqueeze", "u", ("y", "first"), ("uy",)),
        Node("Unsqueeze", "v", ("a", "first"), ("ua",)),
        Node("Concat", "both", ("ua", "uy"), ("both",), {"axis": 0}),
    )
    batch = "B" if number is None else number
    model = Model((Value("x", "float32", (batch, 3)), Value("a", "float32", (batch, 5))), ("y", "both"), nodes, weights)
    return fr.compile(model, states={"a": ("both", 1)}), (3,)


KINDS = {
    "lstm": lambda: layer(fr.LSTM),
    "lstm_projected": lambda: layer(fr.LSTM, num_layers=2, proj_size=3, peepholes=True),
    "rnn": lambda: layer(fr.RNN, nonlinearity="relu"),
    "gru_after": lambda: layer(fr.GRU, num_layers=3),
    "gru_before": lambda: layer(fr.GRU, reset_after=False, batch_first=True),
    "two_threads": lambda: layer(fr.LSTM, threads=2),
    "jit": lambda: (fr.compile(fr.GRU(4, 6, seed=2), backend="jit"), (4,)),
    "numpy": lambda: (fr.compile(fr.LSTM(4, 6, seed=2), backend="reference"), (4,)),
    "cell_of_ones_own": lambda: (fr.compile(fr.Recurrent(leaky, 4, 6, seed=1)), (4,)),
    "exposed": exposed,
    "exposed_one": lambda: exposed(1),
    **{f"convolutions_{style}": lambda style=style: convolutional(style) for style in STYLES},
}


class Beside:
    """A pool, and for each of its streams a Stream that does the same alone."""

    def __init__(self, session, shape, capacity=70, seed=0, **options):
        self.session, self.shape, self.random = session, shape, np.random.default_rng(seed)
        self.pool, self.alone = session.pool(capacity, **options), {}

    def open(self, n=1):
        for _ in range(n):
            self.alone[self.pool.open()] = self.session.stream()
        return list(self.alone)

    def draw(self, *shape):
        return self.random.standard_normal((*shape, *self.shape)).astype(np.float32)

    def some(self, n):
        chosen = self.random.permutation(list(self.alone))[:n]
        return chosen if self.random.random() < 0.5 else chosen.tolist()

    def step(self, n):
        handles, x = self.some(n), self.draw(n)
        y = self.pool.step(handles, x)
        for row, handle in enumerate(handles):
            assert self.alone[int(handle)].step(x[row : row + 1]).tobytes() == y[row : row + 1].tobytes()

    def push(self, n, steps, ragged, resets):
        handles, x = self.some(n), self.draw(steps, n)
        lengths = self.random.integers(0, steps + 1, n) if ragged else None
        mask = self.random.random((steps, n)) < 0.2 if resets else None
        y = self.pool.push(handles, x, lengths, resets=mask)
        for row, handle in enumerate(handles):
            length = steps if lengths is None else lengths[row]
            stream = self.alone[int(handle)]
            for t in range(length):
                if mask is not None and mask[t, row]:
                    stream.reset()
                assert stream.step(x[t, row : row + 1]).tobytes() == y[t, row : row + 1].tobytes()
            assert not y[length:, row].any()

    def states_agree(self):
        for handle, stream in self.alone.items():
            here, there = self.pool.state(handle), stream.state
            assert here.keys() == there.keys() and all(here[name].tobytes() == there[name].tobytes() for name in here)
