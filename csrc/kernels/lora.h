// The two products of an adapter: few outputs of many inputs (A), many outputs of few inputs (B).
//
// Weights are panels as all float matrices have them (panel.h). The arithmetic is the same in every ISA, bit
// for bit, and for any number of rows:
//
//   shrink  four float32 accumulators per output, input i into i % 4: acc = fma(float(w), x, acc);
//           then scale * ((acc0 + acc1) + (acc2 + acc3))
//   expand  one accumulator from 0, input after input, likewise; then y = y + acc
//
// Version 1: the general float product for both, then additions. A row or two walked down k in one chain,
//            and waited for each step of it.
// Version 2: this. Four chains a row for A; rows and panels side by side for B, added where they are made.
#pragma once

#include "kernels/kernel_set.h"

namespace temper {

// A table of its own and not part of KernelSet: whoever serves no adapters need not write these.
struct LoraKernels {
    // out[r * out_stride + i] for the 16 outputs of one panel; the scales of outputs past the last are not
    // used.
    void (*shrink)(const PackedMatrix& w, const float* x, int64_t x_stride, int64_t rows, int64_t panel,
                   const float* scales, float* out, int64_t out_stride);
    // y[r * y_stride + i] += ... for the outputs i of panels [from, to). Never touches y[... + n].
    void (*expand)(const PackedMatrix& w, const float* x, int64_t x_stride, int64_t rows, int64_t from,
                   int64_t to, float* y, int64_t y_stride);
};

// Those of a kernel set; of the widest instruction set below it that has some where it has none of its own.
const LoraKernels& lora_kernels(const KernelSet& set);

}  // namespace temper
