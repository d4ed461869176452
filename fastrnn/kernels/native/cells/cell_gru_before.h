/* GRU with the reset before the matrix (Cho et al. 2014, ONNX linear_before_reset = 0):
 * n = act(Wn x + Rn (r h) + b), h' = n + z (h - n). The first phase leaves r h, z and n's start behind. */
#define CELL_ACC 3
#define CELL_GX 3
#define CELL_XSLOTS 0x210
#define CELL_GH 2
#define CELL_HSLOTS 0x10
#define CELL_PAIRS 1
#define CELL_RELU 0
#define CELL_W1 2
#define CELL_W2 2
#define CELL_W 1
#define CELL_SECOND
#include "recurrence.h"

FR_INLINE void CELL(finish_first)(const CELL(rows) *s, vf *acc, const int stride, const CELL(unit) *unit) {
    (void)s, (void)stride;
    vf h = vf_load_tail(unit->h + unit->first, unit->valid);
    vf_store(unit->u + unit->first, vf_mul(vf_sigmoid(acc[0]), h));
}

FR_INLINE void CELL(finish_last)(const CELL(rows) *s, const vf *acc, const int stride, const CELL(unit) *unit) {
    (void)s;
    vf_store(unit->z + unit->first, vf_sigmoid(acc[stride]));
    vf_store(unit->n + unit->first, acc[2 * stride]);
}

FR_INLINE void CELL(finish_general)(const fr_args *a, const vf *acc, const int stride, const CELL(unit) *unit) {
    vf h = vf_load_tail(unit->h + unit->first, unit->valid);
    vf_store(unit->u + unit->first, vf_mul(vf_activate(&a->act[0], vf_clip(acc[0], a->clip)), h));
    vf_store(unit->z + unit->first, vf_activate(&a->act[0], vf_clip(acc[stride], a->clip)));
    vf_store(unit->n + unit->first, acc[2 * stride]);
}

FR_INLINE void CELL(second)(const CELL(rows) *s, vf n, const CELL(unit) *unit) {
    vf h = vf_load_tail(unit->h + unit->first, unit->valid), z = vf_load(unit->z + unit->first);
    n = s->general ? vf_activate(&s->a->act[1], vf_clip(n, s->a->clip)) : vf_tanh(n);
    vf_store_tail(unit->out + unit->first, vf_add(n, vf_mul(z, vf_sub(h, n))), unit->valid);
}
