// Tiles of 16 x 64 bytes: 16,384 products of int8 or 8,192 of bf16 in one instruction.
#include "kernels/peak.h"

#include <immintrin.h>

#include "kernels/amx/tiles.h"

namespace temper::TEMPER_ISA {

int64_t peak_int8(int64_t rounds) {
    const TileUse use;
    for (int64_t round = 0; round < rounds; ++round) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    return rounds * 4 * 2 * 16 * 16 * 64;
}

int64_t peak_bf16(int64_t rounds) {
    const TileUse use;
    for (int64_t round = 0; round < rounds; ++round) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    return rounds * 4 * 2 * 16 * 16 * 32;
}

int64_t peak_f32(int64_t rounds) {
    __m512 sum[12], w = _mm512_set1_ps(1), x = _mm512_set1_ps(1);
    for (int i = 0; i < 12; ++i) sum[i] = _mm512_setzero_ps();
    for (int64_t round = 0; round < rounds; ++round) {
        asm volatile("" : "+v"(x));
        for (int i = 0; i < 12; ++i) sum[i] = _mm512_fmadd_ps(w, x, sum[i]);
    }
    for (int i = 0; i < 12; ++i) asm volatile("" : : "v"(sum[i]));
    return rounds * 12 * 2 * 16;
}

}  // namespace temper::TEMPER_ISA
