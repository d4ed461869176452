"""The shipped examples run, on the installed package."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_character_model_answers_as_torch_did():
    done = subprocess.run([sys.executable, EXAMPLES / "characters/run.py"], check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok") == 2 and "onnxruntime" in done.stdout and "median" in done.stdout and "p99" in done.stdout


def test_shipped_data_stays_small():
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file() and path.suffix != ".pyc") < 1_200_000
