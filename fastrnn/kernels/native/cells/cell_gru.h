/* GRU with the reset after the matrix (torch, cuDNN, ONNX linear_before_reset = 1):
 * n = act(Wn x + bn + r (Rn h + bm)), h' = n + z (h - n). Accumulators r, z, n (over x), m (over h). */
#define CELL_ACC 4
#define CELL_GX 3
#define CELL_XSLOTS 0x210
#define CELL_GH 3
#define CELL_HSLOTS 0x310
#define CELL_PAIRS 1
#define CELL_RELU 0
#define CELL_W1 2
#define CELL_W2 (TILE_ROWS > 3 ? 2 : 1)
#define CELL_W 1
#include "recurrence.h"

FR_INLINE void CELL(finish_first)(const CELL(rows) *s, vf *acc, const int stride, const CELL(unit) *unit) {
    (void)s, (void)unit;
    acc[2 * stride] = vf_add(acc[2 * stride], vf_mul(vf_sigmoid(acc[0]), acc[3 * stride]));
}

FR_INLINE void CELL(finish_last)(const CELL(rows) *s, const vf *acc, const int stride, const CELL(unit) *unit) {
    (void)s;
    vf z = vf_sigmoid(acc[stride]), n = vf_tanh(acc[2 * stride]);
    vf h = vf_load_tail(unit->h + unit->first, unit->valid);
    vf_store_tail(unit->out + unit->first, vf_add(n, vf_mul(z, vf_sub(h, n))), unit->valid);
}

FR_INLINE void CELL(finish_general)(const fr_args *a, const vf *acc, const int stride, const CELL(unit) *unit) {
    vf r = acc[0], z = acc[stride], n = acc[2 * stride], m = acc[3 * stride];
    vf h = vf_load_tail(unit->h + unit->first, unit->valid);
    r = vf_activate(&a->act[0], vf_clip(r, a->clip));
    z = vf_activate(&a->act[0], vf_clip(z, a->clip));
    n = vf_activate(&a->act[1], vf_clip(vf_add(n, vf_mul(r, m)), a->clip));
    vf_store_tail(unit->out + unit->first, vf_add(n, vf_mul(z, vf_sub(h, n))), unit->valid);
}
