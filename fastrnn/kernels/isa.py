"""Instruction sets: which are built (isas.py has the table), which this CPU and operating system run, which one is chosen.

FASTRNN_ISA pins the choice; one that cannot run raises UnsupportedModelError. FASTRNN_DOT=0 does without dot products of bytes (VNNI, AVX-VNNI), to measure what a processor
that has none would do.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType

from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels import isas
from fastrnn.kernels.native import _cpu

ISAS = tuple(isas.ISAS)  # widest first: the first supported one is chosen


@cache
def _runs(name: str) -> bool:
    """Whether it can run here. Asked once: a virtual machine's CPUID goes through its host, and all of its questions take 0.2 ms there."""
    return _cpu.supports(name)


def load(name: str) -> ModuleType:
    """The extension module with an ISA's kernel table. Raises where the ISA is unknown, not built, or cannot run here."""
    if name not in ISAS:
        raise UnsupportedModelError(f"FASTRNN_ISA: {name!r} is unknown; known are {', '.join(ISAS)}")
    if not _runs(name):
        raise UnsupportedModelError(f"FASTRNN_ISA: {name!r} cannot run on this CPU or operating system")
    return _module(name)


@cache
def _module(name: str) -> ModuleType:
    module = importlib.import_module(f"fastrnn.kernels.native._{name}")
    module.use_dot(_cpu.has_dot(name) and os.environ.get("FASTRNN_DOT") != "0")
    return module


@cache
def supported() -> tuple[str, ...]:
    """ISAs that can run here, widest first."""
    return tuple(name for name in ISAS if _runs(name))


def chosen() -> str:
    """The ISA that plans use: FASTRNN_ISA, or the widest supported."""
    pinned = os.environ.get("FASTRNN_ISA")
    if pinned:
        load(pinned)
        return pinned
    return supported()[0]
