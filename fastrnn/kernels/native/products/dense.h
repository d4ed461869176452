/* Matrix products: dense layers, those of a convolution's groups, products of two computed matrices, depthwise convolutions. What follows
 * elementwise is applied to a tile while it is hot.
 *
 * The epilogue is a program (operations.h): a table of how many operands and instructions it has, the operands' strides along t, b and
 * units, and the instructions. Value 0 is the product, then come the operands x2, x3, ...; the last instruction's result is y. */
#include "grid.h"
#include "operations.h"
#include "multiply.h"

#define MAX_OPERANDS 7
#define TILE_FLOATS 512 /* that the epilogue takes at once: its values stay in the first cache */

typedef struct {
    const fr_args *a;
    const void *w;
    const float *bias;
    const float **x;
    float **y;
    fr_quantized integers;   /* of int8 weights, the rows in hand */
    int64_t count, operands; /* of the epilogue */
    const int64_t *strides;  /* of each operand along t, b and units */
    const fr_instruction *program;
    int64_t unit; /* where the group's units start */
} dense_rows;

static const float *dense_operand(const fr_args *a, int64_t k) {
    const void *operand[MAX_OPERANDS] = {a->x2, a->x3, a->x4, a->x5, a->x6, a->x7, a->x8};
    return operand[k];
}

static void dense_epilogue_of(dense_rows *s, const int64_t *table) {
    if (!table) return;
    s->operands = table[0], s->count = table[1], s->strides = table + 2;
    s->program = (const fr_instruction *)(s->strides + 3 * s->operands);
}

/* The program over n_rows x n units, laid out row after row of `width` in `tile`; the result is there as well. */
static void dense_epilogue(const dense_rows *s, float *tile, int64_t row, int64_t n_rows, int64_t unit, int64_t n, int64_t width) {
    float room[FR_VALUES][TILE_FLOATS] __attribute__((aligned(64)));
    float *value[FR_VALUES];
    const int64_t last = s->program[s->count - 1].to;
    value[0] = tile;
    for (int64_t k = 1; k <= last; k++) value[k] = room[k];
    value[last] = tile;
    for (int64_t k = 0; k < s->operands; k++) {
        const float *base = dense_operand(s->a, k);
        const int64_t *stride = s->strides + 3 * k;
        for (int64_t r = 0, t = row / s->a->B, b = row % s->a->B; r < n_rows; r++) {
            const float *from = base + t * stride[0] + b * stride[1] + (s->unit + unit) * stride[2], first = *from;
            float *to = room[1 + k] + r * width;
            if (stride[2] == 1) memcpy(to, from, (size_t)n * sizeof *to);
            else if (stride[2] == 0)
                for (int64_t u = 0; u < n; u++) to[u] = first;
            else
                for (int64_t u = 0; u < n; u++) to[u] = from[u * stride[2]];
            for (int64_t u = n; u < width; u++) to[u] = 0.0f;
            if (++b == s->a->B) b = 0, t++;
        }
    }
    fr_execute(s->program, s->count, value, n_rows * width);
}

/* Rows from `row` on, whose addresses are in s->x and s->y: all units, `segments` as an operand has them. */
static void dense_many(dense_rows *s, int64_t row, int64_t n_rows, int64_t segments, const int64_t *offsets) {
    const int64_t blocks = fr_blocks(s->a->H);
    fr_product p = {.operand = {{s->w, s->a->I, s->x, segments, offsets}},
                    .n_operands = 1,
                    .gates = 1,
                    .start = {s->bias},
                    .start_block = {LANES},
                    .out = s->y,
                    .units = s->a->H,
                    .weights = s->a->weights,
                    .blocks = blocks};
    if (p.weights == FR_INT8) { /* the integers lie one after the other */
        fr_quantize(&s->integers, (int)s->a->x_bits, s->x, s->a->I, segments, offsets, n_rows, NULL);
        p.operand[0] = (fr_operand){s->w, s->a->I * (segments ? segments : 1), .integers = &s->integers};
    }
    if (!s->count) {
        fr_multiply(&p, 0, blocks, 0, n_rows);
        return;
    }
    /* by way of memory: the epilogue loops over operations, and inside over rows */
    float room[MANY_ROWS * MANY_VECTORS * LANES] __attribute__((aligned(64)));
    float *out[MANY_ROWS];
    p.out = out;
    for (int64_t block = 0, end; block < blocks; block = end) {
        end = block + MANY_VECTORS < blocks ? block + MANY_VECTORS : blocks;
        const int64_t unit = block * LANES, width = (end - block) * LANES, n = s->a->H - unit < width ? s->a->H - unit : width;
        for (int64_t r = 0; r < n_rows; r++) out[r] = room + r * width;
        p.first = block, p.units = width;
        fr_multiply(&p, block, end, 0, n_rows);
        const int64_t most = TILE_FLOATS / width; /* rows that the epilogue takes at once */
        for (int64_t r = 0; r < n_rows; r += most)
            dense_epilogue(s, room + r * width, row + r, n_rows - r < most ? n_rows - r : most, unit, n, width);
        for (int64_t r = 0; r < n_rows; r++) memcpy(s->y[r] + unit, out[r], (size_t)n * sizeof(float));
    }
}

/* Of so many rows those that go first: whole tiles, since tiles of two heights are of two widths as well; what is left is halved where little would be. */
static int64_t fr_rows_at_once(int64_t n_rows) {
    if (n_rows <= MANY_ROWS) return n_rows;
    return n_rows < 2 * MANY_ROWS ? (n_rows / 2 + HEIGHT - 1) / HEIGHT * HEIGHT : MANY_ROWS;
}

/* y (T, B, P H) = x (T, B, P I) W^T + bias in P groups, each with its own panel and part of x and y. A row of x is I floats, or `segments` times as many.
 * Few rows at a time, so that they stay in cache for all units. */
static void dense_walk(const fr_args *a, const int64_t *table, int64_t segments, const int64_t *offsets) {
    const int64_t n_rows = a->T * a->B, units = fr_blocks(a->H) * LANES, groups = a->P ? a->P : 1, width = (segments ? segments : 1) * a->I;
    const int64_t group_floats = segments ? a->I : width;
    const float *x[MANY_ROWS];
    float *y[MANY_ROWS];
    dense_rows s = {.a = a, .x = x, .y = y};
    if (a->weights == FR_INT8) s.integers = fr_room_for(a->work, width, MANY_ROWS);
    dense_epilogue_of(&s, table);
    for (int64_t first = 0, n; first < n_rows; first += n) {
        n = fr_rows_at_once(n_rows - first);
        for (int64_t r = 0, t = first / a->B, b = first % a->B; r < n; r++) {
            x[r] = fr_x_row(a, b, t), y[r] = fr_y_row(a, b, t);
            if (++b == a->B) b = 0, t++;
        }
        for (int64_t g = 0; g < groups; g++) {
            s.w = (const char *)a->w_x + g * fr_panel_bytes(a->weights, (int)a->x_bits, a->H, 1, width),
            s.bias = a->bias ? a->bias + g * units : NULL, s.unit = g * a->H;
            dense_many(&s, first, n, segments, offsets);
            for (int64_t r = 0; r < n; r++) x[r] += group_floats, y[r] += a->H;
        }
    }
}

/* axes: NULL, or the epilogue; behind, with a chunk, where each of so many segments of a row starts, from its address on: windows where they lie. */
static int64_t dense_int8_work_bytes(const fr_args *a) { return fr_quantized_bytes((a->chunk ? a->chunk : 1) * a->I, MANY_ROWS); }
static void dense_run(const fr_args *a) { dense_walk(a, a->chunk ? a->axes + a->chunk : a->axes, a->chunk, a->chunk ? a->axes : NULL); }

/* y = x x2, matrices (B, I) and (I, H) in T loops of (size, strides of y, x and x2). x_b and y_b are strides of rows, of unit stride along
 * the other axis; x_t and y_t those of x2 along I and H. A panel of x2 is laid out for every new x2. No epilogue. */
static int64_t product_work_bytes(const fr_args *a) { return fr_blocks(a->H) * LANES * a->I * (int64_t)sizeof(float); }

static void product_row(const fr_args *a, const fr_axis *loop, int64_t y, int64_t x, int64_t x2) {
    float *panel = a->work, *y_rows[MANY_ROWS];
    const float *x_rows[MANY_ROWS];
    dense_rows s = {.a = a, .w = panel, .x = x_rows, .y = y_rows};
    for (int64_t k = 0; k < loop->size; k++) {
        if (!k || loop->x2)
            for (int64_t block = 0; block < fr_blocks(a->H); block++)
                for (int64_t i = 0; i < a->I; i++) {
                    const int valid = fr_valid(a->H, block);
                    const vf w = vf_gather((const float *)a->x2 + x2 + k * loop->x2 + i * a->x_t + block * LANES * a->y_t, a->y_t, valid);
                    vf_store(panel + (block * a->I + i) * LANES, w);
                }
        for (int64_t first = 0, n; first < a->B; first += n) {
            n = fr_rows_at_once(a->B - first);
            for (int64_t r = 0; r < n; r++) {
                x_rows[r] = (const float *)a->x + x + k * loop->x + (first + r) * a->x_b;
                y_rows[r] = a->y + y + k * loop->y + (first + r) * a->y_b;
            }
            dense_many(&s, first, n, 0, NULL);
        }
    }
}
static void product_run(const fr_args *a) { fr_walk(a, product_row); }

/* y (T, B, H) = bias + w_x[k] x over I taps k, each channel on its own: x of tap k lies axes[k] elements behind the row's address,
 * and the epilogue's table follows. The weights are laid out [unit block][k][lane], as a dense layer's. */
FR_INLINE void depthwise_rows(const fr_args *a, const float *const *x, float *const *y, const int R, int64_t block, int64_t to, int whole) {
    const int64_t unit = block * LANES;
    const int valid = whole ? LANES : fr_valid(a->H, block); /* a tile has room for whole blocks */
    const int readable = fr_valid(a->H, block);
    const float *w = (const float *)a->w_x + unit * a->I;
    vf acc[TILE_ROWS];
    UNROLL for (int r = 0; r < R; r++) acc[r] = a->bias ? vf_load(a->bias + unit) : vf_zero();
    for (int64_t k = 0; k < a->I; k++) {
        const vf weight = vf_load(w + k * LANES);
        const int64_t at = a->axes[k] + unit;
        if (readable == LANES) UNROLL for (int r = 0; r < R; r++) acc[r] = vf_fma(weight, vf_load(x[r] + at), acc[r]);
        else UNROLL for (int r = 0; r < R; r++) acc[r] = vf_fma(weight, vf_load_n(x[r] + at, readable), acc[r]);
    }
    UNROLL for (int r = 0; r < R; r++) vf_store_tail(y[r] + to, acc[r], valid);
}

/* Blocks of up to TILE_ROWS rows; with an epilogue by way of a tile of as many blocks as it takes at once. */
static void depthwise_run(const fr_args *a) {
    const int64_t n_rows = a->T * a->B, blocks = fr_blocks(a->H);
    dense_rows s = {.a = a};
    dense_epilogue_of(&s, a->axes + a->I);
    const int64_t most = s.count ? TILE_FLOATS / (TILE_ROWS * LANES) : blocks;
    float tile[TILE_FLOATS] __attribute__((aligned(64)));
    for (int64_t row = 0; row < n_rows; row += TILE_ROWS) {
        const int R = n_rows - row < TILE_ROWS ? (int)(n_rows - row) : TILE_ROWS;
        const float *x[TILE_ROWS];
        float *y[TILE_ROWS], *to[TILE_ROWS];
        for (int r = 0; r < R; r++) x[r] = fr_x_row(a, (row + r) % a->B, (row + r) / a->B), y[r] = fr_y_row(a, (row + r) % a->B, (row + r) / a->B);
        for (int64_t block = 0, end; block < blocks; block = end) {
            end = block + most < blocks ? block + most : blocks;
            const int64_t unit = block * LANES, width = (end - block) * LANES, n = a->H - unit < width ? a->H - unit : width;
            for (int r = 0; r < R; r++) to[r] = s.count ? tile + r * width : y[r] + unit;
            for (int64_t at = block; at < end; at++)
                if (R == TILE_ROWS) depthwise_rows(a, x, to, TILE_ROWS, at, (at - block) * LANES, s.count > 0);
                else
                    for (int r = 0; r < R; r++) depthwise_rows(a, x + r, to + r, 1, at, (at - block) * LANES, s.count > 0);
            if (!s.count) continue;
            dense_epilogue(&s, tile, row, R, unit, n, width);
            for (int r = 0; r < R; r++) memcpy(y[r] + unit, tile + r * width, (size_t)n * sizeof(float));
        }
    }
}
