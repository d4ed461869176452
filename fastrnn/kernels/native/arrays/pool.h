/* Pooling: y (T, B, H) from I windows' entries, each channel on its own. The entry k of a row's window lies axes[k] elements behind the row's
 * address, as a depthwise convolution's taps do; taken in their order, so the same bits at every width. */
#ifndef FASTRNN_POOL_H
#define FASTRNN_POOL_H
#include "operations.h"
#include "rows.h"

#define POOL_BLOCKS 4 /* vectors of channels side by side: maxima and sums wait for one another otherwise */
#define FR_POOLED 64  /* most entries of a window that follows a product (dense.h) */

/* Where a window's entries lie; whether the largest is taken, or their sum divided by `divisor`. */
typedef struct {
    const int64_t *offsets;
    int64_t size;
    int largest;
    float divisor;
} fr_windows;

FR_INLINE void pool_vectors(const fr_windows *s, const int largest, const int NB, const int whole, const float *x, float *y, int valid) {
    FR_UNIT(unit);
    (void)unit;
    vf acc[POOL_BLOCKS];
    UNROLL for (int b = 0; b < NB; b++) acc[b] = vf_zero();
    for (int64_t k = 0; k < s->size; k++) {
        const float *from = x + s->offsets[k];
        UNROLL for (int b = 0; b < NB; b++) {
            vf v = whole ? vf_load(from + b * LANES) : vf_load_n(from, valid);
            v = largest ? FLUSH(v) : v;
            acc[b] = !k ? v : largest ? vf_either(acc[b], v, vf_max(acc[b], v)) : vf_add(acc[b], v);
        }
    }
    const vf divisor = vf_set1(s->divisor);
    UNROLL for (int b = 0; b < NB; b++) {
        const vf v = largest ? acc[b] : vf_div(acc[b], divisor);
        if (whole) vf_store(y + b * LANES, v);
        else vf_store_n(y, v, valid);
    }
}

FR_INLINE void pool_row(const fr_windows *s, const int largest, int64_t n, const float *x, float *y) {
    int64_t c = 0;
    for (; c + POOL_BLOCKS * LANES <= n; c += POOL_BLOCKS * LANES) pool_vectors(s, largest, POOL_BLOCKS, 1, x + c, y + c, LANES);
    for (; c + LANES <= n; c += LANES) pool_vectors(s, largest, 1, 1, x + c, y + c, LANES);
    if (c < n) pool_vectors(s, largest, 1, 0, x + c, y + c, (int)(n - c));
}
/* One window's n channels. */
static FR_OWN_FUNCTION void pool_channels(const fr_windows *s, int64_t n, const float *x, float *y) {
    if (s->largest) pool_row(s, 1, n, x, y);
    else pool_row(s, 0, n, x, y);
}

static void pool_rows(const fr_args *a, int largest) {
    const fr_windows s = {a->axes, a->I, largest, a->scale};
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t b = 0; b < a->B; b++) pool_channels(&s, a->H, fr_x_row(a, b, t), fr_y_row(a, b, t));
}
static void pool_max_float32_run(const fr_args *a) { pool_rows(a, 1); }
/* Bytes: so many channels at once that a compiler has them in a register or two. */
#define POOL_BYTES 32
#define POOL_MAX(name, type) \
    FR_INLINE void pool_max_##name##_block(const fr_args *a, const type *x, type *y, const int n) { \
        type most[POOL_BYTES]; \
        memcpy(most, x + a->axes[0], (size_t)n); \
        for (int64_t k = 1; k < a->I; k++) { \
            const type *from = x + a->axes[k]; \
            for (int c = 0; c < n; c++) most[c] = from[c] > most[c] ? from[c] : most[c]; \
        } \
        memcpy(y, most, (size_t)n); \
    } \
    static void pool_max_##name##_run(const fr_args *a) { \
        for (int64_t t = 0; t < a->T; t++) \
            for (int64_t b = 0; b < a->B; b++) { \
                const type *x = (const type *)a->x + t * a->x_t + b * a->x_b; \
                type *y = (type *)a->y + t * a->y_t + b * a->y_b; \
                int64_t c = 0; \
                for (; c + POOL_BYTES <= a->H; c += POOL_BYTES) pool_max_##name##_block(a, x + c, y + c, POOL_BYTES); \
                for (; c < a->H; c++) pool_max_##name##_block(a, x + c, y + c, 1); \
            } \
    }
POOL_MAX(uint8, uint8_t)
POOL_MAX(int8, int8_t)
/* the sum, divided by scale */
static void pool_mean_run(const fr_args *a) { pool_rows(a, 0); }
#endif
