// 32 products of u8 and s8 are one instruction, their sums in int16 another.
#include "kernels/peak.h"

#include <immintrin.h>

namespace temper::TEMPER_ISA {

int64_t peak_int8(int64_t rounds) {
    __m256i w[4], sum[8], x = _mm256_set1_epi8(1);
    for (int i = 0; i < 4; ++i) w[i] = _mm256_set1_epi8(static_cast<char>(i));
    for (int i = 0; i < 8; ++i) sum[i] = _mm256_setzero_si256();
    for (int64_t round = 0; round < rounds; ++round) {
        for (int i = 0; i < 8; ++i) {
            asm volatile("" : "+x"(x));  // another activation, as far as the compiler knows
            sum[i] = _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(w[i % 4], x));
        }
    }
    for (int i = 0; i < 8; ++i) asm volatile("" : : "x"(sum[i]));
    return rounds * 8 * 2 * 32;
}

int64_t peak_f32(int64_t rounds) {
    __m256 sum[10], w = _mm256_set1_ps(1), x = _mm256_set1_ps(1);
    for (int i = 0; i < 10; ++i) sum[i] = _mm256_setzero_ps();
    for (int64_t round = 0; round < rounds; ++round) {
        asm volatile("" : "+x"(x));
        for (int i = 0; i < 10; ++i) sum[i] = _mm256_fmadd_ps(w, x, sum[i]);
    }
    for (int i = 0; i < 10; ++i) asm volatile("" : : "x"(sum[i]));
    return rounds * 10 * 2 * 8;
}

int64_t peak_bf16(int64_t rounds) { return peak_f32(rounds); }

}  // namespace temper::TEMPER_ISA
