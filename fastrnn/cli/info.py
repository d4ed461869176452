"""The machine, as fastrnn sees and measures it."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.cli.console import Console
from fastrnn.kernels import isa, registry
from fastrnn.kernels.native import _invoke
from fastrnn.plan.emit import new_args
from fastrnn.plan.packing import aligned_zeros, pack_dense

PACKAGES = ("numpy", "safetensors", "onnx", "onnxruntime", "torch", "numba", "rich")
ROWS, SIZE, SECONDS = 64, 256, 0.3  # a dense layer whose weights (256 KB) and rows stay in L2


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def best_seconds(function) -> float:
    """The fastest of many calls, over SECONDS."""
    best, stop = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < stop:
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def dense_gflops(isa_name: str) -> float:
    """GFLOP/s of the matrix driver on one core, out of cache."""
    kernel = registry.find("dense", "native", isa_name)
    x, y = aligned_zeros((ROWS, SIZE)), aligned_zeros((ROWS, SIZE))
    packed = pack_dense(np.ones((SIZE, SIZE), np.float32), np.zeros(SIZE, np.float32), kernel.lanes)
    args = new_args(T=1, B=ROWS, I=SIZE, H=SIZE, x_b=SIZE, y_b=SIZE)
    arrays = {"x": x, "y": y, **packed}
    for name, array in arrays.items():
        args[name] = array.ctypes.data
    work = aligned_zeros((_invoke.work_bytes(kernel.work_bytes, args.reshape(1)),), np.uint8)
    args["work"] = work.ctypes.data
    record = args.reshape(1)
    return 2.0 * ROWS * SIZE * SIZE / best_seconds(lambda: _invoke.run(kernel.run, record)) / 1e9


def read_gbytes() -> float:
    """GB/s of reading memory far larger than the caches, one core."""
    a = np.ones(1 << 25, np.float32)
    return a.nbytes / best_seconds(a.max) / 1e9


def info(arguments, console: Console) -> int:
    """CPU, instruction sets, backends, versions, roofline."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    chosen = isa.chosen()
    with console.progress("measuring the roofline"):
        gflops, gbytes = dense_gflops(chosen), read_gbytes()
    backends = [b for b in ("native", "jit") if registry.kernels(b, chosen)] + ["reference"]
    if not console.as_json:
        versions = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        backends, supported = ", ".join(backends), ", ".join(isa.supported())
    else:
        supported = list(isa.supported())
    console.facts(fastrnn=fastrnn.__version__, python=platform.python_version(), cpu=cpu_name(), isa=chosen, isas_supported=supported, backends=backends,
                  packages=versions, dense_gflops_one_core=round(gflops, 1), read_gbytes_per_second_one_core=round(gbytes, 1))
    return 0
