/* Many rows times a panel of bfloat16 weights, [unit block][k / 2][gate][lane][2]: to the bit the product over the same weights in float32.
 *
 * A vector holds two of k for each unit; a shift and a mask widen them, exactly. What product.h says of tiles holds. */
#ifndef FASTRNN_PRODUCT_BFLOAT16_H
#define FASTRNN_PRODUCT_BFLOAT16_H
#include "product.h"

/* acc += one k of each vector, the even or the odd one of its pair. */
FR_INLINE void fr_bfloat16_one(vf *acc, const int V, const int R, const int odd, const uint16_t *w, const int64_t *apart, const float *const *x,
                               int64_t k) {
    vf one[ROWS_MOST];
    UNROLL for (int r = 0; r < R; r++) one[r] = vf_set1(x[r][k]);
    UNROLL for (int i = 0; i < V; i++) {
        const vi pair = vi_load(w + apart[i]);
        const vf weight = odd ? vf_high_half(pair) : vf_low_half(pair);
        UNROLL for (int r = 0; r < R; r++) acc[i * R + r] = vf_fma(weight, one[r], acc[i * R + r]);
    }
}

FR_INLINE void fr_bfloat16_tile(const fr_product *p, const int V, const int R, int64_t v, int64_t row) {
    const int64_t G = p->gates;
    vf acc[V_MOST * ROWS_MOST];
    int64_t block[V_MOST], gate[V_MOST];
    fr_product_places(p, V, v, block, gate);
    fr_product_start(p, V, R, block, gate, row, acc);
    for (int n = 0; n < p->n_operands; n++) {
        const fr_operand *o = &p->operand[n];
        const int64_t K = o->K, n_segments = o->segments ? o->segments : 1, step = 2 * G * LANES, block_numbers = (n_segments * K + 1) / 2 * step;
        const uint16_t *w = (const uint16_t *)o->panel + block[0] * block_numbers + 2 * gate[0] * LANES;
        int64_t apart[V_MOST], odd = 0; /* odd: whether the pair at w has its second to come, where a segment ended between */
        UNROLL for (int i = 0; i < V; i++) apart[i] = (block[i] - block[0]) * block_numbers + 2 * (gate[i] - gate[0]) * LANES;
        for (int64_t segment = 0; segment < n_segments; segment++) {
            const int64_t offset = o->segments ? o->offsets[segment] : 0;
            const float *x[ROWS_MOST];
            int64_t k = 0;
            UNROLL for (int r = 0; r < R; r++) x[r] = o->x[row + r] + offset;
            if (odd && K) fr_bfloat16_one(acc, V, R, 1, w, apart, x, k++), w += step, odd = 0;
            if (R == 1)
                for (; k + 2 <= K; k += 2, w += step) { /* each vector is read once */
                    const vf first = vf_set1(x[0][k]), second = vf_set1(x[0][k + 1]);
                    UNROLL for (int i = 0; i < V; i++) {
                        const vi pair = vi_load(w + apart[i]);
                        acc[i] = vf_fma(vf_high_half(pair), second, vf_fma(vf_low_half(pair), first, acc[i]));
                    }
                }
            else
                for (; k + 2 <= K; k += 2, w += step) {
                    fr_bfloat16_one(acc, V, R, 0, w, apart, x, k);
                    fr_bfloat16_one(acc, V, R, 1, w, apart, x, k + 1);
                }
            if (k < K) fr_bfloat16_one(acc, V, R, 0, w, apart, x, k), odd = 1;
        }
    }
    fr_product_end(p, V, R, v, row, acc);
}

/* acc += what one row gives, over NB whole blocks of units with G gates, whose accumulators `slots` names (affine.h): for a step of one row, in registers. */
FR_INLINE void fr_bfloat16_chain(vf *acc, const int NB, const int GA, const int G, const unsigned slots, const void *panel, int64_t block, int64_t K,
                                 const float *x) {
    const int64_t step = 2 * G * LANES, block_numbers = (K + 1) / 2 * step;
    const uint16_t *w = (const uint16_t *)panel + block * block_numbers;
    int64_t k = 0;
    for (; k + 2 <= K; k += 2, w += step) {
        const vf first = vf_set1(x[k]), second = vf_set1(x[k + 1]);
        UNROLL for (int i = 0; i < NB * G; i++) {
            const vi pair = vi_load(w + i / G * block_numbers + 2 * (i % G) * LANES);
            vf *to = &acc[i / G * GA + SLOT(slots, i % G)];
            *to = vf_fma(vf_high_half(pair), second, vf_fma(vf_low_half(pair), first, *to));
        }
    }
    if (k < K) UNROLL for (int i = 0; i < NB * G; i++) {
            vf *to = &acc[i / G * GA + SLOT(slots, i % G)];
            *to = vf_fma(vf_low_half(vi_load(w + i / G * block_numbers + 2 * (i % G) * LANES)), vf_set1(x[k]), *to);
        }
}

/* A panel of whole blocks as one of float32, [unit block][k][gate][lane]: the same numbers, which many rows then meet without widening them once a tile. */
static void fr_widen_panel(float *to, const void *panel, int64_t blocks, int64_t G, int64_t K) {
    const uint16_t *from = panel;
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t k = 0; k < K; k += 2)
            for (int64_t g = 0; g < G; g++, from += 2 * LANES) {
                const int64_t step = (g < TOGETHER(G) ? TOGETHER(G) : 1) * LANES;
                float *at = to + block * G * K * LANES + (g < TOGETHER(G) ? g : g * K) * LANES + k * step;
                vf_store(at, vf_low_half(vi_load(from)));
                if (k + 1 < K) vf_store(at + step, vf_high_half(vi_load(from)));
            }
}

#define FR_BFLOAT16_TILE(V, R) FR_PRODUCT_TILE(fr_bfloat16_tile, V, R)
#define FR_BFLOAT16_NAME(V, R) fr_bfloat16_tile_##V##_##R,
FR_EACH_PRODUCT(FR_BFLOAT16_TILE)
static const fr_product_run fr_bfloat16_tiles[][V_MOST] = {FR_EACH_PRODUCT_NAME(FR_BFLOAT16_NAME)};
static const fr_product_set fr_bfloat16_set = {fr_bfloat16_tiles, fr_product_widest, ROWS_MOST, HEIGHT, 1};
#endif
