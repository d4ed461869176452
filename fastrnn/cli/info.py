"""The machine, as fastrnn sees and measures it."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import fastrnn
from fastrnn.cli.console import Console
from fastrnn.kernels import isa, roofline
from fastrnn.kernels.jit import cache, compiler

PACKAGES = ("numpy", "safetensors", "onnx", "onnxruntime", "openvino", "torch", "numba", "rich", "matplotlib")


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
        limits = roofline.measure()
    backends = ["native", *(["jit"] if compiler.obstacle(chosen) is None else []), "reference"]
    if not console.as_json:
        versions = {name: version for name, version in versions.items() if version}
        backends, supported = ", ".join(backends), ", ".join(isa.supported())
    else:
        supported = list(isa.supported())
    console.facts(
        fastrnn=fastrnn.__version__,
        python=platform.python_version(),
        cpu=cpu_name(),
        isa=chosen,
        isas_supported=supported,
        backends=backends,
        compiled_cells=str(cache.folder()),
        packages=versions,
        roofline_one_core=limits.facts(),
    )
    return 0
