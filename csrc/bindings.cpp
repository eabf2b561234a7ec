// The native module as Python sees it. Arrays are checked here, where they enter: a wrong shape or an id
// out of range raises, and never reaches a kernel.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bind_weights.h"
#include "executor/executor.h"
#include "executor/sampler.h"
#include "kernels/kernel_set.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

void bind_machine_limits(nb::module_& m);

namespace temper {

namespace {

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Tables = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using MaybeIds = std::optional<Ids>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void reject(const std::string& message) { throw std::invalid_argument(message); }

int64_t length(const Ids& ids) { return static_cast<int64_t>(ids.size()); }

void require_ids(const char* name, const Ids& ids, int64_t lowest, int64_t bound) {
    for (int64_t i = 0; i < length(ids); ++i) {
        const int32_t id = ids.data()[i];
        if (id < lowest || id >= bound)
            reject(std::string(name) + " must be in [" + std::to_string(lowest) + ", " +
                   std::to_string(bound) + "); got " + std::to_string(id));
    }
}

template <class Value>
nb::ndarray<nb::numpy, Value> array_of(std::vector<size_t> shape, Value*& data) {
    size_t size = 1;
    for (const size_t extent : shape) size *= extent;
    data = new Value[size == 0 ? 1 : size];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<Value*>(p); });
    return nb::ndarray<nb::numpy, Value>(data, shape.size(), shape.data(), owner);
}

constexpr int kMostCpus = 1024;  // what a cpu_set_t holds

// An executor and the sampler on its logits. Keeps the Python objects that own its weights.
class NativeExecutor {
  public:
    NativeExecutor(const ExecutorSizes& sizes, std::vector<int64_t> widths, std::vector<OpSpec> ops,
                   const std::string& isa, int threads, std::vector<int> cpus, nb::object weights)
        : weights_(std::move(weights)),
          executor_(sizes, std::move(widths), std::move(ops), kernels_named(isa), require_threads(threads),
                    require_cpus(std::move(cpus))),
          sampler_(executor_.kernels(), executor_.pool(), executor_.vocab_size()) {}

    void forward(const Ids& tokens, const Ids& positions, const Ids& q_starts, const Ids& context_lens,
                 const Tables& block_tables, const Ids& logit_rows, const MaybeIds& adapters) {
        if (length(positions) != length(tokens)) reject("positions must have one entry per token");
        if (length(q_starts) != length(context_lens) + 1)
            reject("q_starts must have one entry more than context_lens");
        if (static_cast<int64_t>(block_tables.shape(0)) != length(context_lens))
            reject("block_tables must have one row per sequence");
        if (adapters && length(*adapters) != length(context_lens))
            reject("adapters must have one entry per sequence");
        const StepBatch batch{length(tokens),
                              length(context_lens),
                              static_cast<int64_t>(block_tables.shape(1)),
                              length(logit_rows),
                              tokens.data(),
                              positions.data(),
                              q_starts.data(),
                              context_lens.data(),
                              block_tables.data(),
                              logit_rows.data(),
                              adapters ? adapters->data() : nullptr};
        nb::gil_scoped_release unlocked;
        executor_.forward(batch);
    }

    int32_t attach_adapter(std::vector<AdapterPart> parts, nb::object weights) {
        const int32_t slot = executor_.attach_adapter(std::move(parts));
        const auto at = static_cast<size_t>(slot);
        if (at >= adapter_weights_.size()) adapter_weights_.resize(at + 1);
        adapter_weights_[at] = std::move(weights);
        return slot;
    }

    void detach_adapter(int64_t slot) {
        executor_.detach_adapter(slot);
        adapter_weights_[static_cast<size_t>(slot)] = nb::object();
    }

    nb::ndarray<nb::numpy, float> logits() const {
        float* data;
        auto out = array_of<float>(
            {static_cast<size_t>(executor_.num_logit_rows()), static_cast<size_t>(executor_.vocab_size())},
            data);
        std::copy_n(executor_.logits().values, out.size(), data);
        return out;
    }

    int32_t open_slot(SamplerParams params, const Ids& prompt) {
        const int64_t vocab = executor_.vocab_size();
        require_ids("prompt", prompt, 0, vocab);
        for (const auto& [token, bias] : params.logit_bias)
            if (token < 0 || token >= vocab || !std::isfinite(bias))
                reject("logit_bias needs token ids of the vocabulary and finite values");
        for (const int32_t token : params.stop_token_ids)
            if (token < 0 || token >= vocab) reject("stop_token_ids must be token ids of the vocabulary");
        return sampler_.open(std::move(params), prompt.data(), length(prompt));
    }

    void close_slot(int32_t slot) { sampler_.close(slot); }

    nb::ndarray<nb::numpy, int32_t> sample(const Ids& rows, const Ids& slots, const Floats& temperatures,
                                           const Ids& forced) {
        const int64_t count = length(rows);
        if (length(slots) != count || static_cast<int64_t>(temperatures.size()) != count ||
            length(forced) != count)
            reject("rows, slots, temperatures and forced must have the same length");
        require_ids("rows", rows, 0, executor_.num_logit_rows());
        require_ids("forced", forced, -1, executor_.vocab_size());
        for (int64_t i = 0; i < count; ++i)
            if (!(temperatures.data()[i] >= 0) || std::isinf(temperatures.data()[i]))
                reject("temperatures must be finite and at least 0");
        int32_t* tokens;
        auto out = array_of<int32_t>({static_cast<size_t>(count)}, tokens);
        {
            nb::gil_scoped_release unlocked;
            sampler_.sample(executor_.logits(), rows.data(), slots.data(), temperatures.data(), forced.data(),
                            count, tokens);
        }
        return out;
    }

    auto logprobs(const Ids& rows, const Ids& tokens, int64_t top_k) {
        const int64_t count = length(rows);
        if (length(tokens) != count) reject("rows and tokens must have the same length");
        if (top_k < 0 || top_k > executor_.vocab_size())
            reject("top_k must be in [0, " + std::to_string(executor_.vocab_size()) + "]");
        require_ids("rows", rows, 0, executor_.num_logit_rows());
        require_ids("tokens", tokens, 0, executor_.vocab_size());
        float *chosen, *top;
        int32_t* ids;
        const auto m = static_cast<size_t>(count), k = static_cast<size_t>(top_k);
        auto chosen_out = array_of<float>({m}, chosen);
        auto ids_out = array_of<int32_t>({m, k}, ids);
        auto top_out = array_of<float>({m, k}, top);
        {
            nb::gil_scoped_release unlocked;
            sampler_.logprobs(executor_.logits(), rows.data(), tokens.data(), count, top_k, chosen, ids, top);
        }
        return nb::make_tuple(chosen_out, ids_out, top_out);
    }

    using OpTimeTuple = std::tuple<std::string, std::string, int64_t, int64_t, int64_t, int64_t, int64_t>;

    std::vector<OpTimeTuple> op_times() const {
        static const char* const kNames[kPhases] = {"prefill", "decode", "mixed"};
        std::vector<OpTimeTuple> out;
        for (const OpTime& time : executor_.op_times())
            if (time.calls > 0)
                out.emplace_back(time.label, kNames[static_cast<size_t>(time.phase)], time.calls, time.ns,
                                 time.bytes, time.operations, time.bf16_operations);
        return out;
    }

    Executor& executor() { return executor_; }

  private:
    static const KernelSet& kernels_named(const std::string& isa) {
        const KernelSet* set = kernel_set(isa.c_str());
        if (set == nullptr) reject("this machine has no kernel set '" + isa + "'");
        return *set;
    }
    static int require_threads(int threads) {
        if (threads < 1 || threads > 1024) reject("threads must be between 1 and 1024");
        return threads;
    }

    static std::vector<int> require_cpus(std::vector<int> cpus) {
        for (const int cpu : cpus)
            if (cpu < 0 || cpu >= kMostCpus)
                reject("cpus must be in [0, " + std::to_string(kMostCpus) + "); got " + std::to_string(cpu));
        return cpus;
    }

    nb::object weights_;
    std::vector<nb::object> adapter_weights_;  // by slot
    Executor executor_;
    Sampler sampler_;
};

using PlaceTuple = std::tuple<int32_t, int64_t, int64_t>;

Place place_of(const PlaceTuple& p) { return {std::get<0>(p), std::get<1>(p), std::get<2>(p)}; }

OpKind kind_named(const std::string& name) {
    static const char* const kNames[] = {"embed",    "rms_norm", "linear",        "add_bias",
                                         "rope",     "kv_write", "rope_kv_write", "attention",
                                         "silu_mul", "add",      "select_rows"};
    for (int32_t i = 0; i < 11; ++i)
        if (name == kNames[i]) return static_cast<OpKind>(i);
    reject("no op is called '" + name + "'");
}

Prologue prologue_named(const std::string& name) {
    if (name == "none") return Prologue::none;
    if (name == "norm") return Prologue::norm;
    if (name == "silu") return Prologue::silu;
    reject("no prologue is called '" + name + "'");
}

std::vector<float> floats_of(const Floats& values) { return {values.data(), values.data() + values.size()}; }

void bind_executor(nb::module_& m) {
    nb::class_<OpSpec>(m, "OpSpec")
        .def(
            "__init__",
            [](OpSpec* self, const std::string& kind, std::string label, const PlaceTuple& out,
               const std::vector<PlaceTuple>& args, std::vector<const PackedWeight*> matrices,
               const Floats& vector, const Floats& bias, const std::string& prologue, bool add_residual,
               int64_t digits, int64_t bf16_rows, float eps, float scale, int64_t layer, int64_t num_heads,
               int64_t num_kv_heads, int64_t head_dim, int64_t window, bool interleaved) {
                new (self) OpSpec{.kind = kind_named(kind),
                                  .label = std::move(label),
                                  .out = place_of(out),
                                  .args = {},
                                  .matrices = std::move(matrices),
                                  .vector = floats_of(vector),
                                  .bias = floats_of(bias),
                                  .prologue = prologue_named(prologue),
                                  .add_residual = add_residual,
                                  .digits = digits,
                                  .bf16_rows = bf16_rows,
                                  .eps = eps,
                                  .scale = scale,
                                  .layer = layer,
                                  .num_heads = num_heads,
                                  .num_kv_heads = num_kv_heads,
                                  .head_dim = head_dim,
                                  .window = window,
                                  .interleaved = interleaved};
                for (const PlaceTuple& arg : args) self->args.push_back(place_of(arg));
            },
            nb::kw_only(), "kind"_a, "label"_a, "out"_a, "args"_a, "matrices"_a, "vector"_a, "bias"_a,
            "prologue"_a, "add_residual"_a, "digits"_a, "bf16_rows"_a, "eps"_a, "scale"_a, "layer"_a,
            "num_heads"_a, "num_kv_heads"_a, "head_dim"_a, "window"_a, "interleaved"_a,
            "One planned op. Places are (buffer, first column, width); buffer -1: none.");

    nb::class_<AdapterPart>(m, "AdapterPart")
        .def(
            "__init__",
            [](AdapterPart* self, int64_t op, const PackedWeight* shrink, const Floats& scales,
               const std::vector<std::tuple<int64_t, const PackedWeight*, int64_t>>& expands) {
                new (self) AdapterPart{op, shrink, floats_of(scales), {}};
                for (const auto& [matrix, weight, first_rank] : expands)
                    self->expands.push_back({matrix, weight, first_rank});
            },
            nb::kw_only(), "op"_a, "shrink"_a, "scales"_a, "expands"_a,
            "What an adapter adds to one op. Expands are (matrix of the op, B, first rank of its A in "
            "shrink).");

    nb::class_<NativeExecutor>(m, "Executor")
        .def(
            "__init__",
            [](NativeExecutor* self, int64_t num_layers, int64_t kv_width, int64_t num_blocks,
               int64_t block_tokens, bool half, int64_t max_step_tokens, int64_t max_logit_rows,
               std::vector<int64_t> buffer_widths, std::vector<OpSpec> ops, const std::string& isa,
               int threads, std::vector<int> cpus, nb::object weights) {
                new (self) NativeExecutor(
                    {num_layers, kv_width, num_blocks, block_tokens, half, max_step_tokens, max_logit_rows},
                    std::move(buffer_widths), std::move(ops), isa, threads, std::move(cpus),
                    std::move(weights));
            },
            nb::kw_only(), "num_layers"_a, "kv_width"_a, "num_blocks"_a, "block_tokens"_a, "half"_a,
            "max_step_tokens"_a, "max_logit_rows"_a, "buffer_widths"_a, "ops"_a, "isa"_a, "threads"_a,
            "cpus"_a, "weights"_a,
            "`weights` is kept alive as long as the executor: the owner of the ops' matrices.")
        .def_prop_ro("vocab_size", [](NativeExecutor& e) { return e.executor().vocab_size(); })
        .def_prop_ro("kv_block_bytes", [](NativeExecutor& e) { return e.executor().kv_block_bytes(); })
        .def_prop_ro("isa", [](NativeExecutor& e) { return std::string(e.executor().kernels().name); })
        .def_prop_ro("threads", [](NativeExecutor& e) { return e.executor().pool().threads(); })
        .def("forward", &NativeExecutor::forward, "tokens"_a, "positions"_a, "q_starts"_a, "context_lens"_a,
             "block_tables"_a, "logit_rows"_a, "adapters"_a.none())
        .def(
            "attach_adapter", &NativeExecutor::attach_adapter, "parts"_a, "weights"_a,
            "Returns a slot. `weights` is kept alive until it is detached: the owner of the parts' matrices.")
        .def("detach_adapter", &NativeExecutor::detach_adapter, "slot"_a)
        .def(
            "set_sweeps",
            [](NativeExecutor& e, const PackedWeight& like, int64_t panel_from, int64_t pair_from) {
                e.executor().set_sweeps(like.matrix().format, panel_from, pair_from);
            },
            "like"_a, "panel_from"_a, "pair_from"_a,
            "Rows from which on products with matrices in the format of `like` are swept by panels, and by "
            "pairs.")
        .def("logits", &NativeExecutor::logits)
        .def(
            "open_slot",
            [](NativeExecutor& self, const Ids& prompt, uint64_t seed, uint64_t sample_index, double top_p,
               int64_t top_k, float min_p, float repetition_penalty, float presence_penalty,
               float frequency_penalty, int64_t no_repeat_ngram_size, int64_t min_tokens,
               std::vector<std::pair<int32_t, float>> logit_bias, std::vector<int32_t> stop_token_ids) {
                return self.open_slot({seed, sample_index, top_p, top_k, min_p, repetition_penalty,
                                       presence_penalty, frequency_penalty, no_repeat_ngram_size, min_tokens,
                                       std::move(logit_bias), std::move(stop_token_ids)},
                                      prompt);
            },
            "prompt"_a, nb::kw_only(), "seed"_a, "sample_index"_a, "top_p"_a, "top_k"_a, "min_p"_a,
            "repetition_penalty"_a, "presence_penalty"_a, "frequency_penalty"_a, "no_repeat_ngram_size"_a,
            "min_tokens"_a, "logit_bias"_a, "stop_token_ids"_a)
        .def("close_slot", &NativeExecutor::close_slot, "slot"_a)
        .def("sample", &NativeExecutor::sample, "rows"_a, "slots"_a, "temperatures"_a, "forced"_a)
        .def("logprobs", &NativeExecutor::logprobs, "rows"_a, "tokens"_a, "top_k"_a)
        .def(
            "set_timing", [](NativeExecutor& e, bool on) { e.executor().set_timing(on); }, "on"_a)
        .def("reset_op_times", [](NativeExecutor& e) { e.executor().reset_op_times(); })
        .def("op_times", &NativeExecutor::op_times,
             "(label, phase, calls, nanoseconds, bytes, operations, of these in bf16) of each op that ran.");
    m.def("keyed_bits", &keyed_bits, "seed"_a, "sample_index"_a, "position"_a);
}

}  // namespace

}  // namespace temper

NB_MODULE(_native, m) {
    temper::bind_weights(m);
    temper::bind_executor(m);
    bind_machine_limits(m);
}
