// 16 lanes as two registers of 8, for AVX2. lanes.h says what each function means.
//
// A vector type of 64 bytes would do without AVX-512 too, but GCC lowers it through memory, most of it
// lane by lane: attention ran at 1.3 GFlop/s a core with it and runs at 40 with these.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace temper::TEMPER_ISA {

typedef float f32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));

struct f32x16 {
    f32x8 low, high;
};

struct i32x16 {
    i32x8 low, high;
};

TEMPER_INLINE f32x16 splat(float x) {
    const f32x8 all = (f32x8)_mm256_set1_ps(x);
    return {all, all};
}

TEMPER_INLINE i32x16 splat(int32_t x) {
    const i32x8 all = (i32x8)_mm256_set1_epi32(x);
    return {all, all};
}

TEMPER_INLINE f32x16 load16(const float* p) {
    return {(f32x8)_mm256_loadu_ps(p), (f32x8)_mm256_loadu_ps(p + 8)};
}

TEMPER_INLINE f32x16 load16(const uint16_t* p) {
    const auto* at = reinterpret_cast<const __m128i*>(p);
    return {(f32x8)_mm256_cvtph_ps(_mm_loadu_si128(at)), (f32x8)_mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
}

TEMPER_INLINE void store16(float* p, f32x16 v) {
    _mm256_storeu_ps(p, (__m256)v.low);
    _mm256_storeu_ps(p + 8, (__m256)v.high);
}

TEMPER_INLINE f32x16 fma16(f32x16 a, f32x16 b, f32x16 c) {
    return {(f32x8)_mm256_fmadd_ps((__m256)a.low, (__m256)b.low, (__m256)c.low),
            (f32x8)_mm256_fmadd_ps((__m256)a.high, (__m256)b.high, (__m256)c.high)};
}

TEMPER_INLINE f32x16 operator+(f32x16 a, f32x16 b) { return {a.low + b.low, a.high + b.high}; }
TEMPER_INLINE f32x16 operator-(f32x16 a, f32x16 b) { return {a.low - b.low, a.high - b.high}; }
TEMPER_INLINE f32x16 operator*(f32x16 a, f32x16 b) { return {a.low * b.low, a.high * b.high}; }
TEMPER_INLINE f32x16 operator/(f32x16 a, f32x16 b) { return {a.low / b.low, a.high / b.high}; }
TEMPER_INLINE f32x16 operator+(f32x16 a, float b) { return a + splat(b); }
TEMPER_INLINE f32x16 operator+(float a, f32x16 b) { return splat(a) + b; }
TEMPER_INLINE f32x16 operator-(f32x16 a, float b) { return a - splat(b); }
TEMPER_INLINE f32x16 operator*(f32x16 a, float b) { return a * splat(b); }
TEMPER_INLINE f32x16 operator*(float a, f32x16 b) { return splat(a) * b; }
TEMPER_INLINE f32x16 operator-(f32x16 a) { return {-a.low, -a.high}; }

TEMPER_INLINE i32x16 operator+(i32x16 a, int32_t b) { return {a.low + b, a.high + b}; }
TEMPER_INLINE i32x16 operator<<(i32x16 a, int bits) { return {a.low << bits, a.high << bits}; }

// Comparisons give -1 where they hold and 0 elsewhere.
TEMPER_INLINE i32x16 operator>(f32x16 a, f32x16 b) { return {a.low > b.low, a.high > b.high}; }
TEMPER_INLINE i32x16 operator<(f32x16 a, f32x16 b) { return {a.low < b.low, a.high < b.high}; }
TEMPER_INLINE i32x16 operator>=(f32x16 a, f32x16 b) { return {a.low >= b.low, a.high >= b.high}; }
TEMPER_INLINE i32x16 operator>=(i32x16 a, int32_t b) { return {a.low >= b, a.high >= b}; }
TEMPER_INLINE i32x16 operator<(i32x16 a, int32_t b) { return {a.low < b, a.high < b}; }

TEMPER_INLINE f32x16 choose(i32x16 where, f32x16 yes, f32x16 no) {
    return {(f32x8)_mm256_blendv_ps((__m256)no.low, (__m256)yes.low, (__m256)where.low),
            (f32x8)_mm256_blendv_ps((__m256)no.high, (__m256)yes.high, (__m256)where.high)};
}

TEMPER_INLINE i32x16 to_integers(f32x16 v) {
    return {(i32x8)_mm256_cvttps_epi32((__m256)v.low), (i32x8)_mm256_cvttps_epi32((__m256)v.high)};
}

TEMPER_INLINE f32x16 same_bits(i32x16 v) { return {(f32x8)v.low, (f32x8)v.high}; }

typedef f32x8 f32reg;
constexpr int kRegLanes = 8;

TEMPER_INLINE f32reg splat_reg(float x) { return (f32reg)_mm256_set1_ps(x); }
TEMPER_INLINE f32reg load_reg(const float* p) { return (f32reg)_mm256_loadu_ps(p); }
TEMPER_INLINE f32reg load_reg(const uint16_t* p) {
    return (f32reg)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TEMPER_INLINE void store_reg(float* p, f32reg v) { _mm256_storeu_ps(p, (__m256)v); }
TEMPER_INLINE f32reg fma_reg(f32reg a, f32reg b, f32reg c) {
    return (f32reg)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
TEMPER_INLINE f32x16 joined(const f32reg* regs) { return {regs[0], regs[1]}; }

}  // namespace temper::TEMPER_ISA
