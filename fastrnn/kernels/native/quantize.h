/* Rows of floats as integers times a scale, for products over int8 weights (model/small.py says what each means, and has them in NumPy).
 *
 * q = rint(x scale'), each row with a scale of its own. Of 8 bits: |q| <= 127 over max(1, max|x|), so that rows within 1 all have one scale. Of 14 bits: |q| <= 8191 over
 * max|x|. A row with a NaN or an infinity has a scale of NaN; one with nothing above 2^-100 is zeros.
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
#define FR_LARGE_BITS 14
#define FR_TINY 7.888609052210118e-31f /* 2^-100 */

typedef struct {
    int8_t *q;    /* [row][stride] */
    float *scale; /* [row] */
    int64_t stride, half; /* bytes from row to row, and from the first row of bytes to the second */
    int form, bits;
} fr_quantized;

/* Whether the processor has vi_dot; kernels/isa.py sets it when the module is loaded, and tests. */
static int fr_has_dot = 0;

/* Vectors may be stored whole past the end of a row, or of a segment. */
FR_INLINE int64_t fr_row_of_bytes(int64_t K) { return (K + 2 * LANES - 1) / LANES * LANES; }
FR_INLINE int64_t fr_quantized_bytes(int64_t K, int64_t n_rows) { return n_rows * 2 * fr_row_of_bytes(K) + (n_rows * (int64_t)sizeof(float) + 63) / 64 * 64; }

/* Room for rows of K in memory of fr_quantized_bytes. */
FR_INLINE fr_quantized fr_room_for(void *memory, int64_t K, int64_t n_rows) {
    fr_quantized room = {.scale = memory, .half = fr_row_of_bytes(K), .stride = 2 * fr_row_of_bytes(K)};
    room.q = (int8_t *)memory + (n_rows * (int64_t)sizeof(float) + 63) / 64 * 64;
    return room;
}

/* How the products of n rows of so many bits are computed best here. */
FR_INLINE int fr_form(int bits, int64_t n_rows) {
    if (!FR_PAIRS || fr_has_dot) return FR_FORM_DOT;
    return bits == 8 && n_rows == 1 ? FR_FORM_SIGNED : FR_FORM_WORDS;
}

FR_INLINE void fr_store_row(int8_t *to, int64_t half, vi q, const int form, const int bits) {
#if FR_PAIRS
    if (form == FR_FORM_WORDS) { vi_store_words((int16_t *)to, q); return; }
    if (form == FR_FORM_SIGNED) { vi_store_bytes(to, q); return; }
#endif
    (void)form;
    if (bits == 8) { vi_store_bytes(to, FR_DOT_UNSIGNED ? vi_add(q, vi_set1(128)) : q); return; }
    q = FR_DOT_UNSIGNED ? vi_add(q, vi_set1(8192)) : q;
    vi_store_bytes(to, vi_down(q, 7));
    vi_store_bytes(to + half, vi_and(q, vi_set1(127)));
}

/* The bits of the largest |x| of a row in segments of K; of NaN, more than those of any number. */
FR_INLINE int32_t fr_largest_of(const float *x, int64_t K, int64_t segments, const int64_t *offsets) {
    vi most = vi_zero();
    for (int64_t n = 0; n < segments; n++) {
        const float *from = offsets ? x + offsets[n] : x;
        for (int64_t k = 0; k < K; k += LANES)
            most = vi_max(most, vi_bits(vf_abs(vf_load_tail(from + k, K - k < LANES ? (int)(K - k) : LANES))));
    }
    return vi_largest(most);
}

/* Stores the row multiplied by `factor` and rounded; the bits of its largest |x|. */
FR_INLINE int32_t fr_round_row(const float *x, int64_t K, int64_t segments, const int64_t *offsets, float factor, int8_t *to, int64_t half, const int form, const int bits) {
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

FR_INLINE void fr_quantize_as(const fr_quantized *to, const float *const *x, int64_t K, int64_t segments, const int64_t *offsets, int64_t n_rows, const int form, const int bits) {
    const float top = bits == 8 ? 127.0f : 8191.0f;
    for (int64_t r = 0; r < n_rows; r++) {
        int8_t *q = to->q + r * to->stride;
        /* within 1, as most rows of 8 bits are, one pass does */
        int32_t most = bits == 8 ? fr_round_row(x[r], K, segments, offsets, top, q, to->half, form, bits) : fr_largest_of(x[r], K, segments, offsets);
        float largest, one = 1.0f;
        int32_t bits_of_one;
        memcpy(&largest, &most, sizeof largest);
        memcpy(&bits_of_one, &one, sizeof one);
        if (bits == 8 && most <= bits_of_one) { to->scale[r] = 1.0f / top; continue; }
        if (most >= 0x7f800000) { to->scale[r] = NAN; continue; }
        largest = largest < FR_TINY ? top : largest;
        fr_round_row(x[r], K, segments, offsets, top / largest, q, to->half, form, bits);
        to->scale[r] = largest / top;
    }
}

/* Rows of `segments` times K floats, each from x[row] + offsets[n] on (NULL: one segment, from x[row] on), as integers of 8 or 14 bits. */
static void fr_quantize(fr_quantized *to, int bits, const float *const *x, int64_t K, int64_t segments, const int64_t *offsets, int64_t n_rows) {
    to->bits = bits, to->form = fr_form(bits, n_rows);
    segments = segments ? segments : 1;
#define AS(form, bits) fr_quantize_as(to, x, K, segments, offsets, n_rows, form, bits)
#if FR_PAIRS
    if (to->form == FR_FORM_SIGNED) { AS(FR_FORM_SIGNED, 8); return; }
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
