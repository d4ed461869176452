/* Convolutions of 3 x 3 taps and steps of one, by F(2 x 2, 3 x 3) of Lavin and Gray (2015, arXiv:1509.09308, section 4.1): four neighbouring outputs take 16 products
 * of a matrix, where their taps one by one take 36.
 *
 * Outputs lie in squares, which start at the first line and column and at every second one: the same squares, and the same bits, whatever images are computed
 * together and on however many threads. Y = A' (U . B' d B) A for the 4 x 4 inputs d around a square:
 *
 *     B' =  1  0 -1  0      A' =  1  1  1  0      U = G g G', which packing makes, a panel for each of its 16 places, with G = 1    0    0
 *           0  1  1  0            0  1 -1 -1                                                                                  1/2  1/2  1/2
 *           0 -1  1  0                                                                                                        1/2 -1/2  1/2
 *           0  1  0 -1                                                                                                        0    0    1
 *
 * No output takes from an input that its taps do not meet. What infinities make of one another differs: here inf - inf can come up before weights are met.
 *
 * Some squares at once: their inputs are turned and lie in the second cache for all units; products of some units follow place by place, whose weights then stay
 * in the first cache for all squares, and are turned back before the next units'. */
#ifndef FASTRNN_WINOGRAD_H
#define FASTRNN_WINOGRAD_H
#include "dense.h"

#define SQUARES 72                 /* at once, at most: weights that come from the third cache are read once for so many */
#define SQUARES_BYTES (1280 << 10) /* and so much of what they become, before and after the product */
#define PLACES 16
#define MIDDLE 5                   /* the place that each output of a square takes once, with a plus: its chains start at the bias */
#define SQUARE_BLOCKS (64 / LANES) /* of units, between product and end */
#define SQUARE_UNITS (SQUARE_BLOCKS * LANES)

/* A tile: vectors of units, and squares. */
#if LANES == 16
#define SQUARE_V 4
#else
#define SQUARE_V 2
#endif
#define SQUARE_R 6

typedef struct {
    dense_rows rows;
    int64_t squares, depth;   /* at once; of a square's channels, whole vectors */
    float *turned, *products; /* [place][square][depth], [place][square][SQUARE_UNITS] */
} winograd;

static int64_t winograd_bytes(const fr_args *a) { return PLACES * (fr_blocks(a->I) * LANES + SQUARE_UNITS) * (int64_t)sizeof(float); }
static int64_t winograd_squares(const fr_args *a) {
    const int64_t most = SQUARES_BYTES / winograd_bytes(a) / SQUARE_R * SQUARE_R;
    return most < SQUARE_R ? SQUARE_R : most < SQUARES ? most : SQUARES;
}
static int64_t winograd_work_bytes(const fr_args *a) { return winograd_squares(a) * winograd_bytes(a); }

/* B' d B of a vector of channels: d of 4 lines and columns, to 16 places `apart`. */
FR_INLINE void winograd_turn(const float *const *line, const int64_t *column, const int whole, int valid, float *to, int64_t apart) {
    vf d[4][4], t[4][4];
    UNROLL for (int l = 0; l < 4; l++) UNROLL for (int c = 0; c < 4; c++) d[l][c] =
        whole ? vf_load(line[l] + column[c]) : vf_load_n(line[l] + column[c], valid);
    UNROLL for (int c = 0; c < 4; c++) {
        t[0][c] = vf_sub(d[0][c], d[2][c]), t[1][c] = vf_add(d[1][c], d[2][c]);
        t[2][c] = vf_sub(d[2][c], d[1][c]), t[3][c] = vf_sub(d[1][c], d[3][c]);
    }
    UNROLL for (int l = 0; l < 4; l++) {
        vf_store(to + (4 * l + 0) * apart, vf_sub(t[l][0], t[l][2]));
        vf_store(to + (4 * l + 1) * apart, vf_add(t[l][1], t[l][2]));
        vf_store(to + (4 * l + 2) * apart, vf_sub(t[l][2], t[l][1]));
        vf_store(to + (4 * l + 3) * apart, vf_sub(t[l][1], t[l][3]));
    }
}

/* n squares of lines t and t + 1, from column b on, the first of them `at`. Past the last line and column of an odd count the one before is read again: nothing that is
 * kept takes from it. */
static FR_OWN_FUNCTION void winograd_inputs(const winograd *s, int64_t t, int64_t b, int64_t at, int64_t n) {
    const fr_args *a = s->rows.a;
    const int64_t apart = s->squares * s->depth;
    for (int64_t q = 0; q < n; q++) {
        const float *line[4];
        int64_t column[4];
        for (int64_t k = 0; k < 4; k++) {
            line[k] = s->rows.in + (t + k < a->T + 2 ? t + k : a->T + 1) * a->x_t;
            column[k] = (b + 2 * q + k < a->B + 2 ? b + 2 * q + k : a->B + 1) * a->x_b;
        }
        float *to = s->turned + (at + q) * s->depth;
        int64_t i = 0;
        for (; i + LANES <= a->I; i += LANES) {
            winograd_turn(line, column, 1, LANES, to + i, apart);
            for (int64_t k = 0; k < 4; k++) line[k] += LANES;
        }
        if (i < a->I) winograd_turn(line, column, 0, (int)(a->I - i), to + i, apart);
    }
}

/* V vectors of units x R squares of one place. */
FR_INLINE void winograd_tile(const winograd *s, const int V, const int R, const float *w, const float *bias, const float *x, float *out) {
    const int64_t K = s->rows.a->I, apart = K * LANES, depth = s->depth;
    vf acc[SQUARE_V * SQUARE_R];
    UNROLL for (int i = 0; i < V; i++) UNROLL for (int r = 0; r < R; r++) acc[i * R + r] = bias ? vf_load(bias + i * LANES) : vf_zero();
    for (int64_t k = 0; k < K; k++, w += LANES, x++) {
        vf weight[SQUARE_V];
        UNROLL for (int i = 0; i < V; i++) {
            weight[i] = vf_load(w + i * apart);
            VF_IN_REGISTER(weight[i]);
        }
        UNROLL for (int r = 0; r < R; r++) {
            const vf one = vf_set1(x[r * depth]);
            UNROLL for (int i = 0; i < V; i++) acc[i * R + r] = vf_fma(weight[i], one, acc[i * R + r]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < V; i++) vf_store(out + r * SQUARE_UNITS + i * LANES, acc[i * R + r]);
}

typedef void (*winograd_kind)(const winograd *s, const float *w, const float *bias, const float *x, float *out);
#define WINOGRAD_TILE(V, R) \
    static FR_OWN_FUNCTION void winograd_tile_##V##_##R(const winograd *s, const float *w, const float *bias, const float *x, float *out) { \
        winograd_tile(s, V, R, w, bias, x, out); \
    }
#define WINOGRAD_NAME(V, R) winograd_tile_##V##_##R,
#define WINOGRAD_EACH(X, V) X(V, 1) X(V, 2) X(V, 3) X(V, 4) X(V, 5) X(V, 6)
#if SQUARE_V == 4
#define WINOGRAD_BY_ROWS(X, Y) X(1) Y X(2) Y X(3) Y X(4)
#else
#define WINOGRAD_BY_ROWS(X, Y) X(1) Y X(2)
#endif
WINOGRAD_EACH(WINOGRAD_TILE, 1)
WINOGRAD_EACH(WINOGRAD_TILE, 2)
#if SQUARE_V == 4
WINOGRAD_EACH(WINOGRAD_TILE, 3)
WINOGRAD_EACH(WINOGRAD_TILE, 4)
#endif
static const winograd_kind winograd_tiles[][1 + SQUARE_R] = {
    {0},
    {0, WINOGRAD_EACH(WINOGRAD_NAME, 1)},
    {0, WINOGRAD_EACH(WINOGRAD_NAME, 2)},
#if SQUARE_V == 4
    {0, WINOGRAD_EACH(WINOGRAD_NAME, 3)},
    {0, WINOGRAD_EACH(WINOGRAD_NAME, 4)},
#endif
};

/* Blocks of units from `block` to `end` of n squares, place by place. */
static void winograd_products(const winograd *s, int64_t block, int64_t end, int64_t n) {
    const fr_args *a = s->rows.a;
    const int64_t stride = a->I * LANES, panel = fr_blocks(a->H) * stride;
    const int64_t tiles = (n + SQUARE_R - 1) / SQUARE_R, height = n / tiles, higher = n % tiles;
    for (int64_t place = 0; place < PLACES; place++) {
        const float *w = (const float *)a->w_x + place * panel, *bias = place == MIDDLE ? a->bias : NULL,
                    *x = s->turned + place * s->squares * s->depth;
        float *out = s->products + place * s->squares * SQUARE_UNITS;
        for (int64_t v = block, V; v < end; v += V) {
            V = end - v < SQUARE_V ? end - v : SQUARE_V;
            for (int64_t tile = 0, q = 0, R; tile < tiles; tile++, q += R) {
                R = height + (tile < higher);
                winograd_tiles[V][R](s, w + v * stride, bias ? bias + v * LANES : NULL, x + q * s->depth,
                                     out + q * SQUARE_UNITS + (v - block) * LANES);
            }
        }
    }
}

/* A' M A of a vector of units: the four outputs of a square, of which `lines` x `columns` are kept. */
FR_INLINE void winograd_end(const float *from, int64_t apart, float *const *line, int64_t step, int64_t lines, int64_t columns, int valid) {
    vf m[4], s[2][4];
    UNROLL for (int c = 0; c < 4; c++) {
        UNROLL for (int l = 0; l < 4; l++) m[l] = vf_load(from + (4 * l + c) * apart);
        s[0][c] = vf_add(vf_add(m[0], m[1]), m[2]), s[1][c] = vf_sub(vf_sub(m[1], m[2]), m[3]);
    }
    UNROLL for (int l = 0; l < 2; l++) {
        if (l == lines) break;
        vf_store_tail(line[l], vf_add(vf_add(s[l][0], s[l][1]), s[l][2]), valid);
        if (columns > 1) vf_store_tail(line[l] + step, vf_sub(vf_sub(s[l][1], s[l][2]), s[l][3]), valid);
    }
}

/* Blocks of units from `block` to `end` of n squares, the first of them `at`, whose outputs start at line[0] and line[1]. */
static FR_OWN_FUNCTION void winograd_outputs(const winograd *s, float *const *line, int64_t step, int64_t lines, int64_t columns, int64_t block,
                                             int64_t end, int64_t at, int64_t n) {
    for (int64_t q = 0; q < n; q++)
        for (int64_t k = block; k < end; k++) {
            float *const to[2] = {line[0] + 2 * q * step + k * LANES, line[1] + 2 * q * step + k * LANES};
            const float *from = s->products + (at + q) * SQUARE_UNITS + (k - block) * LANES;
            winograd_end(from, s->squares * SQUARE_UNITS, to, step, lines, columns - 2 * q, fr_valid(s->rows.a->H, k));
        }
}

/* Squares are counted along columns, lines, and images; where windows follow, so are those of the lines of a window. A run: of n squares from `first` on those that lie in one
 * line of the image in hand: where they start, how many, and how many lines and columns of outputs they have. */
typedef struct {
    int64_t t, b, n, lines, columns;
} winograd_run_of;

static winograd_run_of winograd_line(winograd *s, int64_t first, int64_t n) {
    const fr_args *a = s->rows.a;
    const int64_t across = (a->B + 1) / 2, each = (a->T + 1) / 2 * across, image = first / each, at = first % each, left = across - at % across;
    const int64_t t = 2 * (at / across), b = 2 * (at % across), most = MANY_ROWS / 2, run = n < left ? n : left, kept = run < most ? run : most;
    dense_image(&s->rows, image);
    if (s->rows.lines) {
        const int64_t window = first / (s->rows.lines / 2 * across);
        s->rows.waiting = a->hn + window % s->rows.at_once * s->rows.lines * a->B * a->H;
    }
    return (winograd_run_of){t, b, kept, t + 1 < a->T ? 2 : 1, b + 2 * kept <= a->B ? 2 * kept : a->B - b};
}

static void winograd_some(winograd *s, int64_t first, int64_t n) {
    dense_rows *rows = &s->rows;
    const fr_args *a = rows->a;
    const int64_t blocks = fr_blocks(a->H);
    winograd_run_of run;
    for (int64_t q = 0; q < n; q += run.n) run = winograd_line(s, first + q, n - q), winograd_inputs(s, run.t, run.b, q, run.n);
    for (int64_t block = 0; block < blocks; block += SQUARE_BLOCKS) {
        const int64_t end = block + SQUARE_BLOCKS < blocks ? block + SQUARE_BLOCKS : blocks;
        winograd_products(s, block, end, n);
        for (int64_t q = 0; q < n; q += run.n) {
            float *line[2] = {NULL, NULL};
            run = winograd_line(s, first + q, n - q);
            for (int64_t l = 0; l < run.lines; l++) dense_rows_from(rows, (run.t + l) * a->B + run.b, 1), line[l] = rows->y[0];
            if (run.lines == 1) line[1] = line[0];
            winograd_outputs(s, line, rows->lines ? a->H : a->y_b, run.lines, run.columns, block, end, q, run.n);
        }
    }
    for (int64_t q = 0; q < n && rows->count; q += run.n) {
        run = winograd_line(s, first + q, n - q);
        for (int64_t l = 0; l < run.lines; l++) {
            dense_rows_from(rows, (run.t + l) * a->B + run.b, run.columns);
            dense_epilogue(rows, (run.t + l) * a->B + run.b, run.columns);
        }
    }
}

/* y (T, B, H) = a convolution of x (T + 2, B + 2, I), whose rows are x_t and x_b apart; axes: NULL, or the epilogue, whose windows are of an even count of lines. */
static void winograd_run(const fr_args *a) {
    const float *x[MANY_ROWS];
    float *y[MANY_ROWS];
    winograd s = {.rows = dense_of(a, x, y, a->axes), .squares = winograd_squares(a), .depth = fr_blocks(a->I) * LANES};
    s.turned = a->work, s.products = s.turned + PLACES * s.squares * s.depth;
    const int64_t across = (a->B + 1) / 2, all = s.rows.images * ((a->T + 1) / 2) * across, window = s.rows.lines / 2 * across;
    const int64_t together = window ? window * s.rows.at_once : all;
    for (int64_t first = 0; first < all; first += together) {
        const int64_t n = first + together < all ? together : all - first, parts = (n + s.squares - 1) / s.squares;
        for (int64_t part = 0, from = 0, to; part < parts; part++, from = to) {
            to = n * (part + 1) / parts;
            winograd_some(&s, first + from, to - from);
        }
        for (int64_t at = first; window && at < first + n; at += window) dense_pool(&s.rows, winograd_line(&s, at, 1).t / s.rows.lines);
    }
}
#endif
