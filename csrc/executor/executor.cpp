#include "executor/executor.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "executor/executor_parts.h"

namespace temper {

namespace {

[[noreturn]] void reject(const std::string& message) { throw std::invalid_argument(message); }

void require(bool holds, const char* message) {
    if (!holds) reject(message);
}

std::string outside(const char* what, int64_t value, int64_t bound) {
    return std::string(what) + " must be in [0, " + std::to_string(bound) + "); got " + std::to_string(value);
}

}  // namespace

Executor::Executor(const ExecutorSizes& sizes, std::vector<int64_t> buffer_widths, std::vector<OpSpec> ops,
                   const KernelSet& kernels, int threads, std::vector<int> cpus)
    : sizes_(sizes),
      widths_(std::move(buffer_widths)),
      ops_(std::move(ops)),
      kernels_(kernels),
      pool_(threads, std::move(cpus)),
      cache_(sizes.num_layers, sizes.num_blocks, sizes.block_tokens, sizes.kv_width, sizes.half),
      logits_buffer_(static_cast<int32_t>(widths_.size()) - 1),
      adapters_(static_cast<int64_t>(ops_.size()), std::max(sizes.max_step_tokens, sizes.max_logit_rows),
                lora_kernels(kernels)) {
    check_program();
    for (SweepRows& rows : sweep_rows_) std::copy_n(kernels_.sweep_rows, kSweeps, rows);
    vocab_size_ = widths_.back();
    for (int64_t& width : widths_) {
        const bool is_logits = &width == &widths_.back();
        if (!is_logits) width = row_stride(width);
        const int64_t num_rows = is_logits ? sizes_.max_logit_rows : sizes_.max_step_tokens;
        buffers_.emplace_back(static_cast<size_t>(num_rows * width * 4));
    }
    edges_.resize(static_cast<size_t>(max_chunks(sizes_.max_logit_rows)) + 1);
    tops_.resize(static_cast<size_t>(sizes_.max_logit_rows * max_parts()));
    int64_t max_k = 0, max_sum = 0;
    for (const OpSpec& op : ops_) {
        max_head_dim_ = std::max(max_head_dim_, op.head_dim);
        if (op.kind != OpKind::linear) continue;
        max_k = std::max(max_k, op.matrices[0]->matrix().k);
        if (op.add_residual) max_sum = std::max(max_sum, op.out.width);
    }
    const int64_t tokens = sizes_.max_step_tokens;
    prepared_ = LazyMemory(static_cast<size_t>(tokens * row_stride(max_k) * 4));
    const int64_t num_groups = tokens * activation_groups(max_k);
    groups_ = LazyMemory(static_cast<size_t>(num_groups) * sizeof(ActivationGroup));
    fine_ = LazyMemory(static_cast<size_t>(num_groups) * sizeof(FineGroup));
    const int64_t tile_rows = (tokens + kRowTile - 1) / kRowTile * kRowTile;
    tiles_ = LazyMemory(static_cast<size_t>(tile_rows * activation_groups(max_k) * kGroup * 2));
    products_ = LazyMemory(static_cast<size_t>(tokens * row_stride(max_sum) * 4));

    max_splits_ = (sizes_.num_blocks * sizes_.block_tokens + kSplit - 1) / kSplit;
    for (int worker = 0; worker < pool_.threads(); ++worker) scratch_.emplace_back(max_head_dim_);
    partials_ = LazyMemory(
        static_cast<size_t>(max_items(pool_) * max_splits_ * kTileRows * partial_floats(max_head_dim_) * 4));
    pending_ = std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(max_items(pool_)));
    first_tile_.resize(static_cast<size_t>(tokens + 1));

    build_rope_tables();
    build_times();
}

Executor::~Executor() = default;

void Executor::set_sweeps(WeightFormat format, int64_t panel_from, int64_t pair_from) {
    int64_t* rows = sweep_rows_[static_cast<size_t>(format)];
    rows[static_cast<size_t>(Sweep::panel)] = panel_from;
    rows[static_cast<size_t>(Sweep::pair)] = pair_from;
}

// -- what is refused -------------------------------------------------------------------------------

void Executor::check_program() const {
    require(sizes_.num_layers > 0 && sizes_.num_blocks > 0 && sizes_.kv_width > 0, "sizes must be positive");
    require(sizes_.max_step_tokens > 0 && sizes_.max_logit_rows > 0, "row limits must be positive");
    require(sizes_.block_tokens >= 16 && sizes_.block_tokens % 16 == 0 && kSplit % sizes_.block_tokens == 0,
            "block_tokens must be 16, 32, 64, 128 or 256");
    require(pool_.threads() >= 1 && pool_.threads() <= 1024, "threads must be between 1 and 1024");
    require(!widths_.empty() && !ops_.empty() && ops_[0].kind == OpKind::embed,
            "a program needs buffers and begins with embed");
    const auto buffers = static_cast<int32_t>(widths_.size());
    const auto fits = [&](const Place& p) {
        return p.buffer >= 0 && p.buffer < buffers && p.column >= 0 && p.width > 0 &&
               p.column + p.width <= widths_[static_cast<size_t>(p.buffer)];
    };
    bool selected = false;
    for (const OpSpec& op : ops_) {
        require(op.head_dim <= kMaxHeadDim, "head_dim may be at most 512");
        const bool writes = op.kind != OpKind::kv_write;
        require(!writes || fits(op.out), "an op writes outside its buffer");
        require(!writes || op.out.buffer != logits_buffer_ || selected, "logits must follow select_rows");
        for (const Place& arg : op.args)
            require(fits(arg) && arg.buffer != logits_buffer_, "an op reads outside its buffer");
        const auto num_args = static_cast<int64_t>(op.args.size());
        const auto takes = [&](int64_t count) {
            require(num_args == count, "an op has the wrong number of arguments");
        };
        const auto same_width = [&](size_t arg) {
            require(op.args[arg].width == op.out.width, "an op's argument is not as wide as its result");
        };
        const auto in_cache = [&](size_t arg) {
            require(op.args[arg].width == sizes_.kv_width && op.head_dim > 0 &&
                        sizes_.kv_width % op.head_dim == 0,
                    "keys and values must be kv_width wide, in whole heads");
            require(op.layer >= 0 && op.layer < sizes_.num_layers, "layer is outside the cache");
        };
        const auto rotary = [&](size_t arg) {
            require(op.head_dim > 0 && op.head_dim % 2 == 0 && op.args[arg].width % op.head_dim == 0,
                    "rope needs whole heads of even size");
            require(static_cast<int64_t>(op.vector.size()) == op.head_dim / 2,
                    "rope needs head_dim / 2 frequencies");
        };
        switch (op.kind) {
            case OpKind::embed:
                takes(0);
                require(op.matrices.size() == 1 && op.matrices[0]->matrix().k == op.out.width,
                        "embed needs a table as wide as its result");
                require(&op == &ops_[0], "a program embeds once");
                break;
            case OpKind::rms_norm:
                takes(1);
                same_width(0);
                require(!op.vector.empty() && op.out.width % static_cast<int64_t>(op.vector.size()) == 0,
                        "rms_norm needs a weight that divides its width");
                break;
            case OpKind::linear: {
                takes((op.prologue == Prologue::silu ? 2 : 1) + (op.add_residual ? 1 : 0));
                require(!op.matrices.empty(), "linear needs a matrix");
                require(op.digits == 1 || op.digits == 2, "a linear op has 1 or 2 digits");
                require(op.bf16_rows >= 0, "bf16_rows must not be negative");
                int64_t n = 0;
                for (const PackedWeight* weight : op.matrices) {
                    require(weight->matrix().k == op.args[0].width, "a matrix does not fit its input");
                    n += weight->matrix().n;
                }
                require(n == op.out.width, "the matrices do not fit the result");
                require(op.prologue != Prologue::silu || op.args[1].width == op.args[0].width,
                        "gate and up must be equally wide");
                require(op.prologue != Prologue::norm ||
                            static_cast<int64_t>(op.vector.size()) == op.args[0].width,
                        "the norm weight must be as wide as the input");
                require(op.bias.empty() || static_cast<int64_t>(op.bias.size()) == n, "the bias must fit");
                if (op.add_residual) same_width(op.args.size() - 1);
                break;
            }
            case OpKind::add_bias:
                takes(1);
                same_width(0);
                require(static_cast<int64_t>(op.bias.size()) == op.out.width, "the bias must fit");
                break;
            case OpKind::rope:
                takes(1);
                same_width(0);
                rotary(0);
                break;
            case OpKind::kv_write:
                takes(2);
                in_cache(0);
                in_cache(1);
                break;
            case OpKind::rope_kv_write:
                takes(3);
                same_width(0);
                rotary(0);
                rotary(1);
                in_cache(1);
                in_cache(2);
                break;
            case OpKind::attention:
                takes(1);
                same_width(0);
                require(op.layer >= 0 && op.layer < sizes_.num_layers, "layer is outside the cache");
                require(op.num_kv_heads > 0 && op.num_heads % op.num_kv_heads == 0 && op.head_dim > 0 &&
                            op.num_heads * op.head_dim == op.out.width &&
                            op.num_kv_heads * op.head_dim == sizes_.kv_width,
                        "attention's heads do not fit its input or the cache");
                require(op.window >= 0, "window must not be negative");
                break;
            case OpKind::silu_mul:
            case OpKind::add:
                takes(2);
                same_width(0);
                same_width(1);
                break;
            case OpKind::select_rows:
                takes(1);
                same_width(0);
                require(!selected, "a program selects rows once");
                selected = true;
                break;
        }
        require(!selected || (op.kind != OpKind::rope && op.kind != OpKind::kv_write &&
                              op.kind != OpKind::rope_kv_write && op.kind != OpKind::attention &&
                              op.kind != OpKind::embed),
                "an op that needs positions follows select_rows");
    }
}

void Executor::check_batch(const StepBatch& batch) const {
    const int64_t num_tokens = batch.num_tokens, num_sequences = batch.num_sequences;
    if (num_tokens < 1 || num_tokens > sizes_.max_step_tokens)
        reject("a step takes 1 to " + std::to_string(sizes_.max_step_tokens) + " tokens; got " +
               std::to_string(num_tokens));
    if (batch.num_logit_rows > sizes_.max_logit_rows)
        reject("a step leaves at most " + std::to_string(sizes_.max_logit_rows) + " logit rows; got " +
               std::to_string(batch.num_logit_rows));
    for (int64_t i = 0; i < num_tokens; ++i)
        if (batch.tokens[i] < 0 || batch.tokens[i] >= ops_[0].matrices[0]->matrix().n)
            reject(outside("token ids", batch.tokens[i], ops_[0].matrices[0]->matrix().n));
    for (int64_t i = 0; i < batch.num_logit_rows; ++i) {
        const int32_t row = batch.logit_rows[i];
        if (row < 0 || row >= num_tokens) reject(outside("logit_rows", row, num_tokens));
        if (i > 0 && row <= batch.logit_rows[i - 1]) reject("logit_rows must ascend");
    }
    if (num_sequences < 1 || batch.q_starts[0] != 0 || batch.q_starts[num_sequences] != num_tokens)
        reject("q_starts must ascend from 0 to " + std::to_string(num_tokens));
    for (int64_t s = 0; s < num_sequences; ++s) {
        const int64_t begin = batch.q_starts[s], end = batch.q_starts[s + 1];
        if (begin >= end || end > num_tokens)
            reject("q_starts must ascend from 0 to " + std::to_string(num_tokens));
        const int64_t context = batch.context_lens[s];
        const std::string sequence = " of sequence " + std::to_string(s);
        if (context < end - begin)
            reject("context_lens" + sequence + " is less than its tokens in this step");
        for (int64_t i = begin; i < end; ++i)
            if (batch.positions[i] != context - (end - i))
                reject("positions" + sequence + " must run up to its context length " +
                       std::to_string(context) + " - 1");
        if (batch.adapters != nullptr && batch.adapters[s] != -1 && !adapters_.has(batch.adapters[s]))
            reject("no adapter is attached at slot " + std::to_string(batch.adapters[s]));
        const int64_t pages = (context + sizes_.block_tokens - 1) / sizes_.block_tokens;
        if (pages > batch.table_width)
            reject("sequence " + std::to_string(s) + " needs " + std::to_string(pages) +
                   " pages; its table has " + std::to_string(batch.table_width));
        for (int64_t page = 0; page < pages; ++page) {
            const int32_t block = batch.block_tables[s * batch.table_width + page];
            if (block < 0 || block >= sizes_.num_blocks)
                reject(outside("block ids", block, sizes_.num_blocks) + sequence);
        }
    }
}

// -- a step ----------------------------------------------------------------------------------------

void Executor::forward(const StepBatch& batch) {
    check_batch(batch);
    pool_.settle_caller();
    extend_rope_tables(batch);
    num_logit_rows_ = batch.num_logit_rows;
    adapters_.begin(batch);
    int64_t num_rows = batch.num_tokens;
    const Phase phase = timing_ ? phase_of_step(batch) : Phase::mixed;
    for (size_t i = 0; i < ops_.size(); ++i) {
        if (ops_[i].kind == OpKind::select_rows) {
            num_rows = batch.num_logit_rows;
            adapters_.select(batch);
        }
        if (timing_)
            run_timed(ops_[i], i, batch, num_rows, phase);
        else
            run(ops_[i], i, batch, num_rows);
    }
    if (ops_.back().kind != OpKind::linear) top_alone();
}

// The largest logits where no head found them on the way: in one part.
void Executor::top_alone() {
    num_parts_ = 1;
    edges_[0] = 0;
    edges_[1] = vocab_size_;
    const float* values = buffer({logits_buffer_, 0, vocab_size_});
    for (int64_t r = 0; r < num_logit_rows_; ++r)
        tops_[static_cast<size_t>(r * max_parts())] =
            kernels_.max_value(values + r * vocab_size_, vocab_size_);
}

// Rows in few chunks over the pool, or here where they cost less than sharing them does.
template <class Work>
void Executor::for_rows(int64_t num_rows, int64_t row_cost, const Work& work) {
    constexpr int64_t kWorthSharing = 4096;  // elements
    if (num_rows * row_cost < kWorthSharing) {
        for (int64_t row = 0; row < num_rows; ++row) work(row);
        return;
    }
    const int64_t chunks = std::min<int64_t>(num_rows, 4 * pool_.threads());
    pool_.run(chunks, [&](int64_t chunk, int) {
        for (int64_t row = num_rows * chunk / chunks; row < num_rows * (chunk + 1) / chunks; ++row) work(row);
    });
}

void Executor::run(const OpSpec& op, size_t index, const StepBatch& batch, int64_t num_rows) {
    const int64_t width = op.out.width;
    switch (op.kind) {
        case OpKind::embed: {
            const PackedMatrix& table = op.matrices[0]->matrix();
            const Rows out = rows(op.out);
            constexpr int64_t kRows = 16;
            pool_.run((num_rows + kRows - 1) / kRows, [&](int64_t chunk, int) {
                const int64_t first = chunk * kRows;
                lookup_rows(table, batch.tokens + first, std::min(kRows, num_rows - first), out[first],
                            out.stride);
            });
            return;
        }
        case OpKind::rms_norm: {
            const Rows x = rows(op.args[0]), out = rows(op.out);
            const auto slice = static_cast<int64_t>(op.vector.size());
            for_rows(num_rows, width, [&](int64_t r) {
                for (int64_t at = 0; at < width; at += slice)
                    kernels_.rms_norm(x[r] + at, op.vector.data(), slice, op.eps, out[r] + at);
            });
            return;
        }
        case OpKind::linear:
            run_linear(op, index, num_rows);
            return;
        case OpKind::add_bias: {
            const Rows x = rows(op.args[0]), out = rows(op.out);
            for_rows(num_rows, width, [&](int64_t r) { kernels_.add(x[r], op.bias.data(), width, out[r]); });
            return;
        }
        case OpKind::rope:
            run_rope(op, index, batch);
            return;
        case OpKind::kv_write:
        case OpKind::rope_kv_write:
            run_kv_write(op, index, batch);
            return;
        case OpKind::attention:
            run_attention(op, batch);
            return;
        case OpKind::silu_mul: {
            const Rows gate = rows(op.args[0]), up = rows(op.args[1]), out = rows(op.out);
            for_rows(num_rows, width, [&](int64_t r) { kernels_.silu_mul(gate[r], up[r], width, out[r]); });
            return;
        }
        case OpKind::add: {
            const Rows a = rows(op.args[0]), b = rows(op.args[1]), out = rows(op.out);
            for_rows(num_rows, width, [&](int64_t r) { kernels_.add(a[r], b[r], width, out[r]); });
            return;
        }
        case OpKind::select_rows: {
            const Rows x = rows(op.args[0]), out = rows(op.out);
            for (int64_t r = 0; r < num_rows; ++r) std::copy_n(x[batch.logit_rows[r]], width, out[r]);
            return;
        }
    }
}

// -- rotary positions and the cache ----------------------------------------------------------------

void Executor::build_rope_tables() {
    for (const OpSpec& op : ops_) {
        if (op.kind != OpKind::rope && op.kind != OpKind::rope_kv_write) {
            rope_table_of_.push_back(-1);
            continue;
        }
        const auto same = [&](const RopeTable& t) { return t.inv_freq == op.vector && t.scale == op.scale; };
        auto found = std::find_if(rope_tables_.begin(), rope_tables_.end(), same);
        if (found == rope_tables_.end()) {
            const int64_t positions = sizes_.num_blocks * sizes_.block_tokens;
            const size_t bytes = static_cast<size_t>(positions) * op.vector.size() * 2 * sizeof(float);
            rope_tables_.push_back({op.vector, op.scale, LazyMemory(bytes)});
            found = rope_tables_.end() - 1;
        }
        rope_table_of_.push_back(static_cast<int32_t>(found - rope_tables_.begin()));
    }
}

// Angles are float32 products, as Hugging Face has them; each position is computed once.
void Executor::extend_rope_tables(const StepBatch& batch) {
    const int32_t* contexts = batch.context_lens;
    const int64_t longest = *std::max_element(contexts, contexts + batch.num_sequences);
    for (RopeTable& table : rope_tables_) {
        const auto half = static_cast<int64_t>(table.inv_freq.size());
        for (; table.filled < longest; ++table.filled) {
            float* cos = table.cos(table.filled);
            for (int64_t i = 0; i < half; ++i) {
                const float angle = static_cast<float>(table.filled) * table.inv_freq[static_cast<size_t>(i)];
                cos[i] = static_cast<float>(std::cos(static_cast<double>(angle)) * table.scale);
                cos[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * table.scale);
            }
        }
    }
}

void Executor::run_rope(const OpSpec& op, size_t index, const StepBatch& batch) {
    const RopeTable& table = rope_tables_[static_cast<size_t>(rope_table_of_[index])];
    const Rows x = rows(op.args[0]), out = rows(op.out);
    for_rows(batch.num_tokens, op.out.width, [&](int64_t r) {
        const float* cos = table.cos(batch.positions[r]);
        kernels_.rotate(x[r], cos, cos + op.head_dim / 2, op.out.width / op.head_dim, op.head_dim,
                        op.interleaved, out[r]);
    });
}

void Executor::run_kv_write(const OpSpec& op, size_t index, const StepBatch& batch) {
    const bool rotates = op.kind == OpKind::rope_kv_write;
    const RopeTable* table = rotates ? &rope_tables_[static_cast<size_t>(rope_table_of_[index])] : nullptr;
    const int64_t kv_heads = sizes_.kv_width / op.head_dim;
    // Heads [head, head + heads) of row r of sequence s.
    const auto write = [&](int64_t s, int64_t r, int64_t head, int64_t heads, const float* k,
                           const float* v) {
        const int64_t position = batch.positions[r];
        const int64_t block = batch.block_tables[s * batch.table_width + position / sizes_.block_tokens];
        const int64_t offset = head * op.head_dim * sizes_.block_tokens * cache_.number_bytes();
        kernels_.kv_store(k, v, heads, op.head_dim, sizes_.block_tokens, position % sizes_.block_tokens,
                          cache_.half(), cache_.keys(block, op.layer) + offset,
                          cache_.values(block, op.layer) + offset);
    };
    const Rows first = rows(op.args[0]), second = rows(op.args[1]);
    for_rows(batch.num_tokens, 2 * sizes_.kv_width + (rotates ? op.out.width : 0), [&](int64_t r) {
        const int32_t* after =
            std::upper_bound(batch.q_starts, batch.q_starts + batch.num_sequences, static_cast<int32_t>(r));
        const int64_t s = after - batch.q_starts - 1;
        if (!rotates) {
            write(s, r, 0, kv_heads, first[r], second[r]);
            return;
        }
        const float* cos = table->cos(batch.positions[r]);
        const float* sin = cos + op.head_dim / 2;
        kernels_.rotate(first[r], cos, sin, op.out.width / op.head_dim, op.head_dim, op.interleaved,
                        rows(op.out)[r]);
        for (int64_t h = 0; h < kv_heads; ++h) {
            float rotated[kMaxHeadDim];
            kernels_.rotate(second[r] + h * op.head_dim, cos, sin, 1, op.head_dim, op.interleaved, rotated);
            write(s, r, h, 1, rotated, rows(op.args[2])[r] + h * op.head_dim);
        }
    });
}

}  // namespace temper
