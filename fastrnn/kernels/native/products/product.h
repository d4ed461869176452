/* Many rows times a panel: tiles of any vectors of it, not of whole units.
 *
 * A panel over whole blocks is a list of vectors, gate by gate and block by block, and each is a chain of its own: so a tile takes as many as
 * there are registers for, and what makes units of them follows. With sixteen registers 4 rows x 3 vectors reach the multipliers'
 * rate where 3 rows x 4 gates leave 4 rows as 2 and 2 (AVX2, H = 256, B = 4: 108 GFLOP/s, 89; of 110).
 *
 * The chains are those of affine.h: start, then the first operand, then the second, k ascending. */
#ifndef FASTRNN_PRODUCT_H
#define FASTRNN_PRODUCT_H
#include "affine.h"
#include "quantize.h"

/* A panel [unit block][k][gate][lane], and the rows that it meets: K floats from x[row] on; or, where `segments` is not 0, as many times K, that
 * time n from x[row] + offsets[n] on. Of int8 weights (product_int8.h), the rows from `row0` on of integers. */
typedef struct {
    const void *panel;
    int64_t K;
    const float *const *x;
    int64_t segments;
    const int64_t *offsets;
    const fr_quantized *integers;
    int64_t row0;
} fr_operand;

/* out[row] + (v - first) LANES, of `units` floats, = start + the operands' products. Gate g's chains start at start[g] + block * start_block[g] + row * start_row[g];
 * without `start`, at zero. Rows of out and start count from the operands' row `row0`. */
typedef struct {
    fr_operand operand[2];
    int n_operands, gates;
    const float *start[4];
    int64_t start_block[4], start_row[4];
    float *const *out;
    int64_t first, units;
    int64_t weights; /* FR_FLOAT32, FR_BFLOAT16, FR_INT8 */
    int64_t blocks;  /* of the whole panels, */
    int onto;        /* and whether chains start at what `out` holds (product_int8.h) */
    int whole;       /* out and start are int32: sums of integers as they are */
} fr_product;

/* Block and gate of V vectors from v on. */
FR_INLINE void fr_product_places(const fr_product *p, const int V, int64_t v, int64_t *block, int64_t *gate) {
    block[0] = p->gates == 4 ? v >> 2 : (uint32_t)v / (uint32_t)p->gates, gate[0] = v - block[0] * p->gates;
    UNROLL for (int i = 1; i < V; i++) {
        const int next = gate[i - 1] + 1 == p->gates;
        block[i] = block[i - 1] + next, gate[i] = next ? 0 : gate[i - 1] + 1;
    }
}

/* Where their chains start. */
FR_INLINE void fr_product_start(const fr_product *p, const int V, const int R, const int64_t *block, const int64_t *gate, int64_t row, vf *acc) {
    UNROLL for (int i = 0; i < V; i++) {
        const int64_t g = gate[i];
        const float *start = p->start[g] ? p->start[g] + block[i] * p->start_block[g] + row * p->start_row[g] : NULL;
        UNROLL for (int r = 0; r < R; r++) acc[i * R + r] = start ? vf_load(start + r * p->start_row[g]) : vf_zero();
    }
}

/* And where they end. Past the last unit, by way of memory and not inlined: a store in pieces for each of a tile's vectors would be half of its code. */
static FR_OWN_FUNCTION void fr_product_end_within(const fr_product *p, int V, int R, int64_t v, int64_t row, const vf *acc) {
    for (int r = 0; r < R; r++)
        for (int i = 0; i < V; i++) vf_store_tail(p->out[row + r] + (v - p->first + i) * LANES, acc[i * R + r], fr_valid(p->units, v - p->first + i));
}

FR_INLINE void fr_product_end(const fr_product *p, const int V, const int R, int64_t v, int64_t row, const vf *acc) {
    const int64_t at = (v - p->first) * LANES;
    if (at + V * LANES <= p->units) {
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < V; i++) vf_store(p->out[row + r] + at + i * LANES, acc[i * R + r]);
    } else {
        vf all[V_MOST * ROWS_MOST];
        UNROLL for (int i = 0; i < V * R; i++) all[i] = acc[i];
        fr_product_end_within(p, V, R, v, row, all);
    }
}

FR_INLINE void fr_product_tile(const fr_product *p, const int V, const int R, int64_t v, int64_t row) {
    const int64_t G = p->gates;
    vf acc[V_MOST * ROWS_MOST];
    int64_t block[V_MOST], gate[V_MOST];
    fr_product_places(p, V, v, block, gate);
    fr_product_start(p, V, R, block, gate, row, acc);
    for (int n = 0; n < p->n_operands; n++) {
        const fr_operand *o = &p->operand[n];
        const int64_t K = o->K, n_segments = o->segments ? o->segments : 1, block_vectors = n_segments * K * G, step = G * LANES;
        const float *w = (const float *)o->panel + (block[0] * block_vectors + gate[0]) * LANES;
        int64_t apart[V_MOST];
        UNROLL for (int i = 0; i < V; i++) apart[i] = ((block[i] - block[0]) * block_vectors + gate[i] - gate[0]) * LANES;
        for (int64_t segment = 0; segment < n_segments; segment++) {
            const int64_t offset = o->segments ? o->offsets[segment] : 0;
            const float *x[ROWS_MOST];
            UNROLL for (int r = 0; r < R; r++) x[r] = o->x[row + r] + offset;
            for (int64_t k = 0; k < K; k++, w += step) {
                if (R > V) { /* what there is less of waits in registers */
                    vf weight[V_MOST];
                    UNROLL for (int i = 0; i < V; i++) {
                        weight[i] = vf_load(w + apart[i]);
                        VF_IN_REGISTER(weight[i]);
                    }
                    UNROLL for (int r = 0; r < R; r++) {
                        const vf one = vf_set1(x[r][k]);
                        UNROLL for (int i = 0; i < V; i++) acc[i * R + r] = vf_fma(weight[i], one, acc[i * R + r]);
                    }
                } else {
                    vf all[ROWS_MOST];
                    UNROLL for (int r = 0; r < R; r++) all[r] = vf_set1(x[r][k]);
                    UNROLL for (int i = 0; i < V; i++) {
                        vf weight = vf_load(w + apart[i]);
                        if (R > 1) VF_IN_REGISTER(weight);
                        UNROLL for (int r = 0; r < R; r++) acc[i * R + r] = vf_fma(weight, all[r], acc[i * R + r]);
                    }
                }
            }
        }
    }
    fr_product_end(p, V, R, v, row, acc);
}

typedef void (*fr_product_run)(const fr_product *p, int64_t v, int64_t row);
#define UP_TO_1(X, R) X(1, R)
#define UP_TO_2(X, R) UP_TO_1(X, R) X(2, R)
#define UP_TO_3(X, R) UP_TO_2(X, R) X(3, R)
#define UP_TO_4(X, R) UP_TO_3(X, R) X(4, R)
#define UP_TO_5(X, R) UP_TO_4(X, R) X(5, R)
#define UP_TO_6(X, R) UP_TO_5(X, R) X(6, R)
#define UP_TO_8(X, R) UP_TO_6(X, R) X(7, R) X(8, R)

/* Tiles of one kind: [rows][vectors - 1], the widest of each row count, the most rows, and how many where there are more than that. */
typedef struct {
    const fr_product_run (*tiles)[V_MOST];
    const int8_t *widest;
    int64_t most, height;
} fr_product_set;

/* Vectors v to `end` of n_rows rows from `row` on, by tiles of even height: one, or as near `height` as goes. Tiles of one width go down the rows while their weights are
 * in cache; where heights differ, so do widths, and twelve vectors, which every width divides but five, are done at a time. */
FR_INLINE void fr_multiply_by(const fr_product_set *set, const fr_product *p, int64_t v, int64_t end, int64_t row, int64_t n_rows) {
    if (!n_rows) return;
    const int64_t n_tiles = n_rows <= set->most ? 1 : (n_rows + set->height - 1) / set->height, height = n_rows / n_tiles, higher = n_rows % n_tiles;
    const int64_t step = higher && set->widest[height] != set->widest[height + 1] ? 12 : set->widest[height];
    for (int64_t stop; v < end; v = stop) {
        const int64_t left = end - v;
        stop = v + (left > step && left < 2 * step && step < 12 ? (left + 1) / 2 : left < step ? left : step);
        for (int64_t tile = 0, at = row; tile < n_tiles; tile++) {
            const int64_t R = height + (tile < higher), width = set->widest[R];
            for (int64_t u = v, V; u < stop; u += V) {
                const int64_t left = stop - u;
                V = left > width && left < 2 * width ? (left + 1) / 2 : left < width ? left : width; /* two halves rather than a whole and a rest */
                set->tiles[R][V - 1](p, u, at);
            }
            at += R;
        }
    }
}

/* Compiles `tile(p, V, R, v, row)`, an inline function, for the counts that registers hold, as tile_set. */
#define FR_PRODUCT_TILE(tile, V, R) \
    static FR_OWN_FUNCTION void tile##_##V##_##R(const fr_product *p, int64_t v, int64_t row) { tile(p, V, R, v, row); }
#define FR_FLOAT_TILE(V, R) FR_PRODUCT_TILE(fr_product_tile, V, R)
#define FR_FLOAT_NAME(V, R) fr_product_tile_##V##_##R,
#define FR_EACH_PRODUCT(X) ROWS_1(X, 1) ROWS_2(X, 2) ROWS_3(X, 3) ROWS_4(X, 4) ROWS_5(X, 5) ROWS_6(X, 6)
#define FR_EACH_PRODUCT_NAME(X) \
    {0}, {ROWS_1(X, 1)}, {ROWS_2(X, 2)}, {ROWS_3(X, 3)}, {ROWS_4(X, 4)}, {ROWS_5(X, 5)}, { ROWS_6(X, 6) }
static const int8_t fr_product_widest[] = ROWS_WIDEST;
FR_EACH_PRODUCT(FR_FLOAT_TILE)
static const fr_product_run fr_float_tiles[][V_MOST] = {FR_EACH_PRODUCT_NAME(FR_FLOAT_NAME)};
static const fr_product_set fr_float_set = {fr_float_tiles, fr_product_widest, ROWS_MOST, HEIGHT};

/* What is done at once where something follows: so much stays in cache, and units of one to four gates divide the vectors. */
#define MANY_ROWS 72
#define MANY_VECTORS 12
typedef void (*fr_many)(const void *context, int64_t block, int64_t end, int64_t row, int64_t n_rows);

/* `many` for all blocks x n_rows, `blocks` of them and at most MANY_ROWS rows at a time. */
FR_INLINE void fr_in_groups(fr_many many, const void *context, int64_t block, int64_t end, int64_t blocks, int64_t n_rows, int backward) {
    const int64_t n_groups = (end - block + blocks - 1) / blocks, n_parts = (n_rows + MANY_ROWS - 1) / MANY_ROWS;
    for (int64_t n = 0; n < n_groups; n++) {
        const int64_t first = block + (backward ? n_groups - 1 - n : n) * blocks, last = first + blocks < end ? first + blocks : end;
        for (int64_t part = 0; part < n_parts; part++) {
            const int64_t row = n_rows * part / n_parts;
            many(context, first, last, row, n_rows * (part + 1) / n_parts - row);
        }
    }
}
#endif
