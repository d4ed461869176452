/* The time loop of any cell, forward and backward: matrices as in instance.h, and the cell's own maths as a list of instructions (training/cellcode.py).
 *
 * An instruction is done on a tile of rows and units before the next, so that what it costs to find out what to do is shared by TILE_VECTORS vectors. Between
 * instructions values lie in slots, which fit L1. Rows are made whole vectors in slots; only loads, stores and sums know where they end. */
#define TILE_VECTORS 16

/* Where one value of a piece's rows lies. */
typedef struct {
    real *at;
    int64_t by_row;
} NAME(fr_port);

typedef struct {
    int64_t n, n_ports, n_constants, n_slots;
    const fr_instruction *instructions;
    const fr_place *ports;
    const real *constants; /* slots begin with them */
} NAME(fr_code);

typedef struct {
    int64_t B, H, P, G, n_pieces, by_h, by_c, by_x, by_s, by_dx, by_ds; /* by_c: from state to state of c */
    int64_t first_h, n_h, first_2, n_2;                                 /* gates that multiply h, and those of the second phase */
    const fr_piece *pieces;
    real *gates, *h, *c, *extra;   /* (N, G H), (B + N, P), (S - 1, B + N, H); extra (N, H): the operand, or the output before a projection */
    real *dh, *dh0, *dc, *dx, *ds; /* (N, P), (B, P), (S - 1, B, H), (N, H), (N, scalars) */
    const real *x, *s;             /* (N, H) where the cell reads it unit for unit; (N, scalars) */
    real *da, *scratch;            /* (B, G H) where there is a second phase, (B, H) */
    const real *w_h, *w_2, *w_p;   /* (n_h H, P), (n_2 H, H), (P, H) */
    const real *parameters;        /* (K, H) */
    real *d_parameters, *panels, *slots;
    NAME(fr_code) pointwise, operand;
} NAME(fr_cell);
#define cell NAME(fr_cell)

FR_INLINE NAME(fr_port) NAME(port)(const cell *d, const fr_piece *p, fr_place place) {
    const int64_t H = d->H, k = place.k, row = p->row, before = p->before;
    real *m = d->w_p ? d->extra + row * H : d->h + (d->B + row) * d->by_h;
    switch (place.where) {
    case AT_GATE:
        return (NAME(fr_port)){d->gates + (row * d->G + k) * H, d->G * H};
    case AT_STATE:
        return k ? (NAME(fr_port)){d->c + (k - 1) * d->by_c + before * H, H} : (NAME(fr_port)){d->h + before * d->by_h, d->by_h};
    case AT_NEW:
        return k ? (NAME(fr_port)){d->c + (k - 1) * d->by_c + (d->B + row) * H, H} : (NAME(fr_port)){m, d->w_p ? H : d->by_h};
    case AT_PARAMETER:
        return (NAME(fr_port)){(real *)d->parameters + k * H, 0};
    case AT_SCALAR:
        return (NAME(fr_port)){(real *)d->s + row * d->by_s + k, d->by_s};
    case AT_INPUT:
        return (NAME(fr_port)){(real *)d->x + row * d->by_x, d->by_x};
    case AT_OPERAND:
        return (NAME(fr_port)){d->extra + row * H, H};
    case AT_D_GATE:
        return d->da ? (NAME(fr_port)){d->da + k * H, d->G * H} : (NAME(fr_port)){d->gates + (row * d->G + k) * H, d->G * H};
    case AT_D_STATE:
        if (k) return (NAME(fr_port)){d->dc + ((k - 1) * d->B + p->place) * H, H};
        return (NAME(fr_port)){before < d->B ? d->dh0 + before * d->by_h : d->dh + (before - d->B) * d->by_h, d->by_h};
    case AT_D_NEW:
        if (k) return (NAME(fr_port)){d->dc + ((k - 1) * d->B + p->place) * H, H};
        return d->w_p ? (NAME(fr_port)){d->scratch, H} : (NAME(fr_port)){d->dh + row * d->by_h, d->by_h};
    case AT_D_PARAMETER:
        return (NAME(fr_port)){d->d_parameters + k * H, 0};
    case AT_D_SCALAR:
        return (NAME(fr_port)){d->ds + row * d->by_ds + k, d->by_ds};
    case AT_D_INPUT:
        return (NAME(fr_port)){d->dx + row * d->by_dx, d->by_dx};
    default:
        return (NAME(fr_port)){d->scratch, H}; /* AT_D_OPERAND */
    }
}

#define EACH for (int64_t v = 0; v < n * LANES_R; v += LANES_R)
#define UNARY(NUMBER, RESULT) \
    case NUMBER: \
        EACH { \
            const vr x = NAME(load)(a + v); \
            NAME(store)(out + v, (RESULT)); \
        } \
        break;
#define BINARY(NUMBER, RESULT) \
    case NUMBER: \
        EACH { \
            const vr x = NAME(load)(a + v), y = NAME(load)(b + v); \
            NAME(store)(out + v, (vr)(RESULT)); \
        } \
        break;
#define MASK(x) ((NAME(vm))(x))
/* Rows and units of the tile in memory: at, and how many units there are. */
#define EACH_PART \
    for (int64_t r = 0, v = 0; r < rows; r++) \
        for (int64_t j = first; j < first + units; j += LANES_R, v += LANES_R)
#define PART (whole || first + units - j >= LANES_R ? LANES_R : (int)(first + units - j))

FR_INLINE vr NAME(select)(vr mask, vr a, vr b) { return (vr)((MASK(mask) & MASK(a)) | (~MASK(mask) & MASK(b))); }
/* NaN where either is. */
FR_INLINE vr NAME(or_nan)(vr least, vr a) { return NAME(select)((vr)(a != a), a, least); }

/* One tile: `rows` from row, `units` from first, in n vectors; whole: none of them ends within. Made for a full tile of whole vectors, whose loops have a known length
 * (a third of the time), and for any. */
FR_INLINE void NAME(interpret_any)(const NAME(fr_code) * code, const NAME(fr_port) * ports, real *slots, int64_t row, int64_t rows, int64_t first,
                                   int64_t units, const int64_t n, const int whole) {
    const int64_t slot = TILE_VECTORS * LANES_R;
    const vr zero = {0};
    for (const fr_instruction *i = code->instructions; i < code->instructions + code->n; i++) {
        real *out = slots + i->out * slot;
        const real *a = slots + i->a * slot, *b = slots + i->b * slot, *c = slots + i->c * slot;
        const NAME(fr_port) port = i->op <= DO_ADD_SUM ? ports[i->b] : (NAME(fr_port)){0};
        real *memory = port.at + row * port.by_row;
        switch (i->op) {
        case DO_LOAD:
            EACH_PART NAME(store)(out + v, get(memory + r * port.by_row + j, PART));
            break;
        case DO_LOAD_SCALAR:
            EACH_PART NAME(store)(out + v, zero + memory[r * port.by_row]);
            break;
        case DO_STORE:
            EACH_PART put(memory + r * port.by_row + j, NAME(load)(a + v), PART);
            break;
        case DO_ADD_TO:
            EACH_PART {
                real *to = memory + r * port.by_row + j;
                put(to, get(to, PART) + NAME(load)(a + v), PART);
            }
            break;
        case DO_ADD_SUM:
            EACH_PART for (int k = 0; k < PART; k++) memory[r * port.by_row] += a[v + k];
            break;
            BINARY(DO_ADD, x + y)
            BINARY(DO_SUBTRACT, x - y)
            BINARY(DO_MULTIPLY, x * y)
            BINARY(DO_DIVIDE, x / y)
            UNARY(DO_NEGATIVE, -x)
            BINARY(DO_LESS, x < y)
            BINARY(DO_LESS_EQUAL, x <= y)
            BINARY(DO_EQUAL, x == y)
            BINARY(DO_NOT_EQUAL, x != y)
            BINARY(DO_AND, MASK(x) & MASK(y))
            BINARY(DO_OR, MASK(x) | MASK(y))
            UNARY(DO_NOT, (vr)~MASK(x))
        case DO_WHERE:
            EACH NAME(store)(out + v, NAME(select)(NAME(load)(a + v), NAME(load)(b + v), NAME(load)(c + v)));
            break;
            UNARY(DO_ABS, NAME(select)((vr)(x < zero), -x, x + zero))
            UNARY(DO_SQRT, NAME(sqrt)(x))
            UNARY(DO_RELU, NAME(where_positive)(x, x))
            BINARY(DO_MINIMUM, NAME(or_nan)(NAME(select)((vr)(x < y), x, y), x))
            BINARY(DO_MAXIMUM, NAME(or_nan)(NAME(select)((vr)(x > y), x, y), x))
            UNARY(DO_EXP, NAME(exp)(x))
            UNARY(DO_TANH, NAME(tanh)(x))
            UNARY(DO_SIGMOID, NAME(sigmoid)(x))
            UNARY(DO_LOG1P, NAME(log1p)(x))
        }
    }
}

static void NAME(interpret_tile)(const NAME(fr_code) * code, const NAME(fr_port) * ports, real *slots, int64_t row, int64_t rows, int64_t first,
                                 int64_t units, int64_t n) {
    if (n == TILE_VECTORS && units % LANES_R == 0) NAME(interpret_any)(code, ports, slots, row, rows, first, units, TILE_VECTORS, 1);
    else NAME(interpret_any)(code, ports, slots, row, rows, first, units, n, 0);
}

static void NAME(interpret)(const cell *d, const fr_piece *p, const NAME(fr_code) * code) {
    NAME(fr_port) ports[FR_MOST_PORTS];
    for (int64_t k = 0; k < code->n_ports; k++) ports[k] = NAME(port)(d, p, code->ports[k]);
    const vr zero = {0};
    for (int64_t k = 0; k < code->n_constants; k++)
        for (int64_t v = 0; v < TILE_VECTORS; v++) NAME(store)(d->slots + (k * TILE_VECTORS + v) * LANES_R, zero + code->constants[k]);
    const int64_t vectors = (d->H + LANES_R - 1) / LANES_R, widest = vectors < TILE_VECTORS ? vectors : TILE_VECTORS, most = TILE_VECTORS / widest;
    for (int64_t row = 0; row < p->n; row += most) {
        const int64_t rows = p->n - row < most ? p->n - row : most;
        for (int64_t v = 0; v < vectors; v += widest) {
            const int64_t first = v * LANES_R, wide = vectors - v < widest ? vectors - v : widest, left = d->H - first;
            NAME(interpret_tile)(code, ports, d->slots, row, rows, first, left < wide * LANES_R ? left : wide * LANES_R, rows * wide);
        }
    }
}

/* Rows of states from `row` on, by_h apart, times a matrix into gates. */
static void NAME(cell_forward)(const cell *d) {
    const int64_t H = d->H, P = d->P, by_gates = d->G * H;
    real *panels_2 = d->panels + NAME(panels_size)(d->n_h * H, P), *panels_p = panels_2 + NAME(panels_size)(d->n_2 * H, H);
    if (d->n_h) NAME(pack)(d->w_h, 1, P, P, d->n_h * H, d->panels);
    if (d->n_2) NAME(pack)(d->w_2, 1, H, H, d->n_2 * H, panels_2);
    if (d->w_p) NAME(pack)(d->w_p, 1, H, H, P, panels_p);
    EACH_PIECE {
        real *gates = d->gates + p->row * by_gates;
        if (d->n_h) ADD(d->h + p->before * d->by_h, d->by_h, p->n, d->panels, P, d->n_h * H, gates + d->first_h * H, by_gates);
        if (d->n_2) {
            NAME(interpret)(d, p, &d->operand);
            ADD(d->extra + p->row * H, H, p->n, panels_2, H, d->n_2 * H, gates + d->first_2 * H, by_gates);
        }
        NAME(interpret)(d, p, &d->pointwise);
        if (d->w_p) {
            real *h = d->h + (d->B + p->row) * d->by_h;
            EACH_ROW memset(h + k * d->by_h, 0, P * sizeof(real));
            ADD(d->extra + p->row * H, H, p->n, panels_p, H, P, h, d->by_h);
        }
    }
}

static void NAME(cell_backward)(const cell *d) {
    const int64_t H = d->H, P = d->P, by_gates = d->G * H;
    real *panels_2 = d->panels + NAME(panels_size)(P, d->n_h * H), *panels_p = panels_2 + NAME(panels_size)(H, d->n_2 * H);
    if (d->n_h) NAME(pack)(d->w_h, P, 1, d->n_h * H, P, d->panels);
    if (d->n_2) NAME(pack)(d->w_2, H, 1, d->n_2 * H, H, panels_2);
    if (d->w_p) NAME(pack)(d->w_p, H, 1, P, H, panels_p);
    EACH_PIECE_BACK {
        real *gates = d->gates + p->row * by_gates;
        if (d->w_p) {
            memset(d->scratch, 0, p->n * H * sizeof(real));
            ADD(d->dh + p->row * d->by_h, d->by_h, p->n, panels_p, P, H, d->scratch, H);
        }
        NAME(interpret)(d, p, &d->pointwise);
        if (d->n_2) {
            memset(d->scratch, 0, p->n * H * sizeof(real));
            ADD(d->da + d->first_2 * H, by_gates, p->n, panels_2, d->n_2 * H, H, d->scratch, H);
            NAME(interpret)(d, p, &d->operand);
            memcpy(gates, d->da, p->n * by_gates * sizeof(real));
        }
        const NAME(fr_port) to = NAME(port)(d, p, (fr_place){AT_D_STATE, 0});
        if (d->n_h) ADD(gates + d->first_h * H, by_gates, p->n, d->panels, d->n_h * H, P, to.at, to.by_row);
    }
}

static void NAME(fr_run_cell)(int back, const cell *d) {
    const uint64_t mode = fr_flush_denormals();
    if (back) NAME(cell_backward)(d);
    else NAME(cell_forward)(d);
    fr_restore_denormals(mode);
}
#undef cell
#undef EACH
#undef UNARY
#undef BINARY
#undef MASK
#undef EACH_PART
#undef PART
