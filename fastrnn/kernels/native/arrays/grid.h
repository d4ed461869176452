/* Arrays of any layout: the walk, copies, vectors at a stride. `axes` lists T loops, outermost first, each with
 * its size and its stride in elements for y, x and x2; a stride of 0 repeats, a negative one runs backwards. */
#ifndef FASTRNN_GRID_H
#define FASTRNN_GRID_H
#include "rows.h"

typedef struct {
    int64_t size, y, x, x2;
} fr_axis;
typedef void (*fr_row)(const fr_args *a, const fr_axis *row, int64_t y, int64_t x, int64_t x2);

/* A position in the outer loops: entries of each, and elements of y, x and x2. */
typedef struct {
    int64_t at[16], y, x, x2;
} fr_place;

FR_INLINE int fr_empty(const fr_args *a) {
    for (int64_t d = 0; d < a->T; d++)
        if (!((const fr_axis *)a->axes)[d].size) return 1;
    return 0;
}

/* The next position of the outermost `depth` loops; 0 behind the last. */
FR_INLINE int fr_next(const fr_args *a, fr_place *p, int depth) {
    for (int d = depth - 1; d >= 0; d--) {
        const fr_axis *axis = (const fr_axis *)a->axes + d;
        p->y += axis->y, p->x += axis->x, p->x2 += axis->x2;
        if (++p->at[d] < axis->size) return 1;
        p->at[d] = 0;
        p->y -= axis->size * axis->y, p->x -= axis->size * axis->x, p->x2 -= axis->size * axis->x2;
    }
    return 0;
}

/* Calls `row` for the innermost axis at every position of the others. */
static void fr_walk(const fr_args *a, fr_row row) {
    fr_place at = {{0}, 0, 0, 0};
    if (fr_empty(a)) return;
    do row(a, (const fr_axis *)a->axes + a->T - 1, at.y, at.x, at.x2);
    while (fr_next(a, &at, (int)a->T - 1));
}

/* Copies go by planes, the two innermost loops: rows are short as often as not, and a call for each would cost more than the row. Read
 * before written and by value, so that the compiler may use vectors; a short row would lose by memcpy's choice of a way. */
#define COPY(bits) \
    FR_INLINE void copy##bits##_line(uint##bits##_t *restrict to, const uint##bits##_t *restrict from, int64_t n, int64_t y, int64_t x) { \
        if (x == 0) { \
            const uint##bits##_t value = *from; \
            if (y == 1) \
                for (int64_t k = 0; k < n; k++) to[k] = value; \
            else \
                for (int64_t k = 0; k < n; k++) to[k * y] = value; \
        } else if (y != 1) \
            for (int64_t k = 0; k < n; k++) to[k * y] = from[k * x]; \
        else if (x != 1) \
            for (int64_t k = 0; k < n; k++) to[k] = from[k * x]; \
        else if (n > 64) memcpy(to, from, (size_t)n * sizeof *to); \
        else \
            for (int64_t k = 0; k < n; k++) to[k] = from[k]; \
    } \
    static void copy##bits##_run(const fr_args *a) { \
        const fr_axis one = {1, 0, 0, 0}, *inner = (const fr_axis *)a->axes + a->T - 1, *outer = a->T > 1 ? inner - 1 : &one; \
        fr_place at = {{0}, 0, 0, 0}; \
        if (fr_empty(a)) return; \
        do { \
            uint##bits##_t *to = (uint##bits##_t *)a->y + at.y; \
            const uint##bits##_t *from = (const uint##bits##_t *)a->x + at.x; \
            for (int64_t r = 0; r < outer->size; r++) copy##bits##_line(to + r * outer->y, from + r * outer->x, inner->size, inner->y, inner->x); \
        } while (fr_next(a, &at, (int)a->T - 2)); \
    }
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
    if (stride == 1) {
        vf_store_tail(p, v, valid);
        return;
    }
    float lanes[LANES];
    vf_store(lanes, v);
    for (int l = 0; l < valid; l++) p[l * stride] = lanes[l];
}
#endif
