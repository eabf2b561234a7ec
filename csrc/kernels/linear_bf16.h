// Matrix products in bf16 with sums in float32.
//
// The arithmetic is that of AMX's TDPBF16PS and the same in every ISA, bit for bit, and for any number of
// rows, panels or threads:
//
//   Activations are rounded to bf16, half to even; subnormals become 0.
//   Weights are float32 as the format means them (scale * (code - zero point), + minimum, rounded once),
//   then rounded to bf16, half away from zero. Those stored in bf16 stay as they are.
//
//   One float32 accumulator per output, from 0; group after group of 32 inputs along k:
//     even = fma of w * x over the even inputs, from 0, pairs in the order of kPairAt (tile.h)
//     odd likewise over the odd ones
//     acc  = acc + (even + odd)
//
// AMX takes subnormal sums for 0; other sets need not. Inputs must be finite. Matrices are quantized, or
// stored in bf16 and packed in tiles.
//
// Versions: 1. weights are AMX's A operand: 16 outputs x 32 inputs, one group. Activations are packed once
// an op as B. A group of 4-bit codes is widened by one byte permutation of the 16 values that an output can
// have there, which one fused multiply-add makes (vpermw would be two operations on these cores, vpermb is
// one; vcvtneps2bf16 four, adding half a unit is one). Groups are widened in batches before they are
// multiplied: a tile cannot be loaded from stores that are still on their way.
#pragma once

#include "kernels/kernel_set.h"

namespace temper::TEMPER_ISA {

// Rows [first, first + rows) of a tile of up to 16 rows of k floats (row r at x + (r - first) * x_stride)
// into `tile`, bf16 [groups of k][16 pairs of inputs][16 rows][2]; zeros past the end of k. Other rows are
// left as they were.
void pack_bf16(const float* x, int64_t x_stride, int64_t first, int64_t rows, int64_t k, uint16_t* tile);

// As `linear`, with rows in tiles of 16 as pack_bf16 leaves them, one tile after the other.
void linear_bf16(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                 int64_t panel_begin, int64_t panel_end);

}  // namespace temper::TEMPER_ISA
