/* What one core can do at most: multiply-adds in registers, and loads of a block of memory. roofline.py times them. */
#include "args.h"
#include "simd.h"

/* T rounds of one FMA in each of PROBE_CHAINS chains (roofline.py counts them): enough for two units of latency 4, few enough for
 * sixteen registers. The factor is `scale`, so that no chain is known beforehand; a sum goes to y (LANES,). */
#define PROBE_CHAINS 12
static void probe_fma_run(const fr_args *a) {
    const vf factor = vf_set1(a->scale), one = vf_set1(1.0f);
    vf chain[PROBE_CHAINS];
    UNROLL for (int k = 0; k < PROBE_CHAINS; k++) chain[k] = vf_set1((float)k);
    for (int64_t t = 0; t < a->T; t++) { UNROLL for (int k = 0; k < PROBE_CHAINS; k++) chain[k] = vf_fma(chain[k], factor, one); }
    for (int k = 1; k < PROBE_CHAINS; k++) chain[0] = vf_add(chain[0], chain[k]);
    vf_store(a->y, chain[0]);
}

/* T readings of x (I,), I a multiple of PROBE_LOADS vectors, from front to back; their sum goes to y (LANES,). */
#define PROBE_LOADS 8
static void probe_load_run(const fr_args *a) {
    vf sum[PROBE_LOADS];
    UNROLL for (int k = 0; k < PROBE_LOADS; k++) sum[k] = vf_zero();
    for (int64_t t = 0; t < a->T; t++) {
        for (const float *p = a->x, *end = p + a->I; p < end; p += PROBE_LOADS * LANES) {
            UNROLL for (int k = 0; k < PROBE_LOADS; k++) sum[k] = vf_add(sum[k], vf_load(p + k * LANES));
        }
    }
    for (int k = 1; k < PROBE_LOADS; k++) sum[0] = vf_add(sum[0], sum[k]);
    vf_store(a->y, sum[0]);
}
