// 64 products of u8 and s8, summed by fours into int32, are one instruction (VNNI).
#include "kernels/peak.h"

#include <immintrin.h>

namespace temper::TEMPER_ISA {

int64_t peak_int8(int64_t rounds) {
    __m512i sum[12], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(1);
    for (int i = 0; i < 12; ++i) sum[i] = _mm512_setzero_si512();
    for (int64_t round = 0; round < rounds; ++round) {
        asm volatile("" : "+v"(x));  // another activation, as far as the compiler knows
        for (int i = 0; i < 12; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], w, x);
    }
    for (int i = 0; i < 12; ++i) asm volatile("" : : "v"(sum[i]));
    return rounds * 12 * 2 * 64;
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

int64_t peak_bf16(int64_t rounds) { return peak_f32(rounds); }

}  // namespace temper::TEMPER_ISA
