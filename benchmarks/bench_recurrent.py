"""One recurrent layer at batch 1, beside the peers, one thread: medians and p99 from one interleaved run.

    python benchmarks/bench_recurrent.py          # a minute; writes benchmarks/results/recurrent.md

Calls under 50 us are timed in blocks of 1,000, others in blocks of about 20 ms. Then what lengths and the import cost.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from contenders import Work, engines

from fastrnn.cells import GATES
from fastrnn.kernels import isa
from fastrnn.testing import LAYERS, TOLERANCES

RESULTS = Path(__file__).parent / "results" / "recurrent.md"
WORK = [Work("lstm", 1, 16), Work("lstm", 40, 64), Work("gru", 32, 24), Work("lstm", 128, 128), Work("lstm", 256, 256), Work("lstm", 512, 512),
        Work("lstm", 64, 64, 100), Work("lstm", 256, 256, 100), Work("lstm", 512, 512, 100), Work("gru", 256, 256, 100), Work("rnn", 256, 256, 100)]
ROUNDS = 41


def blocks(run) -> int:
    """Calls a block."""
    started = time.perf_counter()
    for _ in range(10):
        run()
    seconds = (time.perf_counter() - started) / 10
    return 1_000 if seconds < 50e-6 else max(1, int(0.02 / seconds))


def measure(work: Work) -> dict[str, np.ndarray]:
    """Microseconds a call, a figure a round, for each engine; results compared first."""
    prepared = {engine.NAME: engine.prepare(work) for engine in engines()}
    expected = prepared["fastrnn"][1]()
    for name, (_, result) in prepared.items():
        error = np.abs(result() - expected).max()
        if error > TOLERANCES["engine"]:
            raise SystemExit(f"{work}: {name} differs from fastrnn by {error:.1e}")
    for run, _ in prepared.values():
        for _ in range(20):
            run()
    return interleave({name: run for name, (run, _) in prepared.items()})


def interleave(runs, rounds: int = ROUNDS) -> dict[str, np.ndarray]:
    """Microseconds a call, a figure a round, of functions that take turns."""
    calls = {name: blocks(run) for name, run in runs.items()}
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter_ns()
            for _ in range(calls[name]):
                run()
            times[name].append((time.perf_counter_ns() - started) / calls[name] / 1e3)
    return {name: np.array(t) for name, t in times.items()}


def ragged() -> list[str]:
    """What lengths cost, in lines of a table: a padded batch, the same with all lengths given, and uniform lengths."""
    T, B, H = 100, 32, 128
    lines = ["", f"Lengths, T={T} B={B} I=H={H}, fastrnn alone:", "", "| layer | padded | all lengths T | ratio | lengths uniform in 0..T | ratio | share of steps |",
             "|---|---|---|---|---|---|---|"]
    random = np.random.default_rng(0)
    x, some = random.standard_normal((T, B, H)).astype(np.float32), random.integers(0, T + 1, B)
    for kind, layer in LAYERS.items():
        run = layer(H, H, seed=0)
        times = interleave({"padded": lambda run=run: run(x), "full": lambda run=run: run(x, lengths=np.full(B, T)), "some": lambda run=run: run(x, lengths=some)})
        padded, full, part = (np.median(times[k]) for k in ("padded", "full", "some"))
        lines.append(f"| {kind.upper()} | {padded:.4g} | {full:.4g} | {full / padded:.2f} | {part:.4g} | {part / padded:.2f} | {some.sum() / (T * B):.2f} |")
    return lines


def batches() -> list[str]:
    """How near batches come to the FMA peak, in lines of a table: GFLOP/s at T=50, I=H, matrix work only."""
    sizes, heights = (4, 5, 8, 16, 32), (64, 128, 256, 512)
    lines = ["", "Batches, GFLOP/s at T=50, I=H, median, fastrnn alone:", "", "| layer | " + " | ".join(f"B={B}" for B in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    random = np.random.default_rng(0)
    for kind, layer in LAYERS.items():
        for H in heights:
            run, work = layer(H, H, seed=0), {B: random.standard_normal((50, B, H)).astype(np.float32) for B in sizes}
            times = interleave({B: lambda run=run, x=x: run(x) for B, x in work.items()}, rounds=7)
            rates = [2 * 50 * B * 2 * H * GATES[kind] * H / np.median(times[B]) / 1e3 for B in sizes]
            lines.append(f"| {kind.upper()} H={H} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |")
    return lines


def import_ms() -> float:
    """Milliseconds that `import fastrnn` takes on top of NumPy, the best of ten new processes."""
    code = "import numpy, time; t = time.perf_counter(); import fastrnn; print(1e3 * (time.perf_counter() - t))"
    return min(float(subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True).stdout) for _ in range(10))


def main() -> None:
    """Runs everything and writes the table."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    versions = ", ".join(f"{name} {version(name)}" for name in ("fastrnn", "onnxruntime", "torch", "numpy"))
    about = (f"{cpu}, ISA {isa.chosen()}; {versions}. Microseconds a call from Python, median of {ROUNDS} interleaved rounds (p99 in brackets). "
             "A ratio above 1 means that fastrnn is faster.")
    lines = ["# One recurrent layer, batch 1, one thread", "", about, "",
             "| work | fastrnn | onnxruntime | torch | onnxruntime / fastrnn | torch / fastrnn |", "|---|---|---|---|---|---|"]
    for work in WORK:
        times = measure(work)
        medians = {name: np.median(t) for name, t in times.items()}
        cells = [f"{medians[name]:.4g} ({np.percentile(times[name], 99):.4g})" for name in ("fastrnn", "onnxruntime", "torch")]
        lines.append(f"| {work} | {' | '.join(cells)} | {medians['onnxruntime'] / medians['fastrnn']:.2f} | {medians['torch'] / medians['fastrnn']:.1f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines += [*ragged(), *batches(), "", f"`import fastrnn` after NumPy: {import_ms():.0f} ms."]
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
