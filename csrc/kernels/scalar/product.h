// A panel of quantized weights times rows of activations, in codes of 8 or of 16 bits, spelled out.
//
// A group is widened once for all rows, then each row takes its 16 lanes in turn.
#pragma once

#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

// Codes and scales of one group, ready for any number of rows. Half 1 is used by q6k only.
struct WideGroup {
    uint8_t codes[kLanes][kGroup];
    LaneScale scales[2][kLanes];
};

static inline void widen(const PackedMatrix& w, const PanelLayout& layout, const uint8_t* panel,
                         int64_t group, WideGroup& wide) {
    const int bits = traits_of(w.format).bits;
    for (int lane = 0; lane < kLanes; ++lane) {
        uint32_t words[8];
        load_lane(bits, panel + group * layout.group_bytes, lane, words);
        memcpy(wide.codes[lane], words, kGroup);
        for (int half = 0; half < 2; ++half) {
            wide.scales[half][lane] = lane_scale(w.format, panel, layout, group, lane, half);
        }
    }
}

constexpr int kInOrder[kGroup] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                  16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

template <class Code>
static inline int32_t dot(const uint8_t* codes, const Code* x, const int (&places)[kGroup], int begin,
                          int end) {
    int32_t sum = 0;
    for (int i = begin; i < end; ++i) sum += int32_t{codes[i]} * int32_t{x[places[i]]};
    return sum;
}

// All rows with one panel. Codes of activations stand at places[i] of a group.
template <class Group>
static inline void multiply_panel(const PackedMatrix& w, const Group* x, int64_t rows, float* y,
                                  int64_t y_stride, int64_t panel, const int (&places)[kGroup] = kInOrder) {
    const FormatTraits traits = traits_of(w.format);
    const PanelLayout layout = panel_layout(w.format, w.k);
    const uint8_t* data = w.data + panel * w.panel_bytes;
    const int32_t zero = traits.zero_log2 < 0 ? 0 : 1 << traits.zero_log2;
    const int64_t lanes = w.n - panel * kLanes < kLanes ? w.n - panel * kLanes : kLanes;
    float* out = y + panel * kLanes;
    for (int64_t g = 0; g < layout.groups; ++g) {
        WideGroup wide;
        widen(w, layout, data, g, wide);
        for (int64_t r = 0; r < rows; ++r) {
            const Group& a = x[r * layout.groups + g];
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const uint8_t* codes = wide.codes[lane];
                const LaneScale& first = wide.scales[0][lane];
                float acc = g == 0 ? 0.0f : out[r * y_stride + lane];
                if (w.format == WeightFormat::q6k) {
                    const int32_t low = dot(codes, a.codes, places, 0, 16) + zero * a.neg_low_sum;
                    const int32_t high =
                        dot(codes, a.codes, places, 16, kGroup) + zero * (a.neg_sum - a.neg_low_sum);
                    acc = __builtin_fmaf(static_cast<float>(low), first.scale * a.scale, acc);
                    acc = __builtin_fmaf(static_cast<float>(high), wide.scales[1][lane].scale * a.scale, acc);
                } else {
                    const int32_t all = dot(codes, a.codes, places, 0, kGroup) + zero * a.neg_sum;
                    acc = __builtin_fmaf(static_cast<float>(all), first.scale * a.scale, acc);
                    if (traits.has_min) acc = __builtin_fmaf(first.min, a.offset, acc);
                }
                out[r * y_stride + lane] = acc;
            }
        }
    }
}

// A group of up to 32 activations in integers.
struct Rounded {
    int32_t codes[kGroup];
    float scale;
    int32_t low_sum;  // of the first 16 codes
    int32_t sum;
};

// Codes of up to `Top` either way, half to even; zeros past `left`.
template <int Top>
static inline Rounded round_group(const float* values, int64_t left) {
    const int count = static_cast<int>(left < kGroup ? left : kGroup);
    float top = 0.0f;
    for (int i = 0; i < count; ++i) {
        const float size = __builtin_fabsf(values[i]);
        top = size > top ? size : top;
    }
    Rounded out{};
    out.scale = top < 0x1p-100f ? 0.0f : top / static_cast<float>(Top);
    const float inverse = out.scale == 0.0f ? 0.0f : 1.0f / out.scale;
    for (int i = 0; i < kGroup; ++i) {
        // Adding and taking away 1.5 * 2^23 rounds half to even wherever the result is small.
        const float shifted = i < count ? values[i] * inverse + 0x1.8p23f : 0x1.8p23f;
        out.codes[i] = static_cast<int32_t>(shifted - 0x1.8p23f);
        out.sum += out.codes[i];
        if (i < 16) out.low_sum += out.codes[i];
    }
    return out;
}

}  // namespace temper::TEMPER_ISA
