"""A cell to a Kernel: from memory, from the cache on disk, or compiled.

Every plan asks here whether cells can be compiled, few compile any: what that needs is imported by whoever needs it.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import threading
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from fastrnn import log
from fastrnn.cells import Cell
from fastrnn.errors import FastRNNError, MissingDependencyError, UnsupportedModelError
from fastrnn.kernels import isas
from fastrnn.kernels.contract import ARGS, Kernel, Key

ISAS = {name: isa for name, isa in isas.ISAS.items() if isa.registers}
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a fork waits for what other threads compile: the child would wait for ever
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_kernels: dict[str, Kernel] = {}


def obstacle(isa: str) -> FastRNNError | None:
    """Why nothing can be compiled: LLVM, which comes with Numba, is absent, or the instruction set has no fused multiply-add. None where it can."""
    if importlib.util.find_spec("llvmlite") is None:
        return MissingDependencyError("llvmlite", "numba", "compiling a cell (backend 'jit')")
    if isa not in ISAS:
        return UnsupportedModelError(f"backend 'jit' needs vectors and fused multiply-add, which ISA {isa!r} lacks; use backend 'reference'")
    return None


def kernel_of(cell: Cell, isa: str, units: int, projected: int | None) -> Kernel:
    """The kernel of a cell for layers of H units; projected: P, or None without a projection. Safe from many threads.

    A cell that the cache does not have takes 0.4 to 0.9 s of CPU, and so does another size of its last block.
    UnsupportedModelError names what cannot be compiled.
    """
    import ctypes

    from fastrnn.kernels.jit import _driver
    from fastrnn.kernels.jit import cache as disk
    from fastrnn.kernels.jit.recipe import recipe_of

    if (error := obstacle(isa)) is not None:
        raise error
    lanes = ISAS[isa].lanes
    recipe = recipe_of(cell, lanes, ISAS[isa].registers, units, projected)
    key = _key(str(recipe), isa)
    with _lock:
        if key not in _kernels:
            begun = time.perf_counter()
            run, work_bytes, bind = _addresses(key, lambda: _compile_recipe(recipe, f"fr_{key[:32]}", _features(isa)))
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(bind)(_driver.address())
            _kernels[key] = Kernel(Key("recurrent", cell.name), "jit", isa, lanes, run, work_bytes)
            log.info(
                "cell %r ready in %.0f ms: H=%d, ISA %s, the cache is %s", cell.name, 1e3 * (time.perf_counter() - begun), units, isa, disk.folder()
            )
        return _kernels[key]


def _compile_recipe(*arguments):
    from fastrnn.kernels.jit.kernel import compile_recipe

    return compile_recipe(*arguments)


def _addresses(key: str, compile_it) -> list[int]:
    from fastrnn.kernels.jit import cache as disk

    found = disk.read(key)
    if found is None:
        with _no_collection():
            found = compile_it()
        disk.write(key, *found)
    return _loader().load(*found)


@contextmanager
def _no_collection():
    """Python's cyclic collector rests: it takes a sixth of a compilation to walk what lives as long as that does."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _loader():
    from fastrnn.kernels.jit import loader  # which imports LLVM

    return loader


def _key(text: str, isa: str) -> str:
    """Names what is compiled and all that its code depends on: this package's own sources, the contract, LLVM, the processor."""
    from hashlib import sha256

    return sha256("\n".join([text, _toolchain(), _features(isa)]).encode()).hexdigest()


@cache
def _toolchain() -> str:
    from hashlib import sha256
    from importlib.metadata import version

    import llvmlite.binding as llvm

    from fastrnn.kernels.jit import _driver

    tables = _driver.WORDS, _driver.FACTS, _driver.WORDS_OF_KIND
    sources = sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
    return f"{sources} {ARGS} {tables} {version('llvmlite')} {llvm.llvm_version_info} {llvm.get_default_triple()} {llvm.get_host_cpu_name()}"


@cache
def _features(isa: str) -> str:
    """The processor's features; a narrower instruction set than it has does without those of wider ones."""
    import llvmlite.binding as llvm

    has = llvm.get_host_cpu_features()
    return ",".join(f"{'+' if on and not name.startswith(ISAS[isa].beyond) else '-'}{name}" for name, on in sorted(has.items()))
