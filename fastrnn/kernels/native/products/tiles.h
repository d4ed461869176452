/* Covering blocks x rows with tiles of one kind.
 *
 * Each tile is a function of its own: inlined into one, the compiler keeps the pointwise constants in registers and spills accumulators
 * (66 against 109 GFLOP/s at four rows). */
#ifndef FASTRNN_TILES_H
#define FASTRNN_TILES_H
#include "affine.h"

#define TILE_VECTORS 32 /* accumulators of a tile, at most */
typedef void (*fr_tile)(const void *context, int64_t block, int64_t row);

/* By the counts they are compiled for, W's powers of two. Few rows leave registers, and the latency of the FMA, to fill: W1 blocks for one row, W2 for two,
 * W for more; `half`, of half as many blocks as `one`, and `last`, of one, are for the blocks left over. A kind with gates has tails: a narrow last block, for
 * one row behind a whole one. */
typedef struct {
    int w1, w2, w;
    fr_tile one, half, two, rows[TILE_ROWS + 1], last[TILE_ROWS + 1];
    fr_tile tail_one[2], tail[TILE_ROWS + 1];
} fr_tiles;

#define FR_TILE(tile, suffix, NB, TAIL, R) \
    static FR_OWN_FUNCTION void tile##_##suffix(const void *context, int64_t block, int64_t row) { tile(context, NB, TAIL, R, block, row); }
#define FR_ROWS(R) ((R) < TILE_ROWS ? (R) : TILE_ROWS)
#define FR_EACH_ROWS(tile, suffix, NB, TAIL) \
    FR_TILE(tile, suffix##1, NB, TAIL, 1) \
    FR_TILE(tile, suffix##2, NB, TAIL, 2) \
    FR_TILE(tile, suffix##3, NB, TAIL, FR_ROWS(3)) \
    FR_TILE(tile, suffix##4, NB, TAIL, FR_ROWS(4)) \
    FR_TILE(tile, suffix##5, NB, TAIL, FR_ROWS(5)) \
    FR_TILE(tile, suffix##6, NB, TAIL, FR_ROWS(6))
#if TILE_ROWS == 6
#define FR_BY_ROWS(name) {0, name##1, name##2, name##3, name##4, name##5, name##6}
#elif TILE_ROWS == 3
#define FR_BY_ROWS(name) {0, name##1, name##2, name##3}
#else
#define FR_BY_ROWS(name) {0, name##1, name##2}
#endif
/* clang-format off */
/* Tiles of W1 blocks for one row, and of half as many where that is more than one; and of one block, where all are of more. */
#define FR_ONE_TILES_2(tile) FR_TILE(tile, one, 2, 0, 1)
#define FR_ONE_TILES_8(tile) FR_TILE(tile, one, 8, 0, 1) FR_TILE(tile, half, 4, 0, 1)
#define FR_HALF_2(tile) 0
#define FR_HALF_8(tile) tile##_half
#define FR_LAST_TILES_1(tile)
#define FR_LAST_TILES_4(tile) FR_EACH_ROWS(tile, last, 1, 0)
#define FR_LAST_1(tile) FR_BY_ROWS(tile##_rows)
#define FR_LAST_4(tile) FR_BY_ROWS(tile##_last)
#define FR_BODY_TILES(tile, W1, W2, W) \
    FR_ONE_TILES_##W1(tile) \
    FR_TILE(tile, two, W2, 0, 2) \
    FR_EACH_ROWS(tile, rows, W, 0) \
    FR_LAST_TILES_##W(tile)
#define FR_TILES_(tile, W1, W2, W) \
    FR_BODY_TILES(tile, W1, W2, W) \
    static const fr_tiles tile##_set = { \
        W1, W2, W, tile##_one, FR_HALF_##W1(tile), tile##_two, FR_BY_ROWS(tile##_rows), FR_LAST_##W(tile), {0}, {0}};
#define FR_TAILED_TILES_(tile, W1, W2, W) \
    FR_BODY_TILES(tile, W1, W2, W) \
    FR_TILE(tile, beside1, 1, 1, 1) \
    FR_EACH_ROWS(tile, tail, 0, 1) \
    static const fr_tiles tile##_set = { \
        W1, W2, W, tile##_one, FR_HALF_##W1(tile), tile##_two, FR_BY_ROWS(tile##_rows), FR_LAST_##W(tile), \
        {tile##_tail1, tile##_beside1}, FR_BY_ROWS(tile##_tail)};
/* Of one row alone. */
#define FR_TILES_OF_ONE_(tile, W1) \
    FR_ONE_TILES_##W1(tile) \
    FR_TILE(tile, last1, 1, 0, 1) \
    static const fr_tiles tile##_set = {W1, 1, 1, tile##_one, FR_HALF_##W1(tile), 0, {0}, {0, tile##_last1}, {0}, {0}};
#define FR_TAILED_TILES_OF_ONE_(tile, W1) \
    FR_ONE_TILES_##W1(tile) \
    FR_TILE(tile, last1, 1, 0, 1) \
    FR_TILE(tile, beside1, 1, 1, 1) \
    FR_TILE(tile, tail1, 0, 1, 1) \
    static const fr_tiles tile##_set = { \
        W1, 1, 1, tile##_one, FR_HALF_##W1(tile), 0, {0}, {0, tile##_last1}, {tile##_tail1, tile##_beside1}, {0}};
/* The narrow last block alone. */
#define FR_NARROW_TILES_(tile) \
    FR_EACH_ROWS(tile, tail, 0, 1) \
    static const fr_tiles tile##_set = {1, 1, 1, 0, 0, 0, {0}, {0}, {tile##_tail1}, FR_BY_ROWS(tile##_tail)};
/* clang-format on */
#define FR_NARROW_TILES(tile) FR_NARROW_TILES_(tile)
/* Compiles `tile(context, NB, TAIL, R, block, row)`, an inline function, for every count that fr_cover uses, as tile_set. */
#define FR_TILES(tile, W1, W2, W) FR_TILES_(tile, W1, W2, W)
#define FR_TAILED_TILES(tile, W1, W2, W) FR_TAILED_TILES_(tile, W1, W2, W)
#define FR_TILES_OF_ONE(tile, W1) FR_TILES_OF_ONE_(tile, W1)
#define FR_TAILED_TILES_OF_ONE(tile, W1) FR_TAILED_TILES_OF_ONE_(tile, W1)

/* All rows of some blocks, by tiles of even height: five rows and four rather than six and three. */
FR_INLINE void fr_down(const fr_tile *by_rows, int64_t n_tiles, int64_t n_rows, int64_t block, const void *context) {
    const int64_t height = n_rows / n_tiles, higher = n_rows % n_tiles;
    for (int64_t tile = 0, row = 0; tile < n_tiles; tile++) {
        const int64_t rows = height + (tile < higher);
        by_rows[rows](context, block, row);
        row += rows;
    }
}

/* fr_cover for n_rows, one of which the caller may know. */
FR_INLINE void fr_sweep(int64_t block, int64_t end, int narrow, int64_t n_rows, int backward, const fr_tiles *tiles, const void *context) {
    const int64_t wide = n_rows == 1 ? tiles->w1 : n_rows == 2 ? tiles->w2 : tiles->w, n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t beside = n_rows == 1 && narrow && end - 1 > block; /* one block shares the narrow one's tile */
    const int64_t tail = end - narrow - beside,
                  single = tail - ((tail - block) & (wide - 1)); /* where the narrow one's tile starts, and tiles of one block */
#define WIDE(at) \
    (n_rows == 1 ? tiles->one(context, at, 0) : n_rows == 2 ? tiles->two(context, at, 0) : fr_down(tiles->rows, n_tiles, n_rows, at, context))
#define SINGLE(at) (n_rows == 1 ? tiles->last[1](context, at, 0) : fr_down(tiles->last, n_tiles, n_rows, at, context))
#define TAIL() (n_rows == 1 ? tiles->tail_one[beside](context, tail, 0) : fr_down(tiles->tail, n_tiles, n_rows, tail, context))
    const int64_t half =
        n_rows == 1 && tail - single >= wide / 2 ? wide / 2 : 0; /* RNN H = 64, 100 steps: half the time that four tiles of one block take */
    int64_t at = block;
    if (!backward) {
        for (; at < single; at += wide) WIDE(at);
        if (half > 1) tiles->half(context, at, 0), at += half;
        for (; at < tail; at++) SINGLE(at);
        if (narrow) TAIL();
    } else {
        if (narrow) TAIL();
        for (at = tail; at-- > single + (half > 1 ? half : 0);) SINGLE(at);
        if (half > 1) tiles->half(context, single, 0);
        for (at = single; (at -= wide) >= block;) WIDE(at);
    }
#undef WIDE
#undef SINGLE
#undef TAIL
}

/* Covers blocks from `block` to `end` x n_rows: blocks outermost, so that a panel block stays in cache for all rows. narrow: the last is.
 * backward: from the last to the first. Sweeping to and fro, a step starts on the weights that the step before it left in cache (LSTM H = 256:
 * 21.3 us a step, 22.4 always forward; 100 steps 12.9, 13.7). */
static void fr_cover(int64_t block, int64_t end, int narrow, int64_t n_rows, int backward, const fr_tiles *tiles, const void *context) {
    if (block >= end || !n_rows) return;
    if (n_rows == 1) fr_sweep(block, end, narrow, 1, backward, tiles, context);
    else fr_sweep(block, end, narrow, n_rows, backward, tiles, context);
}
/* The blocks that a call computes of a layer that is computed in parts, of `n`. */
FR_INLINE int64_t fr_first_block(const fr_args *a, int64_t n) { return a->parts > 1 ? n * a->part / a->parts : 0; }
FR_INLINE int64_t fr_end_block(const fr_args *a, int64_t n) { return a->parts > 1 ? n * (a->part + 1) / a->parts : n; }

#endif
