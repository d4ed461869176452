"""verify: what it draws, what it compares, and that it finds what differs; exported programs through torch itself."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.converters.engines import engine_for
from fastrnn.converters.engines.reference_engine import ReferenceEngine
from fastrnn.converters.samples import index_ranges, random_inputs
from fastrnn.converters.verify import verify
from fastrnn.model import Model, Node, Value


def weights(**shapes):
    random = np.random.default_rng(0)
    return {n: random.uniform(-0.4, 0.4, s).astype(np.float32) for n, s in shapes.items()}


def ragged():
    """Tokens, a type of three, lengths and a mask, in front of a GRU."""
    w = weights(table=(11, 4), kinds=(3, 4), w=(1, 18, 4), r=(1, 18, 6)) | {"zero": np.array([0])}
    nodes = (Node("Cast", "wide", ("tokens",), ("ids",), {"to": "int64"}), Node("Gather", "embed", ("table", "ids"), ("e",)), Node("Gather", "kind", ("kinds", "kind"), ("k",)),
             Node("Add", "sum", ("e", "k"), ("s",)), Node("Unsqueeze", "column", ("mask", "two"), ("m",)), Node("Where", "masked", ("m", "s", "nothing"), ("x",)),
             Node("Cast", "short", ("lengths",), ("ls",), {"to": "int32"}), Node("GRU", "gru", ("x", "w", "r", "", "ls"), ("y", "h"), {"torch_form": 1, "hidden_size": 6}))  # fmt: skip
    inputs = (
        Value("tokens", "int32", ("T", "B")),
        Value("kind", "int64", ("T", "B")),
        Value("mask", "bool", ("T", "B")),
        Value("lengths", "int64", ("B",)),
        Value("level", "uint8", (50,)),
        Value("flag", "int64", ()),
    )
    return Model(
        inputs,
        ("y", "h", "louder"),
        (*nodes, Node("Cast", "louder", ("level",), ("louder",), {"to": "float32"})),
        w | {"nothing": np.float32(0), "two": np.array([2])},
    )


def test_integers_have_the_range_that_the_graph_shows():
    model = ragged()
    assert index_ranges(model) == {"tokens": 11, "kind": 3, "lengths": "T"}
    seen = random_inputs(model, 40, {"T": 7}, {}, np.random.default_rng(0))
    assert set(np.unique(seen["tokens"])) == set(range(11)) and set(np.unique(seen["kind"])) == {0, 1, 2}
    assert set(np.unique(seen["lengths"])) == set(range(8)) and set(np.unique(seen["mask"])) == {False, True}
    assert seen["level"].max() > 150 and seen["flag"] in (0, 1) and seen["tokens"].dtype == np.int32 and seen["lengths"].shape == (40,)


def test_several_batches_and_lengths_and_why_there_is_no_stream():
    model, asked = ragged(), []
    verdict = verify(fr.compile(model), ReferenceEngine(None, model), batches=(2, 5), lengths=(4, 9), progress=lambda *now: asked.append(now))
    assert verdict.good and verdict.stream.startswith("none: ") and "sequence_lens" in verdict.stream
    assert [d.case for d in verdict.differences[::3]] == ["batch 2, T = 4", "batch 2, T = 9", "batch 5, T = 4", "batch 5, T = 9"]
    assert [now[1:] for now in asked] == [(k, 5) for k in range(5)]


def test_given_inputs_replace_random_ones():
    model = ragged()
    given = {"tokens": np.zeros((3, 2), np.int32), "lengths": np.array([3, 1])}
    verdict = verify(fr.compile(model), ReferenceEngine(None, model), given=given)
    assert {d.case for d in verdict.differences} == {"given inputs"}
    with pytest.raises(fr.ShapeError, match="'lengths' is int64"):
        verify(fr.compile(model), ReferenceEngine(None, model), given={**given, "lengths": np.array([3, 1, 1])})
    with pytest.raises(fr.ShapeError, match="'T' is 3 in the given inputs, and 5"):
        verify(fr.compile(model), ReferenceEngine(None, model), given=given, sizes={"T": 5})


def test_what_the_engine_cannot_run_is_left_out_and_said():
    class Even(ReferenceEngine):
        def __call__(self, inputs):
            if inputs["lengths"].size % 2:
                raise fr.UnsupportedModelError("even batches only")
            return super().__call__(inputs)

    model = ragged()
    verdict = verify(fr.compile(model), Even(None, model), batches=(1, 2), lengths=(4,))
    assert verdict.good and {d.case for d in verdict.differences} == {"batch 2, T = 4"} and verdict.skipped == ("batch 1, T = 4: even batches only",)
    with pytest.raises(fr.UnsupportedModelError, match="even batches only"):
        verify(fr.compile(model), Even(None, model), batches=(1, 3))


def history():
    """A causal convolution and a GRU whose state is inside, and one layer whose state is an input."""
    w = weights(k=(4, 3, 3), w=(1, 15, 4), r=(1, 15, 5), w2=(1, 12, 5), r2=(1, 12, 4))
    nodes = (
        Node("Conv", "look", ("x", "k"), ("a",), {"pads": [2, 0]}),
        Node("Transpose", "turn", ("a",), ("t",), {"perm": (2, 0, 1)}),
        Node("GRU", "inside", ("t", "w", "r"), ("b",), {"torch_form": 1, "hidden_size": 5}),
        Node("GRU", "outside", ("b", "w2", "r2", "", "", "h0"), ("y", "hn"), {"torch_form": 1, "hidden_size": 4}),
    )
    return Model((Value("x", "float32", ("B", 3, "T")), Value("h0", "float32", (1, "B", 4))), ("y", "hn"), nodes, w)


@pytest.mark.parametrize("states", [None, {"h0": "hn"}])
def test_a_stream_with_states_inside_and_outside(states):
    model = history()
    session = fr.compile(model, states=states)
    verdict = verify(session, ReferenceEngine(None, model))
    assert verdict.good and verdict.stream == f"50 steps, states h0 <- hn{'' if states else ' (guessed)'}, inside look.past, inside.h"
    assert verdict.differences[-1].case == "stream of 50 steps" and 0 < verdict.differences[-1].relative < 5e-6


def test_a_batch_that_the_model_fixes():
    w = weights(k=(4, 3, 3), w=(1, 15, 4), r=(1, 15, 5))
    nodes = (
        Node("Conv", "look", ("x", "k"), ("a",), {"pads": [2, 0]}),
        Node("Transpose", "turn", ("a",), ("t",), {"perm": (2, 0, 1)}),
        Node("GRU", "gru", ("t", "w", "r"), ("y",), {"torch_form": 1, "hidden_size": 5}),
    )
    model = Model((Value("x", "float32", (2, 3, "T")),), ("y",), nodes, w)
    verdict = verify(fr.compile(model), ReferenceEngine(None, model))
    assert (
        verdict.good
        and verdict.stream == "50 steps, inside look.past, gru.h"
        and {d.case for d in verdict.differences} == {"whole, T = 16", "whole, T = 37", "stream of 50 steps"}
    )


class Wrong(ReferenceEngine):
    """Right for a while: a state that drifts is seen in streams alone."""

    calls = 0

    def __call__(self, inputs):
        self.calls += 1
        return {name: a + 1e-3 * (self.calls > 30) for name, a in super().__call__(inputs).items()}


def test_what_goes_wrong_late_in_a_stream_is_found():
    gru = fr.from_torch(pytest.importorskip("torch").nn.GRU(3, 4))
    verdict = verify(fr.compile(gru), Wrong(None, gru))
    assert not verdict.good and {d.case for d in verdict.differences if not d.within} == {"stream of 50 steps", "stream of 50 steps, state"}


def test_the_engine_of_an_exported_program_is_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).eval()
    batch, path = torch.export.Dim("B", min=1, max=64), tmp_path / "m.pt2"
    torch.export.save(torch.export.export(module, (torch.randn(2, 4),), dynamic_shapes=({0: batch},)), path)
    model = fr.from_torch(module)
    engine = engine_for(path, model)
    assert (engine.name, type(engine).__name__) == ("torch", "ExportedEngine")
    verdict = verify(fr.compile(model), engine)
    assert verdict.good and all(0 < d.scale and d.relative < 1e-6 for d in verdict.differences) and verdict.stream.startswith("none")
    with pytest.raises(fr.UnsupportedModelError, match="torch takes 1 inputs.*fastrnn 2"):
        engine_for(path, history())
    path.write_bytes(b"PK no program")
    with pytest.raises(fr.InvalidModelError, match="m.pt2: a damaged zip archive"):
        engine_for(path, model)
    with pytest.raises(fr.UnsupportedModelError, match="reads .onnx files only"):
        engine_for(path, model, "onnxruntime")
