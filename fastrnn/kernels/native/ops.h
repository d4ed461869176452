/* Kernels around the recurrent ones. Rows come as a (T, B) grid of stride x_t, x_b, y_t, y_b like theirs. */
#include "ahead.h"
#include "grid.h"

static int64_t no_work(const fr_args *a) { (void)a; return 0; }

/* y (T, B, H) = act[0](x (T, B, I) W^T + bias). */
typedef struct {
    const fr_args *a;
    const float **x;
    float **y;
} dense_rows;

static int64_t dense_work_bytes(const fr_args *a) { return 2 * a->T * a->B * (int64_t)sizeof(void *); }

FR_INLINE void dense_tile(const void *context, const int NB, const int TAIL, const int R, int64_t block, int64_t row) {
    (void)TAIL;
    const dense_rows *s = context;
    fr_dense_tile(NB, R, s->a->w_x, s->a->bias, block, s->a->I, s->a->H, s->x + row, s->y + row,
                  s->a->act[0].kind == FR_ACT_IDENTITY ? NULL : &s->a->act[0]);
}

FR_TILES(dense_tile, 4, 4, 2)

static void dense_run(const fr_args *a) {
    const int64_t n_rows = a->T * a->B;
    dense_rows s = {a, a->work, (float **)a->work + n_rows};
    for (int64_t t = 0, row = 0; t < a->T; t++)
        for (int64_t b = 0; b < a->B; b++, row++) {
            s.x[row] = fr_x_row(a, b, t);
            s.y[row] = fr_y_row(a, b, t);
        }
    fr_cover(0, fr_blocks(a->H), 0, n_rows, &dense_tile_set, &s);
}

/* y (T, B, H) = w_x[x (T, B)]: rows of a table (I, H) by int64 index, counted from the end where negative. In range: the caller checked. */
static void gather_run(const fr_args *a) {
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t b = 0; b < a->B; b++) {
            int64_t index = ((const int64_t *)a->x)[t * a->x_t + b * a->x_b];
            index += index < 0 ? a->I : 0;
            memcpy(fr_y_row(a, b, t), a->w_x + index * a->H, (size_t)a->H * sizeof(float));
        }
}

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
