// Plain C++, in whatever vectors the compiler's baseline has.
#include "kernels/peak.h"

namespace temper::TEMPER_ISA {

namespace {

constexpr int kNumbers = 64;  // products a round

template <class Number, class Sum>
int64_t multiply_add(int64_t rounds) {
    Number w[kNumbers], x[kNumbers];
    Sum sum[kNumbers] = {};
    for (int i = 0; i < kNumbers; ++i) {
        w[i] = static_cast<Number>(i % 3);
        x[i] = static_cast<Number>(1);
    }
    for (int64_t round = 0; round < rounds; ++round) {
        asm volatile("" : : "r"(w), "r"(x) : "memory");  // other numbers, as far as the compiler knows
        for (int i = 0; i < kNumbers; ++i) sum[i] += static_cast<Sum>(w[i]) * static_cast<Sum>(x[i]);
    }
    asm volatile("" : : "r"(sum) : "memory");
    return rounds * 2 * kNumbers;
}

}  // namespace

int64_t peak_int8(int64_t rounds) { return multiply_add<int8_t, int32_t>(rounds); }

int64_t peak_f32(int64_t rounds) { return multiply_add<float, float>(rounds); }

int64_t peak_bf16(int64_t rounds) { return peak_f32(rounds); }

}  // namespace temper::TEMPER_ISA
