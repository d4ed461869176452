/* Reductions over the innermost of T loops: 16 partial results, element k going to partial k mod 16, put together as a tree; the same for
 * every vector width. */
#include "grid.h"
#include "operations.h"

#define SUMS 16
enum { REDUCE_SUM, REDUCE_SQUARES, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD };

/* The sum of the partial sums. */
FR_INLINE float fr_whole(const vf *parts) {
    float whole[SUMS];
    for (int s = 0; s < SUMS / LANES; s++) vf_store(whole + s * LANES, parts[s]);
    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) whole[l] += whole[l + half];
    return whole[0];
}

#define COMBINE(u, v) \
    (kind == REDUCE_MAX    ? vf_either(u, v, vf_max(u, v)) \
     : kind == REDUCE_MIN  ? vf_either(u, v, vf_min(u, v)) \
     : kind == REDUCE_PROD ? vf_mul(u, v) \
                           : vf_add(u, v))
#define TAKEN(v) (kind == REDUCE_SQUARES ? vf_mul(v, v) : kind == REDUCE_SUM ? v : FLUSH(v))

/* n floats at a stride, reduced. `start` changes no result; a NaN stays. */
FR_INLINE float fr_reduce(const int kind, const float start, const float *from, int64_t stride, int64_t n) {
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
            parts[s] = COMBINE(parts[s], TAKEN(v));
        }
    if (kind == REDUCE_SUM || kind == REDUCE_SQUARES) return fr_whole(parts);
    float whole[SUMS + LANES];
    for (int s = 0; s < SUMS / LANES; s++) vf_store(whole + s * LANES, parts[s]);
    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) vf_store_n(whole + l, COMBINE(vf_set1(whole[l]), vf_set1(whole[l + half])), 1);
    return whole[0];
}

/* The same of `valid` rows that lie side by side, each in a lane, with the partial results that it has alone. */
FR_INLINE vf fr_reduce_beside(const int kind, const float start, const float *from, int64_t stride, int64_t n, int valid) {
    FR_UNIT(unit);
    (void)unit;
    vf parts[SUMS];
    UNROLL for (int s = 0; s < SUMS; s++) parts[s] = vf_set1(start);
    for (int64_t k = 0; k < n; k += SUMS) UNROLL for (int s = 0; s < SUMS; s++) {
            if (k + s == n) break;
            const vf v = vf_load_tail(from + (k + s) * stride, valid);
            parts[s] = COMBINE(parts[s], TAKEN(v));
        }
    UNROLL for (int half = SUMS / 2; half; half /= 2) UNROLL for (int l = 0; l < half; l++) parts[l] = COMBINE(parts[l], parts[l + half]);
    return parts[0];
}
#undef COMBINE
#undef TAKEN

/* y[row] = x reduced over the innermost axis; a sum is divided by scale. Rows that lie across the memory are taken LANES at a time where the next axis goes along it. */
#define REDUCE(name, KIND, START) \
    static void name##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        (void)x2; \
        const float whole = fr_reduce(KIND, START, (const float *)a->x + x, row->x, row->size); \
        a->y[y] = KIND == REDUCE_SUM ? whole / a->scale : whole; \
    } \
    static void name##_run(const fr_args *a) { \
        const fr_axis *row = (const fr_axis *)a->axes + a->T - 1, *next = row - 1; \
        fr_place at = {{0}, 0, 0, 0}; \
        if (a->T < 2 || row->x == 1 || next->x != 1) { \
            fr_walk(a, name##_row); \
            return; \
        } \
        if (fr_empty(a)) return; \
        do \
            for (int64_t first = 0; first < next->size; first += LANES) { \
                const int valid = next->size - first < LANES ? (int)(next->size - first) : LANES; \
                const vf whole = fr_reduce_beside(KIND, START, (const float *)a->x + at.x + first, row->x, row->size, valid); \
                vf_scatter(a->y + at.y + first * next->y, next->y, KIND == REDUCE_SUM ? vf_div(whole, vf_set1(a->scale)) : whole, valid); \
            } \
        while (fr_next(a, &at, (int)a->T - 2)); \
    }
REDUCE(reduce, REDUCE_SUM, 0.0f)
REDUCE(reduce_squares, REDUCE_SQUARES, 0.0f)
REDUCE(reduce_max, REDUCE_MAX, -INFINITY)
REDUCE(reduce_min, REDUCE_MIN, INFINITY)
REDUCE(reduce_prod, REDUCE_PROD, 1.0f)

/* Integers, exact in any order: y[row] = START OP x ... */
#define REDUCE_INTEGER(name, type, START, STEP) \
    static void name##_##type##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        (void)x2; \
        u##type whole = (u##type)(START); \
        for (int64_t k = 0; k < row->size; k++) { \
            const type u = (type)whole, v = ((const type *)a->x)[x + k * row->x]; \
            whole = (u##type)(STEP); \
        } \
        ((type *)a->y)[y] = (type)whole; \
    } \
    static void name##_##type##_run(const fr_args *a) { fr_walk(a, name##_##type##_row); }
#define REDUCE_INTEGERS(type, LEAST, MOST) \
    REDUCE_INTEGER(reduce, type, 0, (u##type)u + (u##type)v) \
    REDUCE_INTEGER(reduce_prod, type, 1, (u##type)u *(u##type)v) \
    REDUCE_INTEGER(reduce_max, type, LEAST, v > u ? v : u) \
    REDUCE_INTEGER(reduce_min, type, MOST, v < u ? v : u)
REDUCE_INTEGERS(int32_t, INT32_MIN, INT32_MAX)
REDUCE_INTEGERS(int64_t, INT64_MIN, INT64_MAX)

/* The largest of n floats; any of them where some are NaN. Four vectors at once, since each waits for the one before. */
FR_INLINE float fr_most(const float *from, int64_t stride, int64_t n) {
    vf parts[4];
    for (int s = 0; s < 4; s++) parts[s] = vf_set1(-INFINITY);
    int64_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES)
        UNROLL for (int s = 0; s < 4; s++) parts[s] = vf_max(parts[s], vf_gather(from + (k + s * LANES) * stride, stride, LANES));
    for (; k < n; k += LANES) {
        const int valid = n - k < LANES ? (int)(n - k) : LANES;
        parts[0] = vf_max(parts[0], vf_first(vf_gather(from + k * stride, stride, valid), valid, -INFINITY));
    }
    float most[LANES];
    vf_store(most, vf_max(vf_max(parts[0], parts[1]), vf_max(parts[2], parts[3])));
    for (int half = LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) most[l] = most[l] > most[l + half] ? most[l] : most[l + half];
    return most[0];
}

/* y = exp(x - most) over n floats at strides; their sum, its partial results as in fr_reduce. */
FR_INLINE float fr_exponentials(float *to, int64_t y, const float *from, int64_t x, int64_t n, float most) {
    const vf top = vf_set1(most);
    vf parts[SUMS / LANES];
    for (int s = 0; s < SUMS / LANES; s++) parts[s] = vf_zero();
    for (int64_t k = 0; k < n; k += SUMS) UNROLL for (int s = 0; s < SUMS / LANES; s++) {
            const int64_t at = k + s * LANES;
            const int valid = n - at < LANES ? (int)(n - at) : LANES;
            if (valid <= 0) break;
            const vf e = vf_exp_falling(vf_sub(vf_gather(from + at * x, x, valid), top));
            vf_scatter(to + at * y, y, e, valid);
            parts[s] = vf_add(parts[s], vf_first(e, valid, 0.0f));
        }
    return fr_whole(parts);
}

/* y = exp(x - max) / sum over n floats at strides. A NaN makes all NaN: one of the exponentials is, so the sum. */
FR_INLINE void fr_softmax(float *to, int64_t y, const float *from, int64_t x, int64_t n) {
    const vf share = vf_set1(1.0f / fr_exponentials(to, y, from, x, n, fr_most(from, x, n)));
    for (int64_t k = 0; k < n; k += LANES) {
        const int valid = n - k < LANES ? (int)(n - k) : LANES;
        vf_scatter(to + k * y, y, vf_mul(vf_gather(to + k * y, y, valid), share), valid);
    }
}

/* y = (x - max) - log(sum of exp(x - max)): the exponentials lie in y until they are added up. */
FR_INLINE void fr_logsoftmax(float *to, int64_t y, const float *from, int64_t x, int64_t n) {
    const float most = fr_most(from, x, n);
    const vf top = vf_set1(most), log = vf_log(vf_set1(fr_exponentials(to, y, from, x, n, most)));
    for (int64_t k = 0; k < n; k += LANES) {
        const int valid = n - k < LANES ? (int)(n - k) : LANES;
        vf_scatter(to + k * y, y, vf_sub(vf_sub(vf_gather(from + k * x, x, valid), top), log), valid);
    }
}

/* Over the innermost axis; of rows that lie side by side the compiler knows it. */
#define SOFTMAX(name) \
    static void name##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        const float *from = (const float *)a->x + x; \
        (void)x2; \
        if (row->x == 1 && row->y == 1) fr_##name(a->y + y, 1, from, 1, row->size); \
        else fr_##name(a->y + y, row->y, from, row->x, row->size); \
    } \
    static void name##_run(const fr_args *a) { fr_walk(a, name##_row); }
SOFTMAX(softmax)
SOFTMAX(logsoftmax)
