/* Rows of floats as integers times a scale, for products over int8 weights (model/small.py says what each means, and has them in NumPy).
 *
 * q = rint(x scale'), each row with a scale of its own. Of 8 bits: |q| <= 127 over max(1, max|x|), so that rows within 1 all have one scale. Of 14 bits: |q| <= 8191 over
 * max|x|. A row with a NaN or an infinity has a scale of NaN; one with nothing above 2^-100 is zeros.
 *
 * And as ONNX's DynamicQuantizeLinear does: q = min(255, rint(x / scale) + zero), 0 to 255 over the range of what is there and 0, of each row or of all rows.
 *
 * How the integers lie (form) is for the way that they are multiplied: */
#ifndef FASTRNN_QUANTIZE_H
#define FASTRNN_QUANTIZE_H
#include "simd_integers.h"

enum {
    FR_FORM_DOT,    /* bytes for vi_dot; 14 bits in two rows of bytes, q / 128 and the rest */
    FR_FORM_SIGNED, /* bytes for vi_dot_signed */
    FR_FORM_WORDS,  /* int16 for vi_pairs */
};
/* What may stand for bits: 8, 14, or bytes with a zero point, of all rows together or of each. */
#define FR_LARGE_BITS 14
#define FR_BYTES_OF_ALL 0
#define FR_BYTES_OF_ROW 1
#define FR_TINY 7.888609052210118e-31f /* 2^-100 */

typedef struct {
    int8_t *q;    /* [row][stride] */
    float *scale; /* [row] */
    int32_t *added,
        *sum; /* [row]: what makes bytes of 8 bits unsigned, or their zero point; and of bytes with a zero point, the sum of a row without it */
    int64_t stride, half; /* bytes from row to row, and from the first row of bytes to the second */
    int64_t block;        /* of k that are summed at once */
    int form, bits;
} fr_quantized;

/* Whether the processor has vi_dot; kernels/isa.py sets it when the module is loaded, and tests. */
static int fr_has_dot = 0;

/* Vectors may be stored whole past the end of a row, or of a segment. */
FR_INLINE int64_t fr_row_of_bytes(int64_t K) { return (K + 2 * LANES - 1) / LANES * LANES; }
FR_INLINE int64_t fr_quantized_head(int64_t n_rows) { return (3 * n_rows * (int64_t)sizeof(float) + 63) / 64 * 64; }
FR_INLINE int64_t fr_quantized_bytes(int64_t K, int64_t n_rows) { return n_rows * 2 * fr_row_of_bytes(K) + fr_quantized_head(n_rows); }

/* Room for rows of K in memory of fr_quantized_bytes. */
FR_INLINE fr_quantized fr_room_for(void *memory, int64_t K, int64_t n_rows) {
    int32_t *numbers = memory;
    return (fr_quantized){.scale = memory,
                          .added = numbers + n_rows,
                          .sum = numbers + 2 * n_rows,
                          .half = fr_row_of_bytes(K),
                          .stride = 2 * fr_row_of_bytes(K),
                          .q = (int8_t *)memory + fr_quantized_head(n_rows)};
}

/* How the products of n rows of so many bits are computed best here. */
FR_INLINE int fr_form(int bits, int64_t n_rows) {
    if (!FR_PAIRS || fr_has_dot) return FR_FORM_DOT;
    return bits == 8 && n_rows == 1 ? FR_FORM_SIGNED : FR_FORM_WORDS;
}

FR_INLINE void fr_store_row(int8_t *to, int64_t half, vi q, const int form, const int bits) {
#if FR_PAIRS
    if (form == FR_FORM_WORDS) {
        vi_store_words((int16_t *)to, q);
        return;
    }
    if (form == FR_FORM_SIGNED) {
        vi_store_bytes(to, q);
        return;
    }
#endif
    (void)form;
    if (bits == 8) {
        vi_store_bytes(to, FR_DOT_UNSIGNED ? vi_add(q, vi_set1(128)) : q);
        return;
    }
    q = FR_DOT_UNSIGNED ? vi_add(q, vi_set1(8192)) : q;
    vi_store_bytes(to, vi_down(q, 7));
    vi_store_bytes(to + half, vi_and(q, vi_set1(127)));
}

/* The bits of the largest |x| of a row in segments of K; of NaN, more than those of any number. */
FR_INLINE int32_t fr_largest_of(const float *x, int64_t K, int64_t segments, const int64_t *offsets) {
    vi most = vi_zero();
    for (int64_t n = 0; n < segments; n++) {
        const float *from = offsets ? x + offsets[n] : x;
        for (int64_t k = 0; k < K; k += LANES) most = vi_max(most, vi_bits(vf_abs(vf_load_tail(from + k, K - k < LANES ? (int)(K - k) : LANES))));
    }
    return vi_largest(most);
}

/* Stores the row multiplied by `factor` and rounded; the bits of its largest |x|. */
FR_INLINE int32_t fr_round_row(const float *x, int64_t K, int64_t segments, const int64_t *offsets, float factor, int8_t *to, int64_t half,
                               const int form, const int bits) {
    const int step = form == FR_FORM_WORDS ? 2 : 1;
    const vf by = vf_set1(factor);
    vi most = vi_zero();
    for (int64_t n = 0; n < segments; n++, to += step * K) {
        const float *from = offsets ? x + offsets[n] : x;
        for (int64_t k = 0; k < K; k += LANES) {
            const vf v = vf_load_tail(from + k, K - k < LANES ? (int)(K - k) : LANES);
            most = vi_max(most, vi_bits(vf_abs(v)));
            fr_store_row(to + step * k, half, vi_round(vf_mul(v, by)), form, bits);
        }
    }
    return vi_largest(most);
}

FR_INLINE void fr_quantize_as(const fr_quantized *to, const float *const *x, int64_t K, int64_t segments, const int64_t *offsets, int64_t n_rows,
                              const int form, const int bits) {
    const float top = bits == 8 ? 127.0f : 8191.0f;
    for (int64_t r = 0; r < n_rows; r++) {
        to->added[r] = FR_DOT_UNSIGNED && bits == 8 ? 128 : 0;
        int8_t *q = to->q + r * to->stride;
        /* within 1, as most rows of 8 bits are, one pass does */
        int32_t most = bits == 8 ? fr_round_row(x[r], K, segments, offsets, top, q, to->half, form, bits) : fr_largest_of(x[r], K, segments, offsets);
        float largest, one = 1.0f;
        int32_t bits_of_one;
        memcpy(&largest, &most, sizeof largest);
        memcpy(&bits_of_one, &one, sizeof one);
        if (bits == 8 && most <= bits_of_one) {
            to->scale[r] = 1.0f / top;
            continue;
        }
        if (most >= 0x7f800000) {
            to->scale[r] = NAN;
            continue;
        }
        largest = largest < FR_TINY ? top : largest;
        fr_round_row(x[r], K, segments, offsets, top / largest, q, to->half, form, bits);
        to->scale[r] = largest / top;
    }
}

/* What rows lie within, and 0; broken: one has a NaN or an infinity. */
typedef struct {
    float low, high;
    int broken;
} fr_range;

FR_INLINE void fr_widen(fr_range *range, const float *x, int64_t K) {
    vf least = vf_set1(range->low), most = vf_set1(range->high);
    float lanes[2][LANES];
    if (fr_largest_of(x, K, 1, NULL) >= 0x7f800000) range->broken = 1;
    for (int64_t k = 0; k < K; k += LANES) {
        const vf v = K - k < LANES ? vf_load_n(x + k, (int)(K - k)) : vf_load(x + k); /* zeros behind the end are within the range */
        least = vf_min(v, least), most = vf_max(v, most);
    }
    vf_store(lanes[0], least), vf_store(lanes[1], most);
    for (int l = 0; l < LANES; l++) {
        if (lanes[0][l] < range->low) range->low = lanes[0][l];
        if (lanes[1][l] > range->high) range->high = lanes[1][l];
    }
}

/* DynamicQuantizeLinear's scale and zero point of a range that holds 0. */
FR_INLINE void fr_bytes_of(float low, float high, float *scale, int32_t *zero) {
    *scale = (high - low) / 255.0f;
    if (!(*scale > 0.0f) && !(*scale < 0.0f)) *scale = 1.0f;
    const float at = rintf(-low / *scale);
    *zero = at < 0.0f ? 0 : at > 255.0f ? 255 : (int32_t)at;
}

/* A row as bytes with a zero point. */
FR_INLINE void fr_bytes_row(const float *x, int64_t K, float scale, int32_t zero, int8_t *to, int32_t *sum, const int form) {
    const vf by = vf_set1(scale), shift = vf_set1((float)zero);
    vi total = vi_zero();
    int32_t lanes[LANES];
    for (int64_t k = 0; k < K; k += LANES) {
        const int n = K - k < LANES ? (int)(K - k) : LANES;
        vf v = vf_add(vf_round(vf_div(vf_load_tail(x + k, n), by)), shift); /* whole numbers, so that the sum is exact where it is not cut off */
        v = vf_max(vf_zero(), vf_min(vf_set1(255.0f), v));
        const vi q = vi_sub(vi_round(v), vi_set1(zero)); /* 0 of what is behind the end */
        total = vi_add(total, q);
#if FR_PAIRS
        if (form == FR_FORM_WORDS) {
            vi_store_words((int16_t *)to + k, q);
            continue;
        }
#endif
        vi_store_bytes(to + k, vi_add(q, vi_set1(FR_DOT_UNSIGNED ? zero : zero - 128)));
    }
    vi_store(lanes, total);
    *sum = 0;
    for (int l = 0; l < LANES; l++) *sum += lanes[l];
}

/* Rows as bytes, over the range that is given, or (NULL) each over its own. What is no number makes NaN of its row, or of all. */
static void fr_quantize_bytes(fr_quantized *to, const float *const *x, int64_t K, int64_t n_rows, const fr_range *range) {
    for (int64_t r = 0; r < n_rows; r++) {
        fr_range own = {0};
        float scale;
        int32_t zero;
        if (!range) fr_widen(&own, x[r], K);
        const fr_range *used = range ? range : &own;
        if (used->broken) {
            to->scale[r] = NAN, to->added[r] = to->sum[r] = 0;
            continue;
        }
        fr_bytes_of(used->low, used->high, &scale, &zero);
        to->scale[r] = scale, to->added[r] = FR_DOT_UNSIGNED ? zero : zero - 128;
#if FR_PAIRS
        if (to->form == FR_FORM_WORDS) {
            fr_bytes_row(x[r], K, scale, zero, to->q + r * to->stride, to->sum + r, FR_FORM_WORDS);
            continue;
        }
#endif
        fr_bytes_row(x[r], K, scale, zero, to->q + r * to->stride, to->sum + r, FR_FORM_DOT);
    }
}

#define FR_K_BLOCK 2048 /* 8191 * 127 * 2048 < 2^31 */

/* Rows of `segments` times K floats, each from x[row] + offsets[n] on (NULL: one segment, from x[row] on), as integers. range: of bytes over all rows, where
 * there are more than these. */
static void fr_quantize(fr_quantized *to, int bits, const float *const *x, int64_t K, int64_t segments, const int64_t *offsets, int64_t n_rows,
                        const fr_range *range) {
    to->bits = bits, to->form = fr_form(bits, n_rows), to->block = FR_K_BLOCK;
    segments = segments ? segments : 1;
    if (bits < 8) {
        fr_range all = {0};
        for (int64_t r = 0; r < n_rows && bits == FR_BYTES_OF_ALL && !range; r++) fr_widen(&all, x[r], K);
        to->block = (K + 3) / 4 * 4;
        fr_quantize_bytes(to, x, K, n_rows, bits == FR_BYTES_OF_ROW ? NULL : range ? range : &all);
        return;
    }
#define AS(form, bits) fr_quantize_as(to, x, K, segments, offsets, n_rows, form, bits)
#if FR_PAIRS
    if (to->form == FR_FORM_SIGNED) {
        AS(FR_FORM_SIGNED, 8);
        return;
    }
    if (to->form == FR_FORM_WORDS) {
        if (bits == 8) AS(FR_FORM_WORDS, 8);
        else AS(FR_FORM_WORDS, 14);
        return;
    }
#endif
    if (bits == 8) AS(FR_FORM_DOT, 8);
    else AS(FR_FORM_DOT, 14);
#undef AS
}
#endif
