"""A whole sequence at batch 1, and how its time grows with its length."""

import cases
import pytest
from contenders import prepared


@pytest.mark.parametrize("case", [*cases.SEQUENCES, *cases.TIMES], ids=str)
def test_sequence(race, case):
    runs, refused = prepared(case)
    race(runs, case, work=case.work, refused=refused)
