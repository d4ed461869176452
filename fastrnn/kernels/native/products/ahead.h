/* Input projections of steps to come, computed beside the steps of one row.
 *
 * One row reads each recurrent weight for one multiply-add, so from L2 on it waits for bytes while the multipliers idle; the projections
 * of later steps use one weight for AHEAD_ROWS rows. fr_chain_ahead runs both in one loop, multiply-add for multiply-add. A unit is two vectors of the panel
 * over x for AHEAD_ROWS rows, whose inputs lie side by side: ten loads for sixteen multiply-adds. (One vector takes nine for eight, and then both wait for loads:
 * Emerald Rapids, LSTM H = 256, 200 steps: 11.1 us a step, 10.3 one after the other, 9.1 with two vectors. With sixteen registers there is no room, 1.05 of the time
 * without, and nothing goes beside.) Its accumulators wait in memory from one tile to the next. What makes no whole unit, the last of an odd count of vectors and a narrow block, is
 * computed when the chunk is needed. */
#ifndef FASTRNN_AHEAD_H
#define FASTRNN_AHEAD_H
#include "rows.h"
#include "tiles.h"

#define AHEAD(a) (LANES == 16 && (a)->ahead)
#define AHEAD_VECTORS 2
#define AHEAD_SUMS (AHEAD_VECTORS * AHEAD_ROWS)

/* Vectors are counted over the whole panel: block * gates + gate. */
typedef struct {
    const float *panel, *bias; /* over x; where chains start, [unit block][accumulator][lane] */
    const float *x;            /* [group][k][AHEAD_ROWS] */
    float *out;                /* [group][AHEAD_ROWS][unit block][gate][lane] */
    int64_t I, groups, row_floats;
    int64_t units, vectors; /* vectors up to `units` make units; whole blocks end with `vectors`, */
    int narrow;             /* and whether a narrow one follows */
    int64_t vector, group;  /* the unit in hand, */
    int64_t left;           /* how many of its k are to come; 0 when all units are done, */
    const float *weights;   /* k = 0 of its first vector, */
    int64_t apart;          /* and how many floats its second one lies behind */
    float acc[AHEAD_SUMS * LANES];
} fr_ahead;

/* Lays out the inputs of n rows, the last group filled up with zeros. */
static void fr_ahead_pack(float *packed, const float *const *rows, int64_t n, int64_t I) {
    for (int64_t first = 0; first < n; first += AHEAD_ROWS, packed += I * AHEAD_ROWS)
        for (int64_t r = 0; r < AHEAD_ROWS; r++)
            for (int64_t k = 0; k < I; k++) packed[k * AHEAD_ROWS + r] = first + r < n ? rows[first + r][k] : 0.0f;
}

FR_INLINE void fr_ahead_load(const fr_ahead *s, vf *acc) { UNROLL for (int i = 0; i < AHEAD_SUMS; i++) acc[i] = vf_load(s->acc + i * LANES); }
FR_INLINE void fr_ahead_store(fr_ahead *s, const vf *acc) { UNROLL for (int i = 0; i < AHEAD_SUMS; i++) vf_store(s->acc + i * LANES, acc[i]); }
FR_INLINE const float *fr_ahead_weights(const fr_ahead *s, const int G) { return s->weights + (s->I - s->left) * G * LANES; }
FR_INLINE const float *fr_ahead_inputs(const fr_ahead *s) { return s->x + (s->group * s->I + s->I - s->left) * AHEAD_ROWS; }

/* One k of V vectors for AHEAD_ROWS rows. */
FR_INLINE void fr_ahead_one(vf *acc, const int V, const float *w, int64_t apart, const float *x) {
    vf weight[AHEAD_VECTORS];
    UNROLL for (int v = 0; v < V; v++) {
        weight[v] = vf_load(w + v * apart);
        VF_IN_REGISTER(weight[v]);
    }
    UNROLL for (int r = 0; r < AHEAD_ROWS; r++) {
        const vf one = vf_set1(x[r]);
        UNROLL for (int v = 0; v < V; v++) acc[v * AHEAD_ROWS + r] = vf_fma(weight[v], one, acc[v * AHEAD_ROWS + r]);
    }
}

FR_INLINE void fr_ahead_begin(const fr_ahead *s, const int GA, const unsigned slots, int64_t block, int64_t gate, vf *acc) {
    const vf start = vf_load(s->bias + (block * GA + SLOT(slots, gate)) * LANES);
    UNROLL for (int r = 0; r < AHEAD_ROWS; r++) acc[r] = start;
}
FR_INLINE void fr_ahead_end(const fr_ahead *s, int64_t vector, int64_t group, const vf *acc) {
    float *out = s->out + group * AHEAD_ROWS * s->row_floats + vector * LANES;
    UNROLL for (int r = 0; r < AHEAD_ROWS; r++) vf_store(out + r * s->row_floats, acc[r]);
}

/* Starts on the unit in hand, if it is one. */
FR_INLINE void fr_ahead_start(fr_ahead *s, const int GA, const int G, const unsigned slots, vf *acc) {
    if (s->vector >= s->units) return;
    UNROLL for (int v = 0; v < AHEAD_VECTORS; v++) {
        const int64_t block = (s->vector + v) / G, gate = (s->vector + v) % G;
        const float *weights = s->panel + (block * s->I * G + gate) * LANES;
        if (v) s->apart = weights - s->weights;
        else s->weights = weights;
        fr_ahead_begin(s, GA, slots, block, gate, acc + v * AHEAD_ROWS);
    }
    s->left = s->I;
}

/* Stores a finished unit and starts the next. */
FR_INLINE void fr_ahead_next(fr_ahead *s, const int GA, const int G, const unsigned slots, vf *acc) {
    UNROLL for (int v = 0; v < AHEAD_VECTORS; v++) fr_ahead_end(s, s->vector + v, s->group, acc + v * AHEAD_ROWS);
    if (++s->group == s->groups) s->group = 0, s->vector += AHEAD_VECTORS;
    fr_ahead_start(s, GA, G, slots, acc);
}

/* Gate `gate` of a block of so many vectors, for all rows. */
FR_INLINE void fr_ahead_alone(const fr_ahead *s, const int GA, const int G, const unsigned slots, int64_t block, int64_t gate, int64_t vectors) {
    for (int64_t group = 0; group < s->groups; group++) {
        const float *w = s->panel + (block * s->I * G + gate) * LANES, *x = s->x + group * s->I * AHEAD_ROWS;
        vf acc[AHEAD_ROWS];
        fr_ahead_begin(s, GA, slots, block, gate, acc);
        for (int64_t k = 0; k < s->I; k++, w += vectors * LANES, x += AHEAD_ROWS) fr_ahead_one(acc, 1, w, 0, x);
        fr_ahead_end(s, block * G + gate, group, acc);
    }
}

/* All that is left. */
FR_INLINE void fr_ahead_finish(fr_ahead *s, const int GA, const int G, const unsigned slots) {
    vf acc[AHEAD_SUMS];
    fr_ahead_load(s, acc);
    while (s->left) {
        const float *w = fr_ahead_weights(s, G), *x = fr_ahead_inputs(s);
        for (; s->left; s->left--, w += G * LANES, x += AHEAD_ROWS) fr_ahead_one(acc, AHEAD_VECTORS, w, s->apart, x);
        fr_ahead_next(s, GA, G, slots, acc);
    }
    for (int64_t v = s->units; v < s->vectors; v++) fr_ahead_alone(s, GA, G, slots, v / G, v % G, G);
    for (int64_t g = 0; g < PAIRS(G) && s->narrow; g++) fr_ahead_alone(s, GA, G, EVEN_SLOTS(slots), s->vectors / G, g, PAIRS(G));
}

/* fr_chain for one row, with as much of `s` as fits beside it. */
FR_INLINE void fr_chain_ahead(vf *acc, const int NB, const int TAIL, const int GA, const int G, const unsigned slots, const float *panel,
                              int64_t block, int64_t K, const float *row, fr_ahead *s, const int GX, const unsigned x_slots) {
    const int STEPS = AHEAD_SUMS / (NB * G + TAIL * PAIRS(G)); /* of k beside one of a unit's */
    fr_weights at = fr_weights_of(panel, NB, G, block, K);
    IN_REGISTER(at.odd);
    int64_t left = K;
    vf side[AHEAD_SUMS];
    fr_ahead_load(s, side);
    while (left >= STEPS && s->left) {
        const int64_t n = left / STEPS < s->left ? left / STEPS : s->left, apart = s->apart;
        const float *side_w = fr_ahead_weights(s, GX), *side_x = fr_ahead_inputs(s);
        for (int64_t k = 0; k < n; k++, side_w += GX * LANES, side_x += AHEAD_ROWS) {
            UNROLL for (int i = 0; i < STEPS; i++) {
                fr_chain_one(acc, NB, TAIL, GA, 1, G, slots, &at, &row, i);
                fr_next_weights(&at, TAIL, G);
            }
            row += STEPS;
            fr_ahead_one(side, AHEAD_VECTORS, side_w, apart, side_x);
        }
        left -= STEPS * n;
        s->left -= n;
        if (!s->left) fr_ahead_next(s, GA, GX, x_slots, side);
    }
    fr_ahead_store(s, side);
    fr_chain_part(acc, NB, TAIL, GA, 1, G, slots, at, left, &row);
}
#endif
