"""tanh, sigmoid and exp over all 2^32 float32 inputs, on every ISA here, against float64 libm.

    python benchmarks/checks/activations.py      # six minutes on two cores

The first ISA is measured; the others must give its bits. Writes benchmarks/results/activations.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastrnn.cells.activations import Activation
from fastrnn.kernels import isa
from fastrnn.testing import EXACT, TOLERANCES, activate, activation_errors

CHUNK = 1 << 20
RESULTS = Path(__file__).resolve().parents[1] / "results" / "activations.md"


@dataclass
class Worst:
    """The worst of many inputs of one function: ulp error and where, absolute error, inputs past the bound, and what held."""

    ulp: float = 0.0
    at: float = 0.0
    absolute: float = 0.0
    past: int = 0
    nan_kept: bool = True
    same_bits: bool = True

    def join(self, other: Worst) -> Worst:
        """The worse of both."""
        worse = max(self, other, key=lambda w: w.ulp)
        return Worst(
            worse.ulp,
            worse.at,
            max(self.absolute, other.absolute),
            self.past + other.past,
            self.nan_kept and other.nan_kept,
            self.same_bits and other.same_bits,
        )


def chunk(start: int) -> dict[str, Worst]:
    """One run of bit patterns, for each function."""
    x = np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)
    nan, result = np.isnan(x), {}
    for kind, exact in EXACT.items():
        first, *others = (activate(name, Activation(kind), x) for name in isa.supported())
        same = all(np.array_equal(first[~nan].view(np.uint32), other[~nan].view(np.uint32)) for other in others)
        kept = all(np.isnan(y[nan]).all() for y in (first, *others))
        absolute, ulp = activation_errors(first[~nan], x[~nan], exact)
        past = ulp > TOLERANCES[f"{kind}_ulp"]
        if kind == "sigmoid":  # the larger of the two bounds counts
            past &= absolute > TOLERANCES["sigmoid_absolute"]
            ulp = np.where(absolute > TOLERANCES["sigmoid_absolute"], ulp, 0.0)
        worst = int(np.argmax(ulp)) if ulp.size else 0
        result[kind] = (
            Worst(float(ulp[worst]), float(x[~nan][worst]), float(absolute.max()), int(past.sum()), kept, same)
            if ulp.size
            else Worst(nan_kept=kept, same_bits=same)
        )
    return result


def main() -> int:
    """Runs all chunks and writes the table; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="check one chunk in so many (1: all)")
    arguments = parser.parse_args()
    starts = range(0, 1 << 32, CHUNK * arguments.every)
    worst = {kind: Worst() for kind in EXACT}
    with ProcessPoolExecutor(arguments.processes) as pool:
        for done, result in enumerate(pool.map(chunk, starts, chunksize=8), 1):
            worst = {kind: worst[kind].join(result[kind]) for kind in EXACT}
            if sys.stderr.isatty() and done % 16 == 0:
                print(f"\r{done / len(starts):6.1%}", end="", file=sys.stderr)
    lines = [
        "# Activations over all 2^32 float32 inputs" if arguments.every == 1 else "# Activations over a sample",
        "",
        f"Against float64 libm, on {', '.join(isa.supported())} ({platform.machine()}); subnormal inputs and results count as zero.",
        "",
        "| function | bound | largest error | inputs past the bound | NaN kept | same bits on every ISA |",
        "|---|---|---|---|---|---|",
    ]
    for kind, w in worst.items():
        if kind == "sigmoid":
            bound, reached = f"{TOLERANCES['sigmoid_ulp']:g} ulp or {TOLERANCES['sigmoid_absolute']:.3g}, the larger", f"{w.absolute:.3g} absolute"
        else:
            bound, reached = f"{TOLERANCES[f'{kind}_ulp']:g} ulp", f"{w.ulp:.3f} ulp at {w.at:.9g}"
        lines.append(f"| {kind} | {bound} | {reached} | {w.past} | {'yes' if w.nan_kept else 'NO'} | {'yes' if w.same_bits else 'NO'} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.every == 1:
        RESULTS.write_text(text)
    return 0 if all(w.nan_kept and w.same_bits and not w.past for w in worst.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
