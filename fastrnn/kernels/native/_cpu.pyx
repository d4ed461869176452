# cython: language_level=3
"""What this CPU and operating system run."""

cdef extern from "cpu.h":
    bint fr_has_avx512()
    bint fr_has_avx2()
    bint fr_has_neon()
    bint fr_has_vnni()
    bint fr_has_avx_vnni()


def supports(str isa) -> bool:
    """Whether an ISA's instructions may be used in this process."""
    if isa == "avx512":
        return fr_has_avx512()
    if isa == "avx2":
        return fr_has_avx2()
    if isa == "neon":
        return fr_has_neon()
    return isa == "baseline"


def has_dot(str isa) -> bool:
    """Whether there are dot products of bytes in an ISA's vectors: VNNI, AVX-VNNI."""
    return fr_has_vnni() if isa == "avx512" else fr_has_avx_vnni() if isa == "avx2" else False
