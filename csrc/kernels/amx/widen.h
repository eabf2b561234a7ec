// Groups of a packed panel widened to tiles of 16 outputs x 32 inputs in bf16. The value of each code is
// made as linear_bf16.h says: half a unit is added to the bits of a float32 and its upper half is taken.
//
// A panel has its outputs as lanes; a tile has them as rows. So a few groups go through scratch first, where
// each output's codes and scales lie together: what was just stored is slow to be read in parts.
#pragma once

#include <immintrin.h>

#include "kernels/avx512/widen.h"
#include "kernels/tile.h"

namespace temper::TEMPER_ISA {

namespace {

#define TEMPER_TILE_INLINE inline __attribute__((always_inline))

constexpr int64_t kAhead = 8192;  // bytes fetched ahead of the widening
constexpr int64_t kBatch = 4;     // groups that go through scratch together

// One group. The value of a code is scale * code + offset, exact but for one rounding; `second` ones are
// those of inputs 16 to 31 in q6k. Output o has bytes 16 * (o / 4) of the vectors o % 4 and o % 4 + 4: its 32
// nibbles as the panel has them in the first, or its inputs 0 to 15 there and 16 to 31 in the other.
struct GroupScratch {
    alignas(64) float scale[kLanes];
    alignas(64) float offset[kLanes];
    alignas(64) float second_scale[kLanes];
    alignas(64) float second_offset[kLanes];
    alignas(64) uint8_t codes[8][64];

    const __m128i* half(int output, int which) const {
        return reinterpret_cast<const __m128i*>(codes[4 * which + output % 4] + 16 * (output / 4));
    }
};

// Dwords of 16 outputs in 4 vectors to 16 bytes an output.
TEMPER_TILE_INLINE void gather_outputs(const __m512i* v, uint8_t (*out)[64]) {
    const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    _mm512_store_si512(out[0], _mm512_unpacklo_epi64(a, c));
    _mm512_store_si512(out[1], _mm512_unpackhi_epi64(a, c));
    _mm512_store_si512(out[2], _mm512_unpacklo_epi64(b, d));
    _mm512_store_si512(out[3], _mm512_unpackhi_epi64(b, d));
}

template <WeightFormat F>
TEMPER_TILE_INLINE void gather_group(const uint8_t* panel, const PanelLayout& layout, int64_t group,
                                     GroupScratch& out) {
    constexpr FormatTraits traits = traits_of(F);
    const GroupScales s = load_scales<F>(panel, layout, group);
    _mm512_store_ps(out.scale, s.first);
    if constexpr (traits.has_min) {
        _mm512_store_ps(out.offset, s.second);
    } else {
        const __m512 zero = _mm512_set1_ps(-static_cast<float>(1 << traits.zero_log2));
        _mm512_store_ps(out.offset, _mm512_mul_ps(s.first, zero));
        if constexpr (F == WeightFormat::q6k) {
            _mm512_store_ps(out.second_scale, s.second);
            _mm512_store_ps(out.second_offset, _mm512_mul_ps(s.second, zero));
        }
    }
    const uint8_t* codes = panel + group * layout.group_bytes;
    if constexpr (traits.bits == 4) {
        const __m512i v[4] = {_mm512_load_si512(codes), _mm512_load_si512(codes + 64),
                              _mm512_load_si512(codes + 128), _mm512_load_si512(codes + 192)};
        gather_outputs(v, out.codes);
    } else {
        __m512i v[8];
        load_codes<traits.bits>(codes, v);
        gather_outputs(v, out.codes);
        gather_outputs(v + 4, out.codes + 4);
    }
}

// The float32 of one code each, plus half a unit of bf16.
TEMPER_TILE_INLINE __m512i rounded(__m512 codes, __m512 scale, __m512 offset) {
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_fmadd_ps(codes, scale, offset)),
                            _mm512_set1_epi32(0x8000));
}

struct alignas(64) Bytes64 {
    uint8_t at[64];
    __m512i vector() const { return _mm512_load_si512(at); }
};

// Of each byte of a tile's row, the bit of its qword of nibbles from which 8 are taken: 2 before its code.
constexpr Bytes64 nibble_bits() {
    Bytes64 bits{};
    for (int byte = 0; byte < 64; ++byte) {
        const int input = 2 * kPairAt[byte / 4] + byte / 2 % 2;
        const int nibble = input % 16;  // of this qword: byte 4 * (nibble / 8) + nibble % 4, low half first
        const int bit = 8 * (nibble / 8 * 4 + nibble % 4) + nibble % 8 / 4 * 4;
        bits.at[byte] = static_cast<uint8_t>((bit + 62) % 64);
    }
    return bits;
}
constexpr Bytes64 kNibbleBits = nibble_bits();

// One output with 4-bit codes: the 16 values that it can have here, as the upper halves of 16 float32, and
// of those the bytes 4 * code + 2 and + 3.
TEMPER_TILE_INLINE __m512i widen_nibbles(const GroupScratch& s, int o) {
    constexpr int kAndOr = 0xEA;  // a & b | c
    const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i keep = _mm512_set1_epi8(0x3c), upper = _mm512_set1_epi16(0x0302);
    const __m512i values = rounded(codes, _mm512_set1_ps(s.scale[o]), _mm512_set1_ps(s.offset[o]));
    const __m512i nibbles = _mm512_broadcast_i32x4(_mm_load_si128(s.half(o, 0)));
    const __m512i moved = _mm512_multishift_epi64_epi8(kNibbleBits.vector(), nibbles);
    return _mm512_permutexvar_epi8(_mm512_ternarylogic_epi32(moved, keep, upper, kAndOr), values);
}

// Bytes of the even (or odd) inputs in a tile's order, each as a dword; 255 where a dword has zeros.
constexpr Bytes64 dwords_of(int odd) {
    Bytes64 from{};
    for (int byte = 0; byte < 64; ++byte) {
        from.at[byte] = byte % 4 == 0 ? static_cast<uint8_t>(2 * kPairAt[byte / 4] + odd) : 255;
    }
    return from;
}
constexpr Bytes64 kEvenDwords = dwords_of(0), kOddDwords = dwords_of(1);

// One output with codes of a byte each.
template <WeightFormat F>
TEMPER_TILE_INLINE __m512i widen_bytes(const GroupScratch& s, int o) {
    constexpr int kSelect = 0xCA;                             // a ? b : c
    constexpr __mmask64 kFirstBytes = 0x1111111111111111ull;  // of each dword
    constexpr __mmask16 kSecond = 0xcccc;                     // places of inputs 16 to 31
    const __m512i codes = _mm512_castsi256_si512(_mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_load_si128(s.half(o, 0))), _mm_load_si128(s.half(o, 1)), 1));
    const __m512i even = _mm512_maskz_permutexvar_epi8(kFirstBytes, kEvenDwords.vector(), codes);
    const __m512i odd = _mm512_maskz_permutexvar_epi8(kFirstBytes, kOddDwords.vector(), codes);
    __m512 scale = _mm512_set1_ps(s.scale[o]), offset = _mm512_set1_ps(s.offset[o]);
    if constexpr (F == WeightFormat::q6k) {
        scale = _mm512_mask_blend_ps(kSecond, scale, _mm512_set1_ps(s.second_scale[o]));
        offset = _mm512_mask_blend_ps(kSecond, offset, _mm512_set1_ps(s.second_offset[o]));
    }
    const __m512i low = _mm512_srli_epi32(rounded(_mm512_cvtepi32_ps(even), scale, offset), 16);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xffff), low,
                                     rounded(_mm512_cvtepi32_ps(odd), scale, offset), kSelect);
}

// Groups [begin, begin + count) of a panel to as many tiles.
template <WeightFormat F>
TEMPER_TILE_INLINE void widen(const uint8_t* panel, const PanelLayout& layout, int64_t begin, int64_t count,
                              uint8_t* tiles) {
    const int64_t step = layout.bytes / layout.groups;
    for (int64_t first = begin; first < begin + count; first += kBatch) {
        const int64_t left = begin + count - first, some = left < kBatch ? left : kBatch;
        GroupScratch scratch[kBatch];
        for (int64_t i = 0; i < some; ++i) {
            for (int64_t line = 0; line < step; line += 64) {
                _mm_prefetch(panel + kAhead + (first + i) * step + line, _MM_HINT_T0);
            }
            gather_group<F>(panel, layout, first + i, scratch[i]);
        }
        for (int64_t i = 0; i < some; ++i, tiles += kTileBytes) {
#pragma GCC unroll 16
            for (int o = 0; o < kLanes; ++o) {
                const __m512i row =
                    traits_of(F).bits == 4 ? widen_nibbles(scratch[i], o) : widen_bytes<F>(scratch[i], o);
                _mm512_store_si512(tiles + 64 * o, row);
            }
        }
    }
}

}  // namespace

}  // namespace temper::TEMPER_ISA
