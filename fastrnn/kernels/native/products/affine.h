/* The matrix driver shared by every cell: one chain of fused multiply-adds per output, k ascending.
 *
 * A panel stores weights as [unit block][k][gate][lane], LANES units a block, so a tile streams it front to back once. A tile holds
 * NB blocks x GA accumulators x R batch rows in registers, acc[(b * GA + slot) * R + r]; all five counts are compile-time
 * constants after inlining. Tiles differ only in how many chains run side by side, never in the order within a chain, so
 * the tile chosen changes no bit.
 *
 * Where a vector is half of a cache line, the last of four gates lies behind the others, [unit block]([k][3 gates][lane] [k][lane]): tiles of many rows take three
 * vectors at a time (product.h), which then fill whole lines (Emerald Rapids, the product of a step on AVX2, of the rate with four gates together: H = 256 1.03 to 1.05,
 * H = 512 1.04 to 1.11).
 *
 * In panels from beyond L2 every gate lies so, [unit block][gate][k][lane] (product_far.h), and has products alone.
 *
 * A last block of at most HALF units is narrow: a vector holds two gates, the even one below, [k][(gates + 1) / 2][lane]. Hidden sizes
 * of 8, 24 and 40 read and multiply so much less; one gate alone lies as ever. */
#ifndef FASTRNN_AFFINE_H
#define FASTRNN_AFFINE_H
#include "activations.h"

/* Which accumulator gate g of a panel adds to: nibble g of `slots`; and that of every second gate, where two share a vector. */
#define SLOT(slots, g) (((slots) >> (4 * (g))) & 15)
#define EVEN_SLOTS(slots) (((slots) & 15) | ((slots) >> 4 & 0xf0))
#define PAIRS(G) (((G) + 1) / 2)
#define HALF (LANES / 2)

/* Whether the last of G gates lies apart; how many lie together. */
#define APART(G) (LANES == 8 && (G) == 4)
#define TOGETHER(G) ((G) - APART(G))

FR_INLINE int64_t fr_blocks(int64_t units) { return (units + LANES - 1) / LANES; }
FR_INLINE int fr_valid(int64_t units, int64_t block) {
    int64_t left = units - block * LANES;
    return left < LANES ? (int)left : LANES;
}
FR_INLINE int fr_narrow(int64_t units) { return (units + LANES - 1) % LANES < HALF; }

/* acc += w x for R rows. */
FR_INLINE void fr_chain_gate(vf *acc, const int R, const float *w, const vf *x) {
    vf weight = vf_load(w);
    if (R > 1) VF_IN_REGISTER(weight);
    UNROLL for (int r = 0; r < R; r++) acc[r] = vf_fma(weight, x[r], acc[r]);
}

/* A panel's weights at some k, from a block on: of every even block and every odd one, `stride` floats further for the next such two, the gates that lie together and the
 * last one; of a narrow block behind them. Two addresses, and weights held in a register, keep GCC from loading a weight for every row (B = 2, H = 128: 5.1 us a
 * step, 5.5 without). */
typedef struct {
    const float *w, *odd, *last, *odd_last, *tail;
    int64_t stride;
} fr_weights;

FR_INLINE fr_weights fr_weights_of(const float *panel, const int NB, const int G, int64_t block, int64_t K) {
    const int64_t stride = K * G * LANES;
    const float *w = panel + block * stride, *last = w + K * TOGETHER(G) * LANES;
    return (fr_weights){w, w + stride, last, last + stride, w + NB * stride, 2 * stride};
}
FR_INLINE void fr_next_weights(fr_weights *at, const int TAIL, const int G) {
    at->w += TOGETHER(G) * LANES, at->odd += TOGETHER(G) * LANES, at->tail += TAIL * PAIRS(G) * LANES;
    if (APART(G)) at->last += LANES, at->odd_last += LANES;
}

/* acc += W x for one k and R rows: G vectors of each of NB blocks; then those of a narrow block, if TAIL. */
FR_INLINE void fr_chain_one(vf *acc, const int NB, const int TAIL, const int GA, const int R, const int G, const unsigned slots, const fr_weights *at,
                            const float *const *row, int64_t k) {
    vf x[TILE_ROWS];
    UNROLL for (int r = 0; r < R; r++) x[r] = vf_set1(row[r][k]);
    UNROLL for (int b = 0; b < NB; b++) {
        const float *from = (b % 2 ? at->odd : at->w) + b / 2 * at->stride, *last = (b % 2 ? at->odd_last : at->last) + b / 2 * at->stride;
        UNROLL for (int g = 0; g < G; g++) fr_chain_gate(acc + (b * GA + SLOT(slots, g)) * R, R, g < TOGETHER(G) ? from + g * LANES : last, x);
    }
    if (TAIL) UNROLL for (int g = 0; g < PAIRS(G); g++) fr_chain_gate(acc + (NB * GA + SLOT(EVEN_SLOTS(slots), g)) * R, R, at->tail + g * LANES, x);
}

/* acc += W x over n of k; of several rows four at a time (of the time, H = 40 and 64: AVX-512, 4 to 6 rows 0.95 to 0.98, 32 rows 0.96 to 1.0, but two and three 1.01; AVX2, two and
 * three rows 0.97 to 1.0). */
FR_INLINE void fr_chain_part(vf *acc, const int NB, const int TAIL, const int GA, const int R, const int G, const unsigned slots, fr_weights at,
                             int64_t n, const float *const *rows) {
    const int tall = R > (LANES == 16 ? 3 : 1);
    const float *row[TILE_ROWS];
    UNROLL for (int r = 0; r < R; r++) row[r] = rows[r];
    IN_REGISTER(at.odd);
    if (tall) UNROLL_STEPS for (int64_t k = 0; k < n; k++, fr_next_weights(&at, TAIL, G)) fr_chain_one(acc, NB, TAIL, GA, R, G, slots, &at, row, k);
    else
        for (int64_t k = 0; k < n; k++, fr_next_weights(&at, TAIL, G)) fr_chain_one(acc, NB, TAIL, GA, R, G, slots, &at, row, k);
}

/* The same over k in [0, K) of a panel, from `block` on. */
FR_INLINE void fr_chain(vf *acc, const int NB, const int TAIL, const int GA, const int R, const int G, const unsigned slots, const float *panel,
                        int64_t block, int64_t K, const float *const *rows) {
    fr_chain_part(acc, NB, TAIL, GA, R, G, slots, fr_weights_of(panel, NB, G, block, K), K, rows);
}

/* Loads row r's start values, laid out [unit block][G][lane], into the accumulators that `slots` names; those of a narrow block as its panel has them. */
FR_INLINE void fr_start(vf *acc, const int NB, const int TAIL, const int GA, const int R, const int G, const unsigned slots, const float *start,
                        int64_t block, const int r) {
    UNROLL for (int b = 0; b < NB; b++) UNROLL for (int g = 0; g < G; g++) acc[(b * GA + SLOT(slots, g)) * R + r] =
        vf_load(start + ((block + b) * G + g) * LANES);
    if (TAIL)
        UNROLL for (int g = 0; g < PAIRS(G); g++) acc[(NB * GA + SLOT(EVEN_SLOTS(slots), g)) * R + r] =
            vf_load(start + ((block + NB) * G + g) * LANES);
}

/* Takes a narrow block's accumulators apart: the first `pairs` pairs of slots share one. */
FR_INLINE void fr_part(vf *acc, const int pairs, const int R) {
    UNROLL for (int p = 0; p < pairs; p++) UNROLL for (int r = 0; r < R; r++) acc[(2 * p + 1) * R + r] = vf_high(acc[2 * p * R + r]);
}
#endif
