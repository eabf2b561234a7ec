// Weights from the formats of files to the panels that kernels read, and back. Exact both ways, except
// `convert`, whose job it is to change the numbers. Where each byte lies: kernels/panel.h. What the
// formats mean: src/temper/kernels/weights.py, which is their definition.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernel_set.h"

namespace temper {

// A format as GGUF and safetensors files hold it: rows of blocks along k.
struct StoredFormat {
    std::string_view name;
    WeightFormat packed;
    int64_t block_elements;
    int64_t block_bytes;
};

// Throws std::invalid_argument for a name that is no format.
const StoredFormat& stored_format(std::string_view name);

// A packed matrix that owns its memory. Moves, never copies.
class PackedWeight {
  public:
    // `data` holds n rows of k elements; it is read once and not kept. Throws std::invalid_argument
    // where the sizes do not fit each other.
    // `in_tiles`: what is stored in bf16 is packed for products in bf16; other formats are packed as without.
    PackedWeight(const StoredFormat& format, const uint8_t* data, int64_t data_bytes, int64_t n, int64_t k,
                 bool in_tiles = false);

    const PackedMatrix& matrix() const { return matrix_; }
    int64_t bytes() const { return matrix_.panels() * matrix_.panel_bytes; }

  private:
    std::shared_ptr<void> memory_;  // what matrix_.data points into
    PackedMatrix matrix_;
};

// out[i * out_stride ..] = row ids[i] of w as float32. Throws std::out_of_range for an id outside
// [0, n), before anything is written.
void lookup_rows(const PackedMatrix& w, const int32_t* ids, int64_t count, float* out, int64_t out_stride);

// n rows of k elements to float32.
void dequantize(const StoredFormat& format, const uint8_t* data, int64_t n, int64_t k, float* out);

// The same numbers in the grid of `to` (bf16, q8_0 or q4_1), as a file would hold them.
std::vector<uint8_t> convert(const StoredFormat& from, const uint8_t* data, int64_t data_bytes, int64_t n,
                             int64_t k, const StoredFormat& to);

}  // namespace temper
