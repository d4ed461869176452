"""Fixtures: instruction sets that run here, and the folder of real models and vectors where there is one."""

import os
from pathlib import Path

import pytest

from fastrnn.kernels import isa
from fastrnn.kernels.jit.compiler import ISAS as JIT_ISAS

SHARED = Path(os.environ.get("FASTRNN_SHARED") or Path(__file__).parents[2] / "shared")
ISAS = isa.supported()


@pytest.fixture(params=ISAS)
def each_isa(request, monkeypatch):
    """Runs a test once on every instruction set that this machine has; plans made inside use it."""
    monkeypatch.setenv("FASTRNN_ISA", request.param)
    return request.param


BACKENDS = [*(("native", name) for name in ISAS), *(("jit", name) for name in ISAS if name in JIT_ISAS)]


@pytest.fixture(params=BACKENDS, ids="-".join)
def each_backend(request, monkeypatch):
    """Runs a test once on every compiled backend and instruction set that this machine has; plans made inside use them."""
    monkeypatch.setenv("FASTRNN_BACKEND", request.param[0])
    monkeypatch.setenv("FASTRNN_ISA", request.param[1])
    return request.param


@pytest.fixture(params=[name for name in ISAS if name in JIT_ISAS])
def each_jit_isa(request, monkeypatch):
    """Runs a test once on every instruction set that cells are compiled for here."""
    monkeypatch.setenv("FASTRNN_ISA", request.param)
    return request.param


@pytest.fixture(scope="session", autouse=True)
def cache_of_kernels(tmp_path_factory):
    """Compiled cells are kept for this run alone, away from the user's own."""
    os.environ["FASTRNN_CACHE_DIR"] = str(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def shared():
    """The folder of real models, vectors and data; the test is skipped where it is absent."""
    if not (SHARED / "models").is_dir():
        pytest.skip("no folder of shared models: set FASTRNN_SHARED")
    return SHARED


def pytest_collection_modifyitems(config, items):
    """Long sweeps run only when asked for by -m."""
    if not config.getoption("-m"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; run with -m slow"))


def pytest_terminal_summary(terminalreporter):
    """How many tests went without the shared folder."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum("no folder of shared models" in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(f"{count} tests skipped for want of the shared models; ISAs run: {', '.join(ISAS)}")
