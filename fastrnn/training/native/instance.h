/* The time loops of a direction, forward and backward, for one kind of real.
 *
 * Rows are packed sequences (training/packing.py), computed piece by piece; a piece's previous rows lie together. States have the B initial rows in front;
 * their gradients have them apart (dh0, dc). */
#include "real.h"
#include "product.h"
#include "cells.h"

typedef struct {
    int64_t B, H, P, n_pieces, by_h; /* by_h: from row to row of h and dh */
    const fr_piece *pieces;
    real *gates, *h, *c, *extra; /* (N, G H), (B + N, P), (B + N, H), (N, H) */
    real *dh, *dh0, *dc, *da;    /* (N, P), (B, P), (B, H); RNN: (N, H), where the gradients of its pre-activations go */
    real *scratch;               /* (B, H) */
    const real *w_h, *w_p;       /* (G H, P), (P, H) */
    const real *peepholes, *b_n; /* (3, H), (H) */
    real *d_peepholes, *panels;
    int relu, coupled;
} NAME(fr_direction);
#define direction NAME(fr_direction)

FR_INLINE real *NAME(gradient_of)(const direction *d, int64_t before) {
    return before < d->B ? d->dh0 + before * d->by_h : d->dh + (before - d->B) * d->by_h;
}

#define EACH_PIECE for (const fr_piece *p = d->pieces; p < d->pieces + d->n_pieces; p++)
#define EACH_PIECE_BACK for (const fr_piece *p = d->pieces + d->n_pieces; p-- > d->pieces;)
#define EACH_ROW for (int64_t k = 0; k < p->n; k++)
#define ADD NAME(add_product)

static void NAME(rnn)(const direction *d) {
    const int64_t H = d->H;
    NAME(pack)(d->w_h, 1, H, H, H, d->panels);
    EACH_PIECE {
        real *h = d->h + (d->B + p->row) * d->by_h;
        ADD(d->h + p->before * d->by_h, d->by_h, p->n, d->panels, H, H, h, d->by_h);
        EACH_ROW NAME(rnn_row)(h + k * d->by_h, H, d->relu);
    }
}

static void NAME(rnn_back)(const direction *d) {
    const int64_t H = d->H;
    NAME(pack)(d->w_h, H, 1, H, H, d->panels);
    EACH_PIECE_BACK {
        real *da = d->da + p->row * d->by_h;
        EACH_ROW NAME(rnn_row_back)(d->h + (d->B + p->row + k) * d->by_h, d->dh + (p->row + k) * d->by_h, da + k * d->by_h, H, d->relu);
        ADD(da, d->by_h, p->n, d->panels, H, H, NAME(gradient_of)(d, p->before), d->by_h);
    }
}

static void NAME(lstm)(const direction *d) {
    const int64_t H = d->H, P = d->P;
    real *panels_p = d->panels + NAME(panels_size)(4 * H, P);
    NAME(pack)(d->w_h, 1, P, P, 4 * H, d->panels);
    if (d->w_p) NAME(pack)(d->w_p, 1, H, H, P, panels_p);
    EACH_PIECE {
        real *gates = d->gates + p->row * 4 * H, *h = d->h + (d->B + p->row) * d->by_h, *c = d->c + (d->B + p->row) * H;
        real *m = d->w_p ? d->extra + p->row * H : h;
        const int64_t by_m = d->w_p ? H : d->by_h;
        ADD(d->h + p->before * d->by_h, d->by_h, p->n, d->panels, P, 4 * H, gates, 4 * H);
        EACH_ROW NAME(lstm_row)(gates + k * 4 * H, d->c + (p->before + k) * H, c + k * H, m + k * by_m, H, d->peepholes, d->coupled);
        if (d->w_p) {
            EACH_ROW memset(h + k * d->by_h, 0, P * sizeof(real));
            ADD(m, H, p->n, panels_p, H, P, h, d->by_h);
        }
    }
}

static void NAME(lstm_back)(const direction *d) {
    const int64_t H = d->H, P = d->P;
    real *panels_p = d->panels + NAME(panels_size)(P, 4 * H);
    NAME(pack)(d->w_h, P, 1, 4 * H, P, d->panels);
    if (d->w_p) NAME(pack)(d->w_p, H, 1, P, H, panels_p);
    EACH_PIECE_BACK {
        real *gates = d->gates + p->row * 4 * H, *dm = d->dh + p->row * d->by_h;
        int64_t by_m = d->by_h;
        if (d->w_p) {
            memset(d->scratch, 0, p->n * H * sizeof(real));
            ADD(dm, by_m, p->n, panels_p, P, H, d->scratch, H);
            dm = d->scratch, by_m = H;
        }
        EACH_ROW NAME(lstm_row_back)(gates + k * 4 * H, d->c + (p->before + k) * H, d->c + (d->B + p->row + k) * H, dm + k * by_m,
                                     d->dc + (p->place + k) * H, H, d->peepholes, d->d_peepholes, d->coupled);
        ADD(gates, 4 * H, p->n, d->panels, 4 * H, P, NAME(gradient_of)(d, p->before), d->by_h);
    }
}

/* Packs R of r and z as panels, and R_n behind them, whose panels are returned. */
static const real *NAME(pack_gru)(const direction *d) {
    const int64_t H = d->H;
    real *panels_n = d->panels + NAME(panels_size)(2 * H, H);
    NAME(pack)(d->w_h, 1, H, H, 2 * H, d->panels);
    NAME(pack)(d->w_h + 2 * H * H, 1, H, H, H, panels_n);
    return panels_n;
}

static const real *NAME(pack_gru_back)(const direction *d) {
    const int64_t H = d->H;
    real *panels_n = d->panels + NAME(panels_size)(H, 2 * H);
    NAME(pack)(d->w_h, H, 1, 2 * H, H, d->panels);
    NAME(pack)(d->w_h + 2 * H * H, H, 1, H, H, panels_n);
    return panels_n;
}

/* extra: R_n h + b_n. */
static void NAME(gru)(const direction *d) {
    const int64_t H = d->H;
    const real *panels_n = NAME(pack_gru)(d);
    EACH_PIECE {
        real *gates = d->gates + p->row * 3 * H, *h = d->h + (d->B + p->row) * d->by_h, *q = d->extra + p->row * H;
        const real *before = d->h + p->before * d->by_h;
        ADD(before, d->by_h, p->n, d->panels, H, 2 * H, gates, 3 * H);
        EACH_ROW {
            if (d->b_n) memcpy(q + k * H, d->b_n, H * sizeof(real));
            else memset(q + k * H, 0, H * sizeof(real));
        }
        ADD(before, d->by_h, p->n, panels_n, H, H, q, H);
        EACH_ROW NAME(gru_row)(gates + k * 3 * H, before + k * d->by_h, h + k * d->by_h, q + k * H, H);
    }
}

static void NAME(gru_back)(const direction *d) {
    const int64_t H = d->H;
    const real *panels_n = NAME(pack_gru_back)(d);
    EACH_PIECE_BACK {
        real *gates = d->gates + p->row * 3 * H, *q = d->extra + p->row * H, *to = NAME(gradient_of)(d, p->before);
        const real *before = d->h + p->before * d->by_h, *dh = d->dh + p->row * d->by_h;
        EACH_ROW NAME(gru_row_back)(gates + k * 3 * H, before + k * d->by_h, dh + k * d->by_h, to + k * d->by_h, q + k * H, H);
        ADD(gates, 3 * H, p->n, d->panels, 2 * H, H, to, d->by_h);
        ADD(q, H, p->n, panels_n, H, H, to, d->by_h);
    }
}

/* extra: r h. */
static void NAME(gru_before)(const direction *d) {
    const int64_t H = d->H;
    const real *panels_n = NAME(pack_gru)(d);
    EACH_PIECE {
        real *gates = d->gates + p->row * 3 * H, *h = d->h + (d->B + p->row) * d->by_h, *s = d->extra + p->row * H;
        const real *before = d->h + p->before * d->by_h;
        ADD(before, d->by_h, p->n, d->panels, H, 2 * H, gates, 3 * H);
        EACH_ROW NAME(gru_before_row)(gates + k * 3 * H, before + k * d->by_h, s + k * H, H);
        ADD(s, H, p->n, panels_n, H, H, gates + 2 * H, 3 * H);
        EACH_ROW NAME(gru_before_row2)(gates + k * 3 * H, before + k * d->by_h, h + k * d->by_h, H);
    }
}

static void NAME(gru_before_back)(const direction *d) {
    const int64_t H = d->H;
    const real *panels_n = NAME(pack_gru_back)(d);
    EACH_PIECE_BACK {
        real *gates = d->gates + p->row * 3 * H, *to = NAME(gradient_of)(d, p->before);
        const real *before = d->h + p->before * d->by_h, *dh = d->dh + p->row * d->by_h;
        EACH_ROW NAME(gru_before_row_back)(gates + k * 3 * H, before + k * d->by_h, dh + k * d->by_h, to + k * d->by_h, H);
        memset(d->scratch, 0, p->n * H * sizeof(real));
        ADD(gates + 2 * H, 3 * H, p->n, panels_n, H, H, d->scratch, H);
        EACH_ROW NAME(gru_before_row_back2)(gates + k * 3 * H, before + k * d->by_h, to + k * d->by_h, d->scratch + k * H, H);
        ADD(gates, 3 * H, p->n, d->panels, 2 * H, H, to, d->by_h);
    }
}

/* kind: 0 RNN, 1 LSTM, 2 GRU, 3 GRU with the reset before the matrix. Denormals, which vanishing gradients become, are flushed meanwhile. */
static void NAME(fr_run)(int kind, int back, const direction *d) {
    void (*const loops[4][2])(const direction *) = {
        {NAME(rnn), NAME(rnn_back)}, {NAME(lstm), NAME(lstm_back)}, {NAME(gru), NAME(gru_back)}, {NAME(gru_before), NAME(gru_before_back)}};
    const uint64_t mode = fr_flush_denormals();
    loops[kind][back](d);
    fr_restore_denormals(mode);
}

#include "cell.h"

#undef vr
#undef LANES_R
#undef get
#undef put
#undef TANH
#undef SIGMOID
#undef EACH_VECTOR
#undef direction
#undef EACH_PIECE
#undef EACH_PIECE_BACK
#undef EACH_ROW
#undef ADD
#undef ROWS
#undef WIDE
#undef CHAINS
