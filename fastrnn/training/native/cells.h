/* What one row of units computes and what its gradients are, vector by vector. Gates lie one behind the other, as torch orders them.
 *
 * Forward replaces pre-activations by activated gates, backward those by the gradients of the pre-activations. `d` stands for the gradient of.
 * Equations: cells/builtin.py; derivatives as in Greff et al. 2017, appendix A, and by the chain rule. */
#define EACH_VECTOR(H) for (int64_t j = 0, n; n = (H) - j < LANES_R ? (H) - j : LANES_R, j < (H); j += n)
#define TANH NAME(tanh)
#define SIGMOID NAME(sigmoid)

static void NAME(rnn_row)(real *a, int64_t H, int relu) {
    EACH_VECTOR(H) {
        const vr x = get(a + j, n);
        put(a + j, relu ? NAME(where_positive)(x, x) : TANH(x), n);
    }
}

/* dh may be where da goes. */
static void NAME(rnn_row_back)(const real *h, const real *dh, real *da, int64_t H, int relu) {
    EACH_VECTOR(H) {
        const vr y = get(h + j, n), dy = get(dh + j, n);
        put(da + j, relu ? NAME(where_positive)(y, dy) : (vr)(dy * (1 - y * y)), n);
    }
}

/* peepholes: p_i, p_f, p_o, or NULL. m = o tanh(c'), the output before a projection. */
static void NAME(lstm_row)(real *gates, const real *c_before, real *c, real *m, int64_t H, const real *peepholes, int coupled) {
    real *gi = gates, *gf = gi + H, *gg = gf + H, *go = gg + H;
    EACH_VECTOR(H) {
        const vr c0 = get(c_before + j, n);
        vr i = get(gi + j, n), f = get(gf + j, n), o = get(go + j, n);
        if (peepholes) i += get(peepholes + j, n) * c0, f += get(peepholes + H + j, n) * c0;
        i = SIGMOID(i);
        f = coupled ? (vr)(1 - i) : SIGMOID(f);
        const vr g = TANH(get(gg + j, n)), c1 = f * c0 + i * g;
        if (peepholes) o += get(peepholes + 2 * H + j, n) * c1;
        o = SIGMOID(o);
        put(gi + j, i, n), put(gf + j, f, n), put(gg + j, g, n), put(go + j, o, n);
        put(c + j, c1, n);
        put(m + j, o * TANH(c1), n);
    }
}

/* dc: in, the gradient of c' from later steps; out, of c. d_peepholes are added to. */
static void NAME(lstm_row_back)(real *gates, const real *c_before, const real *c, const real *dm, real *dc, int64_t H, const real *peepholes,
                                real *d_peepholes, int coupled) {
    real *gi = gates, *gf = gi + H, *gg = gf + H, *go = gg + H;
    EACH_VECTOR(H) {
        const vr i = get(gi + j, n), f = get(gf + j, n), g = get(gg + j, n), o = get(go + j, n), c0 = get(c_before + j, n), c1 = get(c + j, n);
        const vr dy = get(dm + j, n), squashed = TANH(c1), d_o = dy * squashed * o * (1 - o);
        vr dc1 = get(dc + j, n) + dy * o * (1 - squashed * squashed);
        if (peepholes) dc1 += d_o * get(peepholes + 2 * H + j, n);
        const vr d_i = dc1 * (coupled ? (vr)(g - c0) : g) * i * (1 - i), d_f = coupled ? (vr){0} : (vr)(dc1 * c0 * f * (1 - f));
        vr dc0 = dc1 * f;
        if (peepholes) {
            dc0 += d_i * get(peepholes + j, n) + d_f * get(peepholes + H + j, n);
            put(d_peepholes + j, get(d_peepholes + j, n) + d_i * c0, n);
            put(d_peepholes + H + j, get(d_peepholes + H + j, n) + d_f * c0, n);
            put(d_peepholes + 2 * H + j, get(d_peepholes + 2 * H + j, n) + d_o * c1, n);
        }
        put(gi + j, d_i, n), put(gf + j, d_f, n), put(gg + j, dc1 * i * (1 - g * g), n), put(go + j, d_o, n);
        put(dc + j, dc0, n);
    }
}

/* Reset after the matrix: q = R_n h + b, n = tanh(a_n + r q). */
static void NAME(gru_row)(real *gates, const real *h_before, real *h, const real *q, int64_t H) {
    real *gr = gates, *gz = gr + H, *gn = gz + H;
    EACH_VECTOR(H) {
        const vr r = SIGMOID(get(gr + j, n)), z = SIGMOID(get(gz + j, n)), c = TANH(get(gn + j, n) + r * get(q + j, n));
        put(gr + j, r, n), put(gz + j, z, n), put(gn + j, c, n);
        put(h + j, c + z * (get(h_before + j, n) - c), n);
    }
}

/* q becomes its gradient; what of h goes past the matrices is added to dh_before. */
static void NAME(gru_row_back)(real *gates, const real *h_before, const real *dh, real *dh_before, real *q, int64_t H) {
    real *gr = gates, *gz = gr + H, *gn = gz + H;
    EACH_VECTOR(H) {
        const vr r = get(gr + j, n), z = get(gz + j, n), c = get(gn + j, n), dy = get(dh + j, n), d_n = dy * (1 - z) * (1 - c * c);
        put(gr + j, d_n * get(q + j, n) * r * (1 - r), n);
        put(gz + j, dy * (get(h_before + j, n) - c) * z * (1 - z), n);
        put(gn + j, d_n, n);
        put(q + j, d_n * r, n);
        put(dh_before + j, get(dh_before + j, n) + dy * z, n);
    }
}

/* Reset before it, first phase: s = r h. */
static void NAME(gru_before_row)(real *gates, const real *h_before, real *s, int64_t H) {
    EACH_VECTOR(H) {
        const vr r = SIGMOID(get(gates + j, n));
        put(gates + j, r, n);
        put(s + j, r * get(h_before + j, n), n);
    }
}

/* Second phase: n = tanh(a_n), to which R_n s has been added. */
static void NAME(gru_before_row2)(real *gates, const real *h_before, real *h, int64_t H) {
    real *gz = gates + H, *gn = gz + H;
    EACH_VECTOR(H) {
        const vr z = SIGMOID(get(gz + j, n)), c = TANH(get(gn + j, n));
        put(gz + j, z, n), put(gn + j, c, n);
        put(h + j, c + z * (get(h_before + j, n) - c), n);
    }
}

static void NAME(gru_before_row_back)(real *gates, const real *h_before, const real *dh, real *dh_before, int64_t H) {
    real *gz = gates + H, *gn = gz + H;
    EACH_VECTOR(H) {
        const vr z = get(gz + j, n), c = get(gn + j, n), dy = get(dh + j, n);
        put(gz + j, dy * (get(h_before + j, n) - c) * z * (1 - z), n);
        put(gn + j, dy * (1 - z) * (1 - c * c), n);
        put(dh_before + j, get(dh_before + j, n) + dy * z, n);
    }
}

/* ds: of s = r h, behind the candidate's matrix. */
static void NAME(gru_before_row_back2)(real *gates, const real *h_before, real *dh_before, const real *ds, int64_t H) {
    EACH_VECTOR(H) {
        const vr r = get(gates + j, n), d = get(ds + j, n);
        put(gates + j, d * get(h_before + j, n) * r * (1 - r), n);
        put(dh_before + j, get(dh_before + j, n) + d * r, n);
    }
}
