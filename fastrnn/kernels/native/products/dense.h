/* Matrix products: dense layers, those of a convolution's groups, products of two computed matrices. What follows
 * elementwise, and a pooling behind it, is applied to rows while they are hot.
 *
 * The epilogue is a program (operations.h): a table of how many operands and instructions it has, the lines and columns of the pooling's window (0: none),
 * whether it takes their mean, and of how many windows the lines wait at once; how many images there are, and how far apart in x and in y; the operands' strides along
 * images, t, b and units, and the instructions. Value 0 is the product, then come the operands x2, x3, ...; the last instruction's result is y. Where windows follow, rows
 * are T lines of B columns, which wait in hn for their window, and y_t and y_b are steps of windows. */
#ifndef FASTRNN_DENSE_H
#define FASTRNN_DENSE_H
#include "grid.h"
#include "operations.h"
#include "multiply.h"
#include "pool.h"

#define MAX_OPERANDS 7
#define TILE_FLOATS 512 /* that the epilogue takes at once: its values stay in the first cache */

typedef struct {
    const fr_args *a;
    const float *in, *from[MAX_OPERANDS]; /* the image in hand, of x and of the operands */
    float *out, *waiting;                 /* of y; the lines that wait */
    const void *w;
    const float *bias;
    const float **x;
    float **y;
    int64_t segments; /* of a row of x, and where they start, as an operand has them */
    const int64_t *offsets;
    fr_quantized integers;   /* of int8 weights, the rows in hand */
    int64_t count, operands; /* of the epilogue */
    int64_t lines, columns;  /* of a window behind it */
    int64_t mean, at_once;   /* rather than the largest; windows whose lines wait */
    int64_t images, in_step, out_step;
    const int64_t *strides; /* of each operand along images, t, b and units */
    const fr_instruction *program;
    int64_t unit; /* where the group's units start */
} dense_rows;

/* table: NULL without an epilogue, windows and more than one image. */
static dense_rows dense_of(const fr_args *a, const float **x, float **y, const int64_t *table) {
    dense_rows s = {.a = a, .in = a->x, .out = a->y, .waiting = a->hn, .x = x, .y = y, .images = 1};
    if (!table) return s;
    s.operands = table[0], s.count = table[1], s.lines = table[2], s.columns = table[3], s.mean = table[4], s.at_once = table[5];
    s.images = table[6], s.in_step = table[7], s.out_step = table[8], s.strides = table + 9;
    s.program = (const fr_instruction *)(s.strides + 4 * s.operands);
    return s;
}

static void dense_image(dense_rows *s, int64_t image) {
    const fr_args *a = s->a;
    const float *operand[MAX_OPERANDS] = {a->x2, a->x3, a->x4, a->x5, a->x6, a->x7, a->x8};
    s->in = (const float *)a->x + image * s->in_step, s->out = a->y + image * s->out_step;
    for (int64_t k = 0; k < s->operands; k++) s->from[k] = operand[k] + image * s->strides[4 * k];
}

/* An operand's part that belongs to n_rows x n units of y from `row` and `unit` on: where it lies if that is as y does, else laid out in `room`. */
static float *dense_read(const dense_rows *s, int64_t k, int64_t row, int64_t n_rows, int64_t unit, int64_t n, float *room) {
    const int64_t *stride = s->strides + 4 * k + 1, B = s->a->B;
    int64_t t = row / B, b = row % B;
    const float *base = s->from[k] + (s->unit + unit) * stride[2];
    if (stride[2] == 1 && (n_rows == 1 || (stride[1] == n && (b + n_rows <= B || stride[0] == B * n))))
        return (float *)base + t * stride[0] + b * stride[1];
    for (int64_t r = 0; r < n_rows; r++) {
        const float *from = base + t * stride[0] + b * stride[1], first = *from;
        float *to = room + r * n;
        if (stride[2] == 1) memcpy(to, from, (size_t)n * sizeof *to);
        else if (stride[2] == 0)
            for (int64_t u = 0; u < n; u++) to[u] = first;
        else
            for (int64_t u = 0; u < n; u++) to[u] = from[u * stride[2]];
        if (++b == B) b = 0, t++;
    }
    return room;
}

/* The program over all units of n_rows rows of y, where they lie: as many rows at once as follow one another and stay in the first cache, of wide ones a part. */
static void dense_epilogue(const dense_rows *s, int64_t row, int64_t n_rows) {
    const int64_t H = s->a->H, last = s->program[s->count - 1].to, most = H < TILE_FLOATS ? TILE_FLOATS / H : 1;
    float room[FR_VALUES][TILE_FLOATS] __attribute__((aligned(64)));
    float *value[FR_VALUES];
    for (int64_t k = 1; k < last; k++) value[k] = room[k];
    for (int64_t r = 0, m; r < n_rows; r += m) {
        for (m = 1; m < most && r + m < n_rows && s->y[r + m] == s->y[r] + m * H; m++) {}
        for (int64_t unit = 0; unit < H; unit += TILE_FLOATS) {
            const int64_t n = H - unit < TILE_FLOATS ? H - unit : TILE_FLOATS;
            for (int64_t k = 0; k < s->operands; k++) value[1 + k] = dense_read(s, k, row + r, m, unit, n, room[1 + k]);
            value[0] = value[last] = s->y[r] + unit;
            fr_execute(s->program, s->count, value, m * n);
        }
    }
}

/* Rows from `row` on, whose addresses are in s->x and s->y: all units. */
static void dense_many(dense_rows *s, int64_t row, int64_t n_rows) {
    const int64_t blocks = fr_blocks(s->a->H);
    fr_product p = {.operand = {{s->w, s->a->I, s->x, s->segments, s->offsets}},
                    .n_operands = 1,
                    .gates = 1,
                    .start = {s->bias},
                    .start_block = {LANES},
                    .out = s->y,
                    .units = s->a->H,
                    .weights = s->a->weights,
                    .blocks = blocks,
                    .far = s->a->far};
    if (p.weights == FR_INT8) { /* the integers lie one after the other */
        fr_quantize(&s->integers, (int)s->a->x_bits, s->x, s->a->I, s->segments, s->offsets, n_rows, NULL);
        p.operand[0] = (fr_operand){s->w, s->a->I * (s->segments ? s->segments : 1), .integers = &s->integers};
    }
    fr_multiply(&p, 0, blocks, 0, n_rows);
    if (s->count) dense_epilogue(s, row, n_rows);
}

/* The addresses of n rows from `row` on, of y where windows follow those of lines that wait. */
static void dense_rows_from(dense_rows *s, int64_t row, int64_t n) {
    const fr_args *a = s->a;
    const int64_t width = (a->P ? a->P : 1) * a->H, y_b = s->lines ? width : a->y_b;
    int64_t t = row / a->B, b = row % a->B;
    const float *x = s->in + t * a->x_t + b * a->x_b;
    float *y = s->lines ? s->waiting + row % (s->lines * a->B) * width : s->out + t * a->y_t + b * y_b;
    for (int64_t r = 0; r < n; r++, x += a->x_b, y += y_b) {
        if (b == a->B) {
            b = 0, x = s->in + ++t * a->x_t;
            if (!s->lines) y = s->out + t * a->y_t;
        }
        s->x[r] = x, s->y[r] = y, b++;
    }
}

/* The windows of lines that wait, line `to` of y. */
static void dense_pool(const dense_rows *s, int64_t to) {
    const fr_args *a = s->a;
    const int64_t width = (a->P ? a->P : 1) * a->H, size = s->lines * s->columns;
    int64_t offsets[FR_POOLED];
    for (int64_t k = 0; k < size; k++) offsets[k] = (k / s->columns * a->B + k % s->columns) * width;
    const fr_windows windows = {offsets, size, !s->mean, (float)size};
    for (int64_t b = 0; b < a->B / s->columns; b++)
        pool_channels(&windows, width, s->waiting + b * s->columns * width, s->out + to * a->y_t + b * a->y_b);
}

/* Of so many rows those that go first: whole tiles, since tiles of two heights are of two widths as well; what is left is halved where little would be. */
static int64_t fr_rows_at_once(int64_t n_rows) {
    if (n_rows <= MANY_ROWS) return n_rows;
    return n_rows < 2 * MANY_ROWS ? (n_rows / 2 + HEIGHT - 1) / HEIGHT * HEIGHT : MANY_ROWS;
}

/* `compute` for all rows of all images, few at a time, so that they stay in cache for all units and what follows. */
typedef void (*dense_compute)(dense_rows *s, int64_t row, int64_t n_rows);
static void dense_walk(dense_rows *s, dense_compute compute) {
    const int64_t n_rows = s->a->T * s->a->B, together = s->lines ? s->lines * s->a->B : n_rows;
    for (int64_t image = 0; image < s->images; image++) {
        dense_image(s, image);
        for (int64_t start = 0; start < n_rows; start += together) {
            for (int64_t row = start, n; row < start + together; row += n) {
                n = fr_rows_at_once(start + together - row);
                dense_rows_from(s, row, n);
                compute(s, row, n);
            }
            if (s->lines) dense_pool(s, start / together);
        }
    }
}

/* y (T, B, P H) = x (T, B, P I) W^T + bias in P groups, each with its own panel and part of x and y. A row of x is I floats, or `segments` times as many. */
static void dense_groups(dense_rows *s, int64_t row, int64_t n_rows) {
    const fr_args *a = s->a;
    const int64_t groups = a->P ? a->P : 1, width = (s->segments ? s->segments : 1) * a->I;
    for (int64_t g = 0; g < groups; g++) {
        s->w = (const char *)a->w_x + g * fr_panel_bytes(a->weights, (int)a->x_bits, a->H, 1, width);
        s->bias = a->bias ? a->bias + g * fr_blocks(a->H) * LANES : NULL, s->unit = g * a->H;
        dense_many(s, row, n_rows);
        for (int64_t r = 0; r < n_rows; r++) s->x[r] += s->segments ? a->I : width, s->y[r] += a->H;
    }
}

/* axes: NULL, or the epilogue's table; in front of it, with a chunk, where each of so many segments of a row starts, from its address on: windows where they lie. */
static int64_t dense_int8_work_bytes(const fr_args *a) { return fr_quantized_bytes((a->chunk ? a->chunk : 1) * a->I, MANY_ROWS); }
static void dense_run(const fr_args *a) {
    const float *x[MANY_ROWS];
    float *y[MANY_ROWS];
    dense_rows s = dense_of(a, x, y, a->chunk ? a->axes + a->chunk : a->axes);
    s.segments = a->chunk, s.offsets = a->chunk ? a->axes : NULL;
    if (a->weights == FR_INT8) s.integers = fr_room_for(a->work, (a->chunk ? a->chunk : 1) * a->I, MANY_ROWS);
    dense_walk(&s, dense_groups);
}

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
            dense_many(&s, first, n);
        }
    }
}
static void product_run(const fr_args *a) { fr_walk(a, product_row); }
#endif
