// Matrix products of quantized weights with activations in 16 bits ("fine"), where 8 would round too much.
//
// The arithmetic is that of linear.h, bit for bit in every ISA, with other codes:
//
//   Activations, per row and group of 32 inputs, in float32:
//     top   = max |x|;  scale = top / 32767, or 0 where top < 2^-100
//     codes = round half to even (x * (1 / scale)), which never leaves +-32767; 0 where scale = 0
//
// Dot products stay below 2^28 and so exact in int32; becoming floats, they are rounded once.
//
// Version 1  Two int8 digits, each with a scale of its own, as two rows of linear.h, whose results were
//            added. AVX2 has no product for two bytes that both use all bits, so weights of 8 bits were two
//            digits as well.
// Version 2  One product of 16 bits: two inputs of a quad at a time, for which bytes are masked or shifted
//            into place (that is why codes stand in the order 0 2 1 3). On AVX2 less than half the time for
//            weights of 8 bits, 0.8 to 0.9 for fewer.
#pragma once

#include "kernels/kernel_set.h"

namespace temper::TEMPER_ISA {

void quantize_fine(const float* x, int64_t k, FineGroup* out);
void linear_fine(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                 int64_t panel_begin, int64_t panel_end);

}  // namespace temper::TEMPER_ISA
