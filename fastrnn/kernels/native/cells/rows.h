/* Where rows lie in time and batch, and how states enter and leave: what no cell and no instruction set changes. */
#ifndef FASTRNN_ROWS_H
#define FASTRNN_ROWS_H
#include "simd.h"
#include "sync.h"

FR_INLINE int64_t fr_batch_row(const fr_args *a, int64_t row) { return a->order ? a->order[row] : row; }
FR_INLINE int64_t fr_length(const fr_args *a, int64_t row) { return a->lengths ? a->lengths[row] : a->T; }

/* Processing step t of a row reads and writes this time: the reverse direction starts at the row's own end. */
FR_INLINE int64_t fr_time(const fr_args *a, int64_t row, int64_t t) { return a->reverse ? fr_length(a, row) - 1 - t : t; }
FR_INLINE const float *fr_x_row(const fr_args *a, int64_t row, int64_t t) {
    return (const float *)a->x + fr_time(a, row, t) * a->x_t + fr_batch_row(a, row) * a->x_b;
}
FR_INLINE float *fr_y_row(const fr_args *a, int64_t row, int64_t t) { return a->y + fr_time(a, row, t) * a->y_t + fr_batch_row(a, row) * a->y_b; }

/* Rows whose length goes past step t, given how many did before. */
FR_INLINE int64_t fr_active(const fr_args *a, int64_t active, int64_t t) {
    if (a->lengths)
        while (active && a->lengths[active - 1] <= t) active--;
    return active;
}

/* How far a call is: rows that are still inside their length, where the chunk in hand ends, and rows of it that are done. */
typedef struct {
    int64_t active, chunk_end, pre_row;
} fr_progress;

/* What a row's states are multiplied by on their way into step t; in reverse, from the step after it in time. */
FR_INLINE float fr_keep(const fr_args *a, int64_t row, int64_t t) {
    if (!a->keep_b || (a->reverse && !t)) return 1;
    return a->keep[(fr_time(a, row, t) + a->reverse) * a->keep_t + fr_batch_row(a, row) * a->keep_b];
}

/* to = keep * from; of states that are not kept, nothing is left, though they be infinite or no numbers. */
static FR_OWN_FUNCTION void fr_scale(float *to, const float *from, float keep, int64_t n) {
    for (int64_t k = 0; k < n; k++) to[k] = keep == 0 ? 0 : keep * from[k];
}

/* A row of states: by vectors, where a call of memcpy takes as long as the copy. */
FR_INLINE void fr_copy(float *to, const float *from, int64_t n) {
    int64_t k = 0;
    if (to == from) return;
    for (; k + LANES <= n; k += LANES) vf_store(to + k, vf_load(from + k));
    if (k < n) vf_store_n(to + k, vf_load_n(from + k, (int)(n - k)), (int)(n - k));
}

/* From h0, c0, hn or cn, `stride` their own, to batch row b's. */
FR_INLINE int64_t fr_state(const fr_args *a, int64_t b, int64_t stride) { return a->state_rows ? a->state_rows[b] : b * stride; }

/* Whether rows are in the batch's order, all of one length, and keep their states. */
FR_INLINE int fr_even(const fr_args *a) { return !a->order && !a->lengths && !a->keep_b; }

/* c is worked on in place in cn; cells without one leave cn NULL. */
static void fr_begin_states(const fr_args *a) {
    if (!a->cn || (a->c0 == a->cn && a->c0_b == a->cn_b)) return;
    for (int64_t row = 0; row < a->B; row++) {
        const int64_t b = fr_batch_row(a, row);
        if (a->c0) fr_copy(a->cn + fr_state(a, b, a->cn_b), a->c0 + fr_state(a, b, a->c0_b), a->H);
        else memset(a->cn + fr_state(a, b, a->cn_b), 0, (size_t)a->H * sizeof(float));
    }
}

/* hn gets each row's output at its last step, or its initial state where it had none; y past a row's length is zero. */
static void fr_end_states(const fr_args *a) {
    if (fr_even(a) && a->T) {
        const float *y = fr_y_row(a, 0, a->T - 1);
        const int64_t P = a->P, n = a->hn ? a->B : 0;
        for (int64_t row = 0; row < n; row++) fr_copy(a->hn + fr_state(a, row, a->hn_b), y + row * a->y_b, P);
        return;
    }
    for (int64_t row = 0; row < a->B; row++) {
        const int64_t b = fr_batch_row(a, row), length = fr_length(a, row);
        if (a->hn) fr_copy(a->hn + fr_state(a, b, a->hn_b), length ? fr_y_row(a, row, length - 1) : a->h0 + fr_state(a, b, a->h0_b), a->P);
        for (int64_t t = length; t < a->T; t++) memset(a->y + t * a->y_t + b * a->y_b, 0, (size_t)a->P * sizeof(float));
    }
}
#endif
