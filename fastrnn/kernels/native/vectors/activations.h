/* Activations on vectors. Each is a fixed sequence of IEEE operations: another backend that repeats the
 * sequence gets the same bits. Bounds and the figures reached over all 2^32 inputs: benchmarks/results/activations.md.
 * The coefficients are minimax fits made for this project: reweighted least squares (Lawson 1961) at Chebyshev nodes, in float64. */
#ifndef FASTRNN_ACTIVATIONS_H
#define FASTRNN_ACTIVATIONS_H
#include "args.h"
#include "simd.h"

/* x P(x^2) / Q(x^2) with P(0) = Q(0), so that tiny x come back unchanged; two chains of four FMAs and one division.
 * The common scale of P and Q is free; this one keeps their roundings apart best (4.87 ulp, against 5.48 with
 * P(0) = 1). The clamp is where the quotient first rounds to 1, so larger |x| give exactly +-1. */
#define FR_TANH_CLAMP 8.01923275f
FR_INLINE vf vf_tanh(vf x) {
    x = vf_max(vf_set1(-FR_TANH_CLAMP), vf_min(vf_set1(FR_TANH_CLAMP), x));
    vf y = vf_mul(x, x);
    vf p = vf_fma(y, vf_set1(1.61319402e-08f), vf_set1(2.29815923e-05f));
    vf q = vf_fma(y, vf_set1(8.9812329e-07f), vf_set1(0.000357004843f));
    p = vf_fma(p, y, vf_set1(0.00373005914f));
    q = vf_fma(q, y, vf_set1(0.027288029f));
    p = vf_fma(p, y, vf_set1(0.140102506f));
    q = vf_fma(q, y, vf_set1(0.487246305f));
    p = vf_fma(p, y, vf_set1(1.04143155f));
    q = vf_fma(q, y, vf_set1(1.04143155f));
    return vf_div(vf_mul(x, p), q);
}

FR_INLINE vf vf_sigmoid(vf x) {
    vf half = vf_set1(0.5f);
    return vf_fma(half, vf_tanh(vf_mul(half, x)), half);
}

/* exp(r) = 1 + r + r^2 q(r) after taking out n = rint(x log2 e); 2^n in two factors, so that the ends overflow
 * to inf and flush to 0 by themselves. */
FR_INLINE vf vf_exp(vf x) {
    x = vf_max(vf_set1(-104.0f), vf_min(vf_set1(89.0f), x));
    vf n = vf_round(vf_mul(x, vf_set1(1.44269504f)));
    vf r = vf_fma(n, vf_set1(-0.693359375f), x);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf q = vf_fma(r, vf_set1(0.001381454f), vf_set1(0.00836874512f));
    q = vf_fma(q, r, vf_set1(0.0416683908f));
    q = vf_fma(q, r, vf_set1(0.166665204f));
    q = vf_fma(q, r, vf_set1(0.499999934f));
    vf e = vf_add(vf_fma(vf_mul(r, r), q, r), vf_set1(1.0f));
    vf n1 = vf_round(vf_mul(n, vf_set1(0.5f)));
    return vf_mul(vf_mul(e, vf_pow2(n1)), vf_pow2(vf_sub(n, n1)));
}

/* log(1 + t) = 2 atanh(s), s = t / (2 + t), for t in [0, 1]. */
FR_INLINE vf vf_log1p_unit(vf t) {
    vf s = vf_div(t, vf_add(t, vf_set1(2.0f))), z = vf_mul(s, s);
    vf q = vf_fma(z, vf_set1(0.121523134f), vf_set1(0.107133778f));
    q = vf_fma(q, z, vf_set1(0.1430848f));
    q = vf_fma(q, z, vf_set1(0.199994377f));
    q = vf_fma(q, z, vf_set1(0.333333378f));
    s = vf_add(s, s);
    return vf_fma(vf_mul(q, z), s, s);
}

FR_INLINE vf vf_softplus(vf x) {
    vf e = vf_exp(vf_sub(vf_zero(), vf_abs(x)));
    return vf_add(vf_max(vf_zero(), x), vf_log1p_unit(e));
}

/* expm1(x) = 2 t / (1 - t), t = tanh(x / 2), for x <= 0: no cancellation, and -1 at -inf. */
FR_INLINE vf vf_elu(vf x, vf alpha) {
    vf t = vf_tanh(vf_mul(vf_set1(0.5f), vf_min(vf_zero(), x)));
    vf e = vf_div(vf_add(t, t), vf_sub(vf_set1(1.0f), t));
    return vf_select(vf_lt(x, vf_zero()), vf_mul(alpha, e), x);
}

FR_INLINE vf vf_relu(vf x) { return vf_max(vf_zero(), x); }

static vf vf_activate(const fr_activation *act, vf x) {
    vf alpha = vf_set1(act->alpha), beta = vf_set1(act->beta), zero = vf_zero(), one = vf_set1(1.0f);
    switch (act->kind) {
    case FR_ACT_SIGMOID:
        return vf_sigmoid(x);
    case FR_ACT_TANH:
        return vf_tanh(x);
    case FR_ACT_RELU:
        return vf_relu(x);
    case FR_ACT_AFFINE:
        return vf_add(vf_mul(alpha, x), beta);
    case FR_ACT_LEAKY_RELU:
        return vf_select(vf_lt(x, zero), vf_mul(alpha, x), x);
    case FR_ACT_THRESHOLDED_RELU:
        return vf_select(vf_lt(alpha, x), x, vf_min(zero, vf_max(zero, x)));
    case FR_ACT_SCALED_TANH:
        return vf_mul(alpha, vf_tanh(vf_mul(beta, x)));
    case FR_ACT_HARD_SIGMOID:
        return vf_max(zero, vf_min(one, vf_add(vf_mul(alpha, x), beta)));
    case FR_ACT_ELU:
        return vf_elu(x, alpha);
    case FR_ACT_SOFTSIGN:
        return vf_div(x, vf_add(one, vf_abs(x)));
    case FR_ACT_SOFTPLUS:
        return vf_softplus(x);
    case FR_ACT_EXP:
        return vf_exp(x);
    default:
        return x;
    }
}

/* NaN passes: it is the second operand of each comparison. */
FR_INLINE vf vf_clip(vf x, float bound) { return vf_max(vf_set1(-bound), vf_min(vf_set1(bound), x)); }
#endif
