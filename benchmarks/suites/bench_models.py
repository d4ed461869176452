"""Real ONNX models: a frame with its states carried, or a whole call. Read from the folder of shared models (FASTRNN_SHARED, or ../shared)."""

import cases
import files
import pytest


@pytest.mark.parametrize("case", cases.MODELS, ids=str)
def test_model(race, case):
    files.timed(race, case)
