"""Which inputs are states: read off names, shapes and the graph where that is certain, left open where it is not."""

import io
import warnings

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Model, Node, Value


def model(inputs, outputs):
    """Outputs that depend on nothing but the first input, so that names and shapes alone speak. {name: shape}"""
    weights = {"one": np.float32(1)}
    nodes, values = [], tuple(Value(n, "float32", s) for n, s in inputs.items())
    for name, shape in outputs.items():
        weights[f"{name}.shape"] = np.array([1 if isinstance(d, str) else d for d in shape])
        batch = any(isinstance(d, str) for d in shape)
        if not batch:
            nodes.append(Node("Expand", name, ("one", f"{name}.shape"), (name,)))
            continue
        same = next(n for n, s in inputs.items() if s == shape)
        nodes.append(Node("Tanh", name, (same,), (name,)))
    return Model(values, tuple(outputs), tuple(nodes), weights)


S = (1, "B", 8)
X = {"x": ("B", 5)}


@pytest.mark.parametrize(
    "inputs,outputs,want",
    [
        ({"state": S}, {"stateN": S}, {"state": "stateN"}),
        ({"h": S, "c": S}, {"cn": S, "hn": S}, {"h": "hn", "c": "cn"}),
        ({"state_in_0": S, "state_in_1": S}, {"state_out_0": S, "state_out_1": S}, {"state_in_0": "state_out_0", "state_in_1": "state_out_1"}),
        ({"h0": S, "c0": S}, {"cn": S, "hn": S}, {"h0": "hn", "c0": "cn"}),
        ({"h_0": S, "c_0": S}, {"h_n": S, "c_n": S}, {"h_0": "h_n", "c_0": "c_n"}),
        ({"h_in": S, "c_in": S}, {"c_out": S, "h_out": S}, {"h_in": "h_out", "c_in": "c_out"}),
        ({"hin": S, "cin": S}, {"hout": S, "cout": S}, {"hin": "hout", "cin": "cout"}),
        ({"hx": S, "cx": S}, {"cy": S, "hy": S}, {"hx": "hy", "cx": "cy"}),
        ({"cache": S}, {"new_cache": S}, {"cache": "new_cache"}),
        ({"state": S}, {"next_state": S}, {"state": "next_state"}),
        ({"prev_gain": S}, {"gain": S}, {"prev_gain": "gain"}),
        ({"past_key": S}, {"present_key": S}, {"past_key": "present_key"}),
        ({"old_frame": S}, {"new_frame": S}, {"old_frame": "new_frame"}),
        (
            {"hiddenStateIn": S, "cellStateIn": S},
            {"cellStateOut": S, "hiddenStateOut": S},
            {"hiddenStateIn": "hiddenStateOut", "cellStateIn": "cellStateOut"},
        ),
        (
            {"h1_in": S, "c1_in": S, "h2_in": S, "c2_in": S},
            {"h2_out": S, "h1_out": S, "c1_out": S, "c2_out": S},
            {"h1_in": "h1_out", "c1_in": "c1_out", "h2_in": "h2_out", "c2_in": "c2_out"},
        ),
        ({"h_0": S, "h_1": S}, {"h_out_0": S, "h_out_1": S}, {"h_0": "h_out_0", "h_1": "h_out_1"}),
        (
            {"/encoder/cache_3:0": S, "/encoder/cache_4:0": S},
            {"/encoder/cache_4_out:0": S, "/encoder/cache_3_out:0": S},
            {"/encoder/cache_3:0": "/encoder/cache_3_out:0", "/encoder/cache_4:0": "/encoder/cache_4_out:0"},
        ),
        ({"decoder_buffer_in": S}, {"decoder_buffer_out": S, "encoder_buffer_out": S}, {"decoder_buffer_in": "decoder_buffer_out"}),
    ],
)
def test_names_that_go_together(inputs, outputs, want):
    guess = fr.guess_states(model(X | inputs, {"y": ("B", 5)} | outputs))
    assert guess.states == want and not guess.open and set(guess.why) == set(want)


@pytest.mark.parametrize(
    "inputs,outputs",
    [
        ({"input": S}, {"output": S}),
        ({"audio_in": S}, {"audio_out": S}),
        ({"x_in": S}, {"x_out": S}),
        ({"mix": S}, {"enh": S}),
        ({"frame": S}, {"frame_out": S}),
        ({"state": S}, {"y2": S}),
        ({"h": S}, {"c_out": S}),
        ({"h0": S}, {"h1": S}),
        ({"h1": S}, {"h2": S}),
        ({"state": (1, "B", 8)}, {"stateN": (2, "B")}),
    ],
)
def test_names_and_shapes_that_say_nothing(inputs, outputs):
    outputs = {n: s if s == S else (2, 4) for n, s in outputs.items()}
    guess = fr.guess_states(model(X | inputs, {"y": ("B", 5)} | outputs))
    assert not guess.states and not guess.open


def test_two_that_would_do_are_no_guess():
    graph = model(X | {"state": S}, {"y": ("B", 5), "state_out": S, "next_state": S})
    guess = fr.guess_states(graph)
    assert not guess.states and guess.open == {"state": "'state_out' and 'next_state' would do"}
    with pytest.raises(fr.NotStreamableError, match="not certain: input 'state': 'state_out' and 'next_state' would do.*states="):
        fr.compile(graph).stream()
    assert list(fr.compile(graph, states={"state": "next_state"}).stream().state) == ["state"]


def test_two_inputs_for_one_output():
    graph = model(X | {"h": S, "prev_h": S}, {"y": ("B", 5), "h_out": S})
    guess = fr.guess_states(graph)
    assert not guess.states and set(guess.open) == {"h", "prev_h"}


def layers(kind="LSTM", names=("h0", "c0"), ends=("hn", "cn"), swapped=False, tail=(), outputs=None):
    """A recurrent layer of one step from inputs to outputs of these names."""
    gates, random = {"LSTM": 4, "GRU": 3}[kind], np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((1, gates * 8, 5)).astype(np.float32),
        "r": random.standard_normal((1, gates * 8, 8)).astype(np.float32) / 4,
        "zero": np.array([0]),
    }
    made = ends[::-1] if swapped else ends
    nodes = (
        Node("Unsqueeze", "step", ("x", "zero"), ("xs",)),
        Node(kind, "layer", ("xs", "w", "r", "", "", *names), ("ys", *made), {"torch_form": 1, "hidden_size": 8}),
        Node("Squeeze", "y", ("ys", "zero"), ("y",)),
        *tail,
    )
    return Model((Value("x", "float32", ("B", 5)), *(Value(n, "float32", S) for n in names)), outputs or ("y", *ends), nodes, weights)


def test_the_graph_says_what_names_do_not():
    guess = fr.guess_states(layers(names=("17", "23"), ends=("91", "88")))
    assert guess.states == {"17": "91", "23": "88"} and all(why.startswith("the graph") for why in guess.why.values())


def test_h_and_c_swapped_in_name_are_left_open():
    """Names say h0 -> hn, but the layer that starts from h0 ends in cn."""
    graph = layers(swapped=True)
    guess = fr.guess_states(graph)
    assert not guess.states and set(guess.open) == {"h0", "c0"} and "its name goes with 'hn'" in guess.open["h0"]
    with pytest.raises(fr.NotStreamableError, match="its name goes with 'hn', but"):
        fr.compile(graph).stream()


def test_slices_of_one_output():
    tail = (Node("Concat", "both", ("hn", "cn"), ("both",), {"axis": 0}),)
    guess = fr.guess_states(layers(tail=tail, outputs=("y", "both")))
    assert guess.states == {"h0": ("both", 0), "c0": ("both", 1)}
    crossed = (Node("Concat", "both", ("cn", "hn"), ("both",), {"axis": 0}),)
    assert fr.guess_states(layers(tail=crossed, outputs=("y", "both"))).states == {"h0": ("both", 1), "c0": ("both", 0)}


def test_entries_out_of_order_are_no_state():
    tail = (Node("Transpose", "turned", ("hn",), ("turned",), {"perm": (2, 1, 0)}), Node("Transpose", "c", ("cn",), ("c_last",), {"perm": (0, 1, 2)}))
    guess = fr.guess_states(layers(tail=tail, outputs=("y", "turned", "c_last")))
    assert guess.states == {"c0": "c_last"} and list(guess.open) == ["h0"]


def test_a_name_does_not_speak_against_the_order_of_entries():
    """Layers' last states backwards go by the name of the state, but are not what a step starts from."""
    both = (Node("Split", "apart", ("h0",), ("a", "b"), {"axis": 1}), Node("Concat", "swap", ("b", "a"), ("start",), {"axis": 1}))
    graph = layers("GRU", ("start",), ("hn",))
    inputs = (graph.inputs[0], Value("h0", "float32", (1, 2, 8)))
    crossed = Model(inputs, ("y", "hn"), (*both, *graph.nodes), graph.weights)
    guess = fr.guess_states(crossed)
    assert not guess.states and "in another order" in guess.open["h0"]


def test_the_last_state_twice_is_left_open():
    tail = (Node("Identity", "again", ("hn",), ("copy",)),)
    guess = fr.guess_states(layers("GRU", ("state",), ("hn",), tail=tail, outputs=("y", "hn", "copy")))
    assert not guess.states and "'hn' and 'copy'" in guess.open["state"]


def test_declared_states_are_not_guessed_again():
    graph = fr.from_torch(pytest.importorskip("torch").nn.LSTM(3, 4))
    session = fr.compile(graph)
    assert fr.guess_states(graph) == session.guess == fr.Guess() and [s.name for s in session.states] == ["h0", "c0"]


def test_streams_take_the_guess_and_calls_do_not():
    session, random = fr.compile(layers()), np.random.default_rng(1)
    x, zero = random.standard_normal((9, 2, 5)).astype(np.float32), np.zeros((1, 2, 8), np.float32)
    assert not session.model.states and [str(s) for s in session.states] == ["h0 float32 (1, B, 8) <- hn", "c0 float32 (1, B, 8) <- cn"]
    said = fr.compile(layers(), states={"h0": "hn", "c0": "cn"})
    want = said.stream(2).push(x)
    stream, states = session.stream(2), {"h0": zero, "c0": zero}
    assert np.array_equal(stream.push(x), want)
    for frame, y in zip(x, want):  # a call is a call: states are inputs and outputs as before
        out = session.run({"x": frame, **states})
        states = {"h0": out["hn"], "c0": out["cn"]}
        assert np.array_equal(out["y"], y)
    with pytest.raises(fr.ShapeError, match="'h0' is missing|pass a dict"):
        session.run({"x": x[0]})
    alone = fr.compile(layers(), states={}).stream(2)
    assert set(alone.step_shapes()) == {"x", "h0", "c0"} and not alone.state


def test_torch_exports_of_modules_with_tuple_states():
    """forward(x, (h, c)) -> y, (h, c), named by the exporter's user and not at all."""
    torch = pytest.importorskip("torch")

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = torch.nn.LSTM(5, 8, 2), torch.nn.Linear(8, 3)

        def forward(self, x, state):
            y, state = self.lstm(x, state)
            return self.out(y), state

    torch.manual_seed(0)
    module, zeros = Step().eval(), (torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))
    for names in (("x", "h0", "c0"), ("a", "b", "c1")):
        for ends in (("y", "hn", "cn"), None):
            file = io.BytesIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module,
                    (torch.randn(4, 3, 5), zeros),
                    file,
                    input_names=list(names),
                    output_names=ends and list(ends),
                    dynamo=False,
                    dynamic_axes={names[0]: {0: "T", 1: "B"}, names[1]: {1: "B"}, names[2]: {1: "B"}},
                )
            session = fr.compile(fr.from_onnx(file.getvalue()))
            outputs = session.model.output_names
            assert session.guess.states == {names[1]: outputs[1], names[2]: outputs[2]}
            x = np.random.default_rng(2).standard_normal((20, 3, 5)).astype(np.float32)
            with torch.no_grad():
                want, (h, _) = module(torch.from_numpy(x), zeros)
            stream = session.stream(3)
            got = np.concatenate([stream.push(x[:9]), stream.push(x[9:])])
            assert np.abs(got - want.numpy()).max() <= 5e-6 * np.abs(want.numpy()).max()
            assert np.abs(stream.state[names[1]] - h.numpy()).max() <= 5e-6
