// What products of quantized weights share, with activations in 8 and in 16 bits.
#pragma once

#include <immintrin.h>
#include <string.h>

#include "kernels/kernel_set.h"

namespace temper::TEMPER_ISA {

// Keeps a sum where it stands. GCC 12 else computes all products of a group first, and spills most of them.
static inline __attribute__((always_inline)) void settle(__m256i& sum) { __asm__ volatile("" : "+x"(sum)); }

// acc = fma(float(dot + start * 2^Zero), scale_w * scale_x, acc); a negative Zero starts from nothing.
template <int Zero>
static inline __attribute__((always_inline)) __m256 add_dot(__m256i dot, int32_t start, __m256 weight_scale,
                                                            float scale, __m256 acc) {
    if constexpr (Zero >= 0) dot = _mm256_add_epi32(dot, _mm256_slli_epi32(_mm256_set1_epi32(start), Zero));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(weight_scale, _mm256_set1_ps(scale)), acc);
}

static inline int32_t sum_of(__m256i v) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

static inline float max_of(__m256 v) {
    __m128 top = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    top = _mm_max_ps(top, _mm_movehl_ps(top, top));
    return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
}

// A group of up to 32 activations in integers.
struct Rounded {
    __m256i codes[4];
    float scale;
    int32_t low_sum;  // of the first 16 codes
    int32_t sum;
};

// Codes of up to `Top` either way, half to even; zeros past `count`.
template <int Top>
static inline Rounded round_group(const float* values, int64_t count) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    alignas(32) float padded[kGroup] = {};
    if (count < kGroup) {
        memcpy(padded, values, static_cast<size_t>(count) * sizeof(float));
        values = padded;
    }
    __m256 parts[4];
    __m256 tops = _mm256_setzero_ps();
    for (int i = 0; i < 4; ++i) {
        parts[i] = _mm256_loadu_ps(values + 8 * i);
        tops = _mm256_max_ps(tops, _mm256_andnot_ps(sign, parts[i]));
    }
    const float top = max_of(tops);
    Rounded out;
    out.scale = top < 0x1p-100f ? 0.0f : top / static_cast<float>(Top);
    const __m256 inverse = _mm256_set1_ps(out.scale == 0.0f ? 0.0f : 1.0f / out.scale);
    for (int i = 0; i < 4; ++i) {
        out.codes[i] = _mm256_cvtps_epi32(
            _mm256_round_ps(_mm256_mul_ps(parts[i], inverse), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    out.low_sum = sum_of(_mm256_add_epi32(out.codes[0], out.codes[1]));
    out.sum = out.low_sum + sum_of(_mm256_add_epi32(out.codes[2], out.codes[3]));
    return out;
}

}  // namespace temper::TEMPER_ISA
