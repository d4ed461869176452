/* A step of one row over small weights, all of a unit in registers: a template like recurrence.h, which includes it.
 *
 * By way of memory, as more rows have it, a step of few units spends more on the way than on the product (LSTM H = 64: 0.9 us, 0.5 in registers). */

/* The chain over one operand, whose numbers lie as `form` says. */
#define FORM_FLOATS 3 /* bfloat16, beside the forms of integers in quantize.h */
#define CHAIN(G, slots, panel, K, rows, x) \
    if (form == FORM_FLOATS) fr_bfloat16_chain(acc, NB, CELL_ACC, G, slots, panel, block, K, rows[0]); \
    else if (form == FR_FORM_DOT && (x)->bits == FR_LARGE_BITS) \
        fr_int8_chain(acc, NB, CELL_ACC, G, slots, FR_FORM_DOT, FR_LARGE_BITS, panel, blocks, block, K, x, 0); \
    else if (form != FR_FORM_DOT && (x)->form == FR_FORM_WORDS) \
        fr_int8_chain(acc, NB, CELL_ACC, G, slots, FR_FORM_WORDS, 8, panel, blocks, block, K, x, 0); \
    else fr_int8_chain(acc, NB, CELL_ACC, G, slots, form, 8, panel, blocks, block, K, x, 0)

FR_INLINE void CELL(one)(const CELL(rows) *s, const int NB, const int form, int64_t block) {
    const fr_args *a = s->a;
    const int64_t blocks = fr_blocks(a->H);
    vf acc[TILE_VECTORS];
    fr_start(acc, NB, 0, CELL_ACC, 1, CELL_ACC, 0x3210, a->bias, block, 0);
    if (a->chunk) fr_start(acc, NB, 0, CELL_ACC, 1, CELL_GX, CELL_XSLOTS, s->pre[0], block, 0);
    else { CHAIN(CELL_GX, CELL_XSLOTS, a->w_x, a->I, s->x, &s->of_x); }
    CHAIN(CELL_GH, CELL_HSLOTS, a->w_h, a->P, s->h, &s->of_h);
    CELL(finish_tile)(s, acc, NB, 1, block, 0);
}

/* Blocks `block` to `end`, NB at a time and then one by one; or the other way round. */
#define ONE(name, NB, form) \
    static FR_OWN_FUNCTION void CELL(one_##name)(const CELL(rows) *s, int64_t block) { CELL(one)(s, NB, form, block); } \
    static FR_OWN_FUNCTION void CELL(one_##name##_last)(const CELL(rows) *s, int64_t block) { CELL(one)(s, 1, form, block); } \
    static void CELL(each_##name)(const CELL(rows) *s, int64_t block, int64_t end, int backward) { \
        const int64_t whole = block + (end - block) / (NB) * (NB); \
        if (!backward) { \
            for (; block < whole; block += NB) CELL(one_##name)(s, block); \
            for (; block < end; block++) CELL(one_##name##_last)(s, block); \
        } else { \
            while (end > whole) CELL(one_##name##_last)(s, --end); \
            while ((end -= NB) >= block) CELL(one_##name)(s, end); \
        } \
    }
ONE(floats, CELL_W1, FORM_FLOATS)
ONE(dot, CELL_W1 > 1 && LANES < 16 ? CELL_W1 / 2 : CELL_W1, FR_FORM_DOT)
#if FR_PAIRS
ONE(pairs, CELL_W1 > 1 && LANES < 16 ? CELL_W1 / 2 : CELL_W1, FR_FORM_SIGNED)
#endif

/* The whole step of a row. */
static void CELL(step_of_one)(CELL(rows) *s, int backward) {
    const fr_args *a = s->a;
    const int64_t n = fr_blocks(a->H), block = fr_first_block(a, n), end = fr_end_block(a, n);
    if (a->weights == FR_BFLOAT16) {
        CELL(each_floats)(s, block, end, backward);
        return;
    }
    if (!a->chunk) fr_quantize(&s->of_x, (int)a->x_bits, s->x, a->I, 0, NULL, 1, &s->range);
#if FR_PAIRS
    if (!fr_has_dot) {
        CELL(each_pairs)(s, block, end, backward);
        return;
    }
#endif
    CELL(each_dot)(s, block, end, backward);
}
#undef CHAIN
#undef ONE
