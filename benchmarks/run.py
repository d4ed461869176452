"""Runs the benchmarks and writes their tables and plots.

    python benchmarks/run.py                       # all of it, about ten minutes; writes benchmarks/results/ and the tables of pages
    python benchmarks/run.py --only step,models    # these suites; the others keep their last results
    python benchmarks/run.py --quick               # half a minute, into benchmarks/results/quick/, which git ignores: no figures to quote

Suites: step, sequence, batch, push, models, pool, batcher, load, memory, threads, cells, training, precision. Needs the `bench` extra. Pin it to a quiet core (taskset -c N);
threads needs two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import report

HERE = Path(__file__).parent
SUITES = ("step", "sequence", "batch", "push", "models", "pool", "batcher", "load", "memory", "threads", "cells", "training", "precision")


def suites(text: str) -> list[str]:
    """Names between commas."""
    names = text.split(",")
    if wrong := [name for name in names if name not in SUITES]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is unknown; suites are {', '.join(SUITES)}")
    return names


def main() -> int:
    """pytest's exit code; results are written where it is 0, or where all was skipped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=suites, default=list(SUITES), metavar="SUITE,SUITE")
    parser.add_argument("--match", metavar="TEXT", help="only cases that pytest's -k matches")
    parser.add_argument("--out", type=Path, help="another folder for the results; pages are then left alone")
    arguments = parser.parse_args()
    folder = arguments.out or (report.RESULTS / "quick" if arguments.quick else report.RESULTS)
    with tempfile.TemporaryDirectory() as scratch:
        measured = Path(scratch) / "run.json"
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-rs", "--benchmark-columns=rounds",
                   f"--benchmark-json={measured}", *(["--quick"] if arguments.quick else []), *(["-k", arguments.match] if arguments.match else []),
                   *(str(HERE / "suites" / f"bench_{name}.py") for name in arguments.only)]  # fmt: skip
        code = subprocess.run(command, check=False, cwd=HERE).returncode
        if code or not measured.exists():
            return code
        run = json.loads(measured.read_text())
    kept = folder / "benchmarks.json"
    found = report.collect(run, json.loads(kept.read_text()) if kept.exists() else {})
    report.write(found, folder)
    print(f"written to {folder}")
    if doubtful := report.disturbed(found):
        print(f"OTHER PROCESSES RAN ON THE CORE during {', '.join(doubtful)}: pages are left alone; run it again on a quiet core")
    elif folder == report.RESULTS:
        report.rewrite_pages(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
