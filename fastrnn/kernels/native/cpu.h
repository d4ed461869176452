/* What this CPU and operating system run. Asked of the processor itself: compilers differ in what their own checks know, and in whether a shared library's is ever filled in. */
#ifndef FASTRNN_CPU_H
#define FASTRNN_CPU_H
#include <string.h>
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)

enum { FR_EAX, FR_EBX, FR_ECX, FR_EDX };
#ifdef _MSC_VER
#include <immintrin.h>
#include <intrin.h>
static void fr_cpuid(int leaf, int subleaf, unsigned *registers) { __cpuidex((int *)registers, leaf, subleaf); }
static unsigned fr_kept(void) { return (unsigned)_xgetbv(0); }
#else
#include <cpuid.h>
static void fr_cpuid(int leaf, int subleaf, unsigned *r) { __cpuid_count(leaf, subleaf, r[FR_EAX], r[FR_EBX], r[FR_ECX], r[FR_EDX]); }
static unsigned fr_kept(void) {
    unsigned low, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0)); /* xgetbv, which needs a flag of the compiler's by name */
    return low;
}
#endif

/* Features by their compiler flags: the CPUID leaf, subleaf, register and bit, and the state (XCR0) that the operating system has to keep for them. */
#define FR_YMM 0x06u
#define FR_ZMM 0xe6u
static const struct {
    const char *name;
    int leaf, subleaf, at, bit;
    unsigned state;
} FR_FEATURES[] = {
    {"fma", 1, 0, FR_ECX, 12, FR_YMM},      {"avx2", 7, 0, FR_EBX, 5, FR_YMM},        {"avxvnni", 7, 1, FR_EAX, 4, FR_YMM},
    {"avx512f", 7, 0, FR_EBX, 16, FR_ZMM},  {"avx512dq", 7, 0, FR_EBX, 17, FR_ZMM},   {"avx512bw", 7, 0, FR_EBX, 30, FR_ZMM},
    {"avx512vl", 7, 0, FR_EBX, 31, FR_ZMM}, {"avx512vnni", 7, 0, FR_ECX, 11, FR_ZMM},
};

static int fr_supports(const char *name) {
    unsigned r[4];
    fr_cpuid(0, 0, r);
    const unsigned leaves = r[FR_EAX];
    fr_cpuid(1, 0, r);
    if (!(r[FR_ECX] >> 27 & 1)) return 0; /* OSXSAVE: whether there is an XCR0 to read */
    const unsigned kept = fr_kept();
    for (size_t k = 0; k < sizeof FR_FEATURES / sizeof *FR_FEATURES; k++) {
        if (strcmp(FR_FEATURES[k].name, name)) continue;
        const unsigned state = FR_FEATURES[k].state;
        if ((unsigned)FR_FEATURES[k].leaf > leaves || (kept & state) != state) return 0;
        fr_cpuid(FR_FEATURES[k].leaf, 0, r);
        if (FR_FEATURES[k].subleaf) {
            if ((unsigned)FR_FEATURES[k].subleaf > r[FR_EAX]) return 0; /* subleaf 0 has the last one */
            fr_cpuid(FR_FEATURES[k].leaf, FR_FEATURES[k].subleaf, r);
        }
        return r[FR_FEATURES[k].at] >> FR_FEATURES[k].bit & 1;
    }
    return 0;
}

static int fr_has_avx512(void) {
    return fr_supports("avx512f") && fr_supports("avx512dq") && fr_supports("avx512vl") && fr_supports("avx512bw") && fr_supports("fma");
}
static int fr_has_avx2(void) { return fr_supports("avx2") && fr_supports("fma"); }
static int fr_has_vnni(void) { return fr_supports("avx512vnni"); }
static int fr_has_avx_vnni(void) { return fr_supports("avxvnni") && fr_has_avx2(); }
static int fr_has_neon(void) { return 0; }
#else
static int fr_has_avx512(void) { return 0; }
static int fr_has_avx2(void) { return 0; }
static int fr_has_vnni(void) { return 0; }
static int fr_has_avx_vnni(void) { return 0; }
#if defined(__aarch64__) || defined(_M_ARM64)
static int fr_has_neon(void) { return 1; } /* every one has it */
#else
static int fr_has_neon(void) { return 0; }
#endif
#endif
#endif
