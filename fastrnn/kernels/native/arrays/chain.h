/* A program of operations over arrays of any layout, in pieces that stay in the first cache.
 *
 * `axes` holds T loops, outermost first, each a size and the strides in elements of y and of the I operands (x, x2, ... x8, in bytes where
 * bit 1 + k of P is set: bools; bit 0 says it of y), then H instructions. Values 0..I-1 are the operands, the rest results; the last
 * instruction's is y. */
#include "operations.h"

#define PIECE 512

/* The piece of an operand: its own memory where that lies as y's rows do, else n_rows x n elements laid out in `room`. */
static float *chain_read(const void *base, int64_t at, int is_bool, int64_t n_rows, int64_t n, int64_t outer, int64_t inner, float *room) {
    if (!is_bool && inner == 1 && (n_rows == 1 || outer == n)) return (float *)base + at;
    float *to = room;
    for (int64_t r = 0; r < n_rows; r++, at += outer, to += n) {
        if (is_bool)
            for (int64_t k = 0; k < n; k++) to[k] = ((const uint8_t *)base)[at + k * inner] ? 1.0f : 0.0f;
        else {
            const float *from = (const float *)base + at;
            if (inner == 1) memcpy(to, from, (size_t)n * sizeof *to);
            else if (inner == 0)
                for (int64_t k = 0; k < n; k++) to[k] = *from;
            else
                for (int64_t k = 0; k < n; k++) to[k] = from[k * inner];
        }
    }
    return room;
}

static void chain_write(void *base, int64_t at, int is_bool, int64_t n_rows, int64_t n, int64_t outer, int64_t inner, const float *from) {
    for (int64_t r = 0; r < n_rows; r++, at += outer, from += n)
        if (is_bool)
            for (int64_t k = 0; k < n; k++) ((uint8_t *)base)[at + k * inner] = from[k] != 0.0f;
        else if (inner == 1) memcpy((float *)base + at, from, (size_t)n * sizeof *from);
        else
            for (int64_t k = 0; k < n; k++) ((float *)base)[at + k * inner] = from[k];
}

static void chain_run(const fr_args *a) {
    const int64_t V = a->I, width = 2 + V, *axis = a->axes;
    const fr_instruction *program = (const fr_instruction *)(axis + a->T * width);
    const void *operand[] = {a->x, a->x2, a->x3, a->x4, a->x5, a->x6, a->x7, a->x8};
    float room[FR_VALUES][PIECE] __attribute__((aligned(64)));
    float *value[FR_VALUES];
    const int64_t last = program[a->H - 1].to;
    for (int64_t k = V; k <= last; k++) value[k] = room[k];
    const int64_t none[2 + sizeof operand / sizeof *operand] = {1};
    const int64_t *inner = axis + (a->T - 1) * width, *outer = a->T > 1 ? inner - width : none;
    const int depth = a->T > 1 ? (int)a->T - 2 : 0; /* loops around those two */
    for (int64_t d = 0; d < a->T; d++)
        if (!axis[d * width]) return;
    /* whole rows of the innermost loop while they are short, pieces of them where they are long */
    const int64_t n_rows = inner[0] < PIECE ? PIECE / inner[0] : 1, n_most = inner[0] < PIECE ? inner[0] : PIECE;
    int64_t at[16] = {0}, place[1 + sizeof operand / sizeof *operand] = {0}; /* where y and the operands are */
    for (;;) {
        for (int64_t row = 0; row < outer[0]; row += n_rows) {
            const int64_t rows = outer[0] - row < n_rows ? outer[0] - row : n_rows;
            for (int64_t k = 0; k < inner[0]; k += n_most) {
                const int64_t n = inner[0] - k < n_most ? inner[0] - k : n_most;
                for (int64_t v = 0; v < V; v++)
                    value[v] = chain_read(operand[v], place[1 + v] + row * outer[2 + v] + k * inner[2 + v], a->P >> (1 + v) & 1, rows, n,
                                          outer[2 + v], inner[2 + v], room[v]);
                const int64_t y = place[0] + row * outer[1] + k * inner[1];
                const int direct = !(a->P & 1) && inner[1] == 1 && (rows == 1 || outer[1] == n);
                value[last] = direct ? a->y + y : room[last];
                fr_execute(program, a->H, value, rows * n);
                if (!direct) chain_write(a->y, y, a->P & 1, rows, n, outer[1], inner[1], room[last]);
            }
        }
        int d = depth - 1;
        for (; d >= 0; d--) {
            const int64_t *loop = axis + d * width;
            for (int64_t v = 0; v <= V; v++) place[v] += loop[1 + v];
            if (++at[d] < loop[0]) break;
            at[d] = 0;
            for (int64_t v = 0; v <= V; v++) place[v] -= loop[0] * loop[1 + v];
        }
        if (d < 0) return;
    }
}
