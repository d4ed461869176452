"""One call that does the steps of both directions in turn: the bits of one direction after the other."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model.stack import stack_model
from fastrnn.plan import build_program, policy
from fastrnn.testing import LAYERS, Case, Shape

OPTIONS = [
    *[("lstm", {}), ("lstm", {"proj_size": 5}), ("lstm", {"peepholes": True, "clip": 1.0}), ("lstm", {"num_layers": 2, "batch_first": True})],
    *[("gru", {}), ("gru", {"reset_after": False}), ("gru", {"clip": 1.0}), ("rnn", {}), ("rnn", {"nonlinearity": "relu"})],
]


def program_of(layer, T=7, B=1, **options):
    session = fr.compile(stack_model(layer.options, layer.state_dict(), layer.options.kind), **options)
    return build_program(session.plan, session.plan.specialised({"x": (T, B, layer.options.input_size)}))


def in_turn(program):
    return sum(getattr(step, "in_turn", False) for step in program.steps)


@pytest.mark.parametrize("kind, options", OPTIONS)
def test_same_bits_as_one_after_the_other(kind, options, each_isa, monkeypatch):
    """Any batch and size: the kernels can do more than it pays for. Odd counts of steps change the way that panels are read from call to call."""
    shapes = [(37, 1, 24, 16, False), (9, 1, 3, 70, False), (5, 4, 24, 40, True), (1, 1, 8, 12, False), (21, 1, 40, 200, False)]
    for T, B, I, H, ragged in shapes:
        case = Case(kind, Shape(T=T, B=B, I=I, H=H, ragged=ragged), {**options, "bidirectional": True}, seed=H)
        for precision in ("float32", "bfloat16", "int8"):
            found = []
            for whether in (False, True):
                monkeypatch.setattr(policy, "in_turn", lambda *_, whether=whether: whether)
                layer = Case(kind, case.shape, {**case.options, "precision": precision}, seed=H).layer()
                found += [case.run(layer), case.run(layer)]
            for results in found[1:]:
                assert all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in zip(found[0], results, strict=True)), (
                    f"{case}: {precision}"
                )


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_where_steps_are_in_turn(kind):
    """One row of few units, on one thread; explain() says so."""
    small, large = (LAYERS[kind](8, H, bidirectional=True, seed=0) for H in (policy.IN_TURN_UNITS, policy.IN_TURN_UNITS + 1))
    assert in_turn(program_of(small)) == 1 and len(program_of(small).steps) == 2
    assert not in_turn(program_of(large)) and not in_turn(program_of(small, B=2)) and not in_turn(program_of(small, backend="reference"))
    assert not in_turn(program_of(LAYERS[kind](8, 16, seed=0)))
    session = fr.compile(stack_model(small.options, small.state_dict(), kind))
    assert "step by step in turn" in session.explain({"x": (7, 1, 8)})
    assert "in turn" not in session.explain({"x": (7, 2, 8)}) and "in turn" not in session.explain()


def test_directions_of_other_activations_go_one_after_the_other():
    """Theirs are two kernels."""
    activations = (("sigmoid", "tanh", "tanh"), ("hardsigmoid", "tanh", "tanh"))
    assert not in_turn(program_of(fr.LSTM(8, 16, bidirectional=True, activations=activations, seed=0)))
