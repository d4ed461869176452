"""Batches, full and ragged, beside the peers; then fastrnn alone: the rate that batches reach, and what lengths cost."""

import cases
import numpy as np
import pytest
from contenders import prepared

from fastrnn.cells import GATES
from fastrnn.testing import LAYERS


@pytest.mark.parametrize("case", cases.BATCHES, ids=str)
def test_batch(race, case):
    runs, refused = prepared(case)
    race(runs, case, work=case.work, refused=refused)


@pytest.mark.parametrize("case", cases.RAGGED, ids=str)
def test_ragged(race, case):
    runs, refused = prepared(case)
    race(runs, case, work=case.work, refused=refused)


@pytest.mark.parametrize("H", cases.RATES["H"])
@pytest.mark.parametrize("kind", cases.RATES["kinds"])
def test_rates(race, kind, H):
    layer, random, T = LAYERS[kind](H, H, seed=0), np.random.default_rng(0), cases.RATES["T"]
    x = {B: random.standard_normal((T, B, H)).astype(np.float32) for B in cases.RATES["B"]}
    flops = {f"B={B}": 2 * T * B * 2 * H * GATES[kind] * H for B in x}
    race({f"B={B}": lambda given=given: layer(given) for B, given in x.items()}, f"{kind.upper()} H={H}", flops=flops)


@pytest.mark.parametrize("case", cases.LENGTHS, ids=str)
def test_lengths(race, case):
    layer, some = LAYERS[case.kind](case.I, case.H, seed=0), np.random.default_rng(0).integers(0, case.T + 1, case.B)
    full = np.full(case.B, case.T)
    runs = {
        "padded": lambda: layer(case.x),
        "all lengths T": lambda: layer(case.x, lengths=full),
        "lengths in 0..T": lambda: layer(case.x, lengths=some),
    }
    race(runs, case, steps=float(some.sum() / full.sum()))
