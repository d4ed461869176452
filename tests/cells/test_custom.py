"""Cells of one's own: what is declared, what is refused and where, names in files, second phases, projections, many states."""

import functools
import inspect
import subprocess
import sys

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cells import find_cell, gru, lstm, rnn
from fastrnn.model.builder import GraphBuilder
from fastrnn.model.graph import Model, Node, Value
from fastrnn.model.stack import add_stack, stack_model
from fastrnn.testing import Case, Shape


def both(cell, I, H, x, state=None, lengths=None, scalars=None, **options):
    """Outputs compiled and by the reference, flat."""
    results = []
    for backend in ("auto", "reference"):
        y, final = fr.Recurrent(cell, I, H, seed=1, backend=backend, **options)(x, state, lengths, **(scalars or {}))
        results.append([y, *(final if isinstance(final, tuple) else (final,))])
    return results


def close(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * max(1.0, np.abs(b).max(initial=0.0)))


KINDS = {"rnn": (rnn, ("a",)), "gru": (gru, "rznm"), "gru_before": (lambda: gru(reset_after=False), "rzn"), "lstm": (lstm, "ifgo")}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_built_in_cell_declared_again_has_its_bits(kind, each_jit_isa):
    """The same gates and function under another name: parameters by the same names, outputs by the same bits."""
    original = KINDS[kind][0]()
    cell = fr.cell(original.gates, original.states, operand=original.operand, name=f"my_{kind}")(original.pointwise)
    for shape in (Shape(9, 5, 7, 21), Shape(30, 1, 12, 16), Shape(12, 2, 40, 24, ragged=True)):
        case = Case(kind.split("_")[0], shape, {"num_layers": 2, "reset_after": False} if kind == "gru_before" else {"num_layers": 2}, seed=3)
        mine = fr.Recurrent(cell, shape.I, shape.H, num_layers=2)
        mine.load_state_dict(case.layer().state_dict())
        for a, b in zip(case.run(mine), case.run(case.layer("native")), strict=True):
            assert np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_the_function_runs_on_arrays_as_it_stands():
    @fr.cell(gates=("z", "n"))
    def plain(z, n, h):
        z = fr.sigmoid(z)
        return h + z * (fr.tanh(n) - h)

    z, n, h = np.random.default_rng(0).standard_normal((3, 4, 5))
    want = h + (np.tanh(n) - h) / (1 + np.exp(-z))
    np.testing.assert_allclose(plain(z, n, h), want, rtol=1e-12)
    assert plain(z, n, h).dtype == np.float64


@pytest.mark.usefixtures("cells_compile")
def test_everything_at_once():
    """Gates that see one side or have no bias, a second phase of two gates, four states, parameters, scalars, x itself."""

    def operand(r, h, c, dt):
        return fr.sigmoid(r) * h * fr.exp(-dt) + c * 0.1

    @fr.cell(
        gates=(fr.Gate("a", sees="x", bias=False), fr.Gate("b", second=True), "r", fr.Gate("m", sees="h", second=True)),
        states=("h", "c", "d", "e"),
        operand=operand,
        parameters=("u", "v"),
        scalars=("dt", "q"),
    )
    def everything(a, b, r, m, h, c, d, e, u, v, dt, q, x):
        new = fr.tanh(a + b * u + q) + 0.1 * x
        return new, c * 0.5 + fr.where(a > 0, fr.tanh(m), v), 0.9 * fr.minimum(d + dt, e), fr.sqrt(fr.abs(e)) - fr.maximum(h, -0.3) * q * r

    random, T, B = np.random.default_rng(0), 7, 5
    for H in (16, 21, 8, 5):
        x = random.standard_normal((T, B, H)).astype(np.float32)
        scalars = {name: random.uniform(0, 1, (T, B)).astype(np.float32) for name in ("dt", "q")}
        state = tuple(random.standard_normal((1, B, H)).astype(np.float32) for _ in range(4))
        for options in ({}, {"reverse": True}):
            for lengths in (None, np.array([7, 0, 3, 7, 1])):
                close(*both(everything, H, H, x, state, lengths, scalars, **options))
        turned = {name: np.ascontiguousarray(a.T) for name, a in scalars.items()}
        close(*both(everything, H, H, np.ascontiguousarray(x.swapaxes(0, 1)), state, None, turned, batch_first=True))
        close(*both(everything, H, H, x, tuple(np.concatenate([s, -s]) for s in state), None, scalars, bidirectional=True))
    layer = fr.Recurrent(everything, 5, 5, seed=0)
    assert {n: a.shape for n, a in layer.state_dict().items()} == {
        "weight_ih_l0": (15, 5),
        "weight_hh_l0": (15, 5),
        "bias_ih_l0": (10,),
        "bias_hh_l0": (15,),
        "weight_u_l0": (5,),
        "weight_v_l0": (5,),
    }
    unbatched, batched = layer(x[:, 0], dt=scalars["dt"][:, 0], q=scalars["q"][:, 0]), layer(x, **scalars)
    assert np.array_equal(unbatched[0], batched[0][:, 0])


@pytest.mark.usefixtures("cells_compile")
def test_a_projection():
    @fr.cell(gates=("i", "g"), states=("h", "c"))
    def projectable(i, g, c):
        c = c + fr.sigmoid(i) * (fr.tanh(g) - c)
        return fr.tanh(c), c

    x = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    for P in (1, 8, 19):
        got, want = both(projectable, 4, 21, x, proj_size=P, num_layers=2)
        assert got[0].shape == (6, 3, P)
        close(got, want)


@pytest.mark.parametrize("gates", [1, 2, 3, 5, 8])
def test_any_number_of_gates(gates, each_jit_isa):
    """With rests of every kind: more gates than a tile of the built-in cells has."""
    names = tuple(f"g{k}" for k in range(gates))

    def many(h, **values):
        return fr.tanh(sum(values[name] * (0.3 + k / gates) for k, name in enumerate(names)) / gates + 0.1 * h)

    many.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("h", *names)])
    cell = fr.cell(gates=names, name=f"many_{gates}")(many)
    x = np.random.default_rng(0).standard_normal((5, 7, 6)).astype(np.float32)
    for H in (3, 16, 24, 40, 45):
        close(*both(cell, 6, H, x))


def refused(match, **declaration):
    function = declaration.pop("function", lambda a, h: a + h)
    with pytest.raises(fr.UnsupportedModelError, match=match):
        fr.cell(**{"gates": ("a",), "name": "bad", **declaration})(function)


def test_declarations_that_do_not_hold_together():
    refused("'b'", function=lambda b, h: b)
    refused("two things", states=("a",))
    refused("not a name", gates=("a b",))
    refused("2 results are declared, 1 were returned", states=("h", "c"))
    refused("second", operand=lambda h: h)
    refused("second", gates=(fr.Gate("a", second=True),))
    refused("passed by name", function=lambda *a: a[0])
    refused("1 to 8 gates", gates=tuple(f"g{k}" for k in range(9)))
    refused("cannot be called", parameters=("hh",))
    refused("'a'", gates=(fr.Gate("a", second=True),), operand=lambda a: a)
    refused("a condition is not a result", function=lambda a: a > 1)
    refused("cannot be called h0, lengths", function=lambda a, lengths, h0: a, scalars=("lengths", "h0"))
    refused("give name=", function=functools.partial(lambda a, k: a * k, k=2.0), name=None)
    refused("'hh'", function=functools.partial(lambda hh, k: hh * k, k=2.0))
    refused("cannot be told", gates=("a", fr.Gate("b", second=True)), operand="r * h")
    refused("text", name=5)
    refused("gates must be a sequence of names, got 5", gates=5)
    refused("scalars must be a sequence of names, got None", scalars=None)
    refused("5 is not a name", gates=(5,))
    with pytest.raises(fr.UnsupportedModelError, match="True or False"):
        fr.Gate("a", bias="no")
    with pytest.raises(fr.UnsupportedModelError, match="sees"):
        fr.Gate("a", sees="y")
    with pytest.raises(fr.UnsupportedModelError, match="does not see"):
        fr.Gate("a", sees="x", second=True)


def test_errors_name_the_line_of_the_cell():
    def helper(a):
        if a > 0:  # the line
            return a
        return -a

    line = helper.__code__.co_firstlineno + 1
    refused(rf"test_custom.py, line {line}, `if a > 0:  # the line`.*fr.where", function=lambda a, h: helper(a) + h)
    refused(r"test_custom.py, line \d+, .*no attribute 'log'", function=lambda a, h: fr.log(a))
    refused(r"numpy.sin", function=lambda a, h: np.sin(a))
    refused(r"declare a vector as a parameter", function=lambda a, h: a * np.ones(3))
    refused(r"Python number", function=lambda a, h: a * float(h))
    refused(r"square", function=lambda a, h: a**3)
    refused(r"takes numbers", function=lambda a, h: (a > 0) + h)
    refused(r"takes conditions", function=lambda a, h: fr.where(a & h, a, h))
    refused(r"not complex64", function=lambda a: a * np.complex64(1j))
    refused(r"test_custom.py, line \d+, .refused.*no elements", function=lambda a: np.clip(a, -1, 1))  # NumPy's own lines say nothing


def test_what_would_change_the_array_in_place_is_refused():
    """On arrays h += a changes `old` and the caller's array too; followed with stand-ins it would not."""

    def doubles(a, h):
        old = h
        h += a
        return old * h

    refused(rf"line {doubles.__code__.co_firstlineno + 2}, `h \+= a`.*write h = h \+ a", function=doubles)


@pytest.mark.usefixtures("cells_compile")
def test_functions_of_numbers_are_numbers():
    assert fr.sigmoid(2) == pytest.approx(1 / (1 + np.exp(-2))) and fr.where(True, 1.5, 2.5) == 1.5
    cell = fr.cell(gates=("a",), name="numbers")(lambda a, h: a * fr.sigmoid(2) + fr.where(len("xy") > 1, 0.5, 1.5) * fr.tanh(h))
    close(*both(cell, 3, 5, np.ones((3, 2, 3), np.float32)))


@pytest.mark.usefixtures("cells_compile")
def test_layers_refuse_what_the_cell_cannot():
    hidden = fr.cell(gates=("a",), name="reads_h")(lambda a, h: a + h)
    raw = fr.cell(gates=("a",), name="reads_x")(lambda a, x: a + x)
    timed = fr.cell(gates=("a",), scalars=("dt",), name="timed")(lambda a, dt: a * dt)
    second = fr.cell(gates=("r", fr.Gate("n", second=True)), operand=lambda r: fr.sigmoid(r), name="second")(lambda r, n: fr.tanh(n))
    for cell in (hidden, second):  # an operand has H units, where the weights over h have P columns
        with pytest.raises(fr.UnsupportedModelError, match="proj_size"):
            fr.Recurrent(cell, 3, 8, proj_size=2)
    with pytest.raises(fr.ShapeError, match="hidden_size = 8"):
        fr.Recurrent(raw, 3, 8)
    with pytest.raises(fr.ShapeError, match="hidden_size = 8"):
        fr.Recurrent(raw, 8, 8, num_layers=2, bidirectional=True)
    x = np.zeros((4, 2, 3), np.float32)
    with pytest.raises(fr.ShapeError, match="dt"):
        fr.Recurrent(timed, 3, 8)(x)
    with pytest.raises(fr.ShapeError, match=r"\(4, 2\)"):
        fr.Recurrent(timed, 3, 8)(x, dt=np.zeros((4, 3), np.float32))
    with pytest.raises(fr.ShapeError, match="none"):
        fr.LSTM(3, 4)(x, dt=x)
    with pytest.raises(fr.UnsupportedModelError, match="Recurrent"):
        fr.Recurrent(lstm(), 3, 4)


@pytest.mark.usefixtures("cells_compile")
def test_a_file_names_its_cell(tmp_path):
    """Loading it in a process that has no such cell says so; one that has another of that name is told apart."""
    cell = fr.cell(gates=("a",), name="saved_cell")(lambda a, h: fr.tanh(a) * 0.5 + h)
    layer = fr.Recurrent(cell, 3, 4, seed=1)
    path = tmp_path / "model.safetensors"
    stack_model(layer.options, layer.state_dict(), "net").save(path)
    code = f"""import fastrnn as fr
half = 0.5
for function in (None, lambda a, h: fr.tanh(a) * 0.25 + h, lambda a, h: 0.5 * fr.tanh(a) + h, lambda a, h: h.__radd__(fr.tanh(a) * half)):
    if function: fr.cell(gates=("a",), name="saved_cell")(function)
    try: print(fr.load({str(path)!r}) is not None)
    except fr.UnsupportedModelError as e: print(e)
"""
    absent, another, turned, same = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/"
    ).stdout.splitlines()
    assert "'saved_cell' is not registered" in absent and "net" in absent
    assert "something else" in another and "something else" in turned  # another order of operands is another list of instructions
    assert same == "True"


@pytest.mark.parametrize("backend", ["jit", "reference"])
@pytest.mark.usefixtures("cells_compile")
def test_a_layer_keeps_its_cell_when_the_name_is_given_to_another(backend, tmp_path):
    """As where a notebook runs a definition again, changed: layers, sessions and models made before stay what they were, for lengths they have not met too."""
    first = fr.cell(gates=("a",), name="again")(lambda a, h: fr.tanh(a) + 0.5 * h)
    layer, x = fr.Recurrent(first, 3, 4, seed=0, backend=backend), np.random.default_rng(0).standard_normal((9, 2, 3)).astype(np.float32)
    model = stack_model(layer.options, layer.state_dict(), "net")
    model.save(tmp_path / "model.safetensors")
    before = layer(x)[0]
    second = fr.cell(gates=("a",), name="again")(lambda a, h: 0.25 * fr.tanh(a))
    for kept in (layer, fr.Recurrent(first, 3, 4, seed=0, backend=backend)):
        assert np.array_equal(kept(x)[0], before)
        if backend == "jit":  # NumPy's products promise no bits over lengths
            assert np.array_equal(kept(x[:5])[0], before[:5])
        else:
            np.testing.assert_allclose(kept(x[:5])[0], before[:5], rtol=1e-6, atol=1e-6)
    for kept in (model, fr.load(tmp_path / "model.safetensors")):
        assert np.array_equal(fr.compile(kept, backend=backend).run({"x": x})["y"], before)
    assert find_cell("again") is second
    assert not np.array_equal(fr.Recurrent("again", 3, 4, seed=0, backend=backend)(x)[0], before)


@pytest.mark.parametrize("backend", ["jit", "reference"])
def test_no_features_and_no_outputs(backend, each_jit_isa):
    """Files may have such layers: chains of no products are their biases, whatever lies where weights would."""
    cell = fr.cell(gates=("a",), name="nothing")(lambda a: fr.tanh(a))
    for I, P in ((0, 3), (2, 0)):
        weights = {
            "w": np.ones((1, 5, I), np.float32),
            "r": np.zeros((1, 5, P), np.float32),
            "b": np.full((1, 10), 0.25, np.float32),
            "p": np.ones((1, P, 5), np.float32),
        }
        node = Node(
            "Recurrent",
            "n",
            ("x", "w", "r", "b", "", "", "", "", "p"),
            ("y",),
            {"cell": cell.name, "fingerprint": cell.fingerprint, "hidden_size": 5},
        )
        model = Model((Value("x", "float32", ("T", "B", I)),), ("y",), (node,), weights, (), "nothing")
        y = fr.compile(model, backend=backend).run({"x": np.zeros((3, 2, I), np.float32)})["y"]
        np.testing.assert_allclose(y, np.full((3, 2, P), 5 * np.tanh(0.5)), rtol=1e-6)


@pytest.mark.usefixtures("cells_compile")
def test_beside_native_layers_in_one_program():
    cell = fr.cell(gates=("a",), name="beside")(lambda a, h: 0.5 * (fr.tanh(a) + h))
    first, second, third = fr.LSTM(5, 12, seed=1), fr.Recurrent(cell, 12, 9, seed=2), fr.GRU(9, 4, seed=3)
    build = GraphBuilder()
    for name, layer, x, y in (("one", first, "x", "u"), ("two", second, "u", "v"), ("three", third, "v", "y")):
        add_stack(build, name, layer.options, layer.state_dict(), x, y)
    model = Model((Value("x", "float32", ("T", "B", 5)),), ("y",), tuple(build.nodes), build.weights, (), "mixed")
    session = fr.compile(model)
    x = np.random.default_rng(0).standard_normal((11, 3, 5)).astype(np.float32)
    y = third(second(first(x)[0])[0])[0]
    assert np.array_equal(session(x), y)
    assert "jit" in session.explain() and "native" in session.explain()
    stream = session.stream(3)
    assert np.array_equal(np.concatenate([stream.push(x[:4]), stream.push(x[4:])]), y)
