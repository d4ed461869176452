"""Fixtures: instruction sets that run here, and the folder of real models and vectors where there is one. How many tests run at once, and what was skipped."""

import os
from collections import Counter
from pathlib import Path
from zlib import crc32

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processors, so the libraries that each loads below take one; read when they load
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import pytest

from fastrnn.kernels import isa
from fastrnn.runtime.session import Session
from fastrnn.testing import JIT_ISAS, kernels_of, kernels_said

SHARED = Path(os.environ.get("FASTRNN_SHARED") or Path(__file__).parents[2] / "shared")
ISAS = isa.supported()

MOST_CASES = 20  # of one test, that a run without -m does all of: nine minutes on two cores, installing included, are what a newcomer is asked for
SLOW_CASES = 3  # of slow tests with more than MOST_CASES cases, one in so many is a sweep; -m slow has all. CI is to take less than half an hour


@pytest.fixture(params=ISAS)
def each_isa(request, monkeypatch):
    """Runs a test once on every instruction set that this machine has; plans made inside use it."""
    monkeypatch.setenv("FASTRNN_ISA", request.param)
    return request.param


BACKENDS = [*(("native", name) for name in ISAS), *(("jit", name) for name in JIT_ISAS)]


@pytest.fixture(params=BACKENDS, ids="-".join)
def each_backend(request, monkeypatch):
    """Runs a test once on every compiled backend and instruction set that this machine has; plans made inside use them."""
    monkeypatch.setenv("FASTRNN_BACKEND", request.param[0])
    monkeypatch.setenv("FASTRNN_ISA", request.param[1])
    return request.param


@pytest.fixture(params=JIT_ISAS)
def each_jit_isa(request, monkeypatch):
    """Runs a test once on every instruction set that cells are compiled for here."""
    monkeypatch.setenv("FASTRNN_ISA", request.param)
    return request.param


@pytest.fixture
def needs_torch():
    """For what compares with torch; the test is skipped where it is not installed, as for the newest Pythons."""
    pytest.importorskip("torch")


@pytest.fixture
def cells_compile():
    """For what compiles cells for the instruction set in use, whichever that is; the test is skipped where none are compiled for it."""
    if isa.chosen() not in JIT_ISAS:
        pytest.skip(f"cells are not compiled for {isa.chosen()} here: that takes fused multiply-adds, and fastrnn[numba]")


@pytest.fixture(scope="session", autouse=True)
def cache_of_kernels(tmp_path_factory):
    """Compiled cells are kept for this run alone, away from the user's own; processes that share the run share them."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "kernels"
    os.environ["FASTRNN_CACHE_DIR"] = str(folder)


@pytest.fixture(scope="session", autouse=True)
def every_program_is_explained():
    """Whatever program a session makes for a call, in any test: explain(shapes) names exactly its kernels. Programs for the value of an input that
    steers are left out, for shapes do not tell them apart."""
    made_for = Session._specialise

    def specialise(self, arrays):
        runners = made_for(self, arrays)
        if not runners.steered:
            assert kernels_said(self, {name: a.shape for name, a in arrays.items()}) == kernels_of(runners.program)
        return runners

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "_specialise", specialise)
        yield


@pytest.fixture
def shared():
    """The folder of real models, vectors and data; the test is skipped where it is absent."""
    if not (SHARED / "models").is_dir():
        pytest.skip("no folder of shared models: set FASTRNN_SHARED")
    return SHARED


# What has no wheel for every Python and processor that fastrnn has one for: without it, the tests that need it are skipped. Anything else that is missing is an error.
NOT_EVERYWHERE = {"ai_edge_litert", "keras", "numba", "onnx", "onnxruntime", "onnxscript", "openvino", "ray", "sklearn", "statsmodels", "torch"}


class Module(pytest.Module):
    """A file of tests whose imports may lack something of NOT_EVERYWHERE."""

    def _getobj(self):
        try:
            return super()._getobj()
        except self.CollectError as error:
            cause = error.__cause__
            if isinstance(cause, ModuleNotFoundError) and cause.name and cause.name.split(".")[0] in NOT_EVERYWHERE:
                raise pytest.skip.Exception(f"could not import {cause.name!r}", allow_module_level=True) from error
            raise


def pytest_pycollect_makemodule(module_path, parent):
    return Module.from_parent(parent, path=module_path)


def sample(items) -> None:
    """Of a test with more than MOST_CASES cases about so many run, and the others are sweeps: by their names, so always the same ones, and no parameter is left
    out as a whole. Of so many slow cases, one in SLOW_CASES is a sweep."""
    cases = {}
    for item in items:
        cases.setdefault((item.path, getattr(item, "originalname", item.name)), []).append(item)
    for group in cases.values():
        one_in = -(-len(group) // MOST_CASES)
        for item in group:
            drawn = crc32(item.nodeid.encode())
            if one_in > 1 and (drawn % SLOW_CASES == 0 if "slow" in item.keywords else drawn % one_in):
                item.add_marker(pytest.mark.sweep)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Sweeps run only when asked for by -m."""
    sample(items)
    if not config.getoption("-m"):
        for item in items:
            for mark, what in (("slow", "for minutes"), ("sweep", "more of what this run samples, CI runs it")):
                if mark in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"{mark}, {what}: -m {mark}"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """For -n auto: a process for each processor that this one may use, none beside it for one; four at most, since each holds torch and others in 1 GB."""
    processors = len(os.sched_getaffinity(0))
    return min(4, processors) if processors > 1 else 0


def pytest_terminal_summary(terminalreporter):
    """What was skipped, a line for each reason, and where everything ran."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.write_sep("-", f"ISAs run: {', '.join(ISAS)}; skipped: {sum(reasons.values())}")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5} {reason}")
