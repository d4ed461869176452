"""The probes compute what they say, the measured limits make sense, and the work of a model is counted right."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import registry, roofline
from fastrnn.kernels.native import _invoke
from fastrnn.kernels.roofline import Level, Roofline, Work, recurrent_work
from fastrnn.model import Node, Value
from fastrnn.model.stack import StackOptions, stack_model
from fastrnn.plan.emit.emitter import new_args
from fastrnn.plan.work import work_of
from fastrnn.testing import FakeClock


def test_probes_do_all_of_their_work(each_isa):
    """Nothing is optimised away: the sums are those of the work."""
    y = np.empty(64, np.float32)
    kernel = registry.find("probe_load", "native", each_isa)
    x = np.arange(roofline.GRAIN, dtype=np.float32)
    args = new_args(T=3, I=len(x), x=x.ctypes.data, y=y.ctypes.data).record()
    _invoke.run(kernel.run, args)
    assert y[: kernel.lanes].sum(dtype=np.float64) == 3 * x.sum(dtype=np.float64)
    kernel = registry.find("probe_fma", "native", each_isa)
    args = new_args(T=2, y=y.ctypes.data, scale=0.5).record()
    _invoke.run(kernel.run, args)
    assert np.allclose(y[: kernel.lanes], sum(k / 4 + 1.5 for k in range(roofline.CHAINS)))


def test_the_measured_roofline_makes_sense():
    limits = roofline.measure()
    rates = {level.name: level.gbytes for level in limits.levels}
    assert limits is roofline.measure() and limits.gflops > 0.1 and min(rates.values()) > 0.1  # an emulator reaches 0.2
    assert rates["L1"] >= rates[roofline.DRAM] and limits.levels[-1].capacity is None
    sizes = [level.capacity for level in limits.levels[:-1]]
    assert sizes == sorted(sizes) and sizes == list(roofline.cache_bytes().values())
    assert limits.facts()["read_gbytes"].keys() == rates.keys()


@pytest.mark.parametrize(
    "interrupted", [{}, {0: 1e-2}, {3: 5e-3}, {10: 1.0}, dict.fromkeys(range(4), 0.003), dict.fromkeys(range(0, 400, 2), 0.01)], ids=str
)
@pytest.mark.parametrize("round_seconds", [1e-9, 3e-6, 5e-2])
def test_an_interruption_hides_no_speed(monkeypatch, interrupted, round_seconds):
    """Calling a probe costs 2 us, so blocks that an interruption kept short would show a fraction of the rate: 12 GFLOP/s of 97, once."""
    clock = FakeClock(interrupted)
    monkeypatch.setattr(roofline, "time", clock)
    found = roofline._fastest(lambda rounds: clock.work(2e-6 + rounds * round_seconds))
    assert found == pytest.approx(round_seconds, rel=4e-3) and clock.pieces < 400


LIMITS = Roofline("any", 100.0, (Level("L1", 1000, 200.0), Level("L2", 100_000, 50.0), Level("DRAM", None, 10.0)))


@pytest.mark.parametrize(
    "work,us",
    [
        (Work(0, 0), None),
        (Work(1e5, 1000), 1.0),  # flops decide
        (Work(1.0, 1000), 0.005),
        (Work(1.0, 1001), 0.02002),  # the next level
        (Work(1.0, 200_000), 20.0),
        (Work(1.0, 1000, ((500, 10),)), 0.005 + 0.025),
    ],
    ids=str,
)
def test_the_bound(work, us):
    assert LIMITS.microseconds(work) == (us if us is None else pytest.approx(us))


def test_work_adds_up():
    both = Work(1, 2, ((3, 4),)) + Work(10, 20, ((30, 40),))
    assert both == Work(11, 22, ((3, 4), (30, 40)))
    step = recurrent_work(4, 8, 16, 1, 1)
    assert step.flops == 2 * 4 * 16 * (8 + 16) and step.weight_bytes == 4 * 4 * 16 * 24 and not step.loops
    assert recurrent_work(4, 8, 16, 30, 10).loops == ((4 * 4 * 16 * 16, 9),)


@pytest.mark.parametrize(
    "kind,options,weights",
    [
        ("lstm", {}, 4 * 6 * (5 + 6)),
        ("gru", {}, 3 * 6 * (5 + 6)),
        ("gru", {"reset_after": False}, 3 * 6 * (5 + 6)),
        ("lstm", {"proj_size": 2}, 4 * 6 * (5 + 2) + 6 * 2),
        ("rnn", {"bidirectional": True}, 2 * 6 * (5 + 6)),
        ("lstm", {"num_layers": 2}, 4 * 6 * (5 + 6) + 4 * 6 * (6 + 6)),
    ],
    ids=str,
)
def test_work_of_a_layer(kind, options, weights):
    session = fr.compile(stack_model(StackOptions(kind, 5, 6, **options), getattr(fr, kind.upper())(5, 6, **options).state_dict(), kind))
    work = work_of(session.plan.specialised({"x": (7, 3, 5)}))
    assert work.flops == 2 * 21 * weights and work.weight_bytes == 4 * weights


def test_work_of_other_layers():
    x, w = Value("x", "float32", (2, 4, 10)), np.ones((6, 2, 3), np.float32)
    model = fr.Model((x,), ("y",), (Node("Conv", "conv", ("x", "w"), ("y",), {"group": 2}),), {"w": w})
    assert work_of(fr.compile(model).plan.model) == Work(2 * (2 * 6 * 8) * 2 * 3, w.nbytes)
    model = fr.Model((x,), ("y",), (Node("MatMul", "m", ("x", "v"), ("y",)),), {"v": np.ones((10, 5), np.float32)})
    assert work_of(fr.compile(model).plan.model) == Work(2 * 2 * 4 * 5 * 10, 200)
    model = fr.Model((x,), ("y",), (Node("Tanh", "t", ("x",), ("y",)),), {})
    assert work_of(fr.compile(model).plan.model) == Work(0, 0)
