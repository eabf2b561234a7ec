// Matrix products with AVX2 and FMA: 16 outputs are two registers ("halves") of 8 lanes. maddubs
// multiplies u8 codes with s8 activations into int16 pairs; how many pairs may be added before they must
// be widened to int32 depends on the bits of a code: 15 * 127 * 2 fits 8 times, 31 four times, 63 twice.
// Codes of 8 bits overflow even one pair, so they are two digits of 4 bits: 16 * high + low.
//
// Version 1  A group's codes are widened to bytes once and serve up to 4 rows at a time.
// Version 2  Two paths, as with AVX-512. Few rows: codes are widened in registers, each broadcast of
//            activations serves both halves of a panel. Many rows: a chunk of the panel is widened into L1
//            once, then tiles of rows sweep over it. In cache on Zen 3: 1.3 times version 1 with 1 row, 1.4
//            with 4 and more, of 4 bits (100 of 166 G multiplications/s, what the ports allow; these cores
//            dispatch four vector instructions a cycle, loads among them, and that is what it is bound by).
// Version 3  Prefetch, 16 KiB ahead with few rows, the next panel with many: from memory 1.2 to 1.5 times
//            with 1 to 4 rows, 1.05 with 32.
// Version 4  Whoever calls says which way to go (Sweep), having asked the machine.
#include "kernels/linear.h"

#include <immintrin.h>

#include "kernels/avx2/product.h"
#include "kernels/avx2/widen.h"
#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

namespace {

constexpr int kFloatRows = 4;  // of a tile of float weights
constexpr int kAhead = 16384;  // bytes; the next panels follow in memory, past the end is harmless
// A chunk of a panel with its codes widened (5 or 10 KiB) stays in L1 beside what a block of rows has for
// the same inputs (23 KiB at most).
constexpr int kChunkGroups = 10;
constexpr int kBlockRows = 48;

inline __m256i broadcast4(const int8_t* codes) {
    return _mm256_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(codes));
}

// Rows of a tile: what the 16 registers bear.
template <WeightFormat F>
constexpr int tile_rows = traits_of(F).bits == 8 ? 2 : 4;

// Exact dot products of vectors [Begin, End) of a group with R rows, both halves: codes(j, h) are the
// unsigned codes of vector j, below 8 bits.
template <int Bits, int Begin, int End, int R, class Codes>
inline __attribute__((always_inline)) void multiply(const Codes& codes, const ActivationGroup* const (&a)[R],
                                                    __m256i (&dot)[R][2]) {
    constexpr int kSafe = Bits == 4 ? 8 : Bits == 5 ? 4 : 2;  // pairs that int16 holds
    constexpr int kRun = kSafe < End - Begin ? kSafe : End - Begin;
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int begin = Begin; begin < End; begin += kRun) {
        __m256i pairs[R][2];
#pragma GCC unroll 8
        for (int j = begin; j < begin + kRun; ++j) {
            __m256i w[2];
            for (int h = 0; h < 2; ++h) w[h] = codes(j, h);
            for (int r = 0; r < R; ++r) {
                const __m256i x = broadcast4(a[r]->codes + 4 * j);
                for (int h = 0; h < 2; ++h) {
                    const __m256i product = _mm256_maddubs_epi16(w[h], x);
                    pairs[r][h] = j == begin ? product : _mm256_add_epi16(pairs[r][h], product);
                    settle(pairs[r][h]);
                }
            }
        }
        for (int r = 0; r < R; ++r) {
            for (int h = 0; h < 2; ++h) {
                const __m256i sum = _mm256_madd_epi16(pairs[r][h], ones);
                dot[r][h] = begin == Begin ? sum : _mm256_add_epi32(dot[r][h], sum);
            }
        }
    }
}

// The same for whole groups of 8-bit codes: codes(j, h, 0) are their low, codes(j, h, 1) their high digits.
template <int R, class Codes>
inline __attribute__((always_inline)) void multiply_digits(const Codes& codes,
                                                           const ActivationGroup* const (&a)[R],
                                                           __m256i (&dot)[R][2]) {
    __m256i pairs[R][2][2];
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
        __m256i w[2][2];
        for (int h = 0; h < 2; ++h) {
            for (int digit = 0; digit < 2; ++digit) w[h][digit] = codes(j, h, digit);
        }
        for (int r = 0; r < R; ++r) {
            const __m256i x = broadcast4(a[r]->codes + 4 * j);
            for (int h = 0; h < 2; ++h) {
                for (int digit = 0; digit < 2; ++digit) {
                    __m256i& sum = pairs[r][h][digit];
                    const __m256i product = _mm256_maddubs_epi16(w[h][digit], x);
                    sum = j == 0 ? product : _mm256_add_epi16(sum, product);
                    settle(sum);
                }
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int h = 0; h < 2; ++h) {
            dot[r][h] = _mm256_add_epi32(_mm256_madd_epi16(pairs[r][h][0], _mm256_set1_epi16(1)),
                                         _mm256_madd_epi16(pairs[r][h][1], _mm256_set1_epi16(16)));
        }
    }
}

// One group of R rows, both halves: acc[r][h] += group of weights . group of row r. scales(h) are the scales
// of a half.
template <WeightFormat F, int R, class Codes, class Scales>
inline __attribute__((always_inline)) void add_group(const Codes& codes, const Scales& scales,
                                                     const ActivationGroup* const (&a)[R],
                                                     __m256 (&acc)[R][2]) {
    constexpr FormatTraits traits = traits_of(F);
    constexpr int kZero = traits.zero_log2;
    __m256i dot[R][2];
    if constexpr (F == WeightFormat::q6k) {
        multiply<6, 0, 4, R>(codes, a, dot);
        for (int h = 0; h < 2; ++h) {
            const __m256 scale = scales(h).first;
            for (int r = 0; r < R; ++r)
                acc[r][h] = add_dot<kZero>(dot[r][h], a[r]->neg_low_sum, scale, a[r]->scale, acc[r][h]);
        }
        multiply<6, 4, 8, R>(codes, a, dot);
        for (int h = 0; h < 2; ++h) {
            const __m256 scale = scales(h).second;
            for (int r = 0; r < R; ++r)
                acc[r][h] = add_dot<kZero>(dot[r][h], a[r]->neg_sum - a[r]->neg_low_sum, scale, a[r]->scale,
                                           acc[r][h]);
        }
        return;
    } else if constexpr (traits.bits == 8) {
        multiply_digits<R>(codes, a, dot);
    } else {
        multiply<traits.bits, 0, 8, R>(codes, a, dot);
    }
    for (int h = 0; h < 2; ++h) {
        const GroupScales s = scales(h);
        for (int r = 0; r < R; ++r) {
            acc[r][h] = add_dot<kZero>(dot[r][h], a[r]->neg_sum, s.first, a[r]->scale, acc[r][h]);
            if constexpr (traits.has_min)
                acc[r][h] = _mm256_fmadd_ps(s.second, _mm256_set1_ps(a[r]->offset), acc[r][h]);
        }
    }
}

// R rows of one panel, straight from the packed weights.
template <WeightFormat F, int R>
void direct_tile(const PackedMatrix& w, const PanelLayout& layout, const ActivationGroup* x, float* y,
                 int64_t y_stride, int64_t panel) {
    constexpr int kBits = traits_of(F).bits;
    constexpr int64_t kStep = bytes_per_group(traits_of(F));
    const uint8_t* data = w.data + panel * layout.bytes;
    __m256 acc[R][2];
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int64_t g = 0; g < layout.groups; ++g) {
        const uint8_t* group = data + g * layout.group_bytes;
        for (int64_t i = 0; i < kStep; i += 64) _mm_prefetch(data + kAhead + g * kStep + i, _MM_HINT_T0);
        const ActivationGroup* a[R];
        for (int r = 0; r < R; ++r) a[r] = x + r * layout.groups + g;
        const auto codes = [&](int j, int h, int digit = 0) __attribute__((always_inline)) {
            if constexpr (kBits == 8)
                return nibble(load_bytes(group + 64 * j + 32 * h), digit);
            else
                return load_codes<kBits>(group + 32 * h, j);
        };
        const auto scales = [&](int h)
                                __attribute__((always_inline)) { return load_scales<F>(data, layout, g, h); };
        add_group<F, R>(codes, scales, a, acc);
    }
    for (int r = 0; r < R; ++r) store_panel(w.n - panel * kLanes, acc[r], y + r * y_stride + panel * kLanes);
}

template <WeightFormat F, int R>
void direct_tile_of(int64_t rows, const PackedMatrix& w, const PanelLayout& layout, const ActivationGroup* x,
                    float* y, int64_t y_stride, int64_t panel) {
    if (rows >= R) {
        direct_tile<F, R>(w, layout, x, y, y_stride, panel);
    } else if constexpr (R > 1) {
        direct_tile_of<F, R - 1>(rows, w, layout, x, y, y_stride, panel);
    }
}

template <WeightFormat F>
void few_rows(const PackedMatrix& w, const PanelLayout& layout, const ActivationRows& x, float* y,
              int64_t y_stride, int64_t panel_begin, int64_t panel_end) {
    constexpr int kRows = tile_rows<F>;
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
        for (int64_t row = 0; row < x.rows; row += kRows) {
            direct_tile_of<F, kRows>(x.rows - row, w, layout, x.groups + row * layout.groups,
                                     y + row * y_stride, y_stride, panel);
        }
    }
}

// A chunk of one panel with its codes and scales widened, for tiles of rows to sweep over.
template <WeightFormat F>
struct Chunk {
    static constexpr int kDigits = traits_of(F).bits == 8 ? 2 : 1;
    alignas(64) uint8_t codes[kChunkGroups][8][kDigits][2][32];
    // Not GroupScales: GCC copies a struct 16 bytes at a time, and reading 32 of them back then stalls.
    alignas(64) float first[kChunkGroups][2][8];
    alignas(64) float second[kChunkGroups][2][8];
};

template <WeightFormat F>
void widen(const uint8_t* panel, const PanelLayout& layout, int64_t begin, int64_t count, Chunk<F>& chunk) {
    constexpr int kBits = traits_of(F).bits;
    constexpr int64_t kStep = bytes_per_group(traits_of(F));
    for (int64_t g = 0; g < count; ++g) {
        const uint8_t* group = panel + (begin + g) * layout.group_bytes;
        // The same chunk of the next panel, while this one is multiplied.
        for (int64_t i = 0; i < kStep; i += 64) {
            _mm_prefetch(panel + layout.bytes + (begin + g) * kStep + i, _MM_HINT_T1);
        }
        for (int h = 0; h < 2; ++h) {
            for (int j = 0; j < 8; ++j) {
                if constexpr (kBits == 8) {
                    for (int digit = 0; digit < 2; ++digit) {
                        store_bytes(chunk.codes[g][j][digit][h],
                                    nibble(load_bytes(group + 64 * j + 32 * h), digit));
                    }
                } else {
                    store_bytes(chunk.codes[g][j][0][h], load_codes<kBits>(group + 32 * h, j));
                }
            }
            const GroupScales s = load_scales<F>(panel, layout, begin + g, h);
            _mm256_store_ps(chunk.first[g][h], s.first);
            _mm256_store_ps(chunk.second[g][h], s.second);
        }
    }
}

// Adds one chunk's products with R rows to their sums so far.
template <WeightFormat F, int R>
void tile(const Chunk<F>& chunk, int64_t count, const ActivationGroup* x, int64_t row_groups,
          float (*sums)[kLanes]) {
    __m256 acc[R][2];
    for (int r = 0; r < R; ++r) {
        for (int h = 0; h < 2; ++h) acc[r][h] = _mm256_load_ps(sums[r] + 8 * h);
    }
    for (int64_t g = 0; g < count; ++g) {
        const ActivationGroup* a[R];
        for (int r = 0; r < R; ++r) a[r] = x + r * row_groups + g;
        const auto scales = [&](int h) __attribute__((always_inline)) {
            return GroupScales{_mm256_load_ps(chunk.first[g][h]), _mm256_load_ps(chunk.second[g][h])};
        };
        const auto codes = [&](int j, int h, int digit = 0) __attribute__((always_inline)) {
            return load_bytes(chunk.codes[g][j][digit][h]);
        };
        add_group<F, R>(codes, scales, a, acc);
    }
    for (int r = 0; r < R; ++r) {
        for (int h = 0; h < 2; ++h) _mm256_store_ps(sums[r] + 8 * h, acc[r][h]);
    }
}

template <WeightFormat F, int R>
void tile_of(int64_t rows, const Chunk<F>& chunk, int64_t count, const ActivationGroup* x, int64_t row_groups,
             float (*sums)[kLanes]) {
    if (rows >= R) {
        tile<F, R>(chunk, count, x, row_groups, sums);
    } else if constexpr (R > 1) {
        tile_of<F, R - 1>(rows, chunk, count, x, row_groups, sums);
    }
}

template <WeightFormat F>
void many_rows(const PackedMatrix& w, const PanelLayout& layout, const ActivationRows& x, float* y,
               int64_t y_stride, int64_t panel_begin, int64_t panel_end) {
    constexpr int kRows = tile_rows<F>;
    const int64_t chunks = (layout.groups + kChunkGroups - 1) / kChunkGroups;
    Chunk<F> chunk;
    alignas(64) float sums[kBlockRows][kLanes];
    for (int64_t block = 0; block < x.rows; block += kBlockRows) {
        const int64_t rows = x.rows - block < kBlockRows ? x.rows - block : kBlockRows;
        for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
            memset(sums, 0, sizeof sums);
            for (int64_t c = 0; c < chunks; ++c) {
                const int64_t begin = layout.groups * c / chunks;
                const int64_t count = layout.groups * (c + 1) / chunks - begin;
                widen<F>(w.data + panel * layout.bytes, layout, begin, count, chunk);
                for (int64_t row = 0; row < rows; row += kRows) {
                    tile_of<F, kRows>(rows - row, chunk, count,
                                      x.groups + (block + row) * layout.groups + begin, layout.groups,
                                      sums + row);
                }
            }
            for (int64_t r = 0; r < rows; ++r) {
                const __m256 values[2] = {_mm256_load_ps(sums[r]), _mm256_load_ps(sums[r] + 8)};
                store_panel(w.n - panel * kLanes, values, y + (block + r) * y_stride + panel * kLanes);
            }
        }
    }
}

template <WeightFormat F>
void linear_quantized(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                      int64_t panel_begin, int64_t panel_end, Sweep sweep) {
    const PanelLayout layout = panel_layout(F, w.k);
    (sweep == Sweep::direct ? few_rows<F> : many_rows<F>)(w, layout, x, y, y_stride, panel_begin, panel_end);
}

template <WeightFormat F>
inline __m256 load_values(const uint8_t* panel, int64_t input, int h) {
    if constexpr (F == WeightFormat::f32) {
        return _mm256_load_ps(reinterpret_cast<const float*>(panel + 64 * input + 32 * h));
    } else if constexpr (F == WeightFormat::f16) {
        return load_half(panel + 32 * input + 16 * h);
    } else {
        const auto* half = reinterpret_cast<const __m128i*>(panel + 32 * input + 16 * h);
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_load_si128(half)), 16));
    }
}

template <WeightFormat F, int R>
void float_tile(const PackedMatrix& w, const float* x, int64_t x_stride, float* y, int64_t y_stride,
                int64_t panel) {
    __m256 acc[R][2];
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    const uint8_t* data = w.data + panel * w.panel_bytes;
    for (int64_t i = 0; i < w.k; ++i) {
        const __m256 low = load_values<F>(data, i, 0);
        const __m256 high = load_values<F>(data, i, 1);
        for (int r = 0; r < R; ++r) {
            const __m256 xi = _mm256_set1_ps(x[r * x_stride + i]);
            acc[r][0] = _mm256_fmadd_ps(low, xi, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(high, xi, acc[r][1]);
        }
    }
    for (int r = 0; r < R; ++r) {
        float out[kLanes];
        _mm256_storeu_ps(out, acc[r][0]);
        _mm256_storeu_ps(out + 8, acc[r][1]);
        for (int64_t i = 0; i < kLanes && panel * kLanes + i < w.n; ++i) {
            y[r * y_stride + panel * kLanes + i] = out[i];
        }
    }
}

template <WeightFormat F>
void linear_float(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                  int64_t panel_begin, int64_t panel_end) {
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
        int64_t row = 0;
        for (; row + kFloatRows <= x.rows; row += kFloatRows) {
            float_tile<F, kFloatRows>(w, x.f32 + row * x.f32_stride, x.f32_stride, y + row * y_stride,
                                      y_stride, panel);
        }
        for (; row < x.rows; ++row) {
            float_tile<F, 1>(w, x.f32 + row * x.f32_stride, x.f32_stride, y + row * y_stride, y_stride,
                             panel);
        }
    }
}

}  // namespace

void quantize_rows(const float* x, int64_t x_stride, int64_t rows, int64_t k, ActivationGroup* out) {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t begin = 0; begin < k; begin += kGroup, ++out) {
            const Rounded group = round_group<127>(x + r * x_stride + begin, k - begin);
            // Packing works within halves of a register: the lower fours of all parts come first, then the
            // upper.
            const __m256i packed = _mm256_permutevar8x32_epi32(
                _mm256_packs_epi16(_mm256_packs_epi32(group.codes[0], group.codes[1]),
                                   _mm256_packs_epi32(group.codes[2], group.codes[3])),
                _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->codes), packed);
            out->scale = group.scale;
            out->offset = group.scale * static_cast<float>(group.sum);
            out->neg_sum = -group.sum;
            out->neg_low_sum = -group.low_sum;
        }
    }
}

constexpr SweepRows sweep_rows{0, 17, kNoRows};

void linear(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride, int64_t panel_begin,
            int64_t panel_end, Sweep sweep) {
    with_format(w.format, [&](auto format) {
        if constexpr (is_float(format())) {
            linear_float<format()>(w, x, y, y_stride, panel_begin, panel_end);
        } else {
            linear_quantized<format()>(w, x, y, y_stride, panel_begin, panel_end, sweep);
        }
    });
}

}  // namespace temper::TEMPER_ISA
