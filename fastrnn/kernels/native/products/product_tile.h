/* A tile of many rows times a panel: of any vectors of it, not of whole units.
 *
 * A panel over whole blocks is a list of vectors, gate by gate and block by block, and each is a chain of its own: so a tile takes as many as
 * there are registers for, and what makes units of them follows. With sixteen registers 4 rows x 3 vectors reach the multipliers'
 * rate where 3 rows x 4 gates leave 4 rows as 2 and 2 (AVX2, H = 256, B = 4: 108 GFLOP/s, 89; of 110).
 *
 * The chains are those of affine.h: start, then the first operand, then the second, k ascending. */
#ifndef FASTRNN_PRODUCT_TILE_H
#define FASTRNN_PRODUCT_TILE_H
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
 * without `start`, at zero. Rows of out and start count from the operands' row `row0`. Where a block's last gate lies apart (affine.h) vectors are counted over the `gates` that
 * lie together, or over those, behind `before` others. */
typedef struct {
    fr_operand operand[2];
    int n_operands, gates, others, before;
    const float *start[4];
    int64_t start_block[4], start_row[4];
    float *const *out;
    int64_t first, units;
    int64_t weights; /* FR_FLOAT32, FR_BFLOAT16, FR_INT8 */
    int64_t blocks;  /* of the whole panels, */
    int onto;        /* and whether chains start at what `out` holds (product_int8.h) */
    int whole;       /* out and start are int32: sums of integers as they are */
    int64_t far;     /* every gate of a block lies apart, in panels from beyond L2 (product_far.h) */
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
        const int64_t g = p->before + gate[i];
        const float *start = p->start[g] ? p->start[g] + block[i] * p->start_block[g] + row * p->start_row[g] : NULL;
        UNROLL for (int r = 0; r < R; r++) acc[i * R + r] = start ? vf_load(start + r * p->start_row[g]) : vf_zero();
    }
}

/* And where they end. Past the last unit, by way of memory and not inlined: a store in pieces for each of a tile's vectors would be half of its code. */
static FR_OWN_FUNCTION void fr_product_end_within(const fr_product *p, int V, int R, int64_t v, int64_t row, const vf *acc) {
    for (int r = 0; r < R; r++)
        for (int i = 0; i < V; i++) vf_store_tail(p->out[row + r] + (v - p->first + i) * LANES, acc[i * R + r], fr_valid(p->units, v - p->first + i));
}

/* The same of a panel whose last gates lie apart, which is followed by room for whole vectors. */
FR_INLINE void fr_product_end_apart(const fr_product *p, const int V, const int R, const int64_t *block, const int64_t *gate, int64_t row,
                                    const vf *acc) {
    const int64_t G = p->gates + p->others, first = p->before - p->first;
    float *to[FAR_HEIGHT];
    UNROLL for (int r = 0; r < R; r++) to[r] = p->out[row + r];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < V; i++) vf_store(to[r] + (block[i] * G + first + gate[i]) * LANES, acc[i * R + r]);
}

FR_INLINE void fr_product_end(const fr_product *p, const int V, const int R, int64_t v, int64_t row, const vf *acc) {
    const int64_t at = (v - p->first) * LANES;
    float *to[FAR_HEIGHT];
    UNROLL for (int r = 0; r < R; r++) to[r] = p->out[row + r] + at;
    if (at + V * LANES <= p->units) {
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < V; i++) vf_store(to[r] + i * LANES, acc[i * R + r]);
    } else {
        vf all[V_MOST * ROWS_MOST];
        UNROLL for (int i = 0; i < V * R; i++) all[i] = acc[i];
        fr_product_end_within(p, V, R, v, row, all);
    }
}

/* The products of a tile's vectors, which is all but where they are. Of the time with a loop for each k (H = 256, AVX2): LSTM, B = 2 to 8, 0.95 to 0.97, GRU 0.94 to 0.98, RNN 0.95. */
FR_INLINE void fr_product_sums(const fr_product *p, const int V, const int R, const int64_t G, const int64_t *block, const int64_t *gate, int64_t row,
                               vf *acc) {
    const int64_t others = LANES == 8 ? p->others : 0, before = LANES == 8 ? p->before : 0; /* gates of sixteen lanes lie together */
    for (int n = 0; n < p->n_operands; n++) {
        const fr_operand *o = &p->operand[n];
        const int64_t K = o->K, n_segments = o->segments ? o->segments : 1, depth = n_segments * K, block_vectors = depth * (G + others),
                      step = G * LANES;
        const float *w = (const float *)o->panel + (block[0] * block_vectors + depth * before + gate[0]) * LANES;
        int64_t apart[V_MOST];
        UNROLL for (int i = 0; i < V; i++) apart[i] = ((block[i] - block[0]) * block_vectors + gate[i] - gate[0]) * LANES;
        for (int64_t segment = 0; segment < n_segments; segment++) {
            const int64_t offset = o->segments ? o->offsets[segment] : 0;
            const float *x[FAR_HEIGHT];
            UNROLL for (int r = 0; r < R; r++) x[r] = o->x[row + r] + offset;
            UNROLL_STEPS for (int64_t k = 0; k < K; k++, w += step) {
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
}

/* A tile. G: gates whose vectors lie together, from the first one's on, or 0: any, from any. Where vectors are is then known as it is compiled (AVX2, LSTM H = 256, B = 8: 0.95 of the
 * time; RNN H = 64: 0.97). */
FR_INLINE void fr_product_tile(const fr_product *p, const int V, const int R, const int G, int64_t v, int64_t row) {
    const int64_t first = G ? (uint64_t)v / (G ? G : 1) : 0;
    vf acc[V_MOST * ROWS_MOST];
    int64_t block[V_MOST], gate[V_MOST];
    if (G) UNROLL for (int i = 0; i < V; i++) block[i] = first + i / (G ? G : 1), gate[i] = i % (G ? G : 1);
    else fr_product_places(p, V, v, block, gate);
    fr_product_start(p, V, R, block, gate, row, acc);
    fr_product_sums(p, V, R, G ? G : p->gates, block, gate, row, acc);
    if (LANES == 8 && (G == 3 || (G && p->others))) fr_product_end_apart(p, V, R, block, gate, row, acc);
    else fr_product_end(p, V, R, v, row, acc);
}
#endif
