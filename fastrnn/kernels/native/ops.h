/* Kernels around the recurrent ones: packing of weights, sorting of lengths. */
#include "rows.h"

static int64_t no_work(const fr_args *a) { (void)a; return 0; }

/* y [unit block][I][P][T] from x (H, I) of row stride x_b, one gate of P: T lanes a block. Tiles of 16 k stay in L1 while lanes are
 * written apart; the last block's missing units are left as they are. */
static void pack_run(const fr_args *a) {
    const int64_t lanes = a->T, step = a->P * lanes;
    for (int64_t unit = 0; unit < a->H; unit += lanes) {
        const int64_t valid = a->H - unit < lanes ? a->H - unit : lanes;
        float *to = a->y + unit / lanes * a->I * step;
        for (int64_t start = 0; start < a->I; start += 16) {
            const int64_t end = start + 16 < a->I ? start + 16 : a->I;
            for (int64_t l = 0; l < valid; l++) {
                const float *row = (const float *)a->x + (unit + l) * a->x_b;
                for (int64_t k = start; k < end; k++) to[k * step + l] = row[k];
            }
        }
    }
}

/* x: lengths (B,) int64 -> y: lengths sorted descending (B,), then the row of each (B,), int64. A stable counting sort. */
static int64_t sort_work_bytes(const fr_args *a) { return (a->T + 2) * (int64_t)sizeof(int64_t); }

static void sort_lengths_run(const fr_args *a) {
    const int64_t *lengths = a->x;
    int64_t *sorted = (int64_t *)a->y, *order = sorted + a->B, *start = a->work;
    memset(start, 0, (size_t)(a->T + 2) * sizeof(int64_t));
    for (int64_t b = 0; b < a->B; b++) start[a->T - lengths[b] + 1]++;
    for (int64_t n = 0; n <= a->T; n++) start[n + 1] += start[n];
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t place = start[a->T - lengths[b]]++;
        sorted[place] = lengths[b];
        order[place] = b;
    }
}
