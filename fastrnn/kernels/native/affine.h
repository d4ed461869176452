/* The matrix driver shared by every cell: one chain of fused multiply-adds per output, k ascending.
 *
 * A panel stores weights as [unit block][k][gate][lane], LANES units a block, so a tile streams it front to back
 * once. A tile holds NB blocks x GA accumulators x R batch rows in registers, acc[(b * GA + slot) * R + r]; all
 * five counts are compile-time constants after inlining. Tiles differ only in how many chains run side by side, never in
 * the order within a chain, so the tile chosen changes no bit. */
#ifndef FASTRNN_AFFINE_H
#define FASTRNN_AFFINE_H
#include "activations.h"

/* Which accumulator gate g of a panel adds to: nibble g of `slots`. */
#define SLOT(slots, g) (((slots) >> (4 * (g))) & 15)

FR_INLINE int64_t fr_blocks(int64_t units) { return (units + LANES - 1) / LANES; }
FR_INLINE int fr_valid(int64_t units, int64_t block) {
    int64_t left = units - block * LANES;
    return left < LANES ? (int)left : LANES;
}

/* acc += W x over k in [0, K), for G gates of NB blocks and R rows. */
FR_INLINE void fr_chain(vf *acc, const int NB, const int GA, const int R, const int G, const unsigned slots,
                        const float *panel, int64_t block, int64_t K, const float *const *rows) {
    const int64_t stride = K * G * LANES;
    const float *w = panel + block * stride;
    const float *row[TILE_ROWS];
    UNROLL for (int r = 0; r < R; r++) row[r] = rows[r];
    for (int64_t k = 0; k < K; k++, w += G * LANES) {
        vf x[TILE_ROWS];
        UNROLL for (int r = 0; r < R; r++) x[r] = vf_set1(row[r][k]);
        UNROLL for (int b = 0; b < NB; b++)
            UNROLL for (int g = 0; g < G; g++) {
                vf weight = vf_load(w + b * stride + g * LANES);
                UNROLL for (int r = 0; r < R; r++) {
                    vf *a = &acc[(b * GA + SLOT(slots, g)) * R + r];
                    *a = vf_fma(weight, x[r], *a);
                }
            }
    }
}

/* Loads start values laid out [unit block][G][lane] into the accumulators that `slots` names. */
FR_INLINE void fr_start(vf *acc, const int NB, const int GA, const int R, const int G, const unsigned slots,
                        const float *start, int64_t block, const int r) {
    UNROLL for (int b = 0; b < NB; b++)
        UNROLL for (int g = 0; g < G; g++)
            acc[(b * GA + SLOT(slots, g)) * R + r] = vf_load(start + ((block + b) * G + g) * LANES);
}

/* out[r] (units,) = act(bias + W rows[r]) for one gate: projections and dense layers. */
FR_INLINE void fr_dense_tile(const int NB, const int R, const float *panel, const float *bias, int64_t block,
                             int64_t K, int64_t units, const float *const *rows, float *const *out,
                             const fr_activation *act) {
    vf acc[NB * R];
    UNROLL for (int b = 0; b < NB; b++) {
        vf start = bias ? vf_load(bias + (block + b) * LANES) : vf_zero();
        UNROLL for (int r = 0; r < R; r++) acc[b * R + r] = start;
    }
    fr_chain(acc, NB, 1, R, 1, 0x0, panel, block, K, rows);
    UNROLL for (int b = 0; b < NB; b++)
        UNROLL for (int r = 0; r < R; r++) {
            vf y = act ? vf_activate(act, acc[b * R + r]) : acc[b * R + r];
            vf_store_tail(out[r] + (block + b) * LANES, y, fr_valid(units, block + b));
        }
}

/* Tiles of one kind by the counts they are compiled for: W1 blocks for one row, W2 for two, W for more; few rows leave
 * registers, and the latency of the FMA, to fill. Each is a function of its own: inlined into one, the compiler keeps the
 * pointwise constants in registers and spills accumulators (66 against 109 GFLOP/s at four rows). */
typedef void (*fr_tile)(const void *context, int64_t block, int64_t row);
typedef struct {
    int w1, w2, w;
    fr_tile one, two, rows, rest2, rest1, last2, last1;
} fr_tiles;

#define FR_TILE(tile, suffix, NB, R) \
    static FR_OWN_FUNCTION void tile##_##suffix(const void *context, int64_t block, int64_t row) { tile(context, NB, R, block, row); }
#define FR_TILES_(tile, W1, W2, W)                                                                       \
    FR_TILE(tile, one, W1, 1)                                                                            \
    FR_TILE(tile, two, W2, 2)                                                                            \
    FR_TILE(tile, rows, W, TILE_ROWS)                                                                    \
    FR_TILE(tile, rest2, W, 2)                                                                           \
    FR_TILE(tile, rest1, W, 1)                                                                           \
    FR_TILE(tile, last2, 1, 2)                                                                           \
    FR_TILE(tile, last1, 1, 1)                                                                           \
    static const fr_tiles tile##_set = {W1, W2, W, tile##_one, tile##_two, tile##_rows, tile##_rest2, tile##_rest1, tile##_last2, tile##_last1};
/* Compiles `tile(context, NB, R, block, row)`, an inline function, for every count that fr_cover uses, as tile_set. */
#define FR_TILES(tile, W1, W2, W) FR_TILES_(tile, W1, W2, W)

/* Covers n_blocks x n_rows with tiles: blocks outermost, so that a panel block stays in cache for all rows. */
static void fr_cover(int64_t n_blocks, int64_t n_rows, const fr_tiles *tiles, const void *context) {
    const int wide = n_rows == 1 ? tiles->w1 : n_rows == 2 ? tiles->w2 : tiles->w;
    int64_t block = 0;
    for (; n_blocks - block >= wide; block += wide) {
        int64_t row = 0;
        if (n_rows == 1) tiles->one(context, block, 0);
        else if (n_rows == 2) tiles->two(context, block, 0);
        else {
            for (; n_rows - row >= TILE_ROWS; row += TILE_ROWS) tiles->rows(context, block, row);
            if (n_rows - row >= 2) { tiles->rest2(context, block, row); row += 2; }
            if (n_rows - row) tiles->rest1(context, block, row);
        }
    }
    for (; block < n_blocks; block++) {
        int64_t row = 0;
        for (; n_rows - row >= 2; row += 2) tiles->last2(context, block, row);
        if (n_rows - row) tiles->last1(context, block, row);
    }
}
#endif
