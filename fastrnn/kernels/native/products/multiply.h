/* Rows times a panel, whatever its weights are. */
#ifndef FASTRNN_MULTIPLY_H
#define FASTRNN_MULTIPLY_H
#include "product_bfloat16.h"
#include "product_far.h"
#include "product_int8.h"

/* Vectors v to `end` of n_rows rows from `row` on. */
static void fr_multiply(const fr_product *p, int64_t v, int64_t end, int64_t row, int64_t n_rows) {
    if (p->far) fr_multiply_far(p, v, end, row, n_rows);
    else if (p->weights == FR_FLOAT32) fr_multiply_float(p, v, end, row, n_rows);
    else if (p->weights == FR_BFLOAT16) fr_multiply_by(&fr_bfloat16_set, p, v, end, row, n_rows);
    else fr_multiply_int8(p, v, end, row, n_rows);
}

/* Bytes of a panel of G gates of `units` over K; bits: of what int8 weights multiply. */
FR_INLINE int64_t fr_panel_bytes(int64_t weights, int bits, int64_t units, int64_t G, int64_t K) {
    const int64_t vectors = fr_blocks(units) * G;
    return weights == FR_INT8 ? fr_int8_panel_bytes(vectors, K, bits) : vectors * LANES * 4 * (weights == FR_BFLOAT16 ? (K + 1) / 2 : K);
}
#endif
