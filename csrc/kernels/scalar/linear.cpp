// Matrix products in plain C++: the arithmetic of linear.h spelled out, for machines without a vector
// set and as what the vector sets are tested against.
//
// Version 1: a group is widened once for all rows, then each row takes its 16 lanes in turn.
#include "kernels/linear.h"

#include "kernels/panel.h"
#include "kernels/scalar/product.h"

namespace temper::TEMPER_ISA {

namespace {

void linear_float(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride, int64_t panel) {
    const uint8_t* values = w.data + panel * w.panel_bytes;
    const int64_t lanes = w.n - panel * kLanes < kLanes ? w.n - panel * kLanes : kLanes;
    for (int64_t r = 0; r < x.rows; ++r) {
        const float* row = x.f32 + r * x.f32_stride;
        float acc[kLanes] = {};
        for (int64_t i = 0; i < w.k; ++i) {
            for (int64_t lane = 0; lane < kLanes; ++lane) {
                const int64_t at = i * kLanes + lane;
                float value;
                if (w.format == WeightFormat::f32) {
                    value = f32_from_bits(load_u32(values + 4 * at));
                } else if (w.format == WeightFormat::f16) {
                    value = f16_to_f32(load_u16(values + 2 * at));
                } else {
                    value = bf16_to_f32(load_u16(values + 2 * at));
                }
                acc[lane] = __builtin_fmaf(value, row[i], acc[lane]);
            }
        }
        for (int64_t lane = 0; lane < lanes; ++lane) y[r * y_stride + panel * kLanes + lane] = acc[lane];
    }
}

}  // namespace

void quantize_rows(const float* x, int64_t x_stride, int64_t rows, int64_t k, ActivationGroup* out) {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t begin = 0; begin < k; begin += kGroup, ++out) {
            const Rounded group = round_group<127>(x + r * x_stride + begin, k - begin);
            for (int i = 0; i < kGroup; ++i) out->codes[i] = static_cast<int8_t>(group.codes[i]);
            out->scale = group.scale;
            out->offset = group.scale * static_cast<float>(group.sum);
            out->neg_sum = -group.sum;
            out->neg_low_sum = -group.low_sum;
        }
    }
}

constexpr SweepRows sweep_rows{0, kNoRows, kNoRows};

void linear(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride, int64_t panel_begin,
            int64_t panel_end, Sweep) {
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
        if (is_float(w.format)) {
            linear_float(w, x, y, y_stride, panel);
        } else {
            multiply_panel(w, x.groups, x.rows, y, y_stride, panel);
        }
    }
}

}  // namespace temper::TEMPER_ISA
