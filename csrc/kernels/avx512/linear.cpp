// Matrix products with AVX512-VNNI: 16 outputs are the 16 lanes, u8 weight codes times s8 activations.
//
// Version 1  Two paths. Few rows (up to 8): codes are widened in registers and used at once, so the panel
//            streams through once at the speed of memory. Many rows: a chunk of the panel is widened
//            into L1 once, then tiles of 12 rows sweep over it, each activation quad broadcast from
//            memory by the dot product itself.
// Version 2  Few rows: prefetch 8 KiB ahead, as the hardware stops at each 4 KiB page: 65 -> 88 % of the
//            read bandwidth of one core with 1 row, together with huge pages under the weights.
// Version 3  Many rows: the first tile fetches what the next chunk is widened from, so that reading and
//            multiplying overlap: 80 -> 95 % of what VNNI can multiply with 32 rows, 50 -> 64 % with 8.
//            With 5 to 8 rows, widening in registers: 75 % with 8.
#include "kernels/linear.h"

#include <immintrin.h>

#include "kernels/avx512/widen.h"
#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

namespace {

constexpr int kAhead = 8192;      // bytes; the next panels follow in memory, past the end is harmless
constexpr int kTileRows = 12;     // 12 int32 + 12 float32 accumulators of the 32 registers
constexpr int kChunkGroups = 32;  // 16 KiB of widened codes: a third of L1

__mmask16 lane_mask(const PackedMatrix& w, int64_t panel) {
    const int64_t lanes = w.n - panel * kLanes;
    return lanes >= kLanes ? 0xffff : static_cast<__mmask16>((1u << lanes) - 1);
}

inline __m512i broadcast4(const int8_t* codes) {
    return _mm512_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(codes));
}

// How the codes of a group become a sum: what a row does with one group of 16 outputs.
enum class Kind { plain, with_min, halves };

template <WeightFormat F>
constexpr Kind kind_of = F == WeightFormat::q6k ? Kind::halves
                         : traits_of(F).has_min ? Kind::with_min
                                                : Kind::plain;

// One group of R rows: acc[r] += group of weights . group of row r. w[j] is read when needed, so the
// caller may pass registers or memory.
template <Kind K, int Zero, int R, class Codes>
inline __attribute__((always_inline)) void add_group(const Codes& w, const GroupScales& s,
                                                     const ActivationGroup* const (&a)[R], __m512 (&acc)[R]) {
    __m512i dot[R];
    if constexpr (K == Kind::halves) {
        __m512i high[R];
        for (int r = 0; r < R; ++r) {
            dot[r] = _mm512_slli_epi32(_mm512_set1_epi32(a[r]->neg_low_sum), Zero);
            high[r] = _mm512_slli_epi32(_mm512_set1_epi32(a[r]->neg_sum - a[r]->neg_low_sum), Zero);
        }
        for (int j = 0; j < 4; ++j) {
            const __m512i wj = w(j);
            for (int r = 0; r < R; ++r) {
                dot[r] = _mm512_dpbusd_epi32(dot[r], wj, broadcast4(a[r]->codes + 4 * j));
            }
        }
        for (int j = 4; j < 8; ++j) {
            const __m512i wj = w(j);
            for (int r = 0; r < R; ++r) {
                high[r] = _mm512_dpbusd_epi32(high[r], wj, broadcast4(a[r]->codes + 4 * j));
            }
        }
        for (int r = 0; r < R; ++r) {
            const __m512 scale = _mm512_set1_ps(a[r]->scale);
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), _mm512_mul_ps(s.first, scale), acc[r]);
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high[r]), _mm512_mul_ps(s.second, scale), acc[r]);
        }
        return;
    }
    for (int r = 0; r < R; ++r) {
        if constexpr (Zero >= 0) {
            dot[r] = _mm512_slli_epi32(_mm512_set1_epi32(a[r]->neg_sum), Zero >= 0 ? Zero : 0);
        } else {
            dot[r] = _mm512_setzero_si512();
        }
    }
    for (int j = 0; j < 8; ++j) {
        const __m512i wj = w(j);
        for (int r = 0; r < R; ++r) {
            dot[r] = _mm512_dpbusd_epi32(dot[r], wj, broadcast4(a[r]->codes + 4 * j));
        }
    }
    for (int r = 0; r < R; ++r) {
        const __m512 scale = _mm512_mul_ps(s.first, _mm512_set1_ps(a[r]->scale));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), scale, acc[r]);
        if constexpr (K == Kind::with_min) {
            acc[r] = _mm512_fmadd_ps(s.second, _mm512_set1_ps(a[r]->offset), acc[r]);
        }
    }
}

template <WeightFormat F, int R>
void few_rows(const PackedMatrix& w, const PanelLayout& layout, const ActivationGroup* x, float* y,
              int64_t y_stride, int64_t panel_begin, int64_t panel_end) {
    constexpr FormatTraits traits = traits_of(F);
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
        const uint8_t* data = w.data + panel * layout.bytes;
        __m512 acc[R];
        for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
        for (int64_t g = 0; g < layout.groups; ++g) {
            __m512i codes[8];
            const uint8_t* group = data + g * layout.group_bytes;
            for (int i = 0; i < traits.bits; ++i) _mm_prefetch(group + kAhead + 64 * i, _MM_HINT_T0);
            load_codes<traits.bits>(group, codes);
            const ActivationGroup* a[R];
            for (int r = 0; r < R; ++r) a[r] = x + r * layout.groups + g;
            add_group<kind_of<F>, traits.zero_log2, R>([&](int j) { return codes[j]; },
                                                       load_scales<F>(data, layout, g), a, acc);
        }
        const __mmask16 mask = lane_mask(w, panel);
        for (int r = 0; r < R; ++r) {
            _mm512_mask_storeu_ps(y + r * y_stride + panel * kLanes, mask, acc[r]);
        }
    }
}

// A chunk of one panel with its codes and scales widened, for tiles of rows to sweep over.
struct Chunk {
    alignas(64) uint8_t codes[kChunkGroups][8][64];
    alignas(64) float first[kChunkGroups][kLanes];
    alignas(64) float second[kChunkGroups][kLanes];
};

template <WeightFormat F>
void widen(const uint8_t* panel, const PanelLayout& layout, int64_t begin, int64_t count, Chunk& chunk) {
    for (int64_t g = 0; g < count; ++g) {
        __m512i codes[8];
        load_codes<traits_of(F).bits>(panel + (begin + g) * layout.group_bytes, codes);
        for (int j = 0; j < 8; ++j) _mm512_store_si512(chunk.codes[g][j], codes[j]);
        const GroupScales s = load_scales<F>(panel, layout, begin + g);
        _mm512_store_ps(chunk.first[g], s.first);
        _mm512_store_ps(chunk.second[g], s.second);
    }
}

// R rows over one chunk. Sums go on from y unless the chunk is the first. On its way the first tile
// fetches the bytes that the next chunk will be widened from.
template <Kind K, int Zero, int R>
void tile(const Chunk& chunk, int64_t count, const ActivationGroup* x, int64_t row_groups, float* y,
          int64_t y_stride, bool first, __mmask16 mask, const uint8_t* ahead, int64_t ahead_step) {
    __m512 acc[R];
    for (int r = 0; r < R; ++r) {
        acc[r] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, y + r * y_stride);
    }
    for (int64_t g = 0; g < count; ++g) {
        for (int64_t i = 0; i < ahead_step; i += 64) _mm_prefetch(ahead + g * ahead_step + i, _MM_HINT_T0);
        const ActivationGroup* a[R];
        for (int r = 0; r < R; ++r) a[r] = x + r * row_groups + g;
        const GroupScales s{_mm512_load_ps(chunk.first[g]), _mm512_load_ps(chunk.second[g])};
        add_group<K, Zero, R>([&](int j) { return _mm512_load_si512(chunk.codes[g][j]); }, s, a, acc);
    }
    for (int r = 0; r < R; ++r) _mm512_mask_storeu_ps(y + r * y_stride, mask, acc[r]);
}

template <Kind K, int Zero, int R>
void tile_of(int64_t rows, const Chunk& chunk, int64_t count, const ActivationGroup* x, int64_t row_groups,
             float* y, int64_t y_stride, bool first, __mmask16 mask, const uint8_t* ahead,
             int64_t ahead_step) {
    if constexpr (R > 0) {
        if (rows == R) {
            return tile<K, Zero, R>(chunk, count, x, row_groups, y, y_stride, first, mask, ahead, ahead_step);
        }
        tile_of<K, Zero, R - 1>(rows, chunk, count, x, row_groups, y, y_stride, first, mask, ahead,
                                ahead_step);
    }
}

template <WeightFormat F>
void many_rows(const PackedMatrix& w, const PanelLayout& layout, const ActivationRows& x, float* y,
               int64_t y_stride, int64_t panel_begin, int64_t panel_end) {
    constexpr int kZero = traits_of(F).zero_log2;
    // Tiles of even size: 32 rows as 11 + 11 + 10, not 12 + 12 + 8.
    const int64_t tiles = (x.rows + kTileRows - 1) / kTileRows;
    Chunk chunk;
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
        const uint8_t* data = w.data + panel * layout.bytes;
        const __mmask16 mask = lane_mask(w, panel);
        for (int64_t begin = 0; begin < layout.groups; begin += kChunkGroups) {
            const int64_t left = layout.groups - begin;
            const int64_t count = left < kChunkGroups ? left : kChunkGroups;
            widen<F>(data, layout, begin, count, chunk);
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t row = x.rows * t / tiles;
                const int64_t rows = x.rows * (t + 1) / tiles - row;
                tile_of<kind_of<F>, kZero, kTileRows>(
                    rows, chunk, count, x.groups + row * layout.groups + begin, layout.groups,
                    y + row * y_stride + panel * kLanes, y_stride, begin == 0, mask,
                    data + begin * layout.group_bytes +
                        (left > count ? count * layout.group_bytes : layout.bytes),
                    t == 0 ? layout.group_bytes + traits_of(F).scale_bytes : 0);
            }
        }
    }
}

template <WeightFormat F>
void linear_quantized(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                      int64_t panel_begin, int64_t panel_end) {
    const PanelLayout layout = panel_layout(F, w.k);
    switch (x.rows) {
        case 1:
            return few_rows<F, 1>(w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        case 2:
            return few_rows<F, 2>(w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        case 3:
            return few_rows<F, 3>(w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        case 4:
            return few_rows<F, 4>(w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        case 5:
            return few_rows<F, 5>(w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        case 6:
            return few_rows<F, 6>(w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        case 7:
            return few_rows<F, 7>(w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        case 8:
            return few_rows<F, 8>(w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        default:
            return many_rows<F>(w, layout, x, y, y_stride, panel_begin, panel_end);
    }
}

template <WeightFormat F>
inline __m512 load_values(const uint8_t* panel, int64_t input) {
    if constexpr (F == WeightFormat::f32) {
        return _mm512_load_ps(panel + 64 * input);
    } else if constexpr (F == WeightFormat::f16) {
        return load_half(panel + 32 * input);
    } else {
        const __m256i half = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 32 * input));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
}

// R rows over P panels at once: the chains of additions along k are as many as hide their latency.
template <WeightFormat F, int R, int P>
void float_tile(const PackedMatrix& w, const float* x, int64_t x_stride, float* y, int64_t y_stride,
                int64_t panel) {
    __m512 acc[P][R];
    for (int p = 0; p < P; ++p) {
        for (int r = 0; r < R; ++r) acc[p][r] = _mm512_setzero_ps();
    }
    const uint8_t* data = w.data + panel * w.panel_bytes;
    for (int64_t i = 0; i < w.k; ++i) {
        __m512 values[P];
        for (int p = 0; p < P; ++p) values[p] = load_values<F>(data + p * w.panel_bytes, i);
        for (int r = 0; r < R; ++r) {
            const __m512 xi = _mm512_set1_ps(x[r * x_stride + i]);
            for (int p = 0; p < P; ++p) acc[p][r] = _mm512_fmadd_ps(values[p], xi, acc[p][r]);
        }
    }
    for (int p = 0; p < P; ++p) {
        const __mmask16 mask = lane_mask(w, panel + p);
        for (int r = 0; r < R; ++r) {
            _mm512_mask_storeu_ps(y + r * y_stride + (panel + p) * kLanes, mask, acc[p][r]);
        }
    }
}

template <WeightFormat F, int P>
void float_rows(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride, int64_t panel) {
    int64_t row = 0;
    while (row < x.rows) {
        const float* in = x.f32 + row * x.f32_stride;
        float* out = y + row * y_stride;
        const int64_t left = x.rows - row;
        if (left >= 6) {
            float_tile<F, 6, P>(w, in, x.f32_stride, out, y_stride, panel);
            row += 6;
        } else if (left >= 3) {
            float_tile<F, 3, P>(w, in, x.f32_stride, out, y_stride, panel);
            row += 3;
        } else {
            float_tile<F, 1, P>(w, in, x.f32_stride, out, y_stride, panel);
            row += 1;
        }
    }
}

template <WeightFormat F>
void linear_float(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                  int64_t panel_begin, int64_t panel_end) {
    int64_t panel = panel_begin;
    for (; panel + 4 <= panel_end; panel += 4) float_rows<F, 4>(w, x, y, y_stride, panel);
    for (; panel < panel_end; ++panel) float_rows<F, 1>(w, x, y, y_stride, panel);
}

inline __m512i quantize16(__m512 x, __m512 inverse) {
    return _mm512_cvt_roundps_epi32(_mm512_mul_ps(x, inverse), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

}  // namespace

void quantize_rows(const float* x, int64_t x_stride, int64_t rows, int64_t k, ActivationGroup* out) {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t begin = 0; begin < k; begin += kGroup, ++out) {
            const float* values = x + r * x_stride + begin;
            const uint32_t mask = k - begin >= kGroup ? ~0u : (1u << (k - begin)) - 1;
            const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), values);
            const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), values + 16);
            const float top = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
            const float scale = top < 0x1p-100f ? 0.0f : top / 127.0f;
            const __m512 inverse = _mm512_set1_ps(scale == 0.0f ? 0.0f : 1.0f / scale);
            const __m512i low_codes = quantize16(low, inverse);
            const __m512i high_codes = quantize16(high, inverse);
            auto* codes = reinterpret_cast<__m128i*>(out->codes);
            _mm_storeu_si128(codes, _mm512_cvtepi32_epi8(low_codes));
            _mm_storeu_si128(codes + 1, _mm512_cvtepi32_epi8(high_codes));
            const int32_t low_sum = _mm512_reduce_add_epi32(low_codes);
            const int32_t sum = low_sum + _mm512_reduce_add_epi32(high_codes);
            out->scale = scale;
            out->offset = scale * static_cast<float>(sum);
            out->neg_sum = -sum;
            out->neg_low_sum = -low_sum;
        }
    }
}

void linear(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride, int64_t panel_begin,
            int64_t panel_end) {
    with_format(w.format, [&](auto format) {
        if constexpr (is_float(format())) {
            linear_float<format()>(w, x, y, y_stride, panel_begin, panel_end);
        } else {
            linear_quantized<format()>(w, x, y, y_stride, panel_begin, panel_end);
        }
    });
}

}  // namespace temper::TEMPER_ISA
