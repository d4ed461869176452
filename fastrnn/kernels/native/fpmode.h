/* Denormals flushed around kernels, the caller's mode restored. */
#ifndef FASTRNN_FPMODE_H
#define FASTRNN_FPMODE_H
#include <stdint.h>
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
static inline uint64_t fr_flush_denormals(void) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040u); /* FTZ and DAZ */
    return before;
}
static inline void fr_restore_denormals(uint64_t before) { _mm_setcsr((unsigned)before); }
#elif defined(__aarch64__)
static inline uint64_t fr_flush_denormals(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (1ull << 24))); /* FZ */
    return before;
}
static inline void fr_restore_denormals(uint64_t before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#else
static inline uint64_t fr_flush_denormals(void) { return 0; }
static inline void fr_restore_denormals(uint64_t before) { (void)before; }
#endif
#endif
