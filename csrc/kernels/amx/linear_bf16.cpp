// Matrix products in bf16 on tiles; see linear_bf16.h for the arithmetic and the versions.
#include "kernels/linear_bf16.h"

#include <immintrin.h>

#include "kernels/amx/tiles.h"
#include "kernels/amx/transpose.h"
#include "kernels/amx/widen.h"

namespace temper::TEMPER_ISA {

namespace {

constexpr int64_t kFewGroups = 4;    // of each panel widened at a time for a few rows: 8 KiB of L1
constexpr int64_t kWide = 48;        // likewise for many rows: 96 KiB of L2
constexpr int64_t kChunk = 9;        // groups that many rows take before the next: 18 KiB of L1
constexpr int64_t kBlockTiles = 8;   // tiles of rows whose sums wait for the next chunk: 16 KiB of L1
constexpr int64_t kSweepTiles = 32;  // tiles of rows that share one widening
constexpr int64_t kTileFloats = 16 * 16;

// Sums of one panel and one tile of rows, [16 outputs][16 rows], to rows of y.
void write_rows(const float* sums, int64_t rows, __mmask16 lanes, float* y, int64_t y_stride) {
    if (rows <= 4) {
        const __m512i column =
            _mm512_slli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 4);
        for (int64_t r = 0; r < rows; ++r) {
            _mm512_mask_storeu_ps(y + r * y_stride, lanes, _mm512_i32gather_ps(column, sums + r, 4));
        }
        return;
    }
    __m512i m[16];
    for (int i = 0; i < 16; ++i) m[i] = _mm512_load_si512(sums + 16 * i);
    transpose_16(m);
    for (int64_t r = 0; r < rows; ++r) {
        _mm512_mask_storeu_epi32(y + r * y_stride, lanes, m[r]);
    }
}

// Where the weights of some groups of P panels lie widened: in `tiles`, or as they are where they need none.
template <WeightFormat F, int P>
struct Wide {
    static constexpr bool kStored = F == WeightFormat::bf16;
    const uint8_t* tile[P];

    // Groups [begin, begin + count) of panels at data, data + panel_bytes.
    Wide(const uint8_t* data, const PanelLayout& layout, int64_t begin, int64_t count, uint8_t* tiles) {
        for (int p = 0; p < P; ++p) {
            const uint8_t* panel = data + p * layout.bytes;
            if constexpr (kStored) {
                tile[p] = panel + begin * kTileBytes;
                for (int64_t i = 0; i < count * kTileBytes; i += 64) {
                    _mm_prefetch(tile[p] + kAhead + i, _MM_HINT_T0);
                }
            } else {
                uint8_t* out = tiles + p * count * kTileBytes;
                tile[p] = out;
                widen<F>(panel, layout, begin, count, out);
            }
        }
        // GCC's loads of tiles do not say that they read memory: the stores must be done by now.
        asm volatile("" : : "r"(tiles) : "memory");
    }
};

// Sums of P panels and T tiles of rows go on over `count` groups; tile p * T + t holds those of p and t.
template <int P, int T>
TEMPER_TILE_INLINE void multiply(const uint8_t* const (&weights)[P], const uint16_t* const (&rows)[T],
                                 int64_t count) {
    for (int64_t g = 0; g < count; ++g) {
        _tile_loadd(4, weights[0] + g * kTileBytes, 64);
        _tile_loadd(6, rows[0] + g * kTileBytes / 2, 64);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (T == 2) {
            _tile_loadd(7, rows[1] + g * kTileBytes / 2, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (P == 2) {
            _tile_loadd(5, weights[1] + g * kTileBytes, 64);
            if constexpr (T == 2) {
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            } else {
                _tile_dpbf16ps(1, 5, 6);
            }
        }
    }
}

TEMPER_TILE_INLINE void clear_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

template <int Count>
TEMPER_TILE_INLINE void store_sums(float* sums) {
    _tile_stored(0, sums, 64);
    if constexpr (Count > 1) _tile_stored(1, sums + kTileFloats, 64);
    if constexpr (Count > 2) {
        _tile_stored(2, sums + 2 * kTileFloats, 64);
        _tile_stored(3, sums + 3 * kTileFloats, 64);
    }
}

template <int Count>
TEMPER_TILE_INLINE void load_sums(const float* sums) {
    _tile_loadd(0, sums, 64);
    if constexpr (Count > 1) _tile_loadd(1, sums + kTileFloats, 64);
    if constexpr (Count > 2) {
        _tile_loadd(2, sums + 2 * kTileFloats, 64);
        _tile_loadd(3, sums + 3 * kTileFloats, 64);
    }
}

struct Work {
    const PackedMatrix& w;
    const PanelLayout layout;
    const ActivationRows& x;
    float* y;
    int64_t y_stride;

    const uint16_t* rows(int64_t tile, int64_t group) const {
        return x.tiles + (tile * layout.groups + group) * kTileBytes / 2;
    }
    void write(const float* sums, int64_t panel, int64_t tile) const {
        const int64_t left = w.n - panel * kLanes, rows_left = x.rows - tile * kRowTile;
        const auto lanes =
            left >= kLanes ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << left) - 1);
        write_rows(sums, rows_left < kRowTile ? rows_left : kRowTile, lanes,
                   y + tile * kRowTile * y_stride + panel * kLanes, y_stride);
    }
};

// All rows, T tiles of them, with P panels: sums stay in their tiles.
template <WeightFormat F, int P, int T>
void few_rows(const Work& work, int64_t panel) {
    alignas(64) uint8_t tiles[P * kFewGroups * kTileBytes];
    alignas(64) float sums[P * T * kTileFloats];
    const PanelLayout& layout = work.layout;
    const uint8_t* data = work.w.data + panel * layout.bytes;
    clear_sums();
    for (int64_t g = 0; g < layout.groups; g += kFewGroups) {
        const int64_t left = layout.groups - g, count = left < kFewGroups ? left : kFewGroups;
        const Wide<F, P> wide(data, layout, g, count, tiles);
        const uint16_t* rows[T];
        for (int t = 0; t < T; ++t) rows[t] = work.rows(t, g);
        multiply<P, T>(wide.tile, rows, count);
    }
    store_sums<P * T>(sums);
    for (int p = 0; p < P; ++p) {
        for (int t = 0; t < T; ++t) work.write(sums + (p * T + t) * kTileFloats, panel + p, t);
    }
}

// T tiles of rows from `tile` on over one chunk of P panels; sums go on from `sums` unless it is the first.
template <int P, int T>
void sweep(const Work& work, const uint8_t* const (&weights)[P], int64_t panel, int64_t tile, int64_t group,
           int64_t count, float* sums) {
    if (group == 0) {
        clear_sums();
    } else {
        load_sums<P * T>(sums);
    }
    const uint16_t* rows[T];
    for (int t = 0; t < T; ++t) rows[t] = work.rows(tile + t, group);
    multiply<P, T>(weights, rows, count);
    store_sums<P * T>(sums);
    if (group + count < work.layout.groups) return;
    for (int p = 0; p < P; ++p) {
        for (int t = 0; t < T; ++t) work.write(sums + (p * T + t) * kTileFloats, panel + p, tile + t);
    }
}

// Part `index` of `parts` even ones of [0, count).
struct Span {
    int64_t begin, count;
    Span(int64_t all, int64_t index, int64_t parts)
        : begin(all * index / parts), count(all * (index + 1) / parts - begin) {}
};

constexpr int64_t parts_of(int64_t count, int64_t most) { return (count + most - 1) / most; }

template <WeightFormat F, int P>
void many_rows(const Work& work, int64_t panel) {
    alignas(64) uint8_t tiles[P * kWide * kTileBytes];
    alignas(64) float sums[P * kSweepTiles * kTileFloats];
    const PanelLayout& layout = work.layout;
    const uint8_t* data = work.w.data + panel * layout.bytes;
    const int64_t row_tiles = parts_of(work.x.rows, kRowTile);
    // Tiles [tile, tile + count) of rows over some groups, a chunk at a time.
    const auto block = [&](const Wide<F, P>& wide, const Span& groups, int64_t tile, int64_t count,
                           float* into) {
        const int64_t chunks = parts_of(groups.count, kChunk);
        for (int64_t c = 0; c < chunks; ++c) {
            const Span chunk(groups.count, c, chunks);
            const uint8_t* weights[P];
            for (int p = 0; p < P; ++p) weights[p] = wide.tile[p] + chunk.begin * kTileBytes;
            const int64_t begin = groups.begin + chunk.begin;
            int64_t t = 0;
            for (; t + 2 <= count; t += 2) {
                sweep<P, 2>(work, weights, panel, tile + t, begin, chunk.count, into + t * P * kTileFloats);
            }
            if (t < count) {
                sweep<P, 1>(work, weights, panel, tile + t, begin, chunk.count, into + t * P * kTileFloats);
            }
        }
    };
    for (int64_t first = 0; first < row_tiles; first += kSweepTiles) {
        const int64_t last = first + kSweepTiles < row_tiles ? first + kSweepTiles : row_tiles;
        const int64_t widenings = parts_of(layout.groups, kWide);
        for (int64_t w = 0; w < widenings; ++w) {
            const Span groups(layout.groups, w, widenings);
            const Wide<F, P> wide(data, layout, groups.begin, groups.count, tiles);
            for (int64_t t = first; t < last; t += kBlockTiles) {
                block(wide, groups, t, last - t < kBlockTiles ? last - t : kBlockTiles,
                      sums + (t - first) * P * kTileFloats);
            }
        }
    }
}

template <WeightFormat F, int P>
void run_panels(const Work& work, int64_t panel) {
    if (work.x.rows <= kRowTile) return few_rows<F, P, 1>(work, panel);
    if (work.x.rows <= 2 * kRowTile) return few_rows<F, P, 2>(work, panel);
    many_rows<F, P>(work, panel);
}

template <WeightFormat F>
void run(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride, int64_t panel_begin,
         int64_t panel_end) {
    PanelLayout layout = panel_layout(F, w.k);
    layout.groups = tiles_of(w.k);
    layout.bytes = w.panel_bytes;
    const Work work{w, layout, x, y, y_stride};
    int64_t panel = panel_begin;
    for (; panel + 2 <= panel_end; panel += 2) run_panels<F, 2>(work, panel);
    if (panel < panel_end) run_panels<F, 1>(work, panel);
}

// 32 inputs of one row from `begin` on, those below k; the others are 0.
TEMPER_TILE_INLINE __m512i group_of_row(const float* row, int64_t begin, int64_t k) {
    const int64_t left = k - begin;
    const uint32_t mask = left >= kGroup ? ~0u : (1u << left) - 1;
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), row + begin);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), row + begin + 16);
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

}  // namespace

void pack_bf16(const float* x, int64_t x_stride, int64_t first, int64_t rows, int64_t k, uint16_t* tile) {
    if (rows > 4) {  // a whole tile: pairs of inputs of all rows at once
        const __mmask16 columns = static_cast<__mmask16>(((1u << rows) - 1) << first);
        for (int64_t begin = 0; begin < k; begin += kGroup, tile += kTileBytes / 2) {
            __m512i m[16];
            for (int64_t r = 0; r < kRowTile; ++r) {
                const int64_t row = r - first;
                m[r] = row >= 0 && row < rows ? group_of_row(x + row * x_stride, begin, k)
                                              : _mm512_setzero_si512();
            }
            transpose_16(m);
            for (int i = 0; i < 16; ++i) _mm512_mask_storeu_epi32(tile + 32 * kPlaceOf[i], columns, m[i]);
        }
        return;
    }
    const __m512i place = _mm512_slli_epi32(_mm512_loadu_si512(kPlaceOf), 4);
    for (int64_t begin = 0; begin < k; begin += kGroup, tile += kTileBytes / 2) {
        for (int64_t r = 0; r < rows; ++r) {
            _mm512_i32scatter_epi32(tile + 2 * (first + r), place, group_of_row(x + r * x_stride, begin, k),
                                    4);
        }
    }
}

void linear_bf16(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                 int64_t panel_begin, int64_t panel_end) {
    if (x.rows == 0 || panel_begin >= panel_end) return;
    const TileUse use;
    with_format(w.format, [&](auto format) {
        // Float32 and float16 are multiplied in float32.
        if constexpr (format() != WeightFormat::f32 && format() != WeightFormat::f16) {
            run<format()>(w, x, y, y_stride, panel_begin, panel_end);
        }
    });
}

}  // namespace temper::TEMPER_ISA
