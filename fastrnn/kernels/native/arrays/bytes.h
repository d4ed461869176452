/* Bytes that stand for numbers, with a scale and a zero point: to and fro, and exact products of them, as ONNX's QuantizeLinear and its like define them. */
#include "grid.h"
#include "multiply.h"

/* y = x / x2 rounded to even, plus the zero point x3, which lies as x2 does, at the ends of the type where it is outside; NaN as 0. */
#define QUANTIZE(type, LEAST, MOST) \
    FR_INLINE type quantize_##type##_one(float x, float scale, float zero) { \
        const float whole = rintf(x / scale); \
        const float at = whole + zero; /* exact wherever it is not outside */ \
        return whole == whole ? (type)(at < LEAST ? LEAST : at > MOST ? MOST : at) : (type)0; \
    } \
    /* whole numbers plus the zero point, as a vector of bytes */ \
    FR_INLINE void quantize_##type##_vector(type *to, vf whole, vf zero) { \
        const vf at = vf_max(vf_set1(LEAST), vf_min(vf_set1(MOST), vf_add(whole, zero))); \
        vi_store_bytes(to, vi_round(vf_select(vf_eq(whole, whole), at, vf_zero()))); \
    } \
    static void quantize_##type##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        const float *from = (const float *)a->x + x, *scale = (const float *)a->x2 + x2; \
        const type *zero = (const type *)a->x3 + x2; \
        type *restrict to = (type *)a->y + y; \
        if (row->y == 1 && row->x == 1 && row->x2 == 0) { \
            const float s = *scale, z = *zero; \
            int64_t k = 0; \
            for (; k + LANES <= row->size; k += LANES) \
                quantize_##type##_vector(to + k, vf_round(vf_div(vf_load(from + k), vf_set1(s))), vf_set1(z)); \
            for (; k < row->size; k++) to[k] = quantize_##type##_one(from[k], s, z); \
        } else \
            for (int64_t k = 0; k < row->size; k++) to[k * row->y] = quantize_##type##_one(from[k * row->x], scale[k * row->x2], zero[k * row->x2]); \
    } \
    static void quantize_##type##_run(const fr_args *a) { fr_walk(a, quantize_##type##_row); }
QUANTIZE(uint8_t, 0.0f, 255.0f)
QUANTIZE(int8_t, -128.0f, 127.0f)

/* y = (x - x3) x2. */
#define DEQUANTIZE(type, LARGE) \
    static void dequantize_##type##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        const type *from = (const type *)a->x + x, *zero = (const type *)a->x3 + x2; \
        const float *scale = (const float *)a->x2 + x2; \
        float *restrict to = a->y + y; \
        if (row->y == 1 && row->x == 1 && row->x2 == 0) { \
            const float s = *scale; \
            const int64_t z = *zero; \
            int64_t k = 0; \
            for (; k + LANES <= row->size && !LARGE; k += LANES) \
                vf_store(to + k, vf_mul(vf_of(vi_sub(vi_of_##type(from + k), vi_set1((int32_t)z))), vf_set1(s))); \
            for (; k < row->size; k++) to[k] = (float)(from[k] - z) * s; \
        } else \
            for (int64_t k = 0; k < row->size; k++) to[k * row->y] = (float)((int64_t)from[k * row->x] - zero[k * row->x2]) * scale[k * row->x2]; \
    } \
    static void dequantize_##type##_run(const fr_args *a) { fr_walk(a, dequantize_##type##_row); }
DEQUANTIZE(uint8_t, 0)
DEQUANTIZE(int8_t, 0)
DEQUANTIZE(int32_t, 1) /* whose difference may take 33 bits */

/* T rows of I floats x, one after the other, to bytes y over each one's range; hn the scales, cn the zero points. */
static void dynamic_quantize_run(const fr_args *a) {
    const int64_t I = a->I;
    for (int64_t t = 0; t < a->T; t++) {
        const float *x = (const float *)a->x + t * I;
        uint8_t *y = (uint8_t *)a->y + t * I;
        fr_range range = {0};
        float scale = NAN;
        int32_t zero = 0;
        fr_widen(&range, x, I);
        if (range.broken) memset(y, 0, (size_t)I); /* what has no range has no bytes either */
        else {
            int64_t k = 0;
            fr_bytes_of(range.low, range.high, &scale, &zero);
            for (; k + LANES <= I; k += LANES) quantize_uint8_t_vector(y + k, vf_round(vf_div(vf_load(x + k), vf_set1(scale))), vf_set1((float)zero));
            for (; k < I; k++) y[k] = quantize_uint8_t_one(x[k], scale, (float)zero);
        }
        a->hn[t] = scale, ((uint8_t *)a->cn)[t] = (uint8_t)zero;
    }
}

/* y (T, B, P H) = (x - zero) (w - its zero points) + bias, x (T, B, P I) of bytes in P groups, segments as a dense layer has them. x_bits: 1 where x is signed;
 * x2: zero points, at x2 + t * x2_t + b * x2_b of row (t, b), NULL for 0. h_bits: 1 where weights have zero points other than 0. w_x: panels of int8 weights with zero points (product_int8.h), bias int32 [block][lane] or NULL.
 * p_bits: 0 where y is int32; else the sums times the scales x3 [unit] of all groups, rounded, plus the zero point x4, as uint8 (1) or int8 (2). */
FR_INLINE int64_t integer_product_width(const fr_args *a) { return (a->chunk ? a->chunk : 1) * a->I; }
FR_INLINE int64_t integer_product_sums(const fr_args *a) { return fr_blocks(a->H) * LANES; } /* of a row, before they are bytes */
static int64_t integer_product_work_bytes(const fr_args *a) {
    return fr_quantized_bytes(integer_product_width(a), MANY_ROWS) + (a->p_bits ? MANY_ROWS * integer_product_sums(a) * (int64_t)sizeof(int32_t) : 0);
}

/* A segment is short, and the library's copy costs a call. */
FR_INLINE void fr_copy_bytes(int8_t *to, const uint8_t *x, int64_t K) {
    int64_t k = 0;
    for (; k + 32 <= K; k += 32) memcpy(to + k, x + k, 32);
    for (; k + 8 <= K; k += 8) memcpy(to + k, x + k, 8);
    for (; k < K; k++) to[k] = (int8_t)x[k];
}

/* n bytes y = int32 x times scales, rounded to even, plus the zero point, at the ends of the type where it is outside. */
#define REQUANTIZE(type, LEAST, MOST) \
    static void requantize_##type(type *y, const int32_t *x, const float *scale, float zero, int64_t n) { \
        int64_t u = 0; \
        for (; u + LANES <= n; u += LANES) \
            quantize_##type##_vector(y + u, vf_round(vf_mul(vf_of(vi_load(x + u)), vf_load(scale + u))), vf_set1(zero)); \
        for (; u < n; u++) { \
            const float at = rintf((float)x[u] * scale[u]) + zero; \
            y[u] = (type)(at < LEAST ? LEAST : at > MOST ? MOST : at); \
        } \
    }
REQUANTIZE(uint8_t, 0.0f, 255.0f)
REQUANTIZE(int8_t, -128.0f, 127.0f)

FR_INLINE int32_t fr_bytes_in_row(const uint8_t *x, int64_t K, int flip, int32_t zero, int8_t *to, const int form, int summed) {
    int32_t sum = 0;
#if FR_PAIRS
    if (form == FR_FORM_WORDS) {
        for (int64_t k = 0; k < K; k++) {
            const int32_t q = (x[k] ^ flip) - zero;
            ((int16_t *)to)[k] = (int16_t)q, sum += q;
        }
        return sum;
    }
#endif
    const int turn = FR_DOT_UNSIGNED ? flip : flip ^ 128;
    if (turn)
        for (int64_t k = 0; k < K; k++) to[k] = (int8_t)(x[k] ^ turn);
    else fr_copy_bytes(to, x, K);
    for (int64_t k = 0; k < K && summed; k++) sum += x[k] ^ flip;
    return sum - (int32_t)K * zero;
}

/* The rows as unsigned bytes and their zero points among those: signed ones are 128 more. */
static void integer_product_rows(const fr_args *a, fr_quantized *to, const uint8_t *const *x, const uint8_t *zeros, int64_t n_rows) {
    const int flip = a->x_bits ? 128 : 0;
    const int64_t segments = a->chunk ? a->chunk : 1, width = segments * a->I;
    to->bits = FR_BYTES_OF_ALL, to->form = fr_form(FR_BYTES_OF_ALL, n_rows), to->block = (width + 3) / 4 * 4;
    for (int64_t r = 0; r < n_rows; r++) {
        int8_t *row = to->q + r * to->stride;
        const int32_t zero = zeros[r] ^ flip;
        to->scale[r] = 1.0f, to->added[r] = FR_DOT_UNSIGNED ? zero : zero - 128, to->sum[r] = 0;
        for (int64_t n = 0; n < segments; n++) {
            const uint8_t *from = x[r] + (a->chunk ? a->axes[n] : 0);
            if (to->form == FR_FORM_WORDS) to->sum[r] += fr_bytes_in_row(from, a->I, flip, zero, row + 2 * n * a->I, FR_FORM_WORDS, 1);
            else to->sum[r] += fr_bytes_in_row(from, a->I, flip, zero, row + n * a->I, FR_FORM_DOT, (int)a->h_bits);
        }
    }
}

static void integer_product_run(const fr_args *a) {
    const int64_t n_rows = a->T * a->B, groups = a->P ? a->P : 1, width = integer_product_width(a), blocks = fr_blocks(a->H);
    const int64_t n_parts = (n_rows + MANY_ROWS - 1) / MANY_ROWS, group_bytes = a->chunk ? a->I : width, y_size = a->p_bits ? 1 : sizeof(int32_t);
    const uint8_t *x[MANY_ROWS], *zero = a->x2;
    uint8_t zeros[MANY_ROWS] = {0};
    char *y[MANY_ROWS];
    float *sums[MANY_ROWS];
    int32_t *room = (int32_t *)((char *)a->work + fr_quantized_bytes(width, MANY_ROWS));
    fr_quantized rows = fr_room_for(a->work, width, MANY_ROWS);
    for (int64_t part = 0; part < n_parts; part++) {
        const int64_t first = n_rows * part / n_parts, n = n_rows * (part + 1) / n_parts - first;
        for (int64_t r = 0, t = first / a->B, b = first % a->B; r < n; r++) {
            x[r] = (const uint8_t *)a->x + t * a->x_t + b * a->x_b, y[r] = (char *)a->y + (t * a->y_t + b * a->y_b) * y_size;
            if (zero) zeros[r] = zero[t * a->x2_t + b * a->x2_b];
            if (++b == a->B) b = 0, t++;
        }
        for (int64_t g = 0; g < groups; g++) {
            const char *panel = (const char *)a->w_x + g * fr_panel_bytes(FR_INT8, FR_BYTES_OF_ALL, a->H, 1, width);
            for (int64_t r = 0; r < n; r++) sums[r] = (float *)(a->p_bits ? (void *)(room + r * integer_product_sums(a)) : (void *)y[r]);
            const fr_product p = {.operand = {{panel, width, .integers = &rows}},
                                  .n_operands = 1,
                                  .gates = 1,
                                  .start = {a->bias ? a->bias + g * blocks * LANES : NULL},
                                  .start_block = {LANES},
                                  .out = sums,
                                  .units = a->p_bits ? integer_product_sums(a) : a->H,
                                  .weights = FR_INT8,
                                  .blocks = blocks,
                                  .whole = 1};
            integer_product_rows(a, &rows, x, zeros, n);
            fr_multiply(&p, 0, blocks, 0, n);
            const float *scale = (const float *)a->x3 + g * a->H;
            for (int64_t r = 0; r < n && a->p_bits; r++)
                if (a->p_bits == 1) requantize_uint8_t((uint8_t *)y[r], (int32_t *)sums[r], scale, *(const uint8_t *)a->x4, a->H);
                else requantize_int8_t((int8_t *)y[r], (int32_t *)sums[r], scale, *(const int8_t *)a->x4, a->H);
            for (int64_t r = 0; r < n; r++) x[r] += group_bytes, y[r] += a->H * y_size;
        }
    }
}
