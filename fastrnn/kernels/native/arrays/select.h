/* Entries by rank, and running sums, along the innermost axis. Among floats a NaN is the largest of all, as it is to NumPy. */
#ifndef FASTRNN_SELECT_H
#define FASTRNN_SELECT_H
#include "grid.h"

/* Whether v comes before w from the largest down, and from the least up; equal ones do not. Integers equal themselves, and the compiler drops the rest. */
#define FROM_MOST(v, w) ((v) > (w) || ((v) != (v) && (w) == (w)))
#define FROM_LEAST(v, w) ((v) < (w) || ((w) != (w) && (v) == (v)))
/* To NumPy's argmin a NaN is the least. */
#define BELOW(v, w) ((v) < (w) || ((v) != (v) && (w) == (w)))

/* y[row] = where the largest or least entry stands; P: the last of equal ones. */
#define ARG(name, type, BEFORE) \
    static void name##_##type##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        const type *from = (const type *)a->x + x; \
        int64_t best = a->P ? row->size - 1 : 0; \
        (void)x2; \
        for (int64_t k = 1; k < row->size; k++) { \
            const int64_t at = a->P ? row->size - 1 - k : k; \
            if (BEFORE(from[at * row->x], from[best * row->x])) best = at; \
        } \
        ((int64_t *)a->y)[y] = best; \
    } \
    static void name##_##type##_run(const fr_args *a) { fr_walk(a, name##_##type##_row); }

/* y = where the H largest entries stand, or least (P), in order, the first of equal ones first: a heap whose root is the last of them so far. */
#define TOP(type) \
    FR_INLINE int top_##type##_ahead(const type *from, int64_t stride, int least, int64_t i, int64_t j) { \
        const type v = from[i * stride], w = from[j * stride]; \
        if (least ? FROM_LEAST(v, w) : FROM_MOST(v, w)) return 1; \
        return !(least ? FROM_LEAST(w, v) : FROM_MOST(w, v)) && i < j; \
    } \
    /* Puts entry `one` in at the root of `size` and below. */ \
    static void top_##type##_down(const type *from, int64_t stride, int least, int64_t *heap, int64_t step, int64_t size, int64_t one) { \
        int64_t at = 0; \
        for (int64_t below; (below = 2 * at + 1) < size; at = below) { \
            if (below + 1 < size && top_##type##_ahead(from, stride, least, heap[below * step], heap[(below + 1) * step])) below++; \
            if (top_##type##_ahead(from, stride, least, heap[below * step], one)) break; \
            heap[at * step] = heap[below * step]; \
        } \
        heap[at * step] = one; \
    } \
    static void top_##type##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        const type *from = (const type *)a->x + x; \
        int64_t *heap = (int64_t *)a->y + y; \
        const int64_t stride = row->x, step = row->y, most = a->H; \
        const int least = (int)a->P; \
        (void)x2; \
        for (int64_t k = 0; k < most; k++) { /* up from a leaf */ \
            int64_t at = k; \
            for (int64_t over; at && (over = (at - 1) / 2, top_##type##_ahead(from, stride, least, heap[over * step], k)); at = over) \
                heap[at * step] = heap[over * step]; \
            heap[at * step] = k; \
        } \
        for (int64_t k = most; k < row->size && most; k++) \
            if (top_##type##_ahead(from, stride, least, k, heap[0])) top_##type##_down(from, stride, least, heap, step, most, k); \
        for (int64_t size = most - 1; size > 0; size--) { \
            const int64_t last = heap[size * step]; \
            heap[size * step] = heap[0]; \
            top_##type##_down(from, stride, least, heap, step, size, last); \
        } \
    } \
    static void top_##type##_run(const fr_args *a) { fr_walk(a, top_##type##_row); }

/* y = sums of x up to each entry; P: without the entry itself. One after the other, integers by way of unsigned ones, which wrap around. */
#define RUNNING(type, sum) \
    static void running_##type##_row(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2) { \
        const type *from = (const type *)a->x + x; \
        type *to = (type *)a->y + y; \
        sum total = 0; \
        (void)x2; \
        for (int64_t k = 0; k < row->size; k++) { \
            const sum v = (sum)from[k * row->x]; \
            if (a->P) to[k * row->y] = (type)total; \
            total = k || a->P ? total + v : v; \
            if (!a->P) to[k * row->y] = (type)total; \
        } \
    } \
    static void running_##type##_run(const fr_args *a) { fr_walk(a, running_##type##_row); }

#define SELECT(type, sum) ARG(argmax, type, FROM_MOST) ARG(argmin, type, BELOW) TOP(type) RUNNING(type, sum)
typedef float fr_number;
SELECT(fr_number, float)
SELECT(int32_t, uint32_t)
SELECT(int64_t, uint64_t)
#endif
