"""Fuzzes a loader: python tests/fuzz/fuzz.py onnx --minutes 10 --seed 1

Every damaged file must load and run, or be refused with a typed error, in under a second of processor time and in at most 64 MiB and
four times the file's size. What breaks that is kept in --keep, with the seed that made it.
"""

import argparse
import logging
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import fastrnn as fr

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "damage")]
from loaders import LOADERS

MEMORY, SECONDS = 64 << 20, 1.0


def peak() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Result:
    """What came of the files; faults: (seed, what went wrong)."""

    counts: Counter = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0


def fuzz(name: str, folder: Path, first: int, cases: int = 1 << 60, seconds: float = 1e9, keep: Path | None = None) -> Result:
    """Damaged files with the seeds from `first` on, until there were so many or the time is up."""
    loader, result = LOADERS[name], Result()
    path = folder / f"damaged{loader.suffix}"
    loader.seeds()
    started = time.monotonic()
    for seed in range(first, first + cases):
        if time.monotonic() - started > seconds:
            break
        data = loader.damaged(np.random.default_rng(seed))
        path.write_bytes(data)
        before, begun, fault = peak(), time.process_time(), ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loader.load(path)
            result.counts["loaded"] += 1
        except fr.FastRNNError as error:
            result.counts[type(error).__name__] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            fault = "".join(traceback.format_exception(error)[-4:])
        taken = time.process_time() - begun
        result.slowest = max(result.slowest, taken)
        if not fault and taken > SECONDS:
            fault = f"took {taken:.2f} s"
        if not fault and peak() - before > MEMORY + 4 * len(data):
            fault = f"took {(peak() - before) >> 20} MiB for a file of {len(data)} bytes"
        if fault:
            result.faults.append((seed, fault))
            if keep:
                (keep / f"{name}-{seed}{loader.suffix}").write_bytes(data)
    return result


def main() -> int:
    """The command line; exit code 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loader", choices=sorted(LOADERS))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--cases", type=int, default=1 << 60)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for files that break a promise")
    given = parser.parse_args()
    logging.disable()  # torch tells of each file that it does not like
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz(given.loader, Path(folder), given.seed, given.cases, given.minutes * 60, given.keep)
    for seed, fault in result.faults[:20]:
        print(f"--seed {seed} --cases 1: {fault}")
    total = sum(result.counts.values()) + len(result.faults)
    print(f"{given.loader}: {total} files from seed {given.seed}: {dict(result.counts)}, {len(result.faults)} faults, slowest {result.slowest:.2f} s")
    return bool(result.faults)


if __name__ == "__main__":
    sys.exit(main())
