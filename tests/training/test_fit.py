"""fit: bits that repeat, best weights, early stopping, batches of ragged sequences, what is shown, what is refused."""

import io
import sys

import numpy as np
import pytest
import torch

import fastrnn as fr
import fastrnn.training as tr


def net_of(dropout=0.2, seed=1, last=False):
    return tr.Sequential(tr.Linear(3, 8), tr.Tanh(), tr.Dropout(dropout), *([tr.Last()] if last else []), tr.Linear(8, 2), seed=seed)


def ragged(n=23, seed=0, per_sequence=False):
    """Sequences, and whether the sum of their features is positive, at each step or at the last."""
    rng = np.random.default_rng(seed)
    xs = [rng.standard_normal((t, 3)).astype("f4") for t in rng.integers(1, 9, n)]
    ys = [(x.sum(1) > 0).astype(int) for x in xs]
    return xs, [y[-1] for y in ys] if per_sequence else ys


def run(seed=0, train=None, valid=None, epochs=5, batch_size=4, schedule=None, last=False, **options):
    net = net_of(last=last)
    optimiser = tr.Adam(net, 0.02)
    history = tr.fit(
        net,
        tr.cross_entropy,
        train or ragged(per_sequence=last),
        valid,
        optimiser=optimiser,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        schedule=schedule and schedule(optimiser),
        **options,
    )
    return net.state_dict(), history


def same(a, b):
    return all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "options",
    [{}, {"clip_norm": 0.1, "clip_value": 0.01}, {"last": True}, {"tbptt": 3}, {"schedule": lambda o: tr.CosineLR(o, 30), "schedule_per": "batch"}],
    ids=lambda o: " ".join(o),
)
def test_a_seed_repeats_to_the_bit(options):
    (a, one), (b, two), (c, _) = run(**options), run(**options), run(seed=1, **options)
    assert same(a, b) and one.train == two.train and one.lr == two.lr and not same(a, c)
    assert one.train[-1] < one.train[0] and one.best_epoch is None and one.best is None and len(one.seconds) == 5


def test_it_learns_and_the_history_says_so():
    seen = []
    valid = ragged(seed=9)
    net = net_of(0.0)
    history = tr.fit(net, tr.cross_entropy, ragged(200), valid, optimiser=tr.Adam(net, 0.02), epochs=8, on_epoch=lambda h: seen.append(len(h.valid)))
    assert seen == list(range(1, 9)) and history.best == min(history.valid) == history.valid[history.best_epoch] < 0.2
    assert history.best == tr.evaluate(net, tr.cross_entropy, valid, 16)


def test_a_metric_is_measured_after_each_epoch_and_decides_nothing(monkeypatch):
    valid, terminal = ragged(seed=9), Terminal()
    (plain, one), (measured, two) = run(valid=valid), run(valid=valid, metric=tr.accuracy)
    assert same(plain, measured) and one.valid == two.valid and one.metric == []
    net = net_of()
    net.load_state_dict(measured)
    assert len(two.metric) == 5 and two.metric[two.best_epoch] == tr.evaluate(net, tr.accuracy, valid, 4) > 0.8
    monkeypatch.setattr(sys, "stderr", terminal)
    run(epochs=2, valid=valid, metric=tr.accuracy)
    assert "accuracy 0." in terminal.getvalue()


def test_the_loss_of_data_does_not_depend_on_batches():
    net, (xs, ys) = net_of(), ragged()
    alone = [tr.value(net, tr.cross_entropy, x[:, None], y[:, None]) for x, y in zip(xs, ys)]
    wanted = sum(len(x) * v for x, v in zip(xs, alone)) / sum(map(len, xs))
    for size in (1, 4, 100):
        assert tr.evaluate(net, tr.cross_entropy, (xs, ys), size) == pytest.approx(wanted, rel=1e-6)
        assert tr.evaluate(net, tr.cross_entropy, tr.Sequences(xs, ys, bucket=True), size) == pytest.approx(wanted, rel=1e-6)


def test_the_best_weights_come_back():
    net, states = net_of(0.0), []
    history = tr.fit(
        net,
        tr.cross_entropy,
        ragged(),
        ragged(5, seed=4),
        optimiser=tr.SGD(net, 6.0),
        epochs=40,
        patience=6,
        on_epoch=lambda h: states.append(net.state_dict()),
    )
    best = states[history.best_epoch]
    assert len(history.valid) == history.best_epoch + 7 < 40 and same(net.state_dict(), best) and not same(states[-1], best)


def test_best_weights_come_back_when_a_run_is_broken_off():
    net, states = net_of(), []

    def stop(history):
        states.append(net.state_dict())
        if len(states) == 2:
            net.layers[0].parameters()["weight"][...] = 1e3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tr.fit(net, tr.cross_entropy, ragged(), ragged(5, seed=4), optimiser=tr.SGD(net, 0.01), epochs=9, on_epoch=stop)
    assert same(net.state_dict(), states[1]) or same(net.state_dict(), states[0])


def test_a_callback_stops_and_schedules_follow_epochs():
    _, history = run(on_epoch=lambda h: len(h.train) == 3, schedule=lambda o: tr.StepLR(o, 1, 0.5))
    assert history.lr == pytest.approx([0.01, 0.005, 0.0025])
    _, history = run(valid=ragged(5, seed=4), epochs=6, schedule=lambda o: tr.ReduceOnPlateau(o, patience=0, threshold=0.5))
    assert history.lr[0] == 0.02 and history.lr[-1] < 0.02


def test_a_run_that_diverges_says_where():
    net = net_of(0.0)
    xs, ys = ragged()
    xs[3][0] = np.nan
    with pytest.raises(fr.DivergedError, match=r"epoch 0, batch \d: the loss is nan"):
        tr.fit(net, tr.cross_entropy, (xs, ys), optimiser=tr.SGD(net, 0.1), epochs=2, batch_size=4)
    net = net_of()
    with pytest.raises(fr.DivergedError, match="epoch 0: the validation loss is nan"):
        tr.fit(net, tr.cross_entropy, ragged(), (xs, ys), optimiser=tr.SGD(net, 0.1), epochs=1)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_gradient_that_diverges_under_a_finite_loss_changes_nothing():
    net = net_of(0.0)
    before = net.state_dict()
    with pytest.raises(fr.DivergedError, match="epoch 0, batch 0: the norm of the gradients is nan; not finite: 0.weight, "):
        tr.fit(net, lambda rows, target: (1.0, np.full_like(rows, np.inf)), ragged(), optimiser=tr.SGD(net, 0.1), epochs=1)
    assert same(net.state_dict(), before)


@pytest.mark.parametrize("per_sequence", [False, True])
@pytest.mark.parametrize("bucket", [False, True])
def test_every_sequence_once_an_epoch_in_an_order_that_is_drawn(bucket, per_sequence):
    xs = [np.full((n, 1), k, "f4") for k, n in enumerate([3, 1, 4, 1, 5, 2, 6] * 7)]
    ys = [np.float32(k) if per_sequence else np.full(len(x), k) for k, x in enumerate(xs)]
    data, rng, orders = tr.Sequences(xs, ys, per_sequence=per_sequence, bucket=bucket), np.random.default_rng(0), []
    for _ in range(2):
        seen, spread = [], 0
        for batch in data.batches(4, rng):
            ends = np.full(batch.x.shape[1], len(batch.x)) if batch.lengths is None else batch.lengths
            assert batch.count == (len(ends) if per_sequence else ends.sum())
            spread += np.ptp(ends)
            for b, n in enumerate(ends):
                k = int(batch.x[0, b, 0])
                assert n == len(xs[k]) and (batch.x[:n, b] == k).all() and not batch.x[n:, b].any()
                assert batch.target[b] == k if per_sequence else (batch.target[:n, b] == k).all()
                seen.append(k)
        assert sorted(seen) == list(range(49)) and len(data) == 49
        orders.append(seen)
    assert orders[0] != orders[1]
    assert (spread < 14) == bucket


def test_arrays_are_sequences_of_one_length():
    x, y = np.arange(24, dtype="f4").reshape(4, 3, 2), np.arange(12).reshape(4, 3)
    (batch,) = tr.Sequences(x, y).batches(5)
    assert np.array_equal(batch.x, x) and np.array_equal(batch.target, y) and batch.lengths is None and batch.count == 12
    (other,) = tr.Sequences(torch.tensor(x), torch.tensor(y)).batches(5)
    assert np.array_equal(other.x, x) and np.array_equal(other.target, y)
    (batch,) = tr.Sequences(x, y[0], per_sequence=True).batches(5)
    assert np.array_equal(batch.target, y[0]) and batch.count == 3


def test_chunks_cover_a_ragged_batch_once():
    x, lengths = np.arange(14, dtype="f4").reshape(7, 2, 1), np.array([7, 3])
    batch = tr.Batch(x, x[..., 0], lengths, np.arange(14).reshape(7, 2) % 5 > 0)
    chunks = list(batch.chunks(3))
    assert np.array_equal(np.concatenate([c.x for c in chunks]), x) and [c.lengths.tolist() for c in chunks] == [[3, 3], [3, 0], [1, 0]]
    assert sum(c.count for c in chunks) == batch.count == 7 and next(batch.chunks(None)) is batch
    for same in ([7, 3], lengths.astype("u1"), torch.tensor(lengths)):
        assert [c.lengths.tolist() for c in tr.Batch(x, x[..., 0], same).chunks(3)] == [[3, 3], [3, 0], [1, 0]]


class Masked:
    """Data that come as batches of their own, with a mask that leaves whole chunks out."""

    def batches(self, batch_size, rng=None):
        xs, ys = ragged(4)
        for x, y in zip(xs, ys):
            yield tr.Batch(x[:, None], y[:, None], mask=np.arange(len(x))[:, None] < 3)


def test_data_of_ones_own_with_masks():
    a, history = run(train=Masked(), tbptt=3)
    assert history.train[-1] < history.train[0] and same(a, run(train=Masked(), tbptt=3)[0])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_for_terminals(monkeypatch):
    for stream, progress, shown in ((io.StringIO, None, False), (Terminal, None, True), (Terminal, False, False), (io.StringIO, True, True)):
        monkeypatch.setattr(sys, "stderr", stream())
        run(epochs=2, progress=progress)
        assert bool(sys.stderr.getvalue()) == shown
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    run(epochs=1)
    assert not sys.stderr.getvalue()
    with pytest.raises(fr.MissingDependencyError, match=r"fastrnn\[cli\]"):
        run(epochs=1, progress=True)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"patience": 3}, fr.UnsupportedModelError, "patience needs valid"),
        ({"metric": tr.accuracy}, fr.UnsupportedModelError, "metric needs valid"),
        ({"patience": 0, "valid": ragged()}, fr.ShapeError, "patience"),
        ({"tbptt": 0}, fr.ShapeError, "tbptt"),
        ({"tbptt": 3, "last": True}, fr.UnsupportedModelError, "Last"),
        ({"batch_size": 0}, fr.ShapeError, "batch_size"),
        ({"schedule_per": "step"}, fr.UnsupportedModelError, "schedule_per"),
        ({"schedule": lambda o: tr.StepLR(tr.SGD(net_of(), 1), 1)}, fr.UnsupportedModelError, "another optimiser"),
        ({"schedule": lambda o: "cosine"}, fr.UnsupportedModelError, "schedule must be one of fastrnn.training, got str"),
        ({"train": (None, None)}, fr.DTypeError, "xs must be a list of arrays, or one array, got NoneType"),
        ({"schedule": tr.ReduceOnPlateau}, fr.UnsupportedModelError, "needs valid"),
        ({"train": np.zeros(3)}, fr.UnsupportedModelError, "ndarray"),
        ({"train": ([], [])}, fr.ShapeError, "at least one"),
        ({"train": ([np.zeros((2, 3), "f4")] * 2, [np.zeros(2, int)])}, fr.ShapeError, "2 sequences and 1 targets"),
        ({"train": ([np.zeros((2, 3), "f4"), np.zeros((2, 4), "f4")], [np.zeros(2, int)] * 2)}, fr.ShapeError, "sequence 1 is"),
        ({"train": ([np.zeros((2, 3), "f4")], [np.zeros(3, int)])}, fr.ShapeError, "per_sequence=True"),
        ({"train": ([np.zeros((2, 3), "f4")] * 2, [np.zeros(2, int), np.zeros(2)])}, fr.ShapeError, "target 1 is float64"),
        ({"train": ([np.zeros((2, 3), "f4")] * 2, [np.zeros(2), np.zeros(1)]), "last": True}, fr.ShapeError, r"target 1 is float64 \(1,\)"),
        ({"epochs": 0}, fr.ShapeError, "epochs"),
        ({"train": (np.zeros(4), np.zeros(4))}, fr.ShapeError, r"\(T, n, ...\)"),
        ({"train": ([np.zeros((0, 3), "f4")], [np.zeros(0, int)])}, fr.ShapeError, "no step that counts"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, says):
    if isinstance(options.get("train"), np.ndarray):
        net = net_of()
        with pytest.raises(error, match=says):
            tr.fit(net, tr.cross_entropy, options["train"], optimiser=tr.SGD(net, 1), epochs=1)
        return
    with pytest.raises(error, match=says):
        run(**options)


def test_batches_that_do_not_fit_together_are_refused():
    x, y = np.zeros((4, 2, 3), "f4"), np.zeros((4, 2), int)
    for change in ({"target": y[:3]}, {"mask": np.ones((2, 4), bool)}, {"per_sequence": True}, {"x": x[0, 0]}):
        with pytest.raises(fr.ShapeError, match="does not fit together: x"):
            tr.Batch(**{"x": x, "target": y, **change})
    for change, error, says in (
        ({"lengths": [4]}, fr.ShapeError, "2 integers from 0 to 4"),
        ({"lengths": [9, 1]}, fr.ShapeError, "from 1 to 9"),
        ({"lengths": [-1, 1]}, fr.ShapeError, "from -1 to 1"),
        ({"lengths": [4.0, 1.0]}, fr.DTypeError, "lengths must be integers"),
        ({"mask": np.full((4, 2), 2)}, fr.DTypeError, "a batch's mask must be bool, got int64"),
    ):
        with pytest.raises(error, match=says):
            tr.Batch(**{"x": x, "target": y, **change})


def test_an_optimiser_of_another_network_is_refused():
    with pytest.raises(fr.UnsupportedModelError, match="another network"):
        tr.fit(net_of(), tr.cross_entropy, ragged(), optimiser=tr.SGD(net_of(), 1), epochs=1)
    with pytest.raises(fr.UnsupportedModelError, match="optimiser must be one of fastrnn.training, got str"):
        tr.fit(net_of(), tr.cross_entropy, ragged(), optimiser="adam", epochs=1)
