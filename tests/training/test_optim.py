"""Optimisers, clipping and schedules, step for step beside torch's."""

import math

import numpy as np
import pytest
import torch
from training_oracle import tensors

import fastrnn as fr
import fastrnn.training as tr

OPTIMISERS = {
    "sgd": (lambda n: tr.SGD(n, 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "sgd, momentum": (lambda n: tr.SGD(n, 0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "sgd, nesterov, decay": (lambda n: tr.SGD(n, 0.1, 0.8, nesterov=True, weight_decay=0.03), lambda p: torch.optim.SGD(p, 0.1, 0.8, 0, 0.03, True)),
    "rmsprop": (lambda n: tr.RMSProp(n), lambda p: torch.optim.RMSprop(p)),
    "rmsprop, all": (
        lambda n: tr.RMSProp(n, 1e-3, 0.9, 1e-6, momentum=0.7, weight_decay=0.02),
        lambda p: torch.optim.RMSprop(p, 1e-3, 0.9, 1e-6, 0.02, 0.7),
    ),
    "adam": (lambda n: tr.Adam(n), lambda p: torch.optim.Adam(p)),
    "adam, all": (lambda n: tr.Adam(n, 1e-2, (0.8, 0.95), 1e-6, 0.03), lambda p: torch.optim.Adam(p, 1e-2, (0.8, 0.95), 1e-6, 0.03)),
    "adamw": (lambda n: tr.AdamW(n), lambda p: torch.optim.AdamW(p)),
    "adamw, all": (lambda n: tr.AdamW(n, 1e-2, (0.8, 0.95), 1e-6, 0.1), lambda p: torch.optim.AdamW(p, 1e-2, (0.8, 0.95), 1e-6, 0.1)),
}


def net_of(dtype="float64", seed=0):
    return tr.Sequential(tr.Linear(4, 3, dtype=dtype), tr.LayerNorm(3, dtype=dtype), tr.Linear(3, 2, bias=False, dtype=dtype), seed=seed)


def draw(net, rng):
    return {name: rng.standard_normal(a.shape).astype(a.dtype) for name, a in net.parameters().items()}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_fifty_steps(name, dtype):
    net, rng = net_of(dtype), np.random.default_rng(1)
    make, theirs = OPTIMISERS[name]
    params = tensors(net.state_dict())
    ours, other = make(net), theirs(params.values())
    for step in range(50):
        grads = draw(net, rng)
        given = {k: g.copy() for k, g in grads.items()}
        ours.step(grads)
        assert all(np.array_equal(grads[k], given[k]) for k in grads)
        for k, p in params.items():
            p.grad = torch.tensor(grads[k])
        other.step()
        if step == 25:
            ours.lr *= 0.5
            other.param_groups[0]["lr"] *= 0.5
    bound = 1e-13 if dtype == "float64" else 2e-6
    assert all(np.abs(net.parameters()[k] - p.detach().numpy()).max() <= bound * p.abs().max().item() for k, p in params.items())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_states_go_on_where_they_were(name):
    whole, broken, make = net_of(), net_of(), OPTIMISERS[name][0]
    one, two = make(whole), make(broken)
    rng = np.random.default_rng(0)
    for k in range(6):
        grads = draw(whole, rng)
        one.step(grads)
        two.step(grads)
        if k == 2:
            saved, two = two.state_dict(), make(broken)
            two.load_state_dict(saved)
    assert all(np.array_equal(a, broken.parameters()[k]) for k, a in whole.parameters().items())


def test_what_does_not_fit_is_refused_and_changes_nothing():
    net = net_of()
    opt, grads, before = tr.Adam(net), draw(net, np.random.default_rng(0)), net.state_dict()
    cases = [
        (lambda: opt.step({k: g for k, g in grads.items() if k != "0.bias"}), fr.ShapeError, "missing 0.bias"),
        (lambda: opt.step(grads | {"x": grads["0.bias"]}), fr.ShapeError, "unknown x"),
        (lambda: opt.step(grads | {"0.weight": grads["0.weight"].T}), fr.ShapeError, r"gradient '0.weight' must have shape \(3, 4\), got \(4, 3\)"),
        (lambda: opt.step(grads | {"0.bias": grads["0.bias"].astype("f4")}), fr.DTypeError, "0.bias"),
        (lambda: opt.step(grads | {"0.bias": grads["0.bias"].tolist()}), fr.DTypeError, "gradient '0.bias' must be an array of float64, got list"),
        (lambda: opt.step((0.5, grads)), fr.ShapeError, "gradients must be a dict by name, got tuple"),
        (lambda: tr.clip_grad_norm((0.5, grads), 1.0), fr.ShapeError, "gradients must be a dict by name, got tuple"),
        (lambda: tr.Adam(net.parameters()), fr.UnsupportedModelError, "Adam: pass the network itself, got dict"),
        (lambda: opt.load_state_dict({}), fr.ShapeError, "steps"),
        (lambda: opt.load_state_dict(opt.state_dict() | {"mean": np.zeros(3)}), fr.ShapeError, "mean"),
        (lambda: opt.load_state_dict(opt.state_dict() | {"mean": opt.mean.astype("f4")}), fr.DTypeError, "mean"),
        (lambda: opt.load_state_dict(opt.state_dict() | {"steps": np.array(-1)}), fr.UnsupportedModelError, "steps"),
        (lambda: opt.load_state_dict(opt.state_dict() | {"lr": np.array(np.nan)}), fr.UnsupportedModelError, "lr"),
        (lambda: tr.StepLR(net, 3), fr.UnsupportedModelError, "StepLR: pass the optimiser, got Sequential"),
        (lambda: tr.WarmupLR(opt, 3, then=0.1), fr.UnsupportedModelError, "then must be a schedule"),
        (lambda: tr.SGD(net, -1), fr.UnsupportedModelError, "lr"),
        (lambda: tr.SGD(net, 1, nesterov=True), fr.UnsupportedModelError, "momentum"),
        (lambda: tr.SGD(net, 1, 0.9, nesterov="no"), fr.UnsupportedModelError, "nesterov must be True or False"),
        (lambda: tr.RMSProp(net, 1e-2, 0.99, 1e-8, 1e-4), TypeError, "positional"),  # torch's next is the weight decay
        (lambda: tr.Adam(net, betas=(0.9, 1.0)), fr.UnsupportedModelError, "below 1"),
        (lambda: tr.Adam(net, betas=0.9), fr.UnsupportedModelError, "two numbers"),
        (lambda: tr.RMSProp(net, eps=math.nan), fr.UnsupportedModelError, "eps"),
    ]
    for call, error, says in cases:
        with pytest.raises(error, match=says):
            call()
    assert opt.steps == 0 and all(np.array_equal(a, before[k]) for k, a in net.parameters().items())


def test_a_learning_rate_may_be_any_number():
    one, two = tr.Adam(net_of(), 0.5), tr.Adam(net_of())
    saved, two.lr = one.state_dict(), 1
    two.load_state_dict(saved)
    assert two.lr == 0.5


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_as_torch_does_it(limit, dtype):
    grads = draw(net_of(dtype), np.random.default_rng(3))
    params = [torch.zeros(g.shape, dtype=getattr(torch, dtype)) for g in grads.values()]
    for p, g in zip(params, grads.values()):
        p.grad = torch.tensor(g)
    by_value = {k: g.copy() for k, g in grads.items()}
    wanted = torch.nn.utils.clip_grad_norm_(params, limit).item()
    assert tr.clip_grad_norm(grads, limit) == pytest.approx(wanted, rel=1e-6)
    assert all(np.allclose(g, p.grad.numpy(), rtol=1e-6, atol=0) for g, p in zip(grads.values(), params))
    kept = {k: np.clip(g, -0.5, 0.5) for k, g in by_value.items()}
    tr.clip_grad_value(by_value, 0.5)
    assert all(np.array_equal(by_value[k], kept[k]) for k in kept)


def test_norms_that_float32_cannot_square():
    for size in (1e30, 1e-30):
        grads = {"a": np.full(4, size, "f4"), "b": np.zeros(0, "f4")}
        assert tr.clip_grad_norm(grads, 1.0) == pytest.approx(2 * size, rel=1e-6)
        assert np.allclose(grads["a"], 0.5 if size > 1 else size)
    grads = {"a": np.array([1.0, np.nan]), "b": np.ones(2)}
    with pytest.raises(fr.DivergedError, match="norm of the gradients is nan; not finite: a"):
        tr.clip_grad_norm(grads, 0.1)
    assert np.array_equal(grads["b"], np.ones(2))


def lrs(schedule, n, losses=None):
    found = [schedule.optimiser.lr]
    for k in range(n):
        schedule.step(None if losses is None else losses[k])
        found.append(schedule.optimiser.lr)
    return found


def torch_lrs(make, n, losses=None):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.3)
    schedule = make(opt)
    found = [opt.param_groups[0]["lr"]]
    for k in range(n):
        opt.step()
        schedule.step(*(() if losses is None else (losses[k],)))
        found.append(opt.param_groups[0]["lr"])
    return found


S = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("ours", "theirs", "n"),
    [
        (lambda o: tr.StepLR(o, 3, 0.5), lambda o: S.StepLR(o, 3, 0.5), 11),
        (lambda o: tr.CosineLR(o, 9, 0.01), lambda o: S.CosineAnnealingLR(o, 9, 0.01), 9),
        (lambda o: tr.WarmupLR(o, 4, 0.25), lambda o: S.LinearLR(o, 0.25, 1.0, 4), 8),
        (
            lambda o: tr.WarmupLR(o, 4, 0.25, then=tr.CosineLR(o, 6)),
            lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.25, 1.0, 4), S.CosineAnnealingLR(o, 6)], [4]),
            10,
        ),
    ],
)
def test_schedules(ours, theirs, n):
    assert lrs(ours(tr.SGD(net_of(), 0.3)), n) == pytest.approx(torch_lrs(theirs, n), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    "options", [{}, {"factor": 0.5, "patience": 2, "cooldown": 3}, {"factor": 0.2, "patience": 1, "threshold": 0.05, "minimum": 0.01}]
)
def test_the_plateau_schedule(options):
    losses = np.random.default_rng(0).random(60) + 1 / (1 + np.arange(60))
    theirs = {("min_lr" if k == "minimum" else k): v for k, v in options.items()}
    wanted = torch_lrs(lambda o: S.ReduceLROnPlateau(o, **theirs), 60, losses)
    found = lrs(tr.ReduceOnPlateau(tr.SGD(net_of(), 0.3), **options), 60, losses)
    assert found == pytest.approx(wanted, rel=1e-12) and len(set(found)) > 2


def test_a_warm_up_starts_at_its_start():
    opt = tr.SGD(net_of(), 0.3)
    assert lrs(tr.WarmupLR(opt, 3), 4) == pytest.approx([0, 0.1, 0.2, 0.3, 0.3])
    for make in (
        lambda: tr.WarmupLR(opt, 3, then=tr.StepLR(tr.SGD(net_of(), 1), 2)),
        lambda: tr.WarmupLR(opt, 3, then=tr.ReduceOnPlateau(opt)),
        lambda: tr.ReduceOnPlateau(opt).step(),
    ):
        with pytest.raises(fr.UnsupportedModelError):
            make()
