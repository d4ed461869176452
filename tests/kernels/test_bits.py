"""The numerics promise: the same bits alone and in any batch, at any position, whole or in pieces, on every ISA."""

import numpy as np
import pytest

from fastrnn.errors import NotStreamableError
from fastrnn.kernels import isa
from fastrnn.model.stack import stack_model
from fastrnn.plan import policy
from fastrnn.plan.lowering import parallel
from fastrnn.runtime.session import compile
from fastrnn.testing import JIT_ISAS, OPTIONS, TRAP_SHAPES, Case, Shape, draw_case

EACH_ISA = isa.supported()
NATIVE = [("native", name) for name in EACH_ISA]
JIT = [("jit", name) for name in JIT_ISAS]


def same_bits(a, b):
    return all(np.array_equal(x.view(np.uint32), y.view(np.uint32)) for x, y in zip(a, b, strict=True))


def take_rows(case, rows):
    """The same layer's inputs for some batch rows, in another order or repeated."""
    axis = 0 if case.options.get("batch_first") else 1
    x, states = np.take(case.x, rows, axis), [np.take(s, rows, 1) for s in case.states]
    lengths = None if case.lengths is None else case.lengths[rows]
    return x, tuple(states) if len(states) == 2 else states[0], lengths


def outputs(layer, x, state, lengths):
    y, final = layer(x, state, lengths)
    return [y, *(final if isinstance(final, tuple) else (final,))]


def rows_of(case, results, rows):
    return [np.take(r, rows, (0 if case.options.get("batch_first") else 1) if k == 0 else 1) for k, r in enumerate(results)]


def stream_in_pieces(case, layer, random, backend):
    """y of the whole sequence through a stream, in chunks of random lengths; None where the layer cannot be streamed."""
    session = compile(stack_model(layer.options, layer.state_dict(), case.kind), backend=backend)
    try:
        stream = session.stream(case.shape.B)
    except NotStreamableError:
        assert case.options.get("bidirectional") or case.options.get("reverse")
        return None
    stream.state = {f"{n}0": s for n, s in zip("hc", case.states)}
    x, t, pieces = np.moveaxis(case.x, 1, 0) if case.options.get("batch_first") else case.x, 0, []
    while t < case.shape.T:
        n = int(random.integers(1, 9))
        piece = x[t : t + n]
        pieces += [stream.push(piece)] if n > 1 and len(piece) > 1 else [stream.step(row)[None] for row in piece]
        t += n
    y = np.concatenate(pieces)
    return [np.moveaxis(y, 0, 1) if case.options.get("batch_first") else y, *stream.state.values()]


def check(case, random, monkeypatch, backends):
    whole = None
    for backend, name in backends:
        monkeypatch.setenv("FASTRNN_ISA", name)
        layer = case.layer(backend)
        results = case.run(layer)
        whole = whole or results
        assert same_bits(whole, results), f"{case}: {backend} {name} differs from {backends[0]}"
        if name == EACH_ISA[-1] and name == "baseline" and case.shape.B * case.shape.T > 60:
            continue  # slow, and the other ISAs compare every row with it above
        row = [int(random.integers(case.shape.B))]
        assert same_bits(rows_of(case, whole, row), outputs(layer, *take_rows(case, row))), f"{case}: row {row} alone differs on {name}"
        order = random.permutation(np.repeat(np.arange(case.shape.B), 2))
        assert same_bits(rows_of(case, whole, order), outputs(layer, *take_rows(case, order))), f"{case}: rows {order} differ on {name}"
        if case.lengths is None and (pieces := stream_in_pieces(case, layer, random, backend)) is not None:
            assert same_bits(whole, pieces), f"{case}: in pieces differs on {name}"


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(4, 20))])
def test_drawn_configurations(seed, monkeypatch):
    """The first of each seed is compiled by the jit backend too; the slow sweep does all."""
    random = np.random.default_rng(seed)
    for k in range(100):
        check(draw_case(random), random, monkeypatch, NATIVE if k else NATIVE + JIT)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 6))])
def test_drawn_configurations_of_far_weights(seed, monkeypatch):
    """With tiles for panels from beyond L2, whatever the size."""
    monkeypatch.setattr(policy, "FAR_BYTES", dict.fromkeys(policy.FAR_BYTES, 0))
    random = np.random.default_rng(100 + seed)
    for _ in range(30):
        check(draw_case(random), random, monkeypatch, NATIVE)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_drawn_configurations_compiled(seed, monkeypatch):
    random = np.random.default_rng(seed)
    for _ in range(100):
        check(draw_case(random), random, monkeypatch, NATIVE[:1] + JIT)


@pytest.mark.parametrize("shape", ["tail", "ragged", *(pytest.param(name, marks=pytest.mark.sweep) for name in ("prime", "long"))])
@pytest.mark.parametrize("kind", list(OPTIONS))
def test_every_option_on_awkward_shapes(kind, shape, monkeypatch):
    random = np.random.default_rng(9)
    for options in OPTIONS[kind].values():
        check(Case(kind, TRAP_SHAPES[shape], options, seed=5), random, monkeypatch, NATIVE + JIT if shape in ("ragged", "long") else NATIVE)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_before", "rnn"])
# whole blocks, a narrow last one (AVX-512), and one that is not full; so many that four gates have products too (AVX2), one block left over, two, and a narrow one
@pytest.mark.parametrize(("H", "I"), [(64, 5), (72, 24), (100, 65), (128, 9), (136, 17), (148, 4)])
def test_tiles_of_every_height(kind, H, I, monkeypatch):
    """Layers wide enough for products of any vectors: all rows of every batch up to 14, and of one of more rows than are done at once, are as alone."""
    options = {"reset_after": False} if kind == "gru_before" else {}
    case = Case(kind.partition("_")[0], Shape(T=5, B=80, I=I, H=H), options, seed=H)
    whole = None
    for name in EACH_ISA:
        monkeypatch.setenv("FASTRNN_ISA", name)
        layer = case.layer()
        batches = [[b] for b in (0, 7, 79)] if name == "baseline" else [range(b) for b in range(1, 15)]
        results = case.run(layer) if name != "baseline" else whole
        whole = whole or results
        assert same_bits(whole, results), f"{kind} H={H} differs on {name}"
        for rows in batches:
            assert same_bits(rows_of(case, whole, list(rows)), outputs(layer, *take_rows(case, list(rows)))), f"{kind} H={H} {rows} differ on {name}"


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_before", "rnn"])
def test_projections_of_many_steps_at_once(kind, each_isa, monkeypatch):
    """A panel over x that is read for many rows, of a few steps each time or of one, gives the bits of one that is read in every step."""
    options = {"reset_after": False} if kind == "gru_before" else {}
    cases = [
        Case(kind.partition("_")[0], Shape(T=11, B=B, I=40, H=70, ragged=ragged), options, seed=B)
        for B, ragged in ((1, False), (5, True), (30, False), (30, True))
    ]
    near = [case.run(case.layer()) for case in cases]
    monkeypatch.setattr(policy, "X_NEAR_BYTES", 0)
    monkeypatch.setattr(policy, "FAR_ROWS", 20)
    for case, expected in zip(cases, near, strict=True):
        assert same_bits(expected, case.run(case.layer())), str(case)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_before", "rnn"])
def test_projections_beside_the_steps(kind, threads, each_isa, monkeypatch):
    """Whole blocks and a narrow one, odd counts of vectors and of k, more inputs than a step has time for and fewer, batches that shrink to one row: as without."""
    options = {"reset_after": False} if kind == "gru_before" else {}
    shapes = [(1, False, 40, 70), (1, False, 24, 80), (1, False, 131, 37), (1, False, 33, 200), (3, True, 40, 72)]
    cases = [Case(kind.partition("_")[0], Shape(T=37, B=B, I=I, H=H, ragged=ragged), options, seed=H) for B, ragged, I, H in shapes]
    found = []
    for limit in ("WORTH_NS", "STEP_WORTH_NS"):  # two threads take parts of the units
        monkeypatch.setattr(parallel, limit, 0.0)
    for beside in (0, 1):
        monkeypatch.setattr(policy, "ahead", lambda *_, beside=beside: beside)
        monkeypatch.setattr(policy, "chunk", lambda *_, **__: 13)
        found.append([case.run(case.layer(threads=threads)) for case in cases])
    for case, without, beside in zip(cases, *found, strict=True):
        assert same_bits(without, beside), str(case)


def test_ragged_row_is_its_own_sequence():
    """A row of length n gives what the first n steps alone give, forward and reverse."""
    for options in ({}, {"reverse": True}, {"bidirectional": True}):
        case = Case("lstm", TRAP_SHAPES["ragged"], options, seed=2)
        layer, whole = case.layer(), case.run(case.layer())
        for b, n in enumerate(case.lengths):
            state = tuple(s[:, b : b + 1] for s in case.states)
            alone = outputs(layer, case.x[:n, b : b + 1], state, None)
            assert same_bits(alone, [whole[0][:n, b : b + 1], whole[1][:, b : b + 1], whole[2][:, b : b + 1]])
            assert not whole[0][n:, b].any()


def test_nan_stays_in_its_row():
    case = Case("gru", TRAP_SHAPES["prime"], {}, seed=4)
    layer, before = case.layer(), case.run(case.layer())
    case.x[2, 1] = np.nan
    after = case.run(layer)
    assert np.isnan(after[0][2:, 1]).all()
    others = [0, 2, 3, 4]
    assert same_bits(rows_of(case, before, others), rows_of(case, after, others))
