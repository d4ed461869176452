"""Models, sessions and layers that are pickled, copied and sent to other processes: the same bits, for the instruction set that is there."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cells import gallery
from fastrnn.kernels import isa, registry
from fastrnn.model import Model, Node, Value
from fastrnn.model.stack import stack_model
from fastrnn.plan import policy
from fastrnn.plan.weights.unpack import absent_weights
from fastrnn.testing import JIT_ISAS, OPTIONS, Case, Shape

WAYS = {"pickle": lambda a: pickle.loads(pickle.dumps(a)), "deepcopy": copy.deepcopy, "copy": copy.copy}
# Names of options with other weights or another place for them; the rest differ in activations alone.
PACKED = [
    (kind, name)
    for kind, options in OPTIONS.items()
    for name in options
    if name in ("default", "before", "peepholes", "proj", "all", "no_bias", "reverse", "stack_bidirectional", "parameters", "two_directions")
]


def same(got, want) -> bool:
    return all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in zip(got, want, strict=True))


def model_of(layer) -> Model:
    return stack_model(layer.options, layer.state_dict(), "net", with_lengths=True)


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("H", [5, 16, 24, 45])  # a narrow last block, none, half a vector, a wide one
@pytest.mark.parametrize("kind,name", PACKED)
def test_what_was_packed_is_unpacked_to_the_bit(kind, name, H, far, each_isa, monkeypatch):
    if far:
        monkeypatch.setattr(policy, "FAR_BYTES", dict.fromkeys(policy.FAR_BYTES, 0))
    options = OPTIONS[kind][name]
    model = model_of(Case(kind, Shape(3, 2, 7, H), options).layer())
    restored = absent_weights(fr.compile(model, backend="native").plan)
    assert restored.keys() == {name for name in model.weights if name.endswith((".W", ".R", ".P", ".projection"))}
    for name, array in restored.items():
        assert same([array], [model.weights[name]]), name


@pytest.mark.parametrize("cell", gallery.CELLS, ids=lambda cell: cell.name)
@pytest.mark.usefixtures("cells_compile")
def test_custom_cells_are_unpacked_too(cell):
    layer = fr.Recurrent(cell, 11, 11, num_layers=2, bidirectional=False, seed=0)
    model = model_of(layer)
    for name, array in absent_weights(fr.compile(model).plan).items():
        assert same([array], [model.weights[name]]), name


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("backend", ["native", "jit", "reference"])
@pytest.mark.parametrize("kind,name", [("lstm", "all"), ("gru", "before"), ("gru", "stack_bidirectional"), ("rnn", "no_bias")])
def test_layers_sessions_and_models_travel_before_and_after_use(kind, name, backend, way):
    if backend == "jit" and isa.chosen() not in JIT_ISAS:
        pytest.skip("no cells are compiled for this instruction set")
    case = Case(kind, Shape(9, 3, 7, 21, ragged=True), OPTIONS[kind][name])
    fresh, layer = case.layer(backend), case.layer(backend)
    want = case.run(layer)
    model = model_of(layer)
    unused, session = fr.compile(model, backend=backend), fr.compile(model, backend=backend)
    inputs = {"x": case.x, **{f"{letter}0": s for letter, s in zip("hc", case.states)}, "lengths": case.lengths}
    session.run(inputs)
    for one in (fresh, layer):
        moved = way(one)
        assert same(case.run(moved), want) and repr(moved) == repr(layer) and moved is not one
        assert same(moved.state_dict().values(), layer.state_dict().values())
    for one in (unused, session):
        moved = way(one)
        assert same(moved.run(inputs).values(), want) and moved.plan.backend == backend and moved.model.states == model.states
        assert same(way(moved).run(inputs).values(), want)  # and on from there
    assert same(fr.compile(way(model), backend=backend).run(inputs).values(), want)


def test_a_pickle_holds_weights_once_and_no_address():
    layer = fr.LSTM(64, 128, seed=0)
    weight_bytes = sum(a.nbytes for a in layer.state_dict().values())
    layer(np.zeros((3, 1, 64), np.float32))
    session = fr.compile(model_of(layer))
    addresses = [getattr(k, f).to_bytes(8, "little") for k in registry.kernels("native", isa.chosen()).values() for f in ("run", "work_bytes")]
    for one in (layer, session, model_of(layer)):
        data = pickle.dumps(one)
        assert len(data) < weight_bytes + 8000 and not any(a in data for a in addresses)


def test_a_session_brings_its_guesses_and_constants():
    layer = fr.GRU(4, 6, seed=0)
    model = model_of(layer)
    guessed = fr.compile(Model(model.inputs, model.output_names, model.nodes, model.weights))
    h0 = np.full((1, 1, 6), 0.5, np.float32)
    fixed = fr.compile(Model(model.inputs, ("y",), model.nodes, model.weights), constants={"h0": h0}, threads=2)
    x = np.random.default_rng(0).standard_normal((5, 1, 4)).astype(np.float32)
    for session in (guessed, fixed):
        moved = pickle.loads(pickle.dumps(session))
        assert moved.states == session.states and moved.plan.threads == session.plan.threads
        assert same([moved.stream().push(x)], [session.stream().push(x)])
    assert same([pickle.loads(pickle.dumps(fixed)).stream().push(x)], [layer(x, h0)[0]])


def test_weights_that_stayed_are_not_written_to():
    """A weight that something else reads, or read before constants were folded, travels as it was."""
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((1, 5, 5) if name != "b" else (1, 10)).astype(np.float32) for name in "wrb"}
    before = {name: a.copy() for name, a in weights.items()}
    nodes = (Node("RNN", "rnn", ("x", "w", "r", "b"), ("y",)), Node("Add", "add", ("y", "w"), ("s",)), Node("Tanh", "t", ("b",), ("z",)))
    session = fr.compile(Model((Value("x", "float32", ("T", "B", 5)),), ("s", "z"), nodes, weights))
    x = random.standard_normal((5, 5, 5)).astype(np.float32)
    want = session(x)
    assert same(pickle.loads(pickle.dumps(session))(x), want) and same(weights.values(), before.values())
    assert same(session(x), want)


def test_what_does_not_travel_says_what_does():
    session = fr.compile(model_of(fr.LSTM(3, 4, seed=0)))
    stream, kernel = session.stream(2), next(iter(registry.kernels("native", isa.chosen()).values()))
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"stream\.state.*session\.stream\(batch=2\)"):
            action(stream)
        with pytest.raises(TypeError, match="addresses of this process"):
            action(kernel)
        with pytest.raises(fr.StateError, match="packed"):
            action(session.model)
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    stream.push(x[:3])
    there = pickle.loads(pickle.dumps(session)).stream(batch=2)
    there.state = pickle.loads(pickle.dumps(stream.state))
    assert same([there.push(x[3:])], [stream.push(x[3:])])


@pytest.mark.usefixtures("cells_compile")
def test_a_cell_that_is_nowhere_to_be_found_is_named():
    @fr.cell(gates=("a",), name="travels_nowhere")
    def local(a, h):
        return fr.tanh(a) + 0.5 * h

    data = pickle.dumps(fr.Recurrent(local, 2, 3))
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    done = subprocess.run([sys.executable, "-P", "-c", code], input=data, capture_output=True, check=False)
    assert b"UnsupportedModelError: cell 'travels_nowhere'" in done.stderr
    assert pickle.loads(data).options.cell is local is copy.deepcopy(local)


CELLS = """
import fastrnn as fr

@fr.cell(gates=("z", "n"))
def mine(z, n, h):
    return h + fr.sigmoid(z) * (fr.tanh(n) - h)
"""

SCRIPT = """
import multiprocessing, os, pickle, sys
import numpy as np
import fastrnn as fr

@fr.cell(gates=("a",))
def of_main(a, h):
    return fr.tanh(a) + 0.25 * h

def run(one, x, queue):
    y = one(x)[0]
    isa = (one if isinstance(one, fr.Session) else one._session).plan.isa
    queue.put((isa, y, "cells_of_mine" in sys.modules))

if __name__ == "__main__":
    from cells_of_mine import mine
    method, other = sys.argv[1:]
    context = multiprocessing.get_context(method)
    x = np.random.default_rng(0).standard_normal((6, 3, 5)).astype(np.float32)
    layers = [fr.LSTM(5, 21, seed=0), fr.Recurrent(mine, 5, 9, seed=1), fr.Recurrent(of_main, 5, 9, seed=2)]
    from fastrnn.model.stack import stack_model
    sessions = [fr.compile(stack_model(l.options, l.state_dict(), "net")) for l in layers]
    unused = [fr.LSTM(5, 21, seed=0)]
    want = [one(x)[0] for one in layers]
    if other:
        os.environ["FASTRNN_ISA"] = other  # of processes that start from here on
    queue = context.Queue()
    for one, y in zip([*layers, *sessions, *unused], [*want, *want, want[0]]):
        process = context.Process(target=run, args=(one, x, queue))
        process.start()
        isa, got, imported = queue.get(timeout=100)
        process.join()
        assert np.array_equal(got, y) and process.exitcode == 0, one
        assert isa == (other or isa)
    print("done")
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.usefixtures("cells_compile")
def test_other_processes(method, tmp_path):
    """Used and unused ones, custom cells of a module and of __main__, and an instruction set narrower than here where there is one that cells are compiled for."""
    (tmp_path / "cells_of_mine.py").write_text(CELLS)
    (tmp_path / "script.py").write_text(SCRIPT)
    other = next((name for name in JIT_ISAS if name != isa.chosen()), "")
    done = subprocess.run(
        [sys.executable, "script.py", method, other], cwd=tmp_path, capture_output=True, check=False, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    assert done.stdout == "done\n", done.stderr
