// Products with activations in 16 bits in plain C++: what the vector sets are tested against.
#include "kernels/linear_fine.h"

#include "kernels/scalar/product.h"

namespace temper::TEMPER_ISA {

namespace {

// Where the code of each input stands: words 1 and 2 of every quad have changed places.
constexpr int place_of(int input) { return input % 4 == 1 ? input + 1 : input % 4 == 2 ? input - 1 : input; }

struct Places {
    int at[kGroup];
    constexpr Places() : at{} {
        for (int i = 0; i < kGroup; ++i) at[i] = place_of(i);
    }
};
constexpr Places kPlaces;

}  // namespace

void quantize_fine(const float* x, int64_t k, FineGroup* out) {
    for (int64_t begin = 0; begin < k; begin += kGroup, ++out) {
        const int count = static_cast<int>(k - begin < kGroup ? k - begin : kGroup);
        float top = 0.0f;
        for (int i = 0; i < count; ++i) {
            const float size = __builtin_fabsf(x[begin + i]);
            top = size > top ? size : top;
        }
        const float scale = top < 0x1p-100f ? 0.0f : top / 32767.0f;
        const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
        int32_t low = 0;
        int32_t high = 0;
        for (int i = 0; i < kGroup; ++i) {
            // Adding and taking away 1.5 * 2^23 rounds half to even wherever the result is small.
            const float shifted = i < count ? x[begin + i] * inverse + 0x1.8p23f : 0x1.8p23f;
            const int32_t code = static_cast<int32_t>(shifted - 0x1.8p23f);
            out->codes[place_of(i)] = static_cast<int16_t>(code);
            (i < 16 ? low : high) += code;
        }
        out->scale = scale;
        out->offset = scale * static_cast<float>(low + high);
        out->neg_sum = -(low + high);
        out->neg_low_sum = -low;
    }
}

void linear_fine(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                 int64_t panel_begin, int64_t panel_end) {
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
        multiply_panel(w, x.fine, x.rows, y, y_stride, panel, kPlaces.at);
    }
}

}  // namespace temper::TEMPER_ISA
