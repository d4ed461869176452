"""tanh, sigmoid and exp over all 2^32 float32 inputs, on every ISA here, against float64 libm.

    python benchmarks/check_activations.py      # about a quarter of an hour on two cores

The first ISA is measured; the others must give its bits. Writes benchmarks/results/activations.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from fastrnn.cells.activations import Activation
from fastrnn.kernels import isa
from fastrnn.testing import EXACT, TOLERANCES, activate, activation_errors

CHUNK = 1 << 20
RESULTS = Path(__file__).parent / "results" / "activations.md"


def chunk(start: int) -> dict[str, tuple[float, float, float, bool, bool]]:
    """Of one run of bit patterns, for each function: largest ulp error and where, largest absolute error past the ulp
    bound, whether NaNs stayed NaN, whether all ISAs agree."""
    x = np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)
    nan, result = np.isnan(x), {}
    for kind, exact in EXACT.items():
        first, *others = (activate(name, Activation(kind), x) for name in isa.supported())
        same = all(np.array_equal(first[~nan].view(np.uint32), other[~nan].view(np.uint32)) for other in others)
        kept = all(np.isnan(y[nan]).all() for y in (first, *others))
        absolute, ulp = activation_errors(first[~nan], x[~nan], exact)
        if not ulp.size:
            result[kind] = (0.0, 0.0, 0.0, kept, same)
            continue
        past = absolute[ulp > TOLERANCES[f"{kind}_ulp"]].max(initial=0.0)
        worst = int(np.argmax(np.where(ulp > TOLERANCES[f"{kind}_ulp"], -1.0, ulp) if kind == "sigmoid" else ulp))
        result[kind] = (float(ulp[worst]), float(x[~nan][worst]), float(past), kept, same)
    return result


def main() -> int:
    """Runs all chunks and writes the table; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="check one chunk in so many (1: all)")
    arguments = parser.parse_args()
    starts = range(0, 1 << 32, CHUNK * arguments.every)
    worst = {kind: [0.0, 0.0, 0.0, True, True] for kind in EXACT}
    with ProcessPoolExecutor(arguments.processes) as pool:
        for done, result in enumerate(pool.map(chunk, starts, chunksize=8), 1):
            for kind, (ulp, at, past, kept, same) in result.items():
                w = worst[kind]
                if ulp > w[0]:
                    w[0], w[1] = ulp, at
                w[2], w[3], w[4] = max(w[2], past), w[3] and kept, w[4] and same
            if sys.stderr.isatty() and done % 16 == 0:
                print(f"\r{done / len(starts):6.1%}", end="", file=sys.stderr)
    ok = True
    lines = ["# Activations over all 2^32 float32 inputs" if arguments.every == 1 else "# Activations over a sample", "",
             f"Against float64 libm, on {', '.join(isa.supported())} ({platform.machine()}); subnormal inputs and results count as zero.", "",
             "| function | largest error | at | bound | largest absolute error past it | NaN kept | same bits on every ISA |", "|---|---|---|---|---|---|---|"]
    for kind, (ulp, at, past, kept, same) in worst.items():
        bound = f"{TOLERANCES[f'{kind}_ulp']:g} ulp" + (f" or {TOLERANCES['sigmoid_absolute']:.3g}" if kind == "sigmoid" else "")
        ok &= kept and same and (past <= TOLERANCES["sigmoid_absolute"] if kind == "sigmoid" else past == 0.0)
        lines.append(f"| {kind} | {ulp:.3f} ulp | {at:.9g} | {bound} | {past:.3g} | {'yes' if kept else 'NO'} | {'yes' if same else 'NO'} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.every == 1:
        RESULTS.write_text(text)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
