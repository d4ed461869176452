"""Panels of weights from beyond L2, in which every gate lies apart, and their tall tiles: the bits of those that stay near."""

from dataclasses import replace

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import isa, registry
from fastrnn.kernels.contract import Key
from fastrnn.model import Model, Node, Value
from fastrnn.plan import build_program, policy
from fastrnn.testing import Case, Shape

EVERYTHING = dict.fromkeys(policy.FAR_BYTES, 0)
OPTIONS = [
    *[("lstm", {}), ("lstm", {"proj_size": 19}), ("lstm", {"peepholes": True, "clip": 1.0}), ("lstm", {"num_layers": 2, "bidirectional": True})],
    *[("gru", {}), ("gru", {"reset_after": False}), ("gru", {"clip": 1.0}), ("rnn", {}), ("rnn", {"nonlinearity": "relu"})],
]
# A tile's rows, one more, and more than are done at once; T = 1 has no projections of a chunk, of which other cells than LSTM and RNN then need one.
SHAPES = [(T, B, 9, 70) for T, B in ((1, 1), (1, 2), (3, 5), (5, 6), (1, 7), (4, 13), (5, 14), (1, 15), (2, 33), (1, 75), (9, 1))]
SHAPES += [(3, 1, 9, 250), (2, 2, 9, 210), (6, 20, 40, 64), (2, 3, 5, 24), (7, 15, 3, 100), (3, 29, 65, 37)]


def same_bits(a, b):
    return all(np.array_equal(x.view(np.uint32), y.view(np.uint32)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind, options", OPTIONS)
def test_same_bits_as_near(kind, options, each_isa, monkeypatch):
    cases = [Case(kind, Shape(T=T, B=B, I=I, H=H, ragged=B % 2 == 1), options, seed=B) for T, B, I, H in SHAPES]
    near = [case.run(case.layer()) for case in cases]
    monkeypatch.setattr(policy, "FAR_BYTES", EVERYTHING)
    for case, expected in zip(cases, near, strict=True):
        assert same_bits(expected, case.run(case.layer())), str(case)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_two_threads_and_pools(kind, each_isa, monkeypatch):
    layer = getattr(fr, kind)(12, 150, seed=3)
    x = np.random.default_rng(0).standard_normal((5, 40, 12)).astype(np.float32)
    near = np.asarray(layer(x)[0])
    monkeypatch.setattr(policy, "FAR_BYTES", EVERYTHING)
    session = fr.compile(layer.to_model(), threads=2)
    assert same_bits([near[:, :1], near], [session(np.ascontiguousarray(x[:, :1]))[0], session(x)[0]])
    pool = session.pool(40)
    handles = [pool.open() for _ in range(40)]
    for t in range(5):
        rows = np.random.default_rng(t).permutation(40)
        y = pool.step([handles[k] for k in rows], x[t][rows])
        assert same_bits([near[t][rows]], [y[0] if isinstance(y, tuple) else y])


def gemm(K: int, N: int) -> Model:
    random = np.random.default_rng(K)
    weights = {"w": random.standard_normal((N, K)).astype(np.float32), "b": random.standard_normal(N).astype(np.float32)}
    node = Node("Gemm", "dense", ("x", "w", "b"), ("y",), {"transB": 1})
    return Model((Value("x", "float32", ("B", K)),), ("y",), (node,), weights)


@pytest.mark.parametrize("K, N", [(7, 5), (33, 200), (300, 97), (3000, 97)])  # of so many inputs fewer vectors go at once
def test_dense_layers(K, N, each_isa, monkeypatch):
    model, x = gemm(K, N), np.random.default_rng(1).standard_normal((150, K)).astype(np.float32)
    near = fr.compile(model)(x)
    monkeypatch.setattr(policy, "FAR_BYTES", EVERYTHING)
    session = fr.compile(model)
    for rows in (1, 2, 6, 7, 14, 15, 40, 80, 150):
        assert same_bits([near[:rows]], [session(x[:rows])]), rows


@pytest.mark.parametrize("H, far", [(128, False), (512, True)])
def test_large_layers_are_far(H, far):
    session = fr.compile(fr.LSTM(24, H).to_model(), backend="native")
    (step,) = build_program(session.plan, session.plan.specialised({"x": (90, 1, 24)})).steps
    assert bool(step.args["far"]) is far
    if isa.chosen() == "avx512":
        assert bool(step.args["ahead"]) is not far


def test_a_kernel_that_does_not_say_so_gets_panels_as_ever():
    kernel = registry.find(Key("recurrent", "lstm"), "native", isa.chosen())
    assert policy.far(kernel, 1 << 30) and not policy.far(replace(kernel, far=False), 1 << 30) and not policy.far(None, 1 << 30)
