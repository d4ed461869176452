/* Many rows times a panel: which tiles cover it, and how much of it is done at once. */
#ifndef FASTRNN_PRODUCT_H
#define FASTRNN_PRODUCT_H
#include "product_tile.h"

/* What is done at once where something follows: so much stays in cache, and units of one to four gates divide the vectors. */
#define MANY_ROWS 72
#define MANY_VECTORS 12

typedef void (*fr_product_run)(const fr_product *p, int64_t v, int64_t row);
#define UP_TO_1(X, R) X(1, R)
#define UP_TO_2(X, R) UP_TO_1(X, R) X(2, R)
#define UP_TO_3(X, R) UP_TO_2(X, R) X(3, R)
#define UP_TO_4(X, R) UP_TO_3(X, R) X(4, R)
#define UP_TO_5(X, R) UP_TO_4(X, R) X(5, R)
#define UP_TO_6(X, R) UP_TO_5(X, R) X(6, R)
#define UP_TO_8(X, R) UP_TO_6(X, R) X(7, R) X(8, R)

/* Tiles of one kind: [rows][vectors - 1], the widest of each row count, the most rows, and how many where there are more than that; of how many vectors' multiples tiles are. */
typedef struct {
    const fr_product_run (*tiles)[V_MOST];
    const int8_t *widest;
    int64_t most, height, unit;
} fr_product_set;

/* Vectors of the next tile: two halves rather than a whole and a rest. */
FR_INLINE int64_t fr_product_width(int64_t left, int64_t width, int64_t unit) {
    const int64_t half = (left + 1) / 2;
    return left <= width ? left : left >= 2 * width ? width : unit == 3 && width % 3 == 0 ? (half + 2) / 3 * 3 : half;
}

/* Vectors v to `end` of n_rows rows from `row` on, by tiles of even height: one, or as near `height` as goes. Tiles of one width go down the rows while their weights are
 * in cache; where heights differ, so do widths, and twelve vectors, which every width divides but five, are done at a time. */
FR_INLINE void fr_multiply_by(const fr_product_set *set, const fr_product *p, int64_t v, int64_t end, int64_t row, int64_t n_rows) {
    if (!n_rows) return;
    const int64_t n_tiles = n_rows <= set->most ? 1 : (n_rows + set->height - 1) / set->height, height = n_rows / n_tiles, higher = n_rows % n_tiles;
    const int64_t step = higher && set->widest[height] != set->widest[height + 1] ? 12 : set->widest[height];
    for (int64_t stop; v < end; v = stop) {
        const int64_t left = end - v;
        stop = v + (step < 12 ? fr_product_width(left, step, set->unit) : left < step ? left : step);
        for (int64_t tile = 0, at = row; tile < n_tiles; tile++) {
            const int64_t R = height + (tile < higher), width = set->widest[R];
            for (int64_t u = v, V; u < stop; u += V) {
                V = fr_product_width(stop - u, width, set->unit);
                set->tiles[R][V - 1](p, u, at);
            }
            at += R;
        }
    }
}

/* Compiles `tile(p, V, R, v, row)`, an inline function, for the counts that registers hold, as tile_set. */
#define FR_PRODUCT_TILE(tile, V, R) \
    static FR_OWN_FUNCTION void tile##_##V##_##R(const fr_product *p, int64_t v, int64_t row) { tile(p, V, R, v, row); }
#define FR_EACH_PRODUCT(X) ROWS_1(X, 1) ROWS_2(X, 2) ROWS_3(X, 3) ROWS_4(X, 4) ROWS_5(X, 5) ROWS_6(X, 6)
#define FR_EACH_PRODUCT_NAME(X) \
    {0}, {ROWS_1(X, 1)}, {ROWS_2(X, 2)}, {ROWS_3(X, 3)}, {ROWS_4(X, 4)}, {ROWS_5(X, 5)}, { ROWS_6(X, 6) }
static const int8_t fr_product_widest[] = ROWS_WIDEST;

/* Of vectors of any gates; of one gate, which dense layers have; of all three gates that lie together, or lie there alone: five rows are then three and two. */
FR_INLINE void fr_product_any(const fr_product *p, const int V, const int R, int64_t v, int64_t row) { fr_product_tile(p, V, R, 0, v, row); }
FR_INLINE void fr_product_one(const fr_product *p, const int V, const int R, int64_t v, int64_t row) { fr_product_tile(p, V, R, 1, v, row); }
FR_INLINE void fr_product_three(const fr_product *p, const int V, const int R, int64_t v, int64_t row) { fr_product_tile(p, V, R, 3, v, row); }
#define FR_ANY_TILE(V, R) FR_PRODUCT_TILE(fr_product_any, V, R)
#define FR_ANY_NAME(V, R) fr_product_any_##V##_##R,
#define FR_ONE_TILE(V, R) FR_PRODUCT_TILE(fr_product_one, V, R)
#define FR_ONE_NAME(V, R) fr_product_one_##V##_##R,
#define FR_THREE_TILE(V, R) FR_PRODUCT_TILE(fr_product_three, V, R)
FR_EACH_PRODUCT(FR_ANY_TILE)
FR_EACH_PRODUCT(FR_ONE_TILE)
static const fr_product_run fr_tiles_of_any[][V_MOST] = {FR_EACH_PRODUCT_NAME(FR_ANY_NAME)};
static const fr_product_run fr_tiles_of_one[][V_MOST] = {FR_EACH_PRODUCT_NAME(FR_ONE_NAME)};
static const fr_product_set fr_set_of_any = {fr_tiles_of_any, fr_product_widest, ROWS_MOST, HEIGHT, 1};
static const fr_product_set fr_set_of_one = {fr_tiles_of_one, fr_product_widest, ROWS_MOST, HEIGHT, 1};
#if LANES == 8
FR_THREE_TILE(3, 1)
FR_THREE_TILE(6, 1)
FR_THREE_TILE(3, 2)
FR_THREE_TILE(6, 2)
FR_THREE_TILE(3, 3)
FR_THREE_TILE(3, 4)
static const int8_t fr_widest_of_three[] = {0, 6, 6, 3, 3};
static const fr_product_run fr_tiles_of_three[][V_MOST] = {
    {0},
    {0, 0, fr_product_three_3_1, 0, 0, fr_product_three_6_1},
    {0, 0, fr_product_three_3_2, 0, 0, fr_product_three_6_2},
    {0, 0, fr_product_three_3_3},
    {0, 0, fr_product_three_3_4},
};
static const fr_product_set fr_set_of_three = {fr_tiles_of_three, fr_widest_of_three, 4, 4, 3};
#else
#define fr_set_of_three fr_set_of_any
#endif

static void fr_multiply_float(const fr_product *p, int64_t v, int64_t end, int64_t row, int64_t n_rows) {
    if (APART(p->gates)) {
        fr_product part = *p;
        part.gates = 3, part.others = 1;
        fr_multiply_by(&fr_set_of_three, &part, v / 4 * 3, end / 4 * 3, row, n_rows);
        part.gates = 1, part.others = part.before = 3;
        fr_multiply_by(&fr_set_of_one, &part, v / 4, end / 4, row, n_rows);
    } else if (p->gates == 1) fr_multiply_by(&fr_set_of_one, p, v, end, row, n_rows);
    else if (p->gates == 3 && n_rows != 3)
        fr_multiply_by(&fr_set_of_three, p, v, end, row, n_rows); /* twelve vectors are three tiles of three rows */
    else fr_multiply_by(&fr_set_of_any, p, v, end, row, n_rows);
}

/* Blocks of G gates at once. Where the last lies apart, six blocks have whole tiles of two rows, and of five and six, of an even width; of one row, twice as many have whole tiles of
 * eight vectors, and no more accumulators than TILE_VECTORS. */
FR_INLINE int64_t fr_blocks_at_once(const int G, int64_t n_rows) {
    return n_rows == 1 && G > 2 ? 2 * MANY_VECTORS / G : APART(G) && (n_rows == 2 || n_rows == 5 || n_rows == 6) ? 6 : MANY_VECTORS / G;
}
typedef void (*fr_many)(const void *context, int64_t block, int64_t end, int64_t row, int64_t n_rows);

/* `many` for all blocks x n_rows, as many of G gates as go at once and at most MANY_ROWS rows at a time. A single block that is left, of gates that lie apart, goes with the last
 * group: alone, its last gate would be a tile of one vector. */
FR_INLINE void fr_in_groups(fr_many many, const void *context, int64_t block, int64_t end, const int G, int64_t n_rows, int backward) {
    const int64_t blocks = fr_blocks_at_once(G, n_rows), n_blocks = end - block, single = APART(G) && n_blocks > blocks && n_blocks % blocks == 1;
    const int64_t n_groups = (n_blocks + blocks - 1) / blocks - single, n_parts = (n_rows + MANY_ROWS - 1) / MANY_ROWS;
    for (int64_t n = 0; n < n_groups; n++) {
        const int64_t first = block + (backward ? n_groups - 1 - n : n) * blocks, last = first + blocks + single < end ? first + blocks : end;
        for (int64_t part = 0; part < n_parts; part++) {
            const int64_t row = n_rows * part / n_parts;
            many(context, first, last, row, n_rows * (part + 1) / n_parts - row);
        }
    }
}
#endif
