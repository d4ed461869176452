"""The examples of serving and of pools run in their quick modes, and say what they need."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from fastrnn.cli.audio import wav_bytes

EXAMPLES = Path(__file__).parents[2] / "examples"


def python(script, *arguments):
    return subprocess.run([sys.executable, EXAMPLES / script, *map(str, arguments)], check=False, capture_output=True, text=True, cwd="/")


def test_the_voice_service_hears_what_onnx_runtime_hears(shared, tmp_path):
    (tmp_path / "noise.wav").write_bytes(wav_bytes(np.random.default_rng(0).standard_normal(16000) / 10, 16000))
    done = python(
        "voice/run.py",
        "--quick",
        "--model",
        shared / "models/silero-vad/silero_vad_16k_op15.onnx",
        shared / "models/gtcrn/mix.wav",
        tmp_path / "noise.wav",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(word in done.stdout for word in ("20 callers", "frames/s", "p99 ms", "ONNX Runtime, 32 rows"))
    assert float(done.stdout.split("largest difference")[1]) < 1e-4


def test_the_voice_service_says_what_is_missing(tmp_path):
    done = python("voice/run.py", "--quick", "--model", tmp_path / "none.onnx")
    assert done.returncode == 1 and f"{tmp_path / 'none.onnx'} is not there" in done.stderr and "Traceback" not in done.stderr


def test_the_policy_acts_the_same_in_a_pool():
    done = python("policy/run.py", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "turns that are right" in done.stdout and "same actions: yes" in done.stdout
