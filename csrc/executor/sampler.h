// Chooses tokens from logits. Defined by src/temper/kernels/sampling_reference.py, whose choices it
// repeats exactly: the exponential rounds the same way on every ISA, masses are integers, and the one
// random number per token is a hash of (seed, sample index, position).
//
// The vocabulary is never sorted: the filters look at the tokens above a mass threshold, which is
// lowered in the rare case that the cut lies below it.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "executor/logits.h"
#include "executor/thread_pool.h"
#include "kernels/kernel_set.h"

namespace temper {

struct SamplerParams {
    uint64_t seed = 0;
    uint64_t sample_index = 0;
    double top_p = 1;
    int64_t top_k = 0;
    float min_p = 0;
    float repetition_penalty = 1;
    float presence_penalty = 0;
    float frequency_penalty = 0;
    int64_t no_repeat_ngram_size = 0;
    int64_t min_tokens = 0;
    std::vector<std::pair<int32_t, float>> logit_bias;
    std::vector<int32_t> stop_token_ids;
};

uint64_t keyed_bits(uint64_t seed, uint64_t sample_index, uint64_t position);

class Sampler {
  public:
    Sampler(const KernelSet& kernels, ThreadPool& pool, int64_t vocab_size);
    ~Sampler();

    int32_t open(SamplerParams params, const int32_t* prompt, int64_t count);
    // These throw std::invalid_argument for a slot that is not open; sample also for slots that repeat.
    void close(int32_t slot);
    void sample(const Logits& logits, const int32_t* rows, const int32_t* slots, const float* temperatures,
                const int32_t* forced, int64_t count, int32_t* tokens);

    // Log-probability of tokens[i] in row rows[i], and its top_k likeliest tokens [count, top_k].
    void logprobs(const Logits& logits, const int32_t* rows, const int32_t* tokens, int64_t count,
                  int64_t top_k, float* chosen, int32_t* top_ids, float* top);

  private:
    struct Slot;
    struct Scratch;

    void require_open(int32_t slot) const;
    bool adjusts(const Slot& slot) const;
    void adjust(const Slot& slot, float* z) const;
    int32_t choose(const Logits& logits, int64_t row, const Slot& slot, float temperature,
                   Scratch& scratch) const;
    int32_t pick_filtered(const float* z, const Slot& slot, int64_t total, Scratch& scratch) const;
    int32_t likeliest(const float* z, float top) const;

    const KernelSet& kernels_;
    ThreadPool& pool_;
    int64_t vocab_size_;
    std::vector<std::unique_ptr<Slot>> slots_;
    std::vector<int32_t> free_;
    std::vector<Scratch> scratch_;
};

}  // namespace temper
