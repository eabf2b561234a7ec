// The kernels of one ISA, as a table of functions. Each ISA folder fills one (`table.inc`);
// `best_kernel_set` picks the widest that this CPU and its operating system have.
//
// All sets give the same bits. What a kernel must keep for that: matrix products run along k in order
// with one accumulator per output (see linear.h); reductions inside a row run over 16 lanes (lane i
// takes elements i, i + 16, ...), which are folded in a fixed order.
//
// To add a kernel: declare it in a header of its own under `namespace temper::TEMPER_ISA` (like
// linear.h), define it in every ISA folder, add its pointer here under its owner's heading, and name
// it in `table.inc`. Kernel files are compiled with their ISA's flags, so they must not
// instantiate std:: templates or call inline functions from outside their own namespace: the linker
// keeps one copy of such a symbol for all, and might keep one that this CPU cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace temper {

constexpr int64_t kLanes = 16;        // outputs in a panel
constexpr int64_t kGroup = 32;        // inputs that share an activation scale
constexpr int64_t kSuperGroup = 256;  // inputs that share the f16 scales of a K-quant
constexpr int64_t kRowTile = 16;      // rows of activations that are packed together for bf16

// How a weight matrix [n, k] stores its numbers. Every format is exact with respect to its source.
enum class WeightFormat : int32_t {
    f32,
    f16,
    bf16,
    q8,   // int8, one f16 scale per 32: Q8_0
    q4,   // unsigned 4 bit, f16 scale per 32, zero point 8: Q4_0
    q4m,  // unsigned 4 bit, f16 scale and f16 minimum per 32: Q4_1
    q5,   // unsigned 5 bit, f16 scale per 32, zero point 16: Q5_0
    q5m,  // unsigned 5 bit, f16 scale and f16 minimum per 32: Q5_1
    q4k,  // 4 bit, groups of 32 with 6-bit scales and minima under f16 pairs per 256: Q4_K
    q5k,  // 5 bit, likewise: Q5_K
    q6k,  // 6 bit, zero point 32, groups of 16 with int8 scales under one f16 per 256: Q6_K
};

constexpr size_t kNumFormats = static_cast<size_t>(WeightFormat::q6k) + 1;

static inline constexpr bool is_float(WeightFormat format) { return format <= WeightFormat::bf16; }

// Ways through a product of quantized weights. All give the same bits; which is the fastest depends on the
// number of rows, the format and the CPU.
enum class Sweep : int32_t {
    direct,  // codes are widened in registers and used at once: the weights stream through
    panel,   // a chunk of a panel is widened into L1 once, then tiles of rows sweep over it
    pair,    // likewise of two panels at a time, with half as many rows in a tile
};
constexpr size_t kSweeps = 3;
constexpr int64_t kNoRows = INT64_MAX;

// Rows from which on each sweep is taken; kNoRows: not at all. A later one that is reached wins.
using SweepRows = int64_t[kSweeps];

static inline constexpr Sweep sweep_for(const int64_t* from, int64_t rows) {
    size_t sweep = kSweeps - 1;
    while (sweep > 0 && rows < from[sweep]) --sweep;
    return static_cast<Sweep>(sweep);
}

// A weight matrix packed once at load in the order in which the kernels read it: panels of 16 outputs
// (the lanes), inside a panel group after group along k. n is padded to 16 with zeros. panel.h says
// where each byte lies.
struct PackedMatrix {
    WeightFormat format;
    bool in_tiles;  // stored in bf16 and packed for linear_bf16.h alone (tile.h)
    int64_t n;      // outputs
    int64_t k;      // inputs
    int64_t panel_bytes;
    const uint8_t* data;  // 64-byte aligned

    int64_t panels() const { return (n + kLanes - 1) / kLanes; }
};

// 32 activations of one row in the grid that quantized matrices want: value = codes[i] * scale.
struct ActivationGroup {
    int8_t codes[kGroup];  // -127 .. 127; zeros past the end of the row
    float scale;           // max|x| / 127
    float offset;          // scale * float(sum of codes): what a weight's minimum is multiplied by
    int32_t neg_sum;       // minus the sum of codes: times a zero point, where a kernel starts counting
    int32_t neg_low_sum;   // minus the sum of the first 16 codes
};
static_assert(sizeof(ActivationGroup) == 48);

// The same in 16 bits; see linear_fine.h.
struct FineGroup {
    int16_t codes[kGroup];  // -32767 .. 32767, of each four inputs in the order 0 2 1 3; zeros past the end
                            // of the row
    float scale;            // max|x| / 32767
    float offset;
    int32_t neg_sum;
    int32_t neg_low_sum;
};
static_assert(sizeof(FineGroup) == 80);

// Rows of activations. Products in bf16 read `tiles`, others of quantized matrices `groups` or `fine`, of
// float ones `f32`; a caller fills what the products it will ask for need.
struct ActivationRows {
    int64_t rows;
    int64_t k;
    const float* f32;                 // row r begins at f32 + r * f32_stride
    int64_t f32_stride;               // in elements
    const ActivationGroup* groups;    // [rows, activation_groups(k)]
    const FineGroup* fine = nullptr;  // likewise
    const uint16_t* tiles = nullptr;  // [rows / 16, rounded up][activation_groups(k)][16 pairs][16 rows][2]
};

static inline constexpr int64_t activation_groups(int64_t k) { return (k + kGroup - 1) / kGroup; }

// One split of the key axis for one tile of queries; see attention.h.
constexpr int64_t kSplit = 256;
constexpr int64_t kTileRows = 16;

struct AttentionSplit {
    const float* q;  // [rows][head_dim], scaled
    int64_t rows;
    int64_t head_dim;
    int64_t block_tokens;  // multiple of 16, divides kSplit
    bool half;             // pages hold f16, else f32
    // Positions count from the beginning of the split, 0 to kSplit.
    const void* const* k_pages;  // of this key/value head, page of position p at [p / block_tokens]
    const void* const* v_pages;
    int64_t begin, end;        // positions to look at
    const int32_t* row_begin;  // [rows] first position that each row may see, may lie outside the split
    const int32_t* row_end;    // [rows] one past the last, likewise
    float* scores;             // scratch [kTileRows][kSplit]
    float* top;                // out [rows]: largest score, -inf for a row that sees nothing here
    float* sum;                // out [rows]: of exp(score - top)
    float* values;             // out [rows][head_dim]: values weighted by them
};

constexpr int64_t kMassBlock = 1024;  // logits per partial sum of `masses`

struct KernelSet {
    const char* name;  // scalar, avx2, avx512, amx

    // --- rows.h -------------------------------------------------------------------------------------
    void (*rms_norm)(const float* x, const float* w, int64_t n, float eps, float* y);
    void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);
    void (*add)(const float* a, const float* b, int64_t n, float* y);
    void (*rotate)(const float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim,
                   bool interleaved, float* y);
    void (*kv_store)(const float* k, const float* v, int64_t kv_heads, int64_t head_dim, int64_t block_tokens,
                     int64_t place, bool half, void* k_page, void* v_page);
    float (*max_value)(const float* z, int64_t n);
    int64_t (*masses)(const float* z, int64_t n, float top, float inverse_temperature, float* w,
                      int64_t* block_mass);
    int64_t (*collect)(const float* w, int64_t n, float threshold, int32_t* ids, int64_t capacity);

    // --- attention.h --------------------------------------------------------------------------------
    void (*attention_split)(const AttentionSplit& split);
    void (*attention_merge)(float top, float sum, const float* values, int64_t head_dim, float* total_top,
                            float* total_sum, float* total_values);
    void (*attention_finish)(const float* values, float sum, int64_t head_dim, float* out);

    // --- linear.h -----------------------------------------------------------------------------------
    // Quantize rows of k floats (row r at x + r * x_stride) into out [rows, activation_groups(k)].
    void (*quantize_rows)(const float* x, int64_t x_stride, int64_t rows, int64_t k, ActivationGroup* out);
    // y[r * y_stride + i] = row r . weight row i, for all rows and the outputs i of panels
    // [panel_begin, panel_end). Never writes past y[... + n - 1]. Threads split the panels between them.
    // Float weights and sweeps that a set has not (kNoRows in `sweep_rows`) go the way that is there.
    void (*linear)(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                   int64_t panel_begin, int64_t panel_end, Sweep sweep);
    // Where the machine was not asked (kernels/sweeps.py).
    const int64_t* sweep_rows;  // SweepRows

    // --- linear_fine.h ------------------------------------------------------------------------------
    // One row of k floats.
    void (*quantize_fine)(const float* x, int64_t k, FineGroup* out);
    // As `linear`, of quantized weights.
    void (*linear_fine)(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                        int64_t panel_begin, int64_t panel_end);

    // --- linear_bf16.h ------------------------------------------------------------------------------
    void (*pack_bf16)(const float* x, int64_t x_stride, int64_t first, int64_t rows, int64_t k,
                      uint16_t* tile);
    void (*linear_bf16)(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                        int64_t panel_begin, int64_t panel_end);

    // --- peak.h -------------------------------------------------------------------------------------
    int64_t (*peak_int8)(int64_t rounds);
    int64_t (*peak_bf16)(int64_t rounds);
    int64_t (*peak_f32)(int64_t rounds);
};

// The set of that name, or nullptr where this build or this CPU lacks it.
const KernelSet* kernel_set(const char* name);

// The widest set that runs here.
const KernelSet& best_kernel_set();

}  // namespace temper
