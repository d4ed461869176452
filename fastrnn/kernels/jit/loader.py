"""Object code to addresses, through LLVM alone: a process that finds its kernels in the cache imports no Numba."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm

_engine: llvm.ExecutionEngine | None = None


def load(code: bytes, names: list[str]) -> list[int]:
    """The addresses of these functions of an object file, which stays in memory for as long as the process does. One caller at a time."""
    global _engine
    if _engine is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        libc = ctypes.CDLL(None)
        for name in ("memcpy", "memset", "memmove"):  # LLVM calls these on its own account
            llvm.add_symbol(name, ctypes.cast(getattr(libc, name), ctypes.c_void_p).value)
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        _engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    _engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    _engine.finalize_object()
    return [_engine.get_function_address(name) for name in names]

