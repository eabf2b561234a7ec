// The most arithmetic that one core could do with this ISA: multiply-adds on numbers that never leave the
// registers and the first cache, nothing else. What a kernel reaches of it is held against this.
#pragma once

#include "kernels/kernel_set.h"

namespace temper::TEMPER_ISA {

// All go `rounds` times around their loop and return how many operations that was; a multiply-add is two.
// int8 weights times int8 activations, summed in the integers that the ISA sums them in at full speed.
int64_t peak_int8(int64_t rounds);

// bf16 times bf16, summed in float32: what linear_bf16.h does. float32 multiply-adds where the ISA has none.
int64_t peak_bf16(int64_t rounds);

// float32 multiply-adds.
int64_t peak_f32(int64_t rounds);

}  // namespace temper::TEMPER_ISA
