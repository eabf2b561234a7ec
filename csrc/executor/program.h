// A planned program as the executor runs it: ops whose names have become places in buffers. No
// architecture is known here; what each kind means is defined by src/temper/kernels/reference.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pack.h"

namespace temper {

enum class OpKind : int32_t {
    embed,
    rms_norm,
    linear,
    add_bias,
    rope,
    kv_write,
    rope_kv_write,
    attention,
    silu_mul,
    add,
    select_rows,
};

// What a linear op does to its input first.
enum class Prologue : int32_t { none, norm, silu };

// Columns [column, column + width) of a buffer.
struct Place {
    int32_t buffer = -1;
    int64_t column = 0;
    int64_t width = 0;
};

struct OpSpec {
    OpKind kind;
    std::string label;  // names the op in `op_times`
    Place out;          // buffer -1: none
    std::vector<Place> args;
    std::vector<const PackedWeight*> matrices;  // kept alive by whoever built the program
    std::vector<float> vector;                  // norm weight, or rotary frequencies
    std::vector<float> bias;
    Prologue prologue = Prologue::none;
    bool add_residual = false;  // the last argument is added to a linear's result
    int64_t digits = 1;         // bytes of an activation of a linear op in integers: 1 or 2
    int64_t bf16_rows = 0;      // rows from which on a linear op multiplies in bf16; 0: never
    float eps = 0;
    float scale = 1;
    int64_t layer = 0;
    int64_t num_heads = 0;
    int64_t num_kv_heads = 0;
    int64_t head_dim = 0;
    int64_t window = 0;  // 0: all
    bool interleaved = false;
};

// What an executor is built for; see ExecutorSpec in kernels/executor.py.
struct ExecutorSizes {
    int64_t num_layers;
    int64_t kv_width;
    int64_t num_blocks;
    int64_t block_tokens;
    bool half;
    int64_t max_step_tokens;
    int64_t max_logit_rows;
};

// A ragged batch; see StepBatch in kernels/executor.py.
struct StepBatch {
    int64_t num_tokens;
    int64_t num_sequences;
    int64_t table_width;
    int64_t num_logit_rows;
    const int32_t* tokens;
    const int32_t* positions;
    const int32_t* q_starts;
    const int32_t* context_lens;
    const int32_t* block_tables;
    const int32_t* logit_rows;
    const int32_t* adapters;  // slot per sequence, -1: none; nullptr: no sequence has one
};

}  // namespace temper
