"""One step of one layer at batch 1, its state carried."""

import cases
import pytest
from contenders import prepared


@pytest.mark.parametrize("case", cases.STEPS, ids=str)
def test_step(race, case):
    runs, refused = prepared(case)
    race(runs, case, singles=True, work=case.work, refused=refused)
