// Types private to the executor's own source files.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

#include "executor/executor.h"

namespace temper {

constexpr int64_t kMaxHeadDim = 512;

// cos and sin [2][head_dim / 2] of every position so far.
struct Executor::RopeTable {
    std::vector<float> inv_freq;
    float scale;
    LazyMemory memory;
    int64_t filled = 0;

    float* cos(int64_t position) const {
        return memory.as<float>() + position * static_cast<int64_t>(inv_freq.size()) * 2;
    }
};

// What one thread needs for one tile of attention.
struct Executor::Scratch {
    explicit Scratch(int64_t head_dim)
        : q(static_cast<size_t>(head_dim * kTileRows)),
          scores(static_cast<size_t>(kTileRows * kSplit)),
          values(static_cast<size_t>(kTileRows * head_dim)),
          totals(static_cast<size_t>(kTileRows * head_dim)) {}

    std::vector<float> q, scores, values, totals;
    int64_t item_ns[kPhases] = {};  // spent on items of one op, by the phase of their sequence
    float top[kTileRows], sum[kTileRows], total_top[kTileRows], total_sum[kTileRows];
};

// Matrices in tiles can do nothing else; quantized ones do from the number of rows on that the op names.
inline bool multiplies_in_bf16(const OpSpec& op, const PackedMatrix& w, int64_t num_rows) {
    return w.in_tiles || (!is_float(w.format) && op.bf16_rows > 0 && num_rows >= op.bf16_rows);
}

// Prompts bring several tokens to a step; a sequence that decodes brings one.
inline Phase phase_of(const StepBatch& batch, int64_t sequence) {
    return batch.q_starts[sequence + 1] - batch.q_starts[sequence] > 1 ? Phase::prefill : Phase::decode;
}

inline Phase phase_of_step(const StepBatch& batch) {
    int64_t decoding = 0;
    for (int64_t s = 0; s < batch.num_sequences; ++s) decoding += phase_of(batch, s) == Phase::decode;
    return decoding == batch.num_sequences ? Phase::decode : decoding == 0 ? Phase::prefill : Phase::mixed;
}

// Adds its own lifetime to `ns`, where there is one.
class Stopwatch {
  public:
    explicit Stopwatch(int64_t* ns) : ns_(ns) {
        if (ns_ != nullptr) begin_ = std::chrono::steady_clock::now();
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;
    ~Stopwatch() {
        if (ns_ == nullptr) return;
        const auto took = std::chrono::steady_clock::now() - begin_;
        *ns_ += std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
    }

  private:
    int64_t* ns_;
    std::chrono::steady_clock::time_point begin_;
};

// Items of attention are cut along the keys only while there are fewer of them than this.
inline int64_t max_items(const ThreadPool& pool) { return 4 * pool.threads(); }

// Floats from one row of a buffer to the next: an odd number of cache lines, or the same columns of all rows
// would share a few sets of the cache.
inline int64_t row_stride(int64_t width) { return ((width + 15) / 16 | 1) * 16; }

// One row of a stored split: top, sum, values.
inline int64_t partial_floats(int64_t head_dim) { return 2 + head_dim; }

}  // namespace temper
