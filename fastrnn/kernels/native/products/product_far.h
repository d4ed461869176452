/* Rows times weights from beyond L2, which a tile of few rows waits for: the first tile that meets them has as many rows as registers hold, the others find them in L2.
 *
 * Each vector of the panel lies by itself, [unit block][gate][k][lane], for what the processor fetches ahead ends with a page, and a page then lasts for 64 k or more. Of the peak,
 * a step's product in such tiles, with four gates together and apart, H = 512 (Emerald Rapids): AVX-512, 8 rows 50, 61, 14 rows 69, 88; AVX2, 4 rows 58, 62, 6 rows 69, 82. */
#ifndef FASTRNN_PRODUCT_FAR_H
#define FASTRNN_PRODUCT_FAR_H
#include "product.h"

/* A tile. Its vectors lie as those of one gate do; where their chains start, their gates say. */
FR_INLINE void fr_product_far(const fr_product *p, const int V, const int R, int64_t v, int64_t row) {
    vf acc[V_MOST * ROWS_MOST];
    int64_t block[V_MOST], gate[V_MOST], vector[V_MOST], first[V_MOST];
    UNROLL for (int i = 0; i < V; i++) vector[i] = v + i, first[i] = 0;
    fr_product_places(p, V, v, block, gate);
    fr_product_start(p, V, R, block, gate, row, acc);
    fr_product_sums(p, V, R, 1, vector, first, row, acc);
    fr_product_end(p, V, R, v, row, acc);
}
#define FR_FAR_TILE(V, R) FR_PRODUCT_TILE(fr_product_far, V, R)
#define FR_FAR_NAME(V, R) fr_product_far_##V##_##R,
#ifdef ROWS_FAR
#define FR_EACH_FAR(X) \
    FR_EACH_PRODUCT(X) \
    ROWS_FAR(X, 7) ROWS_FAR(X, 8) ROWS_FAR(X, 9) ROWS_FAR(X, 10) ROWS_FAR(X, 11) ROWS_FAR(X, 12) ROWS_FAR(X, 13) ROWS_FAR(X, 14)
/* clang-format off */
#define FR_EACH_FAR_NAME(X) \
    FR_EACH_PRODUCT_NAME(X), \
    {ROWS_FAR(X, 7)}, {ROWS_FAR(X, 8)}, {ROWS_FAR(X, 9)}, {ROWS_FAR(X, 10)}, {ROWS_FAR(X, 11)}, {ROWS_FAR(X, 12)}, {ROWS_FAR(X, 13)}, {ROWS_FAR(X, 14)}
/* clang-format on */
static const int8_t fr_widest_far[] = {0, 8, 8, 8, 6, 5, 4, 2, 2, 2, 2, 2, 2, 2, 2};
#elif defined(FAR_SINGLY)
#define FR_EACH_FAR(X) X(1, 1) X(1, 2) X(1, 3) X(1, 4) X(1, 5) X(1, 6)
#define FR_EACH_FAR_NAME(X) \
    {0}, {X(1, 1)}, {X(1, 2)}, {X(1, 3)}, {X(1, 4)}, {X(1, 5)}, { X(1, 6) }
static const int8_t fr_widest_far[] = {0, 1, 1, 1, 1, 1, 1};
#else
#define FR_EACH_FAR FR_EACH_PRODUCT
#define FR_EACH_FAR_NAME FR_EACH_PRODUCT_NAME
#define fr_widest_far fr_product_widest
#endif
FR_EACH_FAR(FR_FAR_TILE)
static const fr_product_run fr_tiles_far[][V_MOST] = {FR_EACH_FAR_NAME(FR_FAR_NAME)};
static const fr_product_set fr_set_far_first = {fr_tiles_far, fr_widest_far, FAR_HEIGHT, FAR_HEIGHT, 1};
static const fr_product_set fr_set_far = {fr_tiles_far, fr_widest_far, ROWS_MOST, HEIGHT, 1};

/* Rows of the first tile, of more than it can have: half of them where one would be left alone, in rows so short that they stay in L1 (AVX2, 7 rows, five runs of a process each,
 * of the time: H = 256 and 384 LSTM 0.95, 0.96, GRU 384 0.96, 512 even; AVX-512, 15 rows, H = 1024, 1.05). */
#define FAR_HALVED 512
FR_INLINE int64_t fr_far_first(int64_t n_rows, int64_t K) { return n_rows == FAR_HEIGHT + 1 && K <= FAR_HALVED ? (n_rows + 1) / 2 : FAR_HEIGHT; }

/* Vectors v to `end` of n_rows rows from `row` on, as many at once as stay in L2 from the first tiles to the last. */
#define FAR_GROUP_BYTES (1 << 20)
static void fr_multiply_far(const fr_product *p, int64_t v, int64_t end, int64_t row, int64_t n_rows) {
    if (n_rows <= FAR_HEIGHT) {
        fr_multiply_by(&fr_set_far_first, p, v, end, row, n_rows);
        return;
    }
    const fr_operand *o = &p->operand[p->n_operands - 1];
    const int64_t depth = o->K * (o->segments ? o->segments : 1), first = fr_far_first(n_rows, depth), bytes = depth * (int64_t)sizeof(vf);
    const int64_t group = MANY_VECTORS * bytes <= FAR_GROUP_BYTES ? MANY_VECTORS : LANES == 16 ? 4 : 6; /* which whole tiles of even widths divide */
    for (int64_t stop; v < end; v = stop) {
        stop = v + group < end ? v + group : end;
        fr_multiply_by(&fr_set_far_first, p, v, stop, row, first);
        fr_multiply_by(&fr_set_far, p, v, stop, row + first, n_rows - first);
    }
}
#endif
