/* Products: rows times a matrix that lies packed. A step's rows are few; those of a whole pass are taken in blocks that stay in cache.
 *
 * Panels are [columns / WIDE vectors][k][WIDE vectors], the last of as many vectors as are left; zeros fill what is left of those. A tile holds sums of up to ROWS
 * rows x WIDE vectors in registers. They begin at zero, and what they are added to is read behind them: waiting for it in front took 8 % of 64 products a sum. Few sums
 * are two chains each, for a chain waits four cycles for every product. */
#if defined(FR_AVX512)
#define WIDE 4
#define CHAINS(R, W) ((R) * (W) <= 4 ? 2 : 1)
#else
#define WIDE 2
#define CHAINS(R, W) ((R) * (W) <= 3 ? 2 : 1)
#endif
#define ROWS 6

FR_INLINE int64_t NAME(panel_columns)(int64_t left) { return (left < WIDE * LANES_R ? (left + LANES_R - 1) / LANES_R : WIDE) * LANES_R; }

static int64_t NAME(panels_size)(int64_t columns, int64_t depth) { return (columns + LANES_R - 1) / LANES_R * LANES_R * depth; }

/* Element (k, column) of the matrix is at matrix[k * by_k + column * by_column]. */
static void NAME(pack)(const real *matrix, int64_t by_k, int64_t by_column, int64_t depth, int64_t columns, real *panels) {
    for (int64_t first = 0; first < columns;) {
        const int64_t width = NAME(panel_columns)(columns - first), used = columns - first < width ? columns - first : width;
        for (int64_t k = 0; k < depth; k++, panels += width) {
            const real *from = matrix + k * by_k + first * by_column;
            if (by_column == 1 && used == width) {
                for (int64_t j = 0; j < width; j += LANES_R) NAME(store)(panels + j, NAME(load)(from + j));
                continue;
            }
            for (int64_t j = 0; j < used; j++) panels[j] = from[j * by_column];
            for (int64_t j = used; j < width; j++) panels[j] = 0;
        }
        first += width;
    }
}

/* The products of one k. */
FR_INLINE void NAME(add_k)(const int R, const int W, const real *rows, int64_t by_row, const real *panel, vr (*sum)[WIDE]) {
    vr weights[WIDE];
    UNROLL for (int w = 0; w < W; w++) weights[w] = NAME(load)(panel + w * LANES_R);
    UNROLL for (int r = 0; r < R; r++) {
        const real one = rows[r * by_row];
        UNROLL for (int w = 0; w < W; w++) sum[r][w] += one * weights[w];
    }
}

/* to (R rows, `used` columns of W vectors) = from + rows x panel. Element (r, k) of the rows is at rows[r * by_row + k * by_k]. */
FR_INLINE void NAME(tile)(const int R, const int W, const real *rows, int64_t by_row, int64_t by_k, const real *panel, int64_t depth,
                          const real *from, int64_t by_from, real *to, int64_t by_to, int used) {
    vr sum[ROWS][WIDE] = {0}, other[ROWS][WIDE] = {0};
    const int last = used - (W - 1) * LANES_R;
    int64_t k = 0;
    if (CHAINS(R, W) == 2)
        for (; k + 2 <= depth; k += 2, panel += 2 * W * LANES_R, rows += 2 * by_k) {
            NAME(add_k)(R, W, rows, by_row, panel, sum);
            NAME(add_k)(R, W, rows + by_k, by_row, panel + W * LANES_R, other);
        }
    for (; k < depth; k++, panel += W * LANES_R, rows += by_k) NAME(add_k)(R, W, rows, by_row, panel, sum);
    UNROLL for (int r = 0; r < R; r++, from += by_from, to += by_to) UNROLL for (int w = 0; w < W; w++) {
        const int n = w < W - 1 ? LANES_R : last;
        if (CHAINS(R, W) == 2) sum[r][w] += other[r][w];
        put(to + w * LANES_R, get(from + w * LANES_R, n) + sum[r][w], n);
    }
}

/* clang-format off */
#define TILE(R, W) case R * WIDE + W: NAME(tile)(R, W, rows, by_row, by_k, panel, depth, from, by_from, to, by_to, used); break;
#if WIDE == 4
#define TILES(R) TILE(R, 1) TILE(R, 2) TILE(R, 3) TILE(R, 4)
#else
#define TILES(R) TILE(R, 1) TILE(R, 2)
#endif
static FR_OWN_FUNCTION void NAME(tile_of)(int R, int W, const real *rows, int64_t by_row, int64_t by_k, const real *panel, int64_t depth, const real *from,
                                          int64_t by_from, real *to, int64_t by_to, int used) {
    switch (R * WIDE + W) { TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6) }
}
#undef TILES
#undef TILE
/* clang-format on */

/* to (n, columns) = from + rows (n, depth) x matrix (depth, columns), packed; by_from 0: every row begins with the same. */
static void NAME(add_rows)(const real *rows, int64_t by_row, int64_t by_k, int64_t n, const real *panels, int64_t depth, int64_t columns,
                           const real *from, int64_t by_from, real *to, int64_t by_to) {
    const int64_t tiles = (n + ROWS - 1) / ROWS;
    for (int64_t first = 0; first < columns;) {
        const int64_t width = NAME(panel_columns)(columns - first);
        const int used = (int)(columns - first < width ? columns - first : width);
        for (int64_t tile = 0, row = 0; tile < tiles; tile++) { /* of even height */
            const int R = (int)(n / tiles + (tile < n % tiles));
            NAME(tile_of)(R, (int)(width / LANES_R), rows + row * by_row, by_row, by_k, panels, depth, from + row * by_from + first, by_from,
                          to + row * by_to + first, by_to, used);
            row += R;
        }
        panels += width * depth;
        first += width;
    }
}

static void NAME(add_product)(const real *rows, int64_t by_row, int64_t n, const real *panels, int64_t depth, int64_t columns, real *sums,
                              int64_t by_sum) {
    NAME(add_rows)(rows, by_row, 1, n, panels, depth, columns, sums, by_sum, sums, by_sum);
}

#define BLOCK_ROWS 64
#define EACH_BLOCK for (int64_t row = 0, in_block; in_block = n - row < BLOCK_ROWS ? n - row : BLOCK_ROWS, row < n; row += in_block)

/* out (n, columns) = bias + x (n, depth) times w (columns, depth) transposed. panels: room for w, packed. */
static void NAME(fr_project)(const real *x, int64_t by_x, int64_t n, const real *w, int64_t by_w, int64_t depth, int64_t columns, const real *bias,
                             real *out, int64_t by_out, real *panels) {
    NAME(pack)(w, 1, by_w, depth, columns, panels);
    EACH_BLOCK NAME(add_rows)(x + row * by_x, by_x, 1, in_block, panels, depth, columns, bias, 0, out + row * by_out, by_out);
}

/* out (n_a, n_b) += a (n, n_a) transposed times b (n, n_b). panels: room for BLOCK_ROWS rows of b, packed. */
static void NAME(fr_add_outer)(const real *a, int64_t by_a, int64_t n_a, const real *b, int64_t by_b, int64_t n_b, int64_t n, real *out,
                               real *panels) {
    EACH_BLOCK {
        NAME(pack)(b + row * by_b, by_b, 1, in_block, n_b, panels);
        NAME(add_rows)(a + row * by_a, 1, by_a, n_a, panels, in_block, n_b, out, n_b, out, n_b);
    }
}
#undef EACH_BLOCK
