"""Models whose recurrent layers stand behind convolutions, whole calls: reading text, judging speech, voice activity. Read from the folder of shared models, or drawn."""

from dataclasses import replace

import cases
import files
import networks
import pytest


@pytest.mark.parametrize("case", cases.CONVOLUTIONS, ids=str)
def test_convolution(race, case):
    files.timed(race, case)


@pytest.mark.parametrize("case", networks.CASES, ids=str)
def test_network(race, case, tmp_path):
    files.timed(race, replace(case, file=networks.written(case.name, tmp_path)))
