/* What a program does when a call brings other sizes: formulas over the free dimensions are evaluated, guards checked, and the work space is
 * laid out anew. Plain C over small arrays: some hundred formulas take about a microsecond. plan/lowering/formulas.py writes the formulas. */
#ifndef FASTRNN_RESIZE_H
#define FASTRNN_RESIZE_H
#include <stdint.h>
#include <string.h>

enum { FR_CONSTANT, FR_DIMENSION, FR_ADD, FR_MULTIPLY, FR_QUOTIENT, FR_REMAINDER, FR_MINIMUM, FR_MAXIMUM, FR_LESS };

typedef struct {
    int32_t operation, a, b; /* on which earlier values */
} fr_formula;

typedef struct {
    int32_t value, zero, holds; /* whether the value is zero, else whether it is positive */
} fr_guard;

#define FR_TOO_LARGE INT64_MAX /* more than any memory: refused where it is a size of it */

static inline int64_t fr_floor(int64_t a, int64_t b) {
    int64_t q = b ? a / b : 0;
    return b && a % b && (a < 0) != (b < 0) ? q - 1 : q;
}

/* Values first..n-1; constants and dimensions are there already. */
static inline void fr_evaluate(const fr_formula *formulas, int64_t *values, int first, int n) {
    for (int k = first; k < n; k++) {
        const int64_t a = values[formulas[k].a], b = values[formulas[k].b];
        switch (formulas[k].operation) {
        case FR_ADD:
            values[k] = __builtin_add_overflow(a, b, values + k) ? FR_TOO_LARGE : values[k];
            break;
        case FR_MULTIPLY:
            values[k] = __builtin_mul_overflow(a, b, values + k) ? FR_TOO_LARGE : values[k];
            break;
        case FR_QUOTIENT:
            values[k] = fr_floor(a, b);
            break;
        case FR_REMAINDER:
            values[k] = a - fr_floor(a, b) * b;
            break;
        case FR_MINIMUM:
            values[k] = a < b ? a : b;
            break;
        case FR_MAXIMUM:
            values[k] = a > b ? a : b;
            break;
        case FR_LESS:
            values[k] = a < b;
            break;
        default:
            break;
        }
    }
}

static inline int fr_guards_hold(const fr_guard *guards, int n, const int64_t *values) {
    for (int k = 0; k < n; k++)
        if ((guards[k].zero ? values[guards[k].value] == 0 : values[guards[k].value] > 0) != guards[k].holds) return 0;
    return 1;
}

#define FR_ALIGNED(nbytes) (((nbytes) + 63) / 64 * 64)

typedef struct {
    int64_t start, length;
} fr_range;

/* Offsets of blocks of these bytes, first fit: events say in turn which block is taken (k + 1) and which is given back (-k - 1). Returns the
 * bytes needed. free: room for as many ranges as there are events. */
static inline int64_t fr_lay_out(const int32_t *events, int n, const int64_t *nbytes, int64_t *offsets, fr_range *free) {
    int64_t end = 0;
    int n_free = 0;
    for (int e = 0; e < n; e++) {
        const int block = (events[e] > 0 ? events[e] : -events[e]) - 1;
        const int64_t wanted = FR_ALIGNED(nbytes[block] > 0 ? nbytes[block] : 1);
        int k = 0;
        if (events[e] > 0) {
            while (k < n_free && free[k].length < wanted) k++;
            if (k == n_free) {
                offsets[block] = end;
                end += wanted;
            } else {
                offsets[block] = free[k].start;
                free[k].start += wanted;
                free[k].length -= wanted;
                if (!free[k].length) memmove(free + k, free + k + 1, (size_t)(--n_free - k) * sizeof(fr_range));
            }
            continue;
        }
        const int64_t start = offsets[block];
        while (k < n_free && free[k].start < start) k++;
        const int before = k > 0 && free[k - 1].start + free[k - 1].length == start, after = k < n_free && start + wanted == free[k].start;
        if (before && after) {
            free[k - 1].length += wanted + free[k].length;
            memmove(free + k, free + k + 1, (size_t)(--n_free - k) * sizeof(fr_range));
        } else if (before) {
            free[k - 1].length += wanted;
        } else if (after) {
            free[k].start = start;
            free[k].length += wanted;
        } else {
            memmove(free + k + 1, free + k, (size_t)(n_free++ - k) * sizeof(fr_range));
            free[k].start = start;
            free[k].length = wanted;
        }
    }
    return end;
}
#endif
