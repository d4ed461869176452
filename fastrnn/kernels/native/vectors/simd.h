/* The vector vocabulary, and the only file in which vectors are written for an instruction set.
 *
 * vf is a vector of LANES floats, vm a mask. The build defines one of FR_AVX512, FR_AVX2, FR_NEON or
 * FR_BASELINE; TILE_ROWS is the most batch rows a register tile holds with that many registers,
 * AHEAD_ROWS how many rows' projections go beside the steps of one (ahead.h).
 * Every operation rounds as IEEE 754 says, so all instruction sets give the same bits:
 *   vf_high(a) has a's upper half below, anything above.
 *   vf_zip_low(a, b) is a0 b0 a1 b1 ..., from the lower halves; vf_zip_high(a, b) goes on with the upper ones.
 *   vf_pow2_of(t) is 2^n of t = FR_POW2 + n, n in -127..127: its lowest bits moved up; 2^-127 is 0.
 *   vf_min(a, b) is a < b ? a : b and vf_max(a, b) is a > b ? a : b, so a NaN in b comes through.
 * Stores of less than a vector go in power-of-two pieces: masked stores are slow on Zen 4 and do not
 * forward to the scalar loads that the next time step makes of them. */
#ifndef FASTRNN_SIMD_H
#define FASTRNN_SIMD_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#define FR_POW2 (0x1.8p23f + 127.0f)
#define FR_OWN_FUNCTION __attribute__((noinline))
/* Tiles must be inlined and unrolled for their accumulators to live in registers; portable code has no such registers. */
#ifdef FR_BASELINE
#define FR_INLINE static inline
#define UNROLL
#define UNROLL_STEPS
#define FAR_SINGLY /* tiles over far weights are of one vector: few to compile */
#else
#define FR_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
/* A loop over k, four at a time: instructions that count and compare take room beside the multiplications. Eight at a time are no faster, and an eighth more code. Not where every access is checked, which would
 * take ten minutes to compile. */
#ifdef __SANITIZE_ADDRESS__
#define UNROLL_STEPS
#else
#define UNROLL_STEPS _Pragma("GCC unroll 4")
#endif
#endif

/* Says that a pointer, a vector, is to be had in a register from here on, whatever else the compiler could make of it. */
#define IN_REGISTER(p) __asm__("" : "+r"(p))
#if defined(FR_AVX512) || defined(FR_AVX2)
#define VF_IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define VF_IN_REGISTER(v) ((void)(v))
#endif

#if defined(FR_AVX512)
#include <immintrin.h>
#define LANES 16
#define TILE_ROWS 6
#define AHEAD_ROWS 8
#define V_MOST 8
#define ROWS_MOST 6
#define HEIGHT 6
#define FAR_HEIGHT 14 /* rows of the first tile over far weights (product_far.h), the tallest */
#define FR_MANY 7     /* rows from which on products come first */
#define ROWS_WIDEST {0, 8, 8, 8, 6, 5, 4}
#define ROWS_WIDEST_OF_TWO {0, 8, 6, 4}
#define ROWS_1 UP_TO_8
#define ROWS_2 UP_TO_8
#define ROWS_3 UP_TO_8
#define ROWS_4 UP_TO_6
#define ROWS_5 UP_TO_5
#define ROWS_6 UP_TO_4
#define ROWS_FAR UP_TO_2 /* of more than ROWS_MOST */
typedef __m512 vf;
typedef __mmask16 vm;
FR_INLINE vf vf_set1(float a) { return _mm512_set1_ps(a); }
FR_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
FR_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
FR_INLINE vf vf_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
FR_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
FR_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
FR_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
FR_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
FR_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
FR_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
FR_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
FR_INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
FR_INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
FR_INLINE vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
FR_INLINE vf vf_pow2(vf n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23)); }
FR_INLINE vf vf_pow2_of(vf t) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23)); }
FR_INLINE vf vf_zip_low(vf a, vf b) {
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b);
}
FR_INLINE vf vf_zip_high(vf a, vf b) {
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b);
}
FR_INLINE vf vf_high(vf a) { return _mm512_castps256_ps512(_mm512_extractf32x8_ps(a, 1)); }
FR_INLINE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
FR_INLINE vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
FR_INLINE vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
FR_INLINE void vf_store_n(float *p, vf a, int n) {
    __m256 low = _mm512_castps512_ps256(a);
    if (n & 8) {
        _mm256_storeu_ps(p, low);
        p += 8;
        low = _mm512_extractf32x8_ps(a, 1);
    }
    __m128 part = _mm256_castps256_ps128(low);
    if (n & 4) {
        _mm_storeu_ps(p, part);
        p += 4;
        part = _mm256_extractf128_ps(low, 1);
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, part);
        p += 2;
        part = _mm_movehl_ps(part, part);
    }
    if (n & 1) _mm_store_ss(p, part);
}

#elif defined(FR_AVX2)
#include <immintrin.h>
#define LANES 8
#define TILE_ROWS 3
#define AHEAD_ROWS 4
typedef __m256 vf;
typedef __m256 vm;
FR_INLINE vf vf_set1(float a) { return _mm256_set1_ps(a); }
FR_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
FR_INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
FR_INLINE vf vf_load_n(const float *p, int n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
}
FR_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
FR_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
FR_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
FR_INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
FR_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
FR_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
FR_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
FR_INLINE vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
FR_INLINE vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
FR_INLINE vf vf_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
FR_INLINE vf vf_pow2(vf n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)); }
FR_INLINE vf vf_pow2_of(vf t) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23)); }
FR_INLINE vf vf_zip_low(vf a, vf b) { return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20); }
FR_INLINE vf vf_zip_high(vf a, vf b) { return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31); }
FR_INLINE vf vf_high(vf a) { return _mm256_castps128_ps256(_mm256_extractf128_ps(a, 1)); }
FR_INLINE vm vf_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
FR_INLINE vm vf_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
FR_INLINE vf vf_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
FR_INLINE void vf_store_n(float *p, vf a, int n) {
    __m128 part = _mm256_castps256_ps128(a);
    if (n & 4) {
        _mm_storeu_ps(p, part);
        p += 4;
        part = _mm256_extractf128_ps(a, 1);
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, part);
        p += 2;
        part = _mm_movehl_ps(part, part);
    }
    if (n & 1) _mm_store_ss(p, part);
}

#elif defined(FR_NEON)
#include <arm_neon.h>
#define LANES 8
#define TILE_ROWS 3
#define AHEAD_ROWS 4
typedef struct {
    float32x4_t a, b;
} vf;
typedef struct {
    uint32x4_t a, b;
} vm;
#define FR_NEON2(name, op) \
    FR_INLINE vf name(vf x, vf y) { return (vf){op(x.a, y.a), op(x.b, y.b)}; }
FR_NEON2(vf_add, vaddq_f32)
FR_NEON2(vf_sub, vsubq_f32)
FR_NEON2(vf_mul, vmulq_f32)
FR_NEON2(vf_div, vdivq_f32)
FR_INLINE vf vf_set1(float x) { return (vf){vdupq_n_f32(x), vdupq_n_f32(x)}; }
FR_INLINE vf vf_load(const float *p) { return (vf){vld1q_f32(p), vld1q_f32(p + 4)}; }
FR_INLINE void vf_store(float *p, vf x) {
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
}
FR_INLINE vf vf_load_n(const float *p, int n) {
    float whole[LANES] = {0};
    memcpy(whole, p, (size_t)n * sizeof(float));
    return vf_load(whole);
}
FR_INLINE void vf_store_n(float *p, vf x, int n) {
    float whole[LANES];
    vf_store(whole, x);
    memcpy(p, whole, (size_t)n * sizeof(float));
}
FR_INLINE vf vf_fma(vf x, vf y, vf z) { return (vf){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b)}; }
FR_INLINE vf vf_zip_low(vf x, vf y) { return (vf){vzip1q_f32(x.a, y.a), vzip2q_f32(x.a, y.a)}; }
FR_INLINE vf vf_zip_high(vf x, vf y) { return (vf){vzip1q_f32(x.b, y.b), vzip2q_f32(x.b, y.b)}; }
FR_INLINE vf vf_high(vf x) { return (vf){x.b, x.b}; }
FR_INLINE vm vf_lt(vf x, vf y) { return (vm){vcltq_f32(x.a, y.a), vcltq_f32(x.b, y.b)}; }
FR_INLINE vm vf_eq(vf x, vf y) { return (vm){vceqq_f32(x.a, y.a), vceqq_f32(x.b, y.b)}; }
FR_INLINE vf vf_select(vm m, vf x, vf y) { return (vf){vbslq_f32(m.a, x.a, y.a), vbslq_f32(m.b, x.b, y.b)}; }
FR_INLINE vf vf_min(vf x, vf y) { return vf_select(vf_lt(x, y), x, y); }
FR_INLINE vf vf_max(vf x, vf y) { return vf_select(vf_lt(y, x), x, y); }
FR_INLINE vf vf_abs(vf x) { return (vf){vabsq_f32(x.a), vabsq_f32(x.b)}; }
FR_INLINE vf vf_sqrt(vf x) { return (vf){vsqrtq_f32(x.a), vsqrtq_f32(x.b)}; }
FR_INLINE vf vf_round(vf x) { return (vf){vrndnq_f32(x.a), vrndnq_f32(x.b)}; }
FR_INLINE float32x4_t fr_pow2_half(float32x4_t n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23)); }
FR_INLINE vf vf_pow2(vf n) { return (vf){fr_pow2_half(n.a), fr_pow2_half(n.b)}; }
FR_INLINE float32x4_t fr_pow2_of_half(float32x4_t t) { return vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(t), 23)); }
FR_INLINE vf vf_pow2_of(vf t) { return (vf){fr_pow2_of_half(t.a), fr_pow2_of_half(t.b)}; }

#elif defined(FR_BASELINE)
/* Portable C: eight floats in an array. It promises bits, not speed. */
#define LANES 8
#define TILE_ROWS 2
#define AHEAD_ROWS 4
typedef struct {
    float f[LANES];
} vf;
typedef struct {
    uint32_t m[LANES];
} vm;
#define FR_EACH(expression) \
    vf r; \
    for (int l = 0; l < LANES; l++) r.f[l] = (expression); \
    return r
/* A correctly rounded float FMA without the instruction: the product is exact in double, the sum is
 * rounded to odd (Boldo and Melquiond 2008), and rounding that to float is then rounding only once. */
FR_INLINE float fr_fmaf(float a, float b, float c) {
    double p = (double)a * (double)b, s = p + (double)c, t = s - p;
    double error = (p - (s - t)) + ((double)c - t);
    int64_t bits;
    memcpy(&bits, &s, sizeof bits);
    if ((error > 0.0 || error < 0.0) && !(bits & 1)) bits += ((error > 0.0) == (s > 0.0)) ? 1 : -1;
    memcpy(&s, &bits, sizeof bits);
    return (float)s;
}
FR_INLINE vf vf_set1(float a) { FR_EACH(a); }
FR_INLINE vf vf_load_n(const float *p, int n) { FR_EACH(l < n ? p[l] : 0.0f); }
FR_INLINE vf vf_load(const float *p) { FR_EACH(p[l]); }
FR_INLINE void vf_store_n(float *p, vf a, int n) {
    for (int l = 0; l < n; l++) p[l] = a.f[l];
}
FR_INLINE void vf_store(float *p, vf a) { memcpy(p, a.f, sizeof a.f); }
FR_INLINE vf vf_add(vf a, vf b) { FR_EACH(a.f[l] + b.f[l]); }
FR_INLINE vf vf_sub(vf a, vf b) { FR_EACH(a.f[l] - b.f[l]); }
FR_INLINE vf vf_mul(vf a, vf b) { FR_EACH(a.f[l] * b.f[l]); }
FR_INLINE vf vf_div(vf a, vf b) { FR_EACH(a.f[l] / b.f[l]); }
FR_INLINE vf vf_fma(vf a, vf b, vf c) { FR_EACH(fr_fmaf(a.f[l], b.f[l], c.f[l])); }
FR_INLINE vf vf_min(vf a, vf b) { FR_EACH(a.f[l] < b.f[l] ? a.f[l] : b.f[l]); }
FR_INLINE vf vf_max(vf a, vf b) { FR_EACH(a.f[l] > b.f[l] ? a.f[l] : b.f[l]); }
FR_INLINE vf vf_abs(vf a) { FR_EACH(fabsf(a.f[l])); }
FR_INLINE vf vf_sqrt(vf a) { FR_EACH(sqrtf(a.f[l])); }
FR_INLINE vf vf_round(vf a) { FR_EACH(rintf(a.f[l])); }
FR_INLINE float fr_pow2f(float n) {
    int32_t bits = (int32_t)((uint32_t)((int32_t)n + 127) << 23);
    float r;
    memcpy(&r, &bits, sizeof r);
    return r;
}
/* a NaN has no integer; the product it goes into is NaN anyway */
FR_INLINE vf vf_pow2(vf n) { FR_EACH(n.f[l] == n.f[l] ? fr_pow2f(n.f[l]) : n.f[l]); }
FR_INLINE vf vf_pow2_of(vf t) {
    uint32_t bits[LANES];
    memcpy(bits, t.f, sizeof bits);
    for (int l = 0; l < LANES; l++) bits[l] <<= 23;
    memcpy(t.f, bits, sizeof bits);
    return t;
}
FR_INLINE vf vf_zip_low(vf a, vf b) { FR_EACH(l % 2 ? b.f[l / 2] : a.f[l / 2]); }
FR_INLINE vf vf_zip_high(vf a, vf b) { FR_EACH(l % 2 ? b.f[LANES / 2 + l / 2] : a.f[LANES / 2 + l / 2]); }
FR_INLINE vf vf_high(vf a) { FR_EACH(a.f[LANES / 2 + l % (LANES / 2)]); }
FR_INLINE vm vf_lt(vf a, vf b) {
    vm r;
    for (int l = 0; l < LANES; l++) r.m[l] = a.f[l] < b.f[l];
    return r;
}
FR_INLINE vm vf_eq(vf a, vf b) {
    vm r;
    for (int l = 0; l < LANES; l++) r.m[l] = a.f[l] == b.f[l];
    return r;
}
FR_INLINE vf vf_select(vm m, vf a, vf b) { FR_EACH(m.m[l] ? a.f[l] : b.f[l]); }

#else
#error "define one of FR_AVX512, FR_AVX2, FR_NEON, FR_BASELINE"
#endif

#ifndef V_MOST /* with sixteen registers; vectors of a product's tile, by its rows (product.h) */
#define V_MOST 8
#define ROWS_MOST 6
#define HEIGHT 4
#define FAR_HEIGHT 6
#define FR_MANY 2
#define ROWS_WIDEST {0, 8, 6, 4, 3, 2, 2}
#define ROWS_WIDEST_OF_TWO {0, 6, 3, 2}
#define ROWS_1 UP_TO_8
#define ROWS_2 UP_TO_6
#define ROWS_3 UP_TO_4
#define ROWS_4 UP_TO_3
#define ROWS_5 UP_TO_2
#define ROWS_6 UP_TO_2
#endif

FR_INLINE vf vf_zero(void) { return vf_set1(0.0f); }
FR_INLINE vf vf_load_tail(const float *p, int n) { return n == LANES ? vf_load(p) : vf_load_n(p, n); }
/* The first n lanes of a, `other` behind. */
FR_INLINE vf vf_first(vf a, int n, float other) {
    static const float lane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return n >= LANES ? a : vf_select(vf_lt(vf_load(lane), vf_set1((float)n)), a, vf_set1(other));
}
FR_INLINE void vf_store_tail(float *p, vf a, int n) {
    if (n == LANES) vf_store(p, a);
    else vf_store_n(p, a, n);
}
#endif
