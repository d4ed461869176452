/* Products: rows times a matrix that lies packed. A step's rows are few; those of a whole pass are taken in blocks that stay in cache.
 *
 * Panels are [columns / 2 vectors][k][2 vectors], the last of one vector where that is enough; zeros fill what is left. A tile holds ROWS rows x 2 vectors of sums in registers. */
#if defined(FR_AVX512)
#define ROWS 8
#else
#define ROWS 4
#endif

FR_INLINE int64_t NAME(panel_columns)(int64_t left) { return left > LANES_R ? 2 * LANES_R : LANES_R; }

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

/* sums (R rows, `used` columns of W vectors) += rows x panel. Element (r, k) of the rows is at rows[r * by_row + k * by_k]. */
FR_INLINE void NAME(tile)(const int R, const int W, const real *rows, int64_t by_row, int64_t by_k, const real *panel, int64_t depth, real *sums,
                          int64_t by_sum, int used) {
    vr sum[ROWS][2];
    const int last = used - (W - 1) * LANES_R;
    UNROLL for (int r = 0; r < R; r++) {
        if (W == 2) sum[r][0] = NAME(load)(sums + r * by_sum);
        sum[r][W - 1] = get(sums + r * by_sum + (W - 1) * LANES_R, last);
    }
    for (int64_t k = 0; k < depth; k++, panel += W * LANES_R, rows += by_k) {
        vr weights[2];
        UNROLL for (int w = 0; w < W; w++) weights[w] = NAME(load)(panel + w * LANES_R);
        UNROLL for (int r = 0; r < R; r++) {
            const real one = rows[r * by_row];
            UNROLL for (int w = 0; w < W; w++) sum[r][w] += one * weights[w];
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        if (W == 2) NAME(store)(sums + r * by_sum, sum[r][0]);
        put(sums + r * by_sum + (W - 1) * LANES_R, sum[r][W - 1], last);
    }
}

/* clang-format off */
#define TILES(R) \
    case R: if (W == 2) NAME(tile)(R, 2, rows, by_row, by_k, panel, depth, sums, by_sum, used); else NAME(tile)(R, 1, rows, by_row, by_k, panel, depth, sums, by_sum, used); break;
static void NAME(tile_of)(int R, int W, const real *rows, int64_t by_row, int64_t by_k, const real *panel, int64_t depth, real *sums, int64_t by_sum, int used) {
    switch (R) {
        TILES(1) TILES(2) TILES(3) TILES(4)
#if ROWS == 8
        TILES(5) TILES(6) TILES(7) TILES(8)
#endif
    }
}
/* clang-format on */
#undef TILES

/* sums (n, columns) += rows (n, depth) x matrix (depth, columns), packed */
static void NAME(add_rows)(const real *rows, int64_t by_row, int64_t by_k, int64_t n, const real *panels, int64_t depth, int64_t columns, real *sums,
                           int64_t by_sum) {
    const int64_t tiles = (n + ROWS - 1) / ROWS;
    for (int64_t first = 0; first < columns;) {
        const int64_t width = NAME(panel_columns)(columns - first);
        const int used = (int)(columns - first < width ? columns - first : width);
        for (int64_t tile = 0, row = 0; tile < tiles; tile++) { /* of even height */
            const int R = (int)(n / tiles + (tile < n % tiles));
            NAME(tile_of)(R, (int)(width / LANES_R), rows + row * by_row, by_row, by_k, panels, depth, sums + row * by_sum + first, by_sum, used);
            row += R;
        }
        panels += width * depth;
        first += width;
    }
}

static void NAME(add_product)(const real *rows, int64_t by_row, int64_t n, const real *panels, int64_t depth, int64_t columns, real *sums,
                              int64_t by_sum) {
    NAME(add_rows)(rows, by_row, 1, n, panels, depth, columns, sums, by_sum);
}

#define BLOCK_ROWS 64
#define EACH_BLOCK for (int64_t row = 0, in_block; in_block = n - row < BLOCK_ROWS ? n - row : BLOCK_ROWS, row < n; row += in_block)

/* out (n, columns) = bias + x (n, depth) times w (columns, depth) transposed. panels: room for w, packed. */
static void NAME(fr_project)(const real *x, int64_t by_x, int64_t n, const real *w, int64_t by_w, int64_t depth, int64_t columns, const real *bias,
                             real *out, int64_t by_out, real *panels) {
    NAME(pack)(w, 1, by_w, depth, columns, panels);
    EACH_BLOCK {
        real *to = out + row * by_out;
        for (int64_t r = 0; r < in_block; r++) memcpy(to + r * by_out, bias, columns * sizeof(real));
        NAME(add_product)(x + row * by_x, by_x, in_block, panels, depth, columns, to, by_out);
    }
}

/* out (n_a, n_b) += a (n, n_a) transposed times b (n, n_b). panels: room for BLOCK_ROWS rows of b, packed. */
static void NAME(fr_add_outer)(const real *a, int64_t by_a, int64_t n_a, const real *b, int64_t by_b, int64_t n_b, int64_t n, real *out,
                               real *panels) {
    EACH_BLOCK {
        NAME(pack)(b + row * by_b, by_b, 1, in_block, n_b, panels);
        NAME(add_rows)(a + row * by_a, 1, by_a, n_a, panels, in_block, n_b, out, n_b);
    }
}
#undef EACH_BLOCK
