/* Functions of one or two floats beyond the activations: erf, sigmoid and a softmax's exp on vectors, the others in double. Those are written without branches and
 * with 32-bit integers, so that the compiler lays a loop over lanes out in vectors; lanes that need more are done again, one by one.
 *
 * In double a series that is exact to 1e-14 makes the one rounding to float right in all but one case in millions, and products and sums
 * that are not fused give every instruction set the same bits. tests/kernels/test_chain.py holds them against libm in float64. */
#ifndef FASTRNN_FUNCTIONS_H
#define FASTRNN_FUNCTIONS_H
#include "activations.h"

/* x P(x^2) / Q(x^2), fitted as tanh is (activations.h); 4.5 ulp. Behind the clamp erf rounds to 1, which the quotient may pass by an ulp. */
#define FR_ERF_CLAMP 3.9192059f
FR_INLINE vf vf_erf(vf x) {
    const vf one = vf_set1(1.0f);
    x = vf_max(vf_set1(-FR_ERF_CLAMP), vf_min(vf_set1(FR_ERF_CLAMP), x));
    vf y = vf_mul(x, x);
    vf p = vf_fma(y, vf_set1(1.973622374862316e-06f), vf_set1(0.000274179270491004f));
    vf q = vf_fma(y, vf_set1(3.666628253995441e-05f), vf_set1(0.001118638552725315f));
    p = vf_fma(p, y, vf_set1(0.003623036667704582f));
    q = vf_fma(q, y, vf_set1(0.0144044179469347f));
    p = vf_fma(p, y, vf_set1(0.050762683153152466f));
    q = vf_fma(q, y, vf_set1(0.10980849713087082f));
    p = vf_fma(p, y, vf_set1(0.18322080373764038f));
    q = vf_fma(q, y, vf_set1(0.48317664861679077f));
    p = vf_fma(p, y, vf_set1(1.0859588384628296f));
    q = vf_fma(q, y, vf_set1(0.9624060392379761f));
    return vf_max(vf_sub(vf_zero(), one), vf_min(one, vf_div(vf_mul(x, p), q)));
}

/* exp(x) for x of at most 0: as vf_exp, but that 2^n is made in one piece, n by a sum whose lowest bits it is. Below 2^-126 it is 0. */
FR_INLINE vf vf_exp_falling(vf x) {
    x = vf_max(vf_set1(-88.0f), x);
    const vf t = vf_fma(x, vf_set1(1.44269504f), vf_set1(FR_POW2)), n = vf_sub(t, vf_set1(FR_POW2));
    vf r = vf_fma(n, vf_set1(-0.693359375f), x);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf q = vf_fma(r, vf_set1(0.001381454f), vf_set1(0.00836874512f));
    q = vf_fma(q, r, vf_set1(0.0416683908f));
    q = vf_fma(q, r, vf_set1(0.166665204f));
    q = vf_fma(q, r, vf_set1(0.499999934f));
    q = vf_fma(q, r, vf_set1(1.0f));
    return vf_mul(vf_fma(q, r, vf_set1(1.0f)), vf_pow2_of(t));
}

/* 1 / (1 + exp(-x)), right to a few ulp where it nears 0 as well: of e = exp(-|x|), which falls, 1 or e over 1 + e. */
FR_INLINE vf vf_logistic(vf x) {
    const vf one = vf_set1(1.0f), e = vf_exp_falling(vf_sub(vf_zero(), vf_abs(x)));
    return vf_div(vf_select(vf_lt(x, vf_zero()), e, one), vf_add(one, e));
}

/* 2^n, n in -1022..1023. */
FR_INLINE double fr_pow2_double(double n) {
    const int64_t bits = (int64_t)((int32_t)n + 1023) << 52;
    double r;
    memcpy(&r, &bits, sizeof r);
    return r;
}

/* Taylor's series of e^r behind n = rint(x / ln 2); 200 is past either end of float. */
FR_INLINE double fr_exp_double(double x) {
    x = x < -200.0 ? -200.0 : x > 200.0 ? 200.0 : x;
    const double n = rint(x * 0x1.71547652b82fep+0), r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
    double q = 1.0 / 6227020800.0;
    q = q * r + 1.0 / 479001600.0;
    q = q * r + 1.0 / 39916800.0;
    q = q * r + 1.0 / 3628800.0;
    q = q * r + 1.0 / 362880.0;
    q = q * r + 1.0 / 40320.0;
    q = q * r + 1.0 / 5040.0;
    q = q * r + 1.0 / 720.0;
    q = q * r + 1.0 / 120.0;
    q = q * r + 1.0 / 24.0;
    q = q * r + 1.0 / 6.0;
    q = q * r + 0.5;
    return (1.0 + (r + q * r * r)) * fr_pow2_double(n);
}

/* x = m 2^e with m in [0.7, 1.42); log m = 2 atanh((m - 1) / (m + 1)). x is positive, finite and normal. */
FR_INLINE double fr_log_double(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int32_t e = (bits - 0x3f3504f3) >> 23;
    bits -= (int32_t)((uint32_t)e << 23);
    float part;
    memcpy(&part, &bits, sizeof part);
    const double m = part, s = (m - 1.0) / (m + 1.0), z = s * s;
    double q = 1.0 / 21.0;
    q = q * z + 1.0 / 19.0;
    q = q * z + 1.0 / 17.0;
    q = q * z + 1.0 / 15.0;
    q = q * z + 1.0 / 13.0;
    q = q * z + 1.0 / 11.0;
    q = q * z + 1.0 / 9.0;
    q = q * z + 1.0 / 7.0;
    q = q * z + 1.0 / 5.0;
    q = q * z + 1.0 / 3.0;
    return ((double)e * 0x1.a39ef35793c76p-33 + 2.0 * (s + s * z * q)) + (double)e * 0x1.62e42feep-1;
}

/* As C's pow says of zeros, infinities and NaNs. */
FR_INLINE float fr_power(float x, float y) {
    if (y == 0.0f || x == 1.0f) return 1.0f;
    if (x != x || y != y) return NAN;
    const float size = fabsf(x);
    const int whole = y == rintf(y), odd = whole && fabsf(y) < 16777216.0f && ((int64_t)y & 1);
    double r;
    if (size == 0.0f) r = y < 0.0f ? INFINITY : 0.0;
    else if (size == INFINITY) r = y < 0.0f ? 0.0 : INFINITY;
    else if (fabsf(y) == INFINITY) r = size == 1.0f ? 1.0 : (size > 1.0f) == (y > 0.0f) ? INFINITY : 0.0;
    else if (x < 0.0f && !whole) return NAN;
    else {
        const double e = (double)y * fr_log_double(size);
        r = fr_exp_double(e);
        if (e > 199.0) r = INFINITY;
    }
    return odd && signbit(x) ? -(float)r : (float)r;
}

/* 2 / pi, its first 320 bits. */
static const uint64_t fr_two_over_pi[] = {0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561, 0xb7246e3a424dd2e0};

/* The quadrant of an x of at least 2^26 and what is left, in -pi/4..pi/4 (Payne and Hanek 1983): x = m 2^e times 2 / pi, whose bits in
 * front make whole turns and are left out. */
static double fr_reduce_large(float x, int64_t *quadrant) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int first = (int)(bits >> 23 & 255) - 152, word = first / 64, shift = first % 64;
    const uint64_t m = (bits & 0x7fffff) | 0x800000;
    uint64_t window[3];
    for (int k = 0; k < 3; k++) window[k] = fr_two_over_pi[word + k] << shift | (shift ? fr_two_over_pi[word + k + 1] >> (64 - shift) : 0);
    unsigned __int128 turns = (unsigned __int128)m * window[1] + (((unsigned __int128)m * window[2]) >> 64); /* of 2^-128 */
    turns += (unsigned __int128)(m * window[0]) << 64;
    const uint64_t part = (uint64_t)(turns >> 62), rest = (uint64_t)turns << 2; /* of 2^-64 quadrants, read as signed, and below that */
    const int64_t whole = (int64_t)(turns >> 126) + (int64_t)(part >> 63);
    const double r = ((double)(int64_t)part + (double)rest * 0x1p-64) * 0x1.921fb54442d18p-64;
    *quadrant = bits >> 31 ? -whole : whole;
    return bits >> 31 ? -r : r;
}

/* sin(r + quadrant quarter turns), r in -pi/4..pi/4. */
FR_INLINE double fr_sine_of(double r, int32_t quadrant) {
    const double z = r * r;
    double s = 1.0 / 6227020800.0, c = -1.0 / 87178291200.0;
    s = s * z - 1.0 / 39916800.0;
    c = c * z + 1.0 / 479001600.0;
    s = s * z + 1.0 / 362880.0;
    c = c * z - 1.0 / 3628800.0;
    s = s * z - 1.0 / 5040.0;
    c = c * z + 1.0 / 40320.0;
    s = s * z + 1.0 / 120.0;
    c = c * z - 1.0 / 720.0;
    s = s * z - 1.0 / 6.0;
    c = c * z + 1.0 / 24.0;
    s = r + r * z * s;
    c = 1.0 + (c * z - 0.5) * z;
    const double y = quadrant & 1 ? c : s;
    return quadrant & 2 ? -y : y;
}

/* sin(x + shift quarter turns) for |x| below 2^26. */
FR_INLINE float fr_sine(float x, int32_t shift) {
    const double n = rint((double)x * 0x1.45f306dc9c883p-1);
    const double r = (((double)x - n * 0x1.921fb50000000p+0) - n * 0x1.110b460000000p-26) - n * 0x1.1a62633145c07p-54;
    return (float)fr_sine_of(r, (int32_t)n + shift);
}

/* x where `low` < |x| < `high`, else `other`. */
FR_INLINE vf vf_within(vf x, float low, float high, float other) {
    return vf_select(vf_lt(vf_set1(low), vf_abs(x)), vf_select(vf_lt(vf_abs(x), vf_set1(high)), x, vf_set1(other)), vf_set1(other));
}

FR_INLINE vf vf_sine(vf x, const int32_t shift) {
    float u[LANES], y[LANES];
    vf_store(u, vf_within(x, 0.0f, 0x1p26f, 0.0f));
    for (int l = 0; l < LANES; l++) y[l] = fr_sine(u[l], shift);
    vf_store(u, x);
    int large = 0;
    for (int l = 0; l < LANES; l++) large |= !(fabsf(u[l]) < 0x1p26f);
    if (large)
        for (int l = 0; l < LANES; l++) {
            int64_t quadrant = 0;
            if (!(fabsf(u[l]) < INFINITY)) y[l] = NAN;
            else if (fabsf(u[l]) >= 0x1p26f) {
                const double r = fr_reduce_large(u[l], &quadrant);
                y[l] = (float)fr_sine_of(r, (int32_t)(quadrant & 3) + shift);
            }
        }
    return shift ? vf_load(y) : vf_select(vf_eq(x, vf_zero()), x, vf_load(y)); /* a zero keeps its sign */
}

FR_INLINE vf vf_log(vf x) {
    float u[LANES];
    const vf zero = vf_zero(), special = vf_select(vf_lt(x, zero), vf_set1(NAN), vf_select(vf_eq(x, zero), vf_set1(-INFINITY), x));
    vf_store(u, vf_within(x, 0.0f, INFINITY, 1.0f));
    for (int l = 0; l < LANES; l++) u[l] = (float)fr_log_double(fabsf(u[l]));
    return vf_select(vf_lt(zero, x), vf_select(vf_lt(x, vf_set1(INFINITY)), vf_load(u), special), special);
}

/* The common case for all lanes, then the others. */
FR_INLINE vf vf_power(vf x, vf exponent) {
    float u[LANES], v[LANES], y[LANES];
    vf_store(u, vf_within(x, 0.0f, INFINITY, 1.0f)), vf_store(v, vf_within(exponent, 0.0f, INFINITY, 0.0f));
    for (int l = 0; l < LANES; l++) y[l] = (float)fr_exp_double((double)v[l] * fr_log_double(fabsf(u[l])));
    vf_store(u, x), vf_store(v, exponent);
    int others = 0;
    for (int l = 0; l < LANES; l++) others |= !((u[l] > 0.0f) & (u[l] < INFINITY) & (fabsf(v[l]) < INFINITY));
    if (others)
        for (int l = 0; l < LANES; l++)
            if (!((u[l] > 0.0f) & (u[l] < INFINITY) & (fabsf(v[l]) < INFINITY))) y[l] = fr_power(u[l], v[l]);
    return vf_load(y);
}
#endif
