/* Matrix products: dense layers, those of a convolution's groups, products of two computed matrices, depthwise convolutions. What follows
 * elementwise is applied to a tile while it is hot.
 *
 * The epilogue is a program (operations.h): a table of how many operands and instructions it has, the operands' strides along t, b and
 * units, and the instructions. Value 0 is the product, then come the operands x2, x3, ...; the last instruction's result is y. */
#include "grid.h"
#include "operations.h"
#include "product.h"

#define MAX_OPERANDS 7
#define TILE_FLOATS 512 /* that the epilogue takes at once: its values stay in the first cache */

typedef struct {
    const fr_args *a;
    const float *w, *bias;
    const float **x;
    float **y;
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
        for (int64_t r = 0; r < n_rows; r++) {
            const int64_t t = (row + r) / s->a->B, b = (row + r) % s->a->B;
            const float *from = base + t * stride[0] + b * stride[1] + (s->unit + unit) * stride[2];
            float *to = room[1 + k] + r * width;
            if (stride[2] == 1) memcpy(to, from, (size_t)n * sizeof *to);
            else for (int64_t u = 0; u < n; u++) to[u] = from[u * stride[2]];
            for (int64_t u = n; u < width; u++) to[u] = 0.0f;
        }
    }
    fr_execute(s->program, s->count, value, n_rows * width);
}

static fr_product dense_product(const dense_rows *s, int64_t row) {
    return (fr_product){.operand = {{s->w, s->a->I, s->x + row}}, .n_operands = 1, .gates = 1, .start = {s->bias}, .start_block = {LANES}, .out = s->y + row,
                        .units = s->a->H};
}

static void dense_many(const void *context, int64_t block, int64_t end, int64_t row, int64_t n_rows) {
    const fr_product p = dense_product(context, row);
    fr_multiply(&p, block, end, 0, n_rows);
}

/* As dense_many, by way of memory: the epilogue loops over operations, and inside over rows. */
static void fused_many(const void *context, int64_t block, int64_t end, int64_t row, int64_t n_rows) {
    const dense_rows *s = context;
    const int64_t unit = block * LANES, width = (end - block) * LANES, n = s->a->H - unit < width ? s->a->H - unit : width;
    float room[MANY_ROWS * MANY_VECTORS * LANES] __attribute__((aligned(64)));
    float *out[MANY_ROWS];
    for (int64_t r = 0; r < n_rows; r++) out[r] = room + r * width;
    fr_product p = dense_product(s, row);
    p.out = out, p.first = block, p.units = width;
    fr_multiply(&p, block, end, 0, n_rows);
    const int64_t most = TILE_FLOATS / width; /* rows that the epilogue takes at once */
    for (int64_t r = 0; r < n_rows; r += most) dense_epilogue(s, room + r * width, row + r, n_rows - r < most ? n_rows - r : most, unit, n, width);
    for (int64_t r = 0; r < n_rows; r++) memcpy(s->y[row + r] + unit, out[r], (size_t)n * sizeof(float));
}

static void dense_cover(const dense_rows *s, int64_t n_rows) {
    fr_in_groups(s->count ? fused_many : dense_many, s, 0, fr_blocks(s->a->H), MANY_VECTORS, n_rows, 0);
}

/* y (T, B, P H) = x (T, B, P I) W^T + bias in P groups, each with its own panel and part of x and y. axes: NULL, or the epilogue. */
static int64_t dense_work_bytes(const fr_args *a) { return 2 * a->T * a->B * (int64_t)sizeof(void *); }

static void dense_run(const fr_args *a) {
    const int64_t n_rows = a->T * a->B, units = fr_blocks(a->H) * LANES, groups = a->P ? a->P : 1;
    dense_rows s = {.a = a, .w = a->w_x, .bias = a->bias, .x = a->work, .y = (float **)a->work + n_rows};
    dense_epilogue_of(&s, a->axes);
    for (int64_t t = 0, row = 0; t < a->T; t++)
        for (int64_t b = 0; b < a->B; b++, row++) {
            s.x[row] = fr_x_row(a, b, t);
            s.y[row] = fr_y_row(a, b, t);
        }
    for (int64_t g = 0; g < groups; g++) {
        if (g) {
            s.w += units * a->I, s.bias += s.bias ? units : 0, s.unit += a->H;
            for (int64_t row = 0; row < n_rows; row++) s.x[row] += a->I, s.y[row] += a->H;
        }
        dense_cover(&s, n_rows);
    }
}

/* y = x x2, matrices (B, I) and (I, H) in T loops of (size, strides of y, x and x2). x_b and y_b are strides of rows, of unit stride along
 * the other axis; x_t and y_t those of x2 along I and H. A panel of x2 is laid out for every new x2. No epilogue. */
static int64_t product_work_bytes(const fr_args *a) {
    return fr_blocks(a->H) * LANES * a->I * (int64_t)sizeof(float) + 2 * a->B * (int64_t)sizeof(void *);
}

static void product_row(const fr_args *a, const fr_axis *loop, int64_t y, int64_t x, int64_t x2) {
    float *panel = a->work;
    dense_rows s = {.a = a, .w = panel, .x = (const float **)(panel + fr_blocks(a->H) * LANES * a->I)};
    s.y = (float **)s.x + a->B;
    for (int64_t k = 0; k < loop->size; k++) {
        if (!k || loop->x2)
            for (int64_t block = 0; block < fr_blocks(a->H); block++)
                for (int64_t i = 0; i < a->I; i++) {
                    const int valid = fr_valid(a->H, block);
                    const vf w = vf_gather((const float *)a->x2 + x2 + k * loop->x2 + i * a->x_t + block * LANES * a->y_t, a->y_t, valid);
                    vf_store(panel + (block * a->I + i) * LANES, w);
                }
        for (int64_t row = 0; row < a->B; row++) {
            s.x[row] = (const float *)a->x + x + k * loop->x + row * a->x_b;
            s.y[row] = a->y + y + k * loop->y + row * a->y_b;
        }
        dense_cover(&s, a->B);
    }
}
static void product_run(const fr_args *a) { fr_walk(a, product_row); }

/* y (T, B, H) = bias + w_x[k] x over I taps k, each channel on its own: x of tap k lies axes[k] elements behind the row's address,
 * and the epilogue's table follows. The weights are laid out [unit block][k][lane], as a dense layer's. */
FR_INLINE void depthwise_rows(const dense_rows *s, const float *const *x, const int R, int64_t row, int64_t block) {
    const fr_args *a = s->a;
    const int valid = fr_valid(a->H, block);
    const float *w = a->w_x + block * a->I * LANES;
    const int64_t unit = block * LANES;
    vf acc[TILE_ROWS];
    UNROLL for (int r = 0; r < R; r++) acc[r] = a->bias ? vf_load(a->bias + unit) : vf_zero();
    for (int64_t k = 0; k < a->I; k++) {
        const vf weight = vf_load(w + k * LANES);
        const int64_t at = a->axes[k] + unit;
        if (valid == LANES) UNROLL for (int r = 0; r < R; r++) acc[r] = vf_fma(weight, vf_load(x[r] + at), acc[r]);
        else UNROLL for (int r = 0; r < R; r++) acc[r] = vf_fma(weight, vf_load_n(x[r] + at, valid), acc[r]);
    }
    float tile[TILE_ROWS * LANES] __attribute__((aligned(64)));
    if (s->count) {
        UNROLL for (int r = 0; r < R; r++) vf_store(tile + r * LANES, acc[r]);
        dense_epilogue(s, tile, row, R, unit, valid, LANES);
        UNROLL for (int r = 0; r < R; r++) acc[r] = vf_load(tile + r * LANES);
    }
    UNROLL for (int r = 0; r < R; r++) vf_store_tail(fr_y_row(a, (row + r) % a->B, (row + r) / a->B) + unit, acc[r], valid);
}

static void depthwise_run(const fr_args *a) {
    const int64_t n_rows = a->T * a->B;
    dense_rows s = {.a = a};
    dense_epilogue_of(&s, a->axes + a->I);
    for (int64_t row = 0; row < n_rows; row += TILE_ROWS) {
        const int R = n_rows - row < TILE_ROWS ? (int)(n_rows - row) : TILE_ROWS;
        const float *x[TILE_ROWS];
        for (int r = 0; r < R; r++) x[r] = fr_x_row(a, (row + r) % a->B, (row + r) / a->B);
        for (int64_t block = 0; block < fr_blocks(a->H); block++)
            if (R == TILE_ROWS) depthwise_rows(&s, x, TILE_ROWS, row, block);
            else for (int r = 0; r < R; r++) depthwise_rows(&s, x + r, 1, row + r, block);
    }
}
