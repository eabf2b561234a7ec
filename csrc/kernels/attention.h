// Attention of a tile of queries over one split of the key axis, and the fold of splits into one.
//
// The key axis is cut every kSplit positions, wherever a sequence began and whoever else is in the
// step. A split is computed alone (scores, their maximum, exponentials, weighted values in the order of
// positions) and folded into the splits before it, in order. So a query's bits depend on its own
// context only. No score outlives its split: kTileRows x kSplit floats are all there ever is.
//
// A tile holds up to kTileRows queries that share a key/value head: the heads of a GQA group, of one
// token or of several neighbours of a prompt.
//
// Versions: 1. portable 16-lane code compiled per ISA (attention.inc): keys lie transposed in their
// page, so 16 positions' scores are one vector; 8 query rows share each load of keys or values. 60 GFlop/s a
// core (AVX-512, f16 pages, 16 rows). 2. broadcasts straight from memory: 95; 3 rows (one decoded token of
// a group of 3): 62 to 81. 3. no division for each position; sums that all stay in registers, at 3 rows too;
// two runs of exponentials at once; keys left to the core's own prefetching, values fetched with the scores.
// AVX2 on Zen 3, 3 rows: in cache 0.63 of the time, from memory 85 % of what only reading the lines reaches.
#pragma once

#include "kernels/kernel_set.h"

namespace temper::TEMPER_ISA {

void attention_split(const AttentionSplit& split);

// Fold one row's split (top, sum, values) into the splits before it. A fresh total has top -inf, sum 0
// and values 0.
void attention_merge(float top, float sum, const float* values, int64_t head_dim, float* total_top,
                     float* total_sum, float* total_values);

// out = values / sum.
void attention_finish(const float* values, float sum, int64_t head_dim, float* out);

}  // namespace temper::TEMPER_ISA
