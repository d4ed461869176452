/* How calls of a kernel that run at once on several threads meet: a barrier between the parts of one layer, and a count of steps between a layer
 * and the one that reads its output as it is made. Waiting spins, for a step takes microseconds; the thread is given away after a while. */
#ifndef FASTRNN_SYNC_H
#define FASTRNN_SYNC_H
#include "system.h"
#include <stdatomic.h>
#include "args.h"

#define FR_SPINS 500 /* pauses: about 10 us; two threads that have to share a processor get on by giving it away */
#if defined(__x86_64__) || defined(__i386__)
#define FR_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define FR_PAUSE() __asm__ volatile("yield")
#else
#define FR_PAUSE() ((void)0)
#endif

/* Waits until `*count` is at least `value`. */
static inline void fr_wait(_Atomic int64_t *count, int64_t value) {
    for (int spins = 0; atomic_load_explicit(count, memory_order_acquire) < value;)
        if (++spins < FR_SPINS) FR_PAUSE();
        else fr_yield();
}

/* barrier[0]: parts that ever arrived, so it never has to be set back within a call. All parts' writes before are seen by all after. */
static inline void fr_meet(const fr_args *a) {
    if (a->parts <= 1) return;
    _Atomic int64_t *arrived = (_Atomic int64_t *)a->barrier;
    const int64_t before = atomic_fetch_add_explicit(arrived, 1, memory_order_acq_rel);
    fr_wait(arrived, (before / a->parts + 1) * a->parts);
}

/* Waits for the first `steps` of x; says that `steps` of y are there. */
static inline void fr_need(const fr_args *a, int64_t steps) {
    if (a->ready) fr_wait((_Atomic int64_t *)a->ready, steps);
}
static inline void fr_made(const fr_args *a, int64_t steps) {
    if (a->done) atomic_store_explicit((_Atomic int64_t *)a->done, steps, memory_order_release);
}
#endif
