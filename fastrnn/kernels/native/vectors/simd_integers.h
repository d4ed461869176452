/* Vectors of integers, for products over small weights: beside simd.h the only file in which vectors are written for an instruction set.
 *
 * vi is LANES int32. Sums of products of integers are exact, so every way to them gives the same bits; which there are:
 *   vi_dot(acc, x, w)     acc[lane] += x[4 lane] w[4 lane] + ... + x[4 lane + 3] w[4 lane + 3] over bytes; on x86 x is unsigned (FR_DOT_UNSIGNED), and the
 *                         processor must have it (VNNI, AVX-VNNI)
 *   vi_dot_signed         the same with x signed, by |x| and the sign of x on w: pairs stay below 2 * 127 * 127 < 2^15 (x86 without it: FR_PAIRS)
 *   vi_words_low, _high   the weights of the lower and upper lanes, widened to int16; vi_pairs(acc, w, x) adds products of pairs of them, vi_join puts
 *                         both halves' sums together
 * vf_low_half and vf_high_half are the even and the odd of the bfloat16 numbers in a vector. */
#ifndef FASTRNN_SIMD_INTEGERS_H
#define FASTRNN_SIMD_INTEGERS_H
#include "simd.h"

#if defined(FR_AVX512)
#define FR_PAIRS 1
#define FR_DOT_UNSIGNED 1
typedef __m512i vi;
FR_INLINE vi vi_zero(void) { return _mm512_setzero_si512(); }
FR_INLINE vi vi_set1(int32_t a) { return _mm512_set1_epi32(a); }
FR_INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
FR_INLINE void vi_store(void *p, vi a) { _mm512_storeu_si512(p, a); }
FR_INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
FR_INLINE vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
FR_INLINE vi vi_multiply(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
FR_INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
FR_INLINE vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
FR_INLINE vi vi_up(vi a, int n) { return _mm512_slli_epi32(a, n); }
FR_INLINE vi vi_down(vi a, int n) { return _mm512_srai_epi32(a, n); }
FR_INLINE vi vi_round(vf a) { return _mm512_cvtps_epi32(a); }
FR_INLINE vi vi_bits(vf a) { return _mm512_castps_si512(a); }
FR_INLINE vf vf_of(vi a) { return _mm512_cvtepi32_ps(a); }
FR_INLINE vf vf_bits(vi a) { return _mm512_castsi512_ps(a); }
FR_INLINE int32_t vi_largest(vi a) { return _mm512_reduce_max_epi32(a); }
FR_INLINE void vi_store_bytes(void *p, vi a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a)); }
FR_INLINE void vi_store_words(void *p, vi a) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(a)); }
FR_INLINE vi vi_of_uint8_t(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
FR_INLINE vi vi_of_int8_t(const int8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
FR_INLINE vi vi_dot(vi acc, vi x, vi w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
    return acc;
}
FR_INLINE vi vi_abs_bytes(vi a) { return _mm512_abs_epi8(a); }
FR_INLINE vi vi_dot_signed(vi acc, vi size, vi x, vi w) {
    const vi turned = _mm512_mask_sub_epi8(w, _mm512_movepi8_mask(x), _mm512_setzero_si512(), w);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(size, turned), _mm512_set1_epi16(1)));
}
FR_INLINE vi vi_words_low(const int8_t *w) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)w)); }
FR_INLINE vi vi_words_high(const int8_t *w) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(w + 32))); }
FR_INLINE vi vi_four_words(const int16_t *x) {
    int64_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi64(four);
}
FR_INLINE vi vi_pairs(vi acc, vi w, vi x) { return _mm512_add_epi32(acc, _mm512_madd_epi16(w, x)); }
FR_INLINE vi vi_join(vi low, vi high) {
    const vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_permutex2var_epi32(low, even, high), _mm512_permutex2var_epi32(low, odd, high));
}

#elif defined(FR_AVX2)
#define FR_PAIRS 1
#define FR_DOT_UNSIGNED 1
typedef __m256i vi;
FR_INLINE vi vi_zero(void) { return _mm256_setzero_si256(); }
FR_INLINE vi vi_set1(int32_t a) { return _mm256_set1_epi32(a); }
FR_INLINE vi vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
FR_INLINE void vi_store(void *p, vi a) { _mm256_storeu_si256((__m256i *)p, a); }
FR_INLINE vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
FR_INLINE vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
FR_INLINE vi vi_multiply(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
FR_INLINE vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
FR_INLINE vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
FR_INLINE vi vi_up(vi a, int n) { return _mm256_slli_epi32(a, n); }
FR_INLINE vi vi_down(vi a, int n) { return _mm256_srai_epi32(a, n); }
FR_INLINE vi vi_round(vf a) { return _mm256_cvtps_epi32(a); }
FR_INLINE vi vi_bits(vf a) { return _mm256_castps_si256(a); }
FR_INLINE vf vf_of(vi a) { return _mm256_cvtepi32_ps(a); }
FR_INLINE vf vf_bits(vi a) { return _mm256_castsi256_ps(a); }
FR_INLINE int32_t vi_largest(vi a) {
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
FR_INLINE __m128i fr_words(vi a) { return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)); }
FR_INLINE void vi_store_words(void *p, vi a) { _mm_storeu_si128((__m128i *)p, fr_words(a)); }
FR_INLINE vi vi_of_uint8_t(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
FR_INLINE vi vi_of_int8_t(const int8_t *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
FR_INLINE void vi_store_bytes(void *p, vi a) { /* the low bytes: packing would saturate those above 127 */
    const __m128i words = fr_words(_mm256_and_si256(a, _mm256_set1_epi32(255)));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
FR_INLINE vi vi_dot(vi acc, vi x, vi w) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(x), "x"(w));
    return acc;
}
FR_INLINE vi vi_abs_bytes(vi a) { return _mm256_abs_epi8(a); }
FR_INLINE vi vi_dot_signed(vi acc, vi size, vi x, vi w) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(size, _mm256_sign_epi8(w, x)), _mm256_set1_epi16(1)));
}
FR_INLINE vi vi_words_low(const int8_t *w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w)); }
FR_INLINE vi vi_words_high(const int8_t *w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + 16))); }
FR_INLINE vi vi_four_words(const int16_t *x) {
    int64_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi64x(four);
}
FR_INLINE vi vi_pairs(vi acc, vi w, vi x) { return _mm256_add_epi32(acc, _mm256_madd_epi16(w, x)); }
FR_INLINE vi vi_join(vi low, vi high) { return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8); }

#elif defined(FR_NEON)
#define FR_PAIRS 0
#define FR_DOT_UNSIGNED 0
typedef struct {
    int32x4_t a, b;
} vi;
#define FR_NEON2I(name, op) \
    FR_INLINE vi name(vi x, vi y) { return (vi){op(x.a, y.a), op(x.b, y.b)}; }
FR_NEON2I(vi_add, vaddq_s32)
FR_NEON2I(vi_sub, vsubq_s32)
FR_NEON2I(vi_multiply, vmulq_s32)
FR_NEON2I(vi_and, vandq_s32)
FR_NEON2I(vi_max, vmaxq_s32)
FR_INLINE vi vi_set1(int32_t x) { return (vi){vdupq_n_s32(x), vdupq_n_s32(x)}; }
FR_INLINE vi vi_zero(void) { return vi_set1(0); }
FR_INLINE vi vi_load(const void *p) { return (vi){vld1q_s32((const int32_t *)p), vld1q_s32((const int32_t *)p + 4)}; }
FR_INLINE void vi_store(void *p, vi x) {
    vst1q_s32((int32_t *)p, x.a);
    vst1q_s32((int32_t *)p + 4, x.b);
}
FR_INLINE vi vi_up(vi x, int n) { return (vi){vshlq_s32(x.a, vdupq_n_s32(n)), vshlq_s32(x.b, vdupq_n_s32(n))}; }
FR_INLINE vi vi_down(vi x, int n) { return vi_up(x, -n); }
FR_INLINE vi vi_round(vf x) { return (vi){vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b)}; }
FR_INLINE vi vi_bits(vf x) { return (vi){vreinterpretq_s32_f32(x.a), vreinterpretq_s32_f32(x.b)}; }
FR_INLINE vf vf_of(vi x) { return (vf){vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b)}; }
FR_INLINE vf vf_bits(vi x) { return (vf){vreinterpretq_f32_s32(x.a), vreinterpretq_f32_s32(x.b)}; }
FR_INLINE int32_t vi_largest(vi x) { return vmaxvq_s32(vmaxq_s32(x.a, x.b)); }
FR_INLINE int16x8_t fr_words(vi x) { return vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b)); }
FR_INLINE void vi_store_bytes(void *p, vi x) { vst1_s8((int8_t *)p, vmovn_s16(fr_words(x))); }
FR_INLINE vi vi_of_uint8_t(const uint8_t *p) {
    const int16x8_t words = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(p)));
    return (vi){vmovl_s16(vget_low_s16(words)), vmovl_high_s16(words)};
}
FR_INLINE vi vi_of_int8_t(const int8_t *p) {
    const int16x8_t words = vmovl_s8(vld1_s8(p));
    return (vi){vmovl_s16(vget_low_s16(words)), vmovl_high_s16(words)};
}
FR_INLINE int32x4_t fr_dot4(int32x4_t acc, int8x16_t x, int8x16_t w) {
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(acc, x, w);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(w))), high = vpaddlq_s16(vmull_high_s8(x, w));
    return vaddq_s32(acc, vpaddq_s32(low, high));
#endif
}
FR_INLINE vi vi_dot(vi acc, vi x, vi w) {
    return (vi){fr_dot4(acc.a, vreinterpretq_s8_s32(x.a), vreinterpretq_s8_s32(w.a)),
                fr_dot4(acc.b, vreinterpretq_s8_s32(x.b), vreinterpretq_s8_s32(w.b))};
}

#else
#define FR_PAIRS 0
#define FR_DOT_UNSIGNED 0
typedef struct {
    int32_t i[LANES];
} vi;
#define FR_EACH_I(expression) \
    vi r; \
    for (int l = 0; l < LANES; l++) r.i[l] = (expression); \
    return r
FR_INLINE vi vi_zero(void) { FR_EACH_I(0); }
FR_INLINE vi vi_set1(int32_t a) { FR_EACH_I(a); }
FR_INLINE vi vi_load(const void *p) {
    vi r;
    memcpy(r.i, p, sizeof r.i);
    return r;
}
FR_INLINE void vi_store(void *p, vi a) { memcpy(p, a.i, sizeof a.i); }
FR_INLINE vi vi_add(vi a, vi b) { FR_EACH_I(a.i[l] + b.i[l]); }
FR_INLINE vi vi_sub(vi a, vi b) { FR_EACH_I(a.i[l] - b.i[l]); }
FR_INLINE vi vi_multiply(vi a, vi b) { FR_EACH_I((int32_t)((uint32_t)a.i[l] * (uint32_t)b.i[l])); }
FR_INLINE vi vi_and(vi a, vi b) { FR_EACH_I(a.i[l] & b.i[l]); }
FR_INLINE vi vi_max(vi a, vi b) { FR_EACH_I(a.i[l] > b.i[l] ? a.i[l] : b.i[l]); }
FR_INLINE vi vi_up(vi a, int n) { FR_EACH_I((int32_t)((uint32_t)a.i[l] << n)); }
FR_INLINE vi vi_down(vi a, int n) { FR_EACH_I(a.i[l] >> n); }
/* what has no integer is not used: its row's scale is NaN */
FR_INLINE vi vi_round(vf a) { FR_EACH_I(fabsf(a.f[l]) < 1e9f ? (int32_t)rintf(a.f[l]) : 0); }
FR_INLINE vi vi_bits(vf a) {
    vi r;
    memcpy(r.i, a.f, sizeof r.i);
    return r;
}
FR_INLINE vf vf_of(vi a) { FR_EACH((float)a.i[l]); }
FR_INLINE vf vf_bits(vi a) {
    vf r;
    memcpy(r.f, a.i, sizeof r.f);
    return r;
}
FR_INLINE int32_t vi_largest(vi a) {
    int32_t most = a.i[0];
    for (int l = 1; l < LANES; l++) most = a.i[l] > most ? a.i[l] : most;
    return most;
}
FR_INLINE vi vi_of_uint8_t(const uint8_t *p) { FR_EACH_I(p[l]); }
FR_INLINE vi vi_of_int8_t(const int8_t *p) { FR_EACH_I(p[l]); }
FR_INLINE void vi_store_bytes(void *p, vi a) {
    for (int l = 0; l < LANES; l++) ((int8_t *)p)[l] = (int8_t)a.i[l];
}
FR_INLINE vi vi_dot(vi acc, vi x, vi w) {
    int8_t from[4 * LANES], by[4 * LANES];
    memcpy(from, x.i, sizeof from);
    memcpy(by, w.i, sizeof by);
    for (int l = 0; l < 4 * LANES; l++) acc.i[l / 4] += from[l] * by[l];
    return acc;
}
#endif

FR_INLINE vi vi_of_int32_t(const int32_t *p) { return vi_load(p); }
#ifdef FR_AVX2 /* not by a shift: those go where products go, and this does not (bfloat16: two FMAs for each) */
FR_INLINE vf vf_low_half(vi a) {
    const __m128i moved = _mm_setr_epi32(0x01008080, 0x05048080, 0x09088080, 0x0d0c8080); /* bytes 0 and 1 of each four, behind two zeros */
    return vf_bits(_mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(moved)));
}
#else
FR_INLINE vf vf_low_half(vi a) { return vf_bits(vi_up(a, 16)); }
#endif
FR_INLINE vf vf_high_half(vi a) { return vf_bits(vi_and(a, vi_set1((int32_t)0xffff0000))); }
#endif
