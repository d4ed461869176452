/* Input projections of steps to come, computed beside the steps of a row or a few.
 *
 * One row reads each recurrent weight for one multiply-add, so from L2 on it waits for bytes while the multipliers idle; the projections
 * of later steps use one weight for AHEAD_ROWS rows. fr_chain_ahead runs both in one loop (LSTM H = 128, 100 steps: 3.1 us a
 * step, 3.6 one after the other). A unit is one vector of the panel over x for AHEAD_ROWS rows, whose inputs lie side by side; its accumulators
 * wait in memory from one tile to the next. */
#ifndef FASTRNN_AHEAD_H
#define FASTRNN_AHEAD_H
#include "rows.h"
#include "tiles.h"

typedef struct {
    const float *panel, *bias; /* over x; where chains start, [unit block][accumulator][lane] */
    const float *x;            /* [group][k][AHEAD_ROWS] */
    float *out;                /* [group][AHEAD_ROWS][unit block][gate][lane] */
    int64_t I, groups, row_floats;
    int64_t end, narrow;        /* blocks up to `end`; the narrow one, or -1 */
    int64_t block, gate, group; /* the unit in hand, */
    int64_t left;               /* and how many of its k are to come; 0 when all units are done */
    float acc[AHEAD_ROWS * LANES];
} fr_ahead;

/* Lays out the inputs of n rows, the last group filled up with zeros. */
static void fr_ahead_pack(float *packed, const float *const *rows, int64_t n, int64_t I) {
    for (int64_t first = 0; first < n; first += AHEAD_ROWS, packed += I * AHEAD_ROWS)
        for (int64_t r = 0; r < AHEAD_ROWS; r++)
            for (int64_t k = 0; k < I; k++) packed[k * AHEAD_ROWS + r] = first + r < n ? rows[first + r][k] : 0.0f;
}

FR_INLINE int64_t fr_ahead_vectors(const fr_ahead *s, const int G) { return s->block == s->narrow ? PAIRS(G) : G; }
FR_INLINE const float *fr_ahead_weights(const fr_ahead *s, const int G) {
    return s->panel + (s->block * s->I * G + (s->I - s->left) * fr_ahead_vectors(s, G) + s->gate) * LANES;
}
FR_INLINE const float *fr_ahead_inputs(const fr_ahead *s) { return s->x + (s->group * s->I + s->I - s->left) * AHEAD_ROWS; }

FR_INLINE void fr_ahead_start(fr_ahead *s, const int GA, const unsigned slots, vf *acc) {
    const int slot = SLOT(s->block == s->narrow ? EVEN_SLOTS(slots) : slots, s->gate);
    const vf start = vf_load(s->bias + (s->block * GA + slot) * LANES);
    UNROLL for (int r = 0; r < AHEAD_ROWS; r++) acc[r] = start;
    s->left = s->I;
}

/* Stores a finished unit and starts the next, if there is one. */
FR_INLINE void fr_ahead_next(fr_ahead *s, const int GA, const int G, const unsigned slots, vf *acc) {
    float *out = s->out + s->group * AHEAD_ROWS * s->row_floats + (s->block * G + s->gate) * LANES;
    UNROLL for (int r = 0; r < AHEAD_ROWS; r++) vf_store(out + r * s->row_floats, acc[r]);
    if (++s->group == s->groups) {
        s->group = 0;
        if (++s->gate == fr_ahead_vectors(s, G)) s->gate = 0, s->block++;
    }
    if (s->block < s->end) fr_ahead_start(s, GA, slots, acc);
}

FR_INLINE void fr_ahead_fma(vf *acc, const float *w, const float *x) {
    const vf weight = vf_load(w);
    UNROLL for (int r = 0; r < AHEAD_ROWS; r++) acc[r] = vf_fma(weight, vf_set1(x[r]), acc[r]);
}
FR_INLINE void fr_ahead_load(const fr_ahead *s, vf *acc) { UNROLL for (int r = 0; r < AHEAD_ROWS; r++) acc[r] = vf_load(s->acc + r * LANES); }
FR_INLINE void fr_ahead_store(fr_ahead *s, const vf *acc) { UNROLL for (int r = 0; r < AHEAD_ROWS; r++) vf_store(s->acc + r * LANES, acc[r]); }

/* All that is left. */
FR_INLINE void fr_ahead_finish(fr_ahead *s, const int GA, const int G, const unsigned slots) {
    vf acc[AHEAD_ROWS];
    fr_ahead_load(s, acc);
    while (s->left) {
        const int64_t step = fr_ahead_vectors(s, G) * LANES;
        const float *w = fr_ahead_weights(s, G), *x = fr_ahead_inputs(s);
        for (; s->left; s->left--, w += step, x += AHEAD_ROWS) fr_ahead_fma(acc, w, x);
        fr_ahead_next(s, GA, G, slots, acc);
    }
}

/* fr_chain for few rows, with as much of `s` as fits beside them. */
FR_INLINE void fr_chain_ahead(vf *acc, const int NB, const int TAIL, const int GA, const int R, const int G, const unsigned slots, const float *panel,
                              int64_t block, int64_t K, const float *const *rows, fr_ahead *s, const int GX, const unsigned x_slots) {
    const int64_t stride = K * G * LANES;
    const float *w = panel + block * stride, *tail = w + NB * stride;
    const float *row[TILE_ROWS], *odd = w + stride;
    UNROLL for (int r = 0; r < R; r++) row[r] = rows[r];
    IN_REGISTER(odd);
    int64_t left = K;
    vf side[AHEAD_ROWS];
    fr_ahead_load(s, side);
    while (left && s->left) {
        const int64_t n = left < s->left ? left : s->left, side_step = fr_ahead_vectors(s, GX) * LANES;
        const float *side_w = fr_ahead_weights(s, GX), *side_x = fr_ahead_inputs(s);
        for (int64_t k = 0; k < n; k++) {
            fr_chain_one(acc, NB, TAIL, GA, R, G, slots, w, odd, stride, tail, row, k);
            __builtin_prefetch(side_w + 8 * side_step); /* a stride that the hardware does not follow well */
            fr_ahead_fma(side, side_w, side_x);
            w += G * LANES, odd += G * LANES, tail += TAIL * PAIRS(G) * LANES, side_w += side_step, side_x += AHEAD_ROWS;
        }
        UNROLL for (int r = 0; r < R; r++) row[r] += n;
        left -= n;
        s->left -= n;
        if (!s->left) fr_ahead_next(s, GA, GX, x_slots, side);
    }
    fr_ahead_store(s, side);
    fr_chain_part(acc, NB, TAIL, GA, R, G, slots, w, stride, tail, left, row);
}
#endif
