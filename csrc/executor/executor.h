// Runs a program once per step on a ragged batch. Everything it needs is allocated when it is built;
// a step allocates nothing. Which rows share a step changes no bit of any row: every kernel computes a
// row by itself, and attention cuts the key axis at fixed positions (kernels/attention.h).
//
// Time at one token per step is the sum of many ops of a few microseconds, so: small ops run on the
// calling thread, larger ones are shared by the pool in a few chunks per thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "executor/adapter.h"
#include "executor/logits.h"
#include "executor/memory.h"
#include "executor/program.h"
#include "executor/thread_pool.h"
#include "kernels/kernel_set.h"

namespace temper {

// What a step holds: chunks of prompts, one token of each sequence (decoding), or both.
enum class Phase : int32_t { prefill, decode, mixed };
constexpr size_t kPhases = 3;

// What the ops of one label took, moved and computed in the steps of one phase. Counted from shapes: each
// weight and each cached key and value that is looked at once a step, activations left out; a
// multiply-add is two operations. Attention is never `mixed`: its time is divided by the sequences.
struct OpTime {
    std::string label;
    Phase phase;
    int64_t calls = 0;
    int64_t ns = 0;
    int64_t bytes = 0;
    int64_t operations = 0;
    int64_t bf16_operations = 0;  // of these, in bf16
};

class Executor {
  public:
    // `cpus` as a ThreadPool takes them. Throws std::invalid_argument where the program does not fit its
    // sizes or weights.
    Executor(const ExecutorSizes& sizes, std::vector<int64_t> buffer_widths, std::vector<OpSpec> ops,
             const KernelSet& kernels, int threads, std::vector<int> cpus);
    ~Executor();

    // Throws std::invalid_argument, before anything is written, where the batch breaks a rule.
    void forward(const StepBatch& batch);

    // Of the last step; the next one overwrites them.
    Logits logits() const {
        return {buffer({logits_buffer_, 0, vocab_size_}),
                tops_.data(),
                edges_.data(),
                vocab_size_,
                num_parts_,
                max_parts()};
    }
    int64_t num_logit_rows() const { return num_logit_rows_; }
    int64_t vocab_size() const { return vocab_size_; }
    int64_t kv_block_bytes() const { return cache_.block_bytes(); }
    const KernelSet& kernels() const { return kernels_; }
    ThreadPool& pool() { return pool_; }

    // Between two steps; what the parts point to must live until `detach`. See Adapters.
    int32_t attach_adapter(std::vector<AdapterPart> parts) {
        return adapters_.attach(ops_, std::move(parts));
    }
    void detach_adapter(int64_t slot) { adapters_.detach(slot); }

    // Rows from which on a product in this format is swept so; until then, the kernel set's own.
    void set_sweeps(WeightFormat format, int64_t panel_from, int64_t pair_from);

    // Off at first. One branch an op while it is off; two looks at the clock while it is on, and two for
    // each item of attention.
    void set_timing(bool on) { timing_ = on; }
    const std::vector<OpTime>& op_times() const { return times_; }
    void reset_op_times();

  private:
    struct Rows {  // a place as rows: row r begins at data + r * stride
        float* data;
        int64_t stride;
        float* operator[](int64_t row) const { return data + row * stride; }
    };
    struct RopeTable;
    struct AttentionWork;
    struct Scratch;

    float* buffer(const Place& place) const { return buffers_[place.buffer].as<float>() + place.column; }
    Rows rows(const Place& place) const { return {buffer(place), widths_[place.buffer]}; }

    void check_program() const;
    void check_batch(const StepBatch& batch) const;
    void build_rope_tables();
    void extend_rope_tables(const StepBatch& batch);

    void run(const OpSpec& op, size_t index, const StepBatch& batch, int64_t num_rows);
    void run_linear(const OpSpec& op, size_t index, int64_t num_rows);
    struct Forms {  // what the matrices of an op want their rows as
        bool f32 = false, groups = false, fine = false, tiles = false;
    };
    void run_prologue(const OpSpec& op, int64_t num_rows, Forms forms);
    void run_panels(const OpSpec& op, const PackedMatrix& w, const ActivationRows& x, float* y,
                    int64_t stride, int64_t from, int64_t to);
    void run_rope(const OpSpec& op, size_t index, const StepBatch& batch);
    void run_kv_write(const OpSpec& op, size_t index, const StepBatch& batch);
    void run_attention(const OpSpec& op, const StepBatch& batch);
    void attention_item(const AttentionWork& work, int64_t item, int worker);
    void top_alone();
    int64_t max_chunks(int64_t num_rows) const { return (num_rows < 4 ? 4 : 8) * pool_.threads(); }
    Sweep sweep_of(WeightFormat format, int64_t num_rows) const {
        return sweep_for(sweep_rows_[static_cast<size_t>(format)], num_rows);
    }
    int64_t max_parts() const { return static_cast<int64_t>(edges_.size()) - 1; }
    template <class Work>
    void for_rows(int64_t num_rows, int64_t row_cost, const Work& work);

    ExecutorSizes sizes_;
    std::vector<int64_t> widths_;
    std::vector<OpSpec> ops_;
    const KernelSet& kernels_;
    SweepRows sweep_rows_[kNumFormats];
    ThreadPool pool_;
    KvPool cache_;
    std::vector<LazyMemory> buffers_;
    int32_t logits_buffer_;
    int64_t vocab_size_ = 0;
    int64_t num_logit_rows_ = 0;
    // See Logits. Parts are the chunks of the head; threads write each its own.
    std::vector<float> tops_;
    std::vector<int64_t> edges_;
    int64_t num_parts_ = 0;

    std::vector<RopeTable> rope_tables_;
    std::vector<int32_t> rope_table_of_;  // per op, -1: none

    Adapters adapters_;

    // Scratch of linear ops: prepared input rows, in groups of 8 or 16 bits, in tiles of bf16; products
    // awaiting a residual.
    LazyMemory prepared_, groups_, fine_, tiles_, products_;
    // Scratch of attention.
    std::vector<Scratch> scratch_;
    LazyMemory partials_;
    std::unique_ptr<std::atomic<int32_t>[]> pending_;
    std::vector<int64_t> first_tile_;
    int64_t max_head_dim_ = 0;
    int64_t max_splits_ = 0;

    void build_times();
    void run_timed(const OpSpec& op, size_t index, const StepBatch& batch, int64_t num_rows, Phase phase);
    void count_attention(const OpSpec& op, const StepBatch& batch, int64_t ns, OpTime* times);

    bool timing_ = false;
    std::vector<OpTime> times_;
    std::vector<size_t> time_of_;  // per op, where its label's kPhases entries in times_ begin
};

}  // namespace temper
