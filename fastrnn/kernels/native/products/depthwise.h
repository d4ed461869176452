/* Depthwise convolutions: each channel on its own.
 *
 * Rows of one line lie a fixed step apart, and so do the taps of one line of the kernel. Where both steps are one (a stride and a dilation of one), a tap of one
 * row reads what the tap before it read of the next row: a tile of neighbours loads each input once for all taps of a line. Every row's chain still takes its taps
 * in their order. (Emerald Rapids, AVX-512, the layers of a text line reader,
 * 3 x 3 and 5 x 5: 78 GFLOP/s, 59 with a load for each tap.) */
#ifndef FASTRNN_DEPTHWISE_H
#define FASTRNN_DEPTHWISE_H
#include "dense.h"

#define DEPTHWISE_ROWS (LANES == 16 ? 12 : 8) /* and the taps of a line, at most 5, and an input fill the registers */
#define DEPTHWISE_FEW 4

/* R rows, `step` apart, of a block of channels: `valid` of its lanes, all where `whole`. M taps of each line, which are `step` apart too; 1 where they are not. */
FR_INLINE void depthwise_tile(const fr_args *a, const int R, const int M, const int whole, const float *x, int64_t step, float *const *y,
                              int64_t block) {
    const int64_t unit = block * LANES;
    const int valid = whole ? LANES : fr_valid(a->H, block);
    const float *w = (const float *)a->w_x + unit * a->I;
    vf acc[DEPTHWISE_ROWS];
    UNROLL for (int r = 0; r < R; r++) acc[r] = a->bias ? vf_load(a->bias + unit) : vf_zero();
    for (int64_t k = 0; k < a->I; k += M, w += M * LANES) {
        const float *from = x + a->axes[k] + unit;
        vf weight[5];
        UNROLL for (int m = 0; m < M; m++) weight[m] = vf_load(w + m * LANES);
        UNROLL for (int at = 0; at < R + M - 1; at++, from += step) {
            const vf input = whole ? vf_load(from) : vf_load_n(from, valid);
            UNROLL for (int m = 0; m < M; m++) if (at >= m && at - m < R) acc[at - m] = vf_fma(weight[m], input, acc[at - m]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) vf_store_tail(y[r] + unit, acc[r], valid);
}

typedef void (*depthwise_kind)(const fr_args *a, const float *x, int64_t step, float *const *y, int64_t block);
#define DEPTHWISE(name, R, M, whole) \
    static FR_OWN_FUNCTION void depthwise_##name(const fr_args *a, const float *x, int64_t step, float *const *y, int64_t block) { \
        depthwise_tile(a, R, M, whole, x, step, y, block); \
    }
DEPTHWISE(many_5, DEPTHWISE_ROWS, 5, 1)
DEPTHWISE(many_3, DEPTHWISE_ROWS, 3, 1)
DEPTHWISE(many_1, DEPTHWISE_ROWS, 1, 1)
DEPTHWISE(few_5, DEPTHWISE_FEW, 5, 1)
DEPTHWISE(few_3, DEPTHWISE_FEW, 3, 1)
DEPTHWISE(few_1, DEPTHWISE_FEW, 1, 1)
DEPTHWISE(one, 1, 1, 1)
DEPTHWISE(few_part, DEPTHWISE_FEW, 1, 0)
DEPTHWISE(one_part, 1, 1, 0)
#undef DEPTHWISE

/* 5 or 3 where all lines have so many taps as far apart as rows are, else 1. */
static int depthwise_line(const fr_args *a) {
    int64_t n = 1;
    while (n < a->I && a->axes[n] - a->axes[n - 1] == a->x_b) n++;
    if ((n != 3 && n != 5) || a->I % n) return 1;
    for (int64_t k = 0; k < a->I; k++)
        if (k % n && a->axes[k] - a->axes[k - 1] != a->x_b) return 1;
    return (int)n;
}

static void depthwise_rows(dense_rows *s, int64_t row, int64_t n_rows) {
    const fr_args *a = s->a;
    const int64_t step = a->x_b, whole = a->H / LANES, blocks = fr_blocks(a->H);
    const int line = depthwise_line(a);
    const depthwise_kind many = line == 5   ? depthwise_many_5
                                : line == 3 ? depthwise_many_3
                                            : depthwise_many_1,
                         few = line == 5   ? depthwise_few_5
                               : line == 3 ? depthwise_few_3
                                           : depthwise_few_1;
    for (int64_t first = 0, n; first < n_rows; first += n) {
        for (n = 1; n < DEPTHWISE_ROWS && first + n < n_rows && s->x[first + n] == s->x[first] + n * step; n++) {}
        if (n < DEPTHWISE_ROWS) n = n >= DEPTHWISE_FEW ? DEPTHWISE_FEW : 1;
        const depthwise_kind tile = n == DEPTHWISE_ROWS ? many : n == DEPTHWISE_FEW ? few : depthwise_one;
        for (int64_t block = 0; block < whole; block++) tile(a, s->x[first], step, s->y + first, block);
        for (int64_t r = first, rows; r < first + n && whole < blocks; r += rows) {
            rows = first + n - r >= DEPTHWISE_FEW ? DEPTHWISE_FEW : 1;
            (rows == 1 ? depthwise_one_part : depthwise_few_part)(a, s->x[r], step, s->y + r, whole);
        }
    }
    if (s->count) dense_epilogue(s, row, n_rows);
}

/* y (T, B, H) = bias + w_x[k] x over I taps k, each channel on its own: x of tap k lies axes[k] elements behind the row's address,
 * and the epilogue's table follows. The weights are laid out [unit block][k][lane], as a dense layer's. */
static void depthwise_run(const fr_args *a) {
    const float *x[MANY_ROWS];
    float *y[MANY_ROWS];
    dense_rows s = dense_of(a, x, y, a->axes + a->I);
    dense_walk(&s, depthwise_rows);
}
#endif
