// Products with activations in 16 bits with AVX2: codes are split in registers, each broadcast of two
// activations serves both halves of a panel.
#include "kernels/linear_fine.h"

#include <immintrin.h>

#include "kernels/avx2/widen.h"
#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

namespace {

constexpr int kAhead = 16384;  // bytes; the next panels follow in memory, past the end is harmless
constexpr int kRows = 4;       // of a tile

inline __m256i broadcast2(const int16_t* codes) {
    return _mm256_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(codes));
}

// Keeps a sum where it stands. GCC 12 else computes all products of a group first, and spills most of them.
inline __attribute__((always_inline)) void settle(__m256i& sum) { __asm__ volatile("" : "+x"(sum)); }

// Exact dot products of quads [Begin, End) of a group with R rows, both halves.
template <int Bits, int Begin, int End, int R>
inline __attribute__((always_inline)) void multiply(const uint8_t* group, const FineGroup* const (&a)[R],
                                                    __m256i (&dot)[R][2]) {
    const __m256i low = _mm256_set1_epi16(255);
#pragma GCC unroll 8
    for (int j = Begin; j < End; ++j) {
        __m256i w[2][2];
        for (int h = 0; h < 2; ++h) {
            __m256i codes;
            if constexpr (Bits == 8)
                codes = load_bytes(group + 64 * j + 32 * h);
            else
                codes = load_codes<Bits>(group + 32 * h, j);
            w[0][h] = _mm256_and_si256(codes, low);
            w[1][h] = _mm256_srli_epi16(codes, 8);
        }
        for (int r = 0; r < R; ++r) {
            for (int pair = 0; pair < 2; ++pair) {
                const __m256i x = broadcast2(a[r]->codes + 4 * j + 2 * pair);
                for (int h = 0; h < 2; ++h) {
                    const __m256i product = _mm256_madd_epi16(w[pair][h], x);
                    dot[r][h] = j == Begin && pair == 0 ? product : _mm256_add_epi32(dot[r][h], product);
                    settle(dot[r][h]);
                }
            }
        }
    }
}

// acc = fma(float(dot + start * 2^Zero), scale_w * scale_x, acc); a negative Zero starts from nothing.
template <int Zero>
inline __attribute__((always_inline)) __m256 add_dot(__m256i dot, int32_t start, __m256 weight_scale,
                                                     float scale, __m256 acc) {
    if constexpr (Zero >= 0) dot = _mm256_add_epi32(dot, _mm256_slli_epi32(_mm256_set1_epi32(start), Zero));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(weight_scale, _mm256_set1_ps(scale)), acc);
}

template <WeightFormat F, int R>
void tile(const PackedMatrix& w, const PanelLayout& layout, const FineGroup* x, float* y, int64_t y_stride,
          int64_t panel) {
    constexpr FormatTraits traits = traits_of(F);
    constexpr int kBits = traits.bits;
    constexpr int kZero = traits.zero_log2;
    constexpr int64_t kStep = bytes_per_group(traits);
    const uint8_t* data = w.data + panel * layout.bytes;
    __m256 acc[R][2];
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int64_t g = 0; g < layout.groups; ++g) {
        const uint8_t* group = data + g * layout.group_bytes;
        for (int64_t i = 0; i < kStep; i += 64) _mm_prefetch(data + kAhead + g * kStep + i, _MM_HINT_T0);
        const FineGroup* a[R];
        for (int r = 0; r < R; ++r) a[r] = x + r * layout.groups + g;
        __m256i dot[R][2];
        if constexpr (F == WeightFormat::q6k) {
            multiply<kBits, 0, 4, R>(group, a, dot);
            for (int h = 0; h < 2; ++h) {
                const __m256 scale = load_scales<F>(data, layout, g, h).first;
                for (int r = 0; r < R; ++r)
                    acc[r][h] = add_dot<kZero>(dot[r][h], a[r]->neg_low_sum, scale, a[r]->scale, acc[r][h]);
            }
            multiply<kBits, 4, 8, R>(group, a, dot);
            for (int h = 0; h < 2; ++h) {
                const __m256 scale = load_scales<F>(data, layout, g, h).second;
                for (int r = 0; r < R; ++r)
                    acc[r][h] = add_dot<kZero>(dot[r][h], a[r]->neg_sum - a[r]->neg_low_sum, scale,
                                               a[r]->scale, acc[r][h]);
            }
        } else {
            multiply<kBits, 0, 8, R>(group, a, dot);
            for (int h = 0; h < 2; ++h) {
                const GroupScales s = load_scales<F>(data, layout, g, h);
                for (int r = 0; r < R; ++r) {
                    acc[r][h] = add_dot<kZero>(dot[r][h], a[r]->neg_sum, s.first, a[r]->scale, acc[r][h]);
                    if constexpr (traits.has_min)
                        acc[r][h] = _mm256_fmadd_ps(s.second, _mm256_set1_ps(a[r]->offset), acc[r][h]);
                }
            }
        }
    }
    for (int r = 0; r < R; ++r) store_panel(w.n - panel * kLanes, acc[r], y + r * y_stride + panel * kLanes);
}

// The last rows, fewer than a whole tile.
template <WeightFormat F, int R>
void rest(int64_t rows, const PackedMatrix& w, const PanelLayout& layout, const FineGroup* x, float* y,
          int64_t y_stride, int64_t panel) {
    if (rows == R) {
        tile<F, R>(w, layout, x, y, y_stride, panel);
    } else if constexpr (R > 1) {
        rest<F, R - 1>(rows, w, layout, x, y, y_stride, panel);
    }
}

}  // namespace

void quantize_fine(const float* x, int64_t k, FineGroup* out) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int64_t begin = 0; begin < k; begin += kGroup, ++out) {
        const float* values = x + begin;
        alignas(32) float padded[kGroup] = {};
        if (k - begin < kGroup) {
            memcpy(padded, values, static_cast<size_t>(k - begin) * sizeof(float));
            values = padded;
        }
        __m256 parts[4];
        __m256 tops = _mm256_setzero_ps();
        for (int i = 0; i < 4; ++i) {
            parts[i] = _mm256_loadu_ps(values + 8 * i);
            tops = _mm256_max_ps(tops, _mm256_andnot_ps(sign, parts[i]));
        }
        const float top = max_of(tops);
        const float scale = top < 0x1p-100f ? 0.0f : top / 32767.0f;
        const __m256 inverse = _mm256_set1_ps(scale == 0.0f ? 0.0f : 1.0f / scale);
        __m256i codes[4];
        for (int i = 0; i < 4; ++i) {
            codes[i] = _mm256_cvtps_epi32(_mm256_round_ps(_mm256_mul_ps(parts[i], inverse),
                                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        }
        // Quads 0 2 | 1 3 of each pair of registers come out; words 1 and 2 of every quad change places.
        for (int i = 0; i < 2; ++i) {
            __m256i packed = _mm256_packs_epi32(codes[2 * i], codes[2 * i + 1]);
            packed = _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0));
            packed = _mm256_shufflelo_epi16(packed, _MM_SHUFFLE(3, 1, 2, 0));
            packed = _mm256_shufflehi_epi16(packed, _MM_SHUFFLE(3, 1, 2, 0));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->codes + 16 * i), packed);
        }
        const int32_t low = sum_of(_mm256_add_epi32(codes[0], codes[1]));
        const int32_t high = sum_of(_mm256_add_epi32(codes[2], codes[3]));
        out->scale = scale;
        out->offset = scale * static_cast<float>(low + high);
        out->neg_sum = -(low + high);
        out->neg_low_sum = -low;
    }
}

void linear_fine(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                 int64_t panel_begin, int64_t panel_end) {
    with_format(w.format, [&](auto format) {
        if constexpr (!is_float(format())) {
            const PanelLayout layout = panel_layout(format(), w.k);
            for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
                int64_t row = 0;
                for (; row + kRows <= x.rows; row += kRows) {
                    tile<format(), kRows>(w, layout, x.fine + row * layout.groups, y + row * y_stride,
                                          y_stride, panel);
                }
                rest<format(), kRows - 1>(x.rows - row, w, layout, x.fine + row * layout.groups,
                                          y + row * y_stride, y_stride, panel);
            }
        }
    });
}

}  // namespace temper::TEMPER_ISA
