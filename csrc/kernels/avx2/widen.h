// Codes, scales and outputs of a packed panel as AVX2 registers of 8 lanes each: "half" 0 or 1 of its 16.
#pragma once

#include <immintrin.h>

#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

static inline __m256i load_bytes(const uint8_t* at) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
}

static inline void store_bytes(uint8_t* at, __m256i bytes) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(at), bytes);
}

// The low (digit 0) or high (digit 1) 4 bits of each byte.
static inline __m256i nibble(__m256i bytes, int digit) {
    return _mm256_and_si256(digit == 0 ? bytes : _mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
}

// Vector j of a group of codes below 8 bits. `group` is the group's first byte plus 32 * half.
template <int Bits>
static inline __attribute__((always_inline)) __m256i load_codes(const uint8_t* group, int j) {
    const __m256i low = nibble(load_bytes(group + j / 2 * 64), j % 2);
    if constexpr (Bits > 4) {
        // Bit 4, or bits 4 and 5, moved to their place; shifts of 16 bits do, as the mask drops the rest.
        constexpr int kHighBits = Bits - 4;
        constexpr int kPerVector = 8 / kHighBits;
        const __m256i packed = load_bytes(group + 256 + j / kPerVector * 64);
        const int shift = j % kPerVector * kHighBits;
        const __m256i moved =
            shift <= 4 ? _mm256_slli_epi16(packed, 4 - shift) : _mm256_srli_epi16(packed, shift - 4);
        return _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(((1 << kHighBits) - 1) << 4)));
    }
    return low;
}

static inline __m256 load_half(const uint8_t* at) {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(at)));
}

static inline __m256 load_integers(const uint8_t* at, bool is_signed) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    return _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
}

// Scales of 8 lanes in one group. `second` is the minimum, or the scale of q6k's upper half.
struct GroupScales {
    __m256 first;
    __m256 second;
};

template <WeightFormat F>
static inline __attribute__((always_inline)) GroupScales load_scales(const uint8_t* panel,
                                                                     const PanelLayout& layout, int64_t group,
                                                                     int half) {
    constexpr FormatTraits traits = traits_of(F);
    const uint8_t* scales = panel + layout.scales_at + group * traits.scale_bytes;
    if constexpr (!traits.has_supers) {
        scales += 16 * half;
        return {load_half(scales), traits.has_min ? load_half(scales + 32) : _mm256_setzero_ps()};
    } else {
        const uint8_t* supers = panel + layout.supers_at + group / 8 * traits.super_bytes + 16 * half;
        const __m256 d = load_half(supers);
        scales += 8 * half;
        if constexpr (F == WeightFormat::q6k) {
            return {_mm256_mul_ps(d, load_integers(scales, true)),
                    _mm256_mul_ps(d, load_integers(scales + 16, true))};
        } else {
            const __m256 min = _mm256_mul_ps(load_half(supers + 32), load_integers(scales + 16, false));
            return {_mm256_mul_ps(d, load_integers(scales, false)),
                    _mm256_xor_ps(min, _mm256_set1_ps(-0.0f))};
        }
    }
}

// The first `lanes` of a panel's 16 outputs; all where there are more.
static inline __attribute__((always_inline)) void store_panel(int64_t lanes, const __m256 (&values)[2],
                                                              float* y) {
    for (int h = 0; h < 2; ++h, lanes -= 8) {
        if (lanes >= 8) {
            _mm256_storeu_ps(y + 8 * h, values[h]);
        } else {
            const __m256i first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_maskstore_ps(
                y + 8 * h, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(lanes)), first), values[h]);
        }
    }
}

}  // namespace temper::TEMPER_ISA
