// A group of 32 inputs as a tile for products in bf16 (linear_bf16.h): 16 pairs of neighbours, in the order
// in which AMX's weights come out of a packed panel. Matrices that are stored in bf16 are packed in whole
// tiles: [16 outputs][16 pairs][2], group after group, the last one padded with zeros.
#pragma once

#include "kernels/panel.h"

namespace temper {

constexpr int64_t kTileBytes = 1024;  // 16 outputs, or rows, of 32 bf16

// The pair of inputs, 0 to 15, that stands at each place.
constexpr int kPairAt[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
// The way back.
constexpr int kPlaceOf[16] = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};

static inline constexpr int64_t tiles_of(int64_t k) { return (k + kGroup - 1) / kGroup; }

// Where input i of one output lies in its tile, in bf16.
static inline constexpr int64_t place_in_tile(int64_t lane, int64_t i) {
    return kGroup * lane + 2 * kPlaceOf[i / 2] + i % 2;
}

}  // namespace temper
