"""The wheel that FASTRNN_WHEEL names, which CI builds: what it holds, and that it works where there is no compiler and nothing but what it asks for."""

import os
import re
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_BYTES, MOST_INSTALLED = 4e6, 9e6


@pytest.fixture(scope="module")
def wheel():
    given = os.environ.get("FASTRNN_WHEEL")
    if not given:
        pytest.skip("no built wheel: set FASTRNN_WHEEL")
    return Path(given)


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An environment with the wheel and what it requires: NumPy, safetensors, threadpoolctl."""
    folder = tmp_path_factory.mktemp("wheel") / "venv"
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", str(wheel)], check=True, cwd=folder)
    return folder / "bin/python"


def run(python, code, folder):
    """With no compiler to be found, and no cache of cells compiled before."""
    return subprocess.run([python, "-c", code], check=False, capture_output=True, text=True, cwd=folder, env={"PATH": str(folder), "FASTRNN_CACHE_DIR": str(folder / "cache")})  # fmt: skip


def test_it_holds_one_top_level_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"fastrnn"}
    assert {
        "fastrnn/converters/state_dict.py",
        "fastrnn/py.typed",
        "fastrnn/runtime/executor/_executor.pyi",
        "fastrnn/kernels/native/_cpu.pyi",
    } <= set(names)
    assert any(name.startswith("fastrnn/kernels/native/_baseline.") and name.endswith((".so", ".pyd")) for name in names)
    assert not any(name.endswith((".c", ".pyx", ".h")) for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_it_is_small(wheel):
    """9 MB installed, whatever a compiler leaves in it; 4 MB to download."""
    assert wheel.stat().st_size <= MOST_BYTES
    assert sum(info.file_size for info in zipfile.ZipFile(wheel).infolist()) <= MOST_INSTALLED


def test_it_works_without_a_compiler(python, tmp_path):
    code = "import fastrnn as fr, numpy as np; print(fr.GRU(2, 3, seed=0)(np.ones((4, 1, 2), 'f4'))[0].shape, fr.from_state_dict(fr.LSTM(2, 3).state_dict()))"
    done = run(python, code, tmp_path)
    assert done.stdout.startswith("(4, 1, 3)"), done.stderr


def test_the_first_example_of_the_readme_runs(python, tmp_path):
    """Its lines, over layers made up instead of a checkpoint and torch's."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    before = """
import numpy as np, fastrnn as fr
from safetensors.numpy import save_file

torch_lstm = fr.LSTM(40, 64, num_layers=2, bidirectional=True, seed=1)
x = np.ones((100, 3, 40), "f4")
save_file({f"lstm.{name}": value for name, value in fr.LSTM(4, 5).state_dict().items()}, "checkpoint.safetensors")
"""
    done = run(python, before + block.replace("checkpoint.pt", "checkpoint.safetensors") + "\nprint('ran to its end')", tmp_path)
    assert done.stdout.rstrip().endswith("ran to its end"), done.stderr


def test_cells_of_ones_own_say_what_they_need(python, tmp_path):
    """Numba brings LLVM; without it they run through NumPy where that is asked for, and nowhere unasked."""
    code = """
import numpy as np, fastrnn as fr

@fr.cell(gates=("z", "n"), states=("h",))
def mgu(z, n, h):
    z = fr.sigmoid(z)
    return h + z * (fr.tanh(n) - h)

try:
    fr.Recurrent(mgu, 3, 4)
except fr.MissingDependencyError as error:
    print(error)
print(fr.Recurrent(mgu, 3, 4, backend="reference")(np.ones((5, 2, 3), "f4"))[0].shape)
"""
    done = run(python, code, tmp_path)
    assert done.stdout.splitlines() == ["compiling a cell (backend 'jit') needs llvmlite: pip install 'fastrnn[numba]'", "(5, 2, 4)"], done.stderr
