"""The fixture that times, and what the results say of the machine. `python benchmarks/run.py` is the way in; see there."""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read once, when NumPy and torch load
    os.environ[_name] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import numpy  # noqa: F401 so that its BLAS is there to be limited
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fastrnn.cli.info import cpu_name
from fastrnn.cli.timing import Race
from fastrnn.kernels import roofline

threadpool_limits(1, user_api="blas")  # a plugin may have loaded NumPy before the environment said so
assert all(pool["num_threads"] == 1 for pool in threadpool_info() if pool["user_api"] == "blas"), "peers use one thread"

SECONDS, ROUNDS = 2.5, (3, 41)  # of a case; rounds, at least and at most
QUICK_SECONDS, QUICK_BLOCK, QUICK_TURN = 0.1, 100, 1e-3
SINGLES = 5_000
NO_CASE = SimpleNamespace(params={})  # of a test without parameters


def pytest_addoption(parser):
    """--quick."""
    parser.addoption("--quick", action="store_true", help="few cases, a moment each")


@pytest.hookimpl(tryfirst=True)  # before anybody changes the order
def pytest_collection_modifyitems(config, items):
    """A quick run keeps the cases that are marked for it, tests without cases, and of what no mark tells apart the first and the last."""
    if config.getoption("--quick"):
        unmarked: dict[tuple, list] = {}  # the values of a test's parameter, in order
        for item in items:
            for name, value in getattr(item, "callspec", NO_CASE).params.items():
                if not hasattr(value, "quick") and value not in (seen := unmarked.setdefault((item.function, name), [])):
                    seen.append(value)

        def kept(item, name, value):
            return value.quick if hasattr(value, "quick") else value in (unmarked[item.function, name][0], unmarked[item.function, name][-1])

        items[:] = [item for item in items if all(kept(item, *one) for one in getattr(item, "callspec", NO_CASE).params.items())]


@pytest.hookimpl(trylast=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    """What the figures depend on, and no more: neither the host's name nor its kernel."""
    names = ("fastrnn", "numpy", "onnxruntime", "openvino", "torch")
    machine_info.clear()
    machine_info |= {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": ".".join(map(str, sys.version_info[:3])),
        "versions": {name: version(name) for name in names},
        "roofline": roofline.measure().facts(),
        "quick": config.getoption("--quick"),
    }


@pytest.hookimpl(trylast=True)
def pytest_benchmark_update_json(config, benchmarks, output_json):
    """The summaries; the samples themselves are too many to keep."""
    output_json.pop("commit_info", None)
    for one in output_json["benchmarks"]:
        one["stats"].pop("data", None)


@pytest.fixture
def entry(benchmark, request):
    """entry(case, **facts): the case's entry in the JSON, under its suite (the file) and its table (the test)."""
    benchmark.group = request.module.__name__.rpartition(".")[2].removeprefix("bench_")

    def note(case, **facts):
        benchmark.extra_info |= {"table": request.function.__name__.removeprefix("test_"), "case": str(case), **facts}

    return note


@pytest.fixture
def race(benchmark, entry, request):
    """race(runs, case, **facts): functions take turns in pytest-benchmark's rounds; their medians and p99 go into the entry.

    singles: calls are timed one at a time as well. work: a roofline.Work, which gives the bound. Other facts are kept as they are.
    """
    quick = request.config.getoption("--quick")

    def run(runs, case, singles=False, work=None, **facts):
        turns = Race(runs, QUICK_BLOCK, QUICK_TURN) if quick else Race(runs)
        rounds = turns.rounds_within(QUICK_SECONDS if quick else SECONDS, *ROUNDS)
        if singles:
            turns.calls(SINGLES // 10 if quick else SINGLES)
        benchmark.pedantic(turns.round, rounds=rounds)
        entry(case, us=turns.summary(), share=round(turns.share, 3), bound_us=roofline.measure().microseconds(work) if work else None, **facts)

    return run


@pytest.fixture
def record(benchmark, entry):
    """record(run, case): one run of something that takes no turns; the facts it returns."""
    return lambda run, case: entry(case, **benchmark.pedantic(run, rounds=1))
