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
// Version 4  64 rows and more: two panels at once and half as many rows, so that a broadcast quad is
//            multiplied twice. Zen 4 loads one vector a cycle and multiplies one, so a load for each
//            product was what it waited for: a prompt of 512 takes 0.86 of the time. With fewer rows it
//            gains nothing.
// Version 5  Few rows: what is fetched ahead are all bytes of the panels, not their codes alone. A fifth of
//            the lines, wherever scales lie between, had to be waited for: 1 row at 57 -> 100 % of the read
//            bandwidth of one core of a Zen 4, 62 -> 90 % of two.
// Version 6  Whoever calls says which way to go (Sweep), having asked the machine.
#include "kernels/linear.h"

#include <immintrin.h>

#include "kernels/avx512/widen.h"
#include "kernels/panel.h"

namespace temper::TEMPER_ISA {

namespace {

constexpr int kAhead = 8192;      // bytes; the next panels follow in memory, past the end is harmless
constexpr int kDirectRows = 8;    // of a tile whose codes are widened in registers
constexpr int kChunkGroups = 18;  // 23 KiB of widened codes and scales of two panels, of 32 or 48 in L1

inline __m512i broadcast4(const int8_t* codes) {
    return _mm512_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(codes));
}

// How the codes of a group become a sum: what a row does with one group of 16 outputs.
enum class Kind { plain, with_min, halves };

template <WeightFormat F>
constexpr Kind kind_of = F == WeightFormat::q6k ? Kind::halves
                         : traits_of(F).has_min ? Kind::with_min
                                                : Kind::plain;

// Rows of a tile: as many as leave its sums, in int32 and float32, in the 32 registers.
constexpr int tile_rows(Kind kind, int panels) { return (kind == Kind::halves ? 8 : 12) / panels; }

// One group of R rows and P panels: acc[r][p] += group of weights . group of row r. w(p, j) is read when
// needed, so the caller may pass registers or memory.
template <Kind K, int Zero, int R, int P, class Codes>
inline __attribute__((always_inline)) void add_group(const Codes& w, const GroupScales (&s)[P],
                                                     const ActivationGroup* const (&a)[R],
                                                     __m512 (&acc)[R][P]) {
    __m512i dot[R][P];
    const auto multiply = [&](__m512i(&sums)[R][P], int first, int last) {
#pragma GCC unroll 8
        for (int j = first; j < last; ++j) {
            __m512i wj[P];
            for (int p = 0; p < P; ++p) wj[p] = w(p, j);
            for (int r = 0; r < R; ++r) {
                const __m512i x = broadcast4(a[r]->codes + 4 * j);
                for (int p = 0; p < P; ++p) sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], wj[p], x);
            }
        }
    };
    if constexpr (K == Kind::halves) {
        __m512i high[R][P];
        for (int r = 0; r < R; ++r) {
            for (int p = 0; p < P; ++p) {
                dot[r][p] = _mm512_slli_epi32(_mm512_set1_epi32(a[r]->neg_low_sum), Zero);
                high[r][p] = _mm512_slli_epi32(_mm512_set1_epi32(a[r]->neg_sum - a[r]->neg_low_sum), Zero);
            }
        }
        multiply(dot, 0, 4);
        multiply(high, 4, 8);
        for (int r = 0; r < R; ++r) {
            const __m512 scale = _mm512_set1_ps(a[r]->scale);
            for (int p = 0; p < P; ++p) {
                acc[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][p]), _mm512_mul_ps(s[p].first, scale),
                                            acc[r][p]);
                acc[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high[r][p]), _mm512_mul_ps(s[p].second, scale),
                                            acc[r][p]);
            }
        }
        return;
    }
    for (int r = 0; r < R; ++r) {
        for (int p = 0; p < P; ++p) {
            if constexpr (Zero >= 0) {
                dot[r][p] = _mm512_slli_epi32(_mm512_set1_epi32(a[r]->neg_sum), Zero >= 0 ? Zero : 0);
            } else {
                dot[r][p] = _mm512_setzero_si512();
            }
        }
    }
    multiply(dot, 0, 8);
    for (int r = 0; r < R; ++r) {
        const __m512 scale = _mm512_set1_ps(a[r]->scale);
        for (int p = 0; p < P; ++p) {
            acc[r][p] =
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][p]), _mm512_mul_ps(s[p].first, scale), acc[r][p]);
            if constexpr (K == Kind::with_min) {
                acc[r][p] = _mm512_fmadd_ps(s[p].second, _mm512_set1_ps(a[r]->offset), acc[r][p]);
            }
        }
    }
}

template <WeightFormat F, int R>
void few_rows(const PackedMatrix& w, const PanelLayout& layout, const ActivationGroup* x, float* y,
              int64_t y_stride, int64_t panel_begin, int64_t panel_end) {
    constexpr FormatTraits traits = traits_of(F);
    constexpr int64_t kStep = bytes_per_group(traits);
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
        const uint8_t* data = w.data + panel * layout.bytes;
        __m512 acc[R][1];
        for (int r = 0; r < R; ++r) acc[r][0] = _mm512_setzero_ps();
        for (int64_t g = 0; g < layout.groups; ++g) {
            __m512i codes[8];
            const uint8_t* group = data + g * layout.group_bytes;
            for (int64_t i = 0; i < kStep; i += 64) _mm_prefetch(data + kAhead + g * kStep + i, _MM_HINT_T0);
            load_codes<traits.bits>(group, codes);
            const ActivationGroup* a[R];
            for (int r = 0; r < R; ++r) a[r] = x + r * layout.groups + g;
            const GroupScales scales[1] = {load_scales<F>(data, layout, g)};
            add_group<kind_of<F>, traits.zero_log2, R, 1>([&](int, int j) { return codes[j]; }, scales, a,
                                                          acc);
        }
        const __mmask16 mask = lane_mask(w, panel);
        for (int r = 0; r < R; ++r) {
            _mm512_mask_storeu_ps(y + r * y_stride + panel * kLanes, mask, acc[r][0]);
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

// Where the sums of a tile go: P panels side by side, whose last may have fewer outputs.
template <int P>
struct Outputs {
    float* y;
    int64_t stride;
    __mmask16 masks[P];
};

// What the next chunk is widened from: the first tile over a chunk fetches it on its way.
template <int P>
struct Ahead {
    const uint8_t* from[P];
    int64_t step;  // bytes a group; 0: nothing
};

// R rows over a chunk of P panels. Sums go on from y unless the chunk is the first. Without its loops
// unrolled GCC writes every sum to the stack after each group.
template <Kind K, int Zero, int R, int P>
void tile(const Chunk* chunks, int64_t count, const ActivationGroup* x, int64_t row_groups,
          const Outputs<P>& out, bool first, const Ahead<P>& ahead) {
    __m512 acc[R][P];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
            acc[r][p] = first ? _mm512_setzero_ps()
                              : _mm512_maskz_loadu_ps(out.masks[p], out.y + r * out.stride + p * kLanes);
        }
    }
    for (int64_t g = 0; g < count; ++g) {
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
            for (int64_t i = 0; i < ahead.step; i += 64) {
                _mm_prefetch(ahead.from[p] + g * ahead.step + i, _MM_HINT_T0);
            }
        }
        const ActivationGroup* a[R];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) a[r] = x + r * row_groups + g;
        GroupScales scales[P];
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
            scales[p] = {_mm512_load_ps(chunks[p].first[g]), _mm512_load_ps(chunks[p].second[g])};
        }
        add_group<K, Zero, R, P>([&](int p, int j) { return _mm512_load_si512(chunks[p].codes[g][j]); },
                                 scales, a, acc);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
            _mm512_mask_storeu_ps(out.y + r * out.stride + p * kLanes, out.masks[p], acc[r][p]);
        }
    }
}

template <Kind K, int Zero, int R, int P>
void tile_of(int64_t rows, const Chunk* chunks, int64_t count, const ActivationGroup* x, int64_t row_groups,
             const Outputs<P>& out, bool first, const Ahead<P>& ahead) {
    if constexpr (R > 0) {
        if (rows == R) return tile<K, Zero, R, P>(chunks, count, x, row_groups, out, first, ahead);
        tile_of<K, Zero, R - 1, P>(rows, chunks, count, x, row_groups, out, first, ahead);
    }
}

// All rows over the P panels from `panel` on.
template <WeightFormat F, int P>
void sweep_panels(const PackedMatrix& w, const PanelLayout& layout, const ActivationRows& x, float* y,
                  int64_t y_stride, int64_t panel) {
    constexpr Kind kKind = kind_of<F>;
    constexpr int kRows = tile_rows(kKind, P);
    // Tiles and chunks of even size: 32 rows as 10 + 11 + 11, not 12 + 12 + 8.
    const int64_t tiles = (x.rows + kRows - 1) / kRows;
    const int64_t parts = (layout.groups + kChunkGroups - 1) / kChunkGroups;
    Chunk chunks[P];
    Outputs<P> out{nullptr, y_stride, {}};
    for (int p = 0; p < P; ++p) out.masks[p] = lane_mask(w, panel + p);
    for (int64_t part = 0; part < parts; ++part) {
        const int64_t begin = layout.groups * part / parts;
        const int64_t end = layout.groups * (part + 1) / parts;
        Ahead<P> ahead{{}, bytes_per_group(traits_of(F))};
        for (int p = 0; p < P; ++p) {
            const uint8_t* data = w.data + (panel + p) * layout.bytes;
            widen<F>(data, layout, begin, end - begin, chunks[p]);
            ahead.from[p] = part + 1 < parts ? data + end * layout.group_bytes : data + P * layout.bytes;
        }
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t row = x.rows * t / tiles;
            out.y = y + row * y_stride + panel * kLanes;
            tile_of<kKind, traits_of(F).zero_log2, kRows, P>(
                x.rows * (t + 1) / tiles - row, chunks, end - begin, x.groups + row * layout.groups + begin,
                layout.groups, out, part == 0, ahead);
            ahead.step = 0;
        }
    }
}

// Rows in tiles of up to R; a panel is read again for each tile.
template <WeightFormat F, int R>
void direct_rows(int64_t rows, const PackedMatrix& w, const PanelLayout& layout, const ActivationGroup* x,
                 float* y, int64_t y_stride, int64_t panel_begin, int64_t panel_end) {
    for (; rows >= R; rows -= R, x += R * layout.groups, y += R * y_stride) {
        few_rows<F, R>(w, layout, x, y, y_stride, panel_begin, panel_end);
    }
    if constexpr (R > 1) direct_rows<F, R - 1>(rows, w, layout, x, y, y_stride, panel_begin, panel_end);
}

template <WeightFormat F>
void linear_quantized(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                      int64_t panel_begin, int64_t panel_end, Sweep sweep) {
    const PanelLayout layout = panel_layout(F, w.k);
    if (sweep == Sweep::direct) {
        direct_rows<F, kDirectRows>(x.rows, w, layout, x.groups, y, y_stride, panel_begin, panel_end);
        return;
    }
    int64_t panel = panel_begin;
    if (sweep == Sweep::pair) {
        for (; panel + 2 <= panel_end; panel += 2) sweep_panels<F, 2>(w, layout, x, y, y_stride, panel);
    }
    for (; panel < panel_end; ++panel) sweep_panels<F, 1>(w, layout, x, y, y_stride, panel);
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

// Pairs: with fewer rows, tiles of two panels end too soon.
constexpr SweepRows sweep_rows{0, 9, 64};

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
