#include "executor/adapter.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace temper {

namespace {

constexpr int64_t kRowsAtOnce = 32;  // of a run, in one piece of work

int64_t pieces(int64_t rows) { return (rows + kRowsAtOnce - 1) / kRowsAtOnce; }

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

void check(const std::vector<OpSpec>& ops, const AdapterPart& part) {
    require(part.op >= 0 && part.op < static_cast<int64_t>(ops.size()),
            "an adapter names an op that is not there");
    const OpSpec& op = ops[static_cast<size_t>(part.op)];
    require(op.kind == OpKind::linear, "an adapter adds to linear ops only");
    const PackedMatrix& shrink = part.shrink->matrix();
    require(is_float(shrink.format) && shrink.k == op.args[0].width, "an adapter's A does not fit its op");
    require(static_cast<int64_t>(part.scales.size()) == shrink.n, "an adapter needs one scale per rank");
    for (const AdapterExpand& expand : part.expands) {
        require(expand.matrix >= 0 && expand.matrix < static_cast<int64_t>(op.matrices.size()),
                "an adapter names a matrix that its op has not");
        const PackedMatrix& w = expand.weight->matrix();
        require(is_float(w.format) && w.n == op.matrices[static_cast<size_t>(expand.matrix)]->matrix().n &&
                    expand.first_rank >= 0 && expand.first_rank + w.k <= shrink.n,
                "an adapter's B does not fit its matrix");
    }
}

}  // namespace

Adapters::Adapters(int64_t num_ops, int64_t max_rows, const LoraKernels& kernels)
    : num_ops_(num_ops), max_rows_(max_rows), kernels_(kernels), slot_of_(static_cast<size_t>(max_rows)) {
    runs_.reserve(static_cast<size_t>(max_rows));
}

int32_t Adapters::attach(const std::vector<OpSpec>& ops, std::vector<AdapterPart> parts) {
    auto made = std::make_unique<Adapter>();
    made->part_of.assign(static_cast<size_t>(num_ops_), -1);
    int64_t width = width_;
    for (size_t i = 0; i < parts.size(); ++i) {
        check(ops, parts[i]);
        int32_t& at = made->part_of[static_cast<size_t>(parts[i].op)];
        require(at < 0, "an adapter has two parts for one op");
        at = static_cast<int32_t>(i);
        const int64_t lanes = parts[i].shrink->matrix().panels() * kLanes;
        parts[i].scales.resize(static_cast<size_t>(lanes));  // kernels read whole panels
        width = std::max(width, lanes);
    }
    made->parts = std::move(parts);
    if (width > width_) {
        shrunk_ = LazyMemory(static_cast<size_t>(max_rows_ * width * 4));
        width_ = width;
    }
    const auto free = std::find(adapters_.begin(), adapters_.end(), nullptr);
    const auto slot = static_cast<int32_t>(free - adapters_.begin());
    if (free == adapters_.end()) adapters_.emplace_back();
    adapters_[static_cast<size_t>(slot)] = std::move(made);
    return slot;
}

void Adapters::detach(int64_t slot) {
    if (!has(slot)) throw std::invalid_argument("no adapter is attached at slot " + std::to_string(slot));
    runs_.clear();  // they are the last step's
    adapters_[static_cast<size_t>(slot)] = nullptr;
}

void Adapters::push(int64_t row, int32_t slot) {
    if (slot < 0) return;
    const Adapter* adapter = adapters_[static_cast<size_t>(slot)].get();
    if (!runs_.empty() && runs_.back().adapter == adapter && runs_.back().begin + runs_.back().rows == row)
        ++runs_.back().rows;
    else
        runs_.push_back({row, 1, adapter});
}

void Adapters::begin(const StepBatch& batch) {
    runs_.clear();
    if (batch.adapters == nullptr) return;
    for (int64_t s = 0; s < batch.num_sequences; ++s)
        for (int64_t row = batch.q_starts[s]; row < batch.q_starts[s + 1]; ++row) {
            slot_of_[static_cast<size_t>(row)] = batch.adapters[s];
            push(row, batch.adapters[s]);
        }
}

void Adapters::select(const StepBatch& batch) {
    if (batch.adapters == nullptr) return;
    runs_.clear();
    for (int64_t i = 0; i < batch.num_logit_rows; ++i)
        push(i, slot_of_[static_cast<size_t>(batch.logit_rows[i])]);
}

bool Adapters::shrink(size_t op, const ActivationRows& x, ThreadPool& pool) {
    int64_t chunks = 0;  // a panel of one run's A, for some of its rows
    for (const Run& run : runs_)
        if (const AdapterPart* part = run.adapter->part(op))
            chunks += part->shrink->matrix().panels() * pieces(run.rows);
    if (chunks == 0) return false;
    pool.run(chunks, [&](int64_t chunk, int) {
        for (const Run& run : runs_) {
            const AdapterPart* part = run.adapter->part(op);
            if (part == nullptr) continue;
            const PackedMatrix& w = part->shrink->matrix();
            if (chunk >= w.panels() * pieces(run.rows)) {
                chunk -= w.panels() * pieces(run.rows);
                continue;
            }
            const int64_t panel = chunk % w.panels(), first = chunk / w.panels() * kRowsAtOnce;
            const int64_t row = run.begin + first, rows = std::min(kRowsAtOnce, run.rows - first);
            kernels_.shrink(w, x.f32 + row * x.f32_stride, x.f32_stride, rows, panel, part->scales.data(),
                            shrunk_.as<float>() + row * width_, width_);
            return;
        }
    });
    return true;
}

void Adapters::add(size_t op, size_t matrix, int64_t from, int64_t to, float* y, int64_t stride) const {
    for (const Run& run : runs_) {
        const AdapterPart* part = run.adapter->part(op);
        if (part == nullptr) continue;
        for (const AdapterExpand& expand : part->expands) {
            if (expand.matrix != static_cast<int64_t>(matrix)) continue;
            const float* ranks = shrunk_.as<float>() + run.begin * width_ + expand.first_rank;
            kernels_.expand(expand.weight->matrix(), ranks, width_, run.rows, from, to,
                            y + run.begin * stride, stride);
        }
    }
}

void Adapters::count(size_t op, int64_t& bytes, int64_t& operations) const {
    for (auto run = runs_.begin(); run != runs_.end(); ++run) {
        const AdapterPart* part = run->adapter->part(op);
        if (part == nullptr) continue;
        const bool seen =
            std::any_of(runs_.begin(), run, [&](const Run& r) { return r.adapter == run->adapter; });
        const auto count = [&](const PackedWeight& weight) {
            if (!seen) bytes += weight.bytes();
            operations += 2 * run->rows * weight.matrix().n * weight.matrix().k;
        };
        count(*part->shrink);
        for (const AdapterExpand& expand : part->expands) count(*expand.weight);
    }
}

}  // namespace temper
