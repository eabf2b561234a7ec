// Where each byte of a packed panel lies, and how one lane of it is read and written.
//
// A panel holds 16 outputs (lanes) for all k inputs, in up to three sections, each rounded up to 64
// bytes, group of 32 inputs after group:
//
//   codes   `bits` x 64 bytes a group. A group is 8 vectors of 64 bytes; vector j, byte 4 * lane + i is
//           the code of input 4 * j + i: what a VNNI dot product of 16 lanes takes at once.
//             8 bits: the 8 vectors.
//             4 bits: 4 vectors, v holding vector 2v in its low and 2v + 1 in its high nibbles.
//             5 bits: the low 4 as above, then one vector whose bit j is bit 4 of vector j.
//             6 bits: the low 4 as above, then two vectors, h holding bits 4 and 5 of vector 4h + i in
//                     its bits 2i and 2i + 1.
//           Codes are unsigned: code - zero_point is what the format means.
//   scales  per group: f16 scale [16], then f16 minimum [16] where there is one; for K-quants uint8 sc
//           [16] and uint8 m [16]; for q6k int8 sc [16] of the first 16 inputs, then of the last 16.
//   supers  K-quants only, per 256 inputs: f16 d [16], then f16 dmin [16] where there are minima.
//
// Float formats have only the first section: 16 values an input.
//
// Everything here has internal linkage: it is compiled into kernels of every ISA (see kernel_set.h).
#pragma once

#include <string.h>

#include <type_traits>

#include "kernels/kernel_set.h"

namespace temper {

struct FormatTraits {
    int bits;       // of a code; of a value for float formats
    int zero_log2;  // zero point is 1 << zero_log2, or none where negative
    bool has_min;
    bool has_supers;
    int scale_bytes;  // per group and panel
    int super_bytes;  // per 256 and panel
};

static inline constexpr FormatTraits traits_of(WeightFormat format) {
    switch (format) {
        case WeightFormat::f32:
            return {32, -1, false, false, 0, 0};
        case WeightFormat::f16:
        case WeightFormat::bf16:
            return {16, -1, false, false, 0, 0};
        case WeightFormat::q8:
            return {8, 7, false, false, 32, 0};
        case WeightFormat::q4:
            return {4, 3, false, false, 32, 0};
        case WeightFormat::q4m:
            return {4, -1, true, false, 64, 0};
        case WeightFormat::q5:
            return {5, 4, false, false, 32, 0};
        case WeightFormat::q5m:
            return {5, -1, true, false, 64, 0};
        case WeightFormat::q4k:
            return {4, -1, true, true, 32, 64};
        case WeightFormat::q5k:
            return {5, -1, true, true, 32, 64};
        case WeightFormat::q6k:
            return {6, 5, false, true, 32, 32};
    }
    return {};
}

template <WeightFormat F>
using FormatConstant = std::integral_constant<WeightFormat, F>;

// Calls `visit` with the format as a constant, so that a kernel is compiled for each. `visit` is a lambda of
// the caller's: what is made of this template belongs to one ISA's file alone.
template <class Visit>
static inline void with_format(WeightFormat format, Visit visit) {
    switch (format) {
        case WeightFormat::f32:
            return visit(FormatConstant<WeightFormat::f32>{});
        case WeightFormat::f16:
            return visit(FormatConstant<WeightFormat::f16>{});
        case WeightFormat::bf16:
            return visit(FormatConstant<WeightFormat::bf16>{});
        case WeightFormat::q8:
            return visit(FormatConstant<WeightFormat::q8>{});
        case WeightFormat::q4:
            return visit(FormatConstant<WeightFormat::q4>{});
        case WeightFormat::q4m:
            return visit(FormatConstant<WeightFormat::q4m>{});
        case WeightFormat::q5:
            return visit(FormatConstant<WeightFormat::q5>{});
        case WeightFormat::q5m:
            return visit(FormatConstant<WeightFormat::q5m>{});
        case WeightFormat::q4k:
            return visit(FormatConstant<WeightFormat::q4k>{});
        case WeightFormat::q5k:
            return visit(FormatConstant<WeightFormat::q5k>{});
        case WeightFormat::q6k:
            return visit(FormatConstant<WeightFormat::q6k>{});
    }
}

struct PanelLayout {
    int64_t groups;       // of 32 inputs
    int64_t group_bytes;  // of codes
    int64_t scales_at;
    int64_t supers_at;
    int64_t bytes;
};

// k must be a multiple of 32, of 256 for K-quants; any for float formats.
static inline constexpr PanelLayout panel_layout(WeightFormat format, int64_t k) {
    const FormatTraits traits = traits_of(format);
    PanelLayout layout{};
    const auto rounded = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
    if (is_float(format)) {
        layout.scales_at = layout.supers_at = layout.bytes = rounded(k * kLanes * traits.bits / 8);
        return layout;
    }
    layout.groups = k / kGroup;
    layout.group_bytes = 64 * traits.bits;
    layout.scales_at = layout.groups * layout.group_bytes;
    layout.supers_at = layout.scales_at + rounded(layout.groups * traits.scale_bytes);
    layout.bytes = layout.supers_at + rounded(k / kSuperGroup * traits.super_bytes);
    return layout;
}

// Bytes of a panel that come with a group, scales among them: what is read from memory while a group is
// computed, so that whoever fetches ahead must fetch as much.
static inline constexpr int64_t bytes_per_group(FormatTraits traits) {
    return 64 * traits.bits + traits.scale_bytes + traits.super_bytes * kGroup / kSuperGroup;
}

static inline float f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline uint16_t load_u16(const uint8_t* at) {
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint32_t load_u32(const uint8_t* at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void store_u32(uint8_t* at, uint32_t value) { memcpy(at, &value, sizeof value); }

static inline float bf16_to_f32(uint16_t value) { return f32_from_bits(uint32_t{value} << 16); }

// Exact, subnormals and infinities included.
static inline float f16_to_f32(uint16_t half) {
    const uint32_t twice = uint32_t{half} << 17;
    const uint32_t sign = (uint32_t{half} & 0x8000u) << 16;
    const float normal = f32_from_bits((twice >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
    const float subnormal = f32_from_bits((twice >> 17) | (126u << 23)) - 0.5f;
    return f32_from_bits(sign | bits_of(twice < (1u << 27) ? subnormal : normal));
}

// The 32 codes of one lane in one group, four to a word: word j holds inputs 4j .. 4j + 3.
static inline void store_lane(int bits, uint8_t* group, int lane, const uint32_t words[8]) {
    uint8_t* at = group + 4 * lane;
    if (bits == 8) {
        for (int j = 0; j < 8; ++j) store_u32(at + 64 * j, words[j]);
        return;
    }
    for (int v = 0; v < 4; ++v) {
        store_u32(at + 64 * v, (words[2 * v] & 0x0f0f0f0fu) | (words[2 * v + 1] & 0x0f0f0f0fu) << 4);
    }
    if (bits == 5) {
        uint32_t high = 0;
        for (int j = 0; j < 8; ++j) high |= (words[j] >> 4 & 0x01010101u) << j;
        store_u32(at + 256, high);
    } else if (bits == 6) {
        for (int h = 0; h < 2; ++h) {
            uint32_t high = 0;
            for (int i = 0; i < 4; ++i) high |= (words[4 * h + i] >> 4 & 0x03030303u) << (2 * i);
            store_u32(at + 256 + 64 * h, high);
        }
    }
}

static inline void load_lane(int bits, const uint8_t* group, int lane, uint32_t words[8]) {
    const uint8_t* at = group + 4 * lane;
    if (bits == 8) {
        for (int j = 0; j < 8; ++j) words[j] = load_u32(at + 64 * j);
        return;
    }
    for (int v = 0; v < 4; ++v) {
        const uint32_t both = load_u32(at + 64 * v);
        words[2 * v] = both & 0x0f0f0f0fu;
        words[2 * v + 1] = both >> 4 & 0x0f0f0f0fu;
    }
    if (bits == 5) {
        const uint32_t high = load_u32(at + 256);
        for (int j = 0; j < 8; ++j) words[j] |= (high >> j & 0x01010101u) << 4;
    } else if (bits == 6) {
        for (int h = 0; h < 2; ++h) {
            const uint32_t high = load_u32(at + 256 + 64 * h);
            for (int i = 0; i < 4; ++i) words[4 * h + i] |= (high >> (2 * i) & 0x03030303u) << 4;
        }
    }
}

// Scale and minimum of one lane, in float32. `half` picks the inputs 0-15 or 16-31 of q6k's group.
struct LaneScale {
    float scale;
    float min;
};

static inline LaneScale lane_scale(WeightFormat format, const uint8_t* panel, const PanelLayout& layout,
                                   int64_t group, int lane, int half) {
    const FormatTraits traits = traits_of(format);
    const uint8_t* scales = panel + layout.scales_at + group * traits.scale_bytes;
    if (!traits.has_supers) {
        const float min = traits.has_min ? f16_to_f32(load_u16(scales + 32 + 2 * lane)) : 0.0f;
        return {f16_to_f32(load_u16(scales + 2 * lane)), min};
    }
    const uint8_t* supers =
        panel + layout.supers_at + group / (kSuperGroup / kGroup) * traits.super_bytes + 2 * lane;
    const float d = f16_to_f32(load_u16(supers));
    if (format == WeightFormat::q6k) {
        return {d * static_cast<float>(static_cast<int8_t>(scales[kLanes * half + lane])), 0.0f};
    }
    const float dmin = f16_to_f32(load_u16(supers + 32));
    return {d * static_cast<float>(scales[lane]), -(dmin * static_cast<float>(scales[kLanes + lane]))};
}

}  // namespace temper
