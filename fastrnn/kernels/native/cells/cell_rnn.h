/* RNN: h' = f(W x + R h + b). */
#define CELL_ACC 1
#define CELL_GX 1
#define CELL_XSLOTS 0x0
#define CELL_GH 1
#define CELL_HSLOTS 0x0
#define CELL_PAIRS 0
#define CELL_RELU 1
#define CELL_W1 8
#define CELL_W2 4
#define CELL_W 4
#include "recurrence.h"

FR_INLINE void CELL(finish_first)(const CELL(rows) *s, vf *acc, const int stride, const CELL(unit) *unit) {
    (void)s, (void)acc, (void)stride, (void)unit;
}

FR_INLINE void CELL(finish_last)(const CELL(rows) *s, const vf *acc, const int stride, const CELL(unit) *unit) {
    (void)stride;
    vf_store_tail(unit->out + unit->first, s->relu ? vf_relu(acc[0]) : vf_tanh(acc[0]), unit->valid);
}

FR_INLINE void CELL(finish_general)(const fr_args *a, const vf *acc, const int stride, const CELL(unit) *unit) {
    (void)stride;
    vf_store_tail(unit->out + unit->first, vf_activate(&a->act[0], vf_clip(acc[0], a->clip)), unit->valid);
}
