/* The tiles of every recurrent cell. A template: a cell_*.h defines what follows and includes this file; time_loop.h runs them step by step.
 *
 *   CELL(name)          names of this cell's functions
 *   CELL_ACC            accumulators a unit (the cell's gates; a gate that sees only x or only h has its own)
 *   CELL_GX, CELL_XSLOTS  gates in the panel over x, and the accumulator each adds to; CELL_GH, CELL_HSLOTS over h
 *   CELL_PAIRS          pairs of slots that share a vector in a narrow block: the pairs in order of the gates in both panels
 *   CELL_W1, CELL_W2, CELL_W  unit blocks a tile for one row, two rows, more
 *   CELL(finish)        the pointwise part: from accumulators to the new states of one row and block
 *   CELL_SECOND         (optional) the cell has a second phase over its own operand, CELL(second) finishes it
 *   CELL_GENERAL        1: activations, clip, peepholes and so on are read from the arguments; 0: the defaults
 *
 * Rows are pointers, so layouts, reversal and ragged batches cost nothing in the inner loops: with lengths the rows
 * come longest first and the active ones are a prefix that shrinks as time goes on. */

/* One row of one step, for the pointwise part. `h` is the state before the step, `out` where the new one goes. */
typedef struct {
    const float *h;
    float *out, *c, *u, *z, *n;
    int64_t first; /* the block's first unit */
    int valid;     /* lanes of the block that are units */
} CELL(unit);

FR_INLINE void CELL(finish)(const fr_args *a, const vf *acc, const int stride, const CELL(unit) *unit);
#ifdef CELL_SECOND
FR_INLINE void CELL(second)(const fr_args *a, vf acc, const CELL(unit) *unit);
#endif

/* Where a step's rows are, and the scratch behind them; carved from args->work by CELL(layout). */
typedef struct {
    const fr_args *a;
    const float **x, **h, **pre;  /* rows of x, of h before the step, of hoisted projections (NULL: not hoisted) */
    float **y, **out, **c;        /* rows of y; where the pointwise part writes (y, or hidden before projection) */
    const float **project_x;      /* rows of x of a whole chunk, */
    float *projected;             /* and their projections [row][unit block][CELL_GX][lane], a narrow block's as its panel has them */
    float *hidden, *u, *z, *n;    /* [B][H padded]: before a projection; what a second phase needs */
    int64_t padded;               /* H padded to whole blocks */
    fr_ahead *ahead;              /* the next chunk's projections, */
    float *ahead_x, *coming;      /* their inputs and where they go; coming and projected change places */
} CELL(rows);

/* Each part of a layer that is computed in parts has rows and projections of its own; what a second phase or a projection reads is shared. */
static int64_t CELL(layout)(const fr_args *a, CELL(rows) *rows) {
    const int64_t padded = fr_blocks(a->H) * LANES;
    const int64_t chunk_rows = (a->chunk * a->B + AHEAD_ROWS - 1) / AHEAD_ROWS * AHEAD_ROWS;
    const int64_t row_bytes = a->B * (int64_t)sizeof(void *), unit_bytes = a->B * padded * (int64_t)sizeof(float);
    const int64_t projected_bytes = chunk_rows * padded * CELL_GX * (int64_t)sizeof(float);
    char *base = (char *)a->work, *p = base;
#define TAKE(field, bytes) (rows->field = (void *)p, p += ((bytes) + 63) & ~(int64_t)63)
    rows->a = a;
    rows->padded = padded;
    TAKE(hidden, a->w_p ? unit_bytes : 0);
#ifdef CELL_SECOND
    TAKE(u, unit_bytes);
    TAKE(z, unit_bytes);
    TAKE(n, unit_bytes);
#endif
    for (int64_t part = 0; part <= a->part; part++) { /* the last is this one */
        TAKE(x, row_bytes);
        TAKE(h, row_bytes);
        TAKE(pre, row_bytes);
        TAKE(y, row_bytes);
        TAKE(out, row_bytes);
        TAKE(c, row_bytes);
        TAKE(project_x, chunk_rows * (int64_t)sizeof(void *));
        TAKE(projected, projected_bytes);
        rows->ahead = NULL;
        if (a->ahead) {
            TAKE(ahead, (int64_t)sizeof(fr_ahead));
            TAKE(ahead_x, chunk_rows * a->I * (int64_t)sizeof(float));
            TAKE(coming, projected_bytes);
        }
    }
#undef TAKE
    return p - base;
}

static int64_t CELL(work_bytes)(const fr_args *a) {
    CELL(rows) rows;
    fr_args last = *a;
    last.part = a->parts > 1 ? a->parts - 1 : 0;
    return CELL(layout)(&last, &rows);
}

FR_INLINE CELL(unit) CELL(unit_of)(const CELL(rows) *s, int64_t block, int64_t row) {
    CELL(unit) unit = {.h = s->h[row], .out = s->out[row], .c = s->c[row], .first = block * LANES,
                       .valid = fr_valid(s->a->H, block)};
#ifdef CELL_SECOND
    unit.u = s->u + row * s->padded;
    unit.z = s->z + row * s->padded;
    unit.n = s->n + row * s->padded;
#endif
    return unit;
}

FR_INLINE void CELL(tile)(const void *context, const int NB, const int TAIL, const int R, int64_t block, int64_t row) {
    const CELL(rows) *s = context;
    const fr_args *a = s->a;
    vf acc[(NB + TAIL) * CELL_ACC * R];
    UNROLL for (int r = 0; r < R; r++) fr_start(acc, NB + TAIL, 0, CELL_ACC, R, CELL_ACC, 0x3210, a->bias, block, r);
    if (a->chunk) {
        UNROLL for (int r = 0; r < R; r++)
            fr_start(acc, NB, TAIL, CELL_ACC, R, CELL_GX, CELL_XSLOTS, s->pre[row + r], block, r);
    } else
        fr_chain(acc, NB, TAIL, CELL_ACC, R, CELL_GX, CELL_XSLOTS, a->w_x, block, a->I, s->x + row);
    if (R <= AHEAD_BESIDE && s->ahead)
        fr_chain_ahead(acc, NB, TAIL, CELL_ACC, R, CELL_GH, CELL_HSLOTS, a->w_h, block, a->P, s->h + row, s->ahead, CELL_GX, CELL_XSLOTS);
    else
        fr_chain(acc, NB, TAIL, CELL_ACC, R, CELL_GH, CELL_HSLOTS, a->w_h, block, a->P, s->h + row);
    if (TAIL) fr_part(acc + NB * CELL_ACC * R, CELL_PAIRS, R);
    UNROLL for (int b = 0; b < NB + TAIL; b++)
        UNROLL for (int r = 0; r < R; r++) {
            CELL(unit) unit = CELL(unit_of)(s, block + b, row + r);
            CELL(finish)(a, acc + b * CELL_ACC * R + r, R, &unit);
        }
}

/* The input projections of a chunk: time steps serve as rows. */
FR_INLINE void CELL(project_tile)(const void *context, const int NB, const int TAIL, const int R, int64_t block, int64_t row) {
    const CELL(rows) *s = context;
    const fr_args *a = s->a;
    vf acc[(NB + TAIL) * CELL_ACC * R];
    UNROLL for (int r = 0; r < R; r++) fr_start(acc, NB + TAIL, 0, CELL_ACC, R, CELL_ACC, 0x3210, a->bias, block, r);
    fr_chain(acc, NB, TAIL, CELL_ACC, R, CELL_GX, CELL_XSLOTS, a->w_x, block, a->I, s->project_x + row);
    UNROLL for (int b = 0; b < NB + TAIL; b++) {
        const unsigned slots = b < NB ? CELL_XSLOTS : EVEN_SLOTS(CELL_XSLOTS);
        UNROLL for (int g = 0; g < (b < NB ? CELL_GX : PAIRS(CELL_GX)); g++)
            UNROLL for (int r = 0; r < R; r++)
                vf_store(s->projected + (((row + r) * (s->padded / LANES) + block + b) * CELL_GX + g) * LANES,
                         acc[(b * CELL_ACC + SLOT(slots, g)) * R + r]);
    }
}

#ifdef CELL_SECOND
FR_INLINE void CELL(second_tile)(const void *context, const int NB, const int TAIL, const int R, int64_t block, int64_t row) {
    const CELL(rows) *s = context;
    const float *u[TILE_ROWS];
    vf acc[NB * R];
    UNROLL for (int r = 0; r < R; r++) {
        u[r] = s->u + (row + r) * s->padded;
        UNROLL for (int b = 0; b < NB; b++) acc[b * R + r] = vf_load(s->n + (row + r) * s->padded + (block + b) * LANES);
    }
    fr_chain(acc, NB, TAIL, 1, R, 1, 0x0, s->a->w_u, block, s->a->H, u);
    UNROLL for (int b = 0; b < NB; b++)
        UNROLL for (int r = 0; r < R; r++) {
            CELL(unit) unit = CELL(unit_of)(s, block + b, row + r);
            CELL(second)(s->a, acc[b * R + r], &unit);
        }
}
#endif

/* torch's proj_size: h = W_hr hidden. */
FR_INLINE void CELL(shrink_tile)(const void *context, const int NB, const int TAIL, const int R, int64_t block, int64_t row) {
    (void)TAIL;
    const CELL(rows) *s = context;
    fr_dense_tile(NB, R, s->a->w_p, NULL, block, s->a->H, s->a->P, (const float *const *)s->out + row, s->y + row, NULL);
}

#if CELL_PAIRS
#define CELL_TILES FR_TAILED_TILES
#else
#define CELL_TILES FR_TILES
#endif
CELL_TILES(CELL(tile), CELL_W1, CELL_W2, CELL_W)
CELL_TILES(CELL(project_tile), CELL_W1, CELL_W2, CELL_W)
#undef CELL_TILES
FR_TILES(CELL(shrink_tile), 4, 4, 2)
#ifdef CELL_SECOND
FR_TILES(CELL(second_tile), 4, 4, 2)
#endif

#include "time_loop.h"
