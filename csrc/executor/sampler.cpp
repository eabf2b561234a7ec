#include "executor/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

namespace temper {

namespace {

constexpr float kGreedyBelow = 1e-5f;
constexpr float kMassOne = 0x1p40f;
constexpr float kLeastWeight = 0x1p-40f;  // below it a token has no mass
constexpr float kNever = -std::numeric_limits<float>::infinity();

int64_t mass(float weight) { return static_cast<int64_t>(weight * kMassOne); }

uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

// The number in [0, total) that `bits` stands for.
int64_t scaled(uint64_t bits, int64_t total) {
    return static_cast<int64_t>(static_cast<unsigned __int128>(bits) * static_cast<uint64_t>(total) >> 64);
}

// Ascending keys are descending values, ties by lower id.
uint64_t rank_key(float value, int32_t id) {
    const float plain = value + 0.0f;  // one zero
    uint32_t bits;
    std::memcpy(&bits, &plain, 4);
    bits = bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
    return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(id);
}

int32_t token_of(uint64_t key) { return static_cast<int32_t>(static_cast<uint32_t>(key)); }

}  // namespace

uint64_t keyed_bits(uint64_t seed, uint64_t sample_index, uint64_t position) {
    constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;
    uint64_t h = mix(seed + kGolden);
    h = mix((h ^ sample_index) + kGolden);
    return mix((h ^ position) + kGolden);
}

struct Sampler::Slot {
    struct Seen {
        int32_t token;
        int32_t generated;  // how often in the output
    };

    SamplerParams params;
    std::vector<int32_t> history;  // prompt, then output
    int64_t prompt_tokens = 0;
    std::vector<Seen> seen;                        // every token of the history once
    std::unordered_map<int32_t, size_t> place_of;  // token -> its entry in `seen`

    int64_t num_generated() const { return static_cast<int64_t>(history.size()) - prompt_tokens; }

    void append(int32_t token, bool generated) {
        history.push_back(token);
        const auto [entry, fresh] = place_of.try_emplace(token, seen.size());
        if (fresh) seen.push_back({token, 0});
        if (generated) ++seen[entry->second].generated;
    }
};

struct Sampler::Scratch {
    explicit Scratch(size_t vocab_size)
        : z(vocab_size),
          weights(vocab_size),
          block_mass(vocab_size / kMassBlock + 1),
          ids(vocab_size),
          keys(vocab_size) {}
    std::vector<float> z, weights;
    std::vector<int64_t> block_mass;
    std::vector<int32_t> ids;
    std::vector<uint64_t> keys;
};

Sampler::Sampler(const KernelSet& kernels, ThreadPool& pool, int64_t vocab_size)
    : kernels_(kernels), pool_(pool), vocab_size_(vocab_size) {
    for (int worker = 0; worker < pool.threads(); ++worker)
        scratch_.emplace_back(static_cast<size_t>(vocab_size));
}

Sampler::~Sampler() = default;

int32_t Sampler::open(SamplerParams params, const int32_t* prompt, int64_t count) {
    auto slot = std::make_unique<Slot>();
    slot->params = std::move(params);
    slot->prompt_tokens = count;
    slot->history.reserve(static_cast<size_t>(count) + 256);
    for (int64_t i = 0; i < count; ++i) slot->append(prompt[i], false);
    if (free_.empty()) {
        slots_.push_back(std::move(slot));
        return static_cast<int32_t>(slots_.size()) - 1;
    }
    const int32_t id = free_.back();
    free_.pop_back();
    slots_[static_cast<size_t>(id)] = std::move(slot);
    return id;
}

void Sampler::require_open(int32_t slot) const {
    if (slot < 0 || slot >= static_cast<int32_t>(slots_.size()) || !slots_[static_cast<size_t>(slot)])
        throw std::invalid_argument("slot " + std::to_string(slot) + " is not open");
}

void Sampler::close(int32_t slot) {
    require_open(slot);
    slots_[static_cast<size_t>(slot)].reset();
    free_.push_back(slot);
}

void Sampler::sample(const Logits& logits, const int32_t* rows, const int32_t* slots,
                     const float* temperatures, const int32_t* forced, int64_t count, int32_t* tokens) {
    for (int64_t i = 0; i < count; ++i) {
        require_open(slots[i]);
        if (std::find(slots, slots + i, slots[i]) != slots + i)
            throw std::invalid_argument("the slots of one call must be distinct; " +
                                        std::to_string(slots[i]) + " repeats");
    }
    pool_.run(count, [&](int64_t i, int worker) {
        Slot& slot = *slots_[static_cast<size_t>(slots[i])];
        tokens[i] = forced[i] >= 0 ? forced[i]
                                   : choose(logits, rows[i], slot, temperatures[i],
                                            scratch_[static_cast<size_t>(worker)]);
        slot.append(tokens[i], true);
    });
}

bool Sampler::adjusts(const Slot& slot) const {
    const SamplerParams& p = slot.params;
    return !p.logit_bias.empty() || p.repetition_penalty != 1 || p.presence_penalty != 0 ||
           p.frequency_penalty != 0 || p.no_repeat_ngram_size > 0 || slot.num_generated() < p.min_tokens;
}

// Bias, penalties and bans, in that order.
void Sampler::adjust(const Slot& slot, float* z) const {
    const SamplerParams& p = slot.params;
    for (const auto& [token, bias] : p.logit_bias) z[token] += bias;
    if (p.repetition_penalty != 1) {
        for (const Slot::Seen& seen : slot.seen) {
            float& value = z[seen.token];
            value = value > 0 ? value / p.repetition_penalty : value * p.repetition_penalty;
        }
    }
    if (p.presence_penalty != 0 || p.frequency_penalty != 0) {
        for (const Slot::Seen& seen : slot.seen) {
            if (seen.generated == 0) continue;
            z[seen.token] -= p.frequency_penalty * static_cast<float>(seen.generated);
            z[seen.token] -= p.presence_penalty;
        }
    }
    const auto size = static_cast<int64_t>(slot.history.size());
    const int64_t ngram = p.no_repeat_ngram_size;
    if (ngram > 0 && size >= ngram) {
        const int32_t* history = slot.history.data();
        const int32_t* tail = history + size - (ngram - 1);
        for (int64_t i = 0; i + ngram <= size; ++i)
            if (std::equal(tail, history + size, history + i)) z[history[i + ngram - 1]] = kNever;
    }
    if (slot.num_generated() < p.min_tokens)
        for (const int32_t token : p.stop_token_ids) z[token] = kNever;
}

// The first token with that value.
int32_t Sampler::likeliest(const float* z, float top) const {
    const float* found = std::find(z, z + vocab_size_, top);
    return found == z + vocab_size_ ? 0 : static_cast<int32_t>(found - z);
}

int32_t Sampler::choose(const Logits& logits, int64_t row, const Slot& slot, float temperature,
                        Scratch& scratch) const {
    const float* z = logits.row(row);
    const bool adjusted = adjusts(slot);
    if (adjusted) {
        std::copy_n(z, vocab_size_, scratch.z.data());
        adjust(slot, scratch.z.data());
        z = scratch.z.data();
    }
    const float top = adjusted ? kernels_.max_value(z, vocab_size_) : logits.top(row);
    // Where everything is banned, better the likeliest token than none.
    if (top == kNever || (!adjusted && temperature < kGreedyBelow)) return logits.likeliest(row);
    if (temperature < kGreedyBelow) return likeliest(z, top);

    const int64_t total = kernels_.masses(z, vocab_size_, top, 1.0f / temperature, scratch.weights.data(),
                                          scratch.block_mass.data());
    if (total == 0) return likeliest(z, top);
    const SamplerParams& p = slot.params;
    if (p.top_k > 0 || p.top_p < 1 || p.min_p > 0) return pick_filtered(z, slot, total, scratch);

    int64_t target =
        scaled(keyed_bits(p.seed, p.sample_index, static_cast<uint64_t>(slot.num_generated())), total);
    int64_t block = 0;
    while (target >= scratch.block_mass[static_cast<size_t>(block)])
        target -= scratch.block_mass[static_cast<size_t>(block++)];
    int64_t token = block * kMassBlock;
    for (;; ++token) {
        target -= mass(scratch.weights[static_cast<size_t>(token)]);
        if (target < 0) return static_cast<int32_t>(token);
    }
}

int32_t Sampler::pick_filtered(const float* z, const Slot& slot, int64_t total, Scratch& scratch) const {
    const SamplerParams& p = slot.params;
    const float* weights = scratch.weights.data();
    const auto mass_of = [&](const uint64_t* begin, const uint64_t* end) {
        int64_t sum = 0;
        for (; begin != end; ++begin) sum += mass(weights[token_of(*begin)]);
        return sum;
    };
    // Candidates: all tokens above a threshold, low enough that every filter cuts among them.
    const double limit = p.top_p * static_cast<double>(total);
    const bool min_p_alone = p.top_k == 0 && p.min_p > 0;
    float threshold = min_p_alone ? std::max(p.min_p, kLeastWeight) : 0x1p-4f;
    uint64_t* keys = scratch.keys.data();
    uint64_t* end = keys;
    for (;; threshold = std::max(threshold * 0x1p-3f, kLeastWeight)) {
        const int64_t found =
            kernels_.collect(weights, vocab_size_, threshold, scratch.ids.data(), vocab_size_);
        end = keys + found;
        for (int64_t i = 0; i < found; ++i) {
            const int32_t id = scratch.ids[static_cast<size_t>(i)];
            keys[i] = rank_key(z[id], id);
        }
        if (threshold <= kLeastWeight || min_p_alone) break;
        if (p.top_k > 0 ? found >= p.top_k : static_cast<double>(mass_of(keys, end)) >= limit) break;
    }
    if (p.top_k > 0 && end - keys > p.top_k) {
        std::nth_element(keys, keys + p.top_k, end);
        end = keys + p.top_k;
    }
    if (p.top_p < 1) {
        // Halve the range that holds the cut: everything likelier than it is kept, and needs no order.
        const double cut = p.top_k > 0 ? p.top_p * static_cast<double>(mass_of(keys, end)) : limit;
        int64_t before = 0;
        uint64_t* first = keys;
        while (end - first > 16) {
            uint64_t* middle = first + (end - first) / 2;
            std::nth_element(first, middle, end);
            const int64_t upper = before + mass_of(first, middle);
            if (static_cast<double>(upper) >= cut) {
                end = middle;
            } else {
                before = upper;
                first = middle;
            }
        }
        std::sort(first, end);
        for (; first != end && static_cast<double>(before) < cut; ++first)
            before += mass_of(first, first + 1);
        end = first;
    }
    if (p.min_p > 0)
        end = std::remove_if(keys, end, [&](uint64_t key) { return !(weights[token_of(key)] >= p.min_p); });
    for (uint64_t* key = keys; key != end; ++key) *key = static_cast<uint64_t>(token_of(*key));
    std::sort(keys, end);
    int64_t target = scaled(keyed_bits(p.seed, p.sample_index, static_cast<uint64_t>(slot.num_generated())),
                            mass_of(keys, end));
    for (const uint64_t* key = keys; key != end; ++key) {
        target -= mass(weights[token_of(*key)]);
        if (target < 0) return token_of(*key);
    }
    return token_of(*keys);
}

void Sampler::logprobs(const Logits& logits, const int32_t* rows, const int32_t* tokens, int64_t count,
                       int64_t top_k, float* chosen, int32_t* top_ids, float* top) {
    pool_.run(count, [&](int64_t i, int worker) {
        Scratch& scratch = scratch_[static_cast<size_t>(worker)];
        const float* z = logits.row(rows[i]);
        const float highest = logits.top(rows[i]);
        const int64_t total =
            kernels_.masses(z, vocab_size_, highest, 1.0f, scratch.weights.data(), scratch.block_mass.data());
        const double log_total =
            static_cast<double>(highest) + std::log(static_cast<double>(total) / kMassOne);
        const auto logprob = [&](int32_t token) {
            return static_cast<float>(static_cast<double>(z[token]) - log_total);
        };
        chosen[i] = logprob(tokens[i]);
        if (top_k == 0) return;
        int32_t* ids = scratch.ids.data();
        int64_t found = 0;
        for (const float threshold : {0x1p-10f, 0x1p-40f, -1.0f}) {
            found = kernels_.collect(scratch.weights.data(), vocab_size_, threshold, ids, vocab_size_);
            if (found >= top_k) break;
        }
        const auto value = [&](int32_t id) { return std::isnan(z[id]) ? kNever : z[id]; };
        const auto likelier = [&](int32_t a, int32_t b) {
            return value(a) > value(b) || (value(a) == value(b) && a < b);
        };
        std::partial_sort(ids, ids + top_k, ids + found, likelier);
        for (int64_t j = 0; j < top_k; ++j) {
            top_ids[i * top_k + j] = ids[j];
            top[i * top_k + j] = logprob(ids[j]);
        }
    });
}

}  // namespace temper
