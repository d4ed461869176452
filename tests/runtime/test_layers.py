"""fr.RNN, LSTM and GRU beside torch.nn, and what they refuse."""

import itertools

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.testing import LAYERS, TOLERANCES

torch = pytest.importorskip("torch")


def drawn_torch_configurations(n):
    random = np.random.default_rng(384)
    for k in range(n):
        kind = ("RNN", "LSTM", "GRU")[k % 3]
        options = {
            "num_layers": int(random.integers(1, 4)),
            "bias": bool(random.random() < 0.7),
            "batch_first": bool(random.random() < 0.5),
            "bidirectional": bool(random.random() < 0.5),
        }
        I, H = int(random.integers(1, 60)), int(random.integers(2, 80))
        if kind == "RNN":
            options["nonlinearity"] = str(random.choice(["tanh", "relu"]))
        if kind == "LSTM" and random.random() < 0.4:
            options["proj_size"] = int(random.integers(1, H))
        yield kind, I, H, options, int(random.integers(1, 30)), int(random.integers(1, 12)), bool(random.random() < 0.5), k


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_384_drawn_configurations_agree_with_torch():
    for kind, I, H, options, T, B, ragged, seed in drawn_torch_configurations(384):
        torch.manual_seed(seed)
        module = getattr(torch.nn, kind)(I, H, **options).eval()
        layer = LAYERS[kind.lower()](I, H, **options)
        layer.load_state_dict(module.state_dict())
        batch_first, P = options["batch_first"], options.get("proj_size") or H
        x = torch.randn((B, T, I) if batch_first else (T, B, I))
        rows = options["num_layers"] * (2 if options["bidirectional"] else 1)
        h0, c0 = torch.randn(rows, B, P), torch.randn(rows, B, H)
        state, lengths = (h0, c0) if kind == "LSTM" else h0, None
        with torch.no_grad():
            if ragged:
                lengths = torch.randint(1, T + 1, (B,))
                packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
                y, final = module(packed, state)
                y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first, total_length=T)
            else:
                y, final = module(x, state)
        mine, mine_final = layer(
            x.numpy(), tuple(s.numpy() for s in state) if kind == "LSTM" else state.numpy(), None if lengths is None else lengths.numpy()
        )
        final, mine_final = (final, mine_final) if kind == "LSTM" else ((final,), (mine_final,))
        for a, b in zip((mine, *mine_final), (y, *final), strict=True):
            b = b.numpy()
            assert a.shape == b.shape
            scale = max(1.0, float(np.abs(b).max()))
            assert np.abs(a - b).max() <= TOLERANCES["engine"] * scale, (kind, I, H, options, T, B, ragged)


def test_unbatched_as_torch():
    module, layer = torch.nn.LSTM(3, 5, 2), fr.LSTM(3, 5, 2)
    layer.load_state_dict(module.state_dict())
    x, state = torch.randn(7, 3), (torch.randn(2, 5), torch.randn(2, 5))
    with torch.no_grad():
        y, (h, c) = module(x, state)
    mine, (mine_h, mine_c) = layer(x, state)
    for a, b in zip((mine, mine_h, mine_c), (y, h, c)):
        assert a.shape == tuple(b.shape)
        np.testing.assert_allclose(a, b.numpy(), atol=1e-6)


def test_state_dict_round_trip_and_seed():
    a, b = fr.GRU(3, 4, 2, bidirectional=True, seed=7), fr.GRU(3, 4, 2, bidirectional=True, seed=8)
    assert all(np.abs(p).max() <= 0.5 and np.abs(p).max() > 0.1 for p in a.state_dict().values())
    assert all(np.array_equal(p, q) for p, q in zip(a.state_dict().values(), fr.GRU(3, 4, 2, bidirectional=True, seed=7).state_dict().values()))
    b.load_state_dict(a.state_dict())
    x = np.ones((5, 2, 3), np.float32)
    assert np.array_equal(a(x)[0], b(x)[0])
    assert list(a.state_dict()) == list(torch.nn.GRU(3, 4, 2, bidirectional=True).state_dict())


def test_state_dict_is_a_copy_and_so_is_what_is_loaded():
    layer, x = fr.RNN(2, 3, seed=0), np.ones((4, 1, 2), np.float32)
    before, mine = layer(x)[0], layer.state_dict()
    for array in mine.values():
        array[...] = 9
    assert np.array_equal(layer(x)[0], before)


def test_peephole_names():
    assert [n for n in fr.LSTM(2, 3, bidirectional=True, peepholes=True).state_dict() if "weight_p" in n] == [
        "weight_pi_l0",
        "weight_pf_l0",
        "weight_po_l0",
        "weight_pi_l0_reverse",
        "weight_pf_l0_reverse",
        "weight_po_l0_reverse",
    ]


def test_legal_oddities():
    layer = fr.LSTM(4, 5, seed=1)
    x = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    y = layer(x)[0]
    wide = np.zeros((6, 3, 9), np.float32)
    wide[..., 1::2] = x
    assert np.array_equal(layer(wide[..., 1::2])[0], y)
    assert np.array_equal(layer(x[::-1][::-1])[0], y)
    assert np.array_equal(layer(np.asfortranarray(x))[0], y)
    fixed = x.copy()
    fixed.flags.writeable = False
    assert np.array_equal(layer(fixed)[0], y)
    assert np.array_equal(layer(memoryview(x))[0], y)
    assert np.array_equal(layer(torch.from_numpy(x))[0], y)
    assert layer(x[:0])[0].shape == (0, 3, 5) and layer(x[:, :0])[0].shape == (6, 0, 5)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert np.array_equal(layer(unaligned)[0], y)


REFUSALS = [
    (lambda x: x.astype(np.float64), None, None, fr.DTypeError, "'x' must be float32"),
    (lambda x: x.astype(">f4"), None, None, fr.DTypeError, "byte order"),
    (lambda x: x.tolist(), None, None, fr.DTypeError, "'x' must be float32"),
    (lambda x: x[0, 0], None, None, fr.ShapeError, "3 dimensions"),
    (lambda x: x[..., :3], None, None, fr.ShapeError, r"'x' must have shape \(T, B, 4\)"),
    (None, lambda s: s[0], None, fr.ShapeError, "pair"),
    (None, lambda s: (s[0][:, :1], s[1]), None, fr.ShapeError, "'h0'.*B = 3 in 'x'"),
    (None, lambda s: (s[0], s[1][..., :4]), None, fr.ShapeError, "'c0'"),
    (None, lambda s: (s[0], s[1].astype(np.float64)), None, fr.DTypeError, "'c0' must be float32"),
    (None, None, [6, 0, 7], fr.ShapeError, "'lengths': 7 is outside 0..6"),
    (None, None, [6, -1, 2], fr.ShapeError, "'lengths': -1"),
    (None, None, [6, 1], fr.ShapeError, r"lengths must have shape \(3,\)"),
    (None, None, [1.0, 2.0, 3.0], fr.DTypeError, "integers"),
    (None, None, [[1, 2, 3]], fr.ShapeError, "lengths"),
]


@pytest.mark.parametrize("change_x,change_state,lengths,error,message", REFUSALS, ids=[f"{r[3].__name__}-{k}" for k, r in enumerate(REFUSALS)])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_bad_calls_are_refused_by_name(backend, change_x, change_state, lengths, error, message):
    layer, x = fr.LSTM(4, 5, backend=backend), np.zeros((6, 3, 4), np.float32)
    state = (np.zeros((1, 3, 5), np.float32), np.zeros((1, 3, 5), np.float32))
    with pytest.raises(error, match=message):
        layer(change_x(x) if change_x else x, change_state(state) if change_state else state, lengths)
    layer(x, state)


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: fr.LSTM(3, 4, threads=0), "threads"),
        (lambda: fr.LSTM(3, 4, precision="int4"), "int4"),
        (lambda: fr.GRU(3, 4, precision="fp8"), "fp8"),
        (lambda: fr.GRU(3, 4, backend="cuda"), "cuda"),
        (lambda: fr.RNN(3, 4, nonlinearity="gelu"), "gelu"),
        (lambda: fr.RNN(3, 4, activations=("swish",)), "swish"),
        (lambda: fr.RNN(3, 4, activations=(("tanh", {"alpha": 1.0}),)), "alpha"),
        (lambda: fr.LSTM(3, 4, activations=("tanh",)), "activations must be 3"),
        (lambda: fr.LSTM(3, 4, proj_size=4), "proj_size"),
        (lambda: fr.LSTM(3, 4, clip=-1.0), "clip"),
        (lambda: fr.LSTM(3, 4, reverse=True, bidirectional=True), "reverse"),
        (lambda: fr.LSTM(3, 4, proj_size="a"), "proj_size"),
        (lambda: fr.LSTM(3, 4, proj_size=1.5), "proj_size"),
        (lambda: fr.LSTM(3, 4, clip="a"), "clip"),
        (lambda: fr.LSTM(3, 4, clip=True), "clip"),
        (lambda: fr.LSTM(3, 4, clip=10**400), "clip"),
        (lambda: fr.LSTM(3, 4, activations=5), "activations"),
        (lambda: fr.LSTM(3, 4, activations=("sigmoid", 5, "tanh")), "activations"),
        (lambda: fr.LSTM(3, 4, activations=(None,) * 3), "activations"),
        (lambda: fr.RNN(3, 4, activations=(("elu", {"alpha": "x"}),)), "alpha"),
        (lambda: fr.RNN(3, 4, activations=(("elu", {"alpha": 10**400}),)), "alpha"),
        (lambda: fr.RNN(3, 4, nonlinearity="relu", activations=("tanh",)), "not both"),
        (lambda: fr.GRU(3, 4, bias="no"), "bias"),
        (lambda: fr.GRU(3, 4, bidirectional=2), "bidirectional"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(make, message):
    with pytest.raises(fr.UnsupportedModelError, match=message):
        make()


def test_sizes_may_be_numpy_integers():
    assert fr.LSTM(np.int64(3), np.int32(4), num_layers=np.int8(2)).options.hidden_size == 4


@pytest.mark.parametrize("lengths", [[[1], [1, 2]], "abc", object(), np.array(["a"] * 3), np.zeros(3, "M8[s]")])
def test_lengths_that_are_no_integers(lengths):
    with pytest.raises((fr.DTypeError, fr.ShapeError)):
        fr.GRU(2, 3)(np.zeros((4, 3, 2), np.float32), lengths=lengths)


def test_masked_arrays_are_refused_whatever_ran_before():
    layer, x = fr.LSTM(3, 4), np.ones((2, 1, 3), np.float32)
    session = fr.compile(layer)
    stream, pool = session.stream(), session.pool(2)
    handle = pool.open()
    for call, a in (
        (layer, x),
        (session, x),
        (lambda a: session.run({"x": a}), x),
        (stream.push, x),
        (stream.step, x[0]),
        (lambda a: pool.step([handle], a), x[0]),
    ):
        call(a)
        with pytest.raises(fr.DTypeError, match="masked"):
            call(np.ma.masked_array(a, mask=True))


def test_masked_arrays_are_refused_and_tensors_in_training_accepted():
    layer = fr.RNN(2, 3)
    with pytest.raises(fr.DTypeError, match="mask"):
        layer(np.ma.zeros((4, 3, 2), dtype=np.float32))
    layer(torch.zeros(4, 3, 2, requires_grad=True))
    layer.load_state_dict(dict(torch.nn.RNN(2, 3).named_parameters()))


def test_bad_sizes():
    for sizes in ((0, 4), (3, -1), (3, 4.0), (True, 4)):
        with pytest.raises(fr.ShapeError):
            fr.LSTM(*sizes)


@pytest.mark.parametrize(
    "change,error,message",
    [
        (lambda s: s.pop("bias_ih_l0"), fr.ShapeError, "missing bias_ih_l0"),
        (lambda s: s.update(extra=np.zeros(3, np.float32)), fr.ShapeError, "unknown extra"),
        (lambda s: s.update(weight_ih_l0=s["weight_ih_l0"].astype(np.float64)), fr.DTypeError, "weight_ih_l0 must be float32"),
        (lambda s: s.update(weight_ih_l0=s["weight_ih_l0"][:9]), fr.ShapeError, r"weight_ih_l0 must have shape \(12, 3\)"),
    ],
)
def test_bad_state_dicts_change_nothing(change, error, message):
    layer, x = fr.GRU(3, 4, seed=2), np.ones((2, 1, 3), np.float32)
    before, state = layer(x)[0], layer.state_dict()
    change(state)
    with pytest.raises(error, match=message):
        layer.load_state_dict(state)
    assert np.array_equal(layer(x)[0], before)


def test_backend_pinned_by_environment(monkeypatch):
    monkeypatch.setenv("FASTRNN_BACKEND", "reference")
    assert "NumPy" in fr.LSTM(2, 3).explain()
    monkeypatch.setenv("FASTRNN_BACKEND", "quick")
    with pytest.raises(fr.UnsupportedModelError, match="quick"):
        fr.LSTM(2, 3)


@pytest.mark.parametrize("name", ["sse9", "neon"])
def test_isa_pinned_by_environment(monkeypatch, name):
    from fastrnn.kernels import isa

    if name in isa.supported():
        pytest.skip("this machine runs it")
    monkeypatch.setenv("FASTRNN_ISA", name)
    with pytest.raises(fr.UnsupportedModelError, match=name):
        fr.LSTM(2, 3)


def test_explain_names_the_isa(each_isa):
    assert each_isa in fr.LSTM(2, 3).explain()


def episodes_of(mask, length):
    """Steps (first, last + 1) of each of a row's episodes."""
    cuts = [0, *[t for t in range(1, length) if mask[t]], length]
    return list(itertools.pairwise(cuts))


def same(layer, got, wanted):
    """Bit for bit; NumPy's products, which the reference makes, differ with the batch in the last place."""
    if layer._compile[0] == "reference":
        return np.allclose(got, wanted, 1e-5, 1e-6, equal_nan=True)
    return np.array_equal(got, wanted, equal_nan=True)


RESET = [(fr.LSTM, {"num_layers": 2, "proj_size": 3}), (fr.LSTM, {"batch_first": True}), (fr.LSTM, {"hidden_size": 37, "peepholes": True}), (fr.GRU, {"reset_after": False}),
         (fr.GRU, {"num_layers": 2, "hidden_size": 20}), (fr.RNN, {"batch_first": True, "num_layers": 2}), (fr.LSTM, {"hidden_size": 70, "threads": 2}), (fr.LSTM, {"backend": "jit"}),
         (fr.GRU, {"backend": "jit", "reset_after": False, "batch_first": True}), (fr.GRU, {"backend": "reference"}), (fr.LSTM, {"precision": "int8"}), (fr.GRU, {"precision": "bfloat16"})]  # fmt: skip


@pytest.mark.parametrize("B", [1, 3, 35])
@pytest.mark.parametrize("make,options", RESET, ids=str)
def test_resets_start_episodes(make, options, B):
    """Every episode is as by itself: the first goes on from the state, unless the mask's first row says otherwise. What a state was does not matter."""
    layer, random = make(4, **{"hidden_size": 6, "seed": 1, **options}), np.random.default_rng(0)
    T = 11
    x, mask = random.standard_normal((T, B, 4)).astype(np.float32), random.random((T, B)) < 0.25
    mask[0] = np.arange(B) % 3 == 0
    mask[5, B // 2], x[3:5, B // 2] = True, np.nan
    batch_first = options.get("batch_first", False)
    given = x.transpose(1, 0, 2) if batch_first else x
    state = layer(given[:, :1] if batch_first else given[:1])[1]
    lengths = random.integers(0, T + 1, B)
    for n in (None, lengths):
        y, final = layer(given, state, n, resets=mask)
        y = y.transpose(1, 0, 2) if batch_first else y
        finals = final if isinstance(final, tuple) else (final,)
        for b in range(0, B, 5):
            end, last = T if n is None else int(n[b]), state
            for start, stop in episodes_of(mask[:, b], end):
                first = None if mask[start, b] else tuple(s[:, b] for s in state) if isinstance(state, tuple) else state[:, b]
                want, last = layer(x[start:stop, b], first)
                assert same(layer, y[start:stop, b], want)
            for mine, theirs in zip(finals, last if isinstance(last, tuple) else (last,)) if end else ():
                assert same(layer, mine[:, b], theirs)
            assert not y[end:, b].any()
    alone, _ = layer(x[:, 0], tuple(s[:, 0] for s in state) if isinstance(state, tuple) else state[:, 0], resets=mask[:, 0])
    whole = layer(given, state, resets=mask)[0]
    assert same(layer, alone, whole[0] if batch_first else whole[:, 0])
    assert layer(given[:, :0] if batch_first else given[:0], resets=mask[:0])[0].size == 0


@pytest.mark.parametrize("backend", ["native", "jit", "reference"])
@pytest.mark.parametrize(
    "make,options",
    [
        (fr.LSTM, {"bidirectional": True}),
        (fr.GRU, {"bidirectional": True, "reset_after": False}),
        (fr.GRU, {"reverse": True}),
        (fr.RNN, {"bidirectional": True, "batch_first": True}),
    ],
    ids=str,
)
def test_an_episode_ends_for_both_directions(make, options, backend):
    """From the end, a state is forgotten behind the step that the mask names: every episode runs by itself. The given state of that direction is the last one's."""
    layer, random, T, B = make(4, 6, seed=1, backend=backend, **options), np.random.default_rng(0), 11, 4
    x, mask = random.standard_normal((T, B, 4)).astype(np.float32), random.random((T, B)) < 0.3
    mask[0], lengths = [True, False, True, False], np.array([11, 7, 0, 9])
    D = 1 + layer.options.bidirectional
    state = tuple(random.standard_normal((D, B, 6)).astype(np.float32) for _ in layer.options.states)
    given = x.transpose(1, 0, 2) if layer.options.batch_first else x
    for n in (None, lengths):
        y, final = layer(given, state if len(state) > 1 else state[0], n, resets=mask)
        y, finals = y.transpose(1, 0, 2) if layer.options.batch_first else y, final if isinstance(final, tuple) else (final,)
        for b in range(B):
            end = T if n is None else n[b]
            for start, stop in episodes_of(mask[:, b], end) if end else ():
                first = [np.zeros((D, 6), np.float32) for _ in state]
                for mine, theirs in zip(first, state):
                    if D == 2 and start == 0 and not mask[0, b]:
                        mine[0] = theirs[0, b]
                    if stop == end:
                        mine[-1] = theirs[-1, b]
                want, last = layer(x[start:stop, b], tuple(first) if len(first) > 1 else first[0])
                last = last if isinstance(last, tuple) else (last,)
                assert same(layer, y[start:stop, b], want)
                for mine, theirs in zip(finals, last):
                    assert start or same(layer, mine[-1, b], theirs[-1])
                    assert stop < end or D == 1 or same(layer, mine[0, b], theirs[0])


def test_resets_are_checked():
    layer, x = fr.GRU(4, 6), np.zeros((5, 2, 4), np.float32)
    for mask, error in ((np.zeros((5, 3), bool), fr.ShapeError), (np.zeros((5, 2)), fr.DTypeError), (np.zeros(5, bool), fr.ShapeError)):
        with pytest.raises(error, match="resets"):
            layer(x, resets=mask)
    mask = np.ones((5, 2), bool)
    for state, lengths, error in (
        (np.zeros((1, 3, 6), np.float32), None, fr.ShapeError),
        (None, [1, 6], fr.ShapeError),
        (None, [-1, 2], fr.ShapeError),
    ):
        with pytest.raises(error):
            layer(x, state, lengths, resets=mask)


def test_a_dtype_that_is_not_the_layers_is_refused_with_what_to_write():
    layer, session = fr.LSTM(3, 5, seed=0), fr.compile(fr.GRU(3, 5, seed=0).to_model())
    x = np.zeros((4, 2, 3))
    for call in (
        lambda: layer(x),
        lambda: session.run({"x": x}),
        lambda: session.stream(batch=2).push(x),
        lambda: session.stream(batch=2).step(x[0]),
    ):
        with pytest.raises(fr.DTypeError, match=r"input 'x' must be float32 .*, got <f8; .*write \.astype\('float32'\)"):
            call()


@pytest.mark.parametrize(
    "lengths",
    [[4, 1, 0], (4, 1, 0), *(np.array([4, 1, 0], kind) for kind in ("i4", "u1", ">i2", "u8", "i8"))],
    ids=lambda n: str(getattr(n, "dtype", type(n).__name__)),
)
@pytest.mark.parametrize("kind", [fr.LSTM, fr.GRU, fr.RNN], ids=lambda k: k.__name__)
def test_lengths_are_any_integers(kind, lengths):
    layer, x = kind(3, 5, bidirectional=True, seed=0), np.random.default_rng(0).standard_normal((4, 3, 3)).astype(np.float32)
    y, _ = layer(x, lengths=lengths)
    assert not y[1:, 1].any() and not y[:, 2].any()
    assert np.array_equal(y[:1, 1], layer(x[:1, 1:2])[0][:, 0]) and np.array_equal(y[:, 0], layer(x[:, :1])[0][:, 0])
    session = fr.compile(layer.to_model(lengths=True))
    assert np.array_equal(session.run({"x": x, "lengths": np.asarray(lengths).astype("int64")})["y"], y)
    if isinstance(lengths, np.ndarray) and lengths.dtype != np.int64:
        with pytest.raises(fr.DTypeError, match=r"input 'lengths' must be int64 .*write \.astype\('int64'\)"):
            session.run({"x": x, "lengths": lengths})
