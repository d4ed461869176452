/* LSTM: c' = f c + i g, h' = o act_h(c'). Accumulators in the order i, f, g, o. */
#define CELL_ACC 4
#define CELL_GX 4
#define CELL_XSLOTS 0x3210
#define CELL_GH 4
#define CELL_HSLOTS 0x3210
#define CELL_PAIRS 2
#define CELL_RELU 0
#define CELL_W1 2
#define CELL_W2 (TILE_ROWS > 3 ? 2 : 1) /* with sixteen registers two blocks of two rows spill */
#define CELL_W 1
#include "recurrence.h"

FR_INLINE void CELL(finish_first)(const CELL(rows) *s, vf *acc, const int stride, const CELL(unit) *unit) {
    (void)s;
    vf i = acc[0], f = acc[stride], g = acc[2 * stride];
    vf c = vf_load_tail(unit->c + unit->first, unit->valid);
    acc[0] = vf_add(vf_mul(vf_sigmoid(f), c), vf_mul(vf_sigmoid(i), vf_tanh(g)));
    vf_store_tail(unit->c + unit->first, acc[0], unit->valid);
}

FR_INLINE void CELL(finish_last)(const CELL(rows) *s, const vf *acc, const int stride, const CELL(unit) *unit) {
    (void)s;
    vf_store_tail(unit->out + unit->first, vf_mul(vf_sigmoid(acc[3 * stride]), vf_tanh(acc[0])), unit->valid);
}

FR_INLINE void CELL(finish_general)(const fr_args *a, const vf *acc, const int stride, const CELL(unit) *unit) {
    vf i = acc[0], f = acc[stride], g = acc[2 * stride], o = acc[3 * stride];
    vf c = vf_load_tail(unit->c + unit->first, unit->valid);
    const int64_t padded = fr_blocks(a->H) * LANES;
    const float *p = a->peephole ? a->peephole + unit->first : NULL;
    if (p) {
        i = vf_add(i, vf_mul(vf_load(p), c));
        f = vf_add(f, vf_mul(vf_load(p + padded), c));
    }
    i = vf_activate(&a->act[0], vf_clip(i, a->clip));
    f = a->input_forget ? vf_sub(vf_set1(1.0f), i) : vf_activate(&a->act[0], vf_clip(f, a->clip));
    g = vf_activate(&a->act[1], vf_clip(g, a->clip));
    c = vf_add(vf_mul(f, c), vf_mul(i, g));
    if (p) o = vf_add(o, vf_mul(vf_load(p + 2 * padded), c));
    o = vf_activate(&a->act[0], vf_clip(o, a->clip));
    vf_store_tail(unit->c + unit->first, c, unit->valid);
    vf_store_tail(unit->out + unit->first, vf_mul(o, vf_activate(&a->act[2], vf_clip(c, a->clip))), unit->valid);
}
