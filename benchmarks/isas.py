"""One machine's instruction sets beside one another, from the results of a run of each."""

from __future__ import annotations

import math
from pathlib import Path

import plots
import report

from fastrnn.cli import plot

HEAD = (
    "Written by `python benchmarks/run.py --isa {names}`: fastrnn held to each of these in turn, a run each; medians in microseconds, in brackets the fastest peer's time over "
    "fastrnn's in that run. The peers are held to nothing and use the widest that they know."
)


def cases_of(suites: dict) -> dict[tuple[str, str], dict]:
    """Those that were timed beside peers, by table and name."""
    return {
        (table, case["case"]): case
        for table, cases in report.by_table(suites).items()
        for case in cases
        if report.us(case, "fastrnn") and report.best_peer(case)
    }


def markdown(found: dict[str, dict]) -> str:
    """A row a case that every run has, a column an instruction set; the geometric means of the times over the first one's, and of the peers' over fastrnn's."""
    runs = {name: cases_of(suites) for name, suites in found.items()}
    first, *others = runs
    keys = [key for key in runs[first] if all(key in cases for cases in runs.values())]

    def over_peer(name, key):
        return report.best_peer(runs[name][key]) / report.us(runs[name][key], "fastrnn")

    rows = [
        [key[1], *(f"{report.number(report.us(cases[key], 'fastrnn'))} ({over_peer(name, key):.2f})" for name, cases in runs.items())] for key in keys
    ]
    if keys:
        peers = {name: mean(over_peer(name, key) for key in keys) for name in runs}
        times = {name: mean(report.us(runs[name][key], "fastrnn") / report.us(runs[first][key], "fastrnn") for key in keys) for name in others}
        rows.append(["geometric mean of peer / fastrnn", *(f"{peers[name]:.2f}" for name in runs)])
        rows.append([f"geometric mean of time / {first}'s", "", *(f"{times[name]:.2f}" for name in others)])
    machines = [next(iter(suites.values()))["machine"] for suites in found.values() if suites]
    lines = ["# Instruction sets", "", HEAD.format(names=",".join(found)), ""]
    lines += [
        line
        for machine in machines
        for line in (report.machine_line(machine) + (" A QUICK RUN: no figures to quote." if machine["quick"] else ""), "")
    ]
    return "\n".join([*lines, *(["![isas](isas.svg)", ""] if keys else []), *report.table(["microseconds", *runs], rows), ""])


def mean(values) -> float:
    """Geometric."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def write(found: dict[str, dict], folder: Path) -> None:
    """The table and the plot of {instruction set: suites}."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "isas.md").write_text(markdown(found))
    runs = {name: cases_of(suites) for name, suites in found.items()}
    keys = [key for key in next(iter(runs.values())) if all(key in cases for cases in runs.values())]
    if keys:
        us = {name: [plots.median(cases[key], "fastrnn") for key in keys] for name, cases in runs.items()}
        best = [report.best_peer(next(iter(runs.values()))[key]) for key in keys]
        plot.bars(
            folder / "isas.svg", "fastrnn by instruction set, and the fastest peer, one thread", [key[1] for key in keys], us | {"fastest peer": best}
        )
