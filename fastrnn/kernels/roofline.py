"""The machine's limits on one core, measured, and the least time that a piece of work takes within them.

    t >= max(flops / FMA rate, sum of weight bytes / bandwidth of the level they fit in)

A batch-1 step reads every weight once; a layer over T steps reads its recurrent weights T times. Activations, biases and rows are not
counted, so no program is faster than the bound, and small ones stay far from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fastrnn.kernels import isa, registry
from fastrnn.kernels.contract import ARGS
from fastrnn.kernels.native import _invoke

CHAINS = 12  # PROBE_CHAINS of native/probe.h
GRAIN = 512  # floats; a multiple of what probe_load takes at once
BLOCK_SECONDS, SECONDS, BLOCKS = 2e-3, 0.2, 5  # of a block; of all blocks of a probe, and how many there are at least
MOST_OF_LAST = 16 << 20  # bytes; weights of a layer. Of 260 MB that others use too, 4 to 16 MB came at 28 GB/s, 65 MB at 10, as from DRAM
DRAM = "DRAM"
CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}  # bytes, where the system does not say


@dataclass(frozen=True)
class Work:
    """What a call has to do. flops: of its matrices. weight_bytes: of its weights, each read at least once. loops: (bytes, times) of
    weights that are read again and again, by later time steps."""

    flops: float
    weight_bytes: int
    loops: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.weight_bytes + other.weight_bytes, self.loops + other.loops)


@dataclass(frozen=True)
class Level:
    """A level of memory as one core reads it: capacity in bytes (None: no end), GB/s."""

    name: str
    capacity: int | None
    gbytes: float


@dataclass(frozen=True)
class Roofline:
    """float32 multiply-adds in GFLOP/s (an FMA counts twice), and the levels from the core outwards."""

    isa: str
    gflops: float
    levels: tuple[Level, ...]

    def gbytes(self, size: int) -> float:
        """GB/s of reading a working set of `size` bytes again and again."""
        return next(level.gbytes for level in self.levels if level.capacity is None or size <= level.capacity)

    def microseconds(self, work: Work) -> float | None:
        """The least time one core takes, None for work without matrices."""
        if not work.flops:
            return None
        read = work.weight_bytes / self.gbytes(work.weight_bytes) + sum(times * size / self.gbytes(size) for size, times in work.loops)
        return max(work.flops / self.gflops, read) / 1e3

    def facts(self) -> dict[str, object]:
        """As plain data: {"isa", "fma_gflops", "read_gbytes": {level: GB/s}, "capacity_bytes": {level: bytes}}."""
        return {
            "isa": self.isa,
            "fma_gflops": round(self.gflops, 1),
            "read_gbytes": {level.name: round(level.gbytes, 1) for level in self.levels},
            "capacity_bytes": {level.name: level.capacity for level in self.levels if level.capacity},
        }


def recurrent_work(gates: int, I: int, H: int, rows: int, steps: int, P: int | None = None) -> Work:
    """One direction of one layer: rows, of all steps together (T * B, or the sum of lengths). P: size of h where it is projected."""
    P = H if P is None else P
    return matrices_work(gates * H * I, gates * H * P + (H * P if P != H else 0), rows, steps)


def matrices_work(over_x: int, over_h: int, rows: int, steps: int, itemsize: int = 4) -> Work:
    """The same from the number of weights that multiply x, and h; itemsize: bytes of one."""
    multiplies, again = rows * (over_x + over_h), ((itemsize * over_h, steps - 1),) if steps > 1 else ()
    return Work(2.0 * multiplies, itemsize * (over_x + over_h) if rows else 0, again)


@cache
def cache_bytes() -> dict[str, int]:
    """Capacity of each data cache as this core sees it, by name."""
    sizes = {}
    for entry in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((entry / name).read_text().strip() for name in ("level", "type", "size"))
            if kind in ("Data", "Unified"):
                sizes[f"L{level}"] = int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return dict(sorted(sizes.items())) if "L1" in sizes else CACHES


def _fastest(run: Callable[[int], None]) -> float:
    """Seconds of one round of run(rounds), at best: the machine's limit is what nothing disturbed.

    Blocks double for as long as one of them is over too soon for the clock, whenever that shows: one that was interrupted only seems long enough.
    """
    rounds, times = 1, []
    stop = time.perf_counter() + SECONDS
    while time.perf_counter() < stop or len(times) < BLOCKS:
        started = time.perf_counter()
        run(rounds)
        times.append(time.perf_counter() - started)
        if times[-1] < BLOCK_SECONDS / 2:
            rounds, times = 2 * rounds, []
    return min(times) / rounds


def _probe(name: str, isa_name: str, x: np.ndarray | None = None) -> Callable[[int], None]:
    """A probe as run(rounds); x: the floats that it reads, on a cache line."""
    kernel, args, y = registry.find(name, "native", isa_name), np.zeros(1, ARGS), np.empty(64, np.float32)
    args["y"], args["scale"] = y.ctypes.data, 0.5
    if x is not None:
        args["x"], args["I"] = x.ctypes.data, len(x)

    def run(rounds: int, held=(x, y)) -> None:
        args["T"] = rounds
        _invoke.run(kernel.run, args)

    return run


def _read_gbytes(size: int, isa_name: str) -> float:
    """GB/s of reading about `size` bytes in a loop."""
    n = max(GRAIN, size // 4 // GRAIN * GRAIN)
    raw = np.ones(n + 16, np.float32)  # ones: pages of zeros may be one page
    start = -raw.ctypes.data % 64 // 4
    return 4 * n / _fastest(_probe("probe_load", isa_name, raw[start : start + n])) / 1e9


@cache
def measure(isa_name: str | None = None) -> Roofline:
    """Measures the chosen (or given) instruction set; about a second, once in a process.

    Half of each cache is read; of the last one, which cores share, and in a virtual machine strangers, a quarter and at most MOST_OF_LAST; and for DRAM four times the last one.
    """
    isa_name, caches = isa_name or isa.chosen(), cache_bytes()
    lanes = registry.find("probe_fma", "native", isa_name).lanes
    gflops = 2 * CHAINS * lanes / _fastest(_probe("probe_fma", isa_name)) / 1e9
    last = max(caches.values())
    levels = [Level(name, size, _read_gbytes(min(size // 4, MOST_OF_LAST) if size == last else size // 2, isa_name)) for name, size in caches.items()]
    return Roofline(isa_name, gflops, (*levels, Level(DRAM, None, _read_gbytes(min(4 * last, 512 << 20), isa_name))))
