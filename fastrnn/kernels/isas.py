"""THE table of instruction sets, widest first. Data alone: setup.py reads it by path, before there is anything to import.

ARCHITECTURE.md lists what else a new one needs; tests/kernels/test_isas.py compares all of that with this table, and every kernel test runs over it.
"""

from typing import NamedTuple


class Isa(NamedTuple):
    """family: of processors that it is built for, "any" for all. macro, flags: for the C compiler. lanes: floats in a unit block of packed weights.
    registers: vectors of so many floats that tiles of the jit backend may fill; 0: it compiles nothing for it, for want of a fused multiply-add.
    beyond: what LLVM's names of features begin with that only wider sets of the family may use.
    """

    family: str
    macro: str
    flags: tuple[str, ...]
    lanes: int
    registers: int
    beyond: tuple[str, ...] = ()


# The baseline promises bits, not speed. On NEON a vector of eight is two registers.
ISAS = {
    "avx512": Isa("x86", "FR_AVX512", ("-O3", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"), 16, 32),
    "avx2": Isa("x86", "FR_AVX2", ("-O3", "-mavx2", "-mfma"), 8, 16, ("avx512", "avx10")),
    "neon": Isa("arm", "FR_NEON", ("-O3",), 8, 16),
    "baseline": Isa("any", "FR_BASELINE", ("-O2",), 8, 0),
}
# What platform.machine() says, by family.
MACHINES = {"x86": ("x86_64", "amd64"), "arm": ("aarch64", "arm64")}
