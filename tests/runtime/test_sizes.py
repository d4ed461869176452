"""Any size at once: a program serves every size of its region with the bits of one made for that size alone; streams share programs."""

import functools
import threading

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Graph, Model, Node, Value
from fastrnn.model.sizes import evaluate
from fastrnn.plan.specialise import program_for

torch = pytest.importorskip("torch")


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.out = torch.nn.Embedding(50, 12), torch.nn.LSTM(12, 9, 2, bidirectional=True), torch.nn.Linear(18, 5)

    def forward(self, x):
        return self.out(self.lstm(self.embed(x))[0])


class Attentive(torch.nn.Module):
    """A convolution, a GRU, attention with a causal mask that depends on the length alone."""

    def __init__(self):
        super().__init__()
        self.conv, self.gru, self.keys, self.out = (
            torch.nn.Conv1d(6, 8, 3, padding=1),
            torch.nn.GRU(8, 8),
            torch.nn.Linear(8, 8),
            torch.nn.Linear(8, 3),
        )

    def forward(self, x):
        y = self.gru(torch.relu(self.conv(x.permute(1, 2, 0))).permute(2, 0, 1))[0].transpose(0, 1)
        scores = self.keys(y) @ y.transpose(1, 2) / 8**0.5
        places = torch.arange(x.shape[0])
        scores = scores.masked_fill(places[None, :] > places[:, None], float("-inf"))
        return self.out((torch.softmax(scores, -1) @ y).transpose(0, 1))


def drawn(kind: str, T: int, B: int, random) -> np.ndarray:
    return random.integers(0, 50, (T, B)) if kind == "tagger" else random.standard_normal((T, B, 6)).astype(np.float32)


@functools.cache
def converted(kind: str) -> tuple[Model, torch.nn.Module]:
    torch.manual_seed(0)
    module = {"tagger": Tagger, "attentive": Attentive}[kind]()
    return fr.from_torch(module, (torch.from_numpy(drawn(kind, 7, 3, np.random.default_rng(0))),)), module


@pytest.mark.parametrize("kind", ["tagger", "attentive"])
def test_one_program_serves_a_region_with_the_bits_of_each_size(kind):
    (model, module), random = converted(kind), np.random.default_rng(1)
    session, sizes = fr.compile(model), [(T, B) for T in (2, 3, 4, 5, 9, 16, 17, 40, 64, 101) for B in (1, 2, 3, 4, 6, 11)]
    for T, B in [sizes[k] for k in random.permutation(len(sizes))]:
        x = drawn(kind, T, B, random)
        got = session(x)
        assert np.array_equal(got, fr.compile(model)(x)), (T, B)
        np.testing.assert_allclose(got, module(torch.from_numpy(x)).detach().numpy(), atol=1e-5)
    assert len(session._runners) <= 8


def resolved(program, sizes):
    """A program's numbers for these sizes: of each step the kernel, the arguments, where its pointers go in their blocks or slots."""
    steps = []
    for step in program.steps:
        views = step.pointers.items() if hasattr(step, "pointers") else []
        args = {k: evaluate(v, sizes) for k, v in step.args.items() if k != "act"} if hasattr(step, "args") else {}
        steps.append(
            (step.node, getattr(step, "kernel", type(step)), args, {f: (v.space, evaluate(v.offset, sizes), _held(v, sizes)) for f, v in views})
        )
    return steps


def _held(view, sizes):
    """The numbers of a table; of other memory nothing."""
    return [evaluate(n, sizes) for n in view.array.ravel()] if view.space == "weight" and view.array.dtype in (object, np.int64) else None


@pytest.mark.parametrize("kind", ["tagger", "attentive"])
def test_a_program_for_other_sizes_is_the_one_that_would_be_made_for_them(kind):
    """Step for step, argument for argument, wherever the guards say that it holds; and they say so for most sizes."""
    plan, checked = fr.compile(converted(kind)[0]).plan, 0
    (name,) = plan.model.input_names
    random = np.random.default_rng(2)
    made = program_for(plan, {name: drawn(kind, 30, 5, random).shape})[1]
    symbols = plan.model.inputs[0].shape[:2]
    for T, B in random.integers(2, 200, (60, 2)).tolist():
        sizes = dict(zip(symbols, (T, B)))
        if not all(guard.allows(sizes) for guard in made.region.guards):
            continue
        other = program_for(plan, {name: drawn(kind, T, B, random).shape})[1]
        assert resolved(made, sizes) == resolved(other, sizes), (T, B)
        checked += 1
    assert checked >= 40


def steered() -> Model:
    """Two networks of different widths under an If on an int64 scalar, states outside: as a file that serves two sampling rates."""
    random = np.random.default_rng(0)
    weights = {
        f"{name}{k}": random.uniform(-0.5, 0.5, shape).astype(np.float32)
        for k, H in ((8, 5), (16, 5))
        for name, shape in (("w", (1, 3 * H, 4 * k // 8)), ("r", (1, 3 * H, H)))
    }

    def branch(k):
        start = [
            Node("Slice", f"cut{k}", ("x", "zero", f"n{k}", "two"), (f"x{k}",)),
            Node("GRU", f"gru{k}", (f"x{k}", f"w{k}", f"r{k}", "", "", "h"), (f"y{k}", f"h{k}"), {"torch_form": 1, "hidden_size": 5}),
        ]
        return Graph((*start, Node("Concat", f"wide{k}", (f"y{k}", f"x{k}"), (f"o{k}",), {"axis": 2})), (f"o{k}", f"h{k}"))

    nodes = (
        Node("Equal", "is16", ("sr", "sixteen"), ("fast",)),
        Node("If", "rate", ("fast",), ("y", "hn"), {"then_branch": branch(16), "else_branch": branch(8)}),
    )
    constants = {"sixteen": np.array(16000), "zero": np.array([0]), "two": np.array([2]), "n8": np.array([4]), "n16": np.array([8])}
    return Model(
        (Value("x", "float32", (1, "B", 8)), Value("h", "float32", (1, "B", 5)), Value("sr", "int64", ())),
        ("y", "hn"),
        nodes,
        {**weights, **constants},
    )


def test_an_integer_that_decides_shapes_steers():
    session, random = fr.compile(steered(), states={"h": "hn"}), np.random.default_rng(1)
    x, h = random.standard_normal((1, 3, 8)).astype(np.float32), random.standard_normal((1, 3, 5)).astype(np.float32)
    for rate, width in ((8000, 9), (16000, 13), (8000, 9), (44100, 9)):
        out = session.run({"x": x, "h": h, "sr": np.array(rate)})
        fixed = fr.compile(steered(), constants={"sr": np.array(rate)}).run({"x": x, "h": h})
        assert out["y"].shape == (1, 3, width) and all(np.array_equal(out[name], fixed[name]) for name in out)


def test_a_stream_is_steered_step_by_step():
    session, random = fr.compile(steered(), states={"h": "hn"}), np.random.default_rng(1)
    frames, stream, h = random.standard_normal((6, 1, 2, 8)).astype(np.float32), session.stream(2), np.zeros((1, 2, 5), np.float32)
    for frame, rate in zip(frames, (8000, 8000, 16000, 16000, 8000, 16000)):
        expected = session.run({"x": frame, "h": h, "sr": np.array(rate)})
        assert np.array_equal(stream.step({"x": frame, "sr": np.array(rate)}), expected["y"])
        h = expected["hn"]
    assert np.array_equal(stream.state["h"], h)


def test_streams_share_programs_and_nothing_else():
    layer, random = fr.LSTM(5, 7, seed=0), np.random.default_rng(0)
    session = fr.compile(layer)
    streams = [session.stream(batch) for batch in (1, 1, 2, 3, 9)]
    chunks = [[random.standard_normal((int(T), s.batch, 5)).astype(np.float32) for T in random.integers(1, 20, 6)] for s in streams]
    got = [[] for _ in streams]
    for k in range(6):  # in turns
        for stream, mine, parts in zip(streams, got, chunks):
            mine.append(stream.push(parts[k]))
    for mine, parts in zip(got, chunks):
        assert np.array_equal(np.concatenate(mine), layer(np.concatenate(parts))[0])
    assert sum(len(runners) for form in session._forms_of(None)._forms for runners in form._programs.values()) <= 8


def test_streams_of_one_session_in_several_threads():
    layer, random = fr.GRU(16, 64, seed=0), np.random.default_rng(0)
    session, x = fr.compile(layer), random.standard_normal((200, 1, 16)).astype(np.float32)
    expected, failures = layer(x)[0], []

    def run():
        with session.stream() as stream:
            for _ in range(5):
                stream.reset()
                got = np.concatenate([stream.push(x[:120]), *(stream.step(row)[None] for row in x[120:])])
                if not np.array_equal(got, expected):
                    failures.append(np.abs(got - expected).max())

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_closed_stream_refuses():
    stream = fr.compile(fr.LSTM(2, 3)).stream()
    with stream:
        stream.step(np.zeros((1, 2), np.float32))
    for use in (
        lambda: stream.step(np.zeros((1, 2), np.float32)),
        lambda: stream.push(np.zeros((1, 1, 2), np.float32)),
        lambda: stream.state,
        stream.reset,
    ):
        with pytest.raises(fr.StateError, match="closed"):
            use()
    stream.close()
    assert "closed" in repr(stream)
