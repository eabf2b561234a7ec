// Matrix products with packed weights, and the quantization of their activations.
//
// The arithmetic is the same in every ISA, bit for bit, and for any number of rows, panels or threads:
//
//   Activations, per row and group of 32 inputs, in float32:
//     top   = max |x|;  scale = top / 127, or 0 where top < 2^-100
//     codes = round half to even (x * (1 / scale)), which never leaves +-127; 0 where scale = 0
//
//   Quantized weights, group after group along k, one float32 accumulator per output, from 0:
//     dot   = sum of code_w * code_x - zero_point * sum of code_x      exact, int32
//     acc   = fma(float(dot), scale_w * scale_x, acc)
//     acc   = fma(min_w, scale_x * float(sum of code_x), acc)          formats with a minimum only
//   where scale_w is the f16 scale; for K-quants float(d) * float(sc), exact in float32, and min_w is
//   -(float(dmin) * float(m)). q6k takes the two halves of a group of 32 one after the other.
//
//   Float weights, input after input: acc = fma(float(w), x, acc).
//
// Inputs must be finite.
#pragma once

#include "kernels/kernel_set.h"

namespace temper::TEMPER_ISA {

void quantize_rows(const float* x, int64_t x_stride, int64_t rows, int64_t k, ActivationGroup* out);
void linear(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride, int64_t panel_begin,
            int64_t panel_end, Sweep sweep);
extern const SweepRows sweep_rows;

}  // namespace temper::TEMPER_ISA
