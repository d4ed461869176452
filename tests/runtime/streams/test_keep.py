"""What states are multiplied by on their way into a step, as an input of a recurrent node: episodes, and policies that multiply by (1 - done)."""

from dataclasses import replace

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.model.stack import stack_model
from fastrnn.testing import JIT_ISAS, draw_case

T, B, I = 9, 5, 3


def model_of(layer, name="layer"):
    model = stack_model(layer.options, layer.state_dict(), name, with_keep=True)
    return replace(model, inputs=tuple(replace(v, optional=v.optional and v.name != "keep") for v in model.inputs))


def drawn():
    """x, and factors of which many are 0 or 1."""
    random = np.random.default_rng(0)
    keep = random.choice(np.array([0, 1, 1, 0.3, -2], np.float32), (T, B))
    return random.standard_normal((T, B, I)).astype(np.float32), keep


@pytest.mark.parametrize("backend", ["native", "jit"])
@pytest.mark.parametrize(
    "make,options",
    [
        (fr.LSTM, {"num_layers": 2}),
        (fr.LSTM, {"proj_size": 2, "bidirectional": True}),
        (fr.GRU, {}),
        (fr.GRU, {"reset_after": False, "hidden_size": 19}),
        (fr.RNN, {"reverse": True}),
        (fr.LSTM, {"batch_first": True, "bidirectional": True}),
    ],
    ids=str,
)
def test_states_are_multiplied(make, options, backend):
    layer, (x, keep) = make(I, **{"hidden_size": 7, "seed": 1, **options}), drawn()
    model = model_of(layer)
    if layer.options.batch_first:
        x, keep = x.swapaxes(0, 1).copy(), keep.T.copy()
    got, wanted = (fr.compile(model, backend=b).run({"x": x, "keep": keep}) for b in (backend, "reference"))
    without = fr.compile(model, backend=backend).run({"x": x, "keep": np.ones_like(keep)})
    assert np.array_equal(without["y"], layer(x)[0]) and not np.array_equal(got["y"], without["y"])
    for name in wanted:
        assert np.allclose(got[name], wanted[name], 1e-5, 1e-6), name


def test_by_hand():
    layer, (x, keep) = fr.GRU(I, 7, seed=1), drawn()
    h, ys = np.zeros((1, B, 7), np.float32), []
    for t in range(T):
        h = layer(x[t : t + 1], keep[t][:, None] * h)[1]
        ys.append(h[0])
    assert np.array_equal(fr.compile(model_of(layer)).run({"x": x, "keep": keep})["y"], ys)


@pytest.mark.parametrize("cell", ["indrnn", "mgu"])
def test_cells_of_the_gallery(cell):
    from fastrnn.cells import gallery  # noqa: F401

    layer, (x, keep) = fr.Recurrent(cell, I, 7, seed=1), drawn()
    got, wanted = (fr.compile(model_of(layer), backend=b).run({"x": x, "keep": keep})["y"] for b in ("jit", "reference"))
    assert np.allclose(got, wanted, 1e-5, 1e-6)


def test_streams_and_pools_take_it_step_by_step(tmp_path):
    layer, (x, keep) = fr.LSTM(I, 7, 2, seed=1), drawn()
    model_of(layer).save(tmp_path / "m.safetensors")
    session = fr.compile(fr.load(tmp_path / "m.safetensors"))
    whole = session.run({"x": x, "keep": keep})["y"]
    stream, pool = session.stream(batch=B), session.pool(B)
    assert np.array_equal(stream.push({"x": x, "keep": keep}), whole)
    stream.reset()
    assert np.array_equal([stream.step({"x": x[t], "keep": keep[t]}) for t in range(T)], whole)
    assert np.array_equal(pool.push([pool.open() for _ in range(B)], {"x": x, "keep": keep}), whole)


def test_small_weights_and_threads_change_nothing_of_it():
    random = np.random.default_rng(0)
    x, resets = random.standard_normal((T, 1, 40)).astype(np.float32), random.random((T, 1)) < 0.3
    one, two = (fr.LSTM(40, 512, seed=1, threads=n)(x, resets=resets)[0] for n in (1, 2))
    assert one.tobytes() == two.tobytes()
    small = fr.compile(model_of(fr.LSTM(I, 7, seed=1)), precision="int8")
    x, keep = drawn()
    assert np.array_equal(small.run({"x": x, "keep": keep})["y"][:, 2], small.run({"x": x[:, 2:3], "keep": keep[:, 2:3]})["y"][:, 0])


def test_refusals():
    session, (x, keep) = fr.compile(model_of(fr.GRU(I, 7))), drawn()
    for wrong, error in ((keep[:4], fr.ShapeError), (keep.astype(bool), fr.DTypeError)):
        with pytest.raises(error, match="keep"):
            session.run({"x": x, "keep": wrong})
    model = model_of(fr.GRU(I, 7))
    with pytest.raises(fr.ShapeError, match="keep"):
        fr.compile(replace(model, inputs=tuple(replace(v, shape=("T", 2, 3)) if v.name == "keep" else v for v in model.inputs)))


EACH = [("native", name) for name in isa.supported()] + [("jit", name) for name in JIT_ISAS]


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(4, 25))])
def test_drawn_layers_reset_alike_everywhere(seed, monkeypatch):
    """Every kind, option and direction, any lengths: the same bits from each backend and instruction set, and within a tolerance the reference's."""
    random = np.random.default_rng(seed)
    case = draw_case(random)
    mask, found = random.random((case.shape.T, case.shape.B)) < random.choice([0.05, 0.3]), []
    state = (tuple(case.states) if len(case.states) == 2 else case.states[0], case.lengths)
    for backend, name in EACH:
        monkeypatch.setenv("FASTRNN_ISA", name)
        y, final = case.layer(backend)(case.x, *state, resets=mask)
        found.append([y, *(final if isinstance(final, tuple) else (final,))])
    for other in found[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(other, found[0]))
    y, final = case.layer("reference")(case.x, *state, resets=mask)
    for mine, wanted in zip(found[0], [y, *(final if isinstance(final, tuple) else (final,))]):
        assert np.allclose(mine, wanted, 1e-4, 1e-5)
