// Linear ops: a prologue that prepares the rows (norm or SiLU, quantization), panels of products shared
// by the pool, and an epilogue (adapters, bias, residual, a head's largest logits) on each panel by whoever
// computed it.
#include "executor/executor_parts.h"

namespace temper {

void Executor::run_linear(const OpSpec& op, size_t index, int64_t num_rows) {
    if (num_rows == 0) return;
    int64_t num_panels = 0;
    Forms forms;
    for (const PackedWeight* weight : op.matrices) {
        const PackedMatrix& w = weight->matrix();
        num_panels += w.panels();
        (multiplies_in_bf16(op, w, num_rows) ? forms.tiles
         : is_float(w.format)                ? forms.f32
         : op.digits == 2                    ? forms.fine
                                             : forms.groups) = true;
    }
    run_prologue(op, num_rows, forms);

    const int64_t k = op.args[0].width;
    const Rows in =
        op.prologue == Prologue::none ? rows(op.args[0]) : Rows{prepared_.as<float>(), row_stride(k)};
    const ActivationRows activations{num_rows,
                                     k,
                                     in.data,
                                     in.stride,
                                     groups_.as<ActivationGroup>(),
                                     fine_.as<FineGroup>(),
                                     tiles_.as<uint16_t>()};
    const bool adapted = adapters_.shrink(index, activations, pool_);
    const Rows out = rows(op.out);
    const Rows products = op.add_residual ? Rows{products_.as<float>(), row_stride(op.out.width)} : out;
    const Rows residual = op.add_residual ? rows(op.args.back()) : Rows{nullptr, 0};

    // In whole pairs of panels, which tiles take at a time.
    const int64_t pairs = (num_panels + 1) / 2;
    const int64_t chunks = std::min(pairs, max_chunks(num_rows));
    const bool is_head = op.out.buffer == logits_buffer_;
    if (is_head) {
        num_parts_ = chunks;
        edges_[static_cast<size_t>(chunks)] = op.out.width;
    }
    pool_.run(chunks, [&](int64_t chunk, int) {
        const int64_t begin = 2 * (pairs * chunk / chunks);
        const int64_t end = std::min(num_panels, 2 * (pairs * (chunk + 1) / chunks));
        int64_t panel = 0, column = 0;  // where the current matrix begins
        for (size_t m = 0; m < op.matrices.size(); ++m) {
            const PackedMatrix& w = op.matrices[m]->matrix();
            const int64_t from = std::max<int64_t>(begin - panel, 0);
            const int64_t to = std::min(end - panel, w.panels());
            if (from < to) {
                run_panels(op, w, activations, products[0] + column, products.stride, from, to);
                if (adapted) adapters_.add(index, m, from, to, products[0] + column, products.stride);
                const int64_t first = column + from * kLanes;
                const int64_t count = std::min(column + to * kLanes, column + w.n) - first;
                for (int64_t r = 0; r < num_rows; ++r) {
                    float* y = products[r] + first;
                    if (!op.bias.empty()) kernels_.add(y, op.bias.data() + first, count, y);
                    if (op.add_residual) kernels_.add(residual[r] + first, y, count, out[r] + first);
                }
                if (is_head) {
                    const bool begins = panel + from == begin;
                    if (begins) edges_[static_cast<size_t>(chunk)] = first;
                    for (int64_t r = 0; r < num_rows; ++r) {
                        float& top = tops_[static_cast<size_t>(r * max_parts() + chunk)];
                        const float found = kernels_.max_value(out[r] + first, count);
                        top = begins ? found : std::max(top, found);
                    }
                }
            }
            panel += w.panels();
            column += w.n;
        }
    });
}

// Products of panels [from, to) in the arithmetic of the op.
void Executor::run_panels(const OpSpec& op, const PackedMatrix& w, const ActivationRows& x, float* y,
                          int64_t stride, int64_t from, int64_t to) {
    if (multiplies_in_bf16(op, w, x.rows)) {
        kernels_.linear_bf16(w, x, y, stride, from, to);
    } else if (op.digits == 2 && !is_float(w.format)) {
        kernels_.linear_fine(w, x, y, stride, from, to);
    } else {
        kernels_.linear(w, x, y, stride, from, to, sweep_of(w.format, x.rows));
    }
}

// Rows as the matrices want them: normalized or gated into `prepared_`, then quantized into `groups_` or
// `fine_`, or rounded into `tiles_`.
void Executor::run_prologue(const OpSpec& op, int64_t num_rows, Forms forms) {
    if (op.prologue == Prologue::none && !forms.groups && !forms.fine && !forms.tiles) return;
    const int64_t k = op.args[0].width, num_groups = activation_groups(k);
    const Rows x = rows(op.args[0]);
    const Rows up = op.prologue == Prologue::silu ? rows(op.args[1]) : x;
    const Rows prepared{prepared_.as<float>(), row_stride(k)};
    const Rows ready = op.prologue == Prologue::none ? x : prepared;
    const auto prepare = [&](int64_t r, int64_t begin, int64_t end) {  // columns, in whole groups
        if (op.prologue == Prologue::norm) {
            kernels_.rms_norm(x[r], op.vector.data(), k, op.eps, prepared[r]);
        } else if (op.prologue == Prologue::silu) {
            kernels_.silu_mul(x[r] + begin, up[r] + begin, end - begin, prepared[r] + begin);
        }
        const int64_t first = r * num_groups + begin / kGroup;
        if (forms.groups)
            kernels_.quantize_rows(ready[r] + begin, k, 1, end - begin,
                                   groups_.as<ActivationGroup>() + first);
        if (forms.fine) kernels_.quantize_fine(ready[r] + begin, end - begin, fine_.as<FineGroup>() + first);
    };
    // Rows [r, r + count), all of one tile.
    const auto pack = [&](int64_t r, int64_t count, int64_t begin, int64_t end) {
        if (!forms.tiles) return;
        uint16_t* tile =
            tiles_.as<uint16_t>() + (r / kRowTile * num_groups + begin / kGroup) * kRowTile * kGroup;
        kernels_.pack_bf16(ready[r] + begin, ready.stride, r % kRowTile, count, end - begin, tile);
    };
    // SiLU, quantization and tiles work group by group, so a single wide row can be shared too.
    constexpr int64_t kColumns = 512;
    if (op.prologue == Prologue::silu && num_rows < 4 && k > kColumns) {
        const int64_t parts = (k + kColumns - 1) / kColumns;
        pool_.run(num_rows * parts, [&](int64_t chunk, int) {
            const int64_t begin = chunk % parts * kColumns, end = std::min(k, begin + kColumns);
            prepare(chunk / parts, begin, end);
            pack(chunk / parts, 1, begin, end);
        });
        return;
    }
    // Chunks of whole tiles where there are enough of them.
    const int64_t unit = forms.tiles && num_rows >= kRowTile * pool_.threads() ? kRowTile : 1;
    const int64_t units = (num_rows + unit - 1) / unit;
    const int64_t chunks = num_rows * k < 2048 ? 1 : std::min<int64_t>(units, 4 * pool_.threads());
    pool_.run(chunks, [&](int64_t chunk, int) {
        const int64_t last = std::min(num_rows, unit * (units * (chunk + 1) / chunks));
        for (int64_t r = unit * (units * chunk / chunks); r < last;) {
            const int64_t count = std::min(last - r, kRowTile - r % kRowTile);
            for (int64_t i = r; i < r + count; ++i) prepare(i, 0, k);
            pack(r, count, 0, k);
            r += count;
        }
    });
}

}  // namespace temper
