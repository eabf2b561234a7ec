// Products with activations in 16 bits with AVX2: codes are split in registers, each broadcast of two
// activations serves both halves of a panel.
#include "kernels/linear_fine.h"

#include <immintrin.h>

#include "kernels/avx2/product.h"
#include "kernels/avx2/widen.h"
#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

namespace {

constexpr int kAhead = 16384;  // bytes; the next panels follow in memory, past the end is harmless
constexpr int kRows = 4;       // of a tile

inline __m256i broadcast2(const int16_t* codes) {
    return _mm256_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(codes));
}

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

}  // namespace

void quantize_fine(const float* x, int64_t k, FineGroup* out) {
    for (int64_t begin = 0; begin < k; begin += kGroup, ++out) {
        const Rounded group = round_group<32767>(x + begin, k - begin);
        // Quads 0 2 | 1 3 of each pair of registers come out; words 1 and 2 of every quad change places.
        for (int i = 0; i < 2; ++i) {
            __m256i packed = _mm256_packs_epi32(group.codes[2 * i], group.codes[2 * i + 1]);
            packed = _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0));
            packed = _mm256_shufflelo_epi16(packed, _MM_SHUFFLE(3, 1, 2, 0));
            packed = _mm256_shufflehi_epi16(packed, _MM_SHUFFLE(3, 1, 2, 0));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->codes + 16 * i), packed);
        }
        out->scale = group.scale;
        out->offset = group.scale * static_cast<float>(group.sum);
        out->neg_sum = -group.sum;
        out->neg_low_sum = -group.low_sum;
    }
}

}  // namespace temper::TEMPER_ISA

#include "kernels/linear_fine.inc"
