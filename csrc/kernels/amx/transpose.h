// 16 x 16 dwords transposed in registers: between rows as float kernels see them and tiles, where a row
// is a column.
#pragma once

#include <immintrin.h>

namespace temper::TEMPER_ISA {

namespace {

// m[i] dword j becomes m[j] dword i.
inline __attribute__((always_inline)) void transpose_16(__m512i (&m)[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        m[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        m[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        m[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        m[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // Now 128-bit lane l of m[4 * i + j] holds dwords 4i .. 4i + 3 of column 4 * l + j.
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        t[j] = _mm512_shuffle_i32x4(m[j], m[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(m[j], m[4 + j], 0xdd);
        t[8 + j] = _mm512_shuffle_i32x4(m[8 + j], m[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(m[8 + j], m[12 + j], 0xdd);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        m[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
        m[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
        m[4 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
        m[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
    }
}

}  // namespace

}  // namespace temper::TEMPER_ISA
