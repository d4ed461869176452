"""Products over weights of bfloat16 and int8: the bits that fastrnn/model/small.py says, on every instruction set, with dot products of bytes and without."""

import dataclasses

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cells.activations import Activation
from fastrnn.errors import NotStreamableError
from fastrnn.kernels import isa
from fastrnn.kernels.native import _cpu
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Model, Node, Value, small
from fastrnn.model.stack import stack_model
from fastrnn.plan.graph import narrow
from fastrnn.testing import TRAP_SHAPES, Case, Shape, activate, draw_case

# Every way to sums of bytes that this machine has: (instruction set, with dot products).
WAYS = [(name, dot) for name in isa.supported() for dot in ([True, False] if _cpu.has_dot(name) else [name not in ("avx512", "avx2")])]


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    """Layers of any size are quantized, and dot products come back after each test."""
    monkeypatch.setattr(narrow, "LEAST_WEIGHTS", 0)
    yield
    for name, _ in WAYS:
        isa.load(name).use_dot(_cpu.has_dot(name) or name not in ("avx512", "avx2"))


def use(way, monkeypatch):
    name, dot = way
    monkeypatch.setenv("FASTRNN_ISA", name)
    isa.load(name).use_dot(dot)


def same(a, b) -> bool:
    return all(np.array_equal(x.view(np.uint32), y.view(np.uint32)) for x, y in zip(a, b, strict=True))


def model_of(case: Case) -> Model:
    layer = case.layer("reference")
    return stack_model(layer.options, layer.state_dict(), case.kind, with_lengths=True)


def inputs_of(case: Case, rows=None, lengths=True) -> dict:
    axis = 0 if case.options.get("batch_first") else 1
    pick = (lambda a, k: a) if rows is None else lambda a, k: np.take(a, rows, k)
    return {
        "x": pick(case.x, axis),
        **({"lengths": pick(case.lengths, 0)} if lengths and case.lengths is not None else {}),
        **{f"{n}0": pick(s, 1) for n, s in zip("hc", case.states)},
    }


def exact(model: Model, inputs, monkeypatch) -> list[np.ndarray]:
    """The reference in float32, each activation as the kernels compute it."""

    def compiled(self, x):
        x = np.asarray(x)
        return activate(isa.chosen(), self, x.ravel()).reshape(x.shape)

    with monkeypatch.context() as patch:
        patch.setattr(Activation, "__call__", compiled)
        return list(evaluate(model, inputs, np.float32).values())


def rows_of(case, results, rows):
    return [np.take(r, rows, (0 if case.options.get("batch_first") else 1) if k == 0 else 1) for k, r in enumerate(results)]


def in_pieces(case, session, random):
    """y and states of a stream that is given the sequence in pieces; None where it is no stream's."""
    try:
        stream = session.stream(case.shape.B)
    except NotStreamableError:
        return None
    stream.state = {f"{n}0": s for n, s in zip("hc", case.states)}
    x, t, pieces = np.moveaxis(case.x, 1, 0) if case.options.get("batch_first") else case.x, 0, []
    while t < len(x):
        n = int(random.integers(1, 7))
        pieces += [stream.push(x[t : t + n])] if n > 1 else [stream.step(x[t])[None]]
        t += n
    y = np.concatenate(pieces)
    return [np.moveaxis(y, 0, 1) if case.options.get("batch_first") else y, *stream.state.values()]


def check(case: Case, random, monkeypatch) -> None:
    """int8: all ways give the oracle's bits, alone, in any batch, in pieces, on two threads; bfloat16: those of float32 over the rounded weights."""
    model, inputs = model_of(case), inputs_of(case)
    for precision in ("int8", "bfloat16"):
        small_model, expected = narrow.narrowed(model, precision), None
        for way in WAYS:
            use(way, monkeypatch)
            if expected is None:
                expected = (
                    exact(small_model, inputs, monkeypatch)
                    if precision == "int8"
                    else list(fr.compile(fr.round_weights(model, precision)).run(inputs).values())
                )
            session = fr.compile(small_model, threads=2 if random.random() < 0.3 else 1)
            assert same(expected, list(session.run(inputs).values())), f"{case}: {precision} on {way}"
            if case.shape.B:
                order = random.permutation(np.repeat(np.arange(case.shape.B), 2))[:9]
                for rows in ([int(random.integers(case.shape.B))], order):
                    assert same(rows_of(case, expected, rows), list(session.run(inputs_of(case, rows)).values())), (
                        f"{case}: {precision}, rows {rows} on {way}"
                    )
            if case.lengths is None and case.shape.T and case.shape.B and (pieces := in_pieces(case, session, random)) is not None:
                assert same(expected, pieces), f"{case}: {precision} in pieces on {way}"


@pytest.mark.parametrize("seed", range(2))
def test_drawn_configurations(seed, monkeypatch):
    random = np.random.default_rng(seed)
    for _ in range(25):
        check(draw_case(random), random, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_two_thousand_drawn_configurations(seed, monkeypatch):
    random = np.random.default_rng(seed)
    for _ in range(100):
        check(draw_case(random), random, monkeypatch)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("shape", ["one", "empty_T", "empty_B", "zero_length_row", "all_zero_lengths"])
def test_trap_shapes(kind, shape, monkeypatch):
    check(Case(kind, TRAP_SHAPES[shape], {}, seed=3), np.random.default_rng(0), monkeypatch)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_before", "rnn"])
def test_tiles_of_every_height(kind, monkeypatch):
    """All batches up to fourteen rows and one of more than are done at once; sizes with a rest in every dimension."""
    options = {"reset_after": False} if kind == "gru_before" else {}
    case = Case(kind.partition("_")[0], Shape(T=3, B=75, I=37, H=70), options, seed=1)
    for precision in ("int8", "bfloat16"):
        whole = None
        for way in WAYS:
            use(way, monkeypatch)
            session = fr.compile(model_of(case), precision=precision)
            results = list(session.run(inputs_of(case)).values())
            whole = whole or results
            assert same(whole, results), way
            for n in range(1, 15):
                assert same(rows_of(case, whole, range(n)), list(session.run(inputs_of(case, range(n))).values())), (precision, way, n)


@pytest.mark.parametrize("kind", ["lstm", "projected", "ragged", "gru", "gru_before", "rnn"])
def test_batches_whose_panels_are_widened(kind, monkeypatch):
    """From 256 rows of a call on, bfloat16 is widened before the first step: odd sizes in every dimension, with a projection, a second phase, rows that end."""
    options = {"gru_before": {"reset_after": False}, "projected": {"proj_size": 21}}.get(kind, {})
    shape = Shape(T=9, B=33, I=13, H=37, lengths=(9,) + tuple(range(9)) * 3 + (4,) * 5) if kind == "ragged" else Shape(T=9, B=33, I=13, H=37)
    case = Case({"gru_before": "gru", "projected": "lstm", "ragged": "lstm"}.get(kind, kind), shape, options, seed=2)
    model, inputs = model_of(case), inputs_of(case)
    for way in WAYS:
        use(way, monkeypatch)
        expected = list(fr.compile(fr.round_weights(model, "bfloat16")).run(inputs).values())
        session = fr.compile(model, precision="bfloat16")
        assert same(expected, list(session.run(inputs).values())), way
        assert same(rows_of(case, expected, range(5)), list(session.run(inputs_of(case, range(5))).values())), way


@pytest.mark.parametrize("K", [2047, 2048, 2049, 4500])
def test_sums_past_a_block_of_k(K, monkeypatch):
    """Largest integers throughout, so that a sum of more than a block would pass 2^31."""
    x = np.where(np.arange(3 * K).reshape(3, K) % 2, 1.0, 0.99).astype(np.float32) * 5
    w = np.random.default_rng(0).uniform(0.99, 1, (20, K)).astype(np.float32)
    model = Model(
        (Value("x", "float32", ("B", K)),), ("y",), (Node("Gemm", "dense", ("x", "w", "b"), ("y",), {"transB": 1}),), {"w": w, "b": w[:, 0] * 3}
    )
    expected = evaluate(narrow.narrowed(model, "int8"), {"x": x}, np.float32)["y"]
    for way in WAYS:
        use(way, monkeypatch)
        assert same([expected], [fr.compile(model, precision="int8").run({"x": x})["y"]]), way
    assert np.abs(expected - x.astype(np.float64) @ w.T.astype(np.float64) - w[:, 0] * 3).max() < 5 * K * (1 / 254 + 1 / 8191)


@pytest.mark.parametrize("kernel", [(3,), (2, 3)], ids=str)
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("channels", [6, 10], ids=str)  # of five in a group: pairs of bfloat16 go over the ends of segments
def test_convolutions(kernel, group, channels, monkeypatch):
    random = np.random.default_rng(1)
    w, b = random.standard_normal((8, channels // group, *kernel)).astype(np.float32), random.standard_normal(8).astype(np.float32)
    sizes = ("T", 9)[: len(kernel)]
    pads = [1] * (2 * len(kernel))
    nodes = (
        Node("Conv", "conv", ("x", "w", "b"), ("c",), {"group": group, "pads": pads, "strides": [2] * len(kernel)}),
        Node("Relu", "relu", ("c",), ("y",)),
    )
    model = Model((Value("x", "float32", ("B", channels, *sizes)),), ("y",), nodes, {"w": w, "b": b})
    x = random.standard_normal((3, channels, 11, 9)[: 2 + len(kernel)]).astype(np.float32)
    int8 = evaluate(narrow.narrowed(model, "int8"), {"x": x}, np.float32)["y"]
    for way in WAYS:
        use(way, monkeypatch)
        assert same([int8], [fr.compile(model, precision="int8").run({"x": x})["y"]]), way
        assert same(
            [fr.compile(fr.round_weights(model, "bfloat16")).run({"x": x})["y"]], [fr.compile(model, precision="bfloat16").run({"x": x})["y"]]
        ), way
    floats = fr.compile(model).run({"x": x})["y"]
    assert np.abs(int8 - floats).max() < 0.02 * np.abs(floats).max()


@pytest.mark.parametrize("op", ["Gemm", "Conv"])
def test_what_is_fused_behind_a_product(op, monkeypatch):
    """Operands of elementwise ops behind it, for each unit and for each row, stand in the same table as a window's segments."""
    random = np.random.default_rng(3)
    w, b, scale = (
        random.standard_normal(s).astype(np.float32) for s in ((24, 12, 3) if op == "Conv" else (24, 36), 24, (24, 1) if op == "Conv" else 24)
    )
    shape = ("B", 12, "T") if op == "Conv" else ("B", 36)
    nodes = (
        Node(op, "product", ("x", "w", "b"), ("p",), {} if op == "Conv" else {"transB": 1}),
        Node("Mul", "mul", ("p", "scale"), ("m",)),
        Node("Add", "add", ("m", "p"), ("y",)),
    )
    model = Model((Value("x", "float32", shape),), ("y",), nodes, {"w": w, "b": b, "scale": scale})
    x = random.standard_normal((5, 12, 9) if op == "Conv" else (5, 36)).astype(np.float32)
    for way in WAYS:
        use(way, monkeypatch)
        for precision in ("int8", "bfloat16"):
            product = evaluate(narrow.narrowed(dataclasses.replace(model, nodes=nodes[:1], output_names=("p",)), precision), {"x": x}, np.float32)[
                "p"
            ]
            got = fr.compile(model, precision=precision).run({"x": x})["y"]
            np.testing.assert_allclose(
                got, product * scale + product, rtol=0, atol=(1e-6 if precision == "int8" else 2e-6) * np.abs(got).max(), err_msg=f"{precision} {way}"
            )


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_in_its_row(kind, bad, monkeypatch):
    """A row gives NaN from the step on that meets it, whatever its bytes then are; the others keep their bits."""
    case = Case(kind, Shape(T=7, B=5, I=13, H=37), {}, seed=4)
    model, before = model_of(case), inputs_of(case)
    spoiled = {**before, "x": before["x"].copy()}
    spoiled["x"][2, 1, 5] = bad
    for way in WAYS:
        use(way, monkeypatch)
        session = fr.compile(model, precision="int8")
        good, after = session.run(before), session.run(spoiled)
        assert np.isnan(after["y"][2:, 1]).all() and same([good["y"][:2]], [after["y"][:2]])
        others = [0, 2, 3, 4]
        assert same([good["y"][:, others]], [after["y"][:, others]]), way
        alone = session.run({name: a[:, 1:2] for name, a in spoiled.items()})["y"]
        assert np.isnan(alone[2:]).all() and same([alone[:2]], [good["y"][:2, 1:2]])


@pytest.mark.parametrize("scale", [0.0, 1e-35, 1e-25, 1e30])
def test_rows_of_any_size(scale, monkeypatch):
    """Rows of zeros, of hardly anything, and of very much have scales of their own."""
    case = Case("rnn", Shape(T=4, B=3, I=20, H=33), {"nonlinearity": "relu"}, seed=6)
    model, inputs = model_of(case), inputs_of(case)
    inputs["x"] = inputs["x"].copy()
    inputs["x"][:, 1] *= np.float32(scale)
    expected = exact(narrow.narrowed(model, "int8"), inputs, monkeypatch)
    for way in WAYS:
        use(way, monkeypatch)
        assert same(expected, list(fr.compile(model, precision="int8").run(inputs).values())), way
    assert same([np.delete(expected[0], 1, 1)], [fr.compile(model, precision="int8").run({n: np.delete(a, 1, 1) for n, a in inputs.items()})["y"]])


def test_states_beyond_one():
    """An initial state past what the cell keeps has a scale of its own, of eight bits; at 1 / 127 all of it were cut off at 1."""
    layer, precise = (fr.GRU(20, 96, seed=1, precision=p) for p in ("int8", "float32"))
    x, h = np.zeros((6, 2, 20), np.float32), np.random.default_rng(0).uniform(-50, 50, (1, 2, 96)).astype(np.float32)
    assert np.abs(layer(x, h)[0] - precise(x, h)[0]).mean() < 1.0
    assert np.abs(precise(x, h)[0]).max() > 20


def test_numbers_of_small_weights():
    """Rounding to bfloat16 against ml_dtypes, quantization against its definition."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    w = np.concatenate(
        [
            np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
            * np.float32(10.0) ** np.random.default_rng(1).integers(-30, 30, 100_000),
            np.array([0.0, -0.0, np.inf, -np.inf, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, np.finfo(np.float32).tiny]),
        ]
    ).astype(np.float32)
    assert np.array_equal(small.to_bfloat16(w), w.astype(ml_dtypes.bfloat16).view(np.uint16))
    assert np.isnan(small.of_bfloat16(small.to_bfloat16(np.array([np.nan, np.uint32(0x7F800001).view(np.float32)], np.float32)))).all()
    rows = np.random.default_rng(2).standard_normal((9, 70)).astype(np.float32)
    rows[3] = 0
    q, s = small.quantized(rows, 1)
    assert q.dtype == np.int8 and np.abs(q).max(axis=1).tolist() == [127] * 3 + [0] + [127] * 5 and s[3] == 1
    expected = np.abs(rows).max(axis=1) / np.float32(127)
    assert np.array_equal(np.delete(s, 3), np.delete(expected, 3)) and np.abs(small.restored(q, s) - rows).max() <= 0.5001 * s.max()


def test_one_matrix_for_two_readers():
    """An LSTM has a scale for each of its units, a Gemm for each of its rows, whatever reads the same numbers; factors that nearly agree are not one."""
    random = np.random.default_rng(5)
    w, r = (random.uniform(-0.1, 0.1, (1, 256, 64)).astype(np.float32) for _ in range(2))
    weights = {"w": w, "r": r, "m": random.standard_normal((64, 300)).astype(np.float32)}
    nodes = (
        Node("LSTM", "lstm", ("x", "w", "r"), ("y", "", "")),
        Node("Conv", "conv", ("c", "w"), ("z",), {"pads": [0, 0]}),
        Node("Gemm", "first", ("g", "m"), ("p",), {"alpha": 123456.6}),
        Node("Gemm", "second", ("g", "m"), ("q",), {"alpha": 123457.4}),
    )
    model = Model(
        (Value("x", "float32", ("T", "B", 64)), Value("c", "float32", ("B", 256, "n")), Value("g", "float32", ("B", 64))),
        ("y", "z", "p", "q"),
        nodes,
        weights,
    )
    inputs = {
        "x": random.standard_normal((3, 2, 64)).astype(np.float32),
        "c": random.standard_normal((2, 256, 70)).astype(np.float32),
        "g": random.standard_normal((2, 64)).astype(np.float32),
    }
    whole = fr.compile(model).run(inputs)
    for precision in ("int8", "bfloat16"):
        got = fr.compile(model, precision=precision).run(inputs)
        assert all(np.abs(got[n] - whole[n]).max() < 0.05 * np.abs(whole[n]).max() for n in whole)
        assert not np.array_equal(got["p"], got["q"])


@pytest.mark.parametrize("precision", [{"take": "int8"}, {"relu": "bfloat16"}, {"nobody": "int8"}])
def test_what_a_precision_does_not_reach_is_refused_by_name(precision):
    nodes = (Node("Gather", "take", ("table", "i"), ("t",)), Node("Relu", "relu", ("t",), ("y",)))
    model = Model((Value("i", "int64", ("B",)),), ("y",), nodes, {"table": np.ones((5, 3), np.float32)})
    with pytest.raises(fr.UnsupportedModelError, match=next(iter(precision))):
        fr.compile(model, precision=precision)
