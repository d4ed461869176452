/* Arrays of any layout: the walk, copies, vectors at a stride. `axes` lists T loops, outermost first, each with
 * its size and its stride in elements for y, x and x2; a stride of 0 repeats, a negative one runs backwards. */
#ifndef FASTRNN_GRID_H
#define FASTRNN_GRID_H
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
#endif
