/* Kernels around the recurrent ones: packing of weights, sorting of lengths. */
#include "affine.h"
#include "rows.h"

/* LANES rows become LANES columns: zipping each row with the one half way down, log2(LANES) times over. */
FR_INLINE void fr_transpose(vf *rows) {
    UNROLL for (int times = 1; times < LANES; times *= 2) {
        vf zipped[LANES];
        UNROLL for (int r = 0; r < LANES / 2; r++) {
            zipped[2 * r] = vf_zip_low(rows[r], rows[r + LANES / 2]);
            zipped[2 * r + 1] = vf_zip_high(rows[r], rows[r + LANES / 2]);
        }
        UNROLL for (int r = 0; r < LANES; r++) rows[r] = zipped[r];
    }
}

/* Gate y_t of P, x (H, I) of row stride x_b, into the panel y (affine.h), of which T gates of a whole block lie together and the others apart, each by itself. Squares of LANES
 * go through registers; what is left over, and a narrow block, number by number. The last block's missing units are left as they are. */
static void pack_run(const fr_args *a) {
    const int64_t gate = a->y_t;
    for (int64_t unit = 0; unit < a->H; unit += LANES) {
        const int valid = fr_valid(a->H, unit / LANES), narrow = a->P > 1 && valid <= HALF;
        const int apart = !narrow && gate >= a->T;
        const int64_t step = (narrow ? PAIRS(a->P) : apart ? 1 : a->T) * LANES;
        const float *from = (const float *)a->x + unit * a->x_b;
        float *to = a->y + unit * a->I * a->P + (narrow ? gate / 2 * LANES + gate % 2 * HALF : gate * LANES * (apart ? a->I : 1));
        int64_t k = 0;
        for (; valid == LANES && k + LANES <= a->I; k += LANES) {
            vf square[LANES];
            UNROLL for (int l = 0; l < LANES; l++) square[l] = vf_load(from + l * a->x_b + k);
            fr_transpose(square);
            UNROLL for (int l = 0; l < LANES; l++) vf_store(to + (k + l) * step, square[l]);
        }
        for (int l = 0; l < valid; l++)
            for (int64_t rest = k; rest < a->I; rest++) to[rest * step + l] = from[l * a->x_b + rest];
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
