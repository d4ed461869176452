/* The tiles of every recurrent cell. A template: a cell_*.h defines what follows and includes this file; time_loop.h runs them step by step.
 *
 *   CELL(name)          names of this cell's functions
 *   CELL_ACC            accumulators a unit (the cell's gates; a gate that sees only x or only h has its own)
 *   CELL_GX, CELL_XSLOTS  gates in the panel over x, and the accumulator each adds to; CELL_GH, CELL_HSLOTS over h
 *   CELL_PAIRS          pairs of slots that share a vector in a narrow block: the pairs in order of the gates in both panels
 *   CELL_W1, CELL_W2, CELL_W  unit blocks a tile for one row, two rows, more
 *   CELL(finish_first)  the pointwise part with torch's activations, of one row and block: to what the last functions take, in the accumulators,
 *   CELL(finish_last)   and on to the new states
 *   CELL(finish_general)  the same with activations, clip, peepholes and so on read from the arguments
 *   CELL_RELU           1: the pointwise part also knows ReLU, where s->relu, as what torch has beside tanh
 *   CELL_SECOND         (optional) the cell has a second phase over its own operand, CELL(second) finishes it
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

/* Where a step's rows are, and the scratch behind them; carved from args->work by CELL(layout). */
typedef struct {
    const fr_args *a;
    int relu, general;                 /* whether the pointwise part is ReLU, or reads options from the arguments, */
    vf *sums;                          /* and where a tile leaves its accumulators to it */
    const float **x, **h, **pre;       /* rows of x, of h before the step, of hoisted projections (NULL: not hoisted) */
    float **y, **out, **c;             /* rows of y; where the pointwise part writes (y, or hidden before projection) */
    const float **project_x;           /* rows of x of a whole chunk, */
    float *projected;                  /* and their projections [row][unit block][CELL_GX][lane], a narrow block's as its panel has them */
    float *kept;                       /* [B][P]: h where less or more of it goes on than all */
    float *hidden, *u, *z, *n;         /* [B][H padded]: before a projection; what a second phase needs */
    int64_t padded;                    /* H padded to whole blocks */
    fr_ahead *ahead;                   /* the next chunk's projections, */
    float *ahead_x, *coming;           /* their inputs and where they go; coming and projected change places */
    const void *w_x, *w_h, *w_u, *w_p; /* panels of products by way of memory, */
    int64_t products;                  /* and of which weights they are, FR_FLOAT32 where those of bfloat16 were widened */
    fr_range range;                    /* of x, where it is rounded over all of the call */
    fr_quantized of_x, of_h;           /* of int8 weights: the chunk's x, and what the product in hand multiplies of the states */
} CELL(rows);

#define CELL_JOINT (CELL_XSLOTS == CELL_HSLOTS && CELL_GX == CELL_GH) /* every gate sees x and h: both are one product */

/* Whether weights of bfloat16 are widened before the first step: for one row never, whose bytes are what it waits for, nor for each part of a layer again. AVX-512, of
 * the time without, LSTM T = 50, B = 32: 0.88 at H = 64, 0.9 at 128, 0.98 at 256. */
#define WIDEN_ROWS 256
FR_INLINE int CELL(widens)(const fr_args *a) { return a->weights == FR_BFLOAT16 && a->parts <= 1 && a->B > 1 && a->T * a->B >= WIDEN_ROWS; }

/* Each part of a layer that is computed in parts has rows and projections of its own; what a second phase or a projection reads is shared. */
static int64_t CELL(layout)(const fr_args *a, CELL(rows) *rows) {
    const int64_t padded = fr_blocks(a->H) * LANES;
    const int64_t chunk_rows = (a->chunk * a->B + AHEAD_ROWS - 1) / AHEAD_ROWS * AHEAD_ROWS;
    const int64_t row_bytes = a->B * (int64_t)sizeof(void *), unit_bytes = a->B * padded * (int64_t)sizeof(float);
    const int64_t projected_bytes = chunk_rows * padded * CELL_GX * (int64_t)sizeof(float);
    char *base = (char *)a->work, *p = base;
#define TAKE_AS(place, bytes) (place = (void *)p, p += ((bytes) + 63) & ~(int64_t)63)
#define TAKE(field, bytes) TAKE_AS(rows->field, bytes)
    rows->a = a;
    rows->padded = padded;
    TAKE(hidden, a->w_p ? unit_bytes : 0);
#ifdef CELL_SECOND
    TAKE(u, unit_bytes);
    TAKE(z, unit_bytes);
    TAKE(n, unit_bytes);
#endif
    rows->w_x = a->w_x, rows->w_h = a->w_h, rows->w_u = a->w_u, rows->w_p = a->w_p, rows->products = a->weights;
    if (CELL(widens)(a)) {
        const int64_t vector = fr_blocks(a->H) * LANES * (int64_t)sizeof(float);
        TAKE(w_x, vector * CELL_GX * a->I);
        TAKE(w_h, vector * CELL_GH * a->P);
        if (a->w_u) TAKE(w_u, vector * a->H);
        if (a->w_p) TAKE(w_p, fr_blocks(a->P) * LANES * (int64_t)sizeof(float) * a->H);
        rows->products = FR_FLOAT32;
    }
    for (int64_t part = 0; part <= a->part; part++) { /* the last is this one */
        TAKE(sums, TILE_VECTORS * (int64_t)sizeof(vf));
        TAKE(x, row_bytes);
        TAKE(h, row_bytes);
        TAKE(pre, a->chunk ? row_bytes : 0);
        TAKE(y, row_bytes);
        rows->out = rows->y;
        if (a->w_p) TAKE(out, row_bytes);
        TAKE(c, row_bytes);
        TAKE(kept, a->keep_b ? a->B * a->P * (int64_t)sizeof(float) : 0);
        TAKE(project_x, chunk_rows * (int64_t)sizeof(void *));
        TAKE(projected, projected_bytes);
        rows->ahead = NULL;
        if (AHEAD(a)) {
            TAKE(ahead, (int64_t)sizeof(fr_ahead));
            TAKE(ahead_x, chunk_rows * a->I * (int64_t)sizeof(float));
            TAKE(coming, projected_bytes);
        }
        if (a->weights == FR_INT8) {
            const int64_t widest = a->H > a->P ? a->H : a->P, x_rows = chunk_rows ? chunk_rows : 1;
            void *of_x, *of_h;
            TAKE_AS(of_x, fr_quantized_bytes(a->I, x_rows));
            TAKE_AS(of_h, fr_quantized_bytes(widest, a->B));
            rows->of_x = fr_room_for(of_x, a->I, x_rows);
            rows->of_h = fr_room_for(of_h, widest, a->B);
        }
    }
#undef TAKE
#undef TAKE_AS
    return p - base;
}

/* Small weights have all rows but a single one projected before a step, far ones every row, where x and h are not one product. */
FR_INLINE int64_t CELL(chunk_of)(const fr_args *a) {
    const int before = a->far ? !CELL_JOINT : a->B > 1 && (a->weights == FR_INT8 || (a->weights && !CELL_JOINT));
    return before && !a->chunk ? 1 : a->chunk;
}

static int64_t CELL(work_bytes)(const fr_args *a) {
    CELL(rows) rows;
    fr_args last = *a;
    last.part = a->parts > 1 ? a->parts - 1 : 0;
    last.chunk = CELL(chunk_of)(a);
    return CELL(layout)(&last, &rows);
}

FR_INLINE CELL(unit) CELL(unit_of)(const CELL(rows) *s, int64_t block, int64_t row) {
    CELL(unit) unit = {.h = s->h[row], .out = s->out[row], .c = s->c[row], .first = block * LANES, .valid = fr_valid(s->a->H, block)};
#ifdef CELL_SECOND
    unit.u = s->u + row * s->padded;
    unit.z = s->z + row * s->padded;
    unit.n = s->n + row * s->padded;
#endif
    return unit;
}

FR_INLINE void CELL(finish_first)(const CELL(rows) *s, vf *acc, const int stride, const CELL(unit) *unit);
FR_INLINE void CELL(finish_last)(const CELL(rows) *s, const vf *acc, const int stride, const CELL(unit) *unit);
FR_INLINE void CELL(finish_general)(const fr_args *a, const vf *acc, const int stride, const CELL(unit) *unit);
#ifdef CELL_SECOND
FR_INLINE void CELL(second)(const CELL(rows) *s, vf acc, const CELL(unit) *unit);
#endif

static FR_OWN_FUNCTION void CELL(finish_sums)(const CELL(rows) *s, int NB, int R, int64_t block, int64_t row) {
    for (int r = 0; r < R; r++) {
        CELL(unit) unit = CELL(unit_of)(s, block, row + r);
        for (int b = 0; b < NB; b++, unit.first += LANES, unit.valid = fr_valid(s->a->H, block + b))
            CELL(finish_general)(s->a, s->sums + b * CELL_ACC * R + r, R, &unit);
    }
}

/* The pointwise part of a tile: in registers; with options by way of memory and not inlined, so that the same tiles serve both. Sixteen lanes do the first functions of all rows, then the
 * last ones, which wait for those: row by row, what waits fills the room in which the processor looks ahead (AVX-512, of the time: batches of GRU H = 16 0.9, H = 64 0.95, LSTM 0.95, 0.97;
 * AVX2: GRU H = 16 1.07, the others even). */
FR_INLINE void CELL(finish_tile)(const CELL(rows) *s, vf *acc, const int NB, const int R, int64_t block, int64_t row) {
    const int in_turn = LANES < 16;
    if (s->general) {
        UNROLL for (int i = 0; i < NB * CELL_ACC * R; i++) s->sums[i] = acc[i];
        CELL(finish_sums)(s, NB, R, block, row);
        return;
    }
    UNROLL for (int b = 0; b < NB; b++) UNROLL for (int r = 0; r < R; r++) {
        CELL(unit) unit = CELL(unit_of)(s, block + b, row + r);
        CELL(finish_first)(s, acc + b * CELL_ACC * R + r, R, &unit);
        if (in_turn) CELL(finish_last)(s, acc + b * CELL_ACC * R + r, R, &unit);
    }
    UNROLL for (int b = 0; b < NB; b++) UNROLL for (int r = 0; r < R && !in_turn; r++) {
        CELL(unit) unit = CELL(unit_of)(s, block + b, row + r);
        CELL(finish_last)(s, acc + b * CELL_ACC * R + r, R, &unit);
    }
}

FR_INLINE void CELL(tile_in)(vf *acc, const CELL(rows) *s, const int NB, const int TAIL, const int R, const int ahead, int64_t block, int64_t row) {
    const fr_args *a = s->a;
    UNROLL for (int r = 0; r < R; r++) fr_start(acc, NB + TAIL, 0, CELL_ACC, R, CELL_ACC, 0x3210, a->bias, block, r);
    if (a->chunk) {
        UNROLL for (int r = 0; r < R; r++) fr_start(acc, NB, TAIL, CELL_ACC, R, CELL_GX, CELL_XSLOTS, s->pre[row + r], block, r);
    } else fr_chain(acc, NB, TAIL, CELL_ACC, R, CELL_GX, CELL_XSLOTS, a->w_x, block, a->I, s->x + row);
    if (LANES == 16 && ahead)
        fr_chain_ahead(acc, NB, TAIL, CELL_ACC, CELL_GH, CELL_HSLOTS, a->w_h, block, a->P, s->h[row], s->ahead, CELL_GX, CELL_XSLOTS);
    else fr_chain(acc, NB, TAIL, CELL_ACC, R, CELL_GH, CELL_HSLOTS, a->w_h, block, a->P, s->h + row);
    if (TAIL) fr_part(acc + NB * CELL_ACC * R, CELL_PAIRS, R);
    CELL(finish_tile)(s, acc, NB + TAIL, R, block, row);
}

/* Few accumulators are registers from beginning to end: in an array of a fixed size. Where they fill most registers GCC then spills some inside the loop; an array whose size it
 * learns late is memory that it holds in registers there and only there (LSTM, of a fixed size: AVX-512, B = 6, H = 64 and 128 1.1; AVX2, B = 2 and 3 1.2 to 1.4 of the time). */
FR_INLINE void CELL(tile)(const void *context, const int NB, const int TAIL, const int R, int64_t block, int64_t row) {
    const int n = (NB + TAIL) * CELL_ACC * R;
    if (R == 1 || (LANES == 16 && n <= 16)) {
        vf acc[TILE_VECTORS];
        CELL(tile_in)(acc, context, NB, TAIL, R, 0, block, row);
    } else {
        vf acc[n];
        CELL(tile_in)(acc, context, NB, TAIL, R, 0, block, row);
    }
}

/* Of one row, with the next chunk's projections beside it. */
FR_INLINE void CELL(tile_ahead)(const void *context, const int NB, const int TAIL, const int R, int64_t block, int64_t row) {
    vf acc[TILE_VECTORS];
    CELL(tile_in)(acc, context, NB, TAIL, R, 1, block, row);
}

#if CELL_PAIRS
/* The input projections of a narrow block. */
FR_INLINE void CELL(project_tile)(const void *context, const int NB, const int TAIL, const int R, int64_t block, int64_t row) {
    const CELL(rows) *s = context;
    const fr_args *a = s->a;
    vf acc[CELL_ACC * R];
    UNROLL for (int r = 0; r < R; r++) fr_start(acc, 1, 0, CELL_ACC, R, CELL_ACC, 0x3210, a->bias, block, r);
    fr_chain(acc, NB, TAIL, CELL_ACC, R, CELL_GX, CELL_XSLOTS, a->w_x, block, a->I, s->project_x + row);
    UNROLL for (int g = 0; g < PAIRS(CELL_GX); g++) UNROLL for (int r = 0; r < R; r++)
        vf_store(s->projected + (((row + r) * (s->padded / LANES) + block) * CELL_GX + g) * LANES, acc[SLOT(EVEN_SLOTS(CELL_XSLOTS), g) * R + r]);
}
#endif

/* As CELL(tile), by way of memory: products of any vectors, of a few blocks for up to MANY_ROWS rows, and their pointwise part while they are hot. */
static void CELL(many)(const void *context, int64_t block, int64_t end, int64_t row, int64_t n_rows) {
    const CELL(rows) *s = context;
    const fr_args *a = s->a;
    const int64_t width = (end - block) * CELL_GH * LANES;
    float sums[MANY_ROWS * (MANY_VECTORS + (APART(CELL_GH) ? 4 : 0)) * LANES] __attribute__((aligned(64))), *out[MANY_ROWS];
    for (int64_t r = 0; r < n_rows; r++) out[r] = sums + r * width;
    fr_product p = {
        .gates = CELL_GH, .out = out, .first = block * CELL_GH, .units = width, .weights = s->products, .blocks = fr_blocks(a->H), .far = a->far};
    if (!a->chunk) p.operand[p.n_operands++] = (fr_operand){s->w_x, a->I, s->x + row};
    p.operand[p.n_operands++] = (fr_operand){s->w_h, a->P, s->h + row, .integers = &s->of_h, .row0 = row};
    const int64_t pre_block = CELL_GX * LANES, pre_row = s->padded * CELL_GX;
    const float *pre = a->chunk ? s->pre[row] : NULL;
    for (int g = 0; g < CELL_GH; g++) {
        const int slot = SLOT(CELL_HSLOTS, g);
        p.start[g] = a->bias + slot * LANES, p.start_block[g] = CELL_ACC * LANES;
        for (int x = 0; x < CELL_GX && a->chunk; x++)
            if (SLOT(CELL_XSLOTS, x) == slot) p.start[g] = pre + x * LANES, p.start_block[g] = pre_block, p.start_row[g] = pre_row;
    }
    fr_multiply(&p, block * CELL_GH, end * CELL_GH, 0, n_rows);
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t b = block; b < end; b++) {
            vf acc[CELL_ACC];
            if (!CELL_JOINT || a->chunk) /* only a chunk has a cell here whose gates see less */
                UNROLL for (int x = 0; x < CELL_GX; x++) acc[SLOT(CELL_XSLOTS, x)] = vf_load(pre + r * pre_row + b * pre_block + x * LANES);
            UNROLL for (int g = 0; g < CELL_GH; g++) acc[SLOT(CELL_HSLOTS, g)] = vf_load(out[r] + ((b - block) * CELL_GH + g) * LANES);
            if (s->general) UNROLL for (int i = 0; i < CELL_ACC; i++) s->sums[(b - block) * CELL_ACC + i] = acc[i];
            else CELL(finish_tile)(s, acc, 1, 1, b, row + r);
        }
        if (s->general) CELL(finish_sums)(s, (int)(end - block), 1, block, row + r);
    }
}

#ifdef CELL_SECOND
static void CELL(second_many)(const void *context, int64_t block, int64_t end, int64_t row, int64_t n_rows) {
    const CELL(rows) *s = context;
    const int64_t width = (end - block) * LANES;
    float sums[MANY_ROWS * MANY_VECTORS * LANES] __attribute__((aligned(64)));
    const float *u[MANY_ROWS];
    float *out[MANY_ROWS];
    for (int64_t r = 0; r < n_rows; r++) u[r] = s->u + (row + r) * s->padded, out[r] = sums + r * width;
    const fr_product p = {.operand = {{s->w_u, s->a->H, u, .integers = &s->of_h, .row0 = row}},
                          .n_operands = 1,
                          .gates = 1,
                          .start = {s->n + row * s->padded},
                          .start_block = {LANES},
                          .start_row = {s->padded},
                          .out = out,
                          .first = block,
                          .units = width,
                          .weights = s->products,
                          .blocks = fr_blocks(s->a->H),
                          .far = s->a->far};
    fr_multiply(&p, block, end, 0, n_rows);
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t b = block; b < end; b++) {
            CELL(unit) unit = CELL(unit_of)(s, b, row + r);
            CELL(second)(s, vf_load(out[r] + (b - block) * LANES), &unit);
        }
}
#endif

/* torch's proj_size: h = W_hr hidden. */
static void CELL(shrink_many)(const void *context, int64_t block, int64_t end, int64_t row, int64_t n_rows) {
    const CELL(rows) *s = context;
    const fr_product p = {.operand = {{s->w_p, s->a->H, (const float *const *)s->out + row, .integers = &s->of_h, .row0 = row}},
                          .n_operands = 1,
                          .gates = 1,
                          .out = s->y + row,
                          .units = s->a->P,
                          .weights = s->products,
                          .blocks = fr_blocks(s->a->P),
                          .far = s->a->far};
    fr_multiply(&p, block, end, 0, n_rows);
}

/* The input projections of a chunk: time steps serve as rows. */
static void CELL(project_many)(const void *context, int64_t block, int64_t end, int64_t row, int64_t n_rows) {
    const CELL(rows) *s = context;
    const fr_args *a = s->a;
    float *out[MANY_ROWS];
    const int64_t row_floats = s->padded * CELL_GX;
    for (int64_t r = 0; r < n_rows; r++) out[r] = s->projected + (row + r) * row_floats;
    fr_product p = {.operand = {{s->w_x, a->I, s->project_x + row, .integers = &s->of_x, .row0 = row}},
                    .n_operands = 1,
                    .gates = CELL_GX,
                    .out = out,
                    .units = row_floats,
                    .weights = s->products,
                    .blocks = fr_blocks(a->H),
                    .far = a->far};
    for (int g = 0; g < CELL_GX; g++) p.start[g] = a->bias + SLOT(CELL_XSLOTS, g) * LANES, p.start_block[g] = CELL_ACC * LANES;
    fr_multiply(&p, block * CELL_GX, end * CELL_GX, 0, n_rows);
}

#if CELL_PAIRS
FR_TAILED_TILES(CELL(tile), CELL_W1, CELL_W2, CELL_W)
FR_TAILED_TILES_OF_ONE(CELL(tile_ahead), CELL_W1)
FR_NARROW_TILES(CELL(project_tile))
#define CELL_NARROW_PROJECT &CELL(project_tile_set)
#else
#define CELL_NARROW_PROJECT NULL
FR_TILES(CELL(tile), CELL_W1, CELL_W2, CELL_W)
FR_TILES_OF_ONE(CELL(tile_ahead), CELL_W1)
#endif

#include "one_row.h"
#include "time_loop.h"
#undef CELL_JOINT
#undef CELL_NARROW_PROJECT
