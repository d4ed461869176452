"""Runs the benchmarks, prints their tables, and writes them and plots.

    python benchmarks/run.py                       # all of it, about twelve minutes; writes benchmarks/results/ and the tables of pages
    python benchmarks/run.py --only step,models    # these suites; the others keep their last results
    python benchmarks/run.py --quick               # about a minute, into benchmarks/results/quick/, which git ignores: no figures to quote
    python benchmarks/run.py --isa avx512,avx2     # fastrnn held to each of these instruction sets in turn, into benchmarks/results/isas/, and beside one another

Suites: step, sequence, batch, push, models, convolutions, use, pool, batcher, load, memory, threads, cells, training, precision. Needs the `bench` extra. Pin it to a quiet core
(taskset -c N); threads needs two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import isas
import report

from fastrnn.kernels.isa import supported

HERE = Path(__file__).parent
SUITES = (
    "step",
    "sequence",
    "batch",
    "push",
    "models",
    "convolutions",
    "use",
    "pool",
    "batcher",
    "load",
    "memory",
    "threads",
    "cells",
    "training",
    "precision",
)


def names_of(known: tuple[str, ...], what: str):
    """What reads names between commas."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if wrong := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is unknown; {what} are {', '.join(known)}")
        return names

    return read


def measure(arguments: argparse.Namespace, isa: str | None) -> tuple[int, dict]:
    """pytest's exit code, and what it measured, as pytest-benchmark has it; empty where it measured nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        measured = Path(scratch) / "run.json"
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--import-mode=importlib", "-rs", "--benchmark-quiet", f"--benchmark-json={measured}",
                   *(["--quick"] if arguments.quick else []), *(["-k", arguments.match] if arguments.match else []),
                   *(str(HERE / "suites" / f"bench_{name}.py") for name in arguments.only)]  # fmt: skip
        code = subprocess.run(command, check=False, cwd=HERE, env=os.environ | ({"FASTRNN_ISA": isa} if isa else {})).returncode
        return code, json.loads(measured.read_text()) if not code and measured.exists() else {}


def run(arguments: argparse.Namespace, folder: Path, isa: str | None = None) -> tuple[int, dict]:
    """Measures, prints, writes; the exit code, and all suites in the folder."""
    code, measured = measure(arguments, isa)
    if not measured:
        return code, {}
    kept, fresh = folder / "benchmarks.json", report.collect(measured, {})
    found = (json.loads(kept.read_text()) if kept.exists() else {}) | fresh
    report.write(found, folder)
    print("\n".join(report.tables(fresh)))
    print(f"written to {folder}")
    if doubtful := report.disturbed(fresh):
        print(f"OTHER PROCESSES RAN ON THE CORE during {len(doubtful)} cases, {doubtful[0]} the first: run it again on a quiet core")
    return code, found


def main() -> int:
    """pytest's exit code; results are written where it is 0, or where all was skipped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=names_of(SUITES, "suites"), default=list(SUITES), metavar="SUITE,SUITE")
    parser.add_argument("--isa", type=names_of(supported(), "instruction sets that run here"), default=[], metavar="NAME,NAME")
    parser.add_argument("--match", metavar="TEXT", help="only cases that pytest's -k matches")
    parser.add_argument("--out", type=Path, help="another folder for the results; pages are then left alone")
    arguments = parser.parse_args()
    folder = arguments.out or (report.RESULTS / "quick" if arguments.quick else report.RESULTS)
    if arguments.isa:
        code, found = 0, {}
        for name in arguments.isa:
            code, found[name] = run(arguments, folder / "isas" / name, name)
            if code:
                return code
        isas.write(found, folder / "isas")
        print((folder / "isas" / "isas.md").read_text())
        return code
    code, found = run(arguments, folder)
    if found and folder == report.RESULTS and not report.disturbed(found):
        report.rewrite_pages(found)
    return code


if __name__ == "__main__":
    sys.exit(main())
