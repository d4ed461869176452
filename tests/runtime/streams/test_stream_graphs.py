"""Streams of graphs as they come: states that swap, pass through or are slices; sizes that the graph fixes; states that no step could keep."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, State, Value


def frames(T, B, I=4, seed=1):
    return np.random.default_rng(seed).standard_normal((T, B, I)).astype(np.float32)


def test_states_of_a_graph_that_exposes_them_swap_safely():
    """a' = b, b' = tanh(a): every state reads its old value, whatever the order of the nodes."""
    graph = Model(
        (Value("x", "float32", ("B", 2)), Value("a", "float32", ("B", 2)), Value("b", "float32", ("B", 2))),
        ("y", "a_next", "b_next"),
        (Node("Relu", "y", ("x",), ("y",)), Node("Identity", "move", ("b",), ("a_next",)), Node("Tanh", "turn", ("a",), ("b_next",))),
        {},
        (State("a", "a_next"), State("b", "b_next")),
    )
    stream = fr.compile(graph).stream(1)
    stream.state = {"a": np.float32([[1, 2]]), "b": np.float32([[3, 4]])}
    stream.step(np.float32([[-1, 1]]))
    np.testing.assert_allclose(stream.state["a"], [[3, 4]])
    np.testing.assert_allclose(stream.state["b"], np.tanh([[1, 2]]), rtol=1e-6)
    chunk = stream.push(np.float32([[[1, 2]], [[3, -4]]]))
    assert chunk.tolist() == [[[1, 2]], [[3, 0]]]


def test_a_state_may_be_a_slice_of_an_output():
    graph = Model((Value("x", "float32", ("B", 2)), Value("a", "float32", ("B", 2))), ("y", "both"),
                  (Node("Relu", "y", ("x",), ("y",)), Node("Unsqueeze", "u", ("x", "first"), ("ux",)), Node("Unsqueeze", "v", ("a", "first"), ("ua",)),
                   Node("Concat", "both", ("ua", "ux"), ("both",), {"axis": 0})), {"first": np.array([0])})  # fmt: skip
    stream = fr.compile(graph, states={"a": ("both", 1)}).stream(1)
    stream.step(np.float32([[5, 6]]))
    assert stream.state["a"].tolist() == [[5, 6]]


def test_constant_initial_states_return_on_reset():
    weights = {"w": np.full((1, 3, 4), 0.1, np.float32), "r": np.full((1, 3, 3), 0.2, np.float32), "h0": np.full((1, 2, 3), 0.5, np.float32)}
    graph = Model(
        (Value("x", "float32", ("T", "B", 4)),), ("y",), (Node("RNN", "rnn", ("x", "w", "r", "", "", "h0"), ("y",), {"torch_form": 1}),), weights
    )
    session, x = fr.compile(graph), frames(3, 2)
    stream = session.stream(2)
    first = stream.push(x)
    assert np.array_equal(first, session(x))
    assert not np.array_equal(stream.push(x), first)
    stream.reset()
    assert np.array_equal(stream.push(x), first)


def rnn_graph(shape, **attributes):
    """An RNN over x of this declared shape, states inside."""
    return Model(
        (Value("x", "float32", shape),),
        ("y",),
        (Node("RNN", "rnn", ("x", "w", "r"), ("y",), {"torch_form": 1, **attributes}),),
        {"w": np.full((1, 3, 4), 0.1, np.float32), "r": np.full((1, 3, 3), 0.2, np.float32)},
    )


def test_a_fixed_time_dimension_cannot_be_stepped():
    with pytest.raises(fr.NotStreamableError, match="'rnn'.*fixed at 50"):
        fr.compile(rnn_graph((50, "B", 4))).stream()
    with pytest.raises(fr.NotStreamableError):
        fr.compile(rnn_graph(("B", "B", 4))).stream()


def test_a_fixed_batch_must_be_met():
    session = fr.compile(rnn_graph(("T", 2, 4)))
    with pytest.raises(fr.ShapeError, match="fixed at 2"):
        session.stream(batch=1)
    stream = session.stream(batch=2)
    stream.step(frames(1, 2)[0])
    stream.reset([0])
    assert not stream.state["rnn.h"][:, 0].any() and stream.state["rnn.h"][:, 1].any()


def test_onnx_layout_one_behind_an_elementwise_op():
    graph = Model(
        (Value("x", "float32", ("B", "T", 4)),),
        ("z",),
        (Node("RNN", "rnn", ("x", "w", "r"), ("y",), {"layout": 1}), Node("Relu", "relu", ("y",), ("z",))),
        {"w": np.full((1, 3, 4), 0.1, np.float32), "r": np.full((1, 3, 3), 0.2, np.float32)},
    )
    session, x = fr.compile(graph), frames(5, 2)
    whole = session(np.ascontiguousarray(x.swapaxes(0, 1)))
    assert np.array_equal(session.stream(2).push(x), whole.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ([("Tanh", ("last",), "hn")], "not the last state"),
        ([("Identity", ("h0",), "hn")], "not the last state"),
        ([("Identity", ("last",), "hn"), ("Add", ("y", "h0"), "z")], r"node 'z' \(Add\) reads it too"),
        ([("Identity", ("last",), "hn"), ("GRU", ("y", "r", "r", "", "", "h0"), "z")], "several layers start from it"),
    ],
)
def test_a_state_that_would_change_with_the_chunk_and_not_with_the_step_is_refused(nodes, match):
    """As pushed, a chunk would not give the bits of its steps: whether the state was guessed or given."""
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((1, 12, 5)).astype(np.float32), "r": random.standard_normal((1, 12, 4)).astype(np.float32)}
    made = [
        Node("GRU", "layer", ("x", "w", "r", "", "", "h0"), ("y", "last"), {"torch_form": 1, "hidden_size": 4}),
        *(Node(op, out, ins, (out,), {"torch_form": 1, "hidden_size": 4} if op == "GRU" else {}) for op, ins, out in nodes),
    ]
    state = Value("h0", "float32", (1, "B", 4))
    graph = Model((Value("x", "float32", ("T", "B", 5)), state), ("z" if len(nodes) > 1 else "y", "hn"), tuple(made), weights)
    with pytest.raises(fr.NotStreamableError, match=match):
        fr.compile(graph, states={"h0": "hn"}).stream(3)
    with pytest.raises(fr.NotStreamableError):
        fr.compile(graph).stream(3)


def test_a_state_that_passes_through_is_kept():
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((1, 12, 5)).astype(np.float32), "r": random.standard_normal((1, 12, 4)).astype(np.float32)}
    nodes = (
        Node("GRU", "layer", ("x", "w", "r"), ("seq",), {"torch_form": 1, "hidden_size": 4}),
        Node("Add", "y", ("seq", "s"), ("y",)),
        Node("Identity", "s_out", ("s",), ("s_out",)),
    )
    graph = Model((Value("x", "float32", ("T", "B", 5)), Value("s", "float32", (1, "B", 4))), ("y", "s_out"), nodes, weights, (State("s", "s_out"),))
    stream, x, s = (
        fr.compile(graph).stream(2),
        random.standard_normal((6, 2, 5)).astype(np.float32),
        random.standard_normal((1, 2, 4)).astype(np.float32),
    )
    stream.state = {**stream.state, "s": s}
    assert np.array_equal(np.stack([stream.step(row) for row in x]), fr.compile(graph).run({"x": x, "s": s})["y"])


def test_a_node_without_its_c_is_refused_where_a_step_is_a_call():
    weights = {"w": np.zeros((1, 12, 4), np.float32), "r": np.zeros((1, 12, 3), np.float32)}
    graph = Model(
        (Value("x", "float32", (1, "B", 4)), Value("h0", "float32", (1, "B", 3))),
        ("y", "h"),
        (Node("LSTM", "lstm", ("x", "w", "r", "", "", "h0"), ("y", "h"), {"torch_form": 1}),),
        weights,
        (State("h0", "h"),),
    )
    with pytest.raises(fr.NotStreamableError, match="'lstm'"):
        fr.compile(graph).stream()


def test_reset_with_a_fixed_batch_of_one():
    stream = fr.compile(rnn_graph(("T", 1, 4))).stream()
    stream.step(frames(1, 1)[0])
    stream.reset([0])
    assert not stream.state["rnn.h"].any()
