/* Kernels over arrays of any layout: copies, arithmetic with broadcasting, reductions. `axes` lists T loops, outermost first, each with
 * its size and its stride in elements for y, x and x2; a stride of 0 repeats, a negative one runs backwards. */
#include "activations.h"
#include "rows.h"

typedef struct { int64_t size, y, x, x2; } fr_axis;
typedef void (*fr_row)(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2);

/* Calls `row` for the innermost axis at every position of the others. */
static void fr_walk(const fr_args *a, fr_row row) {
    const fr_axis *axis = (const fr_axis *)a->axes;
    const int outer = (int)a->T - 1;
    int64_t at[16] = {0}, y = 0, x = 0, x2 = 0;
    for (int d = 0; d <= outer; d++)
        if (!axis[d].size) return;
    for (;;) {
        row(a, axis + outer, y, x, x2);
        int d = outer - 1;
        for (; d >= 0; d--) {
            y += axis[d].y, x += axis[d].x, x2 += axis[d].x2;
            if (++at[d] < axis[d].size) break;
            at[d] = 0;
            y -= axis[d].size * axis[d].y, x -= axis[d].size * axis[d].x, x2 -= axis[d].size * axis[d].x2;
        }
        if (d < 0) return;
    }
}

#define COPY(bits)                                                                                                     \
    static void copy##bits##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {             \
        (void)x2;                                                                                                      \
        uint##bits##_t *to = (uint##bits##_t *)a->y + y;                                                               \
        const uint##bits##_t *from = (const uint##bits##_t *)a->x + x;                                                 \
        if (row->x == 1 && row->y == 1) memcpy(to, from, (size_t)row->size * sizeof *to);                              \
        else for (int64_t k = 0; k < row->size; k++) to[k * row->y] = from[k * row->x];                                \
    }                                                                                                                  \
    static void copy##bits##_run(const fr_args *a) { fr_walk(a, copy##bits##_row); }
COPY(8)
COPY(16)
COPY(32)
COPY(64)

/* `valid` elements at a stride into a vector, and back. */
FR_INLINE vf vf_gather(const float *p, int64_t stride, int valid) {
    if (stride == 1) return vf_load_tail(p, valid);
    if (stride == 0) return vf_set1(*p);
    float lanes[LANES] = {0};
    for (int l = 0; l < valid; l++) lanes[l] = p[l * stride];
    return vf_load(lanes);
}
FR_INLINE void vf_scatter(float *p, int64_t stride, vf v, int valid) {
    if (stride == 1) { vf_store_tail(p, v, valid); return; }
    float lanes[LANES];
    vf_store(lanes, v);
    for (int l = 0; l < valid; l++) p[l * stride] = lanes[l];
}

/* y = EXPRESSION of u (from x) and v (from x2). */
#define POINTWISE(name, EXPRESSION)                                                                                    \
    static void name##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {                   \
        const float *from = (const float *)a->x + x, *from2 = (const float *)a->x2 + x2;                               \
        float *to = a->y + y;                                                                                          \
        for (int64_t k = 0; k < row->size; k += LANES) {                                                               \
            const int valid = row->size - k < LANES ? (int)(row->size - k) : LANES;                                    \
            const vf u = vf_gather(from + k * row->x, row->x, valid), v = vf_gather(from2 + k * row->x2, row->x2, valid); \
            (void)v;                                                                                                   \
            vf_scatter(to + k * row->y, row->y, EXPRESSION, valid);                                                    \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_run(const fr_args *a) { fr_walk(a, name##_row); }
POINTWISE(add, vf_add(u, v))
POINTWISE(sub, vf_sub(u, v))
POINTWISE(mul, vf_mul(u, v))
POINTWISE(div, vf_div(u, v))
POINTWISE(prelu, vf_select(vf_lt(u, vf_zero()), vf_mul(v, u), u))
POINTWISE(sqrt, vf_sqrt(u))
/* act[0](scale x). Elsewhere an activation's input comes out of an FMA that flushed subnormals; here the product with scale does, since
 * minimum, maximum and select pass them on or not as the instruction set likes. */
POINTWISE(map, vf_activate(&a->act[0], vf_mul(u, vf_set1(a->scale))))
/* 1 / (1 + exp(-x)): right to a few ulp where it nears 0, as what a network gives should be; gates take vf_sigmoid, which is absolute. */
POINTWISE(sigmoid, vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), u)))))
POINTWISE(clip, vf_max(vf_set1(a->act[0].alpha), vf_min(vf_set1(a->act[0].beta), u)))

/* The sum of n floats at a stride: 16 partial sums, element k going to sum k mod 16, added up as a tree; the same for every vector width. */
#define SUMS 16
static float fr_sum(const float *from, int64_t stride, int64_t n) {
    vf sums[SUMS / LANES];
    for (int s = 0; s < SUMS / LANES; s++) sums[s] = vf_zero();
    for (int64_t k = 0; k < n; k += SUMS)
        for (int s = 0; s < SUMS / LANES; s++) {
            const int64_t start = k + s * LANES, left = n - start;
            if (left <= 0) break;
            const int valid = left < LANES ? (int)left : LANES;
            vf v = vf_gather(from + start * stride, stride, valid);
            if (valid < LANES && stride == 0) { /* a repeated element fills the vector past its end */
                float lanes[LANES] = {0};
                for (int l = 0; l < valid; l++) lanes[l] = *from;
                v = vf_load(lanes);
            }
            sums[s] = vf_add(sums[s], v);
        }
    float whole[SUMS];
    for (int s = 0; s < SUMS / LANES; s++) vf_store(whole + s * LANES, sums[s]);
    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) whole[l] += whole[l + half];
    return whole[0];
}

/* y[row] = the sum of x over the innermost axis, divided by scale. */
static void reduce_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {
    (void)x2;
    a->y[y] = fr_sum((const float *)a->x + x, row->x, row->size) / a->scale;
}
static void reduce_run(const fr_args *a) { fr_walk(a, reduce_row); }

/* y = exp(x - max) / sum over the innermost axis. A NaN makes its row NaN. */
static void softmax_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {
    (void)x2;
    const float *from = (const float *)a->x + x;
    float *to = a->y + y, most = from[0];
    for (int64_t k = 1; k < row->size; k++) most = from[k * row->x] > most ? from[k * row->x] : most;
    for (int pass = 0; pass < 2; pass++) {
        const vf operand = vf_set1(pass ? fr_sum(to, row->y, row->size) : most);
        for (int64_t k = 0; k < row->size; k += LANES) {
            const int valid = row->size - k < LANES ? (int)(row->size - k) : LANES;
            const vf v = pass ? vf_gather(to + k * row->y, row->y, valid) : vf_gather(from + k * row->x, row->x, valid);
            vf_scatter(to + k * row->y, row->y, pass ? vf_div(v, operand) : vf_exp(vf_sub(v, operand)), valid);
        }
    }
}
static void softmax_run(const fr_args *a) { fr_walk(a, softmax_row); }

/* Integers to another number, as C converts them. A bool is a byte. */
#define CAST(name, source, target)                                                                                     \
    static void cast_##name##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {            \
        (void)x2;                                                                                                      \
        for (int64_t k = 0; k < row->size; k++)                                                                        \
            ((target *)a->y)[y + k * row->y] = (target)((const source *)a->x)[x + k * row->x];                         \
    }                                                                                                                  \
    static void cast_##name##_run(const fr_args *a) { fr_walk(a, cast_##name##_row); }
CAST(uint8_float32, uint8_t, float)
CAST(uint8_int64, uint8_t, int64_t)
CAST(int32_float32, int32_t, float)
CAST(int32_int64, int32_t, int64_t)
CAST(int64_float32, int64_t, float)
CAST(int64_int32, int64_t, int32_t)
