// Low-rank updates of a program's linear ops, each for the rows that ask for it (kernels/lora.py defines
// them).
//
// A part is what one adapter adds to one linear op: y += B (scale (A x)). The A of all its matrices lie below
// each other in one (`shrink`), so that one pass over x serves a fused op; each B (`expand`) reads its own
// ranks. Both add up a row by itself (kernels/lora.h), so its bits depend on nothing but the row.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "executor/memory.h"
#include "executor/program.h"
#include "executor/thread_pool.h"
#include "kernels/kernel_set.h"
#include "kernels/lora.h"
#include "pack.h"

namespace temper {

struct AdapterExpand {
    int64_t matrix;              // which of the op's matrices it is added to
    const PackedWeight* weight;  // [n of that matrix, ranks]
    int64_t first_rank;          // where its ranks begin in the shrunk row
};

struct AdapterPart {
    int64_t op;                  // index in the program
    const PackedWeight* shrink;  // [all ranks, k]
    std::vector<float> scales;   // per rank
    std::vector<AdapterExpand> expands;
};

// An adapter laid out for one program. Whoever made it keeps its weights alive.
struct Adapter {
    std::vector<AdapterPart> parts;
    std::vector<int32_t> part_of;  // per op, -1: none

    const AdapterPart* part(size_t op) const {
        return part_of[op] < 0 ? nullptr : &parts[static_cast<size_t>(part_of[op])];
    }
};

// The attached adapters, the rows of the present step that use them, and scratch. Not thread-safe, but for
// `add`, which the pool's threads call at once for different columns.
class Adapters {
  public:
    // `max_rows`: most rows in a step.
    Adapters(int64_t num_ops, int64_t max_rows, const LoraKernels& kernels);

    // Throws std::invalid_argument where a part does not fit its op. Returns the adapter's slot.
    int32_t attach(const std::vector<OpSpec>& ops, std::vector<AdapterPart> parts);
    // Throws std::invalid_argument where nothing is attached.
    void detach(int64_t slot);
    bool has(int64_t slot) const {
        return slot >= 0 && slot < static_cast<int64_t>(adapters_.size()) &&
               adapters_[static_cast<size_t>(slot)];
    }

    // The step's rows by adapter: all its tokens at first, the logit rows from `select` on.
    void begin(const StepBatch& batch);
    void select(const StepBatch& batch);

    // Shrink x for the op; false where none of its rows has an adapter that adds to it. Then `add` puts what
    // panels [from, to) of one matrix get onto y, where the columns of that matrix begin.
    bool shrink(size_t op, const ActivationRows& x, ThreadPool& pool);
    void add(size_t op, size_t matrix, int64_t from, int64_t to, float* y, int64_t stride) const;

    // What the present rows add to the work of an op, counted as `OpTime` counts.
    void count(size_t op, int64_t& bytes, int64_t& operations) const;

  private:
    struct Run {  // neighbouring rows of one adapter
        int64_t begin;
        int64_t rows;
        const Adapter* adapter;
    };

    void push(int64_t row, int32_t slot);

    int64_t num_ops_;
    int64_t max_rows_;
    const LoraKernels& kernels_;
    std::vector<std::unique_ptr<Adapter>> adapters_;  // by slot
    std::vector<Run> runs_;
    std::vector<int32_t> slot_of_;  // per token of the step
    int64_t width_ = 0;             // of a shrunk row
    LazyMemory shrunk_;
};

}  // namespace temper
