/* Kernels around the recurrent ones: packing of weights, sorting of lengths. */
#include "affine.h"
#include "rows.h"

static int64_t no_work(const fr_args *a) { (void)a; return 0; }

/* Gate y_t of P, x (H, I) of row stride x_b, into the panel y (affine.h), T lanes a block. Tiles of 16 k stay in L1 while lanes are written
 * apart; the last block's missing units are left as they are. */
static void pack_run(const fr_args *a) {
    const int64_t lanes = a->T, gate = a->y_t;
    for (int64_t unit = 0; unit < a->H; unit += lanes) {
        const int64_t valid = a->H - unit < lanes ? a->H - unit : lanes;
        const int narrow = a->P > 1 && valid <= lanes / 2;
        const int64_t step = (narrow ? PAIRS(a->P) : a->P) * lanes;
        float *to = a->y + unit * a->I * a->P + (narrow ? gate / 2 * lanes + gate % 2 * (lanes / 2) : gate * lanes);
        for (int64_t start = 0; start < a->I; start += 16) {
            const int64_t end = start + 16 < a->I ? start + 16 : a->I;
            for (int64_t l = 0; l < valid; l++) {
                const float *row = (const float *)a->x + (unit + l) * a->x_b;
                for (int64_t k = start; k < end; k++) to[k * step + l] = row[k];
            }
        }
    }
}

/* x: lengths (B,) int64 -> y: lengths sorted descending (B,), then the row of each (B,), int64. A stable counting sort; with P > 1 they
 * are dealt out to as many calls of even work: every P-th from the first, then every P-th from the second, and so on. */
static int64_t sort_work_bytes(const fr_args *a) { return (a->T + 2) * (int64_t)sizeof(int64_t); }

static void sort_lengths_run(const fr_args *a) {
    const int64_t *lengths = a->x, deals = a->P > 1 ? a->P : 1, each = a->B / deals, more = a->B % deals;
    int64_t *sorted = (int64_t *)a->y, *order = sorted + a->B, *start = a->work;
    memset(start, 0, (size_t)(a->T + 2) * sizeof(int64_t));
    for (int64_t b = 0; b < a->B; b++) start[a->T - lengths[b] + 1]++;
    for (int64_t n = 0; n <= a->T; n++) start[n + 1] += start[n];
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t rank = start[a->T - lengths[b]]++, deal = rank % deals;
        const int64_t place = deal * each + (deal < more ? deal : more) + rank / deals;
        sorted[place] = lengths[b];
        order[place] = b;
    }
}
