"""Every backend and ISA, kind, option and trap shape, against the float64 reference."""

import numpy as np
import pytest

from fastrnn.kernels import isa
from fastrnn.testing import JIT_ISAS, OPTIONS, TRAP_SHAPES, Case, draw_case

BACKENDS = [("native", name) for name in isa.supported()] + [("jit", name) for name in JIT_ISAS] + [("reference", None)]
COMPILED = ("I_ne_H", "whole", "ragged", "wide", "long")  # last blocks that are narrow, whole, and neither; each is a kernel to compile
ROWS = [(kind, option) for kind, options in OPTIONS.items() for option in options]


def assert_within(case, got):
    for value, reference in zip(got, case.reference(), strict=True):
        assert value.shape == reference.shape and value.dtype == np.float32
        error = np.abs(value - reference).max(initial=0.0)
        assert error <= case.tolerance(reference), f"{case}: error {error:.2e}, allowed {case.tolerance(reference):.2e}"


def every_way():
    """Each option with each backend and instruction set; the options of cells that are compiled for a narrower one than the widest are a sweep."""
    compiled = [name for backend, name in BACKENDS if backend == "jit"]
    for backend, name in BACKENDS:
        for kind, option in ROWS:
            narrower = backend == "jit" and name != compiled[0] and option != "default"
            yield pytest.param(
                backend,
                name,
                kind,
                option,
                id=f"{kind}-{option}-{backend}-{name}" if name else f"{kind}-{option}-{backend}",
                marks=[pytest.mark.sweep] if narrower else [],
            )


@pytest.mark.parametrize("backend,isa_name,kind,option", list(every_way()))
def test_options_on_trap_shapes(backend, isa_name, kind, option, monkeypatch):
    if isa_name:
        monkeypatch.setenv("FASTRNN_ISA", isa_name)
    for name, shape in TRAP_SHAPES.items():
        if backend == "jit" and option != "default" and name not in COMPILED:
            continue
        if OPTIONS[kind][option].get("proj_size", 0) < shape.H:
            case = Case(kind, shape, OPTIONS[kind][option], seed=3)
            assert_within(case, case.run(case.layer(backend)))


@pytest.mark.parametrize("count", [500, pytest.param(2_000, marks=pytest.mark.sweep)])
def test_drawn_configurations_on_the_chosen_isa(count):
    random = np.random.default_rng(20)
    for _ in range(count):
        case = draw_case(random)
        assert_within(case, case.run(case.layer()))


@pytest.mark.parametrize("reset_after", [True, False])
def test_both_reset_forms_differ_and_are_right(reset_after):
    case = Case("gru", TRAP_SHAPES["tail"], {"reset_after": reset_after}, seed=1)
    other = Case("gru", TRAP_SHAPES["tail"], {"reset_after": not reset_after}, seed=1)
    assert_within(case, case.run(case.layer()))
    assert np.abs(case.reference()[0] - other.reference()[0]).max() > 1e-3


def test_clip_bounds_the_input_of_every_activation_but_not_the_carried_c():
    """By hand: weights of zero and biases far outside the bound. i = f = o = s(1), g = tanh(1), c grows past the bound."""
    import fastrnn as fr

    lstm, T = fr.LSTM(1, 1, clip=1.0), 9
    state = {name: np.zeros(shape, np.float32) for name, shape in lstm.options.shapes().items()}
    lstm.load_state_dict({**state, "bias_ih_l0": np.full(4, 9, np.float32)})
    y, (_, c) = lstm(np.zeros((T, 1, 1), np.float32))
    gate, expected_c, expected_y = 1 / (1 + np.exp(-1.0)), 0.0, []
    for _ in range(T):
        expected_c = gate * expected_c + gate * np.tanh(1.0)
        expected_y.append(gate * np.tanh(min(expected_c, 1.0)))
    assert expected_c > 1.0
    np.testing.assert_allclose(c.item(), expected_c, rtol=1e-6)
    np.testing.assert_allclose(y[:, 0, 0], expected_y, rtol=1e-6)


def test_input_forget_means_one_minus_i():
    import fastrnn as fr

    lstm = fr.LSTM(1, 1, input_forget=True)
    state = {name: np.zeros(shape, np.float32) for name, shape in lstm.options.shapes().items()}
    lstm.load_state_dict({**state, "bias_ih_l0": np.array([2, 9, 0, 0], np.float32)})  # i, f, g, o
    _, (_, c) = lstm(np.zeros((1, 1, 1), np.float32), (np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)))
    np.testing.assert_allclose(c.item(), 1 - 1 / (1 + np.exp(-2.0)), rtol=1e-6)
