"""States of a pool that kernels read and write in the streams' rows: which they are, and that a step beside others gives the bits of a stream alone."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, State, Value
from fastrnn.model.stack import stack_model

random = np.random.default_rng(3)


def draw(*shape) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def copied(pool) -> list[bool]:
    """Of each state of a step, whether it is gathered and put back."""
    tile = pool._tiles._find(4, 0)[0]
    return [not there for there in tile.in_place_states]


def layer(kind, *sizes, **options):
    made = getattr(fr, kind)(*sizes, seed=0, **options)
    return stack_model(made.options, made.state_dict(), kind.lower())


def joined_states(read: str) -> Model:
    """Two LSTMs whose h and c are one state each, (2, N, 8); the output reads the second's Y, or its Y_h."""
    names = {"w": draw(1, 32, 8), "r": draw(1, 32, 8), "v": draw(1, 32, 8), "s": draw(1, 32, 8), "halves": np.array([1, 1], np.int64), "0": np.array([0], np.int64)}  # fmt: skip
    nodes = [
        Node("Split", "of h", ("h", "halves"), ("h1", "h2"), {"axis": 0}),
        Node("Split", "of c", ("c", "halves"), ("c1", "c2"), {"axis": 0}),
        Node("Unsqueeze", "one", ("x", "0"), ("t",)),
        Node("LSTM", "first", ("t", "w", "r", "", "", "h1", "c1"), ("y1", "g1", "d1"), {"hidden_size": 8}),
        Node("Squeeze", "rows", ("y1", "0"), ("y2",)),
        Node("LSTM", "second", ("y2", "v", "s", "", "", "h2", "c2"), ("y3", "g2", "d2"), {"hidden_size": 8}),
        Node("Squeeze", "directions", ("y3", "0"), ("y4",)),
        Node("Concat", "new h", ("g1", "g2"), ("hn",), {"axis": 0}),
        Node("Concat", "new c", ("d1", "d2"), ("cn",), {"axis": 0}),
        Node("Squeeze", "out", (read, "0"), ("y",)),
    ]
    values = (Value("x", "float32", ("N", 8)), Value("h", "float32", (2, "N", 8)), Value("c", "float32", (2, "N", 8)))
    states = tuple(State(name, f"{name}n", None, "float32", (2, "N", 8)) for name in "hc")
    return Model(values, ("y", "hn", "cn"), tuple(nodes), names, states=states)


CASES = {  # model, features of x, which states are copied
    "LSTM": (lambda: layer("LSTM", 5, 24), 5, [False, False]),
    "GRU": (lambda: layer("GRU", 5, 24), 5, [False]),
    "GRU, reset before": (lambda: layer("GRU", 5, 24, reset_after=False), 5, [False]),
    "RNN, two layers": (lambda: layer("RNN", 5, 24, 2), 5, [False]),
    "LSTM, projected": (lambda: layer("LSTM", 5, 24, 2, proj_size=8), 5, [False, False]),
    "LSTM, clipped": (lambda: layer("LSTM", 5, 24, clip=0.5), 5, [False, False]),
}


@pytest.mark.parametrize("case", CASES)
def test_states_stay_where_they_are(case, each_isa):
    make, features, wanted = CASES[case]
    session = fr.compile(make())
    compare(session, features, wanted)


def compare(session, features, wanted) -> None:
    """Steps and chunks of streams in any order, some of them started afresh, against streams alone."""
    pool = session.pool(50)
    handles = [pool.open() for _ in range(50)]
    assert copied(pool) == wanted
    alone = [session.stream() for _ in handles]
    for count in (1, 3, 7, 8, 33, 50, 9):
        named = random.permutation(50)[:count]
        x = draw(count, features)
        y = pool.step([handles[k] for k in named], x)
        for row, k in enumerate(named):
            assert y[row].tobytes() == alone[k].step(x[row : row + 1]).tobytes()
    named, x, lengths = random.permutation(50)[:40], draw(5, 40, features), random.integers(0, 6, 40)
    resets = random.random((5, 40)) < 0.2
    y = pool.push([handles[k] for k in named], x, lengths, resets=resets)
    for row, k in enumerate(named):
        for t in range(lengths[row]):
            if resets[t, row]:
                alone[k].reset()
            assert y[t, row].tobytes() == alone[k].step(x[t, row : row + 1]).tobytes()
    for k, handle in enumerate(handles):
        for name, state in pool.state(handle).items():
            assert state.tobytes() == alone[k].state[name].tobytes()


@pytest.mark.parametrize("read", ["y4", "g2"])
def test_parts_of_one_state(read, each_isa):
    """Two layers' states in one array, as voice activity detectors have them: each is read and written in its part of the row. A call has both of its states there, or none:
    where the output reads the second's h as well, h is copied, and so is c."""
    compare(fr.compile(joined_states(read)), 8, [read == "g2"] * 2)


def test_what_is_read_elsewhere_is_copied(each_isa):
    """A history of a convolution, beside a layer's state."""
    nodes = (Node("Conv", "conv", ("x", "w"), ("p",), {"pads": [2, 0]}), Node("Transpose", "turn", ("p",), ("t",), {"perm": [2, 0, 1]}),
             Node("RNN", "rnn", ("t", "v", "r"), ("y", ""), {"hidden_size": 8}))  # fmt: skip
    weights = {"w": draw(6, 3, 3), "v": draw(1, 8, 6), "r": draw(1, 8, 8)}
    mixed = fr.compile(Model((Value("x", "float32", ("N", 3, "T")),), ("y",), nodes, weights))
    assert sorted(copied(mixed.pool(3))) == [False, True]
