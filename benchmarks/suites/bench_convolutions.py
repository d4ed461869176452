"""Models whose recurrent layers stand behind convolutions, whole calls: reading text, judging speech. Read from the folder of shared models."""

import cases
import files
import pytest


@pytest.mark.parametrize("case", cases.CONVOLUTIONS, ids=str)
def test_convolution(race, case):
    files.timed(race, case)
