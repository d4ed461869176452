"""A step with `out=` takes nothing from the heap: neither kernels, nor the executor, nor Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import ctypes, itertools, sys
import numpy as np, fastrnn as fr
from fastrnn.model.stack import stack_model

allocations = ctypes.CDLL(None).allocations
allocations.restype = ctypes.c_long
layer = fr.LSTM(64, 256, num_layers=2, seed=0)
stream = fr.compile(stack_model(layer.options, layer.state_dict(), "lstm"), threads=int(sys.argv[2])).stream()
shape = (1,) if sys.argv[1] == "step" else (16, 1)
x, out, call = np.ones((*shape, 64), np.float32), np.empty((*shape, 256), np.float32), getattr(stream, sys.argv[1])

def repeat(n):
    before = allocations()
    for _ in itertools.repeat(None, n):
        call(x, out=out)
    return allocations() - before

repeat(10)
calls = 1000 if sys.argv[1] == "step" else 100  # of 16 steps: minutes where fused multiply-add is a function, as it is in the baseline
few, many = repeat(10), repeat(10 + calls)
assert few > 0, "nothing is counted"
print(many - few)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("gcc") is None or "LD_PRELOAD" in os.environ,
    reason="counts with gcc and an LD_PRELOAD of its own",
)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", ["step", "push"])
def test_a_thousand_steps_take_nothing_from_the_heap(call, threads, tmp_path):
    counter = tmp_path / "count.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", counter, Path(__file__).with_name("count_allocations.c")], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(counter), "PYTHONMALLOC": "malloc"}  # Python's own objects are counted too
    done = subprocess.run([sys.executable, "-P", "-c", CODE, call, str(threads)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "0", done.stdout + done.stderr
