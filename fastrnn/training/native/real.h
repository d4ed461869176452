/* A vector of LANES_R reals, for whichever of float and double `real` is; instance.h is compiled for both.
 * The compiler fuses products and sums here (-ffp-contract=fast): training promises the same bits from run to run, not across instruction sets. */
typedef real NAME(vr) __attribute__((vector_size(4 * LANES), aligned(sizeof(real)), may_alias));
#define vr NAME(vr)
typedef __typeof__((vr){0} < (vr){0}) NAME(vm); /* a condition for each */
#define LANES_R ((int)(4 * LANES / sizeof(real)))

FR_INLINE vr NAME(load)(const real *p) { return *(const vr *)p; }
FR_INLINE void NAME(store)(real *p, vr a) { *(vr *)p = a; }
#ifdef FR_SINGLE
FR_INLINE vf NAME(as_vf)(vr a) {
    vf b;
    memcpy(&b, &a, sizeof b);
    return b;
}
FR_INLINE vr NAME(of_vf)(vf a) {
    vr b;
    memcpy(&b, &a, sizeof b);
    return b;
}
FR_INLINE vr NAME(load_n)(const real *p, int n) { return NAME(of_vf)(vf_load_n(p, n)); }
FR_INLINE void NAME(store_n)(real *p, vr a, int n) { vf_store_n(p, NAME(as_vf)(a), n); }
FR_INLINE vr NAME(tanh)(vr a) { return NAME(of_vf)(vf_tanh(NAME(as_vf)(a))); }
FR_INLINE vr NAME(sigmoid)(vr a) { return (real)0.5 * NAME(tanh)((real)0.5 * a) + (real)0.5; }
FR_INLINE vr NAME(exp)(vr a) { return NAME(of_vf)(vf_exp(NAME(as_vf)(a))); }
FR_INLINE vr NAME(sqrt)(vr a) { return NAME(of_vf)(vf_sqrt(NAME(as_vf)(a))); }
FR_INLINE vr NAME(log1p)(vr a) { return NAME(of_vf)(vf_log1p_unit(NAME(as_vf)(a))); }
#else
FR_INLINE vr NAME(load_n)(const real *p, int n) {
    vr a = {0};
    for (int k = 0; k < n; k++) a[k] = p[k];
    return a;
}
FR_INLINE void NAME(store_n)(real *p, vr a, int n) {
    for (int k = 0; k < n; k++) p[k] = a[k];
}
FR_INLINE vr NAME(tanh)(vr a) { /* the C library's: double is for exactness */
    for (int k = 0; k < LANES_R; k++) a[k] = tanh(a[k]);
    return a;
}
FR_INLINE vr NAME(sigmoid)(vr a) { /* right to a few ulp where it nears 0 too, unlike the tanh of a half */
    for (int k = 0; k < LANES_R; k++) a[k] = 1 / (1 + exp(-a[k]));
    return a;
}
FR_INLINE vr NAME(exp)(vr a) {
    for (int k = 0; k < LANES_R; k++) a[k] = exp(a[k]);
    return a;
}
FR_INLINE vr NAME(sqrt)(vr a) {
    for (int k = 0; k < LANES_R; k++) a[k] = sqrt(a[k]);
    return a;
}
FR_INLINE vr NAME(log1p)(vr a) {
    for (int k = 0; k < LANES_R; k++) a[k] = log1p(a[k]);
    return a;
}
#endif
/* n is LANES_R but for a row's last vector. */
FR_INLINE vr NAME(get)(const real *p, int n) { return n == LANES_R ? NAME(load)(p) : NAME(load_n)(p, n); }
FR_INLINE void NAME(put)(real *p, vr a, int n) {
    if (n == LANES_R) NAME(store)(p, a);
    else NAME(store_n)(p, a, n);
}
/* b where a is positive or NaN, else 0. */
FR_INLINE vr NAME(where_positive)(vr a, vr b) {
    const vr zero = {0};
    return (vr)(~(a <= zero) & (__typeof__(a <= zero))b);
}
#define get NAME(get)
#define put NAME(put)
