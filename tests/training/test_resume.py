"""Runs that stop and go on: 3 epochs and 3 are, bit for bit, 6; and BLAS has the threads that fit says."""

import io
import pickle

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import fastrnn as fr
import fastrnn.training as tr

SCHEDULES = {
    "none": (lambda o: None, "epoch"),
    "step": (lambda o: tr.StepLR(o, 2, 0.5), "epoch"),
    "cosine": (lambda o: tr.CosineLR(o, 40), "batch"),
    "warmup": (lambda o: tr.WarmupLR(o, 5, 0.1, tr.CosineLR(o, 30)), "batch"),
    "warmup_alone": (lambda o: tr.WarmupLR(o, 4), "epoch"),
    "plateau": (lambda o: tr.ReduceOnPlateau(o, 0.5, patience=0, threshold=0.3, cooldown=1), "epoch"),
}
OPTIMISERS = {"sgd": lambda n: tr.SGD(n, 0.3, momentum=0.9), "adam": lambda n: tr.Adam(n, 0.02), "rmsprop": lambda n: tr.RMSProp(n, 0.01)}


def data(n, seed):
    rng = np.random.default_rng(seed)
    xs = [rng.standard_normal((t, 3)).astype("f4") for t in rng.integers(2, 9, n)]
    return xs, [(x.cumsum(0).sum(1) > 0).astype(int) for x in xs]


def made(schedule, optimiser, cell=tr.GRU):
    """A run's parts, all of them new."""
    net = tr.Sequential(cell(3, 6), tr.Dropout(0.3), tr.Linear(6, 2), seed=1)
    chosen = OPTIMISERS[optimiser](net)
    return net, chosen, SCHEDULES[schedule][0](chosen)


def run(parts, epochs, schedule="none", **options):
    net, optimiser, planned = parts
    return tr.fit(
        net,
        tr.cross_entropy,
        data(19, 0),
        data(7, 1),
        optimiser=optimiser,
        epochs=epochs,
        batch_size=4,
        schedule=planned,
        schedule_per=SCHEDULES[schedule][1],
        seed=5,
        **options,
    )


def saved(state):
    """Through a file."""
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return dict(np.load(file))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_three_epochs_and_three_are_six(schedule, optimiser):
    whole = made(schedule, optimiser)
    wanted = run(whole, 6, schedule)
    first = run(made(schedule, optimiser), 3, schedule)
    second = made(schedule, optimiser)
    got = run(second, 6, schedule, resume=saved(first.state_dict()))
    assert (got.train, got.valid, got.lr, got.best_epoch) == (wanted.train, wanted.valid, wanted.lr, wanted.best_epoch) and len(got.seconds) == 6
    assert all(np.array_equal(a, second[0].state_dict()[name]) for name, a in whole[0].state_dict().items())
    for name, array in wanted.state_dict().items():
        assert name == "history.seconds" or np.array_equal(array, got.state_dict()[name]), name


def test_a_run_taken_up_from_within():
    """Each epoch's state is one to go on from; a run that is over changes nothing."""
    states, whole = [], made("plateau", "adam", tr.LSTM)
    wanted = run(whole, 4, "plateau", on_epoch=lambda h: states.append(h.state_dict()))
    for state in states:
        parts = made("plateau", "adam", tr.LSTM)
        assert run(parts, 4, "plateau", resume=state).valid == wanted.valid
        assert all(np.array_equal(a, parts[0].state_dict()[name]) for name, a in whole[0].state_dict().items())


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "none"])
def test_a_schedule_by_itself(schedule):
    """Its state before or after the optimiser's."""
    losses = [3.0, 2.9, 2.9, 2.0, 1.9, 1.9, 1.9, 1.9, 1.8, 1.8]
    _, optimiser, planned = made(schedule, "sgd")
    rates = [optimiser.lr]
    for k, loss in enumerate(losses):
        if k == 4:
            kept = planned.state_dict(), optimiser.state_dict()
        planned.step(loss)
        rates.append(optimiser.lr)
    for order in (1, -1):
        _, other, again = made(schedule, "sgd")
        for target, state in ((again, kept[0]), (other, kept[1]))[::order]:
            target.load_state_dict(state)
        assert other.lr == rates[4]
        for k in range(4, len(losses)):
            again.step(losses[k])
            assert other.lr == rates[k + 1]


def test_a_metric_goes_on():
    whole = run(made("none", "adam"), 4, metric=tr.accuracy)
    part = run(made("none", "adam"), 2, metric=tr.accuracy)
    assert run(made("none", "adam"), 4, metric=tr.accuracy, resume=part.state_dict()).metric == whole.metric != part.metric
    with pytest.raises(fr.UnsupportedModelError, match="begun with a metric"):
        run(made("none", "adam"), 4, resume=part.state_dict())


def test_what_does_not_fit_is_refused_by_name():
    state = run(made("step", "adam"), 1, "step").state_dict()
    with pytest.raises(fr.UnsupportedModelError, match="begun with a schedule"):
        run(made("none", "adam"), 2, resume=state)
    with pytest.raises(fr.UnsupportedModelError, match="begun without a metric"):
        run(made("step", "adam"), 2, "step", resume=state, metric=tr.accuracy)
    with pytest.raises(fr.UnsupportedModelError, match="another seed"):
        net, optimiser, planned = made("step", "adam")
        tr.fit(net, tr.cross_entropy, data(19, 0), optimiser=optimiser, epochs=2, schedule=planned, seed=6, resume=state)
    with pytest.raises(fr.ShapeError, match="'x' is none of what History"):
        run(made("step", "adam"), 2, "step", resume=state | {"x": np.zeros(1)})
    with pytest.raises(fr.ShapeError, match="missing"):
        run(made("step", "sgd"), 2, "step", resume=state)
    with pytest.raises(fr.ShapeError, match="missing best, bad, cooling"):
        made("plateau", "adam")[2].load_state_dict(made("step", "adam")[2].state_dict())
    with pytest.raises(fr.UnsupportedModelError, match="'count' must be a finite number"):
        made("step", "adam")[2].load_state_dict({"count": -1, "base": 0.1, "lr": 0.1})
    with pytest.raises(fr.UnsupportedModelError, match="did not make"):
        tr.History().state_dict()
    history = run(made("step", "adam"), 1, "step")
    assert pickle.loads(pickle.dumps(history)).train == history.train


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_as_many_threads_as_fit_says(threads):
    def counts():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas" and "numpy" in lib["filepath"]}

    before, seen = counts(), []
    run(made("none", "adam"), 1, threads=threads, on_epoch=lambda h: seen.append(counts()))
    assert seen == [{threads}] and counts() == before
