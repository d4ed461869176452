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
    static int fr_has_vnni(void) { return __builtin_cpu_supports("avx512vnni"); }
    /* AVX-VNNI, which not every compiler's check knows: CPUID leaf 7, subleaf 1, bit 4 of EAX. */
    #include <cpuid.h>
    static int fr_has_avx_vnni(void) {
        unsigned a, b, c, d;
        return fr_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
    }
    #else
    static int fr_has_vnni(void) { return 0; }
    static int fr_has_avx_vnni(void) { return 0; }
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
