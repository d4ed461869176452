/* Many rows of integers times a panel of int8 weights: exact sums in int32, then float32.
 *
 * out = start + float(sum q w) (scale of the row x scale of the unit), one fused multiply-add for each FR_K_BLOCK of k, of the first operand, then of the second: so long the
 * sums of 14 bits stay below 2^31 (8191 * 127 * 2048). A panel: scales, float [vector][lane]; sums of weights, int32 [K block][vector][lane], which take back what was added to
 * make bytes unsigned; weights, int8 [unit block][k / 4][gate][lane][4], zeros up to a whole four. */
#ifndef FASTRNN_PRODUCT_INT8_H
#define FASTRNN_PRODUCT_INT8_H
#include "product.h"

/* Arrays of [vector][lane] in front of the weights: scales, sums of each block; for bytes with a zero point one block and the weights' own zero points. */
FR_INLINE int64_t fr_int8_head(int64_t vectors, int64_t K, int bits) {
    return vectors * LANES * 4 * (1 + (bits < 8 ? 2 : K ? (K + FR_K_BLOCK - 1) / FR_K_BLOCK : 1));
}
FR_INLINE int64_t fr_int8_panel_bytes(int64_t vectors, int64_t K, int bits) {
    return fr_int8_head(vectors, K, bits) + vectors * LANES * 4 * ((K + 3) / 4);
}

/* The sums of n fours of k from w and q on, of V vectors and R rows whose integers lie as `form` says; two parts of each sum where it takes two. */
FR_INLINE void fr_int8_sums(vi *acc, const int V, const int R, const int form, const int bits, const int8_t *w, int64_t step, const int64_t *apart,
                            const int8_t *const *q, int64_t half, int64_t n) {
    const int rows = form == FR_FORM_DOT && bits == FR_LARGE_BITS ? 2 * R : R;
    for (int64_t k = 0; k < n; k++, w += step) {
#if FR_PAIRS
        if (form == FR_FORM_SIGNED) {
            int32_t four;
            memcpy(&four, q[0] + 4 * k, sizeof four);
            const vi x = vi_set1(four), size = vi_abs_bytes(x);
            UNROLL for (int i = 0; i < V; i++) acc[i] = vi_dot_signed(acc[i], size, x, vi_load(w + apart[i]));
            continue;
        }
        if (form == FR_FORM_WORDS) {
            vi x[ROWS_MOST];
            UNROLL for (int r = 0; r < R; r++) x[r] = vi_four_words((const int16_t *)q[r] + 4 * k);
            UNROLL for (int i = 0; i < V; i++) {
                const vi low = vi_words_low(w + apart[i]), high = vi_words_high(w + apart[i]);
                UNROLL for (int r = 0; r < R; r++) {
                    acc[2 * (i * R + r)] = vi_pairs(acc[2 * (i * R + r)], low, x[r]);
                    acc[2 * (i * R + r) + 1] = vi_pairs(acc[2 * (i * R + r) + 1], high, x[r]);
                }
            }
            continue;
        }
#endif
        vi x[ROWS_MOST];
        UNROLL for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, (rows == R ? q[r] : q[r / 2] + r % 2 * half) + 4 * k, sizeof four);
            x[r] = vi_set1(four);
        }
        UNROLL for (int i = 0; i < V; i++) {
            const vi weights = vi_load(w + apart[i]);
            UNROLL for (int r = 0; r < rows; r++) acc[i * rows + r] = vi_dot(acc[i * rows + r], x[r], weights);
        }
    }
}

/* Sum i of `row`, put together of its parts, without what was added to make bytes unsigned: that times the sum of the weights, of_weights[i]; nor, with zero points
 * (`vectors` arrays behind), what the weights' own add. */
FR_INLINE vi fr_int8_sum(const vi *parts, int i, const int form, const int bits, const fr_quantized *x, int64_t row, const int32_t *of_weights,
                         int64_t vectors) {
    vi sum = parts[i];
#if FR_PAIRS
    if (form == FR_FORM_WORDS) sum = vi_join(parts[2 * i], parts[2 * i + 1]);
#endif
    if (form == FR_FORM_DOT && bits == FR_LARGE_BITS) {
        sum = vi_add(vi_up(parts[2 * i], 7), parts[2 * i + 1]);
        if (FR_DOT_UNSIGNED) sum = vi_sub(sum, vi_up(vi_load(of_weights + i * LANES), 13));
    } else if (form == FR_FORM_DOT) sum = vi_sub(sum, vi_multiply(vi_set1(x->added[row]), vi_load(of_weights + i * LANES)));
    if (form == FR_FORM_WORDS || (form == FR_FORM_DOT && bits != FR_LARGE_BITS))
        if (x->bits < 8) sum = vi_sub(sum, vi_multiply(vi_set1(x->sum[row]), vi_load(of_weights + (vectors + i) * LANES)));
    return sum;
}

/* What `out` holds, of the operand before: by way of memory and not inlined, for it is seldom. */
static FR_OWN_FUNCTION void fr_product_held(const fr_product *p, int V, int R, int64_t v, int64_t row, vf *acc) {
    for (int r = 0; r < R; r++)
        for (int i = 0; i < V; i++) acc[i * R + r] = vf_load_tail(p->out[row + r] + (v - p->first + i) * LANES, fr_valid(p->units, v - p->first + i));
}

FR_INLINE void fr_product_so_far(const fr_product *p, const int V, const int R, int64_t v, int64_t row, vf *acc) {
    vf held[V_MOST * ROWS_MOST];
    fr_product_held(p, V, R, v, row, held);
    UNROLL for (int i = 0; i < V * R; i++) acc[i] = held[i];
}

FR_INLINE void fr_int8_tile(const fr_product *p, const int V, const int R, const int form, const int bits, int64_t v, int64_t row) {
    const fr_operand *o = &p->operand[0];
    const fr_quantized *x = o->integers;
    const int64_t G = p->gates, K = o->K, step = 4 * G * LANES, block_bytes = (K + 3) / 4 * step, vectors = p->blocks * G;
    const int two = form == FR_FORM_DOT && bits == FR_LARGE_BITS, sums = form == FR_FORM_WORDS ? 2 : two ? 2 : 1;
    const float *scales = (const float *)o->panel + v * LANES;
    const int32_t *of_weights = (const int32_t *)o->panel + (vectors + v) * LANES;
    int64_t block[V_MOST], gate[V_MOST], apart[V_MOST];
    const int8_t *q[ROWS_MOST];
    fr_product_places(p, V, v, block, gate);
    const int8_t *w = (const int8_t *)o->panel + fr_int8_head(vectors, K, x->bits) + block[0] * block_bytes + 4 * gate[0] * LANES;
    UNROLL for (int i = 0; i < V; i++) apart[i] = (block[i] - block[0]) * block_bytes + 4 * (gate[i] - gate[0]) * LANES;
    UNROLL for (int r = 0; r < R; r++) q[r] = x->q + (o->row0 + row + r) * x->stride;
    for (int64_t first = 0; first < K || !first; first += x->block, of_weights += vectors * LANES) {
        const int64_t n = (K - first < x->block ? K - first + 3 : x->block) / 4;
        vf out[V_MOST * ROWS_MOST];
        vi acc[2 * V_MOST * ROWS_MOST];
        UNROLL for (int i = 0; i < V * R * sums; i++) acc[i] = vi_zero();
        fr_int8_sums(acc, V, R, form, bits, w, step, apart, q, x->half, n);
        UNROLL for (int r = 0; r < R; r++) q[r] += form == FR_FORM_WORDS ? 2 * x->block : x->block;
        w += x->block / 4 * step;
        if (first || p->onto) fr_product_so_far(p, V, R, v, row, out);
        else fr_product_start(p, V, R, block, gate, row, out);
        UNROLL for (int i = 0; i < V; i++) {
            const vf scale = vf_load(scales + i * LANES);
            UNROLL for (int r = 0; r < R; r++) {
                const vi sum = fr_int8_sum(acc + i * R * sums, r, form, bits, x, o->row0 + row + r, of_weights + (i - r) * LANES, vectors);
                if (p->whole) out[i * R + r] = vf_bits(vi_add(sum, vi_bits(out[i * R + r])));
                else out[i * R + r] = vf_fma(vf_of(sum), vf_mul(vf_set1(x->scale[o->row0 + row + r]), scale), out[i * R + r]);
            }
        }
        fr_product_end(p, V, R, v, row, out);
    }
}

/* acc += what one row of integers gives, over NB whole blocks of units with G gates, whose accumulators `slots` names (affine.h): for a step of one row, in registers. */
FR_INLINE void fr_int8_chain(vf *acc, const int NB, const int GA, const int G, const unsigned slots, const int form, const int bits,
                             const void *panel, int64_t blocks, int64_t block, int64_t K, const fr_quantized *x, int64_t row) {
    const int64_t step = 4 * G * LANES, block_bytes = (K + 3) / 4 * step, vectors = blocks * G;
    const int two = form == FR_FORM_DOT && bits == FR_LARGE_BITS, sums = form == FR_FORM_WORDS || two ? 2 : 1;
    const float *scales = (const float *)panel + block * G * LANES;
    const int32_t *of_weights = (const int32_t *)panel + (vectors + block * G) * LANES;
    const int8_t *w = (const int8_t *)panel + fr_int8_head(vectors, K, x->bits) + block * block_bytes, *q = x->q + row * x->stride;
    const vf scale = vf_set1(x->scale[row]);
    int64_t apart[V_MOST];
    UNROLL for (int i = 0; i < NB * G; i++) apart[i] = i / G * block_bytes + 4 * (i % G) * LANES;
    for (int64_t first = 0; first < K; first += x->block, of_weights += vectors * LANES) {
        const int64_t n = (K - first < x->block ? K - first + 3 : x->block) / 4;
        vi sum[2 * V_MOST];
        UNROLL for (int i = 0; i < NB * G * sums; i++) sum[i] = vi_zero();
        fr_int8_sums(sum, NB * G, 1, form, bits, w, step, apart, &q, x->half, n);
        q += form == FR_FORM_WORDS ? 2 * x->block : x->block, w += x->block / 4 * step;
        UNROLL for (int i = 0; i < NB * G; i++) {
            vf *to = &acc[i / G * GA + SLOT(slots, i % G)];
            *to = vf_fma(vf_of(fr_int8_sum(sum, i, form, bits, x, row, of_weights, vectors)), vf_mul(scale, vf_load(scales + i * LANES)), *to);
        }
    }
}

/* Tiles by how their rows lie. Two rows of bytes, or two vectors of sums, take the registers of two rows. */
#define FR_DOUBLE(X) ROWS_2(X, 1) ROWS_4(X, 2) ROWS_6(X, 3)
#define FR_DOUBLE_NAME(X) \
    {0}, {ROWS_2(X, 1)}, {ROWS_4(X, 2)}, { ROWS_6(X, 3) }
static const int8_t fr_widest_of_two[] = ROWS_WIDEST_OF_TWO;

#define FR_DOT8_TILE(V, R) \
    static FR_OWN_FUNCTION void fr_dot8_##V##_##R(const fr_product *p, int64_t v, int64_t row) { fr_int8_tile(p, V, R, FR_FORM_DOT, 8, v, row); }
#define FR_DOT8_NAME(V, R) fr_dot8_##V##_##R,
#define FR_DOT14_TILE(V, R) \
    static FR_OWN_FUNCTION void fr_dot14_##V##_##R(const fr_product *p, int64_t v, int64_t row) { fr_int8_tile(p, V, R, FR_FORM_DOT, 14, v, row); }
#define FR_DOT14_NAME(V, R) fr_dot14_##V##_##R,
FR_EACH_PRODUCT(FR_DOT8_TILE)
FR_DOUBLE(FR_DOT14_TILE)
static const fr_product_run fr_dot8_tiles[][V_MOST] = {FR_EACH_PRODUCT_NAME(FR_DOT8_NAME)},
                            fr_dot14_tiles[][V_MOST] = {FR_DOUBLE_NAME(FR_DOT14_NAME)};
static const fr_product_set fr_dot8_set = {fr_dot8_tiles, fr_product_widest, ROWS_MOST, HEIGHT, 1},
                            fr_dot14_set = {fr_dot14_tiles, fr_widest_of_two, 3, HEIGHT / 2, 1};
#if FR_PAIRS
#define FR_SIGNED_TILE(V, R) \
    static FR_OWN_FUNCTION void fr_signed_##V##_##R(const fr_product *p, int64_t v, int64_t row) { fr_int8_tile(p, V, R, FR_FORM_SIGNED, 8, v, row); }
#define FR_SIGNED_NAME(V, R) fr_signed_##V##_##R,
#define FR_WORDS_TILE(V, R) \
    static FR_OWN_FUNCTION void fr_words_##V##_##R(const fr_product *p, int64_t v, int64_t row) { fr_int8_tile(p, V, R, FR_FORM_WORDS, 14, v, row); }
#define FR_WORDS_NAME(V, R) fr_words_##V##_##R,
ROWS_1(FR_SIGNED_TILE, 1)
FR_DOUBLE(FR_WORDS_TILE)
static const fr_product_run fr_signed_tiles[][V_MOST] = {{0}, {ROWS_1(FR_SIGNED_NAME, 1)}},
                            fr_words_tiles[][V_MOST] = {FR_DOUBLE_NAME(FR_WORDS_NAME)};
static const fr_product_set fr_signed_set = {fr_signed_tiles, fr_product_widest, 1, 1, 1},
                            fr_words_set = {fr_words_tiles, fr_widest_of_two, 3, HEIGHT / 2, 1};
#endif

/* One operand after the other, each by its own tiles. */
static void fr_multiply_int8(const fr_product *p, int64_t v, int64_t end, int64_t row, int64_t n_rows) {
    fr_product one = *p;
    one.n_operands = 1;
    for (int n = 0; n < p->n_operands; n++) {
        const fr_quantized *x = p->operand[n].integers;
        one.operand[0] = p->operand[n], one.onto = n > 0;
#if FR_PAIRS
        if (x->form != FR_FORM_DOT) {
            if (x->form == FR_FORM_SIGNED) fr_multiply_by(&fr_signed_set, &one, v, end, row, n_rows);
            else fr_multiply_by(&fr_words_set, &one, v, end, row, n_rows);
            continue;
        }
#endif
        if (x->bits <= 8) fr_multiply_by(&fr_dot8_set, &one, v, end, row, n_rows);
        else fr_multiply_by(&fr_dot14_set, &one, v, end, row, n_rows);
    }
}
#endif
