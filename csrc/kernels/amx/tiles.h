// The tile registers of a thread: 8 of 16 rows of 64 bytes, for as long as a kernel uses them.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace temper::TEMPER_ISA {

namespace {

struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// No local: GCC's intrinsic says that it reads 8 bytes of it, and the others would not be written.
constexpr TileConfig kTileConfig;

// Tiles 0-3 are sums, 4 and 5 weights, 6 and 7 activations. Released at the end, so that no thread carries
// 8 KiB of state through every switch of context.
class TileUse {
  public:
    TileUse() { _tile_loadconfig(&kTileConfig); }
    TileUse(const TileUse&) = delete;
    TileUse& operator=(const TileUse&) = delete;
    ~TileUse() { _tile_release(); }
};

}  // namespace

}  // namespace temper::TEMPER_ISA
