/* Elementwise operations on pieces of memory, and programs of them: what chain.h and the epilogue of dense.h run.
 *
 * A program is a list of instructions over numbered values, each a piece of n floats; a bool is 0 or 1. fastrnn/kernels/contract.py
 * lists the operations in this order. Fused or alone, an operation is the same code, so its bits are the same. */
#ifndef FASTRNN_OPERATIONS_H
#define FASTRNN_OPERATIONS_H
#include "functions.h"

typedef struct {
    int64_t operation, to, a, b, c; /* values by number */
    fr_activation act;              /* of map; alpha and beta serve others as constants */
} fr_instruction;

/* Subnormals become zero in a product: minimum, maximum and select pass them on or not as the instruction set likes. `unit` is a 1
 * that the compiler does not know, or it would leave the product out. */
#define FR_UNIT(unit) \
    float unit##_ = 1.0f; \
    __asm__("" : "+m"(unit##_)); \
    const vf unit = vf_set1(unit##_)
#define FLUSH(v) vf_mul(v, unit)
#define TRUTH(mask) vf_select(mask, vf_set1(1.0f), vf_zero())
#define NEITHER(mask, mask2) vf_select(mask, vf_zero(), vf_select(mask2, vf_zero(), vf_set1(1.0f)))
/* The operand that is NaN, or what `choice` makes of flushed u and v. */
FR_INLINE vf vf_either(vf u, vf v, vf choice) { return vf_select(vf_eq(u, u), choice, u); }
FR_INLINE vf vf_floor(vf x) {
    vf r = vf_round(x);
    return vf_select(vf_lt(x, r), vf_sub(r, vf_set1(1.0f)), r);
}
FR_INLINE vf vf_sign(vf x) {
    vf zero = vf_zero(), one = vf_set1(1.0f);
    return vf_select(vf_lt(zero, x), one, vf_select(vf_lt(x, zero), vf_sub(zero, one), vf_select(vf_eq(x, zero), zero, x)));
}
FR_INLINE vf vf_fmod(vf a, vf b) {
    float u[LANES], v[LANES];
    vf_store(u, a), vf_store(v, b);
    for (int l = 0; l < LANES; l++) u[l] = fmodf(u[l], v[l]);
    return vf_load(u);
}

/* name, how many values it reads, the result of a, b and c; s is the instruction. A standalone sigmoid is right to a few ulp where it
 * nears 0, as what a network gives should be; gates take vf_sigmoid, which is absolute. */
#define FR_OPERATIONS(X) \
    X(map, 1, vf_activate(&s->act, FLUSH(a))) \
    X(sigmoid, 1, vf_logistic(a)) \
    X(relu, 1, vf_relu(FLUSH(a))) \
    X(plus, 1, vf_add(a, vf_set1(s->act.alpha))) \
    X(times, 1, vf_mul(a, vf_set1(s->act.alpha))) \
    X(clip, 1, vf_max(vf_set1(s->act.alpha), vf_min(vf_set1(s->act.beta), FLUSH(a)))) \
    X(sqrt, 1, vf_sqrt(a)) \
    X(abs, 1, vf_abs(FLUSH(a))) \
    X(sign, 1, vf_sign(FLUSH(a))) \
    X(floor, 1, vf_floor(FLUSH(a))) \
    X(ceil, 1, vf_mul(vf_set1(-1.0f), vf_floor(vf_mul(vf_set1(-1.0f), FLUSH(a))))) \
    X(round, 1, vf_round(FLUSH(a))) \
    X(erf, 1, vf_erf(a)) \
    X(log, 1, vf_log(FLUSH(a))) \
    X(sin, 1, vf_sine(FLUSH(a), 0)) \
    X(cos, 1, vf_sine(FLUSH(a), 1)) \
    X(reciprocal, 1, vf_div(vf_set1(1.0f), a)) \
    X(quotient, 1, vf_div(a, vf_set1(s->act.alpha))) \
    X(not, 1, vf_sub(vf_set1(1.0f), a)) \
    X(nonzero, 1, NEITHER(vf_eq(a, vf_zero()), vf_eq(a, vf_zero()))) \
    X(hard_swish, 1, vf_mul(vf_mul(a, vf_max(vf_zero(), vf_min(vf_set1(6.0f), FLUSH(vf_add(a, vf_set1(3.0f)))))), vf_set1(s->act.alpha))) \
    X(add, 2, vf_add(a, b)) \
    X(sub, 2, vf_sub(a, b)) \
    X(mul, 2, vf_mul(a, b)) \
    X(div, 2, vf_div(a, b)) \
    X(prelu, 2, vf_select(vf_lt(a, vf_zero()), vf_mul(b, a), a)) \
    X(power, 2, vf_power(FLUSH(a), FLUSH(b))) \
    X(fmod, 2, vf_fmod(FLUSH(a), FLUSH(b))) \
    X(min, 2, vf_either(a, b, vf_min(FLUSH(a), FLUSH(b)))) \
    X(max, 2, vf_either(a, b, vf_max(FLUSH(a), FLUSH(b)))) \
    X(at_least, 2, vf_max(FLUSH(b), FLUSH(a))) \
    X(at_most, 2, vf_min(FLUSH(b), FLUSH(a))) \
    X(equal, 2, TRUTH(vf_eq(a, b))) \
    X(less, 2, TRUTH(vf_lt(a, b))) \
    X(less_or_equal, 2, vf_add(TRUTH(vf_lt(a, b)), TRUTH(vf_eq(a, b)))) \
    X(greater, 2, TRUTH(vf_lt(b, a))) \
    X(greater_or_equal, 2, vf_add(TRUTH(vf_lt(b, a)), TRUTH(vf_eq(a, b)))) \
    X(and, 2, vf_mul(a, b)) \
    X(or, 2, vf_max(a, b)) \
    X(xor, 2, NEITHER(vf_eq(a, b), vf_eq(a, b))) \
    X(where, 3, vf_select(vf_lt(vf_zero(), a), b, c))

typedef void (*fr_operation)(const fr_instruction *s, float *to, const float *pa, const float *pb, const float *pc, int64_t n);

/* to = the operation over n floats of each value it reads; to may be one of them. */
#define FR_STEP(name, READS, EXPRESSION) \
    static void step_##name(const fr_instruction *s, float *to, const float *pa, const float *pb, const float *pc, int64_t n) { \
        FR_UNIT(unit); \
        (void)s, (void)pb, (void)pc, (void)unit; \
        int64_t k = 0; \
        for (; k + LANES <= n; k += LANES) { \
            const vf a = vf_load(pa + k), b = READS > 1 ? vf_load(pb + k) : a, c = READS > 2 ? vf_load(pc + k) : a; \
            (void)b, (void)c; \
            vf_store(to + k, EXPRESSION); \
        } \
        if (k < n) { \
            const int left = (int)(n - k); \
            const vf a = vf_load_n(pa + k, left), b = READS > 1 ? vf_load_n(pb + k, left) : a, c = READS > 2 ? vf_load_n(pc + k, left) : a; \
            (void)b, (void)c; \
            vf_store_n(to + k, EXPRESSION, left); \
        } \
    }
FR_OPERATIONS(FR_STEP)
#define FR_ENTRY(name, READS, EXPRESSION) step_##name,
static const fr_operation fr_operations[] = {FR_OPERATIONS(FR_ENTRY)};

#define FR_VALUES 24 /* most operands and results of a program */

/* Runs a program over pieces of n floats. */
FR_INLINE void fr_execute(const fr_instruction *s, int64_t count, float *const *value, int64_t n) {
    for (const fr_instruction *end = s + count; s < end; s++) fr_operations[s->operation](s, value[s->to], value[s->a], value[s->b], value[s->c], n);
}
#endif
