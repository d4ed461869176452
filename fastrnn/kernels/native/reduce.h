/* Reductions over the innermost of T loops: 16 partial results, element k going to partial k mod 16, put together as a tree; the same for
 * every vector width. */
#include "grid.h"
#include "operations.h"

#define SUMS 16
enum { REDUCE_SUM, REDUCE_SQUARES, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD };

/* n floats at a stride, reduced. `start` changes no result; a NaN stays. */
FR_INLINE float fr_reduce(const int kind, const float start, const float *from, int64_t stride, int64_t n) {
#define COMBINE(u, v) (kind == REDUCE_MAX ? vf_either(u, v, vf_max(u, v)) : kind == REDUCE_MIN ? vf_either(u, v, vf_min(u, v)) : \
                       kind == REDUCE_PROD ? vf_mul(u, v) : vf_add(u, v))
    FR_UNIT(unit);
    (void)unit;
    vf parts[SUMS / LANES];
    for (int s = 0; s < SUMS / LANES; s++) parts[s] = vf_set1(start);
    for (int64_t k = 0; k < n; k += SUMS)
        for (int s = 0; s < SUMS / LANES; s++) {
            const int64_t first = k + s * LANES, left = n - first;
            if (left <= 0) break;
            vf v;
            if (left >= LANES) v = vf_gather(from + first * stride, stride, LANES);
            else {
                float lanes[LANES];
                for (int l = 0; l < LANES; l++) lanes[l] = l < left ? from[(first + l) * stride] : start;
                v = vf_load(lanes);
            }
            v = kind == REDUCE_SQUARES ? vf_mul(v, v) : kind == REDUCE_SUM ? v : FLUSH(v);
            parts[s] = COMBINE(parts[s], v);
        }
    float whole[SUMS + LANES];
    for (int s = 0; s < SUMS / LANES; s++) vf_store(whole + s * LANES, parts[s]);
    if (kind == REDUCE_SUM || kind == REDUCE_SQUARES) {
        for (int half = SUMS / 2; half; half /= 2)
            for (int l = 0; l < half; l++) whole[l] += whole[l + half];
        return whole[0];
    }
    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) vf_store_n(whole + l, COMBINE(vf_set1(whole[l]), vf_set1(whole[l + half])), 1);
    return whole[0];
#undef COMBINE
}
static float fr_sum(const float *from, int64_t stride, int64_t n) { return fr_reduce(REDUCE_SUM, 0.0f, from, stride, n); }

/* y[row] = x reduced over the innermost axis; a sum is divided by scale. */
#define REDUCE(name, KIND, START)                                                                                      \
    static void name##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {                   \
        (void)x2;                                                                                                      \
        const float whole = fr_reduce(KIND, START, (const float *)a->x + x, row->x, row->size);                        \
        a->y[y] = KIND == REDUCE_SUM ? whole / a->scale : whole;                                                       \
    }                                                                                                                  \
    static void name##_run(const fr_args *a) { fr_walk(a, name##_row); }
REDUCE(reduce, REDUCE_SUM, 0.0f)
REDUCE(reduce_squares, REDUCE_SQUARES, 0.0f)
REDUCE(reduce_max, REDUCE_MAX, -INFINITY)
REDUCE(reduce_min, REDUCE_MIN, INFINITY)
REDUCE(reduce_prod, REDUCE_PROD, 1.0f)

/* Integers, exact in any order: y[row] = START OP x ... */
#define REDUCE_INTEGER(name, type, START, STEP)                                                                        \
    static void name##_##type##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {          \
        (void)x2;                                                                                                      \
        u##type whole = (u##type)(START);                                                                              \
        for (int64_t k = 0; k < row->size; k++) {                                                                      \
            const type u = (type)whole, v = ((const type *)a->x)[x + k * row->x];                                      \
            whole = (u##type)(STEP);                                                                                   \
        }                                                                                                              \
        ((type *)a->y)[y] = (type)whole;                                                                               \
    }                                                                                                                  \
    static void name##_##type##_run(const fr_args *a) { fr_walk(a, name##_##type##_row); }
#define REDUCE_INTEGERS(type, LEAST, MOST)                                                                             \
    REDUCE_INTEGER(reduce, type, 0, (u##type)u + (u##type)v)                                                           \
    REDUCE_INTEGER(reduce_prod, type, 1, (u##type)u * (u##type)v)                                                      \
    REDUCE_INTEGER(reduce_max, type, LEAST, v > u ? v : u)                                                             \
    REDUCE_INTEGER(reduce_min, type, MOST, v < u ? v : u)
REDUCE_INTEGERS(int32_t, INT32_MIN, INT32_MAX)
REDUCE_INTEGERS(int64_t, INT64_MIN, INT64_MAX)

/* y = exp(x - max) / sum over the innermost axis. A NaN makes its row NaN. */
static void softmax_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {
    (void)x2;
    const float *from = (const float *)a->x + x;
    float *to = a->y + y;
    const float most = fr_reduce(REDUCE_MAX, -INFINITY, from, row->x, row->size);
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

/* y = (x - max) - log(sum of exp(x - max)): the exponentials lie in y until they are added up. */
static void logsoftmax_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) {
    (void)x2;
    const float *from = (const float *)a->x + x;
    float *to = a->y + y;
    const float most = fr_reduce(REDUCE_MAX, -INFINITY, from, row->x, row->size);
    vf log = vf_zero();
    for (int pass = 0; pass < 2; pass++) {
        if (pass) log = vf_log(vf_set1(fr_sum(to, row->y, row->size)));
        for (int64_t k = 0; k < row->size; k += LANES) {
            const int valid = row->size - k < LANES ? (int)(row->size - k) : LANES;
            const vf v = vf_sub(vf_gather(from + k * row->x, row->x, valid), vf_set1(most));
            vf_scatter(to + k * row->y, row->y, pass ? vf_sub(v, log) : vf_exp(v), valid);
        }
    }
}
static void logsoftmax_run(const fr_args *a) { fr_walk(a, logsoftmax_row); }
