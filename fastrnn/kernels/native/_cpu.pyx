# cython: language_level=3
"""What this CPU and operating system run. The compiler's check covers both: it reads CPUID and the XCR0 state mask."""

cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    static int fr_has_avx512(void) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma");
    }
    static int fr_has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
    static int fr_has_neon(void) { return 0; }
    #else
    static int fr_has_avx512(void) { return 0; }
    static int fr_has_avx2(void) { return 0; }
    #ifdef __aarch64__
    static int fr_has_neon(void) { return 1; }
    #else
    static int fr_has_neon(void) { return 0; }
    #endif
    #endif
    """
    bint fr_has_avx512()
    bint fr_has_avx2()
    bint fr_has_neon()


def supports(str isa) -> bool:
    """Whether an ISA's instructions may be used in this process."""
    if isa == "avx512":
        return fr_has_avx512()
    if isa == "avx2":
        return fr_has_avx2()
    if isa == "neon":
        return fr_has_neon()
    return isa == "baseline"
