"""A session holds its recurrent weights once: packed. What is left of them can neither be saved nor compiled nor evaluated."""

import gc
import weakref

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels.reference import evaluate
from fastrnn.model.absent import Absent
from fastrnn.model.stack import stack_model
from fastrnn.runtime.session import compile


def model_of(layer):
    return stack_model(layer.options, {name: a.copy() for name, a in layer.state_dict().items()}, layer.options.kind)


def test_weights_go_once_they_are_packed():
    layer, x = fr.LSTM(24, 40, num_layers=2, bidirectional=True, seed=0), np.random.default_rng(0).standard_normal((7, 2, 24)).astype(np.float32)
    expected, model = layer(x)[0], model_of(layer)
    session = compile(model)
    there = [weakref.ref(a) for a in model.weights.values() if a.nbytes > 8000]  # inference keeps small values
    weight_bytes = sum(a.nbytes for a in model.weights.values())
    del model
    gc.collect()
    assert there and not any(a() is not None for a in there)
    packed = sum(p.weight_bytes for parts in session.plan.packed.values() for p in parts)
    assert packed <= 1.2 * weight_bytes  # 40 units take two and a half blocks of 16
    assert np.array_equal(session.run({"x": x})["y"], expected)
    assert np.array_equal(session.run({"x": x[:3]})["y"], layer(x[:3])[0])


def test_what_is_left_is_refused(tmp_path):
    session = compile(model_of(fr.GRU(8, 16, seed=0)))
    assert any(isinstance(a, Absent) for a in session.model.weights.values())
    for action in (lambda: session.model.save(tmp_path / "m.safetensors"), lambda: compile(session.model), lambda: evaluate(session.model, {})):
        with pytest.raises(fr.StateError, match="packed"):
            action()


def test_weights_that_something_else_reads_stay():
    from fastrnn.model import Model, Node, Value

    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((1, 5, 5)).astype(np.float32), "r": random.standard_normal((1, 5, 5)).astype(np.float32)}
    nodes = (Node("RNN", "rnn", ("x", "w", "r"), ("y",)), Node("Add", "add", ("y", "w"), ("z",)))
    session = compile(Model((Value("x", "float32", ("T", "B", 5)),), ("z",), nodes, weights))
    assert not isinstance(session.plan.model.weights["w"], Absent) and isinstance(session.plan.model.weights["r"], Absent)
    x = random.standard_normal((5, 5, 5)).astype(np.float32)
    expected = evaluate(Model((Value("x", "float32", ("T", "B", 5)),), ("z",), nodes, weights), {"x": x})["z"]
    assert np.abs(session(x) - expected).max() < 1e-5


def test_a_reference_session_keeps_them():
    session = compile(model_of(fr.LSTM(4, 4, seed=0)), backend="reference")
    assert not any(isinstance(a, Absent) for a in session.plan.model.weights.values())
