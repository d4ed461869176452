/* Integers, casts, choices, and moves by index, over arrays of any layout. */
#include "grid.h"

/* y = EXPRESSION of u (from x) and v (from x2), in C's types; sums and products wrap. */
#define INTEGER(name, source, target, EXPRESSION) \
    static void name##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        for (int64_t k = 0; k < row->size; k++) { \
            const source u = ((const source *)a->x)[x + k * row->x], v = ((const source *)a->x2)[x2 + k * row->x2]; \
            (void)v; \
            ((target *)a->y)[y + k * row->y] = (target)(EXPRESSION); \
        } \
    } \
    static void name##_run(const fr_args *a) { fr_walk(a, name##_row); }
/* A quotient by 0 is the dividend and a remainder by it 0, as model/ops/elementwise.py says; by -1 nothing overflows. */
#define INTEGERS(type) \
    INTEGER(add_##type, type, type, (u##type)u + (u##type)v) \
    INTEGER(sub_##type, type, type, (u##type)u - (u##type)v) \
    INTEGER(mul_##type, type, type, (u##type)u *(u##type)v) \
    INTEGER(div_##type, type, type, v == 0 ? u : v == -1 ? (type)(0 - (u##type)u) : u / v) \
    INTEGER(mod_##type, type, type, v == 0 || v == -1 ? 0 : u % v + (u % v && (u % v < 0) != (v < 0) ? v : 0)) \
    INTEGER(fmod_##type, type, type, v == 0 || v == -1 ? 0 : u % v) \
    INTEGER(min_##type, type, type, v < u ? v : u) \
    INTEGER(max_##type, type, type, v > u ? v : u) \
    INTEGER(neg_##type, type, type, 0 - (u##type)u) \
    INTEGER(abs_##type, type, type, u < 0 ? 0 - (u##type)u : (u##type)u) \
    INTEGER(sign_##type, type, type, (u > 0) - (u < 0)) \
    INTEGER(equal_##type, type, uint8_t, u == v) \
    INTEGER(less_##type, type, uint8_t, u < v) \
    INTEGER(less_or_equal_##type, type, uint8_t, u <= v) \
    INTEGER(greater_##type, type, uint8_t, u > v) \
    INTEGER(greater_or_equal_##type, type, uint8_t, u >= v)
INTEGERS(int32_t)
INTEGERS(int64_t)
INTEGER(equal_uint8_t, uint8_t, uint8_t, u == v)

/* Where the byte of x2 is set, y = x. */
#define CHOOSE(bits) \
    static void choose##bits##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        for (int64_t k = 0; k < row->size; k++) \
            if (((const uint8_t *)a->x2)[x2 + k * row->x2]) \
                ((uint##bits##_t *)a->y)[y + k * row->y] = ((const uint##bits##_t *)a->x)[x + k * row->x]; \
    } \
    static void choose##bits##_run(const fr_args *a) { fr_walk(a, choose##bits##_row); }
CHOOSE(8)
CHOOSE(16)
CHOOSE(32)
CHOOSE(64)

/* One number to another, as C converts them; a float that no integer holds becomes the least one, as x86 has it. A bool is a byte. */
#define LEAST_int32_t INT32_MIN
#define LEAST_int64_t INT64_MIN
#define END_int32_t 0x1p31
#define END_int64_t 0x1p63
#define CAST(name, source, target, EXPRESSION) \
    static void cast_##name##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        (void)x2; \
        for (int64_t k = 0; k < row->size; k++) { \
            const source u = ((const source *)a->x)[x + k * row->x]; \
            ((target *)a->y)[y + k * row->y] = (target)(EXPRESSION); \
        } \
    } \
    static void cast_##name##_run(const fr_args *a) { fr_walk(a, cast_##name##_row); }
#define TRUNCATED(name, source, target) CAST(name, source, target, u >= -END_##target && u < END_##target ? (target)u : LEAST_##target)
CAST(uint8_float32, uint8_t, float, u)
CAST(uint8_float64, uint8_t, double, u)
CAST(uint8_int32, uint8_t, int32_t, u)
CAST(uint8_int64, uint8_t, int64_t, u)
CAST(uint8_bool, uint8_t, uint8_t, u != 0)
CAST(int32_float32, int32_t, float, u)
CAST(int32_float64, int32_t, double, u)
CAST(int32_int64, int32_t, int64_t, u)
CAST(int32_uint8, int32_t, uint8_t, u)
CAST(int32_bool, int32_t, uint8_t, u != 0)
CAST(int64_float32, int64_t, float, u)
CAST(int64_float64, int64_t, double, u)
CAST(int64_int32, int64_t, int32_t, u)
CAST(int64_uint8, int64_t, uint8_t, u)
CAST(int64_bool, int64_t, uint8_t, u != 0)
CAST(float32_float64, float, double, u)
CAST(float32_bool, float, uint8_t, u != 0)
CAST(float64_float32, double, float, u)
CAST(float64_bool, double, uint8_t, u != 0)
TRUNCATED(float32_int32, float, int32_t)
TRUNCATED(float32_int64, float, int64_t)
TRUNCATED(float64_int32, double, int32_t)
TRUNCATED(float64_int64, double, int64_t)

/* y = entries of x along an axis of H entries and stride P, by the int64 indices x2, counted from the end where negative. In range: the caller checked. */
FR_INLINE int64_t fr_index(const fr_args *a, int64_t x2) {
    const int64_t index = ((const int64_t *)a->x2)[x2];
    return (index < 0 ? index + a->H : index) * a->P;
}
#define TAKE(bits) \
    static void take##bits##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        uint##bits##_t *to = (uint##bits##_t *)a->y + y; \
        const uint##bits##_t *from = (const uint##bits##_t *)a->x + x; \
        if (!row->x2) { \
            from += fr_index(a, x2); \
            if (row->x == 1 && row->y == 1) memcpy(to, from, (size_t)row->size * sizeof *to); \
            else \
                for (int64_t k = 0; k < row->size; k++) to[k * row->y] = from[k * row->x]; \
        } else \
            for (int64_t k = 0; k < row->size; k++) to[k * row->y] = from[k * row->x + fr_index(a, x2 + k * row->x2)]; \
    } \
    static void take##bits##_run(const fr_args *a) { fr_walk(a, take##bits##_row); } \
    /* The other way: y by index = x. */ \
    static void put##bits##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        for (int64_t k = 0; k < row->size; k++) \
            ((uint##bits##_t *)a->y)[y + k * row->y + fr_index(a, x2 + k * row->x2)] = ((const uint##bits##_t *)a->x)[x + k * row->x]; \
    } \
    static void put##bits##_run(const fr_args *a) { fr_walk(a, put##bits##_row); }
TAKE(8)
TAKE(16)
TAKE(32)
TAKE(64)

/* y (T,) = for each of T rows of I indices x, at strides x_t and x_b, the offset that they name: axes holds I pairs (entries of an axis, its stride). */
static void offsets_run(const fr_args *a) {
    int64_t *to = (int64_t *)a->y;
    for (int64_t t = 0; t < a->T; t++) {
        to[t] = 0;
        for (int64_t k = 0; k < a->I; k++) {
            const int64_t index = ((const int64_t *)a->x)[t * a->x_t + k * a->x_b];
            to[t] += (index < 0 ? index + a->axes[2 * k] : index) * a->axes[2 * k + 1];
        }
    }
}
#undef INTEGER
#undef INTEGERS
#undef CAST
#undef TAKE
