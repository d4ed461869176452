"""Use as it comes: every call of another length or batch, streams that are opened and closed. What comes is drawn anew each time, the same for every engine."""

from dataclasses import replace

import cases
import numpy as np
import pytest
from contenders import alike, each
from contenders.gathered import Gathered, peers

import fastrnn as fr
from fastrnn.kernels.roofline import Work

SEED = 0
COMPARED = 3  # blocks, before anything is timed
STREAMS = 8  # opened one after the other, timed as one
TICKS = 8  # of a crowd, timed as one


@pytest.mark.parametrize("case", cases.DRAWN, ids=str)
def test_drawn(race, case):
    """A block of calls, each engine with the same sizes in the same order."""
    layer, values = case.layer, np.random.default_rng(1).standard_normal(case.layer.T * case.layer.B * case.layer.I).astype(np.float32)

    def block(call, random):
        """(y, lengths or None) of each call."""
        found = []
        for T, B in case.sizes(random):
            x, lengths = values[: T * B * layer.I].reshape(T, B, layer.I), random.integers(1, T + 1, B) if layer.ragged else None
            found.append((call(x) if lengths is None else call(x, lengths), lengths))
        return found

    def within(found):
        """What rows have within their lengths: past them OpenVINO leaves what its memory held, where ONNX says zeros."""
        return np.concatenate([y.ravel() if lengths is None else y[np.arange(len(y))[:, None] < lengths].ravel() for y, lengths in found])

    calls, refused = each("any_size", layer)
    draws = {name: np.random.default_rng(SEED) for name in calls}
    for _ in range(COMPARED):
        alike({name: within(block(call, draws[name])) for name, call in calls.items()}, case)
    random = np.random.default_rng(SEED)
    work = sum((replace(layer, T=T, B=B).work for T, B in case.sizes(random)), Work(0, 0))
    race({name: lambda call=call, name=name: block(call, draws[name]) for name, call in calls.items()}, case, work=work, refused=refused)


@pytest.mark.parametrize("case", cases.OPENED, ids=str)
def test_opened(race, case):
    """Streams that live for some steps each, one after the other."""
    x = np.random.default_rng(1).standard_normal((cases.LIVES[1], 1, case.I)).astype(np.float32)

    def lives(start, random):
        last = []
        for n in random.integers(cases.LIVES[0], cases.LIVES[1] + 1, STREAMS):
            step = start()
            for k in range(n):
                y = step(x[k])
            last.append(y)
        return np.concatenate(last)

    starts, refused = each("opener", case)
    draws = {name: np.random.default_rng(SEED) for name in starts}
    for _ in range(COMPARED):
        alike({name: lives(start, draws[name]) for name, start in starts.items()}, case)
    low, high = cases.LIVES
    race(
        {name: lambda start=start, name=name: lives(start, draws[name]) for name, start in starts.items()},
        f"{case.layer}, {STREAMS} streams of {low} to {high} steps",
        refused=refused,
    )


@pytest.mark.parametrize("case", cases.POOLS, ids=str)
def test_crowd(race, case):
    """Ticks of a pool: some streams leave, as many come, and some of all step. The peers' states lie in an array whose rows are handed on."""
    capacity, present, leave, ready = cases.CROWD.values()
    x = np.random.default_rng(1).standard_normal((ready, case.I)).astype(np.float32)
    layer = getattr(fr, case.kind.upper())(case.I, case.H)
    layer.load_state_dict(case.parameters)

    def ticks(renew, step, random):
        """renew(places): streams that begin anew there; step(places, x)."""
        found = []
        for _ in range(TICKS):
            renew(random.choice(present, leave, replace=False))
            found.append(step(random.choice(present, ready, replace=False), x))
        return np.concatenate(found)

    pool = fr.compile(layer).pool(capacity)
    handles = np.array([pool.open() for _ in range(present)])

    def renew(places):
        for place in places:
            pool.close(int(handles[place]))
            handles[place] = pool.open()

    crowds = {"fastrnn": (renew, lambda places, x: pool.step(handles[places], x))}
    for name, run in peers(case).items():
        peer = Gathered(run, case, ready, present)
        crowds[name] = peer.reset, peer.step
    draws = {name: np.random.default_rng(SEED) for name in crowds}
    for _ in range(COMPARED):
        alike({name: ticks(*ways, draws[name]) for name, ways in crowds.items()}, case)
    race(
        {name: lambda ways=ways, name=name: ticks(*ways, draws[name]) for name, ways in crowds.items()},
        f"{case.layer}, {ready} of {present} ready, {leave} leave and come",
    )
