// Attention over the paged cache: tiles of queries (see kernels/attention.h) shared by the pool. With
// few tiles and long contexts the splits of a tile are shared too; whoever finishes its last one folds
// them, in the same order as a single thread would.
#include <cmath>
#include <cstring>
#include <limits>

#include "executor/executor_parts.h"

namespace temper {

struct Executor::AttentionWork {
    const OpSpec& op;
    const StepBatch& batch;
    Rows q, out;
    int64_t group;       // query heads per key/value head
    int64_t num_splits;  // items per tile; 1: a tile goes through all of its splits alone
};

namespace {

// Rows [first, first + count) of the (token, head) pairs that one sequence has for one key/value head.
struct Tile {
    int64_t sequence, kv_head, first, count;
    int64_t seen_begin, seen_end;  // positions that any of its rows sees
};

}  // namespace

void Executor::run_attention(const OpSpec& op, const StepBatch& batch) {
    const int64_t group = op.num_heads / op.num_kv_heads;
    int64_t tiles = 0, longest = 0;
    for (int64_t s = 0; s < batch.num_sequences; ++s) {
        first_tile_[static_cast<size_t>(s)] = tiles;
        const int64_t pairs = (batch.q_starts[s + 1] - batch.q_starts[s]) * group;
        tiles += (pairs + kTileRows - 1) / kTileRows;
        longest = std::max<int64_t>(longest, batch.context_lens[s]);
    }
    first_tile_[static_cast<size_t>(batch.num_sequences)] = tiles;
    const int64_t items = tiles * op.num_kv_heads;
    const bool share_splits = items <= max_items(pool_) && pool_.threads() > 1 && longest > kSplit;
    const AttentionWork work{op,           batch, rows(op.args[0]),
                             rows(op.out), group, share_splits ? (longest + kSplit - 1) / kSplit : 1};
    if (share_splits) {
        for (int64_t i = 0; i < items; ++i)
            pending_[static_cast<size_t>(i)].store(static_cast<int32_t>(work.num_splits),
                                                   std::memory_order_relaxed);
    }
    constexpr int64_t kWorthSharing = 96;  // keys times tiles
    if (items * longest < kWorthSharing) {
        for (int64_t item = 0; item < items; ++item) attention_item(work, item, 0);
    } else {
        pool_.run(items * work.num_splits,
                  [&](int64_t item, int worker) { attention_item(work, item, worker); });
    }
}

void Executor::attention_item(const AttentionWork& work, int64_t item, int worker) {
    const OpSpec& op = work.op;
    const StepBatch& batch = work.batch;
    const int64_t tile_index = item / work.num_splits, only_split = item % work.num_splits;
    const int64_t head_dim = op.head_dim, group = work.group, block_tokens = sizes_.block_tokens;
    Scratch& scratch = scratch_[static_cast<size_t>(worker)];

    Tile tile{};
    tile.kv_head = tile_index % op.num_kv_heads;
    const int64_t* tiles = first_tile_.data();
    tile.sequence =
        std::upper_bound(tiles, tiles + batch.num_sequences, tile_index / op.num_kv_heads) - tiles - 1;
    const auto phase = static_cast<size_t>(phase_of(batch, tile.sequence));
    const Stopwatch stopwatch(timing_ ? &scratch.item_ns[phase] : nullptr);
    const int64_t q_start = batch.q_starts[tile.sequence];
    tile.first = (tile_index / op.num_kv_heads - first_tile_[static_cast<size_t>(tile.sequence)]) * kTileRows;
    const int64_t pairs = (batch.q_starts[tile.sequence + 1] - q_start) * group;
    tile.count = std::min(kTileRows, pairs - tile.first);

    // Queries, scaled; and what each may see.
    int64_t row_begin[kTileRows], row_end[kTileRows];
    tile.seen_begin = std::numeric_limits<int64_t>::max();
    for (int64_t r = 0; r < tile.count; ++r) {
        float* to = scratch.q.data() + r * head_dim;
        const int64_t token = q_start + (tile.first + r) / group;
        const int64_t head = tile.kv_head * group + (tile.first + r) % group;
        const float* from = work.q[token] + head * head_dim;
        for (int64_t d = 0; d < head_dim; ++d) to[d] = from[d] * op.scale;
        row_end[r] = batch.positions[token] + 1;
        row_begin[r] = op.window > 0 ? std::max<int64_t>(0, row_end[r] - op.window) : 0;
        tile.seen_begin = std::min(tile.seen_begin, row_begin[r]);
        tile.seen_end = std::max(tile.seen_end, row_end[r]);
    }

    const auto run_split = [&](int64_t split, float* top, float* sum, float* values) {
        const int64_t origin = split * kSplit;
        const void* k_pages[kSplit / 16];
        const void* v_pages[kSplit / 16];
        const int64_t begin = std::max<int64_t>(tile.seen_begin - origin, 0);
        const int64_t end = std::min(tile.seen_end - origin, kSplit);
        const int64_t offset = tile.kv_head * head_dim * block_tokens * cache_.number_bytes();
        const int32_t* table = batch.block_tables + tile.sequence * batch.table_width + origin / block_tokens;
        for (int64_t page = begin / block_tokens; page * block_tokens < end; ++page) {
            k_pages[page] = cache_.keys(table[page], op.layer) + offset;
            v_pages[page] = cache_.values(table[page], op.layer) + offset;
        }
        int32_t begins[kTileRows], ends[kTileRows];
        for (int64_t r = 0; r < tile.count; ++r) {
            begins[r] = static_cast<int32_t>(std::clamp<int64_t>(row_begin[r] - origin, 0, kSplit));
            ends[r] = static_cast<int32_t>(std::clamp<int64_t>(row_end[r] - origin, 0, kSplit));
        }
        kernels_.attention_split({scratch.q.data(), tile.count, head_dim, block_tokens, cache_.half(),
                                  k_pages, v_pages, begin, end, begins, ends, scratch.scores.data(), top, sum,
                                  values});
    };
    const auto reset_totals = [&] {
        std::fill_n(scratch.totals.data(), tile.count * head_dim, 0.0f);
        std::fill_n(scratch.total_top, tile.count, -std::numeric_limits<float>::infinity());
        std::fill_n(scratch.total_sum, tile.count, 0.0f);
    };
    const auto merge_row = [&](int64_t r, float top, float sum, const float* values) {
        kernels_.attention_merge(top, sum, values, head_dim, scratch.total_top + r, scratch.total_sum + r,
                                 scratch.totals.data() + r * head_dim);
    };
    const auto finish = [&] {
        for (int64_t r = 0; r < tile.count; ++r) {
            const int64_t token = q_start + (tile.first + r) / group;
            const int64_t head = tile.kv_head * group + (tile.first + r) % group;
            kernels_.attention_finish(scratch.totals.data() + r * head_dim, scratch.total_sum[r], head_dim,
                                      work.out[token] + head * head_dim);
        }
    };

    const int64_t first_split = tile.seen_begin / kSplit, last_split = (tile.seen_end - 1) / kSplit;
    if (work.num_splits == 1) {
        reset_totals();
        for (int64_t split = first_split; split <= last_split; ++split) {
            run_split(split, scratch.top, scratch.sum, scratch.values.data());
            for (int64_t r = 0; r < tile.count; ++r)
                merge_row(r, scratch.top[r], scratch.sum[r], scratch.values.data() + r * head_dim);
        }
        finish();
        return;
    }
    // One split of several: leave it in `partials_`, and fold all if it was the last to be done.
    const int64_t floats = kTileRows * partial_floats(head_dim);
    float* partials = partials_.as<float>() + tile_index * max_splits_ * floats;
    if (only_split >= first_split && only_split <= last_split) {
        float* mine = partials + only_split * floats;
        run_split(only_split, mine, mine + kTileRows, mine + 2 * kTileRows);
    }
    if (pending_[static_cast<size_t>(tile_index)].fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    reset_totals();
    for (int64_t split = first_split; split <= last_split; ++split) {
        const float* one = partials + split * floats;
        for (int64_t r = 0; r < tile.count; ++r)
            merge_row(r, one[r], one[kTileRows + r], one + 2 * kTileRows + r * head_dim);
    }
    finish();
}

}  // namespace temper
