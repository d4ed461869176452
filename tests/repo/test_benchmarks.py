"""The benchmarks run, and their report says what was measured; the tables of pages keep their markers."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fastrnn.kernels import isa

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def python(*arguments):
    """As by hand: pytest-benchmark times nothing where it believes itself a worker of pytest-xdist."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run([sys.executable, *map(str, arguments)], check=False, capture_output=True, text=True, cwd="/", env=environment)


def test_a_tiny_run_measures_every_engine(tmp_path):
    for engine in ("onnxruntime", "openvino", "torch"):
        pytest.importorskip(engine, reason="the benchmarks measure every engine")
    done = python(BENCHMARKS / "run.py", "--quick", "--only", "step,memory", "--match", "16 or 256", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    suites = json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))
    assert set(suites) == {"step", "memory"} and suites["step"]["machine"]["roofline"]["fma_gflops"] > 0 and suites["step"]["machine"]["quick"]
    case = next(c for c in suites["step"]["cases"] if c["case"] == "LSTM I=1 H=16 step")
    assert set(case["us"]) == {"fastrnn", "onnxruntime", "onnxruntime_bound", "openvino", "torch", "numpy"} and not case["refused"]
    assert all(0 < e["p50_call"] <= e["p99_call"] for e in case["us"].values()) and case["bound_us"] > 0
    report = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "LSTM I=1 H=16 step" in report and "A QUICK RUN" in report and "## Memory" in report and "](layers.svg)" in report
    assert "| LSTM I=1 H=16 step |" in done.stdout and "| LSTM H=256 |" in done.stdout  # tables are printed
    plots = {path.stem for path in tmp_path.glob("*.svg")}
    assert plots == {"layers", "bound"}  # growth has one size, and a line takes two
    for plot in plots:
        assert ElementTree.parse(tmp_path / f"{plot}.svg").getroot().tag.endswith("svg")
    again = tmp_path / "benchmarks.md"
    again.unlink()
    assert python(BENCHMARKS / "report.py", "--out", tmp_path).returncode == 0 and again.read_text(encoding="utf-8") == report


def test_what_comes_is_drawn_anew_and_results_are_compared(tmp_path):
    for engine in ("onnxruntime", "openvino", "torch"):
        pytest.importorskip(engine, reason="the benchmarks measure every engine")
    done = python(BENCHMARKS / "run.py", "--quick", "--only", "use", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {case["table"]: case for case in json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))["use"]["cases"]}
    assert set(found) == {"drawn", "opened", "crowd"} and found["drawn"]["bound_us"] > 0
    engines = {"fastrnn", "onnxruntime", "openvino", "torch"}
    assert set(found["drawn"]["us"]) == set(found["opened"]["us"]) == engines and set(found["crowd"]["us"]) == engines - {"openvino"}
    assert "use.svg" in {path.name for path in tmp_path.iterdir()}


def test_instruction_sets_are_measured_in_turn(tmp_path):
    for engine in ("onnxruntime", "openvino", "torch"):
        pytest.importorskip(engine, reason="the benchmarks measure every engine")
    names = isa.supported()[-2:]
    done = python(BENCHMARKS / "run.py", "--quick", "--only", "step", "--match", "16", "--isa", ",".join(names), "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in names:
        run = json.loads((tmp_path / "isas" / name / "benchmarks.json").read_text(encoding="utf-8"))
        assert run["step"]["machine"]["roofline"]["isa"] == name
    table = (tmp_path / "isas/isas.md").read_text(encoding="utf-8")
    assert (
        f"| microseconds | {' | '.join(names)} |" in table
        and "| LSTM I=1 H=16 step |" in table
        and "geometric mean" in table
        and table in done.stdout
    )
    assert ElementTree.parse(tmp_path / "isas/isas.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize("option,known", [("--only", "step, sequence"), ("--isa", isa.supported()[0])])
def test_unknown_suites_and_instruction_sets_are_refused(option, known):
    done = python(BENCHMARKS / "run.py", option, "nothing")
    assert done.returncode == 2 and known in done.stderr


def test_every_suite_has_its_file():
    """And every file is a suite that run.py and its text name."""
    text = (BENCHMARKS / "run.py").read_text(encoding="utf-8")
    named = re.search(r"Suites: (.*?)\.", text, re.DOTALL)[1].split(", ")
    assert named == re.findall(r'"(\w+)"', re.search(r"^SUITES = \((.*?)\)$", text, re.MULTILINE | re.DOTALL)[1])
    assert set(named) == {path.stem.removeprefix("bench_") for path in (BENCHMARKS / "suites").glob("bench_*.py")}


@pytest.mark.parametrize("least_T,least_B", [(None, 1), (5, None), (3, 2)])
def test_sizes_are_drawn_evenly_between_their_bounds(monkeypatch, least_T, least_B):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cases

    drawn, random = cases.Drawn(cases.Case("lstm", 3, 5, T=40, B=9), least_T, least_B), np.random.default_rng(0)
    blocks = np.array([drawn.sizes(random) for _ in range(200)])
    assert blocks.shape == (200, cases.CALLS, 2) and not np.array_equal(blocks[0], blocks[1])
    for sizes, least, most in ((blocks[..., 0], least_T or 40, 40), (blocks[..., 1], least_B or 9, 9)):
        assert sizes.min() == least and sizes.max() == most
        assert np.ptp(sizes.sum(1)) <= 0.1 * sizes.sum(1).mean()  # blocks are about as much work as one another


def test_plots_have_no_empty_panels(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import plots

    def case(name, **facts):
        return {"case": name, "us": {"fastrnn": {"us": 1.0}}, **facts}

    steps = {"step": [case("LSTM H=128 step"), case("LSTM H=256 step")]}
    assert list(plots.growing(steps)) == ["hidden size, LSTM step"] and not plots.growing({"step": steps["step"][:1]})
    assert "bound" not in plots.makers(steps) and "pool" not in plots.makers(steps)
    assert list(plots.makers({"pool": [case("LSTM I=1 H=1, all", rows=1.0)]})) == ["pool"]


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    return report


def test_small_weights_have_a_row_each(report):
    case = {"table": "precision", "case": "a task", "unit": "rms / largest", "us": {"float32": {"us": 6.0}, "int8": {"us": 2.0}}, "weight_bytes": {"float32": 4e5, "int8": 1e5},
            "figures": {"float32": None, "int8": [0.5, 0.25]}, "floors": {"int8": [0.5, 0.125]}}  # fmt: skip
    head, _, *rows = report.precision([case])
    assert head.startswith("| task | weights") and rows[0] == "| a task | float32 | 400 KB | rms / largest | - | - | 6.00 (1.00) |"
    assert (
        rows[1] == "| a task | int8 | 100 KB | rms / largest | 0.50000 / 0.25000 | 0.50000 / 0.12500 | 2.00 (3.00) |"
        and report.figure(9978) == "9978"
    )


@pytest.mark.parametrize("name", ["fastrnn_engine", "onnxruntime_engine", "onnxruntime_bound_engine", "openvino_engine"])
def test_first_calls_start_anew_after_states_were_carried(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cases

    run, result = import_module(f"contenders.{name}").prepare(cases.Case("lstm", 3, 5, carried=True))
    first = result().copy()
    for _ in range(3):
        run()
    assert np.array_equal(result(), first)


def suites_of(case, table, **facts):
    return {"s": {"machine": {}, "cases": [{"table": table, "case": case, **facts}]}}


def test_tables_of_a_report(report):
    assert [report.number(v) for v in (None, 1234.5, 12.34, 1.234, 0.1234)] == ["-", "1234", "12.3", "1.23", "0.123"]
    case = {
        "case": "LSTM H=8 step",
        "table": "sequence",
        "us": {"fastrnn": {"us": 2.0, "p99": 3.0}, "torch": {"us": 8.0, "p99": 9.0}, "onnxruntime": {"us": 5.0, "p99": 6.0}},
        "bound_us": 1.0,
        "refused": {"openvino": "no"},
    }
    lines = report.against([case])
    assert lines[0] == "| microseconds | fastrnn | onnxruntime | torch | fastest peer / fastrnn | bound | reached |"
    assert lines[2] == "| LSTM H=8 step | 2.00 (3.00) | 5.00 (6.00) | 8.00 (9.00) | 2.50 | 1.00 | 50% |" and "openvino - no" in lines[-1]


def test_pages_keep_their_tables_between_markers(report, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- benchmarks:layers -->\nold\n<!-- end -->\nafter\n")
    us = {"fastrnn": {"us": 2.0, "p99": 3.0}, "onnxruntime": {"us": 5.0, "p99": 6.0}}
    report.rewrite_pages(suites_of("LSTM H=8 step", "step", us=us), [page])
    text = page.read_text(encoding="utf-8")
    assert (
        text.startswith("before\n<!-- benchmarks:layers -->\n\n|  | fastrnn")
        and "| LSTM H=8 step | 2.00 | 5.00 | 2.50 |" in text
        and "old" not in text
    )
    assert text.endswith("<!-- end -->\nafter\n")
    assert "<!-- benchmarks:layers -->" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"<!-- benchmarks:{name} -->" in (ROOT / "docs/numbers.md").read_text(encoding="utf-8") for name in ("layers", "models"))


def test_a_partial_run_keeps_the_other_suites(report):
    run = {"machine_info": {"cpu": "c"}, "benchmarks": [{"group": "step", "extra_info": {"table": "step", "case": "a"}}]}
    found = report.collect(run, {"step": "old", "push": "kept"})
    assert found == {"step": {"machine": {"cpu": "c"}, "cases": [{"table": "step", "case": "a"}]}, "push": "kept"}
