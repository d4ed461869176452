/* The time loop of every compiled kernel: rows of a step, projections hoisted out of it, tiles over blocks and rows.
 *
 * What native/cells/time_loop.h and tiles.h do, over tiles that are met by their addresses: whatever depends on the cell is in its kernel's table (kernel.py), so this comes
 * with the package, compiled once for all cells, and a cell waits for no more than its own tiles. It does no arithmetic on floats but for what `keep` asks. */
#ifndef FASTRNN_DRIVER_H
#define FASTRNN_DRIVER_H
#include <string.h>
#include "args.h"

/* A call's table, at the start of its work space: counts, and addresses as integers. Tables of row pointers: x, h before the step, hoisted projections, where the pointwise
 * part writes (y, or hidden before a projection), y, scalars. c1, initial1, ...: of the second state on, the rows worked on; where it comes from and goes to. */
#define FR_STATES 5
#define FR_OF_STATES(X, n) X(n##1) X(n##2) X(n##3) X(n##4)
#define FR_ROWS(X) X(x) X(h) X(pre) X(out) X(y) X(scalars)
/* clang-format off */
#define FR_WORDS(X) \
    X(blocks) X(projected_blocks) FR_ROWS(X) X(project_x) X(projected) X(hidden) X(u) X(saved) X(kept) \
    FR_OF_STATES(X, c) FR_OF_STATES(X, initial) FR_OF_STATES(X, final) FR_OF_STATES(X, initial_b) FR_OF_STATES(X, final_b)
/* clang-format on */
/* What is known of a kernel; of each kind of tiles, and count of rows, a fr_kind follows. */
#define FR_FACTS(X) X(layout) X(extra_states) X(scalars) X(projected) X(second) X(hoists) X(row_bytes) X(pre_bytes)
#define FR_MEMBER(name) int64_t name;

typedef struct {
    FR_WORDS(FR_MEMBER)
} fr_table;
typedef void (*fr_compiled_tile)(const fr_args *, const fr_table *, int64_t block, int64_t row);

/* Tiles of one kind for one count of rows. narrow: how many blocks the last tile takes if the last block is narrow, 0 if it is not; rows: the most of a tile; widths, widest
 * first; then the levels' tiles by their rows: of each width, of a narrow last block alone, of one beside a whole one. */
#define FR_LEVELS 4
#define FR_MOST_ROWS 6
enum { FR_PROJECT, FR_STEP, FR_SECOND, FR_SHRINK, FR_KINDS };
enum { FR_ONE_ROW, FR_TWO_ROWS, FR_MORE_ROWS, FR_COUNTS };
typedef struct {
    int64_t narrow, rows, width[FR_LEVELS];
    fr_compiled_tile tiles[FR_LEVELS + 2][FR_MOST_ROWS + 1];
} fr_kind;

typedef struct {
    FR_FACTS(FR_MEMBER)
    fr_kind kinds[FR_KINDS][FR_COUNTS];
} fr_compiled;

static inline int64_t fr_in_order(const fr_args *a, int64_t row) { return a->order ? a->order[row] : row; }
static inline int64_t fr_address(const void *p, int64_t floats) { return (int64_t)(intptr_t)p + 4 * floats; }
#define FR_FLOATS(address) ((float *)(intptr_t)(address))
#define FR_LIST(address) ((int64_t *)(intptr_t)(address))

/* All blocks and rows, blocks outermost, from the last to the first if backward; see native/products/tiles.h. The widest tiles come first, then each level takes what those
 * before it leave over, and the last the narrow block. */
static void fr_cover_blocks(const fr_args *a, const fr_table *table, const fr_kind *counts, int64_t blocks, int64_t n_rows, int backward) {
    const fr_kind *kind = counts + (n_rows - 1 < FR_MORE_ROWS ? n_rows - 1 : FR_MORE_ROWS);
    const int64_t tail = blocks > kind->narrow ? blocks - kind->narrow : 0, n_tiles = (n_rows + kind->rows - 1) / kind->rows;
    const int64_t height = n_rows / n_tiles, higher = n_rows % n_tiles;
    for (int k = 0; k <= FR_LEVELS; k++) {
        int level = backward ? FR_LEVELS - k : k;
        int64_t begin = tail, width = blocks - tail, span = width;
        if (level < FR_LEVELS) {
            begin = level ? tail & -kind->width[level - 1] : 0;
            width = kind->width[level], span = tail - begin;
        } else level += width == 2;
        span &= -width;
        for (int64_t done = 0; done < span; done += width)
            for (int64_t tile = 0, row = 0, rows; tile < n_tiles; tile++, row += rows) {
                rows = height + (tile < higher);
                kind->tiles[level][rows](a, table, begin + (backward ? span - width - done : done), row);
            }
    }
}

/* States but the first are worked on where they end. */
static void fr_begin_states(const fr_args *a, const fr_table *table, int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        const int64_t initial = (&table->initial1)[k], final = (&table->final1)[k];
        for (int64_t row = 0; row < a->B; row++) {
            const int64_t b = fr_in_order(a, row);
            float *to = FR_FLOATS(final) + b * (&table->final_b1)[k];
            const float *from = FR_FLOATS(initial) + b * (&table->initial_b1)[k];
            if (!initial) memset(to, 0, 4 * a->H);
            else if (to != from) memcpy(to, from, 4 * a->H);
        }
    }
}

/* hn gets each row's output at its last step, or its initial state where it had none; y past a row's length is zero. */
static void fr_end_states(const fr_args *a) {
    for (int64_t row = 0; row < a->B; row++) {
        const int64_t b = fr_in_order(a, row), length = a->lengths ? a->lengths[row] : a->T;
        float *own = a->y + b * a->y_b;
        if (a->hn) {
            float *to = a->hn + b * a->hn_b;
            const float *last = length ? own + (a->reverse ? 0 : length - 1) * a->y_t : a->h0 + b * a->h0_b;
            if (to != last) memcpy(to, last, 4 * a->P);
        }
        for (int64_t t = length; t < a->T; t++) memset(own + t * a->y_t, 0, 4 * a->P);
    }
}

/* Step t of a row reads and writes this time: the reverse direction starts at the row's own end. */
static inline int64_t fr_time_of(const fr_args *a, int64_t row, int64_t t) { return !a->reverse ? t : (a->lengths ? a->lengths[row] : a->T) - 1 - t; }

/* Rows whose length goes past step t, given how many did before. */
static inline int64_t fr_still_active(const fr_args *a, int64_t active, int64_t t) {
    while (a->lengths && active && a->lengths[active - 1] <= t) active--;
    return active;
}

/* Notes the inputs of steps t to `end`, of every row that gets there, and returns how many: time steps serve as rows. */
static int64_t fr_gather(const fr_args *a, const fr_table *table, int64_t active, int64_t t, int64_t end) {
    int64_t n = 0;
    for (; t < end; t++) {
        active = fr_still_active(a, active, t);
        for (int64_t row = 0; row < active; row++)
            FR_LIST(table->project_x)[n++] = fr_address(a->x, fr_time_of(a, row, t) * a->x_t + fr_in_order(a, row) * a->x_b);
    }
    return n;
}

/* Notes where the rows of step t lie; pre: where their projections begin. */
static void fr_set_rows(const fr_args *a, const fr_table *table, const fr_compiled *kernel, int64_t active, int64_t t, int64_t pre) {
    for (int64_t row = 0; row < active; row++) {
        const int64_t b = fr_in_order(a, row), time = fr_time_of(a, row, t), y = time * a->y_t + b * a->y_b;
        FR_LIST(table->x)[row] = fr_address(a->x, time * a->x_t + b * a->x_b);
        FR_LIST(table->h)[row] = t ? fr_address(a->y, y + (a->reverse ? a->y_t : -a->y_t)) : fr_address(a->h0, b * a->h0_b);
        FR_LIST(table->y)[row] = fr_address(a->y, y);
        FR_LIST(table->out)[row] = kernel->projected ? table->hidden + row * table->blocks * kernel->row_bytes : fr_address(a->y, y);
        FR_LIST(table->pre)[row] = pre + row * table->blocks * kernel->pre_bytes;
        if (kernel->scalars) FR_LIST(table->scalars)[row] = fr_address(a->x2, time * a->x2_t + b * a->x2_b);
        for (int64_t k = 0; k < kernel->extra_states; k++) FR_LIST((&table->c1)[k])[row] = (&table->final1)[k] + 4 * b * (&table->final_b1)[k];
    }
}

/* Where n floats are that go on: at `from`, or multiplied by a factor at `to`; by 0, nothing is left of them. */
static const float *fr_kept(float *to, const float *from, float factor, int64_t n) {
    if (factor == 1.0f) return from;
    for (int64_t i = 0; i < n; i++) to[i] = factor == 0.0f ? 0.0f : factor * from[i];
    return to;
}

/* The states of rows go into step t multiplied by what `keep` says; in reverse, what it says of the step after t in time. */
static void fr_keep_rows(const fr_args *a, const fr_table *table, int64_t extra_states, int64_t active, int64_t t) {
    for (int64_t row = 0; row < active; row++) {
        const float keep = a->keep[(fr_time_of(a, row, t) + a->reverse) * a->keep_t + fr_in_order(a, row) * a->keep_b];
        int64_t *h = FR_LIST(table->h) + row;
        *h = fr_address(fr_kept(FR_FLOATS(table->kept) + row * a->P, FR_FLOATS(*h), keep, a->P), 0);
        for (int64_t k = 0; k < extra_states; k++) {
            float *state = FR_FLOATS(FR_LIST((&table->c1)[k])[row]);
            fr_kept(state, state, keep, a->H);
        }
    }
}

/* A whole call. */
static void fr_drive(const fr_args *a, const fr_compiled *kernel) {
    ((int64_t (*)(const fr_args *, int64_t))(intptr_t)kernel->layout)(a, 1);
    const fr_table *table = a->work;
    const int64_t chunk = kernel->hoists ? a->chunk : 0, T = !a->B ? 0 : a->lengths ? a->lengths[0] : a->T; /* the longest row comes first */
    fr_begin_states(a, table, kernel->extra_states);
    int64_t active = a->B, chunk_end = 0, pre = 0;
    for (int64_t t = 0; t < T; t++) {
        if (chunk && t == chunk_end) {
            chunk_end = t + chunk < T ? t + chunk : T;
            fr_cover_blocks(a, table, kernel->kinds[FR_PROJECT], table->blocks, fr_gather(a, table, active, t, chunk_end), 0);
            pre = table->projected;
        }
        active = fr_still_active(a, active, t);
        fr_set_rows(a, table, kernel, active, t, pre);
        pre += active * table->blocks * kernel->pre_bytes;
        if (a->keep_b && (t || !a->reverse)) fr_keep_rows(a, table, kernel->extra_states, active, t);
        const int backward = (t + a->sweep) & 1;
        fr_cover_blocks(a, table, kernel->kinds[FR_STEP], table->blocks, active, backward);
        if (kernel->second) fr_cover_blocks(a, table, kernel->kinds[FR_SECOND], table->blocks, active, backward);
        if (kernel->projected) fr_cover_blocks(a, table, kernel->kinds[FR_SHRINK], table->projected_blocks, active, backward);
    }
    fr_end_states(a);
}
#endif
