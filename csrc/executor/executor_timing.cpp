// What ops take, move and compute: the counters behind `temper trace`. Nothing here runs while timing is off.
#include <algorithm>

#include "executor/executor_parts.h"

namespace temper {

namespace {

// Bytes and operations of an op, but for attention. Those of small ops are not told: what they read and
// write are activations.
void count_work(const OpSpec& op, int64_t num_rows, int64_t kv_number_bytes, OpTime& time) {
    switch (op.kind) {
        case OpKind::linear:
            for (const PackedWeight* weight : op.matrices) {
                const PackedMatrix& w = weight->matrix();
                const bool one_digit = is_float(w.format) || multiplies_in_bf16(op, w, num_rows);
                const int64_t digits = one_digit ? 1 : op.digits;
                if (num_rows > 0) time.bytes += weight->bytes();
                time.operations += 2 * digits * num_rows * w.n * w.k;
                if (multiplies_in_bf16(op, w, num_rows)) time.bf16_operations += 2 * num_rows * w.n * w.k;
            }
            return;
        case OpKind::embed:
            time.bytes += num_rows * (op.matrices[0]->bytes() / op.matrices[0]->matrix().n);
            return;
        case OpKind::kv_write:
            time.bytes += num_rows * (op.args[0].width + op.args[1].width) * kv_number_bytes;
            return;
        case OpKind::rope_kv_write:
            time.bytes += num_rows * (op.args[1].width + op.args[2].width) * kv_number_bytes;
            return;
        default:
            return;
    }
}

}  // namespace

void Executor::build_times() {
    for (const OpSpec& op : ops_) {
        const auto same = [&](const OpTime& time) { return time.label == op.label; };
        const auto found = std::find_if(times_.begin(), times_.end(), same);
        time_of_.push_back(static_cast<size_t>(found - times_.begin()));
        if (found != times_.end()) continue;
        for (size_t phase = 0; phase < kPhases; ++phase)
            times_.push_back({op.label, static_cast<Phase>(phase)});
    }
}

void Executor::reset_op_times() {
    for (OpTime& time : times_) time = {time.label, time.phase};
}

void Executor::run_timed(const OpSpec& op, size_t index, const StepBatch& batch, int64_t num_rows,
                         Phase phase) {
    OpTime* times = &times_[time_of_[index]];
    int64_t ns = 0;
    {
        const Stopwatch stopwatch(&ns);
        run(op, index, batch, num_rows);
    }
    if (op.kind == OpKind::attention) {
        count_attention(op, batch, ns, times);
        return;
    }
    OpTime& time = times[static_cast<size_t>(phase)];
    time.calls += 1;
    time.ns += ns;
    count_work(op, num_rows, cache_.number_bytes(), time);
    adapters_.count(index, time.bytes, time.operations);
}

// The op's time goes to prefill and decode as the time of its items did, whoever's thread they ran on.
void Executor::count_attention(const OpSpec& op, const StepBatch& batch, int64_t ns, OpTime* times) {
    int64_t item_ns[kPhases] = {};
    for (Scratch& scratch : scratch_) {
        for (size_t phase = 0; phase < kPhases; ++phase) {
            item_ns[phase] += scratch.item_ns[phase];
            scratch.item_ns[phase] = 0;
        }
    }
    bool has[kPhases] = {};
    for (int64_t s = 0; s < batch.num_sequences; ++s) {
        const auto phase = static_cast<size_t>(phase_of(batch, s));
        has[phase] = true;
        const int64_t rows = batch.q_starts[s + 1] - batch.q_starts[s], context = batch.context_lens[s];
        // Row i of `rows` sees the positions up to its own: context - rows + 1 + i of them, or the window's.
        const int64_t most = op.window > 0 ? std::min(op.window, context) : context;
        const int64_t least = std::min(most, context - rows + 1), growing = most - least;
        const int64_t pairs =
            least * (growing + 1) + growing * (growing + 1) / 2 + (rows - growing - 1) * most;
        times[phase].bytes +=
            2 * std::min(context, most + rows - 1) * sizes_.kv_width * cache_.number_bytes();
        times[phase].operations += 4 * pairs * op.num_heads * op.head_dim;
    }
    const int64_t all = std::max<int64_t>(1, item_ns[0] + item_ns[1]);
    const auto of_prefill =
        has[1] ? static_cast<int64_t>(static_cast<double>(ns) * static_cast<double>(item_ns[0]) /
                                      static_cast<double>(all))
               : ns;
    times[0].ns += of_prefill;
    times[1].ns += ns - of_prefill;
    times[0].calls += has[0];
    times[1].calls += has[1];
}

}  // namespace temper
