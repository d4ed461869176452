"""From pytest-benchmark's JSON to results/: benchmarks.json (every suite's latest run), benchmarks.md, plots, and the tables of pages.

python benchmarks/report.py       # writes Markdown and plots again from results/benchmarks.json
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

import plots
from contenders import NAMES, PEERS

from fastrnn.cli.timing import DISTURBED

RESULTS = Path(__file__).parent / "results"
PAGES = tuple(Path(__file__).parents[1] / page for page in ("README.md", "docs/numbers.md"))  # where tables stand between markers
TITLES = {  # of the tables, in the order of the report: what stands above each
    "step": ("Steps", "One step at batch 1, the state carried. `call` is one call timed by itself, p50 and p99; the clock's own 0.05 us is in it."),
    "sequence": ("Sequences", "A whole sequence at batch 1."),
    "batch": ("Batches", "Whole sequences, time-major."),
    "ragged": ("Ragged batches", "Lengths uniform in 1..T; ONNX engines get sequence_lens, torch a packed sequence, and all give padded outputs."),
    "push": ("Blocks through a stream", "64 samples a call, the state carried; microseconds a call, and a sample."),
    "model": ("Real models", "A frame with its states carried, or a whole call, batch 1. torch runs the same graph eagerly, op by op."),
    "convolution": ("Models with a convolutional front", "A whole call: judging speech (convolutions, MaxPool, two bidirectional GRUs), reading a line of text (MobileNet, two bidirectional LSTMs)."),
    "network": ("Networks of common forms", "A whole call, weights drawn: captchas (Keras' example), words (CRNN of Shi, Bai and Yao, 2015), voice activity (separable convolutions, a maximum over frames and features, two LSTMs of 64)."),
    "drawn": ("Sizes drawn anew", "Sixteen calls, each of another batch, length, or lengths of its rows; the same ones for every engine, which has one session for all."),
    "opened": ("Streams opened and closed", "Streams that live for some steps, one after the other: opening and all steps of eight."),
    "crowd": ("Streams that come and go in a pool", "Eight ticks: some streams leave, as many come, and some of all step; the peers' states lie in an array whose rows are handed on."),
    "pool": ("Pools", "A step of those of 10,000 streams that are ready, drawn anew each call; the peers' states gathered and scattered with NumPy, in chunks of 16, 32, 64 or 256 "
                      "rows, the best of them. The bound counts matrix work alone."),
    "open_loop": ("Pools under load", "Callers tick on clocks of their own, with jitter; microseconds from a frame to its answer, the wait for the engine counted. Peers are offered the "
                                      "same frames in chunks of 64 rows: where they cannot keep up, their waits grow with the run."),
    "busy": ("Callers of a Batcher", "Tasks of one event loop, each of which asks again when it is answered. Of the pool's: as a share of what the pool alone does with as many rows, 256 at most; "
                                     "stepping: the share of the time in which a step runs, waiting for Python's lock included."),
    "overload": ("A Batcher that is asked for more than it can do", "Tasks of one event loop on clocks of their own; loads are shares of the rate of callers that wait for their answers; microseconds from asking."),
    "rates": ("Rate of batches", "GFLOP/s at T=50, I=H, matrix work only, fastrnn alone."),
    "lengths": ("What lengths cost", "Microseconds, fastrnn alone."),
    "threads": ("Two threads", "Microseconds, fastrnn alone; both give the same bits."),
    "shared": ("Two threads that share a pool's rows", "Those of 10,000 streams that are ready, drawn anew each call, one step after the other; microseconds, fastrnn alone; both give the same bits."),
    "compiled": ("Compiled cells beside native kernels", "The jit backend and the native one, the same bits; microseconds, fastrnn alone."),
    "loops": ("The gallery beside loops in PyTorch", "The same cell, its input projected at once, in an eager loop and in a scripted one; microseconds."),
    "per_flop": ("Cells by the work of their matrices", "Nanoseconds of a thousand floating-point operations; in brackets, of the LSTM's."),
    "own_step": ("A cell of one's own, a step from Python", "The same cell built in and as fr.Recurrent; microseconds."),
    "compile": ("Compiling", "Milliseconds in a new process: an empty cache, then what the first process left."),
    "training": ("Training steps", "Forward, mean squared error, backward, Adam; losses and gradients compared first; microseconds. Ragged: torch's packed sequences."),
    "cell_training": ("Training the gallery's cells", "Loss and gradients, beside autograd over an eager loop in PyTorch whose input is projected at once; microseconds."),
    "training_memory": ("Memory of a training step", "Megabytes, of a layer and a Linear to 88 at B=16: what is kept for the way back, x and the output among it; the peak."),
    "load": ("From weights to a session", "Milliseconds: fastrnn plans and packs; the others load the same graph or weights. A copy of the weights is the floor."),
    "import": ("Import", "Milliseconds of `import` in a new process, NumPy loaded already; the best of several. NumPy's own on top of nothing."),
    "precision": ("Small weights", "Trained networks at what they are for: weights, answers, and the floor, answers in float32 over the rounded weights (round_weights); microseconds of "
                                   "a step, or of a call over 32 sentences or a piece; float32's time over theirs in brackets."),
    "memory": ("Memory", "Resident bytes that preparing and running a layer adds, as multiples of its weights, which the caller keeps; and what fastrnn packs."),
}  # fmt: skip
HEAD = (
    "Written by `python benchmarks/run.py`. All engines on one thread, with the same weights and inputs, results compared before anything is timed, in turns within "
    "one run; medians in microseconds, p99 in brackets: of calls, or of blocks of 1,000 calls where a call takes less than 50 us. The bound is max(flops / FMA rate, "
    "weight bytes / bandwidth of the level they fit in), activations not counted; `reached` is the bound as a share of fastrnn's time."
)


def number(value: float | None) -> str:
    """Three digits or so, never an exponent."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def table(columns: Iterable[str], rows: Iterable[Iterable]) -> list[str]:
    """Lines of a Markdown table."""
    columns = list(columns)
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def us(case: dict, engine: str) -> float | None:
    """An engine's median."""
    return case["us"].get(engine, {}).get("us")


def best_peer(case: dict) -> float | None:
    """The fastest other engine's median."""
    return min((us(case, name) for name in PEERS if us(case, name)), default=None)


def against(cases: list[dict], engines=(NAMES[0], *PEERS)) -> list[str]:
    """A row a case: medians (p99), the fastest peer's ratio, the bound and the fraction reached; and who took no part."""
    engines = [name for name in engines if any(us(case, name) for case in cases)]
    calls, pushes = cases[0]["table"] == "step", any("push of" in case["case"] for case in cases)
    rows = []
    for case in cases:
        mine, bound = case["us"]["fastrnn"], case.get("bound_us")
        row = [case["case"], *(f"{number(us(case, e))} ({number(case['us'][e]['p99'])})" if us(case, e) else "-" for e in engines)]
        row += [f"{best_peer(case) / mine['us']:.2f}" if best_peer(case) else "-", number(bound), f"{bound / mine['us']:.0%}" if bound else "-"]
        row += [f"{number(mine['p50_call'])} / {number(mine['p99_call'])}"] if calls else []
        row += [number(mine["us"] / int(case["case"].split()[-1]))] if pushes else []
        rows.append(row)
    extra = (["call p50 / p99"] if calls else []) + (["a sample"] if pushes else [])
    lines = table(["microseconds", *engines, "fastest peer / fastrnn", "bound", "reached", *extra], rows)
    refusals = [f"{case['case']}: {name} - {' '.join(why.split())[:160]}" for case in cases for name, why in case.get("refused", {}).items()]
    return lines + (["", "Not taking part: " + "; ".join(refusals) + "."] if refusals else [])


def open_loop(cases: list[dict]) -> list[str]:
    """Waits by load, an engine a row."""
    return table(
        ["load", "frames/s offered", "", "frames/s", "p50", "p99", "p99.9"],
        (
            [f"{case['load']:.0%}", number(case["offered"]), name, number(w["rate"]), number(w["p50"]), number(w["p99"]), number(w["p99.9"])]
            for case in sorted(cases, key=lambda case: case["load"])
            for name, w in case["waits"].items()
        ),
    )


def busy(cases: list[dict]) -> list[str]:
    """Callers by how many there are, a layer a row."""
    return table(
        ["", "callers", "frames/s", "of the pool's", "rows a step", "stepping"],
        (
            [layer, number(case["callers"]), number(f["rate"]), f"{f['rate'] / f['pool']:.0%}", number(f["rows"]), f"{f['busy']:.0%}"]
            for case in cases
            for layer, f in case["layers"].items()
        ),
    )


def overload(cases: list[dict]) -> list[str]:
    """What becomes of requests by load."""
    return table(["", "load", "asked/s", "answered/s", "p50", "p99", "refused", "p99 of a refusal", "without an end"],
                 ([case["case"], f"{float(load):.0%}", number(f["offered"]), number(f["rate"]), number(f["p50"]), number(f["p99"]), f"{f['refused']:.0%}", number(f["refused_p99"]), f"{f['unresolved']}"]
                  for case in cases for load, f in case["loads"].items()))  # fmt: skip


def rates(cases: list[dict]) -> list[str]:
    """GFLOP/s over the batch."""
    return table(["layer", *cases[0]["us"]], ([case["case"], *(f"{case['flops'][B] / us(case, B) / 1e3:.0f}" for B in case["us"])] for case in cases))


def lengths(cases: list[dict]) -> list[str]:
    """Against the padded batch."""
    names, first = list(cases[0]["us"]), next(iter(cases[0]["us"]))
    rows = (
        [case["case"], *(f"{number(us(case, n))} ({us(case, n) / us(case, first):.2f})" for n in names), f"{case['steps']:.2f}"] for case in cases
    )
    return table(["layer", *(f"{n} (ratio)" for n in names), "share of steps"], rows)


def threads(cases: list[dict]) -> list[str]:
    """The speedup of the second thread."""
    one, two = cases[0]["us"]
    return table(
        ["work", one, two, "speedup"], ([c["case"], number(us(c, one)), number(us(c, two)), f"{us(c, one) / us(c, two):.2f}"] for c in cases)
    )


def load(cases: list[dict]) -> list[str]:
    """Milliseconds, and multiples of a copy."""
    names = list(cases[0]["us"])
    rows = (
        [c["case"], f"{c['weight_bytes'] / 1e6:.2f} MB", *(f"{us(c, n) / 1e3:.3f} ({us(c, n) / us(c, 'copy'):.0f}x)" for n in names)] for c in cases
    )
    return table(["layer", "weights", *(f"{n} (of a copy)" if n != "copy" else n for n in names)], rows)


def imports(cases: list[dict]) -> list[str]:
    """One row."""
    return table(cases[0]["ms"], [[f"{ms:.0f}" for ms in cases[0]["ms"].values()]])


def beside(cases: list[dict]) -> list[str]:
    """Ratios to the first column, and their geometric mean; where there is a bound, the share of it that the first reaches."""
    first, *others = cases[0]["us"]
    ratios = {name: [us(c, name) / us(c, first) for c in cases] for name in others}
    rows = [[c["case"], number(us(c, first)), *(f"{number(us(c, n))} ({ratios[n][k]:.2f})" for n in others)] for k, c in enumerate(cases)]
    bounded = ["bound"] if any(c.get("bound_us") for c in cases) else []
    for row, case in zip(rows, cases, strict=True):
        bound = case.get("bound_us")
        row += ([f"{number(bound)} ({bound / us(case, first):.0%})"] if bound else ["-"]) if bounded else []
    means = [f"({math.prod(r) ** (1 / len(r)):.2f}; {min(r):.2f} to {max(r):.2f})" for r in ratios.values()]
    return table(
        ["work", first, *(f"{n} (of {first})" for n in others), *bounded], [*rows, ["geometric mean; range", "", *means, *([""] if bounded else [])]]
    )


def per_flop(cases: list[dict]) -> list[str]:
    """Of cells whose matrices are the work: IndRNN and SRU have none over h."""
    rows = []
    for c in cases:
        cost = {name: 1e6 * us(c, name) / c["flops"][name] for name in c["us"]}
        rows.append([c["case"], *(f"{v:.1f} ({v / cost['lstm']:.2f})" for v in cost.values())])
    return table(["work", *cases[0]["us"]], rows)


def milliseconds(cases: list[dict]) -> list[str]:
    """A row a case."""
    return table(["", *cases[0]["ms"]], [[c["case"], *(f"{ms:.0f}" for ms in c["ms"].values())] for c in cases])


def memory(cases: list[dict]) -> list[str]:
    """Multiples of the weights."""
    rows = (
        [
            c["case"],
            f"{c['weight_bytes'] / 1e6:.2f} MB",
            f"{c['packed_bytes'] / c['weight_bytes']:.2f}",
            *(f"{n / c['weight_bytes']:.2f}" for n in c["resident_bytes"].values()),
        ]
        for c in cases
    )
    return table(["layer", "weights", "packed by fastrnn", *(f"resident, {n}" for n in cases[0]["resident_bytes"])], rows)


def precision(cases: list[dict]) -> list[str]:
    """A row a precision."""
    rows = []
    for c in sorted(cases, key=lambda c: c["case"]):
        for name, size in c["weight_bytes"].items():
            speed = f"{number(us(c, name))} ({us(c, 'float32') / us(c, name):.2f})"
            rows.append([c["case"], name, f"{size / 1e3:.0f} KB", c["unit"], figure(c["figures"][name]), figure(c["floors"].get(name)), speed])
    return table(["task", "weights", "bytes", "", "answers", "floor", "us"], rows)


def figure(value: float | list[float] | None) -> str:
    """A count as it is, else five digits."""
    if isinstance(value, list):
        return " / ".join(map(figure, value))
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:#.5g}"


def training_memory(cases: list[dict]) -> list[str]:
    """Peak over what is kept."""
    return table(
        ["layer", "kept", "at most", "ratio"],
        ([c["case"], *(f"{c[key] / 1e6:.2f}" for key in ("kept_bytes", "peak_bytes")), f"{c['peak_bytes'] / c['kept_bytes']:.2f}"] for c in cases),
    )


TABLES = {"open_loop": open_loop, "busy": busy, "overload": overload, "rates": rates, "lengths": lengths, "threads": threads, "shared": threads, "load": load, "import": imports, "memory": memory, "precision": precision,
          "compiled": beside, "loops": beside, "own_step": beside, "per_flop": per_flop, "training": beside,
         "cell_training": beside, "training_memory": training_memory,
          "compile": milliseconds}  # fmt: skip


def machine_line(machine: dict) -> str:
    """The machine, the versions and the roofline in a sentence each."""
    limits = machine["roofline"]
    reads = ", ".join(f"{name} {rate:.0f}" for name, rate in limits["read_gbytes"].items())
    caches = ", ".join(f"{name} {size >> 10} KB" for name, size in limits["capacity_bytes"].items())
    return (
        f"{machine['cpu']}, ISA {limits['isa']}, {machine['cores']} core(s) to run on, {caches}; "
        f"{', '.join(f'{name} {v}' for name, v in machine['versions'].items())}, Python {machine['python']}. "
        f"Measured limits of one core: {limits['fma_gflops']:.0f} GFLOP/s of float32 FMA; reading {reads} GB/s."
    )


def by_table(suites: dict) -> dict[str, list[dict]]:
    """Cases under the table that they belong to."""
    found: dict[str, list[dict]] = {}
    for suite in suites.values():
        for case in suite["cases"]:
            found.setdefault(case["table"], []).append(case)
    return found


def disturbed(suites: dict) -> list[str]:
    """Cases during which other processes ran on the core."""
    return [f"{case['case']} ({case['share']:.0%})" for suite in suites.values() for case in suite["cases"] if case.get("share", 1) < DISTURBED]


def tables(suites: dict) -> list[str]:
    """Lines of every table that these suites have something for, with what stands above each."""
    found = by_table(suites)
    parts = ([f"## {title}", "", text, "", *TABLES.get(name, against)(found[name]), ""] for name, (title, text) in TITLES.items() if name in found)
    return [line for part in parts for line in part]


def markdown(suites: dict) -> str:
    """The report."""
    machines = {json.dumps(suite["machine"]): None for suite in suites.values()}
    lines = ["# Benchmarks", "", HEAD, ""]
    for machine in map(json.loads, machines):
        which = "" if len(machines) == 1 else f" ({', '.join(name for name, s in suites.items() if s['machine'] == machine)})"
        lines += [f"{machine_line(machine)}{which}{' A QUICK RUN: no figures to quote.' if machine['quick'] else ''}", ""]
    for plot in plots.makers(by_table(suites)):
        lines += [f"![{plot}]({plot}.svg)", ""]
    if disturbed(suites):
        lines += [f"Disturbed, having had less than {DISTURBED:.0%} of a core: {', '.join(disturbed(suites))}.", ""]
    return "\n".join(lines + tables(suites))


def page_tables(suites: dict) -> dict[str, str]:
    """What stands between the markers of pages, by their name."""
    tables = by_table(suites)
    layers = [
        case
        for name in ("step", "sequence")
        for case in tables.get(name, [])
        if "T=1 " not in case["case"] and "T=10 " not in case["case"] and "T=1000" not in case["case"]
    ]
    made = {}
    for name, cases in (("layers", layers), ("models", tables.get("model", []))):
        if cases:
            engines = {"onnxruntime": "ONNX Runtime", "onnxruntime_bound": "ONNX Runtime, bound", "openvino": "OpenVINO", "torch": "PyTorch"}
            engines = {e: title for e, title in engines.items() if any(us(c, e) for c in cases)}
            rows = (
                [
                    c["case"],
                    *(number(us(c, e)) for e in ("fastrnn", *engines)),
                    *(f"{best / us(c, 'fastrnn'):.2f}" if (best := best_peer(c)) else "-",),
                ]
                for c in cases
            )
            made[name] = "\n".join(table(["", "fastrnn", *engines.values(), "fastest peer / fastrnn"], rows))
    return made


def rewrite_pages(suites: dict, pages: Iterable[Path] = PAGES) -> None:
    """Puts the tables between <!-- benchmarks:NAME --> and <!-- end -->, wherever a page has these."""
    for page in pages:
        text = page.read_text()
        for name, lines in page_tables(suites).items():
            text = re.sub(
                rf"(<!-- benchmarks:{name} -->\n).*?(<!-- end -->)", lambda m, lines=lines: f"{m[1]}\n{lines}\n\n{m[2]}", text, flags=re.DOTALL
            )
        page.write_text(text)


def collect(run: dict, kept: dict) -> dict:
    """Suites of a pytest-benchmark JSON, in place of older runs of the same."""
    fresh: dict[str, dict] = {}
    for one in run["benchmarks"]:
        fresh.setdefault(one["group"], {"machine": run["machine_info"], "cases": []})["cases"].append(one["extra_info"])
    return kept | fresh


def write(suites: dict, folder: Path) -> None:
    """benchmarks.json, benchmarks.md and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps(suites, indent=1) + "\n")
    (folder / "benchmarks.md").write_text(markdown(suites))
    plots.draw(by_table(suites), folder)


def main() -> None:
    """Writes again what a run wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    folder = parser.parse_args().out
    write(json.loads((folder / "benchmarks.json").read_text()), folder)


if __name__ == "__main__":
    main()
