/* The time loop of a cell, a template like recurrence.h, which includes it: rows of a step, projections hoisted out of it, one step after the other. */

/* Whether the last of these blocks is narrow, with panels laid out so. */
FR_INLINE int CELL(has_narrow)(const fr_args *a, int64_t block, int64_t end) {
    return CELL_PAIRS && !a->weights && end == fr_blocks(a->H) && block < end && fr_narrow(a->H);
}

/* Blocks of this part: `tiles` for the narrow last one, `many` for the others, and of those that have whole ones, `tiles` while rows are few. */
static void CELL(cover)(const CELL(rows) *s, fr_many many, const fr_tiles *tiles, int few, const int gates, int64_t n_rows, int backward) {
    const fr_args *a = s->a;
    const int64_t n = fr_blocks(a->H), block = fr_first_block(a, n), end = fr_end_block(a, n);
    const int narrow = CELL(has_narrow)(a, block, end);
    if (few) {
        fr_cover(block, end, narrow, n_rows, backward, tiles, s);
        return;
    }
    if (narrow && backward) fr_cover(end - 1, end, 1, n_rows, 1, tiles, s);
    fr_in_groups(many, s, block, end - narrow, gates, n_rows, backward);
    if (narrow && !backward) fr_cover(end - 1, end, 1, n_rows, 0, tiles, s);
}

/* Whether tiles of whole units do. Three rows of four gates fill sixteen registers as it is; short chains do not outweigh the way by memory
 * (AVX2, LSTM B = 16, H = 16: 1.18 of the time; B = 32, H = 64: 1.07, where GRU is even; AVX-512, H = 64: 1.02 to 1.05, H = 96 0.98). In panels from beyond L2 no gates lie
 * together as a unit's tile has them. */
FR_INLINE int CELL(few)(const fr_args *a, int64_t n_rows) {
    const int whole = CELL_GH == 4 && (LANES == 16 ? a->P <= 64 : n_rows == 3 || a->P < 128);
    return !a->weights && !a->far &&
           (n_rows < FR_MANY || a->P < 64 || whole || !(a->chunk || CELL_JOINT)); /* small weights have products by way of memory alone, and chunks */
}

/* Rounds what the next product multiplies, where weights are int8. */
FR_INLINE void CELL(round)(CELL(rows) *s, int64_t bits, const float *const *rows, int64_t K, int64_t n_rows) {
    if (s->a->weights == FR_INT8) fr_quantize(&s->of_h, (int)bits, rows, K, 0, NULL, n_rows, NULL);
}

static void CELL(step)(CELL(rows) *s, int64_t n_rows, int backward) {
    const fr_args *a = s->a;
    const fr_tiles *tiles = AHEAD(a) && n_rows == 1 ? &CELL(tile_ahead_set) : &CELL(tile_set);
    CELL(round)(s, a->h_bits, s->h, a->P, n_rows);
    if (a->weights && n_rows == 1) CELL(step_of_one)(s, backward);
    else CELL(cover)(s, CELL(many), tiles, CELL(few)(a, n_rows), CELL_GH, n_rows, backward);
#ifdef CELL_SECOND
    const int64_t blocks = fr_blocks(a->H);
    fr_meet(a);
    if (a->weights) {
        for (int64_t row = 0; row < n_rows; row++) s->x[row] = s->u + row * s->padded; /* x itself was projected before */
        CELL(round)(s, a->h_bits, s->x, a->H, n_rows);
    }
    fr_in_groups(CELL(second_many), s, fr_first_block(a, blocks), fr_end_block(a, blocks), 1, n_rows, backward);
#endif
    if (a->w_p) {
        const int64_t projected = fr_blocks(a->P);
        fr_meet(a);
        CELL(round)(s, a->p_bits, (const float *const *)s->out, a->H, n_rows);
        fr_in_groups(CELL(shrink_many), s, fr_first_block(a, projected), fr_end_block(a, projected), 1, n_rows, backward);
    }
    fr_meet(a);
}

/* Notes the inputs of steps t to `end`, of every row that gets there, and returns how many: time steps serve as rows. */
static int64_t CELL(gather)(CELL(rows) *s, int64_t active, int64_t t, int64_t end) {
    const fr_args *a = s->a;
    int64_t n_rows = 0;
    fr_need(a, end);
    for (; t < end; t++) {
        active = fr_active(a, active, t);
        for (int64_t row = 0; row < active; row++) s->project_x[n_rows++] = fr_x_row(a, row, t);
    }
    return n_rows;
}

/* Starts on the projections of steps t to `end`. */
static void CELL(look_ahead)(CELL(rows) *s, int64_t active, int64_t t, int64_t end) {
    const fr_args *a = s->a;
    const int64_t n = fr_blocks(a->H), first = fr_first_block(a, n), last = fr_end_block(a, n), n_rows = CELL(gather)(s, active, t, end);
    const int narrow = CELL(has_narrow)(a, first, last);
    const int64_t vector = first * CELL_GX, vectors = (last - narrow) * CELL_GX;
    *s->ahead = (fr_ahead){.panel = a->w_x,
                           .bias = a->bias,
                           .x = s->ahead_x,
                           .out = s->coming,
                           .I = a->I,
                           .groups = (n_rows + AHEAD_ROWS - 1) / AHEAD_ROWS,
                           .row_floats = s->padded * CELL_GX,
                           .units = vector + (vectors - vector) / AHEAD_VECTORS * AHEAD_VECTORS,
                           .vectors = vectors,
                           .narrow = narrow,
                           .vector = vector};
    if (!n_rows) return;
    fr_ahead_pack(s->ahead_x, s->project_x, n_rows, a->I);
    vf acc[AHEAD_SUMS];
    fr_ahead_start(s->ahead, CELL_ACC, CELL_GX, CELL_XSLOTS, acc);
    if (s->ahead->left) fr_ahead_store(s->ahead, acc);
}

/* The chunk of steps t to `end` gets its projections; computed ahead, the one after it, of T steps in all, starts on them. */
static FR_OWN_FUNCTION void CELL(next_chunk)(CELL(rows) *s, int64_t active, int64_t t, int64_t end, int64_t T) {
    const fr_args *a = s->a;
    if (!AHEAD(a)) {
        const int64_t n_rows = CELL(gather)(s, active, t, end);
        if (a->weights == FR_INT8) fr_quantize(&s->of_x, (int)a->x_bits, s->project_x, a->I, 0, NULL, n_rows, &s->range);
        CELL(cover)(s, CELL(project_many), CELL_NARROW_PROJECT, 0, CELL_GX, n_rows, 0);
        return;
    }
    if (t == 0) CELL(look_ahead)(s, active, 0, end);
    fr_ahead_finish(s->ahead, CELL_ACC, CELL_GX, CELL_XSLOTS);
    float *done = s->coming;
    s->coming = s->projected;
    s->projected = done;
    CELL(look_ahead)(s, active, end, end + a->chunk < T ? end + a->chunk : T);
}

/* The states of a row go into a step multiplied by `keep`. Of c, which is worked on in place, each part has its own units. */
static FR_OWN_FUNCTION void CELL(keep)(CELL(rows) *s, int64_t row, float keep) {
    const fr_args *a = s->a;
    float *kept = s->kept + row * a->P;
    fr_scale(kept, s->h[row], keep, a->P);
    s->h[row] = kept;
    if (!a->cn) return;
    const int64_t blocks = fr_blocks(a->H), first = fr_first_block(a, blocks) * LANES, end = fr_end_block(a, blocks) * LANES;
    fr_scale(s->c[row] + first, s->c[row] + first, keep, (end < a->H ? end : a->H) - first);
}

static FR_OWN_FUNCTION void CELL(widen)(const CELL(rows) *s) {
    const fr_args *a = s->a;
    const int64_t blocks = fr_blocks(a->H);
    fr_widen_panel((float *)s->w_x, a->w_x, blocks, CELL_GX, a->I);
    fr_widen_panel((float *)s->w_h, a->w_h, blocks, CELL_GH, a->P);
    if (a->w_u) fr_widen_panel((float *)s->w_u, a->w_u, blocks, 1, a->H);
    if (a->w_p) fr_widen_panel((float *)s->w_p, a->w_p, fr_blocks(a->P), 1, a->H);
}

/* Everything before the first step. room: for arguments that are not quite the call's. */
FR_INLINE fr_progress CELL(begin)(CELL(rows) *s, fr_args *room, const fr_args *a, int general, int64_t T) {
    s->relu = CELL_RELU && general && a->act[0].kind == FR_ACT_RELU && a->clip == INFINITY;
    s->general = general && !s->relu;
    if (CELL(chunk_of)(a) != a->chunk) *room = *a, room->chunk = CELL(chunk_of)(a), a = room;
    CELL(layout)(a, s);
    if (CELL(widens)(a)) CELL(widen)(s);
    if (a->part == 0) fr_begin_states(a);
    fr_meet(a);
    s->range = (fr_range){0};
    if (a->weights == FR_INT8 && a->x_bits == FR_BYTES_OF_ALL) {
        fr_need(a, T);
        for (int64_t row = 0; row < a->B; row++)
            for (int64_t t = 0; t < fr_length(a, row); t++) fr_widen(&s->range, fr_x_row(a, row, t), a->I);
    }
    return (fr_progress){.active = a->B};
}

/* Where rows are in step t, each on its own. */
FR_INLINE void CELL(places)(CELL(rows) *s, fr_progress *at, int64_t t) {
    const fr_args *a = s->a;
    for (int64_t row = 0; row < at->active; row++) {
        const int64_t b = fr_batch_row(a, row);
        s->x[row] = fr_x_row(a, row, t);
        s->h[row] = t ? fr_y_row(a, row, t - 1) : a->h0 + fr_state(a, b, a->h0_b);
        s->y[row] = fr_y_row(a, row, t);
        if (a->w_p) s->out[row] = s->hidden + row * s->padded;
        s->c[row] = a->cn + fr_state(a, b, a->cn_b);
        if (a->chunk) s->pre[row] = s->projected + at->pre_row++ * s->padded * CELL_GX;
        const float keep = fr_keep(a, row, t);
        if (keep != 1) CELL(keep)(s, row, keep);
    }
}

/* The same of rows in the batch's order, all of one length: addresses go up by the same from row to row, but for states where `state_rows` says how far behind the first each is
 * (AVX-512, H = 16, a step of 30 rows: GRU 0.86 of the time, LSTM 0.87). x is in a register so that these short loops have no vectors, which take longer. */
static FR_OWN_FUNCTION void CELL(even_places)(const CELL(rows) *s, fr_progress *at, int64_t t) {
    const fr_args *a = s->a;
    const int64_t n = a->B, h_b = t ? a->y_b : a->h0_b;
    const float *x = fr_x_row(a, 0, t), *h = t ? fr_y_row(a, 0, t - 1) : a->h0;
    float *y = fr_y_row(a, 0, t);
    for (int64_t row = 0; row < n; row++) {
        s->x[row] = x, s->y[row] = y, s->h[row] = h;
        x += a->x_b, y += a->y_b, h += h_b;
        IN_REGISTER(x);
    }
    if (a->w_p)
        for (int64_t row = 0; row < n; row++) s->out[row] = s->hidden + row * s->padded;
    if (a->chunk)
        for (int64_t row = 0; row < n; row++) s->pre[row] = s->projected + at->pre_row++ * s->padded * CELL_GX;
    if (t) return; /* c stays where it is */
    if (a->state_rows)
        for (int64_t row = 0; row < n; row++) s->h[row] = a->h0 + a->state_rows[row];
    if (a->cn)
        for (int64_t row = 0; row < n; row++) s->c[row] = a->cn + fr_state(a, row, a->cn_b);
}

/* Step t of T, from the last unit to the first where `backward`. */
FR_INLINE void CELL(step_at)(CELL(rows) *s, fr_progress *at, int64_t t, int64_t T, int backward) {
    const fr_args *a = s->a;
    if (!a->chunk) fr_need(a, t + 1);
    else if (t == at->chunk_end) {
        at->chunk_end = t + a->chunk < T ? t + a->chunk : T;
        CELL(next_chunk)(s, at->active, t, at->chunk_end, T);
        at->pre_row = 0;
    }
    at->active = fr_active(a, at->active, t);
    if (a->B > 1 && fr_even(a)) CELL(even_places)(s, at, t);
    else CELL(places)(s, at, t);
    CELL(step)(s, at->active, backward);
    fr_made(a, t + 1);
}

/* The other direction's steps, in turn with this one's: while the last units of one end in functions, the other's products go on. */
static FR_OWN_FUNCTION void CELL(in_turn)(CELL(rows) *s, fr_progress at, int general, int64_t T) {
    CELL(rows) other;
    fr_args room;
    fr_progress of_other = CELL(begin)(&other, &room, s->a->beside, general, T);
    for (int64_t t = 0; t < T; t++) {
        CELL(step_at)(s, &at, t, T, (t + s->a->sweep) & 1);
        CELL(step_at)(&other, &of_other, t, T, (t + s->a->sweep) & 1);
    }
    fr_end_states(other.a);
}

static FR_OWN_FUNCTION void CELL(all_steps)(const fr_args *a, int general) {
    CELL(rows) s;
    fr_args room;
    const int64_t T = a->lengths ? (a->B ? a->lengths[0] : 0) : a->T; /* the longest row comes first */
    fr_progress at = CELL(begin)(&s, &room, a, general, T);
    if (a->beside) CELL(in_turn)(&s, at, general, T);
    else
        for (int64_t t = 0; t < T; t++) CELL(step_at)(&s, &at, t, T, (t + a->sweep) & 1);
    if (a->part == 0) fr_end_states(a);
}

static void CELL(run)(const fr_args *a) { CELL(all_steps)(a, 0); }
static void CELL(general_run)(const fr_args *a) { CELL(all_steps)(a, 1); }
