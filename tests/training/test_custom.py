"""Cells of one's own that learn: gradients against autograd over loops written from the papers and over each function itself, and central differences."""

import copy
import pickle

import numpy as np
import pytest

pytest.importorskip("numba", reason="the jit backend needs fastrnn[numba]")

import torch
from training_oracle import TOLERANCE, differs, direction, tensors

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.cells import gallery
from fastrnn.cells.adjoint import DIFFERENTIATED
from fastrnn.cells.maths import log1p_unit
from fastrnn.cells.trace import LOGICAL
from fastrnn.kernels.jit.functions import OPERATIONS as COMPILED
from fastrnn.training import diagnostics
from fastrnn.training.cellcode import OPERATIONS, cell_code
from fastrnn.training.kept import COSTS


@fr.cell(gates=("r", "z", fr.Gate("n", sees="x"), fr.Gate("m", sees="h")), name="gru_written")
def gru_written(r, z, n, m, h):
    n = fr.tanh(n + fr.sigmoid(r) * m)
    return n + fr.sigmoid(z) * (h - n)


@fr.cell(gates=("i", "f", "g", "o"), states=("h", "c"), name="lstm_written")
def lstm_written(i, f, g, o, c):
    c = fr.sigmoid(f) * c + fr.sigmoid(i) * fr.tanh(g)
    return fr.sigmoid(o) * fr.tanh(c), c


@fr.cell(
    gates=(
        fr.Gate("k", sees="h", second=True, bias=False),
        "a",
        fr.Gate("b", sees="x"),
        fr.Gate("n", second=True),
        fr.Gate("m", sees="h", bias=False),
    ),
    states=("h", "c", "d"),
    parameters=("p", "q"),
    scalars=("dt",),
    operand=lambda a, b, c, h, p, dt: fr.sigmoid(a) * h + p * c * fr.exp(-dt) + 0.3 * b,
    name="all_at_once",
)
def all_at_once(k, a, b, n, m, h, c, d, p, q, dt):
    """Two gates of a second phase, gates that see x or h alone, parameters and a scalar in both functions, three states, one of which is handed on unread."""
    c2 = fr.tanh(n + q * c) * fr.sigmoid(b - m)
    return fr.tanh(k + p * d) + 0.7 * h * dt + c2, c2 + 0.1 * k, h


@fr.cell(gates=("a", "b"), parameters=("p",), name="every_function")
def every_function(a, b, h, p):
    """Each instruction that cells are made of, at numbers where all have a slope."""
    u = fr.where((a < b) & (p <= 3.0) | ~(a != b), fr.minimum(a, b), fr.maximum(a, h)) + fr.relu(b) - fr.abs(a)
    v = fr.sqrt(fr.exp(fr.tanh(b))) / (2.0 + fr.sigmoid(-a)) + fr.where(p == 5.0, a, fr.maximum(b, 0.1) - fr.minimum(0.2, a))
    return fr.tanh(u * p + v) + log1p_unit(fr.sigmoid(h)) * 0.5


@fr.cell(gates=(fr.Gate("a", sees="x"),), states=("h", "s"), name="no_matrix_over_h")
def no_matrix_over_h(a, s, x):
    """Nothing but x comes in, and past the matrix, too; the second state is what is not kept."""
    return fr.tanh(a) * s + x, 0.5 * s + 0.1


@fr.cell(gates=(fr.Gate("a", sees="h"),), name="nothing_from_x")
def nothing_from_x(a, h, x):
    """No matrix over x."""
    return fr.tanh(a + x) + 0.1 * h


OWN = (gru_written, lstm_written, all_at_once, every_function, no_matrix_over_h, nothing_from_x)
CELLS = (*gallery.CELLS, *OWN)
STACKS = [{}, {"num_layers": 2, "bidirectional": True}, {"reverse": True, "bias": False}]
every = pytest.mark.parametrize(
    "cell,options", [(c, o) for c in CELLS for o in STACKS if not (c.uses_input and o.get("bidirectional"))], ids=lambda v: getattr(v, "name", str(v))
)


def stack(layer, w, x, lengths, states):
    """The whole stack in torch."""
    cell, o = layer.cell, layer.options
    I, finals, beside = o.input_size, [], x[..., o.input_size :]
    x = x[..., :I]
    for k in range(o.num_layers):
        sides = []
        for d, suffix in enumerate(o.suffixes(k)):
            given = {"cell": cell, "H": o.hidden_size, "dtype": str(layer.dtype)}
            y, final = direction(
                "recurrent",
                given,
                w,
                suffix,
                torch.cat([x, beside], 2),
                lengths,
                tuple(s[k * o.directions + d] for s in states),
                bool(d) or o.reverse,
            )
            sides.append(y)
            finals.append(final)
        x = torch.cat(sides, 2)
    return x, tuple(torch.stack(s) for s in zip(*finals))


def drawn(layer, T, B, ragged, seed=2):
    random, o = np.random.default_rng(seed), layer.options
    K = o.num_layers * o.directions
    x, dy, *states = (
        random.standard_normal(shape).astype(layer.dtype)
        for shape in ((T, B, layer.takes), (T, B, layer.gives), *((K, B, o.hidden_size if k else o.output_size) for k in range(len(o.states))))
    )
    x[..., o.input_size :] = np.abs(x[..., o.input_size :])  # gaps of time
    return x, dy, random.permutation(np.arange(B) % (T + 1)) if ragged else np.full(B, T), states


def passed(layer, x, dy, lengths, states, training=False):
    run = tr.Run(tr.Packing.of(*x.shape[:2], lengths), training, np.random.default_rng(0))
    y, saved, finals = layer.forward(np.ascontiguousarray(run.pack(x)), run, tuple(states) if len(states) > 1 else states[0])
    grads = {name: np.zeros_like(a) for name, a in layer.parameters().items()}
    dx = layer.backward(run.pack(dy).copy(), saved, grads)
    return run.unpack(y), finals if isinstance(finals, tuple) else (finals,), grads, run.unpack(dx)


def layer_of(cell, I, H, **options):
    return tr.Recurrent(cell, H if cell.uses_input else I, H, **options)


@every
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T,B,I,H", [(4, 3, 3, 5), (3, 19, 2, 37)])  # units and rows that fill no vector and no tile
@pytest.mark.parametrize("ragged", [False, True])
def test_gradients(cell, options, dtype, T, B, I, H, ragged):
    layer = layer_of(cell, I, H, seed=1, dtype=dtype, **options)
    x, dy, lengths, states = drawn(layer, T, B, ragged)
    y, finals, grads, dx = passed(layer, x, dy, lengths, states)
    w, given = tensors(layer.parameters()), torch.tensor(x, requires_grad=True)
    wanted, wanted_finals = stack(layer, w, given, torch.tensor(lengths), tuple(map(torch.tensor, states)))
    (wanted * torch.tensor(dy) * torch.tensor(np.arange(T)[:, None] < lengths)[..., None]).sum().backward()
    assert differs(y, wanted) <= TOLERANCE[dtype] and differs(dx, given.grad) <= TOLERANCE[dtype]
    assert all(differs(ours, theirs) <= TOLERANCE[dtype] for ours, theirs in zip(finals, wanted_finals, strict=True))
    for name, gradient in grads.items():
        theirs = torch.zeros_like(w[name]) if w[name].grad is None else w[name].grad
        assert differs(gradient, theirs) <= TOLERANCE[dtype], name


@every
def test_central_differences(cell, options):
    layer = layer_of(cell, 3, 5, seed=4, dtype="float64", **options)
    x, dy, lengths, states = drawn(layer, 5, 4, True)
    _, _, grads, dx = passed(layer, x, dy, lengths, states)
    random, size = np.random.default_rng(5), 1e-6
    for name, array in (*layer.parameters().items(), ("x", x)):
        along, kept, values = random.standard_normal(array.shape), array.copy(), []
        for sign in (1, -1):
            array[...] = kept + sign * size * along
            values.append((passed(layer, x, dy, lengths, states)[0] * dy).sum())
        array[...] = kept
        slope = ((dx if name == "x" else grads[name]) * along).sum()
        assert abs((values[0] - values[1]) / (2 * size) - slope) <= 1e-6 * max(1.0, abs(slope)), name


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "reverse": True}, {"proj_size": 7}], ids=str)
@pytest.mark.parametrize("cell,built_in", [(gru_written, tr.GRU), (lstm_written, tr.LSTM)], ids=["gru", "lstm"])
def test_what_the_built_in_layers_compute(cell, built_in, options, dtype):
    """Written as a cell, a built-in layer has its gradients. The GRU's m has its bias where torch's n has that of h."""
    if "proj_size" in options and built_in is tr.GRU:
        with pytest.raises(fr.UnsupportedModelError, match="proj_size"):
            tr.Recurrent(cell, 6, 21, **options)
        return
    theirs, ours = built_in(6, 21, seed=1, dtype=dtype, **options), tr.Recurrent(cell, 6, 21, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    x, dy, lengths, states = drawn(ours, 5, 11, True)
    y, finals, grads, dx = passed(ours, x, dy, lengths, states)
    y2, finals2, grads2, dx2 = passed(theirs, x, dy, lengths, states)
    pairs = [(y, y2), (dx, dx2), *zip(finals, finals2, strict=True), *((grads[n], grads2[n]) for n in grads2)]
    assert grads.keys() == grads2.keys() and all(differs(a, b) <= TOLERANCE[dtype] / 10 for a, b in pairs)


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_every_instruction_set(cell, each_isa):
    layer = layer_of(cell, 6, 21, seed=1)
    x, dy, lengths, states = drawn(layer, 5, 11, True)
    y, _, grads, dx = passed(layer, x, dy, lengths, states)
    y2, _, grads2, dx2 = passed(layer.astype("float64"), *(a.astype("float64") for a in (x, dy)), lengths, [s.astype("float64") for s in states])
    assert all(np.abs(a - b).max() <= 1e-5 * max(np.abs(b).max(), 1e-30) for a, b in [(y, y2), (dx, dx2), *((grads[n], grads2[n]) for n in grads)])


@pytest.mark.parametrize("H", [1, 16, 64, 255, 256, 257, 600])
def test_rows_of_any_width(H):
    """Many rows to a tile, one, and many tiles to a row."""
    layer = layer_of(all_at_once, 2, H, seed=1, dtype="float64")
    x, dy, lengths, states = drawn(layer, 3, 40 if H < 100 else 3, True)
    y, _, grads, dx = passed(layer, x, dy, lengths, states)
    w, given = tensors(layer.parameters()), torch.tensor(x, requires_grad=True)
    wanted, _ = stack(layer, w, given, torch.tensor(lengths), tuple(map(torch.tensor, states)))
    (wanted * torch.tensor(dy)).sum().backward()
    assert differs(y, wanted) <= 1e-9 and differs(dx, given.grad) <= 1e-9 and all(differs(g, w[n].grad) <= 1e-9 for n, g in grads.items())


def test_corners_have_torchs_slopes():
    """At 0 for relu and abs, and where both operands are equal."""

    @fr.cell(gates=(fr.Gate("a", sees="x", bias=False),), name="corners")
    def corners(a):
        return fr.relu(a) + 2.0 * fr.abs(a) + 4.0 * fr.minimum(a, 0.0) + 8.0 * fr.maximum(a, a * 3.0)

    layer = tr.Recurrent(corners, 1, 1, dtype="float64")
    layer.parameters()["weight_ih_l0"][...] = 1
    x = np.array([-1.0, 0.0, 1.0, np.nan]).reshape(1, 4, 1)
    _, _, _, dx = passed(layer, x, np.ones_like(x), None, [np.zeros((1, 4, 1))])
    a = torch.tensor(x, requires_grad=True)
    (torch.relu(a) + 2 * torch.abs(a) + 4 * torch.minimum(a, torch.zeros(1)) + 8 * torch.maximum(a, a * 3)).sum().backward()
    assert np.array_equal(dx[0, :3, 0], a.grad[0, :3, 0].numpy())


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_nan_is_not_hidden_and_stays_in_its_sequence(dtype, each_isa):
    layer = tr.Recurrent(every_function, 3, 19, seed=1, dtype=dtype)
    x, dy, lengths, states = drawn(layer, 4, 3, False)
    x[1, 1, 0] = np.nan
    y, _, _, dx = passed(layer, x, dy, lengths, states)
    assert np.isnan(y[1:, 1]).all() and not np.isnan(y[:, [0, 2]]).any() and np.isnan(dx[:2, 1]).any() and not np.isnan(dx[:, [0, 2]]).any()


FUNCTIONS = [OPERATIONS.index(name) for name in COSTS]


def functions_in(code) -> int:
    return int(np.isin(code.instructions[:, 0], FUNCTIONS).sum())


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_what_lies_in_a_gates_place_is_not_computed_again(dtype):
    """Of an LSTM tanh(c) alone; two functions of one gate have one place; an operand reads what pointwise left."""
    for cell, forward, back, operand_back in ((lstm_written, 5, 1, 0), (gallery.janet, 3, 2, 0), (gallery.ugrnn, 2, 0, 0), (gallery.mgu, 2, 0, 0)):
        code = cell_code(cell, np.dtype(dtype))
        assert functions_in(code.pointwise) == forward and functions_in(code.pointwise_back) == back
        assert code.operand_back is None or functions_in(code.operand_back) == operand_back


def test_every_instruction_has_a_slope_or_needs_none():
    assert set(OPERATIONS[5:]) == set(COMPILED) == DIFFERENTIATED | set(LOGICAL)
    assert {i[0] for i in every_function.programs()[0].instructions} >= set(COMPILED)


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_a_sequence_has_the_same_gradient_alone_and_beside_others(cell):
    layer = layer_of(cell, 4, 18, seed=6, dtype="float64")
    x, dy, lengths, states = drawn(layer, 6, 5, True)
    y, _, grads, dx = passed(layer, x, dy, lengths, states)
    total = {name: np.zeros_like(a) for name, a in grads.items()}
    for b, length in enumerate(lengths):
        alone = passed(layer, x[:length, b : b + 1], dy[:length, b : b + 1], None, [s[:, b : b + 1].copy() for s in states])
        assert np.allclose(alone[0][:, 0], y[:length, b], rtol=0, atol=1e-13) and np.allclose(alone[3][:, 0], dx[:length, b], rtol=1e-11, atol=1e-12)
        total = {name: total[name] + alone[2][name] for name in total}
    assert all(np.allclose(total[name], grads[name], rtol=1e-10, atol=1e-12) for name in grads)


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_a_trained_cell_is_a_model_a_layer_and_a_stream(cell, tmp_path):
    """One step of training, then the same numbers from the network, its model, a file, a stream, and fr.Recurrent with its parameters."""
    I, H, n = 9, 9, len(cell.scalars)
    layer = layer_of(cell, I, H, num_layers=2, dropout=0.3)
    net, random = tr.Sequential(tr.Linear(5, I + n), layer, tr.Linear(H, 4), seed=3), np.random.default_rng(0)
    x, target = random.standard_normal((7, 3, 5)).astype("f4"), random.integers(0, 4, (7, 3))
    loss, grads = tr.value_and_grad(net, tr.cross_entropy, x, target, rng=0)
    tr.Adam(net, lr=0.05).step(grads)
    assert tr.value(net, tr.cross_entropy, x, target) < loss
    model, wanted = net.to_model(), net(x)
    model.save(tmp_path / "m.safetensors")
    for session in (fr.compile(model, backend="reference"), fr.compile(model), fr.compile(fr.load(tmp_path / "m.safetensors"))):
        assert np.abs(session(x) - wanted).max() <= 3e-6 * max(1.0, np.abs(wanted).max())
    assert np.abs(fr.compile(model).stream(batch=3).push(x) - wanted).max() <= 3e-6 * max(1.0, np.abs(wanted).max())
    lengths = np.array([7, 2, 5])
    inside = np.arange(7)[:, None] < lengths
    assert np.abs(fr.compile(net.to_model(lengths=True)).run({"x": x, "lengths": lengths})["y"] - net(x, lengths=lengths))[inside].max() <= 1e-5
    same, rows = fr.Recurrent(cell, I, H, num_layers=2), random.standard_normal((6, 2, I + n)).astype("f4")
    same.load_state_dict(layer.state_dict())
    y = same(np.ascontiguousarray(rows[..., :I]), **{name: np.ascontiguousarray(rows[..., I + k]) for k, name in enumerate(cell.scalars)})[0]
    assert np.abs(y - tr.Sequential(layer)(rows)).max() <= 3e-6 * max(1.0, np.abs(y).max())


@pytest.mark.parametrize("cell", [gallery.mgu, lstm_written, gallery.decay_lstm], ids=lambda c: c.name)
def test_fit_learns_and_repeats_itself(cell):
    random = np.random.default_rng(0)
    xs = [random.standard_normal((n, 2 + len(cell.scalars))).astype("f4") for n in random.integers(3, 9, 40)]
    ys = [(x[:, 0].cumsum() > 0).astype(np.int64) for x in xs]

    def run():
        net = tr.Sequential(tr.Recurrent(cell, 2, 12), tr.Linear(12, 2), seed=0)
        return net, tr.fit(net, tr.cross_entropy, (xs, ys), optimiser=tr.Adam(net, lr=0.03), epochs=6, clip_norm=1.0, tbptt=4, progress=False)

    (net, history), (again, _) = run(), run()
    assert history.train[-1] < 0.7 * history.train[0] and all(np.array_equal(a, again.parameters()[n]) for n, a in net.parameters().items())


def test_states_go_on_and_what_was_made_travels():
    net = tr.Sequential(tr.Recurrent(all_at_once, 3, 6, seed=0), tr.Linear(6, 2, seed=0))
    x, state = np.abs(np.random.default_rng(0).standard_normal((8, 2, 4))).astype("f4"), tr.State()
    whole = net(x)
    assert np.allclose(np.concatenate([net(x[:3], state=state), net(x[3:], state=state)]), whole, atol=1e-6)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.astype("float64").astype("float32")):
        assert np.array_equal(other(x), whole)
    assert repr(net.layers[0]) == "Recurrent(4 -> 6, float32)"


def test_diagnostics_look_at_cells_too():
    net = tr.Sequential(tr.Recurrent(gallery.mgu, 3, 6, seed=0), tr.Linear(6, 2, seed=0))
    x, y = np.random.default_rng(0).standard_normal((8, 2, 3)).astype("f4"), np.zeros((8, 2), np.int64)
    assert (diagnostics.hidden_gradients(net, tr.cross_entropy, x, y) > 0).all()
    radii = diagnostics.spectral_radius(net.layers[0])
    assert list(radii) == ["f", "n"] and all(r > 0 for r in radii.values())
    with pytest.raises(fr.UnsupportedModelError, match="saturation: .* gates of cell 'mgu'"):
        diagnostics.saturation(net, x)
    with pytest.raises(fr.UnsupportedModelError, match="cell 'sru' has no recurrent matrix"):
        diagnostics.spectral_radius(tr.Recurrent(gallery.sru, 3, 3))


def test_constants_of_float64_are_float64():
    @fr.cell(gates=(fr.Gate("a", sees="x", bias=False),), name="tenth")
    def tenth(a, h):
        return 0.1 * a + h

    layer = tr.Recurrent(tenth, 1, 1, dtype="float64")
    layer.parameters()["weight_ih_l0"][...] = 1
    y = tr.Sequential(layer)(np.ones((1, 1, 1)))
    assert y[0, 0, 0] == 0.1 and tr.Sequential(layer).astype("float32")(np.ones((1, 1, 1), "f4"))[0, 0, 0] == np.float32(0.1)


def test_what_is_refused():
    for wrong in (lambda h: h, fr.LSTM, 3, None):
        with pytest.raises(fr.UnsupportedModelError, match="Recurrent: a cell made with @fastrnn.cell, or its name, is expected"):
            tr.Recurrent(wrong, 2, 3)
    with pytest.raises(fr.UnsupportedModelError, match="cell 'unheard_of' is not registered"):
        tr.Recurrent("unheard_of", 2, 3)
    with pytest.raises(fr.ShapeError, match="reads x unit for unit"):
        tr.Recurrent(gallery.sru, 2, 3)
    with pytest.raises(fr.UnsupportedModelError, match="proj_size"):
        tr.Recurrent(gallery.mgu, 2, 3, proj_size=2)
    net = tr.Sequential(tr.Recurrent("decay_lstm", 2, 3))
    with pytest.raises(fr.ShapeError, match=r"input 'x' must have shape \(T, B, 3\)"):
        net(np.zeros((1, 1, 2), "f4"))
    with pytest.raises(fr.StateError, match=r"a state is a tuple \(h, c\), got ndarray"):
        net(np.zeros((1, 1, 3), "f4"), state=tr.State((np.zeros((1, 1, 3), "f4"),)))
    rate = [0.5]

    @fr.cell(gates=("a",), name="changing")
    def changing(a, h):
        return rate[0] * h + fr.tanh(a)

    net = tr.Sequential(tr.Recurrent(changing, 2, 3))
    net.to_model()
    rate[0] = 0.25
    with pytest.raises(fr.UnsupportedModelError, match="cell 'changing' computes something else by now than what was trained"):
        net.to_model()
