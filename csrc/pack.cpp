#include "pack.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>

#include "kernels/tile.h"

namespace temper {

namespace {

constexpr StoredFormat kFormats[] = {
    {"f32", WeightFormat::f32, 1, 4},      {"f16", WeightFormat::f16, 1, 2},
    {"bf16", WeightFormat::bf16, 1, 2},    {"q8_0", WeightFormat::q8, 32, 34},
    {"q4_0", WeightFormat::q4, 32, 18},    {"q4_1", WeightFormat::q4m, 32, 20},
    {"q5_0", WeightFormat::q5, 32, 22},    {"q5_1", WeightFormat::q5m, 32, 24},
    {"q4_k", WeightFormat::q4k, 256, 144}, {"q5_k", WeightFormat::q5k, 256, 176},
    {"q6_k", WeightFormat::q6k, 256, 210},
};

// One group of 32 inputs of one row, with the bits of its scales as stored.
struct Group {
    uint8_t codes[kGroup];      // unsigned; minus the zero point is the value
    uint8_t scale_bytes[2][2];  // f16 scale and minimum; or sc and m, or the two int8 of q6k, in [i][0]
};

// One block of 256 of a K-quant has 8 groups and f16 d, dmin; other formats have one group and none.
struct Block {
    Group groups[8];
    uint8_t supers[2][2];
};

void split_nibbles(const uint8_t* packed, uint8_t* codes) {
    for (int i = 0; i < 16; ++i) {
        codes[i] = packed[i] & 15;
        codes[i + 16] = packed[i] >> 4;
    }
}

void add_fifth_bits(const uint8_t* packed, uint8_t* codes) {
    const uint32_t high = load_u32(packed);
    for (int i = 0; i < kGroup; ++i) codes[i] |= static_cast<uint8_t>((high >> i & 1) << 4);
}

// Q4_K and Q5_K keep 8 scales and 8 minima of 6 bits in 12 bytes.
void six_bit_scales(const uint8_t* packed, Block& block) {
    for (int g = 0; g < 8; ++g) {
        uint8_t scale;
        uint8_t min;
        if (g < 4) {
            scale = packed[g] & 63;
            min = packed[g + 4] & 63;
        } else {
            scale = static_cast<uint8_t>((packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4);
            min = static_cast<uint8_t>((packed[g + 4] >> 4) | (packed[g] >> 6) << 4);
        }
        block.groups[g].scale_bytes[0][0] = scale;
        block.groups[g].scale_bytes[1][0] = min;
    }
}

void read_block(WeightFormat format, const uint8_t* at, Block& block) {
    Group& first = block.groups[0];
    switch (format) {
        case WeightFormat::q8:
            std::memcpy(first.scale_bytes, at, 2);
            for (int i = 0; i < kGroup; ++i) first.codes[i] = at[2 + i] ^ 0x80;  // int8 + 128
            return;
        case WeightFormat::q4:
            std::memcpy(first.scale_bytes, at, 2);
            split_nibbles(at + 2, first.codes);
            return;
        case WeightFormat::q4m:
            std::memcpy(first.scale_bytes, at, 4);
            split_nibbles(at + 4, first.codes);
            return;
        case WeightFormat::q5:
            std::memcpy(first.scale_bytes, at, 2);
            split_nibbles(at + 6, first.codes);
            add_fifth_bits(at + 2, first.codes);
            return;
        case WeightFormat::q5m:
            std::memcpy(first.scale_bytes, at, 4);
            split_nibbles(at + 8, first.codes);
            add_fifth_bits(at + 4, first.codes);
            return;
        case WeightFormat::q4k:
        case WeightFormat::q5k: {
            const bool five = format == WeightFormat::q5k;
            std::memcpy(block.supers, at, 4);
            six_bit_scales(at + 4, block);
            const uint8_t* high = at + 16;
            const uint8_t* low = at + (five ? 48 : 16);
            for (int g = 0; g < 8; ++g) {
                const int shift = g % 2 * 4;
                for (int i = 0; i < kGroup; ++i) {
                    uint8_t code = low[g / 2 * 32 + i] >> shift & 15;
                    if (five) code |= static_cast<uint8_t>((high[i] >> g & 1) << 4);
                    block.groups[g].codes[i] = code;
                }
            }
            return;
        }
        case WeightFormat::q6k: {
            const uint8_t* scales = at + 192;
            std::memcpy(block.supers[0], at + 208, 2);
            for (int g = 0; g < 8; ++g) {
                const uint8_t* low = at + g / 4 * 64 + g % 2 * 32;
                const uint8_t* high = at + 128 + g / 4 * 32;
                for (int i = 0; i < kGroup; ++i) {
                    block.groups[g].codes[i] = static_cast<uint8_t>((low[i] >> (g % 4 / 2 * 4) & 15) |
                                                                    (high[i] >> (g % 4 * 2) & 3) << 4);
                }
                block.groups[g].scale_bytes[0][0] = scales[2 * g];
                block.groups[g].scale_bytes[1][0] = scales[2 * g + 1];
            }
            return;
        }
        case WeightFormat::f32:
        case WeightFormat::f16:
        case WeightFormat::bf16:
            return;
    }
}

void write_block(WeightFormat format, const Block& block, int64_t index, int lane, const PanelLayout& layout,
                 uint8_t* panel) {
    const FormatTraits traits = traits_of(format);
    const int num_groups = traits.has_supers ? 8 : 1;
    for (int g = 0; g < num_groups; ++g) {
        const Group& group = block.groups[g];
        const int64_t at = index * num_groups + g;
        uint32_t words[8];
        std::memcpy(words, group.codes, sizeof words);
        store_lane(traits.bits, panel + at * layout.group_bytes, lane, words);
        uint8_t* scales = panel + layout.scales_at + at * traits.scale_bytes;
        if (traits.has_supers) {
            scales[lane] = group.scale_bytes[0][0];
            scales[kLanes + lane] = group.scale_bytes[1][0];
        } else {
            std::memcpy(scales + 2 * lane, group.scale_bytes[0], 2);
            if (traits.has_min) std::memcpy(scales + 32 + 2 * lane, group.scale_bytes[1], 2);
        }
    }
    if (traits.has_supers) {
        uint8_t* supers = panel + layout.supers_at + index * traits.super_bytes + 2 * lane;
        std::memcpy(supers, block.supers[0], 2);
        if (traits.has_min) std::memcpy(supers + 32, block.supers[1], 2);
    }
}

template <class Value>
void pack_float_lane(const uint8_t* row, int64_t k, int lane, uint8_t* panel) {
    for (int64_t i = 0; i < k; ++i) {
        std::memcpy(panel + (i * kLanes + lane) * sizeof(Value), row + i * sizeof(Value), sizeof(Value));
    }
}

void pack_row_in_tiles(const uint8_t* row, int64_t k, int lane, uint8_t* panel) {
    for (int64_t i = 0; i < k; ++i) {
        const int64_t at = i / kGroup * kTileBytes + 2 * place_in_tile(lane, i % kGroup);
        std::memcpy(panel + at, row + 2 * i, 2);
    }
}

void pack_row(const StoredFormat& format, const uint8_t* row, int64_t k, int lane, const PanelLayout& layout,
              uint8_t* panel) {
    if (format.packed == WeightFormat::f32) return pack_float_lane<uint32_t>(row, k, lane, panel);
    if (is_float(format.packed)) return pack_float_lane<uint16_t>(row, k, lane, panel);
    Block block;
    for (int64_t b = 0; b < k / format.block_elements; ++b) {
        read_block(format.packed, row + b * format.block_bytes, block);
        write_block(format.packed, block, b, lane, layout, panel);
    }
}

// One row of a packed matrix to float32: code times scale, then plus minimum, each rounded.
void unpack_row(const PackedMatrix& w, const PanelLayout& layout, int64_t row, float* out) {
    const uint8_t* panel = w.data + row / kLanes * w.panel_bytes;
    const int lane = static_cast<int>(row % kLanes);
    if (is_float(w.format)) {
        for (int64_t i = 0; i < w.k; ++i) {
            const int64_t at = w.in_tiles ? i / kGroup * kTileBytes / 2 + place_in_tile(lane, i % kGroup)
                                          : i * kLanes + lane;
            out[i] = w.format == WeightFormat::f32   ? f32_from_bits(load_u32(panel + 4 * at))
                     : w.format == WeightFormat::f16 ? f16_to_f32(load_u16(panel + 2 * at))
                                                     : bf16_to_f32(load_u16(panel + 2 * at));
        }
        return;
    }
    const FormatTraits traits = traits_of(w.format);
    const int zero = traits.zero_log2 < 0 ? 0 : 1 << traits.zero_log2;
    for (int64_t g = 0; g < layout.groups; ++g) {
        uint32_t words[8];
        uint8_t codes[kGroup];
        load_lane(traits.bits, panel + g * layout.group_bytes, lane, words);
        std::memcpy(codes, words, sizeof codes);
        for (int half = 0; half < 2; ++half) {
            const LaneScale s = lane_scale(w.format, panel, layout, g, lane, half);
            for (int i = 16 * half; i < 16 * half + 16; ++i) {
                const float value = s.scale * static_cast<float>(int{codes[i]} - zero);
                out[g * kGroup + i] = traits.has_min ? value + s.min : value;
            }
        }
    }
}

void check_sizes(const StoredFormat& format, int64_t data_bytes, int64_t n, int64_t k) {
    const std::string name(format.name);
    if (n < 1 || k < 1) {
        throw std::invalid_argument("a matrix needs at least 1 output and 1 input, not [" +
                                    std::to_string(n) + ", " + std::to_string(k) + "]");
    }
    if (k % format.block_elements != 0) {
        throw std::invalid_argument(name + " holds blocks of " + std::to_string(format.block_elements) +
                                    " inputs; k = " + std::to_string(k) + " is no multiple of that");
    }
    // By division, so that absurd sizes from a broken file cannot overflow.
    const int64_t row_blocks = k / format.block_elements;
    const int64_t blocks = data_bytes / format.block_bytes;
    if (data_bytes % format.block_bytes != 0 || blocks % row_blocks != 0 || blocks / row_blocks != n) {
        throw std::invalid_argument(name + " [" + std::to_string(n) + ", " + std::to_string(k) + "] takes " +
                                    std::to_string(row_blocks) + " blocks of " +
                                    std::to_string(format.block_bytes) + " bytes a row; the data has " +
                                    std::to_string(data_bytes) + " bytes");
    }
}

// Weights lie side by side in slabs, so that huge pages cover them: with 4 KiB pages the walks alone
// cost a matrix-vector product some of its bandwidth. A slab is unmapped when its last weight is gone.
struct Slab {
    uint8_t* data;
    int64_t bytes;
    int64_t used = 0;

    explicit Slab(int64_t size) : bytes(size) {
        // Room to begin at a multiple of the huge page; what is never touched costs no memory.
        mapped_bytes = static_cast<size_t>(size + kHugePage);
        mapped = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) throw std::bad_alloc();
        const auto begin = reinterpret_cast<uintptr_t>(mapped);
        data = static_cast<uint8_t*>(mapped) + (kHugePage - begin % kHugePage) % kHugePage;
        madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);  // only a hint
    }
    ~Slab() { munmap(mapped, mapped_bytes); }
    Slab(const Slab&) = delete;
    Slab& operator=(const Slab&) = delete;

    static constexpr int64_t kHugePage = 2 << 20;

  private:
    void* mapped;
    size_t mapped_bytes;
};

// Zeroed memory of that size, a multiple of 64, aligned to 64. Any thread may ask.
std::shared_ptr<void> slab_memory(int64_t bytes) {
    constexpr int64_t kSlabBytes = 64 << 20;
    static std::mutex mutex;
    static std::weak_ptr<Slab> open;
    const std::lock_guard lock(mutex);
    std::shared_ptr<Slab> slab = open.lock();
    if (slab == nullptr || slab->bytes - slab->used < bytes) {
        slab = std::make_shared<Slab>(std::max(bytes, kSlabBytes));
        open = slab;
    }
    uint8_t* at = slab->data + slab->used;
    slab->used += bytes;
    return {slab, at};
}

uint16_t round_to_bf16(float value) {
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);  // NaN
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

// Round half to even, subnormals included; beyond the range to infinity.
uint16_t round_to_f16(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (size >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (size < 0x38800000u) {  // subnormal: adding 0.5 leaves its bits, rounded, at the end of the sum
        return static_cast<uint16_t>(sign | (bits_of(f32_from_bits(size) + 0.5f) - 0x3f000000u));
    }
    return static_cast<uint16_t>(sign | ((size + 0xfffu + (size >> 13 & 1) - 0x38000000u) >> 13));
}

void store_u16(uint8_t* at, uint16_t value) { std::memcpy(at, &value, sizeof value); }

void write_q8_0(const float* x, uint8_t* out) {
    float top = 0.0f;
    for (int i = 0; i < kGroup; ++i) top = std::max(top, std::fabs(x[i]));
    const uint16_t half = round_to_f16(top / 127.0f);
    // Codes fit the scale as it is stored, not as it was before rounding.
    const float scale = f16_to_f32(half);
    const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    store_u16(out, half);
    for (int i = 0; i < kGroup; ++i) {
        const float code = std::clamp(std::nearbyint(x[i] * inverse), -127.0f, 127.0f);
        out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(code));
    }
}

void write_q4_1(const float* x, uint8_t* out) {
    const auto [low, high] = std::minmax_element(x, x + kGroup);
    const uint16_t half = round_to_f16((*high - *low) / 15.0f);
    const uint16_t half_min = round_to_f16(*low);
    const float scale = f16_to_f32(half);
    const float min = f16_to_f32(half_min);
    const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    store_u16(out, half);
    store_u16(out + 2, half_min);
    uint8_t codes[kGroup];
    for (int i = 0; i < kGroup; ++i) {
        codes[i] = static_cast<uint8_t>(std::clamp(std::nearbyint((x[i] - min) * inverse), 0.0f, 15.0f));
    }
    for (int i = 0; i < 16; ++i) out[4 + i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
}

}  // namespace

const StoredFormat& stored_format(std::string_view name) {
    for (const StoredFormat& format : kFormats) {
        if (format.name == name) return format;
    }
    std::string known;
    for (const StoredFormat& format : kFormats)
        known += (known.empty() ? "" : ", ") + std::string(format.name);
    throw std::invalid_argument("'" + std::string(name) + "' is no weight format; known are " + known);
}

PackedWeight::PackedWeight(const StoredFormat& format, const uint8_t* data, int64_t data_bytes, int64_t n,
                           int64_t k, bool in_tiles) {
    check_sizes(format, data_bytes, n, k);
    in_tiles = in_tiles && format.packed == WeightFormat::bf16;
    const PanelLayout layout = panel_layout(format.packed, k);
    matrix_ = {format.packed, in_tiles, n, k, in_tiles ? tiles_of(k) * kTileBytes : layout.bytes, nullptr};
    memory_ = slab_memory(bytes());
    auto* const data_out = static_cast<uint8_t*>(memory_.get());
    matrix_.data = data_out;
    const int64_t row_bytes = k / format.block_elements * format.block_bytes;
    for (int64_t row = 0; row < n; ++row) {
        const int lane = static_cast<int>(row % kLanes);
        uint8_t* panel = data_out + row / kLanes * matrix_.panel_bytes;
        if (in_tiles) {
            pack_row_in_tiles(data + row * row_bytes, k, lane, panel);
        } else {
            pack_row(format, data + row * row_bytes, k, lane, layout, panel);
        }
    }
}

void lookup_rows(const PackedMatrix& w, const int32_t* ids, int64_t count, float* out, int64_t out_stride) {
    for (int64_t i = 0; i < count; ++i) {
        if (ids[i] < 0 || ids[i] >= w.n) {
            throw std::out_of_range("row " + std::to_string(ids[i]) + " of a table with " +
                                    std::to_string(w.n) + " rows");
        }
    }
    const PanelLayout layout = panel_layout(w.format, w.k);
    for (int64_t i = 0; i < count; ++i) unpack_row(w, layout, ids[i], out + i * out_stride);
}

void dequantize(const StoredFormat& format, const uint8_t* data, int64_t n, int64_t k, float* out) {
    // Through one panel, so that there is one reading of each format.
    const PanelLayout layout = panel_layout(format.packed, k);
    std::vector<uint8_t> panel(static_cast<size_t>(layout.bytes));
    const PackedMatrix one_panel{format.packed, false, kLanes, k, layout.bytes, panel.data()};
    const int64_t row_bytes = k / format.block_elements * format.block_bytes;
    for (int64_t row = 0; row < n; ++row) {
        pack_row(format, data + row * row_bytes, k, 0, layout, panel.data());
        unpack_row(one_panel, layout, 0, out + row * k);
    }
}

std::vector<uint8_t> convert(const StoredFormat& from, const uint8_t* data, int64_t data_bytes, int64_t n,
                             int64_t k, const StoredFormat& to) {
    check_sizes(from, data_bytes, n, k);
    if (to.packed != WeightFormat::bf16 && to.packed != WeightFormat::q8 && to.packed != WeightFormat::q4m) {
        throw std::invalid_argument("weights convert to bf16, q8_0 or q4_1, not to " + std::string(to.name));
    }
    if (k % to.block_elements != 0) {
        throw std::invalid_argument(std::string(to.name) + " holds blocks of " +
                                    std::to_string(to.block_elements) + " inputs; k = " + std::to_string(k) +
                                    " is no multiple of that");
    }
    const int64_t from_bytes = k / from.block_elements * from.block_bytes;
    const int64_t to_bytes = k / to.block_elements * to.block_bytes;
    std::vector<uint8_t> out(static_cast<size_t>(n * to_bytes));
    std::vector<float> values(static_cast<size_t>(k));
    for (int64_t row = 0; row < n; ++row) {
        dequantize(from, data + row * from_bytes, 1, k, values.data());
        uint8_t* at = out.data() + row * to_bytes;
        for (int64_t i = 0; i < k; i += to.block_elements, at += to.block_bytes) {
            if (to.packed == WeightFormat::bf16) {
                store_u16(at, round_to_bf16(values[static_cast<size_t>(i)]));
            } else if (to.packed == WeightFormat::q8) {
                write_q8_0(values.data() + i, at);
            } else {
                write_q4_1(values.data() + i, at);
            }
        }
    }
    return out;
}

}  // namespace temper
