// Reading one group of a packed panel into AVX512 registers.
#pragma once

#include <immintrin.h>

#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

namespace {

// The 8 vectors of unsigned codes of one group.
template <int Bits>
inline __attribute__((always_inline)) void load_codes(const uint8_t* group, __m512i (&w)[8]) {
    if constexpr (Bits == 8) {
        for (int j = 0; j < 8; ++j) w[j] = _mm512_load_si512(group + 64 * j);
        return;
    }
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int v = 0; v < 4; ++v) {
        const __m512i both = _mm512_load_si512(group + 64 * v);
        w[2 * v] = _mm512_and_si512(both, nibble);
        w[2 * v + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
    constexpr int kOrAnd = 0xF8;  // a | (b & c)
    if constexpr (Bits == 5) {
        const __m512i high = _mm512_load_si512(group + 256);
        const __m512i bit = _mm512_set1_epi8(16);
        for (int j = 0; j < 8; ++j) {
            const __m512i moved = j <= 4 ? _mm512_slli_epi16(high, static_cast<unsigned>(j <= 4 ? 4 - j : 0))
                                         : _mm512_srli_epi16(high, static_cast<unsigned>(j > 4 ? j - 4 : 0));
            w[j] = _mm512_ternarylogic_epi32(w[j], moved, bit, kOrAnd);
        }
    } else if constexpr (Bits == 6) {
        const __m512i bits = _mm512_set1_epi8(0x30);
        for (int h = 0; h < 2; ++h) {
            const __m512i high = _mm512_load_si512(group + 256 + 64 * h);
            const __m512i moved[4] = {_mm512_slli_epi16(high, 4), _mm512_slli_epi16(high, 2), high,
                                      _mm512_srli_epi16(high, 2)};
            for (int i = 0; i < 4; ++i) {
                w[4 * h + i] = _mm512_ternarylogic_epi32(w[4 * h + i], moved[i], bits, kOrAnd);
            }
        }
    }
}

inline __m512 load_half(const uint8_t* at) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
}

inline __m512i load_bytes(const uint8_t* at) {
    return _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(at)));
}

// Scales of the 16 lanes in one group. `second` is the minimum, or the scale of q6k's upper half.
struct GroupScales {
    __m512 first;
    __m512 second;
};

template <WeightFormat F>
inline __attribute__((always_inline)) GroupScales load_scales(const uint8_t* panel, const PanelLayout& layout,
                                                              int64_t group) {
    constexpr FormatTraits traits = traits_of(F);
    const uint8_t* scales = panel + layout.scales_at + group * traits.scale_bytes;
    if constexpr (!traits.has_supers) {
        return {load_half(scales), traits.has_min ? load_half(scales + 32) : _mm512_setzero_ps()};
    } else {
        const uint8_t* supers = panel + layout.supers_at + group / 8 * traits.super_bytes;
        const __m512 d = load_half(supers);
        if constexpr (F == WeightFormat::q6k) {
            const auto* halves = reinterpret_cast<const __m128i*>(scales);
            const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(halves)));
            const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(halves + 1)));
            return {_mm512_mul_ps(d, low), _mm512_mul_ps(d, high)};
        } else {
            const __m512 sc = _mm512_cvtepi32_ps(load_bytes(scales));
            const __m512 m = _mm512_cvtepi32_ps(load_bytes(scales + 16));
            const __m512 min = _mm512_mul_ps(load_half(supers + 32), m);
            return {_mm512_mul_ps(d, sc), _mm512_xor_ps(min, _mm512_set1_ps(-0.0f))};
        }
    }
}

}  // namespace

// Of a panel's 16 outputs, those that are there.
inline __mmask16 lane_mask(const PackedMatrix& w, int64_t panel) {
    const int64_t lanes = w.n - panel * kLanes;
    return lanes >= kLanes ? 0xffff : static_cast<__mmask16>((1u << lanes) - 1);
}

}  // namespace temper::TEMPER_ISA
