"""Fitting: epochs of batches, validation, early stopping, the best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from fastrnn import log
from fastrnn.errors import DivergedError, ShapeError, UnsupportedModelError
from fastrnn.model.show import aligned, notebook
from fastrnn.runtime.progress import shown
from fastrnn.training.base import State, positive, same_names
from fastrnn.training.data import Batch, Sequences
from fastrnn.training.gradient import network, value_and_grad, values
from fastrnn.training.optim import Optimiser, clip_grad_norm, clip_grad_value, grad_norm
from fastrnn.training.resume import LOSSES, generator_state, joined, load_generator, parted
from fastrnn.training.schedules import ReduceOnPlateau, Schedule
from fastrnn.training.sequential import Sequential
from fastrnn.training.stacks import RecurrentLayer

if TYPE_CHECKING:
    from fastrnn.training.data import Batches, Data
    from fastrnn.typing import Loss, Metric, Seed


@dataclass
class History:
    """What fit did. train: each epoch's mean loss while its steps were taken, Dropout and all; valid: after it; metric: what fit's metric said of the
    validation data then; lr: with which it ended.

    best_epoch: from 0, the one whose weights the network now has; None without validation. seconds: each epoch's, validation included.
    """

    train: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    _state: Callable[[], dict[str, np.ndarray]] | None = field(default=None, repr=False, compare=False)

    def state_dict(self) -> dict[str, np.ndarray]:
        """What fit(resume=...) goes on from, as arrays for np.savez: the weights as the last epoch left them and the best ones, the optimiser, the
        schedule, the generators, and this history. Copies. In on_epoch, or after fit; UnsupportedModelError for a History that fit did not make."""
        if self._state is None:
            raise UnsupportedModelError("a History that fit did not make has no state")
        return self._state()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_state": None}  # the state is arrays by itself; a run does not travel

    def _repr_html_(self) -> str:
        columns = {name: getattr(self, name) for name in LOSSES if getattr(self, name)}
        rows = [(f"{k}{' (best)' * (k == self.best_epoch)}", *(f"{values[k]:.4g}" for values in columns.values())) for k in range(len(self.train))]
        said = f"History of {len(self.train)} epochs" + (
            f": best validation loss {self.best:.4g} in epoch {self.best_epoch}" if self.best is not None else ""
        )
        return notebook(said, aligned([("epoch", *columns), *rows]), "epoch by epoch")

    @property
    def best(self) -> float | None:
        """The validation loss of the best epoch."""
        return None if self.best_epoch is None else self.valid[self.best_epoch]


def fit(
    net: Sequential,
    loss: Loss,
    train: Data,
    valid: Data | None = None,
    *,
    optimiser: Optimiser,
    epochs: int,
    batch_size: int = 16,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    schedule: Schedule | None = None,
    schedule_per: str = "epoch",
    patience: int | None = None,
    seed: Seed | None = 0,
    tbptt: int | None = None,
    metric: Metric | None = None,
    progress: bool | None = None,
    on_epoch: Callable[[History], object] | None = None,
    resume: Mapping[str, np.ndarray] | None = None,
    threads: int = 1,
) -> History:
    """Trains in place and returns the History.

    train, valid: Sequences, or (xs, ys) as Sequences takes them, or any object with batches(batch_size, rng) that gives Batches. loss: cross_entropy or its
    like. optimiser: over this network. clip_norm, clip_value: for each step's gradients, the norm first. schedule: stepped after every epoch, with the
    validation loss, or after every batch (schedule_per="batch"). tbptt: steps of a chunk; a batch is then cut into chunks, each with a step of the
    optimiser, and states are carried from one to the next. patience: stops after so many epochs without a lower validation loss. With
    validation the network ends with its best weights, also when a run is broken off by an error or a key. metric: accuracy or its like, of the validation data
    after each epoch; it is shown and kept in the History, and decides nothing. seed: of the order of the sequences and of Dropout;
    the same seed, weights and data give the same bits on one machine with the same threads. progress: see below. on_epoch: called after each epoch; a run
    stops where it returns True. resume: what an earlier run's History.state_dict() gave; the run goes on as if it had never stopped, to the bit, up to
    `epochs` in all, and its History has both. Network, optimiser and schedule are to be made anew with the same arguments. threads: of the BLAS library
    beneath NumPy, for the time of the run and for the whole process; small matrices gain nothing from more.

    progress None: a bar in a notebook and on a terminal (with rich), else silence; True: always; False: never.
    Raises UnsupportedModelError for options that make no sense together, DivergedError naming epoch and batch where a loss or gradient is not finite,
    ShapeError and DTypeError as value_and_grad. Not safe while other threads use the network.
    """
    training, validation = _data(train, network(net)), None if valid is None else _data(valid, net)
    _check(net, optimiser, validation, schedule, schedule_per, patience, tbptt, metric)
    for size, what in ((batch_size, "batch_size"), (epochs, "epochs"), (threads, "threads")):
        positive(size, what, "fit")
    order, drop = np.random.default_rng(seed).spawn(2)
    step = _Step(net, loss, optimiser, drop, tbptt, clip_norm, clip_value, schedule if schedule_per == "batch" else None)
    run = _Progress(net, optimiser, schedule, order, drop, metric)
    if resume is not None:
        run.load(resume)
    history = run.history
    try:
        with shown(progress, epochs, "training") as show, threadpool_limits(threads, "blas"):
            for epoch in range(len(history.train), epochs):
                begun = time.perf_counter()
                history.train.append(step.epoch(epoch, training.batches(batch_size, order)))
                if validation is not None:
                    found, *measured = _evaluated(net, (loss,) if metric is None else (loss, metric), validation, batch_size)
                    history.valid.append(found)
                    history.metric += measured
                    if not math.isfinite(history.valid[-1]):
                        raise DivergedError(f"epoch {epoch}: the validation loss is {history.valid[-1]}")
                    if history.best is None or history.valid[-1] < history.best:
                        history.best_epoch, run.best = epoch, net.state_dict()
                if schedule is not None and schedule_per == "epoch":
                    schedule.step(history.valid[-1] if history.valid else None)
                history.lr.append(optimiser.lr)
                history.seconds.append(time.perf_counter() - begun)
                show(epoch + 1, note := _note(history, metric))
                log.info("epoch %d of %d: %s, %.2f s", epoch + 1, epochs, note, history.seconds[-1])
                if (
                    on_epoch is not None
                    and on_epoch(history) is True
                    or patience is not None
                    and history.best_epoch is not None
                    and epoch - history.best_epoch >= patience
                ):
                    break
    finally:
        run.end()
    return history


class _Progress:
    """How far a run has come. best: the best epoch's weights; ended: the state at the end, before the network got those."""

    def __init__(
        self,
        net: Sequential,
        optimiser: Optimiser,
        schedule: Schedule | None,
        order: np.random.Generator,
        drop: np.random.Generator,
        metric: Metric | None,
    ) -> None:
        self.net, self.optimiser, self.schedule, self.order, self.drop, self.metric = net, optimiser, schedule, order, drop, metric
        self.history = History()
        self.best: dict[str, np.ndarray] = {}
        self.ended: dict[str, np.ndarray] | None = None
        self.history._state = self.state

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as fit's resume takes it."""
        if self.ended is not None:
            return {name: array.copy() for name, array in self.ended.items()}
        history = {name: np.array(getattr(self.history, name), np.float64) for name in LOSSES}
        history["best_epoch"] = np.array(-1 if self.history.best_epoch is None else self.history.best_epoch)
        return joined({"net": self.net.state_dict(), "best": {name: array.copy() for name, array in self.best.items()}, "optimiser": self.optimiser.state_dict(),
                       "schedule": {} if self.schedule is None else self.schedule.state_dict(), "order": generator_state(self.order),
                       "drop": generator_state(self.drop), "history": history})  # fmt: skip

    def load(self, state: Any) -> None:
        """From where state was taken. ShapeError, DTypeError or UnsupportedModelError where it is of something else."""
        parts, history = parted(state), self.history
        same_names(parts["history"], (*LOSSES, "best_epoch"), "resume: the history")
        if bool(parts["schedule"]) != (self.schedule is not None):
            raise UnsupportedModelError(f"resume: the run was begun {'with' if parts['schedule'] else 'without'} a schedule")
        if parts["history"]["train"].size and bool(parts["history"]["metric"].size) != (self.metric is not None):
            raise UnsupportedModelError(f"resume: the run was begun {'with' if parts['history']['metric'].size else 'without'} a metric")
        load_generator(self.order, parts["order"])
        load_generator(self.drop, parts["drop"])
        self.net.load_state_dict(parts["net"])
        self.optimiser.load_state_dict(parts["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(parts["schedule"])
        for name in LOSSES:
            getattr(history, name).extend(parts["history"][name].tolist())
        best = int(parts["history"]["best_epoch"])
        history.best_epoch, self.best = None if best < 0 else best, parts["best"]

    def end(self) -> None:
        """Keeps what a later run needs and gives the network its best weights."""
        self.ended = self.state()
        if self.best:
            self.net.load_state_dict(self.best)


def evaluate(net: Sequential, loss: Loss | Metric, data: Data, batch_size: int = 64) -> float:
    """The mean loss over all entries of the data, whatever the batches are, with nothing dropped. loss: a loss, or a measure such as accuracy. data: as fit's.
    Safe from many threads."""
    return _evaluated(net, (loss,), _data(data, network(net)), batch_size)[0]


def _evaluated(net: Sequential, losses: Sequence[Loss | Metric], data: Batches, batch_size: int) -> list[float]:
    """evaluate of several, from one pass over the data."""
    totals, count = [0.0] * len(losses), 0
    for batch in data.batches(batch_size):
        if n := batch.count:
            found = values(net, losses, batch.x, batch.target, lengths=batch.lengths, mask=batch.mask, resets=batch.resets)
            totals, count = [total + n * one for total, one in zip(totals, found)], count + n
    return [_mean(total, count) for total in totals]


class _Step:
    """Steps of an optimiser over batches."""

    def __init__(
        self,
        net: Sequential,
        loss: Loss,
        optimiser: Optimiser,
        rng: np.random.Generator,
        tbptt: int | None,
        clip_norm: float | None,
        clip_value: float | None,
        schedule: Schedule | None,
    ) -> None:
        self.net, self.loss, self.optimiser, self.rng, self.tbptt, self.schedule = net, loss, optimiser, rng, tbptt, schedule
        self.clip_norm, self.clip_value = clip_norm, clip_value

    def epoch(self, epoch: int, batches: Iterable[Batch]) -> float:
        """The mean loss over all entries."""
        total, count = 0.0, 0
        for k, batch in enumerate(batches):
            state = None if self.tbptt is None else State()
            for chunk in batch.chunks(self.tbptt):
                n = chunk.count
                if not n:  # masked altogether: it only hands the states on
                    self.net(chunk.x, chunk.lengths, state)
                    continue
                try:
                    total += n * self._chunk(chunk, state)
                except DivergedError as error:
                    raise DivergedError(f"epoch {epoch}, batch {k}: {error}") from error
                count += n
            if self.schedule is not None:
                self.schedule.step()
        return _mean(total, count)

    def _chunk(self, chunk: Batch, state: State | None) -> float:
        found, grads = value_and_grad(
            self.net, self.loss, chunk.x, chunk.target, lengths=chunk.lengths, mask=chunk.mask, state=state, rng=self.rng, resets=chunk.resets
        )
        if not math.isfinite(found):
            raise DivergedError(f"the loss is {found}")
        if self.clip_norm is None:
            grad_norm(grads)  # for its error
        else:
            clip_grad_norm(grads, self.clip_norm)
        if self.clip_value is not None:
            clip_grad_value(grads, self.clip_value)
        self.optimiser.step(grads)
        return found


def _mean(total: float, count: int) -> float:
    if not count:
        raise ShapeError("the data have no step that counts")
    return total / count


def _data(data: Data, net: Sequential) -> Batches:
    """Something with batches."""
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return Sequences(data[0], data[1], per_sequence=net.per_sequence)
    if not callable(getattr(data, "batches", None)):
        raise UnsupportedModelError(f"data must be Sequences, a pair (xs, ys), or have batches(batch_size, rng), got {type(data).__name__}")
    return data


def _check(
    net: Sequential,
    optimiser: Optimiser,
    valid: Batches | None,
    schedule: Schedule | None,
    schedule_per: str,
    patience: int | None,
    tbptt: int | None,
    metric: Metric | None,
) -> None:
    """Options that need one another."""
    if not isinstance(optimiser, Optimiser):
        raise UnsupportedModelError(f"fit: optimiser must be one of fastrnn.training, got {type(optimiser).__name__}")
    own = net.parameters()
    if optimiser.parameters.keys() != own.keys() or any(array is not own[name] for name, array in optimiser.parameters.items()):
        raise UnsupportedModelError("fit: the optimiser was made for another network")
    if schedule_per not in ("epoch", "batch"):
        raise UnsupportedModelError(f"fit: schedule_per must be 'epoch' or 'batch', got {schedule_per!r}")
    if schedule is not None and not isinstance(schedule, Schedule):
        raise UnsupportedModelError(f"fit: schedule must be one of fastrnn.training, got {type(schedule).__name__}")
    if schedule is not None and schedule.optimiser is not optimiser:
        raise UnsupportedModelError("fit: the schedule was made for another optimiser")
    if isinstance(schedule, ReduceOnPlateau) and (valid is None or schedule_per != "epoch"):
        raise UnsupportedModelError("fit: ReduceOnPlateau needs valid, and is stepped once an epoch")
    if patience is not None:
        positive(patience, "patience", "fit")
        if valid is None:
            raise UnsupportedModelError("fit: patience needs valid")
    if metric is not None and valid is None:
        raise UnsupportedModelError("fit: metric needs valid")
    if tbptt is not None:
        positive(tbptt, "tbptt", "fit")
        if net.per_sequence:
            raise UnsupportedModelError("fit: tbptt needs a target for each step, but the network has a Last")
        for place, layer in net.leaves():
            if isinstance(layer, RecurrentLayer) and (layer.options.bidirectional or layer.options.reverse):
                raise UnsupportedModelError(f"fit: tbptt carries states forward; layer {place!r} ({layer.kind}) also runs backward")


def _note(history: History, metric: Metric | None) -> str:
    measured = f", {getattr(metric, '__name__', 'metric')} {history.metric[-1]:.4g}" if history.metric else ""
    return f"train {history.train[-1]:.4g}" + (f", valid {history.valid[-1]:.4g} (best {history.best:.4g})" if history.valid else "") + measured
