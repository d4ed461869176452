"""Blocks of 64 samples through a stream; the peers run a sequence of 64 with its state carried."""

import cases
import pytest
from contenders import prepared


@pytest.mark.parametrize("case", cases.PUSHES, ids=str)
def test_push(race, case):
    runs, refused = prepared(case)
    race(runs, case, work=case.work, refused=refused)
