"""Every loader against damaged files, briefly; by hand for longer: python tests/fuzz/fuzz.py NAME --minutes 10."""

import numpy as np
import pytest
from fuzz import fuzz
from loaders import LOADERS

# Files for each loader: what took one machine a second or two, the same number on every other.
CASES = {"onnx": 1000, "model": 1500, "checkpoint": 1200, "safetensors": 1500, "program": 300, "npz": 700, "keras": 250, "h5": 100, "tflite": 400}
NEEDS = {"onnx": "onnx", "model": "onnx", "checkpoint": "torch", "program": "torch"}


@pytest.fixture(params=LOADERS)
def loader(request):
    """A loader's name; skipped where what its files need is absent."""
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return request.param


def test_whole_files_load(loader, tmp_path):
    for name, data in LOADERS[loader].seeds().items():
        path = tmp_path / f"{name}{LOADERS[loader].suffix}"
        path.write_bytes(data)
        LOADERS[loader].load(path)


def test_damaged_files_load_or_are_refused(loader, tmp_path):
    """The same files each time, on every machine."""
    result = fuzz(loader, tmp_path, first=0, cases=CASES[loader])
    assert not result.faults, result.faults[0]
    assert result.counts["loaded"] and result.counts["InvalidModelError"] > result.counts["loaded"]


def test_mutations_repeat_with_their_seed(loader):
    twice = [LOADERS[loader].damaged(np.random.default_rng(7)) for _ in range(2)]
    assert twice[0] == twice[1]


@pytest.mark.slow
def test_damaged_files_for_minutes(loader, tmp_path):
    """A minute for each loader, other files than above."""
    result = fuzz(loader, tmp_path, first=10_000_000, seconds=60.0)
    assert not result.faults, result.faults[0]
