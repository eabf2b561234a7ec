// 16 float lanes, whatever the ISA: one AVX-512 register, two AVX2 ones (avx2/pairs.h), or an array.
//
// Every function here rounds the same way on every ISA, so code written with it gives the same bits.
// It lives in the ISA's own namespace because the linker must not merge copies of different ISAs.
#pragma once

#include <cstdint>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#define TEMPER_INLINE static inline __attribute__((always_inline))
#define TEMPER_INLINE_MEMBER inline __attribute__((always_inline))

#if defined(__AVX2__) && !defined(__AVX512F__)
#include "kernels/avx2/pairs.h"
#endif

namespace temper::TEMPER_ISA {

#if !defined(__AVX2__) || defined(__AVX512F__)

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));

TEMPER_INLINE float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t magnitude = half & 0x7fff;
    uint32_t bits;
    float value;
    if (magnitude >= 0x7c00) {  // infinity, NaN
        bits = 0x7f800000u | (magnitude & 0x3ff) << 13;
    } else {  // also subnormals: scale a float whose exponent is 112 too low
        const uint32_t shifted = magnitude << 13;
        __builtin_memcpy(&value, &shifted, 4);
        value *= 0x1p112f;
        __builtin_memcpy(&bits, &value, 4);
    }
    bits |= sign;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

// Round half to even, as the hardware does.
TEMPER_INLINE uint16_t float_to_half(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (bits >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
    if (bits < 0x38800000) {  // subnormal: adding 0.5 aligns the last bit with the float's own rounding
        float value;
        __builtin_memcpy(&value, &bits, 4);
        value += 0.5f;
        __builtin_memcpy(&bits, &value, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);
    return static_cast<uint16_t>(sign | (bits - 0x38000000) >> 13);
}

// Not f32x16{} + x, which the compiler must compute for the sake of -0.
TEMPER_INLINE f32x16 splat(float x) { return f32x16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

TEMPER_INLINE f32x16 load16(const float* p) {
    f32x16 v;
    __builtin_memcpy(&v, p, 64);
    return v;
}

TEMPER_INLINE void store16(float* p, f32x16 v) { __builtin_memcpy(p, &v, 64); }

// a * b + c, rounded once.
TEMPER_INLINE f32x16 fma16(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    for (int i = 0; i < 16; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

TEMPER_INLINE f32x16 load16(const uint16_t* p) {
#if defined(__AVX512F__)
    // The masked form, because gcc 12 warns of the plain one.
    return (f32x16)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#else
    f32x16 v;
    for (int i = 0; i < 16; ++i) v[i] = half_to_float(p[i]);
    return v;
#endif
}

TEMPER_INLINE f32x16 choose(i32x16 where, f32x16 yes, f32x16 no) { return where ? yes : no; }

// Towards zero.
TEMPER_INLINE i32x16 to_integers(f32x16 v) { return __builtin_convertvector(v, i32x16); }

TEMPER_INLINE f32x16 same_bits(i32x16 v) { return (f32x16)v; }

// What one register holds, for loops that must count their registers: 16 lanes, or 8 with AVX2.
typedef f32x16 f32reg;
constexpr int kRegLanes = 16;

TEMPER_INLINE f32reg splat_reg(float x) { return splat(x); }
TEMPER_INLINE f32reg load_reg(const float* p) { return load16(p); }
TEMPER_INLINE f32reg load_reg(const uint16_t* p) { return load16(p); }
TEMPER_INLINE void store_reg(float* p, f32reg v) { store16(p, v); }
TEMPER_INLINE f32reg fma_reg(f32reg a, f32reg b, f32reg c) { return fma16(a, b, c); }
// 16 lanes from as many registers as they take.
TEMPER_INLINE f32x16 joined(const f32reg* regs) { return regs[0]; }

#endif

constexpr int kRegsOf16 = 16 / kRegLanes;

constexpr i32x16 kLaneIndex{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// The first `count` of 16 elements, zeros behind them; reads no further.
TEMPER_INLINE f32x16 load_part(const float* p, int64_t count) {
    float lanes[16] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
    return load16(lanes);
}

TEMPER_INLINE void store_part(float* p, f32x16 v, int64_t count) {
    float lanes[16];
    store16(lanes, v);
    for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

TEMPER_INLINE f32x16 load_part(const uint16_t* p, int64_t count) {
    uint16_t lanes[16] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
    return load16(lanes);
}

// Likewise of a register; more are not wanted than it holds.
template <class Number>
TEMPER_INLINE f32reg load_reg_part(const Number* p, int64_t count) {
    Number lanes[kRegLanes] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
    return load_reg(lanes);
}

TEMPER_INLINE void store_reg_part(float* p, f32reg v, int64_t count) {
    float lanes[kRegLanes];
    store_reg(lanes, v);
    for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

// The 16 lanes summed as a tree: halves, quarters, pairs.
TEMPER_INLINE float fold_sum(f32x16 v) {
    float lanes[16];
    store16(lanes, v);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    return lanes[0];
}

TEMPER_INLINE float fold_max(f32x16 v) {
    float lanes[16];
    store16(lanes, v);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
}

// e^x for x <= 88, two units in the last place; 0 below -87 and for NaN. No fused steps: numpy, which
// has none, writes the same (exp32 in sampling_reference.py).
//
// One result is a chain of twenty steps, longer than what a core looks ahead: N of them go step by step.
template <int N>
TEMPER_INLINE void exp16(f32x16 (&x)[N]) {
    i32x16 usable[N];
    f32x16 n[N], r[N], p[N];
    const auto each = [](auto step) __attribute__((always_inline)) {
        for (int i = 0; i < N; ++i) step(i);
    };
    each([&](int i) { usable[i] = x[i] >= splat(-87.0f); });
    each([&](int i) { x[i] = choose(usable[i], x[i], f32x16{}); });
    each([&](int i) { n[i] = (x[i] * 1.44269504f + 12582912.0f) - 12582912.0f; });
    each([&](int i) { r[i] = (x[i] - n[i] * 0.693359375f) - n[i] * -2.12194440e-4f; });
    each([&](int i) { p[i] = 1.9875691500e-4f * r[i] + 1.3981999507e-3f; });
    each([&](int i) { p[i] = p[i] * r[i] + 8.3334519073e-3f; });
    each([&](int i) { p[i] = p[i] * r[i] + 4.1665795894e-2f; });
    each([&](int i) { p[i] = p[i] * r[i] + 1.6666665459e-1f; });
    each([&](int i) { p[i] = p[i] * r[i] + 5.0000001201e-1f; });
    each([&](int i) { p[i] = (p[i] * (r[i] * r[i]) + r[i]) + 1.0f; });
    each([&](int i) { p[i] = p[i] * same_bits((to_integers(n[i]) + 127) << 23); });
    each([&](int i) { x[i] = choose(usable[i], p[i], f32x16{}); });
}

TEMPER_INLINE f32x16 exp16(f32x16 x) {
    f32x16 one[1] = {x};
    exp16(one);
    return one[0];
}

}  // namespace temper::TEMPER_ISA
