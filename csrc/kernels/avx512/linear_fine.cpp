// Products with activations in 16 bits with AVX512-VNNI: codes are split in registers, activations are
// broadcast from memory by the dot product itself.
#include "kernels/linear_fine.h"

#include <immintrin.h>

#include "kernels/avx512/widen.h"
#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

namespace {

constexpr int kAhead = 8192;  // bytes; the next panels follow in memory, past the end is harmless
constexpr int kRows = 8;      // of a tile

inline __m512i broadcast2(const int16_t* codes) {
    return _mm512_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(codes));
}

// dot[r][..] += quads [Begin, End) of the group, exact; two sums a row where few rows leave a single one
// waiting for itself.
template <int Begin, int End, int R, int Sums>
inline __attribute__((always_inline)) void multiply(const __m512i (&codes)[8], const FineGroup* const (&a)[R],
                                                    __m512i (&dot)[R][Sums]) {
    const __m512i low = _mm512_set1_epi16(255);
#pragma GCC unroll 8
    for (int j = Begin; j < End; ++j) {
        const __m512i w[2] = {_mm512_and_si512(codes[j], low), _mm512_srli_epi16(codes[j], 8)};
#pragma GCC unroll 2
        for (int pair = 0; pair < 2; ++pair) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                __m512i& sum = dot[r][pair % Sums];
                sum = _mm512_dpwssd_epi32(sum, w[pair], broadcast2(a[r]->codes + 4 * j + 2 * pair));
            }
        }
    }
}

// A group's dot product as it starts: the zero point's share.
template <int Zero>
inline __attribute__((always_inline)) __m512i start_at(int32_t neg_sum) {
    if constexpr (Zero >= 0)
        return _mm512_slli_epi32(_mm512_set1_epi32(neg_sum), static_cast<unsigned>(Zero));
    return _mm512_setzero_si512();
}

template <int Sums>
inline __attribute__((always_inline)) __m512 as_float(const __m512i (&dot)[Sums]) {
    if constexpr (Sums == 2) return _mm512_cvtepi32_ps(_mm512_add_epi32(dot[0], dot[1]));
    return _mm512_cvtepi32_ps(dot[0]);
}

template <WeightFormat F, int R>
void tile(const PackedMatrix& w, const PanelLayout& layout, const FineGroup* x, float* y, int64_t y_stride,
          int64_t panel) {
    constexpr FormatTraits traits = traits_of(F);
    constexpr int kZero = traits.zero_log2;
    constexpr int64_t kStep = bytes_per_group(traits);
    constexpr int kSums = R <= 4 ? 2 : 1;
    const uint8_t* data = w.data + panel * layout.bytes;
    __m512 acc[R];
    for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
    for (int64_t g = 0; g < layout.groups; ++g) {
        __m512i codes[8];
        for (int64_t i = 0; i < kStep; i += 64) _mm_prefetch(data + kAhead + g * kStep + i, _MM_HINT_T0);
        load_codes<traits.bits>(data + g * layout.group_bytes, codes);
        const FineGroup* a[R];
        for (int r = 0; r < R; ++r) a[r] = x + r * layout.groups + g;
        const GroupScales s = load_scales<F>(data, layout, g);
        const auto start = [&](__m512i(&dot)[R][kSums], auto neg_sum) __attribute__((always_inline)) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                dot[r][0] = start_at<kZero>(neg_sum(*a[r]));
                if constexpr (kSums == 2) dot[r][1] = _mm512_setzero_si512();
            }
        };
        const auto add = [&](const __m512i(&dot)[R][kSums], __m512 scale) __attribute__((always_inline)) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                acc[r] = _mm512_fmadd_ps(as_float<kSums>(dot[r]),
                                         _mm512_mul_ps(scale, _mm512_set1_ps(a[r]->scale)), acc[r]);
            }
        };
        __m512i dot[R][kSums];
        if constexpr (F == WeightFormat::q6k) {
            start(dot, [](const FineGroup& one) { return one.neg_low_sum; });
            multiply<0, 4, R, kSums>(codes, a, dot);
            add(dot, s.first);
            start(dot, [](const FineGroup& one) { return one.neg_sum - one.neg_low_sum; });
            multiply<4, 8, R, kSums>(codes, a, dot);
            add(dot, s.second);
        } else {
            start(dot, [](const FineGroup& one) { return one.neg_sum; });
            multiply<0, 8, R, kSums>(codes, a, dot);
            add(dot, s.first);
            if constexpr (traits.has_min) {
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r)
                    acc[r] = _mm512_fmadd_ps(s.second, _mm512_set1_ps(a[r]->offset), acc[r]);
            }
        }
    }
    const __mmask16 mask = lane_mask(w, panel);
    for (int r = 0; r < R; ++r) _mm512_mask_storeu_ps(y + r * y_stride + panel * kLanes, mask, acc[r]);
}

}  // namespace

void quantize_fine(const float* x, int64_t k, FineGroup* out) {
    for (int64_t begin = 0; begin < k; begin += kGroup, ++out) {
        const uint32_t mask = k - begin >= kGroup ? ~0u : (1u << (k - begin)) - 1;
        const __m512 parts[2] = {_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x + begin),
                                 _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + begin + 16)};
        const float top =
            _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(parts[0]), _mm512_abs_ps(parts[1])));
        const float scale = top < 0x1p-100f ? 0.0f : top / 32767.0f;
        const __m512 inverse = _mm512_set1_ps(scale == 0.0f ? 0.0f : 1.0f / scale);
        int32_t sums[2];
        for (int i = 0; i < 2; ++i) {
            const __m512i codes = _mm512_cvt_roundps_epi32(_mm512_mul_ps(parts[i], inverse),
                                                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            sums[i] = _mm512_reduce_add_epi32(codes);
            // Words 1 and 2 of every quad change places.
            __m256i words = _mm512_cvtepi32_epi16(codes);
            words = _mm256_shufflelo_epi16(words, _MM_SHUFFLE(3, 1, 2, 0));
            words = _mm256_shufflehi_epi16(words, _MM_SHUFFLE(3, 1, 2, 0));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->codes + 16 * i), words);
        }
        out->scale = scale;
        out->offset = scale * static_cast<float>(sums[0] + sums[1]);
        out->neg_sum = -(sums[0] + sums[1]);
        out->neg_low_sum = -sums[0];
    }
}

}  // namespace temper::TEMPER_ISA

#include "kernels/linear_fine.inc"
